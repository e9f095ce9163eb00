"""The one writer of an emulator's dashboards: a thread that shows what changed, at most five times a second.

It hears of every event on the emulator's loop, where it only notes which job it was about; everything else happens on
its own thread, so that neither the loop nor a cell waits for a dashboard, and lets others have the interpreter every
half millisecond. It sleeps while nobody looks.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import traceback
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cmemu_nb.dashboard.activity import Activity, Figures, activity_of, figures
from cmemu_nb.dashboard.summaries import Summaries
from cmemu_nb.errors import NotRunning
from cmemu_nb.eventloop.home import start_thread
from cmemu_nb.eventloop.loop import quick_switches
from cmemu_nb.lifecycle.events import QUIET
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmemu_nb.dashboard.view import View
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.events import Event

PACE_SECONDS = 0.2
TICK_SECONDS = 1.0
ENDS = frozenset({"job_succeeded", "job_failed"})
CHANGES_ALL = frozenset({"session_reset", "session_deleted"})


@dataclass(frozen=True)
class Changes:
    """What happened since the last look: the jobs it was about, whether whole sessions went, whether anything did.

    Empty polls and chunks of streams are nothing in this sense.
    """

    jobs: set[str]
    everything: bool
    anything: bool


class Board:
    """Keeps the views of one emulator's dashboards up to date. Its methods may be called from any thread."""

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
        self._listen_no_more: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None
        self._ended = False

    def open(self) -> None:
        """Be there: called in a cell, which what is sent to the browser then belongs to."""
        if self._thread is None:
            self._thread = start_thread(self._run, "cmemu-dashboard")
            atexit.register(self._end)

    def do(self, task: Callable[[], object]) -> None:
        """Run a task on the writer's thread, after those before it."""
        self._tasks.append(task)
        self._hurry.set()
        self._wake.set()

    @property
    def watched(self) -> bool:
        """Whether anybody looks at a dashboard; while nobody does, the writer sleeps."""
        return bool(self._views)

    def figures(self, now: int) -> Figures:
        """Return how the last minute went, found once a second; `now` is Unix nanoseconds."""
        second = now // NS_PER_S
        if self._figures is None or self._figures[0] != second:
            self._figures = second, figures(self._activities, now, now - self.emulator.uptime)
        return self._figures[1]

    # On the writer's thread

    def show(self, view: View) -> None:
        """Keep a view up to date from now on."""
        if view not in self._views:
            self._views.append(view)
        if self._listen_no_more is None:
            self._listen()

    def leave(self, view: View) -> None:
        """Let a view rest."""
        if view in self._views:
            self._views.remove(view)
        if not self.watched and self._listen_no_more is not None:
            self._listen_no_more()
            self._listen_no_more = None

    def _listen(self) -> None:
        state, recent = self.emulator.lifecycle, Activity()

        def begin() -> int:
            self._listen_no_more = state.events.subscribe(lambda event: self._hear(event, recent))
            return state.now()

        # What ends from now on is heard of, so that no job is counted twice or left out.
        now = self.emulator.change(lambda _: begin()) if self.emulator.running else begin()
        self._activities = [activity_of(state.jobs(), now), recent]
        self._figures = None
        self._everything_changed = True

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(TICK_SECONDS if self.watched else None)
            self._wake.clear()
            with quick_switches():
                self._do_tasks()
                self._refresh()
            if self.watched:
                # Who pressed a button sees at once what it did.
                self._hurry.wait(PACE_SECONDS)

    def _do_tasks(self) -> None:
        self._hurry.clear()
        while self._tasks:
            self._try(self._tasks.popleft(), list(self._views))

    def _refresh(self) -> None:
        changes = self._take_changes()
        now = self.emulator.looked_at()
        for view in list(self._views):
            self._try(partial(view.refresh, changes, now), [view])

    def _try(self, work: Callable[[], object], views: Iterable[View]) -> None:
        """Do something; if it fails say so in the views, and what a view can't say is an event: the writer goes on."""
        try:
            work()
        except Exception:  # noqa: BLE001
            words = traceback.format_exc()
            for view in views:
                try:
                    view.complain(words)
                except Exception:  # noqa: BLE001
                    self._note(f"{words}\n{traceback.format_exc()}")

    def _note(self, words: str) -> None:
        with contextlib.suppress(NotRunning):
            self.emulator.change(lambda lifecycle: lifecycle.note("internal_error", detail=words))

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

    def _hear(self, event: Event, recent: Activity) -> None:
        if event.job_id is not None:
            self._changed.append(event.job_id)
            if event.kind in ENDS:
                job = self.emulator.lifecycle.find_job(event.job_id)
                if job is not None:
                    recent.add(job)
        elif event.kind in CHANGES_ALL:
            self._everything_changed = True
        if event.kind not in QUIET:
            self._anything_changed = True
        if not self._wake.is_set():
            self._wake.set()
