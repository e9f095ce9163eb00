"""Percentiles, by the definition that every view uses: nearest rank, so the result is always a measured time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = (50, 95)
MAX_TIMES = 1000  # how many run times of each served function are kept
RUN_TIMES = f"run times of the last {MAX_TIMES:,} jobs of each"


def rank(count: int, percent: int) -> int:
    """Return the rank of the percentile among `count` ordered values, counted from 1."""
    return max(1, -(-count * percent // 100))


def percentile(ordered: Sequence[int], percent: int) -> int | None:
    """Return the smallest of the ordered values that `percent` percent of them do not exceed; None without values."""
    return ordered[rank(len(ordered), percent) - 1] if ordered else None
