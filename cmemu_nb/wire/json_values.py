"""Conversion between JSON and Python values, including numbers that Python's own reader and writer refuse."""

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

# A longer integer may have more digits than Python converts to text; their number is a setting of the process.
MAX_BITS = 2_000
_DECODER = json.JSONDecoder()
# A random text, so that no text from outside can contain it.
_MARK = secrets.token_hex()
_MARKED = re.compile(rf'"{_MARK}([^"]*)"')


class LongInteger(Decimal):
    """An exact integer with more digits than Python reads, usually 4,300. It shows its digits; `int()` converts it."""

    def __repr__(self) -> str:
        return str(self)


class HugeNumber(Decimal):
    """A number whose exponent is too large even for a Decimal: it compares as infinite, and is written as its text."""

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
    """Return JSON text as Python values, like `json.loads`; an integer that it refuses becomes a `LongInteger`.

    Numbers beyond the range of floats become infinite. Raises ValueError and RecursionError.
    """
    text = text if isinstance(text, str) else text.decode()
    try:
        return json.loads(text, parse_constant=parse_constant)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_constant=parse_constant, parse_int=_integer)


def read_first(text: str, position: int = 0) -> tuple[Any, int]:
    """Return the JSON value that begins at a position of a text, read like `read_json`, and the position of its end."""
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _LONG_DECODER.raw_decode(text, position)


def read_exactly(text: bytes) -> Any:
    """Return JSON text as Python values that `write_json` can write again: numbers beyond floats become Decimals."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text, parse_int=_integer, parse_float=_float)


def write_json(value: Any, *, allow_nan: bool = True, ensure_ascii: bool = True) -> str:
    """Return values as JSON text, like `json.dumps`; long integers and Decimals become numbers."""
    text = json.dumps(value, allow_nan=allow_nan, ensure_ascii=ensure_ascii, default=_marked)
    return _MARKED.sub(r"\1", text) if _MARK in text else text


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: halves of surrogate pairs become escapes, as in JSON."""
    return text.encode(errors="backslashreplace").decode()


def writable(value: int) -> int | LongInteger:
    """Return an integer as a value that `write_json` can write."""
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
