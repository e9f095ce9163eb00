"""JSON as Python values, and back, with the numbers that Python's own reader and writer refuse."""

from __future__ import annotations

import json
import re
import secrets
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import TYPE_CHECKING, Any, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

# An integer of more digits may be one that Python does not write; how many digits is a setting of the process.
MAX_BITS = 2_000
_DECODER = json.JSONDecoder()
# No text that comes from outside can hold it.
_MARK = secrets.token_hex()
_MARKED = re.compile(rf'"{_MARK}([^"]*)"')


class LongInteger(Decimal):
    """An integer of more digits than Python reads, usually 4,300: exact, shown as its digits; `int()` makes an int."""

    def __repr__(self) -> str:
        return str(self)


class HugeNumber(Decimal):
    """A number whose exponent is beyond even Decimals: it counts as infinite, and is shown and written as its text."""

    _text: str

    def __new__(cls, text: str) -> Self:
        """Take the number's JSON text."""
        number = super().__new__(cls, "-Infinity" if text.startswith("-") else "Infinity")
        number._text = text
        return number

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def read_json(text: str | bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Return JSON text as Python values, as `json.loads` does, and an integer that it refuses as a `LongInteger`.

    Numbers beyond floats are infinite. Raises ValueError and RecursionError.
    """
    text = text if isinstance(text, str) else text.decode()
    try:
        return json.loads(text, parse_constant=parse_constant)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_constant=parse_constant, parse_int=_integer)


def read_first(text: str, position: int = 0) -> tuple[Any, int]:
    """Return the JSON value that begins at a position of a text, read as `read_json` does, and where it ends."""
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _LONG_DECODER.raw_decode(text, position)


def read_exactly(text: bytes) -> Any:
    """Return JSON text as Python values that `write_json` can write again: a number beyond floats is a Decimal."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text, parse_int=_integer, parse_float=_float)


def write_json(value: Any, *, allow_nan: bool = True, ensure_ascii: bool = True) -> str:
    """Return values as JSON text, as `json.dumps` does; long integers and Decimals are numbers."""
    text = json.dumps(value, allow_nan=allow_nan, ensure_ascii=ensure_ascii, default=_marked)
    return _MARKED.sub(r"\1", text) if _MARK in text else text


def writable(value: int) -> int | LongInteger:
    """Return an integer as one that `write_json` can write."""
    if value.bit_length() > MAX_BITS:
        try:
            str(value)
        except ValueError:
            return LongInteger(value)
    return value


def _integer(digits: str) -> int | LongInteger:
    with suppress(ValueError):
        return int(digits)
    return LongInteger(digits)


def _float(text: str) -> float | Decimal:
    number = float(text)
    if isfinite(number):
        return number
    try:
        return Decimal(text)
    except InvalidOperation:
        return HugeNumber(text)


def _marked(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{_MARK}{value!s}"
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_LONG_DECODER = json.JSONDecoder(parse_int=_integer)
