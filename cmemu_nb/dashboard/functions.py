"""The dashboard's data of the functions: what each takes and gives, the history of its jobs, and its form."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.dashboard.panels import Part, plain
from cmemu_nb.display.text import duration
from cmemu_nb.executors.counted_function import CountedFunction
from cmemu_nb.lifecycle.records import Outcome
from cmemu_nb.wire.function_schemas import schema_in_words
from cmemu_nb.wire.json_values import read_exactly, write_json
from cmemu_nb.wire.results import error_in_short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.records import FunctionSchema, Job

MAX_FUNCTIONS = 500
MAX_COUNTED = 5_000
MAX_SCHEMA = 200_000
MAX_CACHED = 10_000
MAX_DEFAULT = 30
# A bar of a history has one of these heights, and a letter for its job's outcome.
HEIGHTS = "0123456789abcdefghijklmnopqrstuvwxyz"
LETTERS = {Outcome.OK: "o", Outcome.FUNCTION_ERROR: "e", Outcome.FAILED: "f"}


class FunctionList:
    """The functions that have a schema, with the history of their jobs.

    Functions in cells and those of launched modules count their jobs themselves. The jobs of others are counted here:
    the newest 5,000, and those that end later. An update costs as much as the functions whose jobs have ended.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._elsewhere: dict[tuple[str, str], CountedFunction] = {}
        self._counted: dict[str, None] = {}
        self._cards: dict[str, tuple[FunctionSchema, CountedFunction | None, int, Part]] = {}
        self._histories: dict[str, tuple[CountedFunction, int, Part]] = {}
        for job in reversed(emulator.lifecycle.newest_jobs(MAX_COUNTED)):
            self._count(job)

    def update(self, changed: Iterable[str]) -> None:
        """Count those of the changed jobs that have ended."""
        for job_id in changed:
            job = self._emulator.lifecycle.find_job(job_id)
            if job is not None:
                self._count(job)

    def _count(self, job: Job) -> None:
        if not job.finished or job.job_id in self._counted or self._serving(job.runtime_id, job.query_type):
            return
        self._counted[job.job_id] = None
        if len(self._counted) > MAX_COUNTED:
            del self._counted[next(iter(self._counted))]
        key = job.runtime_id, job.query_type
        self._elsewhere.setdefault(key, CountedFunction(*key)).count(job)

    def _serving(self, runtime_id: str, name: str) -> CountedFunction | None:
        return self._emulator.functions.find_on(runtime_id, name)

    def cards(self) -> Part:
        """Return what is known of each function apart from its jobs."""
        state = self._emulator.lifecycle
        schemas = state.schemas(most=MAX_FUNCTIONS)
        return {"rows": [self._card(schema) for schema in schemas], "every": state.count_schemas()}

    def _card(self, schema: FunctionSchema) -> Part:
        key, serving = function_key(schema), self._serving(schema.runtime_id, schema.function_name)
        version, known = serving.version if serving else 0, self._cards.get(key)
        if known is None or known[0] is not schema or known[1] is not serving or known[2] != version:
            known = self._cards[key] = schema, serving, version, _new_card(schema, serving)
        return known[3]

    def histories(self) -> Part:
        """Return the history of the jobs of each function that has any, by the function's key."""
        return {
            key: self._history(key, counted)
            for schema in self._emulator.lifecycle.schemas(most=MAX_FUNCTIONS)
            if (counted := self._counted_function(schema)) is not None and counted.calls
            for key in [function_key(schema)]
        }

    def _counted_function(self, schema: FunctionSchema) -> CountedFunction | None:
        key = schema.runtime_id, schema.function_name
        return self._serving(*key) or self._elsewhere.get(key)

    def _history(self, key: str, counted: CountedFunction) -> Part:
        known, calls = self._histories.get(key), counted.calls
        if known is None or known[0] is not counted or known[1] != calls:
            known = self._histories[key] = counted, calls, self._new_history(counted)
        return known[2]

    def _new_history(self, counted: CountedFunction) -> Part:
        failed = self._emulator.lifecycle.find_job(counted.last_error)
        return {
            **{letter: counted.outcomes[outcome] for outcome, letter in LETTERS.items()},
            "p50": duration(counted.percentile(50)),
            "p95": duration(counted.percentile(95)),
            **bars(counted),
            "error": [failed.job_id, plain(error_in_short(failed), 200)] if failed else [],
        }


def _new_card(schema: FunctionSchema, serving: CountedFunction | None) -> Part:
    return {
        "key": function_key(schema),
        "name": plain(schema.function_name),
        "version": f"v{serving.version}" if serving and serving.version > 1 else "",
        "runtime": plain(schema.runtime_id),
        "words": signature(schema.schema_payload, serving.defaults if serving else {}),
        "summary": plain(serving.summary, 200) if serving else "",
    }


def bars(counted: CountedFunction) -> dict[str, str]:
    """Return the run times of a function's last jobs as a chart of bars: a digit of base 36 and a letter for each."""
    recent = counted.recent.copy()
    longest = max((time or 0 for time, _ in recent), default=0) or 1
    heights = "".join(HEIGHTS[(len(HEIGHTS) - 1) * (time or 0) // longest] for time, _ in recent)
    letters = "".join(LETTERS[outcome] for _, outcome in recent)
    return {"heights": heights, "letters": letters, "longest": duration(longest)}


def function_key(schema: FunctionSchema) -> str:
    """Return an unambiguous key for a function of a runtime, whatever characters their names have."""
    return json.dumps([schema.runtime_id, schema.function_name])


def form_part(emulator: Emulator, schema: FunctionSchema | None) -> Part:
    """Return the data from which the browser builds the form of a function."""
    if schema is None:
        return {}
    serving = emulator.functions.find_on(schema.runtime_id, schema.function_name)
    large = len(schema.schema_payload) > MAX_SCHEMA
    return {
        "key": function_key(schema),
        "runtime_id": schema.runtime_id,
        "function_name": schema.function_name,
        "schema": None if large else _for_the_browser(schema.schema_payload),
        "defaults": write_json(serving.defaults) if serving and serving.defaults else "",
    }


def signature(payload: bytes, defaults: Mapping[str, Any]) -> str:
    """Return a schema in words with the defaults that are known; "" if it is too large or of another dialect."""
    if len(payload) > MAX_SCHEMA:
        return ""
    known = tuple((name, plain(write_json(value), MAX_DEFAULT)) for name, value in defaults.items())
    return _cached(payload, known) if len(payload) <= MAX_CACHED else _in_words(payload, known)


def _in_words(payload: bytes, defaults: tuple[tuple[str, str], ...]) -> str:
    try:
        return plain(schema_in_words(read_exactly(payload), dict(defaults)), 400)
    except (ValueError, RecursionError):
        return ""


_cached = lru_cache(maxsize=1000)(_in_words)


def _for_the_browser(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return None
