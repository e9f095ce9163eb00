"""The search line of the jobs list: `fn:add outcome:error x=493 "free text" -id:a4c966`.

`static/search.js` is the same grammar in the browser, and `tests/searches.json` has the cases that both must satisfy.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.lifecycle.records import JobStatus, Outcome
from cmemu_nb.wire.job_ids import ending_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.lifecycle.records import Job

MAX_SEARCHED = 100_000
MAX_DIGITS = 15
WORDS: dict[str, str] = {Outcome.FUNCTION_ERROR: "error"}
VALUES = {
    "outcome": (JobStatus.QUEUED, JobStatus.RUNNING, Outcome.OK, "error", Outcome.FAILED),
    "status": tuple(JobStatus),
}
KEYS = {"fn": "fn", "function": "fn", "runtime": "runtime", "id": "id", **{key: key for key in VALUES}}
# An optional minus, an optional key with a colon or name of a field with an equals sign, and a value.
_TERM = re.compile(r'\s*(-?)(?:([A-Za-z]+):|([^\s:="-][^\s:="]*)=)?("(?:[^"\\]|\\[\s\S])*"?|[^\s"]\S*)?')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Term(msgspec.Struct, frozen=True):
    """One condition of a search: `key` is one of `KEYS`, "text" for free text, or "=" for a field of a JSON object."""

    key: str
    value: str
    field: str = ""
    negated: bool = False

    def matches(self, job: Job) -> bool:
        """Return whether a job satisfies the condition."""
        return self._has(job) != self.negated

    def _has(self, job: Job) -> bool:  # noqa: PLR0911 - one line for each key
        match self.key:
            case "text":
                return has_text(job, self.value)
            case "=":
                bodies = (job.query, job.result or b"")
                return any(_is(value, self.value) for body in bodies for value in _values(body, self.field))
            case "fn":
                return _named(job.query_type, self.value)
            case "runtime":
                return _named(job.runtime_id, self.value)
            case "id":
                return ending_of(self.value).casefold() in job.job_id
            case "status":
                return job.status == self.value
            case _:
                return outcome_word(job) == self.value


def outcome_word(job: Job) -> str:
    """Return the state of a job in one word: queued, running, ok, error or failed."""
    state = job.outcome or job.status
    return WORDS.get(state, str(state))


@lru_cache(maxsize=64)
def terms_of(search: str) -> tuple[Term, ...]:
    """Return the conditions of a search line. Those without a value, or with an unknown key or value, are left out."""
    terms = []
    for minus, key, field, raw in _TERM.findall(search):
        value = re.sub(r"\\([\s\S])", r"\1", raw[1:].removesuffix('"')) if raw.startswith('"') else raw
        name = "=" if field else KEYS.get(key.lower(), "") if key else "text"
        if name in VALUES:
            value = next((each for each in VALUES[name] if value and each.startswith(value.lower())), "")
        if name and value:
            terms.append(Term(name, str(value), field, bool(minus)))
    return tuple(terms)


# Text


def has_text(job: Job, searched: str) -> bool:
    """Return whether a text is in a job's id, names, error or the first 100 kB of its bodies, in any case."""
    # Written without generators, which take most of the time of a search of many small jobs.
    text, spellings = _spellings(searched)
    if text in _casefold(job.query_type) or text in _casefold(job.runtime_id):
        return True
    if text in job.job_id or text in (job.replica_id or "") or text in (job.error_message or "").casefold():
        return True
    query, result = job.query[:MAX_SEARCHED].lower(), (job.result or b"")[:MAX_SEARCHED].lower()
    for each in spellings:
        if each in query or each in result:
            return True
    return text.startswith("…") and job.job_id.endswith(ending_of(text))  # a shortened id, copied from a table


# Many jobs share few names.
_casefold = lru_cache(maxsize=1_000)(str.casefold)


@lru_cache(maxsize=8)
def _spellings(text: str) -> tuple[str, set[bytes]]:
    """Return a text in lower case, and its possible spellings in a body whose ASCII letters are in lower case.

    JSON may spell it with escapes.
    """
    cases = {text, text.lower(), text.upper(), text.casefold()}
    plain = {each.encode(errors="replace").lower() for each in cases}
    return text.casefold(), plain | {json.dumps(each)[1:-1].encode().lower() for each in cases}


def _like(text: str, pattern: str) -> bool:
    """Return whether a text is the pattern, in any case; `*` stands for any text. It takes linear time."""
    first, *parts = pattern.casefold().split("*")
    text = _casefold(text)
    if not parts:
        return text == first
    if not text.startswith(first) or not text.endswith(parts[-1]) or len(text) < len(first) + len(parts[-1]):
        return False
    place, end = len(first), len(text) - len(parts[-1])
    for part in parts[:-1]:
        place = text.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


_named = lru_cache(maxsize=1_000)(_like)


# Fields of a query or a result


def _values(body: bytes | msgspec.Raw, field: str) -> Iterator[str]:
    """Return the JSON texts of a field of an object: of its key, or of a path of keys with dots."""
    raw = bytes(body)
    if len(raw) > MAX_SEARCHED or (field.isascii() and _last_key(field) not in raw):
        return
    try:
        fields = _fields(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if field in fields:
        yield bytes(fields[field]).decode(errors="replace")
    first, _, rest = field.partition(".")
    if rest and first in fields:
        yield from _values(fields[first], rest)


@lru_cache(maxsize=8)
def _last_key(field: str) -> bytes:
    return field.rpartition(".")[2].encode()


def _is(value: str, wanted: str) -> bool:
    """Return whether a JSON text is the value that is searched for: a string without its quotes, or its text."""
    if value == wanted:
        return True
    if value.startswith('"'):
        try:
            return _like(msgspec.json.decode(value), wanted)
        except msgspec.DecodeError:
            return False
    value, wanted = "".join(value.split()), "".join(wanted.split())
    if max(len(value), len(wanted)) <= MAX_DIGITS and _NUMBER.fullmatch(value) and _NUMBER.fullmatch(wanted):
        return float(value) == float(wanted)
    return _like(value, wanted)
