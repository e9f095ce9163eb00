"""One dashboard: what its person looks at, and the parts of the picture that this needs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.dashboard.actions import ACTIONS
from cmemu_nb.dashboard.job_list import JobFilter, JobList
from cmemu_nb.dashboard.job_panels import EventList, choices_part, job_part, jobs_part
from cmemu_nb.dashboard.panels import Part, form_part, functions_part, header_part, last_line, plain, runtimes_part
from cmemu_nb.display.charts import latency_chart, timeline_chart
from cmemu_nb.display.text import visible
from cmemu_nb.errors import CmemuError, NotFound
from cmemu_nb.eventloop.shell import cell_is_running

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.dashboard.board import Board, Changes
    from cmemu_nb.lifecycle.records import FunctionSchema

    Send = Callable[[dict[str, Any]], object]

# Browsers let hidden windows speak once a minute.
SILENT_SECONDS = 150.0
# Each rewriting makes a notebook that was saved a changed one.
SUMMARY_SECONDS, SETTLED_SECONDS, QUIET_SECONDS = 10.0, 3.0, 0.9
CHART_SECONDS = 1.0
CHART_JOBS = 200
LATENCY_JOBS = 5_000
MOST_ROWS = 500


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What a person looks at: the tab, the filters, the job and the function that are open.

    `seen` has the number of each window's last wish that was heard of, so that it knows which are still on the way.
    """

    tab: str = "jobs"
    filter: JobFilter = JobFilter()
    most: int = 50
    job: str = ""
    function: str = ""
    tried: str = ""
    event_text: str = ""
    event_kind: str = ""
    all_events: bool = False
    seen: dict[str, int] = {}


class View:
    """The picture of one dashboard. All but `hear()` runs on the board's thread.

    `show(parts)` replaces parts of the picture, `answer(message)` answers a button, and `summarize()` is called when
    something has changed, at most every ten seconds, or three when nothing happens any more, and when nobody looks.
    """

    def __init__(self, board: Board, show: Send, answer: Send, summarize: Callable[[], object]) -> None:
        self.options = Options()
        self._board = board
        self._emulator = board.emulator
        self._show = show
        self._answer = answer
        self._summarize = summarize
        self._summarized_at = time.monotonic()
        self._to_summarize = False
        self._changed_at = 0.0
        self._open: dict[str, float] = {}
        self._shown: Part = {}
        self._jobs: JobList | None = None
        self._events: EventList | None = None
        self._charts_at = 0.0
        self._troubles = 0

    # What the browser says

    def hear(self, message: dict[str, Any]) -> None:
        """Take a message from the browser, on whatever thread it comes."""
        self._board.do(lambda: self._take(message))

    def _take(self, message: dict[str, Any]) -> None:
        what, window = message.get("do"), str(message.get("window"))
        if what == "close":
            self._open.pop(window, None)
            if not self._open:
                self.rest()
            return
        self._open[window] = time.monotonic()
        self._board.show(self)
        if what == "look":
            self._look(window, message)
        elif what != "stay":
            self._act(message)

    def _look(self, window: str, message: dict[str, Any]) -> None:
        """Change what is looked at. Windows of the same dashboard send what they change, and all show the same."""
        # Half a surrogate pair can't be sent back to the browser.
        changes = json.loads(json.dumps(message["changes"], ensure_ascii=False).encode(errors="replace"))
        seen = {name: number for name, number in self.options.seen.items() if name in self._open}
        wanted = msgspec.to_builtins(self.options) | changes | {"seen": {**seen, window: message["number"]}}
        self.options = msgspec.convert(wanted, Options)

    def _act(self, message: dict[str, Any]) -> None:
        reply: Part = {"answer": message.get("id"), "window": message.get("window")}
        try:
            reply["value"] = ACTIONS[str(message.get("do"))](self._emulator, message)
        except CmemuError as error:
            reply["error"] = plain(error, 2_000)
        except Exception as error:
            reply["error"] = plain(f"{type(error).__name__}: {error}", 2_000)
            self._answer(reply)
            raise
        self._answer(reply)

    def rest(self) -> None:
        """Stop working: nobody looks."""
        self._open.clear()
        self._jobs = None
        self._board.leave(self)
        self._rewrite_summary()

    # What is shown

    def refresh(self, changes: Changes, now: int) -> None:
        """Show what has changed."""
        self._forget_the_silent()
        if not self._open:
            return
        emulator, options = self._emulator, self.options
        steady = emulator.steady_at()
        header = header_part(emulator, self._board.figures(now), now)
        parts: Part = {"options": msgspec.to_builtins(options), "header": header}
        if options.tab != "jobs":
            self._jobs = None  # nobody tells it what changes
        if options.tab == "runtimes":
            parts["runtimes"] = runtimes_part(emulator, now)
        elif options.tab == "jobs":
            parts["jobs"] = jobs_part(emulator.lifecycle, self._job_list(changes), min(options.most, MOST_ROWS), steady)
            parts["choices"] = choices_part(emulator.lifecycle)
            parts["job"] = job_part(emulator, options.job, steady) if options.job else {}
        elif options.tab == "functions":
            parts["functions"] = functions_part(emulator)
            parts["form"] = form_part(self._schema())
            parts["tried"] = job_part(emulator, options.tried, steady) if options.tried else {}
        elif options.tab == "events":
            parts["events"] = self._event_list().part(emulator.lifecycle.events)
        elif options.tab == "timeline" and time.monotonic() - self._charts_at > CHART_SECONDS:
            parts["charts"] = self._charts(now, steady)
        self._send(parts)
        self._summarize_if_due(changed=changes.anything)

    def _send(self, parts: Part) -> None:
        changed = {name: part for name, part in parts.items() if self._shown.get(name) != part}
        if changed:
            self._shown.update(changed)
            self._show(changed)

    def _summarize_if_due(self, *, changed: bool) -> None:
        """Rewrite the summary when nothing has happened for a moment, and now and then while something does."""
        now = time.monotonic()
        if changed:
            self._to_summarize, self._changed_at = True, now
        pause = SETTLED_SECONDS if now - self._changed_at > QUIET_SECONDS else SUMMARY_SECONDS
        if self._to_summarize and now - self._summarized_at > pause:
            self._rewrite_summary()

    def _rewrite_summary(self) -> None:
        self._to_summarize = False
        self._summarized_at = time.monotonic()
        self._summarize()

    def complain(self, words: str) -> None:
        """Show what went wrong in the dashboard itself."""
        self._troubles += 1
        details = visible(words[-4_000:], lines=True)
        self._send({"trouble": {"words": plain(last_line(words), 400), "details": details, "number": self._troubles}})

    def _forget_the_silent(self) -> None:
        """Stop when no window was heard of for long: a closed browser says no goodbye."""
        now = time.monotonic()
        if cell_is_running():  # which may keep the kernel from hearing anything
            self._open = dict.fromkeys(self._open, now)
        self._open = {window: heard for window, heard in self._open.items() if heard > now - SILENT_SECONDS}
        if not self._open:
            self.rest()

    def _job_list(self, changes: Changes) -> JobList:
        if self._jobs is None or self._jobs.filter != self.options.filter or changes.everything:
            self._jobs = JobList(self._emulator.lifecycle, self.options.filter)
        else:
            self._jobs.update(changes.jobs)
        return self._jobs

    def _event_list(self) -> EventList:
        options = self.options
        if self._events is None or self._events.wanted != (options.event_text, options.event_kind, options.all_events):
            self._events = EventList(options.event_text, options.event_kind, all=options.all_events)
        return self._events

    def _schema(self) -> FunctionSchema | None:
        if not self.options.function:
            return None
        runtime_id, name = json.loads(self.options.function)
        try:
            return self._emulator.lifecycle.find_schema(runtime_id, name)
        except NotFound:
            return None

    def _charts(self, now: int, steady: int) -> Part:
        self._charts_at = time.monotonic()
        state, emu = self._emulator.lifecycle, self._emulator.name
        every = state.count().total()
        return {
            "timeline": timeline_chart(state.newest_jobs(CHART_JOBS), now, every, emu, steady=steady).svg,
            "latency": latency_chart(state.newest_jobs(LATENCY_JOBS), every, emu).svg,
        }
