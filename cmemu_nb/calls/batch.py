"""Many jobs of one function: their queries, results and times as a DataFrame."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from cmemu_nb.display.frames import RESULT_COLUMNS
from cmemu_nb.errors import FunctionError, InvalidRequest, JobEvicted, JobFailed, ResultError
from cmemu_nb.lifecycle.records import Outcome
from cmemu_nb.phrases import abbreviated
from cmemu_nb.wire.json_values import writable
from cmemu_nb.wire.queries import Source
from cmemu_nb.wire.value_types import duplicate_column, fields_of_object, kinds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import pandas as pd

    from cmemu_nb.calls.handles import JobHandle
    from cmemu_nb.calls.interrupts import Interruptible
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.wire.queries import QueryEncoder


class Mapping:
    """The queries of `Emulator.map()` and their results; `done` jobs have ended, `errors` of them not as ok."""

    def __init__(self, queries: Iterable[object] | pd.DataFrame, concurrency: int, encoder: QueryEncoder) -> None:
        if concurrency < 1:
            raise InvalidRequest(f"concurrency must be at least 1, not {concurrency!r}.")
        self.index = getattr(queries, "index", None) if hasattr(queries, "to_dict") else None
        self.queries: list[Any] = _records(queries)
        self._encoder, self._source = encoder, Source.ROW if self.index is None else Source.FRAME
        self.texts = [self._encode(position) for position in range(len(self.queries))]
        self.done = 0
        self.errors = 0
        self._concurrency = min(concurrency, len(self.queries))
        self._results: list[dict[str, Any]] = [{} for _ in self.queries]

    def _encode(self, position: int) -> bytes:
        try:
            return self._encoder.encode(self.queries[position], self._source)
        except InvalidRequest as error:
            label = None if self.index is None else self.index[position]
            row = f"Row {position}" if label in (None, position) else f"Row {position} ({abbreviated(label)})"
            raise InvalidRequest(f"{row} of the map: {error} No row was submitted.") from None

    async def run(
        self,
        call: Interruptible,
        submit: Callable[[bytes], Coroutine[Any, Any, JobHandle]],
        report: Callable[[int, int], object],
    ) -> None:
        """Submit every query and wait for its result; call `report(done, errors)` after each.

        Raises the error of a submission: `NotFound` when the runtime was deleted meanwhile, `NotRunning`.
        """
        positions = iter(range(len(self.texts)))

        async def run_in_turn() -> None:
            for position in positions:
                self._results[position] = await _run(call, partial(submit, self.texts[position]))
                self.done += 1
                self.errors += self._results[position]["outcome"] != Outcome.OK
                report(self.done, self.errors)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(run_in_turn())
        except BaseExceptionGroup as errors:
            # All errors have the same cause: the runtime was deleted, or the emulator was stopped.
            raise errors.exceptions[0] from None

    def frame(self) -> pd.DataFrame:
        """Return a DataFrame with a row for each query, in their order."""
        import pandas as pd  # noqa: PLC0415 - importing pandas takes half a second

        from cmemu_nb.display.frame import Frame  # noqa: PLC0415

        columns = _input_columns(self.queries)
        for name in RESULT_COLUMNS:
            values = pd.Series([result[name] for result in self._results], dtype=object)
            columns[name] = values
            if name.endswith("_time"):
                # pandas would choose seconds as the unit if no value is a time.
                columns[name] = pd.to_timedelta(values, unit="ns").astype("timedelta64[ns]")
        frame = Frame(columns)
        return frame if self.index is None else frame.set_index(self.index)


def _records(queries: Iterable[object] | pd.DataFrame) -> list[Any]:
    if isinstance(queries, str | bytes | dict) or not isinstance(queries, Iterable):
        raise InvalidRequest("map() takes a list of queries or a DataFrame: [{...}, {...}]; call() takes one.")
    if "pandas.DataFrame" not in kinds_of(queries):
        return list(queries)
    if problem := duplicate_column(queries):
        raise InvalidRequest(f"map() was given {problem}. Rename one.")
    frame: Any = queries
    return list(frame.to_dict("records"))


def _input_columns(queries: list[Any]) -> dict[str, Any]:
    import pandas as pd  # noqa: PLC0415

    queries = [fields_of_object(query) or query for query in queries]
    if not all(isinstance(query, dict) for query in queries):
        return {"query": pd.Series(queries, dtype=object)}
    names = {str(name): name for query in queries for name in query}
    return {
        f"input.{text}" if text in RESULT_COLUMNS else text: pd.Series(
            [_printable(query.get(name)) for query in queries]
        )
        for text, name in names.items()
    }


def _printable(value: Any) -> Any:
    """Return a value that pandas can show: Python does not convert integers of more than 4300 digits to text."""
    return writable(value) if type(value) is int else value


async def _run(call: Interruptible, submission: Callable[[], Coroutine[Any, Any, JobHandle]]) -> dict[str, Any]:
    job = await call.submit(submission)
    value, error, outcome = None, None, Outcome.OK
    try:
        value = await job.aresult(progress=False)
    except FunctionError as raised:
        error, outcome = str(raised), Outcome.FUNCTION_ERROR
    except ResultError as raised:
        error = str(raised)
    except (JobFailed, JobEvicted) as raised:
        error, outcome = str(raised), Outcome.FAILED
    call.forget(job.id)
    return {"outcome": outcome, "value": value, "error": error, **_times(job.find()), "job_id": job.id}


def _times(job: Job | None) -> dict[str, int | None]:
    # This does not use pandas: its import would delay the jobs that run meanwhile by half a second.
    return {"queue_time": job.queue_time() if job else None, "run_time": job.run_time() if job else None}
