"""What a user may write with types: checked by mypy --strict against the installed wheel, and run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compute_modules.context import QueryContext

import cmemu_nb
from cmemu_nb import Emulator
from cmemu_nb.errors import CmemuError, NotFound
from cmemu_nb.lifecycle.events import Event
from cmemu_nb.calls.handles import JobHandle, RuntimeHandle


@dataclass
class Numbers:
    x: int
    y: int = 1


def add(context: QueryContext, event: Numbers) -> int:
    print("adding", event)
    return event.x + event.y


def look(event: Event) -> None:
    seen.append(event.kind)


seen: list[str] = []
version: str = cmemu_nb.__version__

with Emulator(port=0, home="thread") as emu:
    stop_looking = emu.on_event(look)
    runtime: RuntimeHandle = emu.open_runtime("my-runtime", deployed_app_rid="ri.foundry.main.deployed-app.my-app")
    job: JobHandle = emu.submit("f", {"x": 1}, "ri.foundry.main.deployed-app.my-app")
    job.fail("by hand")
    emu.function(add)
    total: int = emu.call("add", {"x": 40, "y": 2})
    again: int = emu.call(add, x=40, y=emu.submit(add, Numbers(1)).result(timeout=30))
    mapped: float = emu.map(add, [Numbers(1), {"x": 2}]).value.sum()
    document: dict[str, Any] = emu.openapi()
    written: Path = emu.export(Path("session.json"))
    url: str = emu.url
    port: int = emu.port
    running: bool = emu.running
    stop_looking()
    try:
        emu.runtime("unknown")
    except NotFound as error:
        known: CmemuError = error

restored: Emulator = Emulator.from_export(written)
print(total, again, mapped, len(document["paths"]) > 20, job.status, "job_queued" in seen)
