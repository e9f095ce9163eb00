"""A real kernel of a given interpreter, driven as a notebook front end drives it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import zmq
from environments import clean_environ
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path
    from types import ModuleType

T = TypeVar("T")
DEADLINE = 30.0
NUDGE_SECONDS = 5.0
STACKS = "stacks.txt"
# The kernel, which writes where its threads are when it gets SIGUSR1.
LAUNCH = f"""
import faulthandler, runpy, signal
faulthandler.register(signal.SIGUSR1, open({STACKS!r}, "w"))
runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
"""
_COLOURS = re.compile(r"\x1b\[[\d;]*m")


@dataclass
class Cell:
    """One execution: its output grows while it runs; `updates` are what outputs became, as plain text."""

    status: str | None = None
    idle: bool = False
    error: str | None = None
    traceback: str = ""
    output: list[str] = field(default_factory=list)
    html: list[str] = field(default_factory=list)
    updates: list[str] = field(default_factory=list)
    asked_input: bool = False

    @property
    def text(self) -> str:
        """All that the cell has printed and shown, as plain text."""
        return "".join(self.output)


class Kernel:
    """A kernel process with its client; every wait has a deadline.

    Jupyter's own clients run on one loop in a thread of its own, which leaves nothing open behind.
    """

    def __init__(self, python: Path, folder: Path) -> None:
        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kernel-driver")
        self._thread.start()
        self._manager = AsyncKernelManager()
        argv = [str(python), "-Xfrozen_modules=off", "-c", LAUNCH, "-f", "{connection_file}"]
        self._manager._kernel_spec = KernelSpec(argv=argv, display_name="test", language="python")  # noqa: SLF001
        # https://github.com/ipython/ipykernel/pull/1529: before 7.4 a reply can hide a request that comes meanwhile.
        self._loses_requests = "kernel-7.3" in str(python)
        self._stderr = (folder / "kernel.err").open("w+")
        environ = {
            **clean_environ(),
            "HOME": str(folder),
            "IPYTHONDIR": str(folder / "ipython"),
            "PYTHONWARNINGS": "default",
        }
        output = {"stderr": self._stderr, "stdout": self._stderr}
        self._do(self._manager.start_kernel(env=environ, cwd=str(folder), **output))
        self._process = self._process_now()
        self._cells: dict[str, Cell] = {}
        self._control: dict[str, Any] = {}
        self.debug_events: list[dict[str, Any]] = []
        self._do(self._connect())

    def _do(self, awaitable: Awaitable[T], seconds: float = 90.0) -> T:
        async def wait() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(seconds)

    def _process_now(self) -> subprocess.Popen[bytes]:
        provisioner: Any = self._manager.provisioner
        process: subprocess.Popen[bytes] = provisioner.process
        return process

    async def _connect(self) -> None:
        self._client = self._manager.client()
        self._client.start_channels()
        await self._client.wait_for_ready(timeout=60)
        self._listeners = [
            asyncio.create_task(self._listen(receive, hear))
            for receive, hear in (
                (self._client.get_iopub_msg, self._on_iopub),
                (self._client.get_shell_msg, self._on_shell),
                (self._client.get_stdin_msg, self._on_stdin),
                (self._client.get_control_msg, self._on_control),
            )
        ]

    async def _listen(self, receive: Callable[..., Any], hear: Callable[[Any], None]) -> None:
        while True:
            # A message that is sent on a channel at the same moment hides one that arrives, since jupyter_client sends
            # behind the back of the socket's asyncio part, which hears of arrivals once; a new call looks for itself.
            with contextlib.suppress(queue.Empty):
                hear(await receive(timeout=1))

    def _listening(self) -> None:
        """Raise what has ended a listener, after which nothing would be heard of any cell."""
        for task in self._listeners:
            if task.done() and not task.cancelled():
                task.result()

    def stacks(self) -> str:
        """Return where each thread of the kernel is, for a test that waits in vain."""
        path = self.folder / STACKS
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)
        comes(lambda: path.exists() and path.read_text(), 2)
        return path.read_text() if path.exists() else f"The kernel has exited: {self._process.poll()}"

    def wait(self, condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
        """Wait until a condition holds; a failure shows where the kernel is, or what has ended this driver's ears."""
        try:
            for _ in range(int(seconds / NUDGE_SECONDS) if self._loses_requests else 0):
                if not comes(condition, NUDGE_SECONDS):
                    self._nudge()
            wait_until(condition, what, seconds)
        except AssertionError as error:
            self._listening()
            error.add_note(f"{self.stacks()}\n{self.stderr()[-3000:]}")
            raise

    def _nudge(self) -> None:
        """Connect once more, after which a kernel reads the requests that it has overlooked."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(f"tcp://{self._manager.ip}:{self._manager.shell_port}")
            time.sleep(0.2)

    async def _disconnect(self) -> None:
        for task in self._listeners:
            task.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        self._client.stop_channels()
        self._cells.clear()

    def _on_iopub(self, message: Any) -> None:
        content = message["content"]
        if message["msg_type"] == "debug_event":
            self.debug_events.append(content)
        cell = self._cells.get(message["parent_header"].get("msg_id", ""))
        if cell is None:
            return
        if message["msg_type"] == "stream":
            cell.output.append(content["text"])
        elif message["msg_type"] in ("execute_result", "display_data"):
            cell.output.append(content["data"].get("text/plain", "") + "\n")
            cell.html.append(content["data"].get("text/html", ""))
        elif message["msg_type"] == "update_display_data":
            cell.updates.append(content["data"].get("text/plain", ""))
        elif message["msg_type"] == "error":
            cell.traceback = _COLOURS.sub("", "\n".join(content["traceback"]))
            cell.error = f"{content['ename']}: {content['evalue']}"
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            cell.idle = True

    def _on_shell(self, message: Any) -> None:
        cell = self._cells.get(message["parent_header"].get("msg_id", ""))
        if cell is not None and message["msg_type"] == "execute_reply":
            cell.status = message["content"]["status"]

    def _on_stdin(self, message: Any) -> None:
        self._cells[message["parent_header"]["msg_id"]].asked_input = True

    def _on_control(self, message: Any) -> None:
        self._control[message["parent_header"]["msg_id"]] = message["content"]

    def send(self, code: str) -> Cell:
        """Queue a cell, without waiting for it."""
        return self._do(self._send(code))

    async def _send(self, code: str) -> Cell:
        cell = Cell()
        self._cells[self._client.execute(code, allow_stdin=True)] = cell
        return cell

    def finish(self, cell: Cell, seconds: float = DEADLINE) -> Cell:
        """Wait until a cell has ended and all that it printed before has arrived."""
        self.wait(lambda: cell.status is not None, f"the end of a cell (so far: {cell.text[-500:]!r})", seconds)
        # The reply comes on another channel, so it may overtake the output. The idle status follows all of that.
        self.wait(lambda: cell.idle, "the cell's output")
        return cell

    def end_of(self, code: str, seconds: float = DEADLINE) -> Cell:
        """Run a cell to its end, whatever that is."""
        end = time.monotonic() + DEADLINE
        cell = self.finish(self.send(code), seconds)
        # The kernel drops, unseen, what comes right behind a cell that fails.
        while cell.status == "aborted" and time.monotonic() < end:
            cell = self.finish(self.send(code), seconds)
        return cell

    def run(self, code: str, seconds: float = DEADLINE) -> str:
        """Run a cell to its end and return what it printed; an error of its own fails the test."""
        mark = f"-- end of {time.monotonic_ns()} --"
        cell = self.end_of(f"{code}\nprint({mark!r})", seconds)
        assert cell.status == "ok", f"{cell.error}\n{cell.traceback}\n{cell.text}"
        wait_until(lambda: mark in cell.text, "a cell's output")
        return cell.text.partition(mark)[0].strip()

    def interrupt(self) -> None:
        """Press the stop button."""
        self._do(self._manager.interrupt_kernel())

    def answer(self, text: str) -> None:
        """Answer the input() that a cell waits at."""
        self._loop.call_soon_threadsafe(self._client.input, text)

    def debug(self, command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request of the debug protocol and return its answer."""
        request = {"type": "request", "seq": time.monotonic_ns(), "command": command, "arguments": arguments or {}}
        message = self._client.session.msg("debug_request", request)
        self._loop.call_soon_threadsafe(self._client.control_channel.send, message)
        msg_id = message["header"]["msg_id"]
        wait_until(lambda: msg_id in self._control, f"the debugger's answer to {command}")
        content: dict[str, Any] = self._control[msg_id]
        assert content.get("success", True), content
        return content

    def restart(self, *, kill: bool = False) -> None:
        """Restart the kernel, as the button does, or after `kill -9`."""
        self._do(self._disconnect())
        self._do(self._manager.restart_kernel(now=kill))
        self._process = self._process_now()
        self._do(self._connect())

    def alive(self) -> bool:
        """Tell whether the process lives."""
        return bool(self._do(self._manager.is_alive()))

    def stderr(self) -> str:
        """Return what the process wrote to its own standard error."""
        return (self.folder / "kernel.err").read_text()

    def close(self) -> int:
        """Shut the kernel down and return its exit code, which is negative when it had to be killed."""
        if self._loop.is_closed():
            return self._process.returncode
        self._do(self._disconnect())
        self._do(self._manager.shutdown_kernel(now=False))
        self._manager.context.destroy()
        self._stderr.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        return self._process.returncode


def comes(condition: Callable[[], object], seconds: float, interval: float = 0.01) -> bool:
    """Wait until a condition holds, or for so long; returns whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True


def wait_until(
    condition: Callable[[], object], what: str, seconds: float = DEADLINE, *, interval: float = 0.01
) -> None:
    """Wait until a condition holds; after the deadline the test fails and says what it waited for."""
    assert comes(condition, seconds, interval), f"waited {seconds} s in vain for {what}"


@contextlib.contextmanager
def running_cell(kernel: Kernel, code: str, says: str = "begun") -> Iterator[Cell]:
    """Run a cell that says 'begun' first, and wait until it `says` something; it must still run when the block ends."""
    cell = kernel.send(f"print('begun', flush=True)\n{code}")
    kernel.wait(lambda: says in cell.text, "the cell's beginning")
    yield cell
    assert cell.status is None, f"the cell ended too early: {cell.error} {cell.text}"


def cell_of(module: ModuleType) -> str:
    """Return a cell that defines what a module of the tests does; its future imports are not those of later cells."""
    return f"exec({inspect.getsource(module)!r}, globals())"
