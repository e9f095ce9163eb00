"""A reader that splits a stream's bytes into the JSON texts of its items while they arrive, in one pass."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from cmemu_nb.errors import ResultError
from cmemu_nb.wire.results import BARE_NUMBERS, function_error, java_error, not_json, split_result

# Python's JSON parsers can't read values that are nested more deeply.
MAX_DEPTH = 10_000
# The number of bytes that one call of a regular expression scans, during which no other thread runs.
SLICE_BYTES = 65_536
_QUOTE, _BACKSLASH = b'"', b"\\"
_OPENING, _STARTS = b"[{", b'"[{'
NUMBERS = b"-0123456789NI"
_WORDS = (b"true", b"false", b"null")
_BLANKS = re.compile(rb"[ \t\r\n]*+")
# All quantifiers are possessive: the expressions never backtrack, so each takes linear time.
_STRING_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_FLAT = rb'[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SHALLOW = rb"[\[{](?:%b)*+[\]}]" % _FLAT
_LESS_SHALLOW = rb"[\[{](?:%b|%b)*+[\]}]" % (_FLAT, _SHALLOW)
# Everything that leaves the depth unchanged (strings, scalars, values nested two deep), in one step instead of many.
_LEVEL = re.compile(rb"(?:%b|%b)*+" % (_FLAT, _LESS_SHALLOW), re.DOTALL)


class ItemReader:
    """Splits the bytes of a stream into JSON texts as they become complete; callers parse the texts.

    Bare numbers can't be split: with `streaming=True` a bare number is an error at once, otherwise only if there is
    also another item. With `plain_text=True` a result that does not begin as JSON is text: each piece of it becomes a
    JSON string.
    """

    def __init__(self, *, streaming: bool, plain_text: bool = False) -> None:
        self._streaming = streaming
        self._plain_text = plain_text and not streaming
        self._text: PlainText | None = None
        self._any = False
        self._open = bytearray()  # the bytes of the text that is not complete yet
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._number = False

    def split(self, piece: bytes) -> list[bytes]:
        """Take the next bytes and return the texts that they complete. Raises `ResultError` if they can't be split.

        Only the end of a text has been determined: a text may still be invalid JSON.
        """
        if self._text is not None:
            return self._text.split(piece)
        if self._between and self._open:  # the beginning of `true`, `false` or `null`
            piece = bytes(self._open) + piece
            self._open.clear()
        texts = []
        start = 0
        while True:
            if self._between:
                start = self._skip_blanks(piece, start)
            try:
                end = self._end(piece, start)
            except ResultError:
                if self._any or not (self._plain_text and self._between):
                    raise
                self._text = PlainText()
                return self._text.split(piece[start:])
            if end is None:
                break
            self._open += piece[start:end]
            texts.append(bytes(self._open))
            self._open.clear()
            self._any = True
            start = end
        self._open += piece[start:]
        return texts

    def split_end(self) -> list[bytes]:
        """Return the text that only the end of the stream completes, a number. Raises `ResultError` for other rests."""
        if self._text is not None:
            return self._text.split(b"", final=True)
        rest = bytes(self._open)
        try:
            return [text.encode() for _, text in split_result(rest)]
        except ResultError:
            if self._any or not self._plain_text or rest[:1] in _STARTS:
                raise
            return PlainText().split(rest, final=True)

    @property
    def _between(self) -> bool:
        """Whether no text has begun, or only `true`, `false` or `null`."""
        return not (self._depth or self._in_string or self._number)

    @staticmethod
    def _skip_blanks(piece: bytes, start: int) -> int:
        match = _BLANKS.match(piece, start)
        return match.end() if match else start

    def _end(self, piece: bytes, start: int) -> int | None:
        """Return the end of the text that continues or begins at `start`; None if it does not end in this piece."""
        if self._number or start >= len(piece):
            return None
        if not self._between:
            return self._scan(piece, start)
        first = piece[start : start + 1]
        if first in NUMBERS:
            self._check_number()
            return None
        if first not in _STARTS:
            return _end_of_word(piece, start)
        self._in_string = first == _QUOTE
        self._depth = int(not self._in_string)
        return self._scan(piece, start + 1)

    def _check_number(self) -> None:
        if self._streaming or self._any:
            raise ResultError(BARE_NUMBERS)
        self._number = True

    def _scan(self, piece: bytes, position: int) -> int | None:
        while position < len(piece):
            position = self._end_string(piece, position) if self._in_string else self._end_level(piece, position)
            if not (self._depth or self._in_string):
                return position
        return None

    def _end_string(self, piece: bytes, position: int) -> int:
        match = _STRING_END.match(piece, position + self._escaped)
        if match:
            self._escaped = self._in_string = False
            return match.end()
        rest = piece[position + self._escaped :]
        self._escaped = (len(rest) - len(rest.rstrip(_BACKSLASH))) % 2 == 1
        return len(piece)

    def _end_level(self, piece: bytes, position: int) -> int:
        match = _LEVEL.match(piece, position)
        position = match.end() if match else position
        bracket = piece[position : position + 1]
        if bracket == _QUOTE:  # a string that does not end in this piece
            self._in_string = True
        elif bracket:
            self._depth += 1 if bracket in _OPENING else -1
        if self._depth > MAX_DEPTH:
            raise not_json(RecursionError(), piece)
        return position + len(bracket)


class PlainText:
    """Turns plain text into JSON strings, one for each piece of its bytes; an error of the Java SDK becomes an object.

    That object is the one of `function_error`, and it is returned at the end of the text.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._begun = False
        self._java_error = bytearray()

    def split(self, piece: bytes, *, final: bool = False) -> list[bytes]:
        """Return the text of the next bytes as a JSON string, if any. Raises `ResultError` if it is not UTF-8."""
        if self._java_error or (not self._begun and java_error(piece)):
            self._java_error += piece
            return [json.dumps({"exception": java_error(bytes(self._java_error))}).encode()] if final else []
        self._begun = True
        try:
            text = self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            raise not_json(error, piece) from None
        return [json.dumps(text).encode()] if text else []


def _end_of_word(piece: bytes, start: int) -> int | None:
    for word in _WORDS:
        if piece.startswith(word, start):
            return start + len(word)
        if word.startswith(piece[start : start + len(word)]):
            return None
    raise not_json(ValueError("Expecting value"), piece[start:])


def split_items(result: bytes) -> list[bytes]:
    """Return the JSON texts of a whole result."""
    reader = ItemReader(streaming=False)
    slices = (result[start : start + SLICE_BYTES] for start in range(0, len(result), SLICE_BYTES))
    texts = [text for each in slices for text in reader.split(each)]
    return texts + reader.split_end()


class FirstHeld:
    """Holds back the first item as long as it may be the error object of a function that raised an exception."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._begun = False

    def add(self, items: list[bytes]) -> list[bytes]:
        """Take the next items, and return those that can be passed on."""
        self._held += items
        self._begun = self._begun or len(self._held) > 1 or (bool(self._held) and self.error() is None)
        if not self._begun:
            return []
        ready, self._held = self._held, []
        return ready

    def error(self) -> Any:
        """Return, after the end of the stream, the error object if it was the only item, else None."""
        return function_error(self._held[0]) if self._held else None
