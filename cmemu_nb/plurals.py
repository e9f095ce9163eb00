"""Numbers with their nouns, as everything that people read writes them."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """Write a number before its noun: '1 job', '0 jobs', '1,200 function errors'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
