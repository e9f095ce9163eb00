"""The version of a function, and the version ranges that include it [foundry].

Compute modules register every function as version 0.0.0. A range is written as in npm: `^0.0.0`, `>=0.0.0 <2`, `0.x`,
`0 - 1`, `*`, with `||` between alternatives.
"""

from __future__ import annotations

import re
from itertools import takewhile

VERSION = "0.0.0"

_NUMBER = r"(?:0|[1-9]\d*|[xX*])"
_COMPARATOR = re.compile(
    r"(?P<operator>\^|~>?|[<>]=?|=?)v?"
    rf"({_NUMBER})(?:\.({_NUMBER})(?:\.({_NUMBER})(?P<prerelease>-[0-9A-Za-z.-]+)?)?)?"
    r"(?:\+[0-9A-Za-z.-]+)?",
    re.ASCII,
)
_SPACE_AFTER_OPERATOR = re.compile(r"([\^~<>=])\s+")


def includes_version(requested: str) -> bool:
    """Return whether a version or a version range includes the version of every function.

    Text that is neither includes nothing.
    """
    alternatives = [_comparators(alternative) for alternative in requested.split("||")]
    if not all(_COMPARATOR.fullmatch(each) for comparators in alternatives for each in comparators):
        return False
    return any(all(map(_allows, comparators)) for comparators in alternatives)


def _comparators(alternative: str) -> list[str]:
    match alternative.split():
        case [first, "-", last]:
            return [f">={first}", f"<={last}"]
    return _SPACE_AFTER_OPERATOR.sub(r"\1", alternative).split()


def _allows(comparator: str) -> bool:
    """Return whether a comparator allows 0.0.0, which is the lowest version except for its own prereleases."""
    parts = _COMPARATOR.fullmatch(comparator)
    assert parts is not None  # noqa: S101 - every comparator was matched before
    operator, *numbers, prerelease = parts.groups("")
    given = list(takewhile(str.isdigit, numbers))  # behind a wildcard nothing has a meaning
    lowest = set(given) <= {"0"}
    is_prerelease = bool(prerelease) and given == numbers
    if operator in ("", "="):
        return lowest and not is_prerelease
    if operator == ">":
        return lowest and is_prerelease
    if operator == "<":
        return not lowest
    return not (lowest and is_prerelease) if operator == "<=" else lowest
