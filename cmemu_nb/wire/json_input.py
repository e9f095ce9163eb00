"""Reading JSON from outside. UTF-8 is checked first, then msgspec decodes it; each error is one clear sentence."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from cmemu_nb.errors import InvalidRequest

T = TypeVar("T")
_GIVEN = re.compile(r"got `(\w+)`")

# The keys are the names of types in Python and in msgspec.
JSON_TYPES = {
    **dict.fromkeys(("dict", "object"), "an object"),
    **dict.fromkeys(("list", "array"), "an array"),
    **dict.fromkeys(("int", "float", "LongInteger"), "a number"),
    **dict.fromkeys(("NoneType", "null"), "null"),
    "str": "a string",
    "bool": "true or false",
}
# msgspec also calls a body truncated if half a surrogate pair is in its last few bytes.
_HALF_A_PAIR_AT_THE_END = re.compile(rb"(?<!\\)\\u[dD][89abAB][0-9a-fA-F]{2}[^\\]{1,5}\Z")


def decode(body: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    """Decode JSON text into `kind`. Raises an `InvalidRequest` that begins with `what` for any error."""
    try:
        if not isinstance(body, msgspec.Raw) and not body.isascii():  # most bodies are ASCII, and need no decoding
            body.decode()
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{what} can't be read: byte {error.start} is not UTF-8. Send JSON as UTF-8.") from None
    except RecursionError:
        raise InvalidRequest(f"{what} can't be read: the JSON is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{what} can't be read: {_reason(error, bytes(body))}.") from None


def _reason(error: msgspec.DecodeError, body: bytes) -> str:
    if not body.strip():
        return "the body is empty, it must be JSON"
    if isinstance(error, msgspec.ValidationError):
        given = _GIVEN.search(str(error))
        return f"it must be a JSON object, not {JSON_TYPES[given[1]]}" if given else str(error).lower()
    if "truncated" not in str(error):
        return str(error).replace("JSON is malformed:", "malformed JSON,")
    if _HALF_A_PAIR_AT_THE_END.search(body):
        return "malformed JSON, a \\uD800-\\uDFFF escape stands alone, which is not a character"
    return "malformed JSON, it ends too early"


class Fields:
    """The members of a JSON object from outside. Its methods read them one by one and check their types."""

    def __init__(self, body: bytes, what: str) -> None:
        self._what = what
        self._members = decode(body, dict[str, msgspec.Raw], what)

    def text(self, name: str) -> str | None:
        """Return a member that is a string, trimmed; None if it is absent, null or blank."""
        raw = self._members.get(name)
        value: Any = None if raw is None else decode(raw, object, f"{self._what} ({name})")
        if value is None:
            return None
        if not isinstance(value, str):
            raise InvalidRequest(f"{self._what}: '{name}' must be a string, it is {JSON_TYPES[type(value).__name__]}.")
        return value.strip() or None

    def required_text(self, name: str) -> str:
        """Return a member that is a string, trimmed. Raises `InvalidRequest` if it is absent, null or blank."""
        value = self.text(name)
        if value is None:
            raise InvalidRequest(f"{self._what}: '{name}' is missing or blank. Give it as a non-blank string.")
        return value

    def string(self, name: str) -> str:
        """Return a member that is a string, exactly as it was sent. Raises `InvalidRequest` if it is absent or null."""
        value = self._of(name, str, "a string")
        if value is None:
            raise self._wrong(name, "a string")
        return value

    def strings(self, name: str, most: int) -> list[str]:
        """Return a member that is an array of at most `most` strings."""
        expected = f"an array of at most {most} strings"
        value = self._of(name, list[str], expected)
        if value is None or len(value) > most:
            raise self._wrong(name, expected)
        return value

    def objects(self, name: str, most: int) -> list[dict[str, Any]]:
        """Return a member that is an array of at most `most` objects."""
        expected = f"an array of at most {most} objects"
        value = self._of(name, list[dict[str, Any]], expected)
        if value is None or len(value) > most:
            raise self._wrong(name, expected)
        return value

    def has(self, name: str) -> bool:
        """Return whether there is such a member that is not null."""
        return bytes(self._members.get(name, b"null")) != b"null"

    def flag(self, name: str) -> bool | None:
        """Return a member that is true or false; None if it is absent or null."""
        return self._of(name, bool, "true or false")

    def count(self, name: str) -> int | None:
        """Return a member that is a whole number, 0 or more; None if it is absent or null."""
        value = self._of(name, int, "a whole number, 0 or more")
        if value is not None and value < 0:
            raise self._wrong(name, "a whole number, 0 or more")
        return value

    def values(self, name: str) -> dict[str, Any]:
        """Return the decoded members of a member that is an object; an empty dict if it is absent or null."""
        return self._of(name, dict[str, Any], "an object") or {}

    def required_object(self, name: str) -> dict[str, msgspec.Raw]:
        """Return the members of a member that is an object, each as the JSON text that was sent."""
        value = self._of(name, dict[str, msgspec.Raw], "an object")
        if value is None:
            raise self._wrong(name, "an object")
        return value

    def _of(self, name: str, kind: type[T], expected: str) -> T | None:
        raw = self._members.get(name)
        if raw is None or bytes(raw) == b"null":
            return None
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, RecursionError):
            raise self._wrong(name, expected) from None

    def _wrong(self, name: str, expected: str) -> InvalidRequest:
        return InvalidRequest(f"{self._what}: '{name}' must be {expected}.")

    def number(self, name: str, default: T, most: int) -> int | T:
        """Return a member that is a whole number from 1 to `most`; `default` if it is absent or null."""
        expected = f"a whole number from 1 to {most}"
        value = self._of(name, float, expected)
        if value is None:
            return default
        if not (value.is_integer() and 1 <= value <= most):
            raise self._wrong(name, expected)
        return int(value)

    def required(self, name: str) -> bytes:
        """Return a member as exactly the JSON text that was sent. Raises `InvalidRequest` if it is absent."""
        if name not in self._members:
            raise InvalidRequest(f"{self._what}: '{name}' is missing.")
        return bytes(self._members[name])

    def raw(self, name: str, default: bytes) -> bytes:
        """Return a member as exactly the JSON text that was sent."""
        raw = self._members.get(name)
        return default if raw is None else bytes(raw)
