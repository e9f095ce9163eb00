"""Sync execute with an executor that waits by `Prefer: wait` in another process, against three bare Tornado requests.

Prints the figures after 0 and after 100,000 finished jobs; client, emulator, executor and the bare server are four
processes.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.clients import KeepAlive, measure
from kernels.notebooks import APP, start_executor

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS, COUNT, HISTORY = 3, 600, 100_000

EMULATOR = f"""
import json, sys
from cmemu_nb import Emulator

def fill(state):
    for _ in range({HISTORY}):
        job = state.submit("outside", "echo", b"1")
        state.take("outside")
        state.finish("outside", job.job_id, b"1")

with Emulator(port=0, home="thread") as emu:
    rt = emu.open_runtime("outside", deployed_app_rid="{APP}")
    print(json.dumps([emu.url, emu.token, rt.get_job_uri[:-4], rt.token]), flush=True)
    for line in sys.stdin:
        emu.change(fill)
        print("filled", flush=True)
"""

BARE = """
import asyncio, json, tornado.web

class Hello(tornado.web.RequestHandler):
    def get(self):
        self.write({"ok": True})

async def main():
    server = tornado.web.Application([("/", Hello)]).listen(0, "127.0.0.1")
    port = next(iter(server._sockets.values())).getsockname()[1]
    print(json.dumps(f"http://127.0.0.1:{port}"), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.contextmanager
def program(code: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program with pipes."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[str]) -> str:
    """Read a line that a program prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def main() -> None:
    """Measure and print."""
    with program(EMULATOR) as emulator, program(BARE) as bare:
        url, token, base, module_token = json.loads(read(emulator))
        with start_executor(base, module_token):
            client, simple = KeepAlive(url, Authorization=f"Bearer {token}"), KeepAlive(json.loads(read(bare)))
            for history in (0, HISTORY):
                if history:
                    assert emulator.stdin is not None
                    emulator.stdin.write("fill\n")
                    emulator.stdin.flush()
                    read(emulator)
                for _ in range(ROUNDS):
                    three = measure(lambda: [simple.request("GET", "/") for _ in range(3)], COUNT)
                    execute = measure(lambda: client.execute(APP), COUNT)
                    print(f"after {history:>7,} jobs   three bare requests   {three}")
                    print(f"                     sync execute          {execute}   ratio {execute.p50 / three.p50:.2f}")


if __name__ == "__main__":
    main()
