"""The dashboard's data of the runtimes: JSON values with texts to show.

External text is cut, and its control characters are made visible, here; the browser inserts it as text, never as HTML.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cmemu_nb.display.text import ago, cut, visible
from cmemu_nb.errors import NotFound
from cmemu_nb.lifecycle.records import NS_PER_S, JobStatus, Outcome
from cmemu_nb.wire.paths import MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.records import Runtime

# A poll may wait for MAX_WAIT_SECONDS: a module that has not polled for longer than this is not polling.
STALE_SECONDS = MAX_WAIT_SECONDS + 15
MAX_TEXT = 120
MAX_NAMES = 12
MAX_RUNTIMES = 200
TONES: dict[str, str] = {
    JobStatus.QUEUED: "grey",
    JobStatus.RUNNING: "blue",
    Outcome.OK: "green",
    Outcome.FUNCTION_ERROR: "amber",
    Outcome.FAILED: "red",
}

Part = dict[str, Any]


def plain(text: object, most: int = MAX_TEXT) -> str:
    """Return a short text of one line for any external value."""
    shown, note = cut(str(text), most)
    return visible(shown).encode(errors="replace").decode() + ("…" if note else "")


def time_of_day(at: int) -> str:
    """Return the UTC time of a moment in Unix nanoseconds: '00:35:22'."""
    return time.strftime("%H:%M:%S", time.gmtime(at // NS_PER_S))


def last_line(text: str) -> str:
    """Return the last line of a text, where a traceback says what happened."""
    return text.rstrip().rpartition("\n")[2]


def badge(text: str, tone: str) -> Part:
    """Return a badge: a word, and the colour of the dot beside it."""
    return {"badge": text, "tone": tone}


# Runtimes


def runtimes_part(emulator: Emulator, now: int) -> Part:
    """Return the table of the runtimes."""
    every = emulator.lifecycle.runtimes()
    rows = [_runtime_row(emulator, each, now) for each in every[-MAX_RUNTIMES:]]
    return {"rows": [row for row in rows if row is not None], "every": len(every)}


def _runtime_row(emulator: Emulator, runtime: Runtime, now: int) -> Part | None:
    state, name = emulator.lifecycle, runtime.runtime_id
    try:
        counts, schemas, replicas = state.count(name), state.schemas(name), state.replicas(name)
        apps = [plain(app.label) for app in state.apps_of(name)]
    except NotFound:
        return None  # deleted at this moment
    display_name = runtime.display_name or ""
    processes = [process for module in emulator.modules.of(name) for process in module.replicas]
    states = {process.replica.replica_id: process.state for process in processes}
    seats = [seat for cluster in emulator.clusters.of(name) for seat in list(cluster.seats.values())]
    states |= {seat.replica.replica_id: seat.state for seat in seats if seat.replica is not None}
    ids = [each.replica_id for each in replicas]
    return {
        "key": name,
        "name": plain(name),
        "display_name": "" if display_name.casefold() == name.casefold() else plain(display_name),
        "state": poll_state(runtime, now),
        "last_poll": ago(runtime.last_poll_at, now),
        "queued": counts[JobStatus.QUEUED],
        "running": counts[JobStatus.RUNNING],
        "replicas": [plain(f"{each} {states.get(each, '')}".strip()) for each in dict.fromkeys([*ids, *states])],
        "apps": apps,
        "functions": _some(schema.function_name for schema in schemas),
    }


def poll_state(runtime: Runtime, now: int) -> Part:
    """Return the badge that says whether a module polls for the runtime's jobs, or is a pipeline."""
    if runtime.last_poll_at is None:
        return badge(runtime.polling, "grey")
    if now - runtime.last_poll_at > STALE_SECONDS * NS_PER_S:
        return badge("stale", "amber")
    return badge("connected", "green")


def _some(names: Iterable[str]) -> list[str]:
    shown = [plain(name, 60) for name in names]
    return [*shown[:MAX_NAMES], f"and {len(shown) - MAX_NAMES} more"] if len(shown) > MAX_NAMES else shown
