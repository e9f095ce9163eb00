"""What the benchmarks measure inside a kernel, and what the dashboard has to show."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.dashboard.job_detail import job_part
from cmemu_nb.dashboard.job_list import JobFilter
from cmemu_nb.dashboard.job_rows import list_row
from cmemu_nb.lifecycle.records import JobStatus

if TYPE_CHECKING:
    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

HISTORY = 100_000
TICK_SECONDS = 0.002
WORD = "seven"  # in the query of every seventh job


class Meter:
    """Measures in the kernel: how late a timer on the kernel's loop comes, and what the writer does meanwhile."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._loop = asyncio.get_running_loop()
        self._late: list[tuple[float, float]] = []
        self._due = self._ran = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._began = (0.0, 0.0, 0)

    def fill(self) -> str:
        """Make the history; returns the id of a job to open."""
        large = json.dumps([{"n": n, "word": WORD} for n in range(4_000)]).encode()

        def make(lifecycle: Lifecycle) -> str:
            for number in range(HISTORY):
                job = lifecycle.submit("outside", "echo", query(number))
                lifecycle.take("outside")
                lifecycle.finish("outside", job.job_id, job.query if number else large)
            return lifecycle.jobs()[0].job_id

        return self._emulator.change(make)

    def start(self) -> None:
        """Begin to measure."""
        self._late.clear()
        self._began = (time.monotonic(), time.process_time(), self._submitted())
        self._due, self._ran = self._loop.time() + TICK_SECONDS, time.thread_time()
        self._timer = self._loop.call_at(self._due, self._tick)

    def stop(self) -> str:
        """End it and tell what was found.

        Each time that the timer came there is how late it was, and how much of that its thread had worked, in
        milliseconds; `kernel_cpu` and `seconds` are in seconds.
        """
        seconds, cpu, jobs = time.monotonic(), time.process_time(), self._submitted()
        assert self._timer is not None
        self._timer.cancel()
        found = {
            "seconds": seconds - self._began[0],
            "kernel_cpu": cpu - self._began[1],
            "jobs": jobs - self._began[2],
            "late": [_ms(late) for late, _ in self._late],
            "held": [_ms(min(each)) for each in self._late],
        }
        return json.dumps(found)

    def unfinished(self) -> int:
        """Return how many jobs are not done."""
        counts = self._emulator.lifecycle.count()
        return counts.total() - sum(counts[status] for status in counts if status in ("succeeded", "failed"))

    def truth(self, options: dict[str, Any]) -> str:
        """Return what a dashboard has to show of these options, found without its own lists."""
        state, now = self._emulator.lifecycle, time.time_ns()
        counts = state.count()
        parts: dict[str, Any] = {"flow": {name: counts[JobStatus(name)] for name in ("queued", "running", "failed")}}
        if options["tab"] == "jobs":
            wanted = msgspec.convert(options.get("filter", {}), JobFilter)
            found = [each for each in state.jobs() if wanted.matches(each)]
            rank = {"running": 0, "queued": 1}
            found.sort(key=lambda each: (rank.get(each.status, 2), -each.sequence))
            rows = [list_row(each) for each in found[:50]]
            parts["jobs"] = {"rows": rows, "found": len(found), "every": counts.total()}
            parts["job"] = job_part(self._emulator, options["job"], now) if "job" in options else {}
        elif options["tab"] == "events":
            parts["events"] = {"every": len(state.events.recent(all=options.get("all_events", False)))}
        return json.dumps(parts)

    def _submitted(self) -> int:
        """Return how many jobs there ever were; the oldest are let go meanwhile."""
        newest = self._emulator.lifecycle.newest_jobs(1)
        return newest[0].sequence if newest else 0

    def _tick(self) -> None:
        now, ran = self._loop.time(), time.thread_time()
        self._late.append((now - self._due, ran - self._ran))
        self._due, self._ran = now + TICK_SECONDS, ran
        self._timer = self._loop.call_at(self._due, self._tick)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def query(number: int) -> bytes:
    """Return the query of a job; every seventh has the word that is searched for."""
    return json.dumps({"n": number, "word": "another" if number % 7 else WORD}).encode()
