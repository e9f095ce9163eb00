"""Queries and results of a session's jobs, as examples for the tests of a project; and plausible queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cmemu_nb.errors import InvalidRequest, ResultError
from cmemu_nb.export.writer import is_literal
from cmemu_nb.lifecycle.records import JobStatus
from cmemu_nb.wire.function_schemas import fields_of, get_in, inputs_of, required_fields_of, type_name
from cmemu_nb.wire.json_values import read_exactly
from cmemu_nb.wire.query_check import check_query
from cmemu_nb.wire.results import function_error, parse_result

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cmemu_nb.lifecycle.records import Job

MAX_EXAMPLES = 3
MAX_BYTES = 2_000
SIMPLE = {
    "boolean": True,
    "string": "text",
    "binary": "text",
    "decimal": "1.5",
    "date": "2026-01-02",
    "timestamp": "2026-01-02T03:04:05Z",
}


class Example(NamedTuple):
    """A call that succeeded: `query` and `result` are JSON values."""

    query: Any
    result: Any


def find_examples(jobs: Iterable[Job], schema: Mapping[str, Any], since: int) -> list[Example]:
    """Return a function's newest calls that succeeded, at most three, with different queries, the oldest first.

    Their queries match the schema: an executor may accept others, which `emu.call` refuses. `since` is when its present
    version was served: earlier jobs ran another one. Long queries and results are left out. A function that gave
    several results for one query, because of chance or the time, has no examples.
    """
    examples: dict[str, Example] = {}
    for job in jobs:
        example = _example(job) if (job.started_at or 0) >= since else None
        if example is None or not _matches(example.query, schema):
            continue
        key = repr(example.query)
        if examples.pop(key, example).result != example.result:
            return []
        examples[key] = example
    return list(examples.values())[-MAX_EXAMPLES:]


def _example(job: Job) -> Example | None:
    result = job.result or b""
    if job.status != JobStatus.SUCCEEDED or len(job.query) + len(result) > MAX_BYTES or function_error(result):
        return None
    try:
        found = Example(read_exactly(job.query), parse_result(result, streaming=job.streamed))
    except (ValueError, ResultError):
        return None
    return found if is_literal(list(found)) else None


def _matches(query: Any, schema: Mapping[str, Any]) -> bool:
    try:
        check_query("", schema, query)
    except InvalidRequest:
        return False
    return True


def plausible_query(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a query that fits a function's schema, with a simple value for each input that it requires."""
    return {name: _value(kind) for name, (kind, required) in (inputs_of(schema) or {}).items() if required}


def _value(kind: Any) -> Any:
    name = type_name(kind)
    inside = get_in(kind, name)
    match name:
        case "anonymousCustomType":
            needed = required_fields_of(kind)
            return {
                each: _value(of) for each, of in (fields_of(kind) or {}).items() if needed is None or each in needed
            }
        case "list" | "set":
            return [_value(get_in(inside, "elementsType"))]
        case "map":
            return {}
        case "optionalType":
            return None
        case "float" | "double":
            return 1.5
        case _:
            return SIMPLE.get(name, 1)
