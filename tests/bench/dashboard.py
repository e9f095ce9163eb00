"""What dashboards cost while jobs stream through the emulator of a real kernel, and whether they tell the truth.

The history has 100,000 finished jobs; a process that submits and one that executes keep as many more going as the
machine can. Rounds without a dashboard alternate with rounds in which the driver acts as the browser: it sends the
widget's messages and listens to its updates. Each round is compared with those just before and after. Then the picture
must be what `emu.lifecycle` says; the benchmark ends with an error if it was not.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import msgspec
from bench.dashboard_load import Load, load
from bench.dashboard_meter import WORD
from bench.figures import Figure, report
from bench.notebook import open_notebook
from kernels.driver import wait_until

from cmemu_nb.dashboard.view import Options

if TYPE_CHECKING:
    from bench.dashboard_browser import Browser, Window

    Looks = list[dict[str, Any]]

LONG = bool(os.environ.get("CMEMU_LONG"))
REPEATS, SECONDS = (10, 3.0) if LONG else (1, 1.5)
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
        "Events, text, quiet ones": [{"tab": "events", "event_text": ID_PART, "quiet": True}],
        "two dashboards, Jobs": [{"tab": "jobs"}, {"tab": "jobs"}],
    }


# Rounds


@dataclass
class Round:
    """What was found in a while: milliseconds of a job, of a late timer, and until the windows showed their picture."""

    per_job: float
    cpu_per_job: float
    latest: float
    opened_after: float
    updates_per_second: float
    kilobytes_per_second: float


@dataclass
class Bench:
    """A kernel with its dashboards, and the load."""

    browser: Browser
    windows: list[Window]
    load: Load
    wrong: list[str] = field(default_factory=list)

    def round(self, looks: Looks) -> Round:
        """Measure while jobs stream and windows look, then compare what these show with the truth."""
        self.load.say("+")
        time.sleep(RAMP_SECONDS)
        windows = self.windows[: len(looks)]
        opened_after = self._open(windows, looks)
        found, began = self._measured()
        self.load.say("-")
        wait_until(lambda: self.browser.ask("meter.unfinished()") == 0, "the end of the last jobs")
        updates = [[each for each in window.updates if began <= each.at <= began + SECONDS] for window in windows]
        self.wrong += self._wrong(windows, looks)
        for window in windows:
            self.browser.say(window, "close")
        return Round(
            per_job=1000 * found["seconds"] / found["jobs"],
            cpu_per_job=1000 * found["kernel_cpu"] / found["jobs"],
            latest=max(found["late"]),
            opened_after=opened_after,
            updates_per_second=max((_per_second([each.at for each in window]) for window in updates), default=0.0),
            kilobytes_per_second=sum(each.size for window in updates for each in window) / SECONDS / 1000,
        )

    def _open(self, windows: list[Window], looks: Looks) -> float:
        """Look, and return after how many milliseconds every window shows what was asked for."""
        start = time.monotonic()
        for window, options in zip(windows, looks, strict=True):
            window.updates.clear()
            self.browser.look(window, NOTHING_CHOSEN | options)
        for window in windows:
            wait_until(partial(self.browser.shows, window), "a picture of what was chosen")
        return 1000 * (time.monotonic() - start)

    def _measured(self) -> tuple[dict[str, Any], float]:
        """Let the meter run for a while; returns what it found, and when it began."""
        began = time.time()
        self.browser.run("meter.start()")
        time.sleep(SECONDS)
        return self.browser.ask("meter.stop()"), began

    def _wrong(self, windows: list[Window], looks: Looks) -> list[str]:
        """Give every window time to show the truth, and all of them the same; returns what is wrong then."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            # Polls that end meanwhile are events: the truth has to be asked for again.
            truths: list[dict[str, Any]] = [self.browser.ask(f"meter.truth({options!r})") for options in looks]
            time.sleep(SHOW_SECONDS)
            wrong = [f"{looks}: {name}" for each in zip(windows, truths, strict=True) for name in _untrue(*each)]
            wrong += [f"{looks}: not the same {name}" for name in ("header", "jobs") if not _same(windows, name)]
            if not wrong or time.monotonic() > end:
                return wrong


def _per_second(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 2 else 0.0


def _same(windows: list[Window], name: str) -> bool:
    return all(each.parts[name] == windows[0].parts[name] for each in windows)


def _untrue(window: Window, truth: dict[str, Any]) -> list[str]:
    """Return the parts of a window that differ from the truth, which has less in some."""
    parts = {name: window.parts[name] for name in truth}
    counts = {each["badge"]: each["count"] for each in parts["header"]["jobs"]}
    parts["header"] = {name: counts[name] for name in truth["header"]}
    if "jobs" in parts:
        parts["jobs"] = {name: parts["jobs"].get(name) for name in truth["jobs"]}
    if "events" in parts:
        parts["events"] = {"keys": [row["key"] for row in parts["events"]["rows"]], "every": parts["events"]["every"]}
    return [name for name in truth if parts[name] != truth[name]]


# Figures


@dataclass
class Found:
    """The rounds of a situation, and those without a dashboard that were before and after each."""

    rounds: list[Round] = field(default_factory=list)
    beside: list[Round] = field(default_factory=list)

    def of(self, name: str) -> float:
        """Return a field's median."""
        return statistics.median(float(getattr(each, name)) for each in self.rounds)

    def without(self, name: str) -> float:
        """Return its median without a dashboard."""
        return statistics.median(float(getattr(each, name)) for each in self.beside)


def all_rounds(bench: Bench, every: dict[str, Looks]) -> dict[str, Found]:
    """Measure every situation, each between two rounds without a dashboard."""
    found = {name: Found() for name in every}
    before = bench.round([])
    for _ in range(REPEATS):
        for name, looks in every.items():
            result, after = bench.round(looks), bench.round([])
            found[name].rounds.append(result)
            found[name].beside += [before, after]
            before = after
    return found


def report_all(found: dict[str, Found]) -> None:
    """Report what dashboards cost, and how fast they are."""
    say = partial(Figure, "dashboard", unit="ms", against="no dashboard")
    for name, each in found.items():
        report(say(f"{name}: time of a job", each.of("per_job"), base=each.without("per_job"), at_most=MOST))
        report(say(f"{name}: kernel's CPU", each.of("cpu_per_job"), base=each.without("cpu_per_job"), at_most=MOST))
        report(say(f"{name}: the loop is late, most", each.of("latest"), base=each.without("latest")))
    opened, updates, sent = (
        max(each.of(name) for each in found.values())
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
            report_all(all_rounds(bench, looks))
        wrong = bench.wrong + [f"{each.sent_again} unchanged parts sent again" for each in windows if each.sent_again]
        assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    main()
