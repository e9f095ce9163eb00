"""A kernel's client that acts as the page of a dashboard: it sends the widget's messages and takes its updates."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kernels.driver import Kernel, wait_until

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path


@dataclass
class Update:
    """A message of a widget: when the kernel sent it, and the parts in it."""

    at: float
    parts: dict[str, Any]

    @property
    def size(self) -> int:
        """Return how many bytes its content has as JSON."""
        return len(json.dumps(self.parts, ensure_ascii=False).encode())


@dataclass
class Window:
    """A dashboard as a browser has it: the parts of its picture, and the updates that they came with."""

    comm_id: str
    parts: dict[str, Any]
    updates: list[Update] = field(default_factory=list)
    looks: int = 0
    sent_again: int = 0

    def take(self, at: float, parts: dict[str, Any]) -> None:
        """Take an update."""
        self.sent_again += sum(self.parts.get(name) == part for name, part in parts.items())
        self.parts |= parts
        self.updates.append(Update(at, parts))


class Browser(Kernel):
    """A kernel's client that also speaks and hears as the widgets of a page do."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.windows: list[Window] = []
        self._timed: dict[str, asyncio.Future[float]] = {}
        super().__init__(python, folder)

    def _on_iopub(self, message: Any) -> None:
        super()._on_iopub(message)
        kind, content = message["msg_type"], message["content"]
        if kind == "comm_open" and "options" in content["data"]["state"]:
            self.windows.append(Window(content["comm_id"], content["data"]["state"]))
        elif kind == "comm_msg" and content["data"]["method"] == "update":
            for window in self.windows:
                if window.comm_id == content["comm_id"]:
                    window.take(message["header"]["date"].timestamp(), content["data"]["state"])

    def _on_shell(self, message: Any) -> None:
        super()._on_shell(message)
        replied = self._timed.pop(message["parent_header"].get("msg_id", ""), None)
        if replied is not None:
            replied.set_result(time.perf_counter())

    def time_cell(self, code: str) -> float:
        """Return the seconds from the request to run a cell to the reply that it has run."""
        return self._do(self._time_cell(code))

    async def _time_cell(self, code: str) -> float:
        replied: asyncio.Future[float] = self._loop.create_future()
        start = time.perf_counter()
        self._timed[self._client.execute(code)] = replied
        return await replied - start

    def cpu(self) -> float:
        """Return how many seconds of processor time the kernel has used, whatever it is doing."""
        return time.clock_gettime(~self._process.pid << 3 | 2)  # its clock, as clock_getcpuclockid(3) names it

    def open_windows(self, count: int) -> list[Window]:
        """Show dashboards in cells."""
        for _ in range(count):
            self.run("emu.dashboard()._ipython_display_()")
        wait_until(lambda: len(self.windows) == count, "the dashboards")
        return self.windows

    def look(self, window: Window, options: dict[str, Any]) -> None:
        """Choose what a window looks at."""
        window.looks += 1
        self.say(window, "look", changes=options, number=window.looks)

    def shows(self, window: Window) -> bool:
        """Tell whether a window shows what was chosen last."""
        return bool(window.parts["options"]["seen"].get(window.comm_id) == window.looks)

    def say(self, window: Window, what: str, **fields: Any) -> None:
        """Send what main.js sends."""
        content = {"do": what, "window": window.comm_id, **fields}
        data = {"method": "custom", "content": content}
        message = self._client.session.msg("comm_msg", {"comm_id": window.comm_id, "data": data})
        self._loop.call_soon_threadsafe(self._client.shell_channel.send, message)

    def ask(self, code: str) -> Any:
        """Run an expression that is a JSON text and return its value."""
        return json.loads(self.run(f"print({code})").splitlines()[-1])
