"""The records as DataFrames: their types, order, counts and times, whatever is in them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from msgspec.structs import replace

from cmemu_nb.display import frames
from cmemu_nb.foundry.summaries import dataset_summary, histories, logs, stream_summary
from cmemu_nb.lifecycle.datasets import TransactionType
from cmemu_nb.lifecycle.events import KINDS, Event
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.records import STATES, Job, JobSource, JobStatus, column_of
from cmemu_nb.tokens import last_four
from cmemu_nb.wire.labels import MAX_LABEL_BYTES
from cmemu_nb.wire.stream_schemas import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb import Emulator

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
RID = "ri.foundry.main.deployed-app.my-app"
HOSTILE = {
    "emoji": "🦀👩‍🔬",
    "NUL": "a\0b",
    "right to left": "\u202egnp.exe",
    "lines": "a\r\nb\tc\u2028d",
    "markup": "<script>alert(1)</script>",
    "long": "x" * 100_000,
    "blank": "",
    "lone surrogate": "a\ud800b",
}


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> int:
        self.now += round(seconds * SECOND)
        return self.now


def all_frames(lifecycle: Lifecycle, now: int = START) -> dict[str, pd.DataFrame]:
    schemas, apps = lifecycle.schemas(), lifecycle.deployed_apps()
    counts, evicted = lifecycle.outcomes_by_runtime(), lifecycle.evicted()
    return {
        "jobs": frames.jobs_frame(lifecycle.jobs(), now),
        "runtimes": frames.runtimes_frame(lifecycle.runtimes(), counts, schemas, apps, evicted),
        "schemas": frames.schemas_frame(schemas),
        "deployed_apps": frames.deployed_apps_frame(apps),
        "events": frames.events_frame(lifecycle.events.recent(all=True)),
        "datasets": frames.datasets_frame([dataset_summary(each) for each in histories(lifecycle)]),
        "streams": frames.streams_frame([stream_summary(each) for each in logs(lifecycle)]),
    }


def jobs_of(lifecycle: Lifecycle, now: int = START) -> pd.DataFrame:
    return frames.jobs_frame(lifecycle.jobs(), now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lifecycle(clock: Clock) -> Lifecycle:
    """Two runtimes and a job of every kind: queued, running, ok, a function's error, failed in the queue."""
    state = Lifecycle(clock=clock, monotonic=clock)
    state.open_session("a", RID, display_name="The first")
    state.open_session("b")
    state.post_schemas("a", [("f", b'{"name":"f"}'), ("g", b"{}")])
    for result in (b"3", b'{"exception":"ValueError"}'):
        state.submit("a", "f", b'{"x":1}')
        job = state.take("a")
        assert job
        state.finish("a", job.job_id, result, "application/json")
    state.fail(state.submit("a", "f", b"null").job_id, "by hand")
    state.submit_to_app(RID, None, "g", b"[1]", JobSource.CONTOUR_ASYNC)
    state.take("a")
    state.submit("a", "g", b"{}")
    state.open_transaction(state.create_dataset("in").rid, TransactionType.APPEND)
    state.create_data_stream("events", parse({"at": "TIMESTAMP"}))
    return state


@pytest.mark.parametrize("name", ["jobs", "runtimes", "schemas", "deployed_apps", "events", "datasets", "streams"])
def test_an_empty_frame_has_the_types_of_a_full_one(name: str, lifecycle: Lifecycle) -> None:
    empty, full = all_frames(Lifecycle())[name], all_frames(lifecycle)[name]
    assert len(empty) == 0
    assert len(full) > 0
    pd.testing.assert_series_equal(empty.dtypes, full.dtypes)
    assert empty.index.names == full.index.names
    levels = range(empty.index.nlevels)
    assert [empty.index.get_level_values(level).dtype for level in levels] == [
        full.index.get_level_values(level).dtype for level in levels
    ]
    pd.testing.assert_frame_equal(pd.concat([empty, full]), full)


def test_types_are_real_ones(lifecycle: Lifecycle) -> None:
    jobs = jobs_of(lifecycle)
    assert jobs.index.name == "job_id"
    for name in ("queued_at", "started_at", "completed_at"):
        assert jobs.dtypes[name] == pd.DatetimeTZDtype("ns", "UTC")
    for name in ("queue_time", "run_time"):
        assert jobs.dtypes[name] == "timedelta64[ns]"
    for name in ("query_type", "runtime_id", "query", "error_message"):
        assert jobs.dtypes[name] == "str"
    assert jobs.dtypes["result_size"] == "Int64"


def test_statuses_are_ordered_and_outcomes_missing_until_a_job_is_done(lifecycle: Lifecycle) -> None:
    jobs = jobs_of(lifecycle)
    assert list(jobs["status"].cat.categories) == ["queued", "running", "succeeded", "failed"]
    assert jobs["status"].cat.ordered
    assert list(jobs["status"]) == ["succeeded", "succeeded", "failed", "running", "queued"]
    assert list(jobs["status"] < "succeeded") == [False, False, False, True, True]
    assert list(jobs["outcome"].cat.categories) == ["ok", "function error", "failed"]
    assert list(jobs["outcome"].astype(object).fillna("none")) == ["ok", "function error", "failed", "none", "none"]


def test_a_job_row_says_what_the_record_says(lifecycle: Lifecycle) -> None:
    jobs = jobs_of(lifecycle)
    assert list(jobs.index) == [job.job_id for job in lifecycle.jobs()]
    assert list(jobs["source"]) == ["runtime-direct"] * 3 + ["contour-async", "runtime-direct"]
    assert list(jobs["query"]) == ['{"x":1}', '{"x":1}', "null", "[1]", "{}"]
    assert list(jobs["result_size"].fillna(-1)) == [1, 26, -1, -1, -1]
    assert list(jobs["error_message"].fillna("none")) == ["none", "none", "by hand", "none", "none"]
    assert list(jobs["deployed_app_rid"].fillna("none")) == ["none"] * 3 + [RID, "none"]
    assert jobs["branch"].iloc[3] == "master"


def test_jobs_are_in_the_order_of_submission_whichever_runtime_has_them() -> None:
    state = Lifecycle()
    for name in ("a", "b"):
        state.open_session(name)
    order = random.Random(1).choices("ab", k=50)
    ids = [state.submit(name, "f", b"{}").job_id for name in order]
    assert [job.job_id for job in state.jobs()] != ids
    assert list(jobs_of(state).index) == ids


def test_times_count_up_to_now_and_stop_when_the_job_is_done(clock: Clock) -> None:
    state = Lifecycle(clock=clock, monotonic=clock)
    state.open_session("a")
    job = state.submit("a", "f", b"{}")

    def row(now: int) -> tuple[pd.Timedelta, pd.Timedelta]:
        frame = jobs_of(state, now)
        return frame["queue_time"].iloc[0], frame["run_time"].iloc[0]

    assert row(clock.forward(2))[0] == pd.Timedelta(seconds=2)
    assert pd.isna(row(clock.now)[1])
    state.take("a")
    assert row(clock.forward(3)) == (pd.Timedelta(seconds=2), pd.Timedelta(seconds=3))
    state.finish("a", job.job_id, b"1")
    assert row(clock.forward(60)) == (pd.Timedelta(seconds=2), pd.Timedelta(seconds=3))
    assert jobs_of(state)["completed_at"].iloc[0] == pd.Timestamp(START + 5 * SECOND, tz="UTC")


def test_a_job_that_failed_in_the_queue_waited_and_never_ran(clock: Clock) -> None:
    state = Lifecycle(clock=clock, monotonic=clock)
    state.open_session("a")
    job = state.submit("a", "f", b"{}")
    clock.forward(4)
    state.fail(job.job_id, "why not")
    row = jobs_of(state, clock.forward(60)).iloc[0]
    assert row["queue_time"] == pd.Timedelta(seconds=4)
    assert pd.isna(row["run_time"])


def test_a_clock_that_was_set_back_makes_no_negative_time(lifecycle: Lifecycle) -> None:
    jobs = jobs_of(lifecycle, START - 60 * SECOND)
    assert (jobs[["queue_time", "run_time"]].min() == pd.Timedelta(0)).all()


def test_nanoseconds_survive() -> None:
    job = Job(
        "j", 1, "a", "f", b"{}", JobSource.RUNTIME_DIRECT, START + 1, status=JobStatus.RUNNING, started_at=START + 4
    )
    row = frames.jobs_frame([job], START).iloc[0]
    assert row["queue_time"] == pd.Timedelta(3, "ns")
    assert row["queued_at"].value == START + 1


# Runtimes, schemas, apps, events


def act_at_random(state: Lifecycle, chance: random.Random) -> None:
    """Do one thing that changes the counts."""
    name = chance.choice("abc")
    match chance.randrange(8):
        case 0:
            state.open_session(name, chance.choice([None, "ri.1", "ri.2"]), chance.choice([None, "dev"]))
        case 1:
            state.post_schemas(name, [(chance.choice("fgh"), b"{}")])
        case 2 | 3 | 4:
            state.submit(name, "f", b"{}")
        case 5 | 6:
            job = state.take(name)
            if job and chance.random() < 0.6:
                state.finish(name, job.job_id, chance.choice([b"1", b'{"error": "no"}', b'{"error": 1}']))
        case _:
            unfinished = [job for job in state.jobs() if not job.finished]
            if unfinished:
                state.fail(chance.choice(unfinished).job_id, "chance")


@pytest.mark.parametrize("seed", range(20))
def test_the_counts_of_runtimes_are_what_counting_by_hand_gives(seed: int) -> None:
    chance = random.Random(seed)
    state = Lifecycle()
    for name in "abc":
        state.open_session(name)
    for _ in range(chance.randrange(80)):
        act_at_random(state, chance)
    frame = all_frames(state)["runtimes"]
    assert list(frame.index) == ["a", "b", "c"]
    for name in frame.index:
        by_state = Counter(job.outcome or job.status for job in state.jobs(name))
        assert {each: frame.loc[name, column_of(each)] for each in STATES} == {each: by_state[each] for each in STATES}
        assert frame.loc[name, "functions"] == len(state.schemas(name))
        bound = [f"{app.deployed_app_rid} ({app.branch})" for app in state.deployed_apps() if app.runtime_id == name]
        assert frame.loc[name, "deployed_apps"] == ", ".join(bound)
        assert frame.loc[name, "connected"] == state.runtime(name).connected


def test_a_runtime_that_never_polled_has_no_time_of_its_last_poll(lifecycle: Lifecycle) -> None:
    frame = all_frames(lifecycle)["runtimes"]
    assert frame.loc["a", "last_poll_at"] == pd.Timestamp(START, tz="UTC")
    assert frame.loc["b", ["last_poll_at", "last_schema_post_at"]].isna().all()
    assert frame.loc["a", "display_name"] == "The first"


def test_schemas_and_apps_are_found_by_their_two_keys(lifecycle: Lifecycle) -> None:
    found = all_frames(lifecycle)
    assert found["schemas"].loc[("a", "f"), "schema_payload"] == '{"name":"f"}'
    assert found["deployed_apps"].loc[(RID, "master"), "runtime_id"] == "a"


def test_events_are_indexed_by_their_numbers_and_keep_an_unknown_kind(lifecycle: Lifecycle) -> None:
    lifecycle.note("of_the_future", "a", detail="kept")
    events = all_frames(lifecycle)["events"]
    assert events.index.name == "sequence"
    assert events.index.is_monotonic_increasing
    assert events.iloc[-1]["kind"] == "of_the_future"
    assert events.iloc[-1]["at"] == pd.Timestamp(START, tz="UTC")


def test_every_kind_of_event_that_happens_is_known_beforehand(lifecycle: Lifecycle) -> None:
    lifecycle.reset()
    assert {event.kind for event in lifecycle.events.recent(all=True)} <= set(KINDS)


# Whatever is in them


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_stays_as_it_is_but_for_what_cannot_be_written(text: str) -> None:
    written = text.encode(errors="replace").decode()
    job = Job("j", 1, "a", text, b"{}", JobSource.RUNTIME_DIRECT, START, status=JobStatus.FAILED, error_message=text)
    jobs = frames.jobs_frame([job], START)
    events = frames.events_frame([Event(1, START, "job_failed", "a", "j", text)])
    assert jobs["query_type"].iloc[0] == written
    assert jobs["error_message"].iloc[0] == written
    assert events["detail"].iloc[0] == written
    for frame in (jobs, events):
        assert frame.to_csv()
        assert frame.to_html().encode()


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "lone surrogate"])
def test_hostile_names_stay_as_they_are(name: str) -> None:
    text = f"x{HOSTILE[name]}x"[:MAX_LABEL_BYTES]
    runtime_id = text[:900]  # longer ones are refused
    state = Lifecycle()
    state.open_session(runtime_id, text, text, text)
    state.post_schemas(runtime_id, [(text, b"{}")])
    state.submit_to_app(text, text, "f", b"{}", JobSource.CONTOUR_SYNC)
    found = all_frames(state)
    assert list(found["runtimes"].index) == [runtime_id]
    assert found["runtimes"].loc[runtime_id, "display_name"] == text
    assert found["runtimes"].loc[runtime_id, "deployed_apps"] == f"{text} ({text})"
    assert list(found["schemas"].index) == [(runtime_id, text)]
    assert list(found["deployed_apps"].index) == [(text, text)]
    assert found["deployed_apps"]["display_name"].iloc[0] == text
    row = found["jobs"].iloc[0]
    assert [row["runtime_id"], row["deployed_app_rid"], row["branch"]] == [runtime_id, text, text]
    assert set(found["events"]["runtime_id"]) == {runtime_id}


def test_no_frame_has_a_whole_token(lifecycle: Lifecycle) -> None:
    token = lifecycle.runtime("a").module_auth_token
    found = all_frames(lifecycle)
    assert found["runtimes"].loc["a", "token"] == f"…{token[-4:]}"
    for frame in found.values():
        assert token not in frame.to_csv()


@pytest.mark.parametrize(
    ("token", "shown"), [("", "…"), ("abcd", "…"), ("elevenchars", "…"), ("twelve_chars", "…hars"), ("x" * 50, "…xxxx")]
)
def test_of_a_short_token_nothing_is_shown(token: str, shown: str) -> None:
    assert last_four(token) == shown


# Looked at while things happen


def busy(state: Lifecycle, enough: threading.Event) -> None:
    chance = random.Random(7)
    while not enough.is_set():
        for _ in range(chance.randrange(1, 5)):
            state.submit("a", "f", b"{}")
        while (job := state.take("a")) is not None:
            state.finish("a", job.job_id, b"1") if chance.random() < 0.9 else state.fail(job.job_id, "chance")
        if len(state.jobs("a")) > 500:
            state.open_session("a")


def check_snapshot(jobs: pd.DataFrame) -> None:
    done = jobs["status"] >= "succeeded"
    assert jobs["completed_at"].notna().equals(done)
    assert jobs["outcome"].notna().equals(done)
    assert jobs["started_at"].notna().equals(jobs["status"] != "queued")
    assert jobs["result_size"].notna().equals(jobs["status"] == "succeeded")
    assert jobs["queued_at"].is_monotonic_increasing
    assert jobs.index.is_unique


def test_a_frame_made_while_jobs_come_and_go_is_consistent() -> None:
    state, enough = Lifecycle(), threading.Event()
    state.open_session("a")
    worker = threading.Thread(target=busy, args=(state, enough))
    worker.start()
    seen: set[str] = set()
    try:
        while len(seen) < 1_000:
            jobs = jobs_of(state)
            check_snapshot(jobs)
            seen.update(jobs.index)
            all_frames(state)
    finally:
        enough.set()
        worker.join()


def test_a_hundred_thousand_jobs_become_a_frame() -> None:
    ends = {"status": JobStatus.SUCCEEDED, "started_at": START + 1, "completed_at": START + 3, "result": b"12"}
    done = replace(Job("", 0, "a", "", b"{}", JobSource.CONTOUR_SYNC, START), **ends)
    jobs = [
        replace(done, job_id=f"job-{number}", sequence=number, query_type=f"f{number % 7}") for number in range(100_000)
    ]
    frame = frames.jobs_frame(jobs[::-1], START)
    assert len(frame) == 100_000
    assert frame.index[0] == "job-0"
    assert frame.index[-1] == "job-99999"
    assert frame.loc["job-5000", "query_type"] == "f2"
    assert frame["run_time"].sum() == pd.Timedelta(200_000, "ns")
    assert frame["result_size"].sum() == 200_000
    assert frame["outcome"].value_counts()["ok"] == 100_000


# The emulator's own


@pytest.mark.parametrize(
    "look",
    [
        lambda emu: emu.jobs,
        lambda emu: emu.runtimes,
        lambda emu: emu.schemas,
        lambda emu: emu.deployed_apps,
        lambda emu: emu.events,
    ],
    ids=["jobs", "runtimes", "schemas", "deployed_apps", "events"],
)
def test_a_running_emulator_gives_every_frame(emu: Emulator, look: Callable[[Emulator], pd.DataFrame]) -> None:
    before = look(emu)
    runtime = emu.open_runtime("mine", RID)
    emu.change(lambda state: state.post_schemas("mine", [("f", b"{}")]))
    job = runtime.enqueue("f", {"x": 1})
    after = look(emu)
    assert set(after.index) - set(before.index)
    pd.testing.assert_series_equal(before.dtypes, after.dtypes)
    assert list(emu.jobs.index) == [job.id]
    assert (emu.jobs["queue_time"] > pd.Timedelta(0)).all()
