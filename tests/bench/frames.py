"""DataFrames of 100,000 jobs or events against frames of ready columns; what one refresh of a dashboard costs.

The ready columns are NumPy arrays, one for each column, with the values that it has: texts as objects, times as
datetime64, categories as codes. All is processor time: of this process for frames, of the board's work for refreshes.
"""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from bench.figures import Figure, report
from bench.programs.emulator import fill

from cmemu_nb import Emulator
from cmemu_nb.dashboard.board import Board
from cmemu_nb.dashboard.view import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.lifecycle.lifecycle import Lifecycle

JOBS = 100_000
TIMES, REFRESHES, BETWEEN = 7, 50, 200
SMALL = 50
MOST = 3.5
TABS = ("jobs", "runtimes", "functions", "events")

say = partial(Figure, "frames", unit="ms")


def cost(work: Callable[[], object]) -> float:
    """Return the processor time of some work in milliseconds."""
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


# Frames


def ready(column: Any) -> Any:
    """Return a column's values as NumPy has them."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.array.codes
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.to_numpy(dtype="M8[ns]")
    if isinstance(column.dtype, pd.StringDtype):
        return np.array([None if pd.isna(text) else text for text in column], dtype=object)
    return column.to_numpy(dtype="int64") if column.dtype == "Int64" else column.to_numpy()


def typed(values: Any, dtype: Any) -> Any:
    """Give a column its type."""
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Categorical.from_codes(values, dtype=dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(values).tz_localize("UTC")
    return pd.array(values, dtype=dtype)


def compare(what: str, make: Callable[[], pd.DataFrame], at_most: float | None = None) -> None:
    """Report what a frame costs, against ready columns and against columns that have their types already."""
    frame = make()
    values, dtypes, index = {name: ready(frame[name]) for name in frame}, dict(frame.dtypes), frame.index
    labels = ready(index.to_series())
    columns = {name: frame[name].array for name in frame}

    def directly() -> pd.DataFrame:
        made = {name: typed(values[name], dtypes[name]) for name in values}
        return pd.DataFrame(made, index=pd.Index(typed(labels, index.dtype), name=index.name))

    pd.testing.assert_frame_equal(directly(), frame)
    rounds = [(cost(make), cost(directly), cost(lambda: pd.DataFrame(columns, index=index))) for _ in range(TIMES)]
    ours, direct, copied = (statistics.median(each) for each in zip(*rounds, strict=True))
    report(say(f"a frame of {what}", ours, against="from ready columns", base=direct, at_most=at_most))
    report(say(f"a frame of {what}, beside a copy", ours, against="copying a ready frame's columns", base=copied))


# Dashboard


class Refreshes:
    """A board without its thread: it refreshes one view when it is told to."""

    def __init__(self, emulator: Emulator, tab: str) -> None:
        self.sent = 0
        self._board = Board(emulator)
        self._view = View(self._board, self._count, self._count, lambda: None)
        self._view.receive({"do": "look", "window": "one", "number": 1, "changes": {"tab": tab}})

    def _count(self, _: dict[str, Any]) -> None:
        self.sent += 1

    def once(self) -> None:
        """Do what the board's thread does each time."""
        self._board._do_tasks()  # noqa: SLF001
        self._board._refresh()  # noqa: SLF001

    def end(self) -> None:
        """Stop looking."""
        self._board.unwatch(self._view)


def refresh_costs(emulator: Emulator, tab: str) -> tuple[float, float]:
    """Return the median cost of a refresh, and that of the jobs which come between two of them."""
    refreshes = Refreshes(emulator, tab)
    refreshes.once()
    jobs, looks = [], []
    for _ in range(REFRESHES):
        jobs.append(cost(lambda: emulator.change(lambda lifecycle: fill(lifecycle, BETWEEN))))
        looks.append(cost(refreshes.once))
    assert refreshes.sent > REFRESHES, "the dashboard has shown nothing"
    refreshes.end()
    return statistics.median(looks), statistics.median(jobs)


def renew(lifecycle: Lifecycle) -> None:
    """Begin again with larger queries and results."""
    lifecycle.open_session("r0")
    fill(lifecycle, JOBS)


def main() -> None:
    """Measure and report."""
    with Emulator(port=0, home="thread", keep_events=JOBS) as emulator:
        emulator.open_runtime("r0")
        emulator.change(lambda lifecycle: fill(lifecycle, JOBS, SMALL))
        compare(f"100,000 jobs, queries of {SMALL} bytes", lambda: emulator.jobs, MOST)
        compare("100,000 events", lambda: emulator.events)
        emulator.change(renew)
        compare("100,000 jobs, queries of 1 KB", lambda: emulator.jobs, MOST)
        for tab in TABS:
            refresh, jobs = refresh_costs(emulator, tab)
            what = f"a refresh of a dashboard, {tab}"
            report(say(what, refresh, against=f"the state machine's part of {BETWEEN} jobs", base=jobs))


if __name__ == "__main__":
    main()
