"""The dashboard's data of the runtimes: a line for each, and one for each of its replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cmemu_nb.calls.diagnosis import last_line
from cmemu_nb.dashboard.panels import Part, plain
from cmemu_nb.dashboard.slots import slots_by_runtime
from cmemu_nb.errors import NotFound
from cmemu_nb.lifecycle.records import NS_PER_S, JobStatus, Mode
from cmemu_nb.wire.paths import MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cmemu_nb.dashboard.slots import RuntimeSlots
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.lifecycle.records import Runtime
    from cmemu_nb.lifecycle.scaling import Scale
    from cmemu_nb.lifecycle.session import Replica

# A poll may wait for MAX_WAIT_SECONDS: a module that has not polled for longer than this is not polling.
STALE_SECONDS = MAX_WAIT_SECONDS + 15
MAX_RUNTIMES = 200
MAX_REPLICAS = 50
MAX_NAMES = 12
READY = "responsive"
STOPPED = "stopped"
SCALED_TO_ZERO = "scaled to 0"
NEEDS_ATTENTION = ("stale", "backing off", "lost", "unresponsive")


class Line(NamedTuple):
    """One replica: its state in words, and the process id and the exit code of its program, if it was launched here."""

    name: str
    state: str
    replica: Replica | None
    pid: int | None = None
    exit_code: int | None = None


def runtimes_part(emulator: Emulator, now: int) -> Part:
    """Return the table of the runtimes; `now` is in Unix nanoseconds."""
    taken = slots_by_runtime(emulator)
    rows = [_row(emulator, each, taken.get(each.runtime_id), now) for each in _shown(emulator)]
    return {"rows": [row for row in rows if row is not None], "every": emulator.lifecycle.count_runtimes()}


def _shown(emulator: Emulator) -> list[Runtime]:
    """Return the newest runtimes, in the order in which they were opened."""
    return emulator.lifecycle.newest_runtimes(MAX_RUNTIMES)[::-1]


def _row(emulator: Emulator, runtime: Runtime, taken: RuntimeSlots | None, now: int) -> Part | None:
    state, name = emulator.lifecycle, runtime.runtime_id
    try:
        counts, lines = state.count(name), list(_lines(emulator, name))
        apps = [plain(app.label) for app in state.apps_of(name)]
        scale = state.scale_of(name)
        functions = _some(schema.function_name for schema in state.schemas(name))
    except NotFound:
        return None  # deleted at this moment
    modules = emulator.modules.of(name)
    word = state_of(runtime, modules, now)
    ready = sum(line.state == READY for line in lines)
    display_name = runtime.display_name or ""
    return {
        "key": name,
        "name": plain(name),
        "display_name": "" if display_name.casefold() == name.casefold() else plain(display_name),
        "state": word,
        "tone": _tone(word),
        "replicas": _ready(ready, len(lines), scale),
        "slots": f"{len(taken.held)}/{taken.slots}" if taken else "",
        "full": bool(taken and taken.full and counts[JobStatus.QUEUED]),
        "polled_at": runtime.last_poll_at and runtime.last_poll_at // NS_PER_S,
        "queued": counts[JobStatus.QUEUED],
        "running": counts[JobStatus.RUNNING],
        "lines": [_line(line, word) for line in lines[:MAX_REPLICAS]],
        "more": max(0, len(lines) - MAX_REPLICAS),
        "restarts": bool(modules),
        "stops": any(each.active for each in modules) or bool(emulator.clusters.of(name)),
        "apps": apps,
        "functions": functions,
        "facts": _facts(emulator, runtime, modules),
    }


def _ready(ready: int, replicas: int, scale: Scale | None) -> str:
    """Return how many replicas are responsive, of how many: "" without any, `2 of 0..4` for a module that is scaled."""
    if scale is not None:
        return f"{ready} of {scale.min}..{scale.max}"
    return "" if not replicas else str(ready) if ready == replicas else f"{ready} of {replicas}"


def state_of(runtime: Runtime, modules: Iterable[LaunchedModule], now: int) -> str:
    """Return the word for a runtime's state: that of its launched modules if none of them runs, else who polls."""
    modules = list(modules)
    if modules and not any(each.running for each in modules):
        if any(each.backing_off for each in modules):
            return "backing off"
        if any(each.scaled_to_zero for each in modules):
            return SCALED_TO_ZERO
        codes = [each.exit_code for each in modules if each.ended]
        return f"exited({next(filter(None, codes), 0)})" if codes else STOPPED
    if runtime.last_poll_at is None:
        return runtime.polling
    return "stale" if now - runtime.last_poll_at > STALE_SECONDS * NS_PER_S else "connected"


def _tone(state: str) -> str:
    """Return the colour of a state that needs attention, "" for any other."""
    if state.startswith(("exited", "failed")) and state != "exited(0)":
        return "red"
    return "amber" if state in NEEDS_ATTENTION else ""


def attention(emulator: Emulator, now: int) -> Part:
    """Return the `tone` and the `words` for a runtime that needs attention, a red one first; "" if none does."""
    runtimes = _shown(emulator)
    states = [(each.runtime_id, state_of(each, emulator.modules.of(each.runtime_id), now)) for each in runtimes]
    found = [(tone, f"{plain(name, 40)}: {state}") for name, state in states if (tone := _tone(state))]
    tone, words = max(found, key=lambda each: each[0] == "red", default=("", ""))
    return {"tone": tone, "words": words}


def _lines(emulator: Emulator, runtime_id: str) -> Iterator[Line]:
    """Yield a runtime's replicas: those that were launched, those on clusters, and those that others have started."""
    known: set[str] = set()
    for module in emulator.modules.of(runtime_id):
        for process in list(module.replicas):
            known.add(process.replica.replica_id)
            yield Line(process.replica.replica_id, process.state, process.replica, process.pid, process.exit_code)
    for cluster in emulator.clusters.of(runtime_id):
        for seat in list(cluster.seats.values()):
            name = seat.replica.replica_id if seat.replica else f"replica {seat.number}"
            known.add(name)
            yield Line(name, seat.state, seat.replica)
    for replica in emulator.lifecycle.replicas(runtime_id):
        if replica.replica_id not in known:
            yield Line(replica.replica_id, READY if replica.polls else "never polled", replica)


def _line(line: Line, word: str) -> Part:
    """Return the line of a replica. `word` is the state of its runtime: nothing of a stopped one needs attention."""
    replica, ended = line.replica, line.exit_code is not None
    held = len(replica.held) if replica else 0
    most = replica.max_concurrent_tasks if replica and not (ended or replica.standby) else None
    return {
        "name": plain(line.name),
        "state": plain(line.state),
        "tone": "" if word == STOPPED else _tone(line.state),
        "slots": f"{held}/{most}" if most else "",
        "running": "" if ended else held,
        "exit_code": line.exit_code,
        "pid": None if ended else line.pid,
    }


def _facts(emulator: Emulator, runtime: Runtime, modules: Iterable[LaunchedModule]) -> list[list[str]]:
    """Return what else is known of a runtime, without secrets."""
    name, state = runtime.runtime_id, emulator.lifecycle
    facts = []
    for module in modules:
        facts.append(["command", plain(module.command, 300)])
        facts += [["mode", str(module.mode)]] if module.mode != Mode.FUNCTION else []
        facts.append(["configuration", plain(module.configuration.in_words, 1_000)])
        facts += [["upgrade", plain(f"to {module.upgrading_to}", 300)]] if module.upgrading_to else []
        facts += [["next restart", plain(module.next_restart)]] if module.next_restart else []
        facts += [["readiness probe", plain(module.unready, 300)]] if module.unready else []
        facts += [["last line", plain(line, 300)]] if (line := last_line(module)) else []
    if not facts and state.is_configured(name):
        facts.append(["configuration", plain(state.configuration(name).in_words, 1_000)])
    if runtime.import_error:
        facts.append(["import error", plain(runtime.import_error.rstrip().rpartition("\n")[2], 300)])
    return facts


def _some(names: Iterable[str]) -> list[str]:
    shown = [plain(name, 60) for name in names]
    return [*shown[:MAX_NAMES], f"and {len(shown) - MAX_NAMES} more"] if len(shown) > MAX_NAMES else shown
