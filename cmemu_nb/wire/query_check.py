"""The check of a query against a function's schema, before the query is submitted."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from cmemu_nb.errors import InvalidRequest, known
from cmemu_nb.phrases import MAX_SHOWN_OF_A_NAME, abbreviated, bounded, closest
from cmemu_nb.wire.function_schemas import fields_of, get_in, inputs_of, required_fields_of, type_in_words, type_name
from cmemu_nb.wire.json_input import JSON_TYPES
from cmemu_nb.wire.json_values import LongInteger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MAX_SHOWN_OF_A_TYPE = 100
MAX_PROBLEMS = 5
MAX_SHOWN_OF_A_PROBLEM = 400
TIMESTAMPS = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ")

# The path in the value, and a function that describes the problem there: a large query may have many problems, most of
# which are only counted.
_Problem: TypeAlias = "tuple[str, Callable[[str], str]]"


def check_query(function_name: str, schema: object, query: object) -> None:
    """Raise an `InvalidRequest` if a query does not match a schema's inputs: which fields, what is expected and given.

    `query` is the value that would be encoded as JSON; None means `{}`. The JSON types must be exactly those that the
    SDK's conversion needs; null is only valid for optional types. A required field must be present unless its type is
    optional. In nested objects the required fields are those under `required`, which only schemas of functions that
    are served here have. Unknown fields are refused. Integers of any size are valid, as in the SDK, and so is any value
    of an unknown type. A schema without inputs, of another dialect or nested too deeply accepts any query. A string in
    a schema of the TypeScript SDK accepts any value, because that SDK uses it for every type that it does not know; an
    object without fields, `Type.Object({})`, accepts any object there. The message lists the first five problems.
    """
    inputs = inputs_of(schema)
    if not inputs:
        return
    try:
        problems = list(_problems_of_inputs(inputs, {} if query is None else query))
    except RecursionError:
        return
    problems = _as_in_its_sdk(schema, problems)
    if problems:
        described = [bounded([describe(path)], MAX_SHOWN_OF_A_PROBLEM) for path, describe in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            described.append(f"and {len(problems) - MAX_PROBLEMS} more")
        raise InvalidRequest(
            f"The query does not match {function_name}: {'; '.join(described)}. validate=False sends anything."
        )


def problem_of_input(schema: object, name: str, kind: object, value: object) -> str | None:
    """Describe the first problem of the value of one input, as in `check_query`; None if there is none."""
    try:
        problems = _as_in_its_sdk(schema, list(_under(name, _problems(kind, value))))
    except RecursionError:
        return None
    return bounded([problems[0][1](problems[0][0])], MAX_SHOWN_OF_A_PROBLEM) if problems else None


def _as_in_its_sdk(schema: object, problems: list[_Problem]) -> list[_Problem]:
    """Drop what is no problem in a schema of the TypeScript SDK, which has no `ontologyProvenance` [foundry]."""
    if isinstance(schema, dict) and "ontologyProvenance" in schema:
        return problems
    return [problem for problem in problems if not _is_allowed_in_typescript(problem)]


def _is_allowed_in_typescript(problem: _Problem) -> bool:
    """Return whether the type is one that this SDK uses for values it can't describe: a string, an empty object."""
    describe: Any = problem[1]
    function = getattr(describe, "func", None)
    if function is _describe_unknown:
        return not describe.args[1]
    return function is _describe_mismatch and type_name(describe.args[0]) == "string"


def _problems_of_inputs(inputs: dict[str, tuple[Any, bool]], query: object) -> Iterator[_Problem]:
    if not isinstance(query, dict):
        yield "", lambda _: f"it must be a JSON object, not {_given(query)}. {_known(inputs)}"
        return
    for name, (kind, required) in inputs.items():
        if name in query:
            yield from _under(name, _problems(kind, query[name]))
        elif required and type_name(kind) != "optionalType":
            yield name, partial(_describe_missing, kind)
    yield from _unknown(inputs, query, "")


def _problems(kind: Any, value: object) -> Iterator[_Problem]:
    name = type_name(kind)
    match name, value:
        case "optionalType", None:
            return
        case "optionalType", _:
            yield from _problems(get_in(kind, name, "wrappedType"), value)
        case "list" | "set", list() | tuple():
            elements = get_in(kind, name, "elementsType")
            for position, element in enumerate(value):
                yield from _under(f"[{position}]", _problems(elements, element))
        case "map", dict():
            yield from _problems_of_map(get_in(kind, name), value)
        case "anonymousCustomType", dict():
            yield from _problems_of_struct(fields_of(kind), required_fields_of(kind) or (), value)
        case _ if not _fits(name, value):
            yield "", partial(_describe_mismatch, kind, value)


def _problems_of_map(kind: object, value: dict[Any, object]) -> Iterator[_Problem]:
    keys, values = get_in(kind, "keysType"), get_in(kind, "valuesType")
    for key, each in value.items():
        if not _key_fits(type_name(keys), key):
            yield "", partial(_describe_key, keys, key)
        for path, describe in _problems(values, each):
            yield f"[{abbreviated(key)}]{path}", describe


def _problems_of_struct(
    fields: dict[str, Any] | None, required: Iterable[str], value: dict[Any, object]
) -> Iterator[_Problem]:
    if fields is None:
        return
    for name, kind in fields.items():
        if name in value:
            yield from _under(f".{name}", _problems(kind, value[name]))
        elif name in required:
            yield f".{name}", partial(_describe_missing, kind)
    yield from _unknown(fields, value, ".")


def _unknown(fields: Mapping[str, object], value: dict[Any, object], dot: str) -> Iterator[_Problem]:
    for key in value:
        if key not in fields:
            name = key if isinstance(key, str) else abbreviated(key)
            yield f"{dot}{name}", partial(_describe_unknown, name, fields)


def _under(parent: str, problems: Iterator[_Problem]) -> Iterator[_Problem]:
    return ((parent + path, describe) for path, describe in problems)


# Single values


def _fits(name: str, value: object) -> bool:
    if name not in _SCALARS:
        return name not in _CONTAINERS
    types, convert = _SCALARS[name]
    if isinstance(value, LongInteger):
        return int in types
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        return False
    return convert is None or _converts(convert, value)


def _key_fits(name: str, key: object) -> bool:
    """Return whether the SDK can convert a map's key from the text that the key is on the wire."""
    convert = _KEYS.get(name)
    return convert is None or _converts(lambda each: convert(each if isinstance(each, str) else json.dumps(each)), key)


def _converts(convert: Callable[[Any], object], value: object) -> bool:
    try:
        convert(value)
    except (ValueError, ArithmeticError, TypeError):
        return False
    return True


def _to_decimal(value: str | float) -> int:
    # A signaling NaN can't be hashed, so it can't be an element of a set or a key of a map.
    return hash(Decimal(value))


def _to_timestamp(text: str) -> datetime:
    return datetime.strptime(text, TIMESTAMPS["." in text])  # noqa: DTZ007 - as the SDK reads it


INTEGERS = ("integer", "long", "short", "byte")
_CONTAINERS = frozenset({"list", "set", "map", "anonymousCustomType"})
# The Python types of a scalar's JSON values, and the step of the SDK's conversion that may fail.
_SCALARS: dict[str, tuple[tuple[type, ...], Callable[[Any], object] | None]] = {
    **dict.fromkeys(INTEGERS, ((int,), None)),
    **dict.fromkeys(("float", "double"), ((int, float), float)),
    "decimal": ((str, int, float), _to_decimal),
    "string": ((str,), None),
    "binary": ((str,), str.encode),
    "boolean": ((bool,), None),
    "date": ((str,), date.fromisoformat),
    "timestamp": ((str,), _to_timestamp),
}
_KEYS: dict[str, Callable[[str], object] | None] = {
    **{name: convert for name, (_, convert) in _SCALARS.items()},
    **dict.fromkeys(INTEGERS, int),
}

# Descriptions of problems


def _describe_missing(kind: object, path: str) -> str:
    return f"{abbreviated(path, MAX_SHOWN_OF_A_NAME)} is missing: expected {_kind_in_words(kind)}"


def _describe_mismatch(kind: object, value: object, path: str) -> str:
    return f"{abbreviated(path, MAX_SHOWN_OF_A_NAME)}: expected {_kind_in_words(kind)}, given {_given(value)}"


def _describe_key(kind: object, key: object, path: str) -> str:
    return f"the key {abbreviated(key)} of {abbreviated(path, MAX_SHOWN_OF_A_NAME)}: expected {_kind_in_words(kind)}"


def _describe_unknown(name: str, fields: Mapping[str, object], path: str) -> str:
    return f"{abbreviated(path, MAX_SHOWN_OF_A_NAME)} is unknown.{closest(name, fields)} {_known(fields)}"


def _known(fields: Iterable[str]) -> str:
    return known(fields, "fields").rstrip(".") if fields else "It has no fields"


def _kind_in_words(kind: object) -> str:
    return bounded(type_in_words(kind), MAX_SHOWN_OF_A_TYPE)


def _given(value: object) -> str:
    if value is None:
        return "null"
    name = "list" if isinstance(value, tuple) else type(value).__name__
    return f"{JSON_TYPES.get(name, name)} ({abbreviated(value)})"
