"""The runtime's client: it opens a session, polls for jobs, and posts schemas and results, over the runtime routes."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from cmemu_nb.clients.http import Exchange, HttpClient, wire_error
from cmemu_nb.clients.received_job import ReceivedJob
from cmemu_nb.tokens import Token
from cmemu_nb.wire.paths import IN_THIS_KERNEL, MAX_WAIT_SECONDS, MODULE_HEADER, PLATFORM, RUNTIMES

if TYPE_CHECKING:
    from cmemu_nb.clients.http import Reply
    from cmemu_nb.lifecycle.records import Runtime

JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


class RuntimeClient:
    """The runtime's side of the protocol, over HTTP. Its methods run on the emulator's event loop.

    They raise the error with which the emulator answers, and `NotRunning` if the connection is closed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = HttpClient(url)
        self._token: dict[str, Token] = {}
        self._paths: dict[str, str] = {}

    async def open_session(self, runtime_id: str, deployed_app_rid: str, display_name: str) -> None:
        """Register the runtime and bind it to an app."""
        fields = {"runtimeId": runtime_id, "deployedAppRid": deployed_app_rid, "displayName": display_name}
        reply = await self._send("POST", RUNTIMES, json.dumps(fields).encode(), JSON)
        self._use(msgspec.json.decode(reply.body, type=dict[str, str]))

    def join(self, runtime: Runtime) -> None:
        """Continue a session that was opened elsewhere."""
        self._use(runtime.session_answer(self._url))

    def join_as_replica(self, token: str) -> None:
        """Act as a replica, over the platform routes: its token alone says which one, and which runtime's."""
        self._token = {MODULE_HEADER: Token(token)}
        paths = {"getJobUri": "job", "postResultUri": "results", "postSchemaUri": "schemas"}
        self._paths = {name: f"{PLATFORM}/{path}" for name, path in paths.items()}

    def _use(self, answer: dict[str, str]) -> None:
        self._token = {MODULE_HEADER: Token(answer["moduleAuthToken"])}
        self._paths = {name: urlsplit(uri).path for name, uri in answer.items() if name.endswith("Uri")}

    async def next_job(self) -> ReceivedJob | None:
        """Wait for a job for at most a minute and return it; None if no job was queued."""
        headers = {"Prefer": f"wait={MAX_WAIT_SECONDS}", "User-Agent": IN_THIS_KERNEL}
        reply = await self._send("GET", self._paths["getJobUri"], headers=headers)
        return ReceivedJob(reply.body) if reply.body else None

    async def post_schemas(self, schemas: list[dict[str, Any]]) -> None:
        """Add or update functions' schemas."""
        await self._send("POST", self._paths["postSchemaUri"], json.dumps(schemas).encode(), JSON)

    async def delete_schema(self, function_name: str) -> None:
        """Delete a function's schema."""
        await self._send("DELETE", f"{self._paths['postSchemaUri']}/{quote(function_name, safe='')}")

    async def post_result(self, job_id: str, result: bytes) -> None:
        """Post the result of a job in one piece; an empty one, which only a stream can have, as a stream."""
        if result:
            await self._send("POST", self._result_path(job_id), result, BYTES)
            return
        reply = await (await self.stream_result(job_id)).end()
        if reply.status != HTTPStatus.NO_CONTENT:
            raise wire_error(reply)

    async def stream_result(self, job_id: str) -> Exchange:
        """Begin to post the result of a job in chunks."""
        return await self._http.begin("POST", self._result_path(job_id), {**self._token, **BYTES})

    async def fail(self, job_id: str, reason: str) -> None:
        """Fail a job."""
        path = f"{self._paths['getJobUri']}s/{quote(job_id, safe='')}/fail"
        await self._send("POST", path, json.dumps({"reason": reason}).encode(), JSON)

    def close(self) -> None:
        """Close all connections, including those of requests in progress, and refuse new ones."""
        self._http.end()

    def _result_path(self, job_id: str) -> str:
        return f"{self._paths['postResultUri']}/{quote(job_id, safe='')}"

    async def _send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        reply = await self._http.request(method, path, {**self._token, **(headers or {})}, body)
        if reply.status not in (200, 204):
            raise wire_error(reply)
        return reply
