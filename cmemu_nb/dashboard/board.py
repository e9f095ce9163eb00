"""The board: the one thread that updates all dashboards of an emulator, at most five times a second.

Its listener runs on the emulator's loop after every event, and only notes which job the event is about. Everything else
runs on the board's own thread, so that neither the loop nor a cell waits for a dashboard; that thread offers the
interpreter lock to other threads every half millisecond. It lives only while a dashboard is open.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import threading
import traceback
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cmemu_nb.dashboard.activity import Activity, Figures, activity_of, figures
from cmemu_nb.dashboard.summary import Summaries
from cmemu_nb.errors import NotRunning
from cmemu_nb.eventloop.home import start_thread
from cmemu_nb.eventloop.loop import quick_switches
from cmemu_nb.lifecycle.events import ENDS_SESSION, FINISHES_JOB, QUIET
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmemu_nb.dashboard.panels import Part
    from cmemu_nb.dashboard.view import View
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.events import Event

PACE_SECONDS = 0.2
TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Changes:
    """The changes since the last update: the ids of jobs, whether `everything` may differ, whether `anything` happened.

    A session that is reset or deleted changes everything. Empty polls and chunks of streams do not count.
    """

    jobs: set[str]
    everything: bool
    anything: bool

    def and_later(self, later: Changes) -> Changes:
        """Return these changes and later ones."""
        return Changes(self.jobs | later.jobs, self.everything or later.everything, self.anything or later.anything)


class Board:
    """Updates the views of one emulator's dashboards. Its public methods may be called from any thread."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.summaries = Summaries(emulator.lifecycle.events)
        self._views: list[View] = []
        self._tasks: deque[Callable[[], object]] = deque()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._changed: deque[str] = deque()
        self._everything_changed = self._anything_changed = False
        self._activities: list[Activity] = []
        self._figures: tuple[int, Figures] | None = None
        self._shared: dict[str, Part] = {}
        self._unsubscribe: Callable[[], None] | None = None
        self._context: contextvars.Context | None = None
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = False

    def open(self) -> None:
        """Prepare for dashboards. Call this in a cell, so that messages to the browser belong to that cell."""
        if self._context is None:
            self._context = contextvars.copy_context()
            atexit.register(self._end)

    def do(self, task: Callable[[], object]) -> None:
        """Run a task on the board's thread, after the tasks before it."""
        self._tasks.append(task)
        self._hurry.set()
        self._wake.set()
        with self._starting:
            if self._thread is None and self._context is not None:
                self._thread = self._context.copy().run(start_thread, self._run, "cmemu-dashboard")

    def refresh_again(self) -> None:
        """Update the views once more, after the usual pause: there was too much to send for one update."""
        self._wake.set()

    @property
    def watched(self) -> bool:
        """Whether a dashboard is open; while none is, the board has no thread."""
        return bool(self._views)

    def figures(self, now: int) -> Figures:
        """Return the figures of the last minute, computed once a second; `now` is in Unix nanoseconds."""
        second = now // NS_PER_S
        if self._figures is None or self._figures[0] != second:
            self._figures = second, figures(self._activities, now, now - self.emulator.uptime)
        return self._figures[1]

    # On the board's thread

    def shared(self, name: str, make: Callable[[], Part]) -> Part:
        """Return a part that is the same in all views; the first view of an update that asks for it makes it."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]

    def watch(self, view: View) -> None:
        """Update a view from now on."""
        if view not in self._views:
            self._views.append(view)
        if self._unsubscribe is None:
            self._subscribe()

    def unwatch(self, view: View) -> None:
        """Stop updating a view."""
        if view in self._views:
            self._views.remove(view)
        if not self.watched and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _subscribe(self) -> None:
        state, recent = self.emulator.lifecycle, Activity()

        def begin() -> int:
            self._unsubscribe = state.events.subscribe(lambda event: self._on_event(event, recent))
            return state.now()

        # Subscribing and reading the time in one step on the loop: no job is counted twice or left out.
        now = self.emulator.change(lambda _: begin()) if self.emulator.running else begin()
        self._activities = [activity_of(state.jobs(), now), recent]
        self._figures = None
        self._everything_changed = True

    def _run(self) -> None:
        while self._has_work():
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
            with quick_switches():
                self._do_tasks()
                self._refresh()
            if self.watched:
                # A pressed button ends this wait, so that its effect is shown at once.
                self._hurry.wait(PACE_SECONDS)

    def _has_work(self) -> bool:
        with self._starting:
            if self._ended or not (self.watched or self._tasks):
                self._thread = None
            return self._thread is not None

    def _do_tasks(self) -> None:
        self._hurry.clear()
        while self._tasks:
            self._try(self._tasks.popleft(), list(self._views))

    def _refresh(self) -> None:
        changes = self._take_changes()
        self._shared.clear()
        now = self.emulator.looked_at()
        for view in list(self._views):
            self._try(partial(view.refresh, changes, now), [view])

    def _try(self, work: Callable[[], object], views: Iterable[View]) -> None:
        """Do `work`; show an error in the views, or record it as an event if a view can't show it."""
        try:
            work()
        except Exception:  # noqa: BLE001
            trace = traceback.format_exc()
            for view in views:
                try:
                    view.show_error(trace)
                except Exception:  # noqa: BLE001
                    self._note(f"{trace}\n{traceback.format_exc()}")

    def _note(self, trace: str) -> None:
        with contextlib.suppress(NotRunning):
            self.emulator.change(lambda lifecycle: lifecycle.note("internal_error", detail=trace))

    def _take_changes(self) -> Changes:
        everything, self._everything_changed = self._everything_changed, False
        anything, self._anything_changed = self._anything_changed, False
        jobs: set[str] = set()
        with contextlib.suppress(IndexError):
            while True:
                jobs.add(self._changed.popleft())
        return Changes(jobs, everything, anything or everything)

    def _end(self) -> None:
        self._ended = True
        self._hurry.set()
        self._wake.set()

    # On the emulator's loop

    def _on_event(self, event: Event, recent: Activity) -> None:
        if event.job_id is not None:
            self._changed.append(event.job_id)
            if event.kind == "job_queued":
                recent.add_submitted(event.at)
            elif event.kind == "job_started":
                recent.add_started(event.at)
            elif event.kind in FINISHES_JOB:
                job = self.emulator.lifecycle.find_job(event.job_id)
                if job is not None:
                    recent.add(job)
        elif event.kind in ENDS_SESSION:
            self._everything_changed = True
        if event.kind not in QUIET:
            self._anything_changed = True
        if not self._wake.is_set():
            self._wake.set()
