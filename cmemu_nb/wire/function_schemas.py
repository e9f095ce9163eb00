"""Foundry's function schemas, in words and as a check of a query.

They are what the official SDKs post [foundry]:
`{"functionName": "add", "inputs": [{"name": "x", "required": true, "dataType": {"type": "integer", "integer": {}}}],
"output": {"type": "single", "single": {"dataType": {...}}}}`.
"""

from __future__ import annotations

import difflib
from heapq import nlargest
from itertools import islice
from reprlib import Repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MOST_WORDS = 300
MOST_OF_A_VALUE = 60
MOST_OF_A_NAME = 100
MOST_COMPARED = 1_000
MOST_RATIOS = 20
SIMILAR = 0.6

# In words


def schema_in_words(schema: object) -> str:
    """Say a schema: "x: integer, limit: integer (may be left out), tags: optional list of string -> string".

    "(may be left out)" is a field that is not required; "optional" is a value that may be null, and such a field may
    be left out, too. A nested object is "struct {a: integer, b: date}", a name that is no identifier is quoted, an
    unknown type is shown by its name. Without inputs it is "anything -> string"; a payload of another dialect is "".
    After 300 characters it ends with "…". `schema` is any JSON value.
    """
    inputs = inputs_of(schema)
    return "" if inputs is None else bounded(_schema_words(inputs, schema), MOST_WORDS)


def _schema_words(inputs: dict[str, tuple[Any, bool]], schema: object) -> Iterator[str]:
    yield from _field_words({name: kind for name, (kind, _) in inputs.items()}, {n for n in inputs if not inputs[n][1]})
    yield "" if inputs else "anything"
    yield " -> "
    yield from words_of(get_in(schema, "output", "single", "dataType"))


def _field_words(fields: Mapping[str, object], left_out: Iterable[str] = ()) -> Iterator[str]:
    for position, (name, kind) in enumerate(fields.items()):
        yield f"{', ' if position else ''}{name_in_words(name)}: "
        yield from words_of(kind)
        yield " (may be left out)" if name in left_out else ""


def words_of(kind: object) -> Iterator[str]:
    """Yield a type in words, piece by piece: whoever stops early is never nested deeply."""
    name = type_name(kind)
    inside = get_in(kind, name)
    match name:
        case "list" | "set":
            yield f"{name} of "
            yield from words_of(get_in(inside, "elementsType"))
        case "map":
            yield "map of "
            yield from words_of(get_in(inside, "keysType"))
            yield " to "
            yield from words_of(get_in(inside, "valuesType"))
        case "optionalType":
            yield "optional "
            yield from words_of(get_in(inside, "wrappedType"))
        case "anonymousCustomType":
            yield "struct {"
            yield from _field_words(fields_of(kind) or {})
            yield "}"
        case _:
            yield name_in_words(name) if name else "anything"


def name_in_words(name: str) -> str:
    """Return a field's name, quoted where it could be misread."""
    return name if name.isidentifier() else repr(name)


def bounded(pieces: Iterable[str], most: int) -> str:
    """Join words until there are `most` characters."""
    words = ""
    for piece in pieces:
        words += piece
        if len(words) > most:
            return f"{words[:most]}…"
    return words


# Reading a schema


def inputs_of(schema: object) -> dict[str, tuple[Any, bool]] | None:
    """Return a schema's inputs by name, each with its type and whether it is required; None for another dialect."""
    inputs = get_in(schema, "inputs")
    if not isinstance(inputs, list):
        return None
    found = {}
    for each in inputs:
        name, kind = get_in(each, "name"), get_in(each, "dataType")
        if not isinstance(name, str) or not type_name(kind):
            return None
        found[name] = kind, each.get("required") is not False
    return found


def type_name(kind: object) -> str:
    """Return the name of a type; "" of what is none, which takes any value."""
    name = kind.get("type") if isinstance(kind, dict) else None
    return name if isinstance(name, str) else ""


def fields_of(kind: object) -> dict[str, Any] | None:
    """Return a struct's fields by name; None where there are none."""
    fields = get_in(kind, "anonymousCustomType", "fields")
    return fields if isinstance(fields, dict) else None


def get_in(value: object, *keys: str) -> Any:
    """Return what stands under keys in nested objects, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def closest(name: str, names: Iterable[str]) -> str:
    """Return a sentence that asks for the most similar name, with a blank before it; "" when none is similar.

    Upper and lower case are the same, of long names the first 100 characters count, and of many names the first 1,000.
    """
    by_beginning = {each.casefold()[:MOST_OF_A_NAME]: each for each in islice(names, MOST_COMPARED)}
    match = difflib.SequenceMatcher(None, b=name.casefold()[:MOST_OF_A_NAME])

    def bound(beginning: str) -> float:
        match.set_seq1(beginning)
        # The first, of lengths alone, takes next to no time.
        return match.quick_ratio() if match.real_quick_ratio() >= SIMILAR else 0.0

    # The ratio itself takes the square of the length, so few are compared: those that have the most letters in common.
    likely = nlargest(MOST_RATIOS, by_beginning, key=bound)
    found = difflib.get_close_matches(name.casefold()[:MOST_OF_A_NAME], likely, 1, SIMILAR)
    return f" Did you mean {quoted(by_beginning[found[0]])}?" if found else ""


def quoted(name: str) -> str:
    """Return a name in quotes, as an error message repeats it: of a long one the beginning."""
    return shown(name, MOST_OF_A_NAME)


def shown(value: object, most: int = MOST_OF_A_VALUE) -> str:
    """Return the beginning of a value's repr, without making all of it."""
    short = Repr()
    short.maxlevel = 3
    short.maxstring = short.maxother = short.maxlong = most
    try:
        return bounded([short.repr(value)], most)
    except ValueError:  # Python refuses to print an integer of more than 4300 digits
        return "too long to show"
