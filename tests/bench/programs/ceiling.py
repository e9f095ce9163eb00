"""Tornado with the emulator's routes and constant answers: with `RequestHandler`s, or with a plain callback.

`cpu` on its standard input answers the processor time used so far, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import TYPE_CHECKING

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest

CONTOUR = "/contour-backend-multiplexer/api/module-group-multiplexer"
RUNTIMES = "/_emulate/foundry/compute-modules/runtimes"
QUERY = b'{"text":"' + b"x" * 1000 + b'"}'
JOB = b'{"type":"computeModuleJobV1","computeModuleJobV1":{"jobId":"foundry_job_1","queryType":"f","query":'
SUBMITTED = json.dumps({"id": "foundry_job_1", "nodeId": None, "moduleId": None, "jobHandle": "x" * 120}).encode()
STATUS = json.dumps({"type": "succeeded", "succeeded": {"metadata": None, "multiplexerJobTiming": "x" * 200}}).encode()
ANSWERS = {
    rf"{CONTOUR}/compute-modules/jobs/execute": b"y" * 1000,
    rf"{CONTOUR}/deployed-apps/jobs": SUBMITTED,
    rf"{CONTOUR}/jobs/([^/]+)/status": STATUS,
    rf"{CONTOUR}/jobs/result/v2": b"y" * 1000,
    rf"{RUNTIMES}/([^/]+)/job": JOB + QUERY + b"}}",
    rf"{RUNTIMES}/([^/]+)/results/([^/]+)": b"",
}


def handler(answer: bytes) -> type[RequestHandler]:
    """Make a handler that gives one answer, to every method."""

    class Constant(RequestHandler):
        def get(self, *_: str) -> None:
            if answer:
                self.set_header("Content-Type", "application/json")
                self.write(answer)
            else:
                self.set_status(204)

        post = put = get

    return Constant


def callback(request: HTTPServerRequest) -> None:
    """Answer a request: what comes last in its path says which."""
    last = request.path.rpartition("/")[2]
    answer = LAST.get(last, b"")
    headers = HTTPHeaders({"Content-Type": "application/json", "Content-Length": str(len(answer))} if answer else {})
    line = ResponseStartLine("HTTP/1.1", 200 if answer else 204, "OK" if answer else "No Content")
    assert request.connection is not None
    request.connection.write_headers(line, headers, answer)
    request.connection.finish()


LAST = {path.rpartition("/")[2]: answer for path, answer in ANSWERS.items()}


def answer_commands() -> None:
    """Tell the processor time whenever a line asks for it."""
    for _ in sys.stdin:
        print(time.process_time(), flush=True)


async def main() -> None:
    """Serve for ever."""
    handlers = Application([(path, handler(answer)) for path, answer in ANSWERS.items()])
    server = HTTPServer(handlers if sys.argv[1] == "handlers" else callback)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    apps = [f"ri.foundry.main.deployed-app.bench-{number}" for number in range(8)]
    print(json.dumps({"url": url, "token": "t" * 43, "apps": apps, "module_tokens": ["m" * 43] * 8}), flush=True)
    threading.Thread(target=answer_commands, daemon=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
