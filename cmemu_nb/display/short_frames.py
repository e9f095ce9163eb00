"""The DataFrames of an emulator as a notebook shows them: the most useful columns, in rows of at most two lines."""

from __future__ import annotations

import functools
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cmemu_nb.display import frames
from cmemu_nb.display.frames import RESULT_COLUMNS
from cmemu_nb.display.html import Html, status_badge, table, two_lines
from cmemu_nb.display.text import MISSING, clock, cut, say, short_id, tally
from cmemu_nb.lifecycle.records import STATES, column_of, polling
from cmemu_nb.phrases import plural
from cmemu_nb.wire.function_schemas import schema_in_words
from cmemu_nb.wire.json_values import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    Row = dict[str, Any]

MAX_NAME = 60
MAX_FIELDS = 4  # a query with more fields is shown in a single column


class View(NamedTuple):
    """How a kind of frame is shown: `empty()` makes one without rows, and `noun` names a row.

    `cells` returns the shown values of a row, by heading; `tally` adds a summary of all rows to their number.
    """

    empty: Callable[[], pd.DataFrame]
    noun: str
    cells: Callable[[Row], dict[str, object]]
    tally: Callable[[pd.DataFrame], str] = lambda _: ""


def short_frame(frame: pd.DataFrame) -> Html | None:
    """Return an abbreviated frame as HTML; None if its columns are not exactly those of an emulator's frame.

    As in pandas, only the first and the last of many rows are shown (the options `display.max_rows` and `min_rows`).
    If all rows have the same runtime, that column is omitted, and a note below says so.
    """
    view = VIEWS.get(tuple(map(str, frame.index.names)))
    if view is None or set(frame.columns) != _columns(view):
        return _map(frame) if _is_of_a_map(frame) else None
    records = cast("list[Row]", _ends(frame).reset_index().to_dict("records"))
    rows = [view.cells(record) for record in records]
    headings = list(view.cells(dict.fromkeys(map(str, (*frame.index.names, *frame.columns)))))
    note = _note(frame, headings)
    if view.noun != "runtime" and "runtime" in headings and _all_alike(frame):
        headings.remove("runtime")
        note = " ".join(filter(None, (note, _only_runtime(records[0]["runtime_id"]))))
    return _table(frame, view.noun, view.tally(frame), headings, rows, note)


def _table(frame: pd.DataFrame, noun: str, more: str, headings: list[str], rows: list[Row], note: str) -> Html:
    caption = plural(len(frame), noun) + (f": {more}" if more else "")
    return table(caption, headings, rows, every=len(frame), note=note, compact=True)


def _note(frame: pd.DataFrame, headings: list[str]) -> str:
    """Return a note that the frame has more columns than are shown; empty if it has not."""
    if len(headings) >= frame.index.nlevels + len(frame.columns):
        return ""
    return f"Abbreviated: the frame has {plural(len(frame.columns), 'column')}, which .columns lists."


def _only_runtime(runtime_id: object) -> str:
    name = say(runtime_id)
    if name == MISSING:
        return "No row has a runtime."
    shown, note = cut(name, MAX_NAME)
    return f"The runtime of every row is '{shown}{'…' if note else ''}'."


@functools.cache
def _columns(view: View) -> frozenset[str]:
    return frozenset(view.empty().columns)


def _all_alike(frame: pd.DataFrame) -> bool:
    runtimes = frame["runtime_id"] if "runtime_id" in frame else frame.index.get_level_values("runtime_id")
    return len(frame) > 0 and bool((runtimes == runtimes.array[0]).all())


def _ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are shown, as many as pandas would show."""
    import pandas as pd  # noqa: PLC0415 - imported already, since there is a frame

    most = pd.get_option("display.max_rows") or len(frame)
    if len(frame) <= most:
        return frame
    half = max(1, min(pd.get_option("display.min_rows") or most, most) // 2)
    return pd.concat([frame.head(half), frame.tail(half)])


def _job(row: Row) -> dict[str, object]:
    state = say(row["status"] if say(row["outcome"]) == MISSING else row["outcome"])
    why = row["result"] if say(row["error_message"]) == MISSING else row["error_message"]
    return {
        "job": _short_id(row["job_id"]),
        "function": two_lines(row["query_type"]),
        "runtime": two_lines(row["runtime_id"]),
        "state": status_badge(state),
        "query": two_lines(row["query"]),
        "result": two_lines(why),
        "queued (UTC)": _clock(row["queued_at"]),
        "queue time": row["queue_time"],
        "run time": row["run_time"],
    }


def _count_jobs(frame: pd.DataFrame) -> str:
    ended = frame["outcome"].value_counts().to_dict()
    unfinished = frame["status"][frame["outcome"].isna()].value_counts().to_dict()
    counts = Counter({str(state): count for state, count in (unfinished | ended).items() if count})
    return tally(counts)


def _runtime(row: Row) -> dict[str, object]:
    return {
        "runtime": two_lines(row["runtime_id"]),
        "state": status_badge(polling(row["mode"], connected=bool(row["connected"]))),
        "last poll (UTC)": _clock(row["last_poll_at"]),
        **{state: row[column_of(state)] for state in STATES},
        "functions": row["functions"],
        "deployed apps": two_lines(row["deployed_apps"] or MISSING),
    }


def _event(row: Row) -> dict[str, object]:
    return {
        "event": row["sequence"],
        "at (UTC)": _clock(row["at"], milliseconds=True),
        "kind": row["kind"],
        "runtime": two_lines(row["runtime_id"]),
        "job": _short_id(row["job_id"]),
        "detail": two_lines(row["detail"]),
    }


def _schema(row: Row) -> dict[str, object]:
    payload = row["schema_payload"]
    return {
        "function": two_lines(row["function_name"]),
        "runtime": two_lines(row["runtime_id"]),
        # A schema in a format of the executor's own has no readable form, so its JSON is shown.
        "takes and gives": two_lines((payload and schema_in_words(read_json(payload))) or payload),
        "posted (UTC)": _clock(row["posted_at"]),
    }


def _app(row: Row) -> dict[str, object]:
    return {
        "deployed app": two_lines(row["deployed_app_rid"]),
        "branch": two_lines(row["branch"]),
        "runtime": two_lines(row["runtime_id"]),
        "display name": two_lines(row["display_name"]),
        "bound (UTC)": _clock(row["bound_at"]),
    }


def _dataset(row: Row) -> dict[str, object]:
    return {
        "dataset": two_lines(row["name"]),
        "schema": two_lines(row["schema"] or MISSING),
        "rows": row["rows"],
        "files": row["files"],
        "bytes": row["bytes"],
        "branches": two_lines(row["branches"]),
        "open transactions": two_lines(row["open_transactions"] or MISSING),
        "committed (UTC)": _clock(row["committed_at"]),
    }


def _stream(row: Row) -> dict[str, object]:
    return {
        "stream": two_lines(row["name"]),
        "branch": two_lines(row["branch"]),
        "schema": two_lines(row["schema"]),
        "records": row["records"],
        "bytes": row["bytes"],
        "partitions": row["partitions"],
        "end offsets": two_lines(row["end_offsets"]),
        "newest record (UTC)": _clock(row["published_at"]),
    }


# The frame that emu.map returns: a row for each call, with the caller's own index and the fields of the query.


def _is_of_a_map(frame: pd.DataFrame) -> bool:
    return frame.columns.is_unique and tuple(frame.columns[-len(RESULT_COLUMNS) :]) == RESULT_COLUMNS


def _map(frame: pd.DataFrame) -> Html:
    fields = [str(name) for name in frame.columns[: -len(RESULT_COLUMNS)]]
    index = ", ".join(str(name) for name in frame.index.names if name is not None)
    headings = [index, *fields, *_call({})]
    in_columns = len(fields) <= MAX_FIELDS and len(headings) == len(set(headings))
    if not in_columns:
        headings = [index, "query", *_call({})]
    ends = _ends(frame)
    rows = []
    for label, values in zip(ends.index, ends.itertuples(index=False, name=None), strict=True):
        query = dict(zip(fields, values, strict=False))
        call = _call(dict(zip(RESULT_COLUMNS, values[len(fields) :], strict=True)))
        shown = {name: _any(value) for name, value in query.items()} if in_columns else {"query": _any(query)}
        rows.append({index: _any(label), **shown, **call})
    more = tally(Counter(map(str, frame["outcome"])))
    return _table(frame, "call", more, headings, rows, _note(frame, headings))


def _call(row: Row) -> Row:
    error = row.get("error")
    return {
        "state": status_badge(row.get("outcome")),
        "result": two_lines(error.partition("\n")[0]) if isinstance(error, str) else _any(row.get("value")),
        "queue time": row.get("queue_time"),
        "run time": row.get("run_time"),
        "job": _short_id(row.get("job_id")),
    }


def _any(value: object) -> object:
    """Return a number as it is, and any other value as text of at most two lines."""
    return value if isinstance(value, int | float) else two_lines(value)


def _short_id(job_id: object) -> str:
    return short_id(job_id) if isinstance(job_id, str) else MISSING


def _clock(at: Any, *, milliseconds: bool = False) -> str:
    return MISSING if say(at) == MISSING else clock(at.value, time.time_ns(), milliseconds=milliseconds)


VIEWS: dict[tuple[str, ...], View] = {
    ("job_id",): View(lambda: frames.jobs_frame([], 0), "job", _job, _count_jobs),
    ("runtime_id",): View(lambda: frames.runtimes_frame([], {}, [], [], {}), "runtime", _runtime),
    ("sequence",): View(lambda: frames.events_frame([]), "event", _event),
    ("runtime_id", "function_name"): View(lambda: frames.schemas_frame([]), "schema", _schema),
    ("deployed_app_rid", "branch"): View(lambda: frames.deployed_apps_frame([]), "deployed app", _app),
    ("name",): View(lambda: frames.datasets_frame([]), "dataset", _dataset),
    ("name", "branch"): View(lambda: frames.streams_frame([]), "stream", _stream),
}
