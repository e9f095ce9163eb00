"""Splits a stream's bytes into items while they arrive."""

from __future__ import annotations

import codecs
import json
from typing import Any

from cmemu_nb.errors import ResultError
from cmemu_nb.results import BARE_NUMBERS, is_error_object, split_result

_DECODER = json.JSONDecoder()
_BLANK = " \t\r\n"
_NUMBERS = frozenset("-0123456789NI")


class ItemReader:
    """Splits the bytes of a stream into JSON values as they become complete.

    Bare numbers can't be split: with `streaming=True` they are an error at once, else when something else came too.
    """

    def __init__(self, *, streaming: bool) -> None:
        self._to_text = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._streaming = streaming
        self._any = False

    def feed(self, piece: bytes) -> list[Any]:
        """Take the next bytes and return the values that they complete; `ResultError` for what can't be split."""
        return [value for value, _ in self.split(piece)]

    def split(self, piece: bytes) -> list[tuple[Any, str]]:
        """Do as `feed()` does, and return with each value the JSON text that it was."""
        self._text = (self._text + self._decode(piece)).lstrip(_BLANK)
        values = []
        while self._text:
            if self._text[0] in _NUMBERS:
                self._check_number()
                break
            try:
                value, end = _DECODER.raw_decode(self._text)
            except ValueError:
                break
            values.append((value, self._text[:end]))
            self._any = True
            self._text = self._text[end:].lstrip(_BLANK)
        return values

    def _decode(self, piece: bytes) -> str:
        try:
            return self._to_text.decode(piece)
        except UnicodeDecodeError as error:
            raise ResultError(f"The result is not JSON ({error.reason}). job.raw() gives its bytes.") from None

    def _check_number(self) -> None:
        if self._streaming or self._any:
            raise ResultError(BARE_NUMBERS)

    def end(self) -> list[Any]:
        """Return the value that only the end completes, a number; `ResultError` if something else is left."""
        return [value for value, _ in self.split_end()]

    def split_end(self) -> list[tuple[Any, str]]:
        """Do as `end()` does, and return with each value the JSON text that it was."""
        return split_result(self._text.encode())


class FirstHeld:
    """Holds the first item back as long as it may be all that a function that raised has posted."""

    def __init__(self) -> None:
        self._held: list[tuple[Any, str]] = []
        self._begun = False

    def add(self, items: list[tuple[Any, str]]) -> list[tuple[Any, str]]:
        """Take the next items, and return those that can be passed on."""
        self._held += items
        self._begun = self._begun or len(self._held) > 1 or not all(is_error_object(value) for value, _ in self._held)
        if not self._begun:
            return []
        ready, self._held = self._held, []
        return ready

    def error(self) -> Any:
        """Return, after the end, the error object that was all that came; None if it was not."""
        return self._held[0][0] if self._held else None
