"""The view of one dashboard: what is open in it, and the parts of its data that this needs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.dashboard.actions import ACTIONS, SLOW
from cmemu_nb.dashboard.ahead import MAX_ROWS, MAX_TIMELINE, Ahead
from cmemu_nb.dashboard.data import DataList
from cmemu_nb.dashboard.events import EventFilter, EventList
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.dashboard.functions import FunctionList, form_part
from cmemu_nb.dashboard.job_compare import compare_part
from cmemu_nb.dashboard.job_detail import edit_part, job_part
from cmemu_nb.dashboard.job_list import JobFilter, JobList
from cmemu_nb.dashboard.job_rows import JobRows, choices_part, jobs_part
from cmemu_nb.dashboard.panels import Part, last_line, plain
from cmemu_nb.dashboard.resource import Resource
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.dashboard.timeline import Timeline, TimelineOptions
from cmemu_nb.display.text import visible
from cmemu_nb.errors import CmemuError, NotFound
from cmemu_nb.eventloop.home import start_thread
from cmemu_nb.eventloop.shell import cell_is_running

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.dashboard.board import Board, Changes
    from cmemu_nb.lifecycle.records import FunctionSchema

    Send = Callable[[dict[str, Any]], object]

# Browsers run the timers of hidden windows only once a minute.
SILENT_SECONDS = 150.0
CHART_SECONDS = 1.0
# Each update of the summary makes a saved notebook a changed one.
SUMMARY_SECONDS, SETTLED_SECONDS, QUIET_SECONDS = 10.0, 3.0, 0.9
MANY_FUNCTIONS = 50


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What is open in a dashboard: the tab, the filters, the job and the function.

    `edit` is the job whose form is open; `compare` a job and the one that it is compared with, "" for that before it.
    `resource` is the RID and the branch of a dataset or stream.
    `seen` has the number of the last request received from each window, so that the window knows which are pending.
    """

    tab: str = "jobs"
    filter: JobFilter = JobFilter()
    most: int = 50
    job: str = ""
    edit: str = ""
    compare: list[str] = []
    function: str = ""
    tried: str = ""
    resource: list[str] = []
    event_text: str = ""
    event_kind: str = ""
    all_events: bool = False
    event_pause: int = 0
    timeline: TimelineOptions = TimelineOptions()
    seen: dict[str, int] = {}


class View:
    """The state of one dashboard. Everything but `receive()` runs on the board's thread.

    `show(parts)` sends parts of the data to the browser, `answer(message)` answers a button. `summarize()` is called
    after changes, at most every ten seconds, or three when nothing happens any more, and when the last window closes.
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
        self._rows = JobRows()
        self._functions: FunctionList | None = None
        self._functions_at = 0.0
        self._events: EventList | None = None
        self._timeline = Timeline(board.emulator)
        self._data = DataList(board.emulator.lifecycle)
        self._resource = Resource(board.emulator)
        self.ahead = Ahead()
        self._errors = 0

    # Messages from the browser

    def receive(self, message: dict[str, Any]) -> None:
        """Accept a message from the browser, on any thread."""
        self._board.do(lambda: self._handle(message))

    def _handle(self, message: dict[str, Any]) -> None:
        action, window = message.get("do"), str(message.get("window"))
        if action == "close":
            self._open.pop(window, None)
            if not self._open:
                self.pause()
            return
        self._open[window] = time.monotonic()
        self._board.watch(self)
        if action == "look":
            self._change_options(window, message)
        elif action != "stay":
            self._act(message)

    def _change_options(self, window: str, message: dict[str, Any]) -> None:
        """Change the options. Each window of the dashboard sends its changes, and all windows show the same."""
        # Half a surrogate pair can't be sent back to the browser.
        changes = json.loads(json.dumps(message["changes"], ensure_ascii=False).encode(errors="replace"))
        seen = {name: number for name, number in self.options.seen.items() if name in self._open}
        wanted = msgspec.to_builtins(self.options) | changes | {"seen": {**seen, window: message["number"]}}
        self.options = msgspec.convert(wanted, Options)

    def _act(self, message: dict[str, Any]) -> None:
        """Run the action of a button and answer it; a slow one must not delay the updates."""
        if message.get("do") in SLOW:
            start_thread(lambda: self._board.do(self._acted(message)), "cmemu-action")
        else:
            self._acted(message)()

    def _acted(self, message: dict[str, Any]) -> Callable[[], None]:
        """Run an action; returns what sends the answer, which raises an error of the dashboard itself again."""
        reply: Part = {"answer": message.get("id"), "window": message.get("window")}
        fault: Exception | None = None
        try:
            reply["value"] = ACTIONS[str(message.get("do"))](self._emulator, message)
        except CmemuError as error:
            reply["error"] = plain(error, 2_000)
        except Exception as error:  # noqa: BLE001 - it is raised again below
            reply["error"], fault = plain(f"{type(error).__name__}: {error}", 2_000), error

        def answer() -> None:
            self._answer(reply)
            if fault is not None:
                raise fault

        return answer

    def pause(self) -> None:
        """Stop the updates until a window is open again."""
        self._open.clear()
        self._jobs = self._functions = None
        self._board.unwatch(self)
        self._rewrite_summary()

    # Updates of the browser

    def refresh(self, changes: Changes, now: int) -> None:
        """Send the parts that have changed to the browser."""
        self._close_silent_windows()
        if not self._open:
            return
        emulator, options = self._emulator, self.options
        steady = emulator.steady_at()
        flow = self._board.shared("flow", lambda: flow_part(emulator, self._board.figures(now), now))
        parts: Part = {"options": msgspec.to_builtins(options), "flow": flow}
        was_ahead, ahead = self.ahead.active, self.ahead.due(changes)
        if not self.ahead.active:
            self._forget_tabs(all_tabs=was_ahead)
        if ahead is not None:
            parts |= self._parts_ahead(ahead, now, steady)
        elif was_ahead and not self.ahead.active:
            parts["newest"] = {}
        self._send(parts | self._tab_parts(options.tab, changes, now, steady))
        self._summarize_if_due(changed=changes.anything)

    def _forget_tabs(self, *, all_tabs: bool) -> None:
        """Forget the lists of tabs that are not open: they would miss the changes."""
        if all_tabs or self.options.tab != "jobs":
            self._jobs = None
        if all_tabs or self.options.tab != "functions":
            self._functions = None
        if all_tabs or self.options.tab != "timeline":
            self._timeline.end()

    def _parts_ahead(self, changes: Changes, now: int, steady: int) -> Part:
        """Return the parts of the tabs that are not open, and the newest jobs."""
        state = self._emulator.lifecycle
        parts: Part = {"newest": self.ahead.newest_part(state), "choices": self._choices()}
        tabs = {"functions", "runtimes", "data", "events"} | (
            {"timeline"} if state.count().total() <= MAX_TIMELINE else set()
        )
        for tab in tabs - {self.options.tab}:
            parts |= self._tab_parts(tab, changes, now, steady)
        return parts

    def _tab_parts(self, tab: str, changes: Changes, now: int, steady: int) -> Part:
        """Return the parts of a tab."""
        emulator, options = self._emulator, self.options
        parts: Part = {}
        match tab:
            case "runtimes":
                parts = {"runtimes": runtimes_part(emulator, now)}
            case "jobs":
                parts = self._job_parts(changes, steady)
            case "functions":
                tried = job_part(emulator, options.tried, steady) if options.tried else {}
                form = form_part(emulator, self._schema())
                parts = {**self._function_parts(changes), "form": form, "tried": tried}
            case "data":
                parts = {"data": self._data.part(), "resource": self._resource.part(options.resource)}
            case "events":
                parts = {"events": self._event_list().part(emulator.lifecycle.events, emulator.lifecycle)}
            case "timeline":
                parts = {"timeline": self._timeline_part(changes, now, steady)}
        return parts

    def _job_parts(self, changes: Changes, steady: int) -> Part:
        emulator, options, state = self._emulator, self.options, self._emulator.lifecycle
        return {
            "jobs": jobs_part(state, self._job_list(changes), self._rows, min(options.most, MAX_ROWS)),
            "choices": self._choices(),
            "job": job_part(emulator, options.job, steady) if options.job else {},
            "edit": edit_part(emulator, options.job) if options.job and options.edit == options.job else {},
            "compared": self._compared(steady),
        }

    def _send(self, parts: Part) -> None:
        changed = {name: part for name, part in parts.items() if self._shown.get(name) != part}
        if changed:
            self._shown.update(changed)
            self._show(changed)

    def _summarize_if_due(self, *, changed: bool) -> None:
        """Update the summary when nothing has happened for a moment, and at intervals while something happens."""
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

    def show_error(self, trace: str) -> None:
        """Show the traceback of an error of the dashboard itself."""
        self._errors += 1
        details = visible(trace[-4_000:], lines=True)
        self._send({"trouble": {"words": plain(last_line(trace), 400), "details": details, "number": self._errors}})

    def _close_silent_windows(self) -> None:
        """Forget windows that have sent nothing for long: a browser that is closed does not say so."""
        now = time.monotonic()
        if cell_is_running():  # it may keep the kernel from receiving messages
            self._open = dict.fromkeys(self._open, now)
        self._open = {window: at for window, at in self._open.items() if at > now - SILENT_SECONDS}
        if not self._open:
            self.pause()

    def _choices(self) -> Part:
        return self._board.shared("choices", lambda: choices_part(self._emulator.lifecycle))

    def _job_list(self, changes: Changes) -> JobList:
        if self._jobs is None or self._jobs.filter != self.options.filter or changes.everything:
            self._jobs = JobList(self._emulator.lifecycle, self.options.filter)
        else:
            self._jobs.update(changes.jobs)
        return self._jobs

    def _function_parts(self, changes: Changes) -> Part:
        """Return the cards of the functions, and at intervals the histories of many of them."""
        if self._functions is None or changes.everything:
            self._functions, self._functions_at = FunctionList(self._emulator), 0.0
        self._functions.update(changes.jobs)
        cards, now = self._functions.cards(), time.monotonic()
        if len(cards["rows"]) > MANY_FUNCTIONS and now - self._functions_at < CHART_SECONDS:
            return {"functions": cards}
        self._functions_at = now
        return {"functions": cards, "histories": self._functions.histories()}

    def _compared(self, steady: int) -> Part:
        job_id, other_id = (*self.options.compare, "", "")[:2]
        return compare_part(self._emulator, job_id, other_id, steady) if job_id and job_id == self.options.job else {}

    def _event_list(self) -> EventList:
        each = self.options
        wanted = EventFilter(each.event_text, each.event_kind, each.all_events, each.event_pause)
        if self._events is None or self._events.wanted != wanted:
            self._events = EventList(wanted)
        return self._events

    def _schema(self) -> FunctionSchema | None:
        if not self.options.function:
            return None
        runtime_id, name = json.loads(self.options.function)
        try:
            return self._emulator.lifecycle.find_schema(runtime_id, name)
        except NotFound:
            return None

    def _timeline_part(self, changes: Changes, now: int, steady: int) -> Part:
        """Send the jobs of the timeline, which are not kept in the state, and return the number of the last message."""
        if changes.everything or self._timeline.asked != self.options.timeline.asked:
            self._timeline.end()
        message = self._timeline.message(changes, now, steady, self.options.timeline.asked)
        if message is not None:
            self._answer({"timeline": message})
            if message["left"]:
                self._board.refresh_again()
        return {"number": self._timeline.number}
