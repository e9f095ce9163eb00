"""The dashboard's data of its flow: the jobs on their way through the lifecycle, and the emulator's facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.dashboard.data import has_data
from cmemu_nb.dashboard.panels import Part, plain, time_of_day
from cmemu_nb.dashboard.runtimes import attention
from cmemu_nb.dashboard.slots import slots
from cmemu_nb.display.cards import HOMES
from cmemu_nb.display.names import magic_line
from cmemu_nb.display.text import MISSING, duration
from cmemu_nb.errors import JobEvicted, NotFound
from cmemu_nb.lifecycle.records import NS_PER_S, STATES, JobStatus, column_of
from cmemu_nb.phrases import listed, plural
from cmemu_nb.tokens import last_four

if TYPE_CHECKING:
    from cmemu_nb.dashboard.activity import Figures
    from cmemu_nb.emulator import Emulator

MAX_HOLDERS = 3
MAX_SEARCHED = 50
JAM_SECONDS = 1
# Why no job of a runtime runs although some are queued, by the kind of diagnosis.
JAMS = {
    "no_executor": "no executor",
    "executor_silent": "no poll",
    "replicas_starting": "starting",
    "replicas_ended": "ended",
}


def flow_part(emulator: Emulator, figures: Figures, now: int) -> Part:
    """Return the flow: counts of jobs by state, figures of the last minutes, and the emulator's addresses."""
    if not emulator.running:
        emu = emulator.name
        again = f"The emulator is not running. {magic_line(emu, 'start')} or {emu}.start() starts it again."
        return {"running": False, "hint": emulator.read_from or again, "data": has_data(emulator.lifecycle)}
    counts, evicted = emulator.lifecycle.outcomes(), emulator.lifecycle.count_evicted()
    return {
        "running": True,
        "at": time_of_day(now),
        "now": now // NS_PER_S,
        "counts": {column_of(state): counts[state] for state in STATES},
        "slots": _slots(emulator),
        "jam": _jam(emulator) if counts[JobStatus.QUEUED] else "",
        "attention": attention(emulator, now),
        "data": has_data(emulator.lifecycle),
        "rates": {name: _rate(getattr(figures, name)) for name in ("submitted", "started", "finished")},
        "queue": _percentiles(figures.queue_p50, figures.queue_p95),
        "run": _percentiles(figures.run_p50, figures.run_p95),
        "history": figures.history,
        "facts": {
            "url": emulator.url,
            "proxy_url": emulator.proxy_url or "",
            "tls_url": emulator.platform_url,
            "ui_url": emulator.ui_url,
            "token": last_four(emulator.token),
            "home": HOMES[emulator.home.kind],
            "uptime": duration(max(emulator.uptime, NS_PER_S) // NS_PER_S * NS_PER_S),
            "evicted": f"{plural(evicted, 'finished job')}, to make room" if evicted else "",
        },
    }


def _slots(emulator: Emulator) -> Part:
    number, full, holders = slots(emulator)
    if not holders:
        return {"number": number, "holder": "", "why": ""}
    first = [f"{plain(name, 40)} holds {count:,}" for name, count in holders.most_common(MAX_HOLDERS)]
    runtimes = f"{len(full)} runtimes" if len(full) > MAX_HOLDERS else listed([plain(name, 40) for name in full])
    return {
        "number": number,
        "holder": plain(holders.most_common(1)[0][0], 40),
        "why": f"All slots of {runtimes} are taken: {listed(first)}.",
    }


def _jam(emulator: Emulator) -> str:
    """Return why the newest queued job is not taken, in a word or two, if no job of its runtime runs; else ""."""
    state, context = emulator.lifecycle, emulator.application.context
    job = next((job for job in state.newest_jobs(MAX_SEARCHED) if job.status == JobStatus.QUEUED), None)
    try:
        if job is None or state.count(job.runtime_id)[JobStatus.RUNNING]:
            return ""
        if (job.queue_time(emulator.steady_at()) or 0) < JAM_SECONDS * NS_PER_S:
            return ""
        return JAMS.get(context.diagnose(job.job_id).kind, "")
    except (NotFound, JobEvicted):  # it was cleared at this moment
        return ""


def _rate(per_second: float) -> str:
    """Return a rate in short: '1,234/s', '5.0/s', '12/min'."""
    if per_second >= 10:  # noqa: PLR2004 - digits
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{60 * per_second:.0f}/min"


def _percentiles(p50: int | None, p95: int | None) -> Part:
    return {"p50": MISSING if p50 is None else duration(p50), "p95": MISSING if p95 is None else duration(p95)}
