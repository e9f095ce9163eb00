"""The table that `tests/run --bench` prints: medians of the runs, ratios within a run, and who reaches a mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.figures import FILE_VARIABLE, Figure, read, report, summary, table

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def rows(figures: list[Figure]) -> list[list[str]]:
    lines = table(figures).splitlines()
    assert len(set(map(len, lines))) == 1
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def runs(*pairs: tuple[float, float | None], at_most: float | None = None) -> list[Figure]:
    return [Figure("part", "what", value, "ms", "the base", base, at_most) for value, base in pairs]


def test_a_ratio_is_the_median_of_those_within_each_run() -> None:
    # The machine was busy in the second run: both are slow, their ratio is not.
    found = rows(runs((1.0, 2.0), (30.0, 60.0), (1.2, 2.0), at_most=0.5))[-1]
    assert found == ["what", "1.2 ms", "the base: 2", "0.50 x", "0.5 to 0.6", "at most 0.5", "yes"]


def test_a_figure_without_a_base_is_held_against_its_mark_itself() -> None:
    assert rows(runs((7.0, None), (5.0, None), (6.5, None), at_most=6))[-1][3:] == ["", "5 to 7", "at most 6", "NO"]
    assert rows(runs((5.0, None)))[-1] == ["what", "5 ms", "the base", "", "", "", ""]


def test_parts_keep_together_in_the_order_in_which_they_came() -> None:
    figures = [Figure(part, what, 1.0, "s") for _ in range(3) for part, what in (("b", "x"), ("a", "y"), ("b", "z"))]
    assert [row[0] for row in rows(figures)[2:]] == ["**b**", "x", "z", "**a**", "y"]


def test_every_run_reports_to_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "figures"))
    figures = runs((1.0, 2.0), (3.0, 4.0), (5.0, None))
    for figure in figures:
        report(figure)
    assert read(tmp_path / "figures") == figures
    [found] = summary(figures)["figures"]
    assert (found["value"], found["runs"]) == (3.0, 3)
