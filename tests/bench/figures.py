"""Figures of the benchmarks: said as they are measured, and the medians of several runs in one table.

Needs only the standard library, because `tests/run` prints the table before it has any environment.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE_VARIABLE = "CMEMU_FIGURES"
HEAD = ("what", "figure", "against", "ratio", "of the runs", "mark", "")


@dataclass(frozen=True)
class Figure:
    """One measured figure of a part, such as `round_trip`.

    `base` is what it is compared with, in the same unit and measured in the same run, `against` says what that is.
    `at_most` is the mark: of the ratio where there is a base, of the value where there is none.
    """

    part: str
    what: str
    value: float
    unit: str
    against: str = ""
    base: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        """The value by its base."""
        return self.value / self.base if self.base else None


def report(figure: Figure) -> None:
    """Print a figure, and add it to the file of this run, if `tests/run` asks for one."""
    print("   ".join(cell for cell in _cells([figure])[:4] if cell), flush=True)
    file = os.environ.get(FILE_VARIABLE)
    if file:
        with Path(file).open("a") as lines:
            lines.write(json.dumps(asdict(figure)) + "\n")


def read(file: Path) -> list[Figure]:
    """Return the figures of all runs that reported to a file."""
    return [Figure(**json.loads(line)) for line in file.read_text().splitlines()]


def summary(figures: list[Figure]) -> dict[str, Any]:
    """Return the medians of the runs as JSON-ready fields, with the machine."""
    return {
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "figures": [
            {**asdict(_median(runs)), "ratio": _median_ratio(runs), "runs": len(runs)} for runs in _grouped(figures)
        ],
    }


def table(figures: list[Figure]) -> str:
    """Return the medians of the runs as one table, part by part, in Markdown."""
    rows = []
    part = ""
    for runs in _grouped(figures):
        if runs[0].part != part:
            part = runs[0].part
            rows.append((f"**{part}**", *[""] * (len(HEAD) - 1)))
        rows.append(_cells(runs))
    widths = [max(len(row[column]) for row in (HEAD, *rows)) for column in range(len(HEAD))]
    lines = [HEAD, tuple("-" * width for width in widths), *rows]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def _grouped(figures: list[Figure]) -> list[list[Figure]]:
    groups: defaultdict[str, dict[str, list[Figure]]] = defaultdict(dict)
    for figure in figures:
        groups[figure.part].setdefault(figure.what, []).append(figure)
    return [runs for part in groups.values() for runs in part.values()]


def _median(runs: list[Figure]) -> Figure:
    base = None if runs[0].base is None else statistics.median(each.base or 0.0 for each in runs)
    value = statistics.median(each.value for each in runs)
    first = runs[0]
    return Figure(first.part, first.what, value, first.unit, first.against, base, first.at_most)


def _median_ratio(runs: list[Figure]) -> float | None:
    ratios = [each.ratio for each in runs if each.ratio is not None]
    return statistics.median(ratios) if ratios else None


def _cells(runs: list[Figure]) -> tuple[str, ...]:
    middle, ratio = _median(runs), _median_ratio(runs)
    compared = [each.value if ratio is None else each.ratio or 0.0 for each in runs]
    reached = statistics.median(compared)
    mark = "" if middle.at_most is None else f"at most {middle.at_most:g}"
    return (
        middle.what,
        f"{_shown(middle.value)} {middle.unit}",
        middle.against if middle.base is None else f"{middle.against}: {_shown(middle.base)}",
        "" if ratio is None else f"{ratio:.2f} x",
        f"{_shown(min(compared))} to {_shown(max(compared))}" if len(runs) > 1 else "",
        mark,
        "" if middle.at_most is None else ("yes" if reached <= middle.at_most else "NO"),
    )


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
