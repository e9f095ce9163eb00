"""Reading a job's result: the error of its function, or its value in Python."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

from cmemu_nb.errors import ResultError
from cmemu_nb.tracebacks import of_function
from cmemu_nb.wire.json_values import LongInteger, read_first, read_json

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.records import Job

MAX_ERROR_BYTES = 1_000_000
MAX_IN_SHORT = 100
ERROR_KEYS = ({"exception"}, {"error"}, {"error", "reason"})
# The text that the Java SDK posts for a function that raised an exception, or after it has failed to post a result.
_JAVA_ERROR = re.compile(
    rb"JobId: foundry_job_[0-9a-f]{32}\r?\n|Failed to post result, (?=statusCode: \d+\s*\Z|error: [\w.$]+)"
)
# A cheap test without false negatives: such a text, or an object whose first key may be one of those, escapes included.
_MAYBE_ERROR = re.compile(rb'%b|\s*\{\s*"(?:exception"|error"|reason"|[^"]{0,40}\\)' % _JAVA_ERROR.pattern)
BARE_NUMBERS = (
    "The result is a stream of bare numbers, which can't be split into items: 1 2 3 is 123 on the wire. "
    "job.raw() gives its bytes; streams of objects or strings can be split."
)
# The line in the Python SDK's traceback that shows that it was encoding the result [foundry].
_NOT_ENCODED = "serialized_result = json.dumps(result, cls=CustomJSONEncoder)"
NOT_ENCODED = (
    "The result can't be encoded as JSON: something in it is of a type that the official SDK does not know, such as a "
    "set, a Decimal, bytes, an Enum, or a type of numpy or pandas. Return dict, list, str, int, float, bool, None, "
    "dates and dataclasses. The official SDK's own error is {!r}."
)
# What the Python SDK posts after the break of a stream with an item that it could not encode [foundry].
_NOT_SERIALIZED = re.compile(
    r"Failed to serialize result to json: \{'exception': ['\"](.*?): Traceback \(most recent call last\)", re.DOTALL
)
_SPACE = re.compile(r"[ \t\r\n]*")
# The first NaN or Infinity outside of strings. All quantifiers are possessive, so it takes linear time.
_CONSTANT = re.compile(rb'(?:[^"NI]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+(NaN|Infinity)', re.DOTALL)


def function_error(result: bytes) -> dict[str, str] | None:
    """Return the error object that the SDKs post for a function that raised an exception, or None [foundry].

    A result is an error object exactly if it has at most 1 MB and is a JSON object of strings whose keys are
    {exception}, {error} or {error, reason}. The Java SDK posts text instead: a line with the id of the job, and the
    stack trace, which becomes the `exception`.
    """
    if not may_be_error(result):
        return None
    if text := java_error(result):
        return {"exception": text}
    try:
        fields = json.loads(result.decode())
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, str]", fields) if is_error_object(fields) else None


def may_be_error(result: bytes) -> bool:
    """Return False if the first bytes show that a result is not an error object. It is cheap enough for every job."""
    return len(result) <= MAX_ERROR_BYTES and _MAYBE_ERROR.match(result) is not None


def java_error(result: bytes) -> str:
    """Return the stack trace in a result that is the text of an error of the Java SDK, "" for any other result."""
    found = _JAVA_ERROR.match(result)
    if found is None:
        return ""
    begins = found.end() if found[0].startswith(b"JobId") else 0
    return result[begins:].decode(errors="replace").replace("\r\n", "\n").rstrip("\n") or "The function failed."


def is_error_object(value: object) -> bool:
    """Return whether a value is an error object, which the SDKs post for a function that raised an exception."""
    if not isinstance(value, dict) or set(value) not in ERROR_KEYS:
        return False
    return all(isinstance(text, str) for text in value.values())


def error_text(error: dict[str, str]) -> str:
    """Return the text of an error object."""
    return ": ".join(error[key] for key in ("exception", "error", "reason") if key in error)


def error_of_stream(error: dict[str, str]) -> str:
    """Return the text of the error object that is posted for a stream that breaks off.

    Of an item that the Python SDK could not encode it is the type and message of the exception, without the SDK's own
    traceback.
    """
    text = error_text(error)
    found = _NOT_SERIALIZED.match(text)
    return f"TypeError: {found[1]}" if found else text


def error_for_people(error: dict[str, str], explanation: str = "") -> str:
    """Return an error object as text for people: the function's traceback, or how to return an encodable result.

    `explanation` replaces that text if the executor knows more than the error object says.
    """
    text = error_text(error)
    if explanation or _NOT_ENCODED not in text:
        return explanation or of_function(text)
    return NOT_ENCODED.format(text.partition(": Traceback (most recent call last)")[0])


def why_no_value(job: Job, explanation: str = "") -> str:
    """Return, for people, why a job failed or which exception its function raised; "" for any other job."""
    if job.error_message:
        return job.error_message
    error = function_error(job.result or b"")
    return "" if error is None else error_for_people(error, explanation)


def error_in_short(job: Job) -> str:
    """Return the first line of the reason why a job has no value, for people."""
    return _cut(why_no_value(job).partition("\n")[0])


def result_in_short(result: bytes) -> str:
    """Return the beginning of a result as text, for people."""
    if len(result) <= MAX_IN_SHORT:
        return result.decode(errors="replace")
    return _cut(result[: 4 * MAX_IN_SHORT + 4].decode(errors="replace"))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_IN_SHORT else f"{text[:MAX_IN_SHORT]}…"


def parse_result(result: bytes, *, streaming: bool = False) -> Any:
    """Read a result as a Python value: no bytes are None, one JSON text is its value, several are a list.

    NaN and Infinity are accepted, and an integer with more digits than Python reads becomes a `LongInteger`. With
    `streaming=True`, for a function known to stream, the value is always a list. Raises `ResultError` if the bytes are
    not JSON, or if a stream contains bare numbers, even a single one: bare numbers can't be split into items.
    """
    if not result.strip(b" \t\r\n"):
        return [] if streaming else None
    values = [value for value, _ in split_result(result, streaming=streaming)]
    return values if streaming or len(values) != 1 else values[0]


def split_result(result: bytes, *, streaming: bool = False) -> list[tuple[Any, str]]:
    """Return the values of a result, each with its JSON text. Raises the same errors as `parse_result`."""
    try:
        values, bare_numbers = _split(result.decode())
    except (ValueError, RecursionError) as error:
        raise not_json(error, result) from None
    if streaming and bare_numbers:
        raise ResultError(BARE_NUMBERS)
    return values


def item_value(text: bytes) -> Any:
    """Return the value of one JSON text of a result. Raises `ResultError` if it is invalid or nested too deeply."""
    try:
        return read_json(text)
    except (ValueError, RecursionError) as error:
        raise not_json(error, text) from None


def constant_in(text: bytes) -> str:
    """Return "NaN" or "Infinity" if it is a value in a text that Python reads as JSON, else "": JSON has neither."""
    found = _CONSTANT.match(text) if b"NaN" in text or b"Infinity" in text else None
    return found[1].decode() if found else ""


def not_json(error: Exception, text: bytes) -> ResultError:
    """Return the error for a result that can't be read, from the error of the JSON reader and the text it has read."""
    if isinstance(error, RecursionError):
        return ResultError("The result is not JSON (it is nested too deeply). job.raw() gives its bytes.")
    return ResultError(
        f"The result is not JSON ({_cause(error)}): {result_in_short(text)!r}. job.raw() gives its bytes."
    )


def _split(text: str) -> tuple[list[tuple[Any, str]], bool]:
    values: list[tuple[Any, str]] = []
    bare_numbers = False
    position = _skip_space(text, 0)
    while position < len(text):
        value, end = read_first(text, position)
        values.append((value, text[position:end]))
        bare_numbers = bare_numbers or (isinstance(value, int | float | LongInteger) and not isinstance(value, bool))
        position = _skip_space(text, end)
    return values, bare_numbers


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _cause(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return str(error)
