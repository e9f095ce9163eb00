"""What the dashboard costs while jobs stream through the emulator of a real kernel, and whether it tells the truth.

The history has 100,000 finished jobs; a process that submits and one that executes keep as many more going as the
machine can. Rounds without a dashboard alternate with rounds in which the driver acts as the browser: it sends the
widget's messages and listens to its updates. In the kernel a timer on the kernel's own loop, due every two
milliseconds, says how late it came, and the writer's passes are measured in CPU time, which counts only the time that
it ran. After each round the picture must be what `emu.lifecycle` says; the benchmark ends with an error if it was not.

Machines have moods: the ratios are those to the rounds just before and after, the ratio by CPU compares the kernel's
CPU time for a job, and `others' CPU` says how much of a core other programs had meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

import msgspec
from bench.dashboard_browser import Browser, Window
from bench.dashboard_load import Load, load
from bench.dashboard_meter import WORD
from environments import kernel_python
from kernels.driver import wait_until
from kernels.notebooks import APP, START

from cmemu_nb.dashboard.view import Options

if TYPE_CHECKING:
    from collections.abc import Iterator

    Looks = list[dict[str, Any]]

LONG = bool(os.environ.get("CMEMU_LONG"))
REPEATS, SECONDS = (10, 3.0) if LONG else (4, 1.4)
RAMP_SECONDS, PATIENCE_SECONDS = 0.3, 6.0
SETTLE_SECONDS, SHOW_SECONDS = 0.1, 0.3
ID_PART = "bee"  # of the ids of some jobs
NOBODY = "no dashboard"
NOTHING_CHOSEN = {name: value for name, value in msgspec.to_builtins(Options()).items() if name != "seen"}

KERNEL = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from bench.dashboard_meter import Meter
rt = emu.open_runtime("outside", deployed_app_rid={APP!r})
meter = Meter(emu)
print(meter.fill())
"""


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
class Measured:
    """What was found in a while: late timers and the writer's passes in milliseconds, updates of each window."""

    jobs_per_second: float
    cpu_per_job: float
    late: list[float]
    late_beside: list[float]
    passes: list[float]
    writer_share: float
    updates_per_second: float
    bytes_per_second: float
    others_share: float


@dataclass
class Round:
    """What one round found while the windows opened, if there were any, and when they were open."""

    opening: Measured
    opened_after: float
    steady: Measured
    ratio: float = 1.0
    cpu_ratio: float = 1.0


@dataclass
class Bench:
    """A kernel with its dashboards, and the load."""

    browser: Browser
    windows: list[Window]
    load: Load
    wrong: Counter[str] = field(default_factory=Counter)

    def round(self, looks: Looks) -> Round:
        """Measure while jobs stream and windows look, then compare what these show with the truth."""
        self.load.say("+")
        time.sleep(RAMP_SECONDS)
        windows = self.windows[: len(looks)]
        opening, opened_after = self._open(windows, looks)
        with self._measuring(windows) as steady:
            time.sleep(SECONDS)
        self.load.say("-")
        wait_until(lambda: self.browser.ask("meter.unfinished()") == 0, "the end of the last jobs")
        self.wrong.update(self._wrong(windows, looks))
        self._close(windows)
        return Round(opening if windows else steady[0], opened_after, steady[0])

    def alone(self, looks: Looks) -> float:
        """Return how late the timer comes at most while windows open and the kernel has nothing else to do."""
        windows = self.windows[: len(looks)]
        opening, _ = self._open(windows, looks)
        self._close(windows)
        return max(opening.late_beside)

    def _open(self, windows: list[Window], looks: Looks) -> tuple[Measured, float]:
        """Look, and measure until every window shows what was asked for; returns after how many seconds, too."""
        with self._measuring(windows) as opening:
            time.sleep(SETTLE_SECONDS)  # the cell that starts the meter keeps the loop busy for a moment, too
            start = time.monotonic()
            for window, options in zip(windows, looks, strict=True):
                window.updates.clear()
                window.looks += 1
                self.browser.say(window, "look", changes=NOTHING_CHOSEN | options, number=window.looks)
                wait_until(partial(_opened, window), "a picture of what was chosen")
            opened_after = time.monotonic() - start
            time.sleep(SETTLE_SECONDS)
        return opening[0], opened_after

    @contextlib.contextmanager
    def _measuring(self, windows: list[Window]) -> Iterator[list[Measured]]:
        """Measure while the block runs; the list has what was found then."""
        found: list[Measured] = []
        busy = self._busy_of_others()
        self.browser.run("meter.start()")
        began = time.time()
        yield found
        measured, ended = self.browser.ask("meter.stop()"), time.time()
        busy = self._busy_of_others() - busy
        updates = [[each for each in window.updates if began <= each.at <= ended] for window in windows]
        sizes = [each.size for window in updates for each in window]
        rates = [_per_second([each.at for each in window]) for window in updates]
        found.append(
            Measured(
                jobs_per_second=measured["jobs"] / measured["seconds"],
                cpu_per_job=measured["kernel_cpu"] / max(1, measured["jobs"]),
                late=measured["late"],
                late_beside=measured["late_beside"],
                passes=measured["passes"],
                writer_share=sum(measured["passes"]) / measured["seconds"] / 1000,
                updates_per_second=max(rates, default=0.0),
                bytes_per_second=sum(sizes) / (ended - began),
                others_share=max(0.0, busy / (ended - began)),
            )
        )

    def _busy_of_others(self) -> float:
        """Return the seconds of CPU time that other programs have had."""
        ours = [os.getpid(), self.browser.pid, *self.load.pids]
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in ours]
        user, nice, system = Path("/proc/stat").read_text().split()[1:4]
        busy = int(user) + int(nice) + int(system) - sum(int(each) for pair in fields for each in pair)
        return busy / os.sysconf("SC_CLK_TCK")

    def _close(self, windows: list[Window]) -> None:
        for window in windows:
            self.browser.say(window, "close")

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


def _opened(window: Window) -> bool:
    return bool(window.parts["options"]["seen"].get(window.comm_id) == window.looks)


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


@dataclass
class Found:
    """All rounds of a situation, and what it does to an idle kernel's loop."""

    rounds: list[Round] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)


def all_rounds(bench: Bench, every: dict[str, Looks]) -> dict[str, Found]:
    """Measure every situation again and again, each between two rounds without a dashboard."""
    found = {name: Found() for name in (NOBODY, *every)}
    before = bench.round([])
    for _ in range(REPEATS):
        for name, looks in every.items():
            result, after = bench.round(looks), bench.round([])
            result.ratio = 2 * result.steady.jobs_per_second / _sum(before, after, "jobs_per_second")
            result.cpu_ratio = _sum(before, after, "cpu_per_job") / (2 * result.steady.cpu_per_job)
            found[name].rounds.append(result)
            found[name].alone.append(bench.alone(looks))
            found[NOBODY].rounds.append(after)
            before = after
    return found


def _sum(before: Round, after: Round, name: str) -> float:
    return float(getattr(before.steady, name) + getattr(after.steady, name))


# Words


def print_costs(found: dict[str, Found]) -> None:
    """Print what the dashboards cost and send."""
    print(f"\nOpen dashboards: medians of {REPEATS} rounds of {SECONDS:g} s, in brackets each round")
    print(
        f"{'':<25}{'jobs/s':>7}  {'ratio':<29}{'ratio by CPU':<29}{'updates/s':>9}{'kB/s':>7}{'writer':>8}  others' CPU"
    )
    for name, each in found.items():
        steady = [every.steady for every in each.rounds]
        ratios = [_ratios(each.rounds, which) if each.alone else "" for which in ("ratio", "cpu_ratio")]
        print(
            f"{name:<25}{_median(steady, 'jobs_per_second'):>7.0f}  {ratios[0]:<29}{ratios[1]:<29}"
            f"{max(every.updates_per_second for every in steady):>9.2f}"
            f"{_median(steady, 'bytes_per_second') / 1000:>7.1f}"
            f"{_median(steady, 'writer_share'):>8.1%}  "
            f"{_median(steady, 'others_share'):.0%} ({' '.join(f'{every.others_share:.0%}' for every in steady[:9])})"
        )


def _ratios(every: list[Round], name: str) -> str:
    ratios = [float(getattr(each, name)) for each in every]
    return f"{statistics.median(ratios):.2f} ({' '.join(f'{each:.2f}' for each in ratios[:4])})"


def print_holds(found: dict[str, Found]) -> None:
    """Print how late the timer of the kernel's loop came, and how much CPU time the writer's passes took."""
    head = f"{'timer late: p50':>16}{'p99':>6}{'most':>6}{'worst':>7}{'pass: p50':>11}{'most':>7}"
    print("\nMilliseconds. Most: the median of the rounds' largest; worst: the largest of all")
    print(f"{'':<25}{'open':^53} | {'while they open':^53}{'idle kernel':>13}{'opens after':>13}")
    print(f"{'':<25}{head} | {head}")
    for name, each in found.items():
        alone = f"{statistics.median(each.alone):>13.1f}" if each.alone else ""
        after = f"{max(every.opened_after for every in each.rounds):>11.1f} s" if each.alone else ""
        steady, opening = ([getattr(every, which) for every in each.rounds] for which in ("steady", "opening"))
        print(f"{name:<25}{_holds(steady)} | {_holds(opening) if each.alone else ''}{alone}{after}")


def _holds(every: list[Measured]) -> str:
    late = sorted(one for each in every for one in each.late)
    passes = [one for each in every for one in each.passes] or [0.0]
    most = statistics.median(max(each.late) for each in every)
    return (
        f"{late[len(late) // 2]:>16.1f}{late[len(late) * 99 // 100]:>6.1f}{most:>6.0f}{late[-1]:>7.0f}"
        f"{statistics.median(passes):>11.1f}{max(passes):>7.1f}"
    )


def _median(results: list[Measured], name: str) -> float:
    return statistics.median(float(getattr(each, name)) for each in results)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(kernel_python("7.4"), Path(folder))
        try:
            browser.run(START.format(port=0, home=""))
            url, token, base, module_token, open_job = json.loads(browser.run(KERNEL, 120).splitlines()[-1])
            looks = situations(open_job)
            windows = browser.open_windows(max(map(len, looks.values())))
            with load(url, token, base, module_token) as both:
                bench = Bench(browser, windows, both)
                found = all_rounds(bench, looks)
            print_costs(found)
            print_holds(found)
            print(f"\nParts that were sent again unchanged: {sum(each.sent_again for each in windows)}")
            for what, times in bench.wrong.items():
                print(f"WRONG after {times} of {REPEATS} rounds: {what}")
            assert not bench.wrong
        finally:
            browser.close()


if __name__ == "__main__":
    main()
