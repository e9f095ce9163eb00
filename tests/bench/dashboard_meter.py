"""What the benchmark of the dashboard measures inside the kernel, and what the dashboard has to show."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.dashboard.board import Board
from cmemu_nb.dashboard.job_list import JobFilter
from cmemu_nb.dashboard.job_parts import job_part, job_row
from cmemu_nb.notebook.charts import latency_chart, timeline_chart

if TYPE_CHECKING:
    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle import Lifecycle

HISTORY = 100_000
TICK_SECONDS = 0.002
WORD = "seven"  # in the query of every seventh job


@dataclass
class Pass:
    """One turn of the writer that did something: when, and how many seconds of CPU time it took."""

    began: float
    ended: float
    cpu: float


class MeasuredBoard(Board):
    """The writer, with a list of its passes."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(emulator)
        self.passes: list[Pass] = []
        self._began = (0.0, 0.0)

    def _do_tasks(self) -> None:
        self._began = (time.monotonic(), time.thread_time())
        super()._do_tasks()

    def _refresh(self) -> None:
        super()._refresh()
        began, cpu = self._began
        self.passes.append(Pass(began, time.monotonic(), time.thread_time() - cpu))


class Meter:
    """Measures in the kernel: how late a timer on the kernel's loop comes, and what the writer does meanwhile."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._loop = asyncio.get_running_loop()
        self._late: list[tuple[float, float]] = []
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._began = (0.0, 0.0, 0)
        self._board = MeasuredBoard(emulator)
        emulator.board = self._board

    def fill(self) -> str:
        """Make the history; returns the address, the tokens and the id of a job to open."""
        runtime = self._emulator.runtime("outside")
        large = json.dumps([{"n": n, "word": WORD} for n in range(4_000)]).encode()

        def make(lifecycle: Lifecycle) -> str:
            for number in range(HISTORY):
                job = lifecycle.submit("outside", "echo", query(number))
                lifecycle.take("outside")
                lifecycle.finish("outside", job.job_id, job.query if number else large)
            return lifecycle.jobs()[0].job_id

        job_id = self._emulator.change(make)
        base = runtime.get_job_uri.removesuffix("/job")
        return json.dumps([self._emulator.url, self._emulator.token, base, runtime.token, job_id])

    def start(self) -> None:
        """Begin to measure."""
        self._late.clear()
        self._board.passes.clear()
        self._began = (time.monotonic(), time.process_time(), self._done())
        self._due = self._loop.time() + TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)

    def stop(self) -> str:
        """End it and tell what was found; times are milliseconds."""
        seconds, cpu, jobs = time.monotonic(), time.process_time(), self._done()
        assert self._timer is not None
        self._timer.cancel()
        found = {
            "seconds": seconds - self._began[0],
            "kernel_cpu": cpu - self._began[1],
            "jobs": jobs - self._began[2],
            "late": [_ms(came - due) for due, came in self._late],
            "late_beside": [_ms(came - due) for due, came in self._late if self._writer_worked(due, came)],
            "passes": [_ms(each.cpu) for each in self._board.passes],
        }
        return json.dumps(found)

    def unfinished(self) -> int:
        """Return how many jobs are not done."""
        return self._emulator.lifecycle.count().total() - self._done()

    def truth(self, options: dict[str, Any]) -> str:
        """Return what a dashboard has to show of these options, found without its own lists."""
        state, now = self._emulator.lifecycle, time.time_ns()
        counts = state.count()
        parts: dict[str, Any] = {"header": {str(status): f"{count:,}" for status, count in counts.items()}}
        if options["tab"] == "jobs":
            wanted = msgspec.convert(options.get("filter", {}), JobFilter)
            found = sorted((each for each in state.jobs() if wanted.matches(each)), key=lambda each: -each.sequence)
            rows = [job_row(each, now) for each in found[:50]]
            parts["jobs"] = {"rows": rows, "found": len(found), "every": counts.total()}
            parts["job"] = job_part(self._emulator, options["job"], now) if "job" in options else {}
        elif options["tab"] == "timeline":
            newest = sorted(state.jobs(), key=lambda each: -each.sequence)
            timeline = timeline_chart(newest[:200], now, len(newest)).svg
            parts["charts"] = {"timeline": timeline, "latency": latency_chart(newest[:5_000]).svg}
        else:
            events, text = state.events.recent(quiet=options.get("quiet", False)), options.get("event_text", "")
            keys = [str(each.sequence) for each in events if text in f"{each.job_id}\n{each.detail}"]
            parts["events"] = {"keys": keys[:-201:-1], "every": len(events)}
        return json.dumps(parts)

    def _done(self) -> int:
        counts = self._emulator.lifecycle.count()
        return sum(counts[status] for status in counts if status in ("succeeded", "failed"))

    def _tick(self) -> None:
        now = self._loop.time()
        self._late.append((self._due, now))
        self._due = now + TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)

    def _writer_worked(self, since: float, until: float) -> bool:
        return any(each.began < until and each.ended > since for each in self._board.passes)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def query(number: int) -> bytes:
    """Return the query of a job; every seventh has the word that is searched for."""
    return json.dumps({"n": number, "word": "another" if number % 7 else WORD}).encode()
