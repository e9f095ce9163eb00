"""Percentiles, by the one definition that every view uses: nearest rank, so always a time that was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = (50, 95)
MAX_TIMES = 1000  # of a served function's jobs are kept
RUN_TIMES = f"run times of the last {MAX_TIMES:,} jobs of each"


def rank(count: int, percent: int) -> int:
    """Return which of so many values, counted from 1 in their order, is the percentile."""
    return max(1, -(-count * percent // 100))


def percentile(ordered: Sequence[int], percent: int) -> int | None:
    """Return the smallest of the values, which are in their order, that so many percent do not exceed; None of none."""
    return ordered[rank(len(ordered), percent) - 1] if ordered else None
