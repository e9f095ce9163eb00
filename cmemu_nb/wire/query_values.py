"""Conversion of Python, numpy and pandas values to the JSON values that a function's schema requires.

The function receives the original value if its declared type can represent it [foundry: the SDK's payload converter]:
dates and times are sent as ISO text in UTC, a Decimal as text, and bytes as their UTF-8 text. A missing value (NaN,
NaT, NA) is left out if the field has a default, becomes null if the field is optional or its type is not known, and is
refused otherwise.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.phrases import MAX_SHOWN_OF_A_NAME, abbreviated, bounded
from cmemu_nb.wire.function_schemas import fields_of, get_in, inputs_of, required_fields_of, type_in_words, type_name
from cmemu_nb.wire.json_values import LongInteger, writable
from cmemu_nb.wire.queries import Source
from cmemu_nb.wire.query_check import INTEGERS, TIMESTAMPS
from cmemu_nb.wire.value_types import duplicate_column, fields_of_object, is_missing, kinds_of, name_of_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FLOATS = ("float", "double")
OBJECTS = ("map", "anonymousCustomType")
MISSING = object()
PLAIN = "Use plain JSON values: dict, list, str, int, float, bool, None"
_REMEDIES = {
    "datetime.timedelta": "Send its .total_seconds()",
    "numpy.timedelta64": "Send a number of seconds",
    "builtins.generator": "Send list(...)",
    "pandas.Period": "Send str(...)",
    "pandas.Interval": "Send its .left and .right",
}


def plain_query(query: object, schema: object, source: Source = Source.PERSON) -> object:
    """Return a query as JSON values of the types that the schema's inputs require. A schema of None accepts anything.

    Raises `InvalidRequest`, which names the field, its value and a remedy.
    """
    inputs = inputs_of(schema) or {}
    if is_missing(query):
        raise _refusal("", f"is a missing value ({abbreviated(query)})", "Leave it out: then {} is sent")
    try:
        members = _members_of_query(query)
        if members is None:
            return _Values(source).value(query, None, "")
        kinds = {name: kind for name, (kind, _) in inputs.items()}
        may_lack = [name for name, (_, required) in inputs.items() if not required]
        return _Values(Source.FRAME if _is_series(query) else source).struct(members, kinds, may_lack, "")
    except RecursionError:
        raise _refusal("", "contains itself, or is nested too deeply", PLAIN) from None


def _members_of_query(query: Any) -> Mapping[Any, Any] | None:
    if query is None:
        return {}
    if _is_series(query):
        return dict(query.items())
    return query if isinstance(query, Mapping) else fields_of_object(query)


def _is_series(value: object) -> bool:
    return "pandas.Series" in kinds_of(value)


class _Values:
    """Converts values of one source to JSON values."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def struct(
        self, members: Mapping[Any, Any], kinds: Mapping[str, Any], may_lack: Iterable[str], path: str
    ) -> dict[Any, Any]:
        """Convert the fields of an object. A missing value of a field in `may_lack` is left out."""
        result = {}
        for given, member in members.items():
            name = self._key(given, path)
            where = f"{path}.{name}" if path else str(name)
            value = self.optional(member, kinds.get(name), where, may_lack=name in may_lack)
            if value is not MISSING:
                result[name] = value
        return result

    def optional(self, value: Any, kind: Any, path: str, *, may_lack: bool = False) -> Any:
        """Convert a value that may be missing. A missing one becomes `MISSING` or None, or raises `InvalidRequest`."""
        if not (is_missing(value) or (value is None and self._source is Source.FRAME)):
            return self.value(value, kind, path)
        if may_lack:
            return MISSING
        if type_name(kind) in ("optionalType", ""):
            return None
        expected = bounded(type_in_words(kind), MAX_SHOWN_OF_A_NAME)
        raise _refusal(
            path,
            f"is missing ({abbreviated(value)}) and must be {expected}",
            "Fill it (fillna), leave its row out (dropna), or let the function do without: Optional[...] or a default",
        )

    def value(self, value: Any, kind: Any, path: str) -> Any:
        """Convert a value that is not missing."""
        name = type_name(kind)
        if name == "optionalType":
            return self.value(value, get_in(kind, name, "wrappedType"), path)
        if isinstance(value, Enum):
            return self.optional(value.value, kind, path)
        for types, convert in _SCALARS:
            if isinstance(value, types):
                return convert(value, name, path, self._source)
        kinds = frozenset(kinds_of(value))
        if "numpy.generic" in kinds:
            return self._numpy_scalar(value, kinds, kind, path)
        if kinds & _TABLES:
            return _Values(Source.FRAME).table(value, kinds, kind, path)
        return self._compound(value, kinds, kind, path)

    def _compound(self, value: Any, kinds: frozenset[str], kind: Any, path: str) -> Any:
        members = value if isinstance(value, Mapping) else None
        if members is None and (type_name(kind) in OBJECTS or not isinstance(value, tuple)):
            members = fields_of_object(value)
        if members is not None:
            return self._object(members, kind, path)
        if isinstance(value, Sequence | AbstractSet | ValuesView):
            return self._elements(value, kind, path)
        if callable(getattr(value, "tolist", None)):  # tensors and other array-like objects
            return self.optional(value.tolist(), kind, path)
        raise _refusal(path, f"is {name_of_type(value)} ({abbreviated(value)})", _remedy(kinds))

    def table(self, value: Any, kinds: frozenset[str], kind: Any, path: str) -> Any:
        """Convert an array, Series, Index or DataFrame to an object if the schema requires one, else to a list."""
        as_object = type_name(kind) in OBJECTS
        if "pandas.DataFrame" in kinds:
            return self.value(_of_frame(value, path, as_columns=as_object), kind, path)
        if "pandas.Series" in kinds and as_object:
            return self._object(dict(value.items()), kind, path)
        if "numpy.ndarray" in kinds and (value.ndim == 0 or _is_plain_array(value, kind)):
            return self.optional(value[()], kind, path) if value.ndim == 0 else value.tolist()
        return self._elements(value, kind, path)

    def _numpy_scalar(self, value: Any, kinds: frozenset[str], kind: Any, path: str) -> Any:
        if kinds & {"numpy.timedelta64", "numpy.complexfloating"}:
            raise _refusal(path, f"is {name_of_type(value)} ({abbreviated(value)})", _remedy(kinds))
        if "numpy.datetime64" in kinds:
            return self.value(_datetime_of_numpy(value, path), kind, path)
        plain = float(value) if "numpy.floating" in kinds else value.item()
        return _Values(Source.FRAME).optional(plain, kind, path)

    def _elements(self, values: Iterable[Any], kind: Any, path: str) -> list[Any]:
        inner = get_in(kind, type_name(kind), "elementsType")
        return [self.optional(each, inner, f"{path}[{position}]") for position, each in enumerate(values)]

    def _object(self, members: Mapping[Any, Any], kind: Any, path: str) -> dict[Any, Any]:
        if type_name(kind) == "anonymousCustomType":
            kinds = fields_of(kind) or {}
            required = required_fields_of(kind)
            may_lack = [] if required is None else [name for name in kinds if name not in required]
            return self.struct(members, kinds, may_lack, path)
        inner, keys = get_in(kind, "map", "valuesType"), get_in(kind, "map", "keysType")
        result = {}
        for given, member in members.items():
            key = self._key(given, path, keys)
            if key in result:
                raise _refusal(path, f"has two keys that are {abbreviated(key)} in JSON", "Send one of them")
            result[key] = self.optional(member, inner, f"{path}[{abbreviated(key)}]")
        return result

    def _key(self, key: Any, path: str, kind: Any = None) -> Any:
        if isinstance(key, str):
            return str(key)
        if is_missing(key):
            raise _refusal(path, f"has the key {abbreviated(key)}", "Use text as its keys")
        plain = key if isinstance(key, tuple) else self.value(key, kind, path)
        if plain is None or isinstance(plain, str | int | float):
            return plain
        raise _refusal(path, f"has the key {abbreviated(key)}, a {name_of_type(key)}", "Use text as its keys")


def _number(value: float | Decimal, name: str, path: str, source: Source) -> Any:
    if isinstance(value, LongInteger):
        return value
    if isinstance(value, Decimal) and name not in (*FLOATS, *INTEGERS):
        return str(value)
    if isinstance(value, int) or (isinstance(value, Decimal) and name in INTEGERS and _is_whole(value)):
        return writable(int(value))
    if not math.isfinite(value):
        raise _refusal(path, f"is {value}, which JSON has no number for", "Send a finite number, or None")
    if name in INTEGERS and (source is not Source.PERSON or type(value) is not float) and value == int(value):
        return writable(int(value))
    return float(value)


def _is_whole(value: Decimal) -> bool:
    return value.is_finite() and value == value.to_integral_value()


_TABLES = frozenset({"numpy.ndarray", "pandas.DataFrame", "pandas.Series", "pandas.Index", "pandas.ExtensionArray"})


def _remedy(kinds: Iterable[str]) -> str:
    return next((remedy for each in kinds if (remedy := _REMEDIES.get(each))), PLAIN)


def _is_plain_array(array: Any, kind: Any) -> bool:
    """Return whether every element is already a JSON value, without inspecting elements one by one."""
    inner = get_in(kind, type_name(kind), "elementsType")
    if array.dtype.kind == "f":
        return type_name(inner) not in INTEGERS and bool((abs(array) < math.inf).all())
    return array.dtype.kind in "biuU"


def _of_frame(frame: Any, path: str, *, as_columns: bool) -> Any:
    if problem := duplicate_column(frame):
        raise _refusal(path, f"is {problem}", "Rename one")
    return frame.to_dict("list" if as_columns else "records")


def _time(value: dt.date | dt.time, name: str, path: str, *_: object) -> str:
    if isinstance(value, dt.datetime):
        return _date_of(value, path) if name == "date" else _timestamp(value, path)
    if isinstance(value, dt.date) and name == "timestamp":
        return _timestamp(dt.datetime(value.year, value.month, value.day), path)  # noqa: DTZ001 - as without a zone
    return value.isoformat()


def _date_of(value: dt.datetime, path: str) -> str:
    if value.time() != dt.time() or _nanoseconds(value):
        raise _refusal(path, f"is {abbreviated(value)} and must be a date", "Send its .date()")
    return value.date().isoformat()


def _nanoseconds(value: dt.datetime) -> int:
    return getattr(value, "nanosecond", 0)  # pandas' Timestamps have it


def _timestamp(value: dt.datetime, path: str) -> str:
    """Return a time as the SDK reads it, in UTC; a time without a zone is taken as UTC."""
    if _nanoseconds(value):
        raise _refusal(path, f"is {value}, and timestamps have microseconds", "Send its .floor('us')")
    try:
        in_utc = value if value.tzinfo is None else value.astimezone(dt.UTC)
    except OverflowError:
        raise _refusal(path, f"is {value}, which is outside the years 1 to 9999 in UTC", "Send another time") from None
    # The year is formatted separately: on some systems strftime writes the year 1 with one digit.
    return f"{in_utc.year:04}{in_utc.strftime(TIMESTAMPS[in_utc.microsecond > 0][2:])}"


def _datetime_of_numpy(value: Any, path: str) -> dt.date:
    import numpy as np  # noqa: PLC0415 - already imported, as there is a value of it

    unit = np.datetime_data(value)[0]
    in_microseconds = value if unit == "D" else value.astype("datetime64[us]")
    if in_microseconds != value:
        raise _refusal(path, f"is {value}, and timestamps have microseconds", "Send its .astype('datetime64[us]')")
    plain = in_microseconds.item()
    if not isinstance(plain, dt.date):
        raise _refusal(path, f"is {value}, which is no year from 1 to 9999", "Send text")
    return plain


def _text(value: bytes | bytearray | memoryview, _: str, path: str, *__: object) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise _refusal(
            path,
            f"is bytes that are not UTF-8 ({abbreviated(value)}), and the SDK makes bytes from a text's UTF-8",
            "Send base64.b64encode(...).decode(), and decode it in the function",
        ) from None


_SCALARS: tuple[tuple[tuple[type, ...], Callable[..., Any]], ...] = (
    ((type(None), bool), lambda value, *_: value),
    ((str,), lambda value, *_: str(value)),
    ((int, float, Decimal), _number),
    ((dt.date, dt.time), _time),
    ((bytes, bytearray, memoryview), _text),
    ((UUID,), lambda value, *_: str(value)),
    ((PathLike,), lambda value, *_: fspath(value)),
)


def _refusal(path: str, what: str, remedy: str) -> InvalidRequest:
    where = abbreviated(path, MAX_SHOWN_OF_A_NAME) if path else "the query"
    return InvalidRequest(f"The query can't be sent as JSON: {where} {what}. {remedy}.")
