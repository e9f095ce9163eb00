"""Numbers with their nouns, and lists of names, as everything that people read writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def plural(number: int, noun: str) -> str:
    """Write a number before its noun: '1 job', '0 jobs', '1,200 function errors'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Write names as one list: 'port', 'port and token', 'port, token and seed'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
