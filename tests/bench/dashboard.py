"""What dashboards cost while jobs stream through the emulator of a real kernel, and whether they tell the truth.

The history has 100,000 finished jobs; a process that submits and one that executes keep as many more going as the
machine can. The driver acts as the browser: it sends the widget's messages and listens to its updates. In every round
it looks and looks away in turns, so that a busy moment of the machine falls on both. At its end the picture must be
what `emu.lifecycle` says; the benchmark ends with an error if it was not.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import msgspec
from bench.dashboard_meter import WORD
from bench.figures import Figure, report
from bench.notebook import open_notebook
from bench.programs.dashboard_load import Load, load
from kernels.driver import wait_until

from cmemu_nb.dashboard.view import Options

if TYPE_CHECKING:
    from bench.dashboard_browser import Browser, Window

    Looks = list[dict[str, Any]]

LONG = bool(os.environ.get("CMEMU_LONG"))
TURNS, SECONDS = (20, 1.0) if LONG else (3, 0.6)
RAMP_SECONDS, PATIENCE_SECONDS, SHOW_SECONDS = 0.3, 6.0, 0.3
MOST, MOST_UPDATES = 1.1, 5.5
ID_PART = "bee"  # of the ids of some jobs
NOTHING_CHOSEN = {name: value for name, value in msgspec.to_builtins(Options()).items() if name != "seen"}


# Situations


def situations(open_job: str) -> dict[str, Looks]:
    """Return what is looked at, a list of options for each window, by name."""
    filters = {"runtime": "outside", "function": "echo", "status": "succeeded", "outcome": "ok", "text": WORD}
    return {
        "Jobs": [{"tab": "jobs"}],
        "Jobs, filters and text": [{"tab": "jobs", "filter": filters}],
        "Jobs, one is open": [{"tab": "jobs", "job": open_job}],
        "Timeline": [{"tab": "timeline"}],
        "Events": [{"tab": "events"}],
        "Events, text, quiet ones": [{"tab": "events", "event_text": ID_PART, "all_events": True}],
        "two dashboards, Jobs": [{"tab": "jobs"}, {"tab": "jobs"}],
    }


# Rounds


@dataclass
class Measured:
    """What the meter found in some turns."""

    seconds: float = 0.0
    cpu: float = 0.0
    jobs: int = 0
    latest: float = 0.0

    def add(self, found: dict[str, Any]) -> None:
        """Add a turn."""
        self.seconds += found["seconds"]
        self.cpu += found["kernel_cpu"]
        self.jobs += found["jobs"]
        self.latest = max(self.latest, *found["late"])


@dataclass
class Round:
    """What was found while windows look and while they do not, and how fast they were: the most of all turns."""

    looking: Measured = field(default_factory=Measured)
    beside: Measured = field(default_factory=Measured)
    opened_after: float = 0.0
    updates_per_second: float = 0.0
    kilobytes_per_second: float = 0.0


@dataclass
class Bench:
    """A kernel with its dashboards, and the load."""

    browser: Browser
    windows: list[Window]
    load: Load
    wrong: list[str] = field(default_factory=list)

    def round(self, looks: Looks) -> Round:
        """Measure while jobs stream and windows look in turns, then compare what these show with the truth."""
        self.load.say("+")
        time.sleep(RAMP_SECONDS)
        windows, found = self.windows[: len(looks)], Round()
        for _ in range(TURNS):
            found.opened_after = max(found.opened_after, self._open(windows, looks))
            began = self._measure(found.looking)
            updates = [[each for each in window.updates if began <= each.at <= began + SECONDS] for window in windows]
            for window in windows:
                self.browser.say(window, "close")
            self._measure(found.beside)
            rates = [_per_second([each.at for each in window]) for window in updates]
            sent = sum(each.size for window in updates for each in window) / SECONDS / 1000
            found.updates_per_second = max(found.updates_per_second, *rates)
            found.kilobytes_per_second = max(found.kilobytes_per_second, sent)
        self._open(windows, looks)
        self.load.say("-")
        wait_until(lambda: self.browser.ask("meter.unfinished()") == 0, "the end of the last jobs")
        self.wrong += self._wrong(windows, looks)
        for window in windows:
            self.browser.say(window, "close")
        return found

    def _open(self, windows: list[Window], looks: Looks) -> float:
        """Look, and return after how many milliseconds every window shows what was asked for."""
        start = time.monotonic()
        for window, options in zip(windows, looks, strict=True):
            window.updates.clear()
            self.browser.look(window, NOTHING_CHOSEN | options)
        for window in windows:
            wait_until(partial(self.browser.shows, window), "a picture of what was chosen")
        return 1000 * (time.monotonic() - start)

    def _measure(self, found: Measured) -> float:
        """Let the meter run for a while; returns when it began."""
        began = time.time()
        self.browser.run("meter.start()")
        time.sleep(SECONDS)
        found.add(self.browser.ask("meter.stop()"))
        return began

    def _wrong(self, windows: list[Window], looks: Looks) -> list[str]:
        """Give every window time to show the truth, and all of them the same; returns what is wrong then."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            # Polls that end meanwhile are events: the truth has to be asked for again.
            truths: list[dict[str, Any]] = [self.browser.ask(f"meter.truth({options!r})") for options in looks]
            time.sleep(SHOW_SECONDS)
            wrong = [f"{looks}: {name}" for each in zip(windows, truths, strict=True) for name in _untrue(*each)]
            wrong += [f"{looks}: not the same {name}" for name in ("flow", "jobs") if not _same(windows, name)]
            if not wrong or time.monotonic() > end:
                return wrong


def _per_second(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 2 else 0.0


def _same(windows: list[Window], name: str) -> bool:
    return all(each.parts[name] == windows[0].parts[name] for each in windows)


def _untrue(window: Window, truth: dict[str, Any]) -> list[str]:
    """Return the parts of a window that differ from the truth, which has less in some."""
    parts = {name: window.parts[name] for name in truth}
    parts["flow"] = {name: parts["flow"]["counts"][name] for name in truth["flow"]}
    if "jobs" in parts:
        parts["jobs"] = {name: parts["jobs"].get(name) for name in truth["jobs"]}
    if "events" in parts:
        parts["events"] = {"every": parts["events"]["every"]}
    return [name for name in truth if parts[name] != truth[name]]


# Figures


def report_all(found: dict[str, Round]) -> None:
    """Report what dashboards cost, and how fast they are."""
    say = partial(Figure, "dashboard", unit="ms", against="no dashboard")
    for name, each in found.items():
        looking, beside = each.looking, each.beside
        per_job, base = (1000 * one.seconds / one.jobs for one in (looking, beside))
        report(say(f"{name}: time of a job", per_job, base=base, at_most=MOST))
        per_job, base = (1000 * one.cpu / one.jobs for one in (looking, beside))
        report(say(f"{name}: kernel's CPU", per_job, base=base, at_most=MOST))
        report(say(f"{name}: the loop is late, most", looking.latest, base=beside.latest))
    opened, updates, sent = (
        max(float(getattr(each, name)) for each in found.values())
        for name in ("opened_after", "updates_per_second", "kilobytes_per_second")
    )
    report(Figure("dashboard", "opens after, most", opened, "ms"))
    report(Figure("dashboard", "updates, most", updates, "a second", at_most=MOST_UPDATES))
    report(Figure("dashboard", "sends, most", sent, "kB/s"))


def main() -> None:
    """Measure and report."""
    with open_notebook("7.4", "kernel") as notebook:
        browser = notebook.browser
        looks = situations(browser.run("print(meter.fill())", 120))
        windows = browser.open_windows(max(map(len, looks.values())))
        with load(notebook) as both:
            bench = Bench(browser, windows, both)
            report_all({name: bench.round(each) for name, each in looks.items()})
        wrong = bench.wrong + [f"{each.sent_again} unchanged parts sent again" for each in windows if each.sent_again]
        assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    main()
