"""The display bundles, HTML with plain text, that notebooks show for the emulator and the objects that it returns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cmemu_nb.display.front_end import front_end
from cmemu_nb.display.html import MAX_IN_CARD, card, link, mimebundle, status_badge, table, two_lines
from cmemu_nb.display.names import magic_line
from cmemu_nb.display.percentiles import RUN_TIMES
from cmemu_nb.display.text import ago, cut, duration, holdings, visible
from cmemu_nb.errors import NotFound
from cmemu_nb.lifecycle.records import JobStatus, Mode, Outcome
from cmemu_nb.phrases import plural
from cmemu_nb.tokens import last_four
from cmemu_nb.wire.results import why_no_value

if TYPE_CHECKING:
    from cmemu_nb.calls.handles import JobHandle, RuntimeHandle
    from cmemu_nb.display.html import Html
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.engine.fault_injection import FaultInjection
    from cmemu_nb.executors.cells.functions import Functions
    from cmemu_nb.executors.cluster.cluster import Cluster
    from cmemu_nb.executors.modules.modules import LaunchedModule, Modules
    from cmemu_nb.lifecycle.records import Job

MAX_BODY = MAX_IN_CARD - 100  # so that the card does not cut off the note with the size
FIRST_STEPS = (
    '@{emu}.function above a function serves it: def double(context, event): return 2 * event["x"]',
    '{emu}.call("double", {"x": 21})',
    'rt = {emu}.open_runtime("my-runtime", deployed_app_rid="ri.foundry.main.deployed-app.my-app")',
    "{emu}.dashboard()   {emu}.functions   {emu}.jobs   {emu}.runtimes   {emu}.events   %cmemu help",
)
BY_THE_HUB = "from your browser, behind the hub's host and with a token"
MAX_LINES = 10
CLUSTER_COLUMNS = ("replica", "worker", "state", "jobs held")
HOMES = {"kernel": "on the kernel's event loop", "thread": "on a thread of its own"}


def show_emulator(emulator: Emulator) -> dict[str, str]:
    """Return the emulator's display bundle: its address, what it holds, and what to type next."""
    emu, state = emulator.name, emulator.lifecycle
    if not emulator.running:
        what, following = ("not running", magic_line(emu, "start"))
        if emulator.read_from:
            what, following = "read from a file", f"{emu}.jobs   {emu}.dashboard()"
        return mimebundle(repr(emulator), card("Emulator", [("state", what), ("next", following)]))
    pairs = [
        ("URL", emulator.url),
        *([("behind the hub", f"{emulator.proxy_url}   ({BY_THE_HUB})")] if emulator.proxy_url else []),
        ("token", f"{emu}.token   ({last_four(emulator.token)}, for the contour routes)"),
        ("runs", HOMES[emulator.home.kind]),
        ("holds", holdings(state)),
    ]
    if emulator.seed is not None and emulator.seed.path:
        pairs.append(("seed", emulator.seed.path))
    if (seen_in := front_end()).limits:
        pairs.append(("seen in", f"{seen_in.name}: {seen_in.limits.format(emu=emu)}"))
    if emulator.settings.journal is not None:
        pairs.append(("journal", str(emulator.settings.journal)))
    if evicted := state.count_evicted():
        pairs.append(("evicted", f"{plural(evicted, 'finished job')}, to make room (keep_jobs, keep_bytes)"))
    steps = tuple(step.replace("{emu}", emu) for step in FIRST_STEPS)
    # Behind a hub the browser is on another machine.
    reached = None if emulator.proxy_url else emulator.url
    return _bundle("Emulator", pairs, steps, status_badge("running"), reached)


def show_runtime(runtime: RuntimeHandle) -> dict[str, str]:
    """Return a runtime's display bundle: its session, its URIs, and how to use them."""
    try:
        record = runtime.record
    except NotFound:
        return _removed(runtime, "Runtime", "deleted")
    polled = ago(record.last_poll_at, time.time_ns())
    pairs = [
        ("id", record.runtime_id),
        ("display name", record.display_name or "-"),
        ("last poll", polled),
        ("bound to", ", ".join(runtime.deployed_apps) or "no deployed app"),
        ("configured", f"with {runtime.configuration.in_words}"),
        *([("import error", record.import_error)] if record.import_error else []),
        ("queued", str(runtime.queue_depth)),
        ("token", f".token   ({last_four(record.module_auth_token)})"),
        ("get_job_uri", runtime.get_job_uri),
        ("post_result_uri", runtime.post_result_uri),
        ("post_schema_uri", runtime.post_schema_uri),
    ]
    steps = (
        f"rt = {runtime.expression}",
        '!curl -H "Module-Auth-Token: {rt.token}" {rt.get_job_uri}',
        'rt.enqueue("my_function", {"x": 1})',
    )
    return _bundle("Runtime", pairs, steps, status_badge(record.polling))


def show_job(job: JobHandle) -> dict[str, str]:
    """Return a job's display bundle: its state, times, query and result."""
    record = job.find()
    if record is None:
        return _removed(job, "Job", "removed: evicted, or its runtime was reset")
    why = why_no_value(record, job.explanation)
    pairs = [
        ("id", record.job_id),
        ("function", record.query_type),
        ("runtime", record.runtime_id),
        *([("asked for by", record.user_id)] if record.user_id else []),
        ("status", _state_and_times(record, job._engine.steady_at())),  # noqa: SLF001 - a handle has no public clock
        ("query", _shortened(record.query)),
        *([("result", _shortened(record.result))] if record.result is not None and not why else []),
        *([("error", why)] if why else []),
        *([("diagnosis", job.diagnosis)] if not record.finished else []),
        *([("logs", _last_lines(job.logs))] if job.logs else []),
    ]
    this, emu = job.expression, job.expression.partition(".")[0]
    steps = {
        JobStatus.SUCCEEDED: (f"{this}.result()", f"{this}.raw()"),
        JobStatus.FAILED: (f"{emu}.events   (what led to it)",),
    }.get(record.status, (f"{this}.result()   (waits for it)", f"{this}.cancel()   (ends it)"))
    return _bundle("Job", pairs, steps, status_badge(record.status, record.outcome))


FUNCTION_COLUMNS = (
    *("function", "runtime", "takes and gives", "ok", "function error", "failed", "running", "p50", "p95"),
)


def show_functions(functions: Functions) -> dict[str, str]:
    """Return the display bundle of the functions: versions of those in cells, schemas, and counts of their jobs."""
    rows = [
        {
            "function": two_lines(each.label),
            "runtime": two_lines(each.runtime_id),
            "takes and gives": two_lines(each.schema_in_words),
            **{str(end): each.outcomes[end] for end in Outcome},
            "running": f"{each.running} (+ {each.abandoned} abandoned)" if each.abandoned else each.running,
            "p50": duration(each.percentile(50)),
            "p95": duration(each.percentile(95)),
        }
        for each in functions
    ]
    hint = f'{functions.nothing} For instance: `def double(context, event): return 2 * event["x"]`'
    shown = table(f"Functions ({RUN_TIMES})", FUNCTION_COLUMNS, rows, hint, compact=True)
    return mimebundle(repr(functions), shown)


FAULT_COLUMNS = ("fault", "how", "strikes", "struck", "seed")


def show_faults(injection: FaultInjection) -> dict[str, str]:
    """Return the display bundle of the faults that are on, and how often each has occurred."""
    rows = [
        {"fault": name, "how": how, "strikes": each.where, "struck": each.struck[name], "seed": str(each.seed)}
        for each in injection
        for name, how in each.words.items()
    ]
    return mimebundle(repr(injection), table("Faults", FAULT_COLUMNS, rows, injection.nothing))


MODULE_COLUMNS = ("module", "state", "mode", "command", "replicas", "next")


def show_modules(modules: Modules) -> dict[str, str]:
    """Return the display bundle of all launched programs."""
    rows = [
        {
            "module": two_lines(each.runtime_id),
            "state": status_badge(_state_of(each)),
            "mode": each.mode,
            "command": two_lines(each.command),
            "replicas": two_lines(", ".join(each.states)),
            "next": two_lines(each.expression),
        }
        for each in modules
    ]
    return mimebundle(repr(modules), table("Modules", MODULE_COLUMNS, rows, modules.nothing, compact=True))


def show_module(module: LaunchedModule) -> dict[str, str]:
    """Return the display bundle of a launched program: its replicas, its last lines, and what to type next."""
    pairs = [
        ("runtime", module.runtime_id),
        ("command", module.command),
        ("mode", module.mode),
        ("configured", f"with {module.configuration.in_words}"),
        ("replicas", ", ".join(f"{each.replica.replica_id} {each.state}" for each in module.replicas) or "none"),
        ("last lines", module.logs.tail(MAX_LINES) or "nothing was written yet"),
    ]
    wait = "wait_until_ended" if module.mode == Mode.PIPELINE else "wait_until_responsive"
    upgrade = "" if module.mode == Mode.PIPELINE else "module.upgrade()   "
    steps = (
        f"module = {module.expression}",
        f"module.{wait}()   module.logs   {upgrade}module.restart()   module.stop()",
    )
    return _bundle("Module", pairs, steps, status_badge(_state_of(module)))


def _state_of(module: LaunchedModule) -> str:
    if module.running:
        return "running"
    if module.scaled_to_zero:
        return "scaled to 0"
    return "backing off" if module.backing_off else "exited"


def show_cluster(cluster: Cluster) -> dict[str, str]:
    """Return the display bundle of the replicas on a cluster: their workers, states and jobs."""
    rows = [
        {
            "replica": seat.number,
            "worker": seat.worker,
            "state": status_badge(seat.state),
            "jobs held": len(seat.replica.held) if seat.replica else 0,
        }
        for seat in list(cluster.seats.values())
    ]
    rows = [] if cluster.stopped else rows
    shown = table(f"Replicas of {cluster.runtime_id}", CLUSTER_COLUMNS, rows, cluster.nothing)
    return mimebundle(repr(cluster), shown)


def _last_lines(logs: str) -> str:
    lines = logs.rstrip().splitlines()
    more = f"… ({plural(len(lines) - MAX_LINES, 'line')} before: job.logs)\n" if len(lines) > MAX_LINES else ""
    return more + "\n".join(lines[-MAX_LINES:])


def _state_and_times(job: Job, now: int) -> str:
    state = f"{job.status} ({job.outcome})" if job.status == JobStatus.SUCCEEDED else str(job.status)
    queued, ran = duration(job.queue_time(now)), duration(job.run_time(now))
    if job.started_at is None:
        return f"{state} after {queued} in the queue" if job.finished else f"{state} for {queued}"
    if job.status == JobStatus.RUNNING:
        return f"{state} for {ran}, after {queued} in the queue"
    return f"{state} after {ran}, and {queued} in the queue"


def _removed(handle: JobHandle | RuntimeHandle, title: str, state: str) -> dict[str, str]:
    return mimebundle(_plain(repr(handle)), card(title, [("id", handle.id), ("state", state)]))


def _shortened(body: bytes) -> str:
    text = body[:MAX_BODY].decode(errors="replace")
    return text if len(body) <= MAX_BODY else f"{text}… ({len(body):,} bytes in all)"


def _bundle(
    title: str, pairs: list[tuple[str, str]], steps: tuple[str, ...], badge: Html, url: str | None = None
) -> dict[str, str]:
    """Return the bundle of a card; the field whose value is `url` becomes a link."""
    fields = [*pairs, ("next", "\n".join(steps))]
    width = max(len(name) for name, _ in fields)
    indent = "\n" + " " * (width + 4)
    lines = [f"  {name:<{width}}  {_plain(value).replace(chr(10), indent)}" for name, value in fields]
    shown = [(name, link(value) if value == url else value) for name, value in fields]
    return mimebundle("\n".join([title, *lines]), card(title, shown, badge=badge))


def _plain(text: str) -> str:
    """Return external text for plain output, with control characters made visible, cut as in the card."""
    return visible("".join(cut(text, MAX_IN_CARD)), lines=True)
