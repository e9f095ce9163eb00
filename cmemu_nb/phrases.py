"""Plurals, lists of names, suggestions for misspelt names, and names and values cut to a readable length."""

from __future__ import annotations

import difflib
from heapq import nlargest
from itertools import islice
from reprlib import Repr
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_SHOWN_OF_A_VALUE = 60
MAX_SHOWN_OF_A_NAME = 100
MAX_COMPARED = 1_000
MAX_RATIOS = 20
SIMILAR = 0.6


def plural(number: int, noun: str) -> str:
    """Write a number before its noun: '1 job', '0 jobs', '1,200 function errors'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Write names as one list: 'port', 'port and token', 'port, token and seed'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def bounded(pieces: Iterable[str], most: int) -> str:
    """Join pieces of text, and cut the text after `most` characters; later pieces are not produced."""
    text = ""
    for piece in pieces:
        text += piece
        if len(text) > most:
            return f"{text[:most]}…"
    return text


def closest(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the most similar name, with the leading space; "" when none is similar.

    The comparison ignores case. It considers the first 100 characters of a name and the first 1,000 names.
    """
    by_beginning = {each.casefold()[:MAX_SHOWN_OF_A_NAME]: each for each in islice(names, MAX_COMPARED)}
    match = difflib.SequenceMatcher(None, b=name.casefold()[:MAX_SHOWN_OF_A_NAME])

    def bound(beginning: str) -> float:
        match.set_seq1(beginning)
        # The bound from the lengths alone takes almost no time, so it is computed first.
        return match.quick_ratio() if match.real_quick_ratio() >= SIMILAR else 0.0

    # The ratio itself takes quadratic time in the length, so only the names with the most letters in common get one.
    likely = nlargest(MAX_RATIOS, by_beginning, key=bound)
    found = difflib.get_close_matches(name.casefold()[:MAX_SHOWN_OF_A_NAME], likely, 1, SIMILAR)
    return f" Did you mean {quoted(by_beginning[found[0]])}?" if found else ""


def quoted(name: str) -> str:
    """Return a name in quotes for an error message, cut after 100 characters."""
    return abbreviated(name, MAX_SHOWN_OF_A_NAME)


def abbreviated(value: object, most: int = MAX_SHOWN_OF_A_VALUE) -> str:
    """Return the repr of a value, cut after `most` characters, without computing all of it."""
    short = Repr()
    short.maxlevel = 3
    short.maxstring = short.maxother = short.maxlong = most
    try:
        return bounded([short.repr(value)], most)
    except ValueError:  # Python does not convert an integer of more than 4300 digits to text
        return "too long to show"
