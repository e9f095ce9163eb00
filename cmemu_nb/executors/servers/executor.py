"""The executor of a server module: it takes jobs, sends each to the server as a request, and posts the answers."""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cmemu_nb.clients.http import HttpClient
from cmemu_nb.clients.received_job import not_posted
from cmemu_nb.clients.runtime import RuntimeClient
from cmemu_nb.errors import CmemuError, InjectedFault, InvalidModuleAuthToken, JournalBehind, NotRunning
from cmemu_nb.executors.servers.operations import BadInput
from cmemu_nb.executors.servers.server import ADDRESSES
from cmemu_nb.lifecycle.events import STOPS_JOB
from cmemu_nb.tracebacks import in_one_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cmemu_nb.clients.http import Reply
    from cmemu_nb.clients.received_job import ReceivedJob
    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.servers.operations import Operation
    from cmemu_nb.executors.servers.server import Server
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.session import Replica

T = TypeVar("T")

PROBE_SECONDS = 0.05
RETRY_SECONDS = 1.0
MAX_POSTS = 5
MAX_SHOWN_OF_A_BODY = 10_000
# The answer that the official SDKs give, too.
UNKNOWN = "Unknown query type"


class ServerExecutor:
    """Serves the functions of one server as a replica of its runtime. It is used on the emulator's loop.

    It posts the schemas at once, and polls for jobs as soon as the server listens.
    """

    def __init__(self, engine: Engine, server: Server, replica: Replica) -> None:
        self._engine = engine
        self._server = server
        self._address = ADDRESSES[0]
        self._client = RuntimeClient(engine.url)
        self._client.join_as_replica(replica.token)
        self._requests: dict[asyncio.Task[None], str] = {}
        self._unsubscribe = engine.lifecycle.events.subscribe(self._on_event)
        self._polling = engine.home.loop.create_task(self._serve())

    def end(self) -> None:
        """Stop polling, and break off the requests that are under way."""
        self._unsubscribe()
        self._polling.cancel()
        for task in list(self._requests):
            task.cancel()
        self._client.close()

    def _on_event(self, event: Event) -> None:
        """Break off the request of a job that was ended from outside."""
        if event.kind in STOPS_JOB:
            for task in [each for each, job_id in self._requests.items() if job_id == event.job_id]:
                task.cancel()

    async def _serve(self) -> None:
        with contextlib.suppress(InvalidModuleAuthToken):  # the replica has ended, or its session was reset
            await self._post_schemas()
            await self._until_listening()
            while True:
                self._start(await self._next_job())

    async def _post_schemas(self) -> None:
        schemas = [operation.schema for operation in self._server.operations.values()]
        await self._until_accepted(lambda: self._client.post_schemas(schemas))

    async def _until_listening(self) -> None:
        while True:
            for address in ADDRESSES:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(address, self._server.port)
                    writer.close()
                    self._address = address
                    return
            await asyncio.sleep(PROBE_SECONDS)

    async def _next_job(self) -> ReceivedJob:
        while True:
            job = await self._until_accepted(self._client.next_job)
            if job is not None:
                return job

    async def _until_accepted(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send a request again until the emulator accepts it: an injected fault or a limit may refuse it."""
        while True:
            try:
                return await send()
            except InvalidModuleAuthToken:
                raise
            except CmemuError:
                await asyncio.sleep(RETRY_SECONDS)

    def _start(self, job: ReceivedJob) -> None:
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._requests[task] = job.job_id
        task.add_done_callback(self._requests.pop)

    async def _run(self, job: ReceivedJob) -> None:
        operation = self._server.operations.get(job.query_type)
        try:
            result = _error(UNKNOWN) if operation is None else await self._result(operation, job)
        except Exception as error:  # noqa: BLE001 - a job must end after any error
            result = _error(in_one_line(error))
        await self._post(job.job_id, result)

    async def _result(self, operation: Operation, job: ReceivedJob) -> bytes:
        """Return the server's answer, or an error object if it is not the JSON of a success."""
        request = f"{operation.method} {self._server.url}{operation.path}"
        try:
            async with asyncio.timeout(self._server.timeout):
                reply = await self._send(operation, job)
        except BadInput as error:
            return _error(f"{request} was not sent: {error}")
        except TimeoutError:
            return _error(f"{request} was not answered within {self._server.timeout:g} s")
        except NotRunning as error:
            return _error(f"{request} was not answered: {error}")
        why = _why_no_result(reply)
        return _error(f"{request} answered {why}") if why else reply.body

    async def _send(self, operation: Operation, job: ReceivedJob) -> Reply:
        request = operation.request(job.envelope()["computeModuleJobV1"]["query"])
        host = f"[{self._address}]" if ":" in self._address else self._address
        # A connection for each request: which connections the server closes, and when, is not known here.
        url = f"http://{host}:{self._server.port}"
        client = HttpClient(url, "The server", self._engine.settings.max_body_bytes)
        headers = {"Host": f"localhost:{self._server.port}", "Connection": "close", **request.headers}
        try:
            return await client.request(request.method, request.target, headers, request.body)
        finally:
            client.end()

    async def _post(self, job_id: str, result: bytes) -> None:
        refused: CmemuError | None = None
        for _ in range(MAX_POSTS):
            try:
                return await self._client.post_result(job_id, result)
            except (InvalidModuleAuthToken, JournalBehind):  # the job has ended, or will be in the journal
                return None
            except (InjectedFault, NotRunning) as error:
                refused = error
            except CmemuError as error:
                refused = error
                break
        with contextlib.suppress(CmemuError):  # the job has ended meanwhile
            self._engine.lifecycle.fail(job_id, not_posted(refused))
        return None


def _error(text: str) -> bytes:
    """Return the result of a function that raised an exception, as the official SDKs post it [foundry]."""
    return json.dumps({"error": text}).encode()


def _why_no_result(reply: Reply) -> str:
    """Describe an answer that is no result, with its status and its text; "" for the JSON of a success."""
    status = f"{reply.status} {_phrase(reply.status)}".rstrip()
    text = reply.body[: 4 * MAX_SHOWN_OF_A_BODY].decode(errors="replace")[:MAX_SHOWN_OF_A_BODY].strip()
    if not http.HTTPStatus.OK <= reply.status < http.HTTPStatus.MULTIPLE_CHOICES:
        where = reply.headers.get("Location")
        return f"{status}{f' to {where}, which is not followed' if where else ''}: {text or 'it has no body'}"
    try:
        msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, RecursionError):
        return f"{status}, but not with JSON: {text or 'it has no body'}"
    return ""


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""
