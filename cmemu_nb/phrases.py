"""Numbers with their nouns, lists of names, and names and values in short, as all that people read writes them."""

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
    """Join words until there are `most` characters."""
    words = ""
    for piece in pieces:
        words += piece
        if len(words) > most:
            return f"{words[:most]}…"
    return words


def closest(name: str, names: Iterable[str]) -> str:
    """Return a sentence that asks for the most similar name, with a blank before it; "" when none is similar.

    Upper and lower case are the same, of long names the first 100 characters count, and of many names the first 1,000.
    """
    by_beginning = {each.casefold()[:MAX_SHOWN_OF_A_NAME]: each for each in islice(names, MAX_COMPARED)}
    match = difflib.SequenceMatcher(None, b=name.casefold()[:MAX_SHOWN_OF_A_NAME])

    def bound(beginning: str) -> float:
        match.set_seq1(beginning)
        # The first, of lengths alone, takes next to no time.
        return match.quick_ratio() if match.real_quick_ratio() >= SIMILAR else 0.0

    # The ratio itself takes the square of the length, so few are compared: those that have the most letters in common.
    likely = nlargest(MAX_RATIOS, by_beginning, key=bound)
    found = difflib.get_close_matches(name.casefold()[:MAX_SHOWN_OF_A_NAME], likely, 1, SIMILAR)
    return f" Did you mean {quoted(by_beginning[found[0]])}?" if found else ""


def quoted(name: str) -> str:
    """Return a name in quotes, as an error message repeats it: of a long one the beginning."""
    return shown(name, MAX_SHOWN_OF_A_NAME)


def shown(value: object, most: int = MAX_SHOWN_OF_A_VALUE) -> str:
    """Return the beginning of a value's repr, without making all of it."""
    short = Repr()
    short.maxlevel = 3
    short.maxstring = short.maxother = short.maxlong = most
    try:
        return bounded([short.repr(value)], most)
    except ValueError:  # Python refuses to print an integer of more than 4300 digits
        return "too long to show"
