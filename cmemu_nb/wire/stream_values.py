"""The values of records in data streams: the check against a schema, and the JSON in which they are kept and answered.

A record is kept as JSON with every field of its schema, in the order of the schema. A timestamp is a number of Unix
milliseconds, as in the documentation's answers [foundry]; here it may have a fraction, down to a microsecond [ours]. A
date is ISO text, a decimal is text, and a binary value is base64 text. What JSON can't say is accepted in other forms,
too: a timestamp as ISO text, a decimal as a number, and the values of Python for all of them.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cmemu_nb.phrases import abbreviated, quoted
from cmemu_nb.wire.stream_schemas import MAX_DIGITS, WHOLE
from cmemu_nb.wire.value_types import is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmemu_nb.wire.stream_schemas import DataType, FieldSchema, StreamSchema

    Convert = Callable[[Any, str], Any]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MAX_FLOAT = 3.4028234663852886e38
_MILLISECOND = dt.timedelta(milliseconds=1)
_encode = msgspec.json.Encoder().encode
# Numbers with a fraction are read as they were written: a decimal must not lose digits.
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class NewRecord(NamedTuple):
    """A record that matches its stream's schema: its JSON text, and that of its key fields, None without keys."""

    value: bytes
    key: bytes | None


class Mismatch(Exception):
    """A value does not match the schema; the message is a sentence about it."""


class RecordReader:
    """Converts records to the JSON in which they are kept, and back to values of Python."""

    def __init__(self, schema: StreamSchema) -> None:
        self._struct = _struct({each.name: each.schema for each in schema.fields})
        self._keys = schema.key_field_names
        self._values = {each.name: _python(each.schema) for each in schema.fields}

    def read(self, body: bytes) -> NewRecord:
        """Convert a record that arrived as JSON text. Raises `Mismatch`."""
        try:
            return self.convert(_decode(body))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Mismatch(f"The record is not JSON: {error}.") from None

    def convert(self, record: object) -> NewRecord:
        """Convert a record of JSON values or values of Python. Raises `Mismatch`."""
        value = self._struct(record, "")
        key = None if self._keys is None else _encode([value[name] for name in self._keys])
        try:
            return NewRecord(_encode(value), key)
        except UnicodeEncodeError:
            raise Mismatch("A key of a map has half a surrogate pair, which is not a character.") from None

    def python(self, value: bytes) -> dict[str, Any]:
        """Return a kept record with values of Python: `datetime` in UTC, `date`, `Decimal`, `bytes`."""
        record = msgspec.json.decode(value)
        return {name: convert(record[name]) for name, convert in self._values.items()}


def python_records(schema: StreamSchema, values: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return kept records with values of Python."""
    reader = RecordReader(schema)
    return [reader.python(value) for value in values]


# From outside


def _struct(fields: Mapping[str, FieldSchema]) -> Convert:
    converters = {name: _nullable(schema) for name, schema in fields.items()}

    def convert(record: Any, path: str) -> dict[str, Any]:
        if not isinstance(record, Mapping):
            raise _wrong(record, path, "an object")
        if len(record) > len(converters) or not record.keys() <= converters.keys():
            unknown = next(name for name in record if name not in converters)
            raise Mismatch(f"The schema has no field {quoted(_joined(path, str(unknown)))}.")
        return {name: check(record.get(name), _joined(path, name)) for name, check in converters.items()}

    return convert


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _nullable(schema: FieldSchema) -> Convert:
    convert, nullable, kind = _converter(schema.data_type), schema.nullable, str(schema.data_type)

    def check(value: Any, path: str) -> Any:
        if value is None or is_missing(value):
            if nullable:
                return None
            raise Mismatch(f"The field {quoted(path)} has no value, and must be {kind}: it is not nullable.")
        return convert(value, path)

    return check


def _converter(kind: DataType) -> Convert:
    if kind.items_schema is not None:
        return _array(_nullable(kind.items_schema))
    if kind.value_schema is not None:
        return _map(_nullable(kind.value_schema))
    if kind.sub_fields is not None:
        return _struct({each.name: each.schema for each in kind.sub_fields})
    if kind.type in WHOLE:
        return _whole(kind.type, 1 << WHOLE[kind.type] - 1)
    if kind.type == "decimal":
        return _decimal(kind.precision or MAX_DIGITS, kind.scale)
    return _PLAIN[kind.type]


def _array(check: Convert) -> Convert:
    def convert(value: Any, path: str) -> list[Any]:
        value = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(value, list | tuple):
            raise _wrong(value, path, "an array")
        return [check(each, f"{path}[{number}]") for number, each in enumerate(value)]

    return convert


def _map(check: Convert) -> Convert:
    def convert(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value):
            raise _wrong(value, path, "an object with keys that are strings")
        return {name: check(each, f"{path}[{name!r}]") for name, each in value.items()}

    return convert


def _whole(kind: str, limit: int) -> Convert:
    expected = f"a whole number from {-limit} to {limit - 1} ({kind.upper()})"

    def convert(value: Any, path: str) -> int:
        if type(value) is not int:  # a bool is an int, too
            value = _plain_number(value, path, expected)
            if value != int(value):
                raise _wrong(value, path, expected)
            value = int(value)
        if not -limit <= value < limit:
            raise _wrong(value, path, expected)
        return int(value)

    return convert


def _plain_number(value: Any, path: str, expected: str) -> Any:
    """Return a number of Python for one of another kind, such as NumPy's."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _wrong(value, path, expected)
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        finite = False
    # Numbers such as 1e999999999 are not finite here, so nothing is computed with them.
    if not finite:
        raise _wrong(value, path, expected)
    return value


def _double(value: Any, path: str) -> float:
    return float(_plain_number(value, path, "a number (DOUBLE)"))


def _float(value: Any, path: str) -> float:
    number = float(_plain_number(value, path, "a number (FLOAT)"))
    if abs(number) > MAX_FLOAT:
        raise _wrong(value, path, f"a number of at most {MAX_FLOAT:g} (FLOAT)")
    return number


def _decimal(precision: int, scale: int | None) -> Convert:
    expected = f"a decimal with at most {precision} digits" + ("" if scale is None else f", {scale} after the point")

    def convert(value: Any, path: str) -> str:
        if not isinstance(value, str | Decimal):
            value = str(_plain_number(value, path, expected))
        try:
            number = Decimal(value)
            _, digits, exponent = number.as_tuple()
        except InvalidOperation:
            raise _wrong(value, path, expected) from None
        if not isinstance(exponent, int):
            raise _wrong(value, path, expected)
        # Zeros at the end say nothing. Python's own normalize() would compute with the number, however small it is.
        zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
        whole, fraction = max(len(digits) + exponent, 0), max(-exponent - zeros, 0)
        if whole > precision - (scale or 0) or fraction > (precision if scale is None else scale):
            raise _wrong(value, path, expected)
        return format(number, "f")

    return convert


def _boolean(value: Any, path: str) -> bool:
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, bool):
        raise _wrong(value, path, "true or false")
    return value


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _wrong(value, path, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Mismatch(f"The field {quoted(path)} has half a surrogate pair, which is not a character.") from None
    return str(value)


def _binary(value: Any, path: str) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    try:
        return base64.b64encode(base64.b64decode(_string(value, path), validate=True)).decode()
    except (binascii.Error, ValueError):
        raise _wrong(value, path, "base64 text") from None


def _date(value: Any, path: str) -> str:
    if isinstance(value, dt.datetime):
        if value.time() != dt.time.min:
            raise _wrong(value, path, "a date without a time")
        return value.date().isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    try:
        return dt.date.fromisoformat(_string(value, path)).isoformat()
    except ValueError:
        raise _wrong(value, path, "a date as ISO text, such as 2026-01-31") from None


def _timestamp(value: Any, path: str) -> int | float:
    value = plain_moment(value)
    if isinstance(value, dt.datetime):
        return _milliseconds(value)
    if isinstance(value, str):
        try:
            return _milliseconds(dt.datetime.fromisoformat(value))
        except ValueError:
            raise _wrong(value, path, _TIMESTAMP) from None
    number = _plain_number(value, path, _TIMESTAMP)
    try:
        return _milliseconds(EPOCH + _microseconds(number))
    except (OverflowError, ValueError):
        raise _wrong(value, path, _TIMESTAMP) from None


def plain_moment(value: Any) -> Any:
    """Return a `datetime` for one of NumPy's, which NumPy may convert to a number; other values as they are."""
    return value.astype("datetime64[us]").item() if type(value).__name__ == "datetime64" else value


_TIMESTAMP = "Unix milliseconds, or ISO text such as 2026-01-31T12:00:00Z"


def _microseconds(milliseconds: Any) -> dt.timedelta:
    return dt.timedelta(microseconds=round(milliseconds * 1000))


def _milliseconds(moment: dt.datetime) -> int | float:
    """Return Unix milliseconds. A moment without a time zone is taken as UTC."""
    since = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)) - EPOCH
    whole, rest = divmod(since, _MILLISECOND)
    # As float, microseconds are exact for a few thousand years.
    return float(Decimal(whole) + Decimal(rest.microseconds) / 1000) if rest else whole


_PLAIN: dict[str, Convert] = {
    "string": _string,
    "boolean": _boolean,
    "binary": _binary,
    "date": _date,
    "timestamp": _timestamp,
    "float": _float,
    "double": _double,
}


def _wrong(value: object, path: str, expected: str) -> Mismatch:
    where = f"The field {quoted(path)}" if path else "The record"
    return Mismatch(f"{where} is {abbreviated(value)}, and must be {expected}.")


# To Python


def _python(schema: FieldSchema) -> Callable[[Any], Any]:
    convert = _python_value(schema.data_type)
    return lambda value: None if value is None else convert(value)


def _python_value(kind: DataType) -> Callable[[Any], Any]:
    if kind.items_schema is not None:
        item = _python(kind.items_schema)
        return lambda value: [item(each) for each in value]
    if kind.value_schema is not None:
        member = _python(kind.value_schema)
        return lambda value: {name: member(each) for name, each in value.items()}
    if kind.sub_fields is not None:
        fields = {each.name: _python(each.schema) for each in kind.sub_fields}
        return lambda value: {name: convert(value[name]) for name, convert in fields.items()}
    return _TO_PYTHON.get(kind.type, _itself)


def _itself(value: Any) -> Any:
    return value


def moment(milliseconds: float) -> dt.datetime:
    """Return the moment of a kept timestamp, in UTC."""
    return EPOCH + _microseconds(milliseconds)


_TO_PYTHON: dict[str, Callable[[Any], Any]] = {
    "decimal": Decimal,
    "date": dt.date.fromisoformat,
    "timestamp": moment,
    "binary": base64.b64decode,
    "double": float,
    "float": float,
}
