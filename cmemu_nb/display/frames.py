"""Records as typed pandas DataFrames, which a notebook shows in abbreviated form.

Every function takes plain lists of immutable records, so it runs in the caller's thread and does not block the event
loop. Times become UTC timestamps, durations timedeltas, closed sets of values categories. An empty frame has the same
types as a full one. pandas is imported when the first frame is made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from cmemu_nb.display.text import offsets_in_words
from cmemu_nb.lifecycle.datasets import TransactionStatus, TransactionType
from cmemu_nb.lifecycle.events import KINDS
from cmemu_nb.lifecycle.records import STATES, JobSource, JobStatus, Mode, Outcome, column_of
from cmemu_nb.tokens import last_four
from cmemu_nb.wire.results import error_in_short, function_error, result_in_short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from cmemu_nb.lifecycle.datasets import DatasetFile, Transaction
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, Job, Runtime

    Times = npt.NDArray[np.datetime64]

RESULT_COLUMNS = ("outcome", "value", "error", "queue_time", "run_time", "job_id")

T = TypeVar("T")
_NAT = -(2**63)
_ENDS = {JobStatus.SUCCEEDED: Outcome.OK, JobStatus.FAILED: Outcome.FAILED}
# The characters that JSON text of an object may begin with.
_BEGINNINGS_OF_ERRORS = b"{ \t\n\r\f\vJF"


def jobs_frame(jobs: Sequence[Job], now: int) -> pd.DataFrame:
    """Return the jobs in the order of their submission, indexed by job_id.

    The `queue_time` of a queued job and the `run_time` of a running one are measured up to `now`, on the steady clock.
    `outcome` is missing while a job is unfinished; `query` is JSON text, `result` the first 100 characters of the
    result's text, or the first line of the error that the function raised; `replica_id` is the replica of a launched
    module that took the job.
    """
    import pandas as pd  # noqa: PLC0415 - pandas is slow to import, and needed only for a frame

    from cmemu_nb.display.frame import Frame  # noqa: PLC0415

    jobs = sorted(jobs, key=attrgetter("sequence"))
    sizes, errors, results = _look_at_results(jobs)
    shared = _shared_columns(jobs)
    columns = {
        "status": shared["status"],
        "outcome": _outcomes(shared["status"], errors),
        "query_type": shared["query_type"],
        "runtime_id": shared["runtime_id"],
        "deployed_app_rid": shared["deployed_app_rid"],
        "branch": shared["branch"],
        "replica_id": shared["replica_id"],
        "source": shared["source"],
        "queued_at": _utc(_times(job.queued_at for job in jobs)),
        "started_at": _utc(_times(job.started_at for job in jobs)),
        "completed_at": _utc(_times(job.completed_at for job in jobs)),
        "queue_time": _durations(
            (None if job.status == JobStatus.QUEUED else job.queue_clock for job in jobs),
            lambda row: jobs[row].queue_time(now),
        ),
        "run_time": _durations(
            (None if job.status == JobStatus.RUNNING else job.run_clock for job in jobs),
            lambda row: jobs[row].run_time(now),
        ),
        "query": _text([job.query.decode() for job in jobs]),
        "result": _free_text(results),
        "result_size": pd.arrays.IntegerArray(sizes, sizes < 0),
        "result_content_type": shared["result_content_type"],
        "error_message": _repeated(job.error_message for job in jobs),
    }
    index = pd.Index(_text([job.job_id for job in jobs]), name="job_id")
    return Frame(columns, index=index, copy=False)


def runtimes_frame(
    runtimes: Sequence[Runtime],
    counts: Mapping[str, Mapping[str, int]],
    schemas: Iterable[FunctionSchema],
    apps: Iterable[DeployedApp],
    evicted: Mapping[str, int],
) -> pd.DataFrame:
    """Return the runtimes in the given order, indexed by runtime_id, with the numbers of their records.

    `counts` has the number of each runtime's jobs by state, `evicted` the number of its finished jobs that were
    evicted; the column `mode` has the execution modes of the launched modules, `deployed_apps` the bindings as
    "rid (branch)", `token` only the token's last characters.
    """
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    from cmemu_nb.display.frame import Frame  # noqa: PLC0415

    functions = Counter(schema.runtime_id for schema in schemas)
    bindings: dict[str, list[str]] = {}
    for app in apps:
        bindings.setdefault(app.runtime_id, []).append(app.label)
    ids = [runtime.runtime_id for runtime in runtimes]
    columns = {
        "display_name": _text([runtime.display_name for runtime in runtimes]),
        "mode": _category((runtime.mode for runtime in runtimes), Mode),
        "connected": np.array([runtime.connected for runtime in runtimes], dtype=np.bool_),
        "last_poll_at": _utc(_times([runtime.last_poll_at for runtime in runtimes])),
        "created_at": _utc(_times([runtime.created_at for runtime in runtimes])),
        "last_schema_post_at": _utc(_times([runtime.last_schema_post_at for runtime in runtimes])),
        **{column_of(state): _integers([counts.get(name, {}).get(state, 0) for name in ids]) for state in STATES},
        "evicted": _integers([evicted.get(name, 0) for name in ids]),
        "functions": _integers([functions[name] for name in ids]),
        "deployed_apps": _text([", ".join(bindings.get(name, ())) for name in ids]),
        "token": _text([last_four(runtime.module_auth_token) for runtime in runtimes]),
    }
    return Frame(columns, index=pd.Index(_text(ids), name="runtime_id"), copy=False)


def schemas_frame(schemas: Sequence[FunctionSchema]) -> pd.DataFrame:
    """Return the function schemas in the given order, indexed by runtime_id and function_name."""
    return _frame_by_two(
        runtime_id=_text([schema.runtime_id for schema in schemas]),
        function_name=_text([schema.function_name for schema in schemas]),
        posted_at=_utc(_times([schema.posted_at for schema in schemas])),
        schema_payload=_text([schema.schema_payload.decode() for schema in schemas]),
    )


def deployed_apps_frame(apps: Sequence[DeployedApp]) -> pd.DataFrame:
    """Return the bindings in the given order, indexed by deployed_app_rid and branch."""
    return _frame_by_two(
        deployed_app_rid=_text([app.deployed_app_rid for app in apps]),
        branch=_text([app.branch for app in apps]),
        runtime_id=_text([app.runtime_id for app in apps]),
        display_name=_text([app.display_name for app in apps]),
        bound_at=_utc(_times([app.bound_at for app in apps])),
    )


def files_frame(files: Sequence[DatasetFile]) -> pd.DataFrame:
    """Return the files of a dataset in the order of their paths, indexed by path."""
    import pandas as pd  # noqa: PLC0415

    from cmemu_nb.display.frame import Frame  # noqa: PLC0415

    files = sorted(files, key=attrgetter("path"))
    columns = {
        "size": _integers(file.size for file in files),
        "updated_at": _utc(_times(file.updated_at for file in files)),
        "transaction_rid": _text([file.transaction_rid for file in files]),
    }
    return Frame(columns, pd.Index(_free_text([file.path for file in files]), name="path"))


def transactions_frame(transactions: Sequence[Transaction]) -> pd.DataFrame:
    """Return the transactions of a dataset in the order in which they were opened, indexed by RID."""
    import pandas as pd  # noqa: PLC0415

    from cmemu_nb.display.frame import Frame  # noqa: PLC0415

    columns = {
        "type": _category([each.kind for each in transactions], TransactionType),
        "status": _category([each.status for each in transactions], TransactionStatus),
        "branch": _text([each.branch for each in transactions]),
        "created_at": _utc(_times(each.created_at for each in transactions)),
        "closed_at": _utc(_times(each.closed_at for each in transactions)),
    }
    return Frame(columns, pd.Index(_text([each.rid for each in transactions]), name="rid"))


def datasets_frame(summaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each dataset in the given order, indexed by name.

    `rows`, `files` and `bytes` are those of the branch `master`; `rows` is missing where only decoding the files would
    tell. `open_transactions` has the RIDs of open transactions, and is empty without one.
    """
    import pandas as pd  # noqa: PLC0415

    from cmemu_nb.display.frame import Frame  # noqa: PLC0415

    columns = {
        "schema": _free_text([each["schema"] for each in summaries]),
        "rows": _integers_or_missing([each["rows"] for each in summaries]),
        **{name: _integers(each[name] for each in summaries) for name in ("files", "bytes")},
        "branches": _free_text([", ".join(each["branches"]) for each in summaries]),
        "transactions": _integers(each["transactions"] for each in summaries),
        "open_transactions": _text([", ".join(each["open_transactions"]) for each in summaries]),
        "committed_at": _utc(_times(each["committed_at"] for each in summaries)),
        "rid": _text([each["rid"] for each in summaries]),
    }
    return Frame(columns, index=pd.Index(_free_text([each["name"] for each in summaries]), name="name"), copy=False)


def streams_frame(summaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each stream on each of its branches in the given order, indexed by name and branch.

    `records` and `bytes` are those that are kept, `published` all records of the current view; `end_offsets` has the
    offset of the next record of each partition, such as "0: 12, 1: 9".
    """
    counts = ("records", "bytes", "published", "partitions")
    return _frame_by_two(
        name=_free_text([each["name"] for each in summaries]),
        branch=_free_text([each["branch"] for each in summaries]),
        schema=_free_text([each["schema"] for each in summaries]),
        **{name: _integers(each[name] for each in summaries) for name in counts},
        end_offsets=_text([offsets_in_words(each["end_offsets"]) for each in summaries]),
        published_at=_utc(_times(each["published_at"] for each in summaries)),
        rid=_text([each["rid"] for each in summaries]),
    )


def events_frame(events: Sequence[Event]) -> pd.DataFrame:
    """Return the events in the given order, indexed by their sequence numbers."""
    import pandas as pd  # noqa: PLC0415

    from cmemu_nb.display.frame import Frame  # noqa: PLC0415

    kinds = [event.kind for event in events]
    columns = {
        "at": _utc(_times(event.at for event in events)),
        "kind": _category(kinds, dict.fromkeys([*KINDS, *kinds])),
        "runtime_id": _repeated(event.runtime_id for event in events),
        "job_id": _text([event.job_id for event in events]),
        "detail": _free_text([event.detail for event in events]),
    }
    index = pd.Index(_integers(event.sequence for event in events), name="sequence")
    return Frame(columns, index=index, copy=False)


# Columns


def _frame_by_two(**columns: Any) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    from cmemu_nb.display.frame import Frame  # noqa: PLC0415

    names = list(columns)[:2]
    index = pd.MultiIndex.from_arrays([columns.pop(name) for name in names], names=names)
    return Frame(columns, index=index, copy=False)


def _text(values: Sequence[str | None]) -> Any:
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    return pd.array(np.fromiter(values, np.object_, len(values)), dtype="str", copy=False)


def _free_text(values: Sequence[str | None]) -> Any:
    """Make a column of text that code in this process has produced, which may contain lone surrogates.

    Neither Arrow's strings nor a notebook's messages can represent them. Text that came over HTTP has none.
    """
    try:
        "".join(filter(None, values)).encode()
    except UnicodeEncodeError:
        values = [value and value.encode(errors="replace").decode() for value in values]
    return _text(values)


def _repeated(values: Iterable[str | None]) -> Any:
    """Make a column of free text in which many rows share a value: pandas converts each text only once."""
    texts, rows = _distinct(values)
    return _free_text(texts).take(rows)


def _distinct(values: Iterable[T]) -> tuple[list[T], npt.NDArray[np.int64]]:
    """Return the distinct values, and for every row the position of its value among them."""
    positions: defaultdict[T, int] = defaultdict()
    positions.default_factory = positions.__len__
    rows = _integers(map(positions.__getitem__, values))
    return list(positions), rows


def _category(values: Iterable[str | None], categories: Iterable[str], *, ordered: bool = False) -> pd.Categorical:
    import pandas as pd  # noqa: PLC0415

    codes: dict[str | None, int] = {name: code for code, name in enumerate(categories)}
    dtype = pd.CategoricalDtype(pd.Index(list(map(str, codes)), dtype="str"), ordered=ordered)
    codes[None] = -1
    return pd.Categorical.from_codes(_integers(map(codes.__getitem__, values)), dtype=dtype)


def _shared_columns(jobs: Iterable[Job]) -> dict[str, Any]:
    """Return the columns in which many jobs are alike; each combination of their values is converted only once."""
    kinds, rows = _distinct(
        (
            job.status,
            job.source,
            job.query_type,
            job.runtime_id,
            job.deployed_app_rid,
            job.deployed_app_branch,
            job.replica_id,
            job.result_content_type,
        )
        for job in jobs
    )
    values = [[kind[column] for kind in kinds] for column in range(8)]
    columns = {
        "status": _category(values[0], JobStatus, ordered=True),
        "source": _category(values[1], JobSource),
        "query_type": _free_text(values[2]),
        "runtime_id": _text(values[3]),
        "deployed_app_rid": _text(values[4]),
        "branch": _text(values[5]),
        "replica_id": _text([value or None for value in values[6]]),
        "result_content_type": _text(values[7]),
    }
    return {name: column.take(rows) for name, column in columns.items()}


def _outcomes(status: pd.Categorical, errors: list[int]) -> pd.Categorical:
    """Return every job's outcome: the same as `Job.outcome`, in a fraction of its time."""
    outcomes = _category([_ENDS.get(each) for each in JobStatus], Outcome).take(status.codes)
    outcomes[_integers(errors)] = Outcome.FUNCTION_ERROR.value
    return outcomes


def _look_at_results(jobs: Iterable[Job]) -> tuple[npt.NDArray[np.int64], list[int], list[str | None]]:
    """Return the sizes of the results (-1 for none), the rows of function errors, and the abbreviated results."""
    sizes, errors, results = [], [], list[str | None]()
    for row, job in enumerate(jobs):
        result = job.result
        sizes.append(-1 if result is None else len(result))
        results.append(None if result is None else result_in_short(result))
        if result and result[0] in _BEGINNINGS_OF_ERRORS and function_error(result):
            errors.append(row)
            results[row] = error_in_short(job)
    return _integers(sizes), errors, results


def _integers(values: Iterable[int]) -> npt.NDArray[np.int64]:
    import numpy as np  # noqa: PLC0415

    return np.fromiter(values, np.int64)


def _integers_or_missing(values: Sequence[int | None]) -> pd.arrays.IntegerArray:
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    missing = np.array([value is None for value in values], dtype=np.bool_)
    return pd.arrays.IntegerArray(_integers(value or 0 for value in values), missing)


def _times(nanoseconds: Iterable[int | None]) -> Times:
    return _integers(_NAT if value is None else value for value in nanoseconds).view("M8[ns]")


def _utc(times: Times) -> pd.DatetimeIndex:
    import pandas as pd  # noqa: PLC0415

    return pd.DatetimeIndex(times).tz_localize("UTC")


def _durations(nanoseconds: Iterable[int | None], so_far: Callable[[int], int | None]) -> pd.TimedeltaIndex:
    """Return durations; for each one that is None, `so_far` is called with its row."""
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    values = _integers(_NAT if value is None else value for value in nanoseconds)
    for row in np.flatnonzero(values == _NAT):
        found = so_far(int(row))
        values[row] = _NAT if found is None else found
    return pd.TimedeltaIndex(values.view("m8[ns]"))
