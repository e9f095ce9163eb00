"""The wall clock is set while an emulator runs: times follow it, and durations and time limits don't notice."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from client import RID, Api, Runtime, eventually
from conftest import TOKEN, serving

from cmemu_nb import Emulator
from cmemu_nb.dashboard.activity import Activity, activity_of, figures
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.dashboard.job_detail import job_part
from cmemu_nb.dashboard.job_panels import job_row
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.dashboard.summary import summary
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.records import NS_PER_S, Job, JobStatus

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3600 * NS_PER_S
REAL = time.time_ns


class Clock:
    """The wall clock of this process, `ahead` nanoseconds ahead of the machine's."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return REAL() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time_ns", clock)
    return clock


def near(at: int | None, expected: int) -> bool:
    return at is not None and abs(at - expected) < 60 * NS_PER_S


def run(runtime: Runtime, clock: Clock, *ahead: int) -> str:
    """Run a job, with the clock so far ahead when it is queued, taken and finished."""
    clock.ahead = ahead[0]
    job_id = runtime.submit()
    clock.ahead = ahead[1]
    assert runtime.take_id() == job_id
    clock.ahead = ahead[2]
    runtime.post_result(job_id, b"1")
    return job_id


def check_durations(jobs: list[Job], steady: int) -> None:
    """Check that the durations of jobs of this minute are no more than that, and never negative."""
    for job in jobs:
        for name in ("queue_time", "run_time"):
            found = getattr(job, name)(steady)
            assert found is None or 0 <= found < 60 * NS_PER_S, (name, found, job)


def look_at_everything(emulator: Emulator) -> None:
    """Make every view; the durations in them are those of a minute."""
    check_durations(emulator.lifecycle.jobs(), emulator.steady_at())
    frame = emulator.jobs
    for name in ("queue_time", "run_time"):
        assert frame[name].dropna().between(pd.Timedelta(0), pd.Timedelta("60s")).all()
    assert list(frame["queue_time"].isna()) == [False] * len(frame)
    words = [emulator.timeline().svg, emulator.latency().svg, str(summary(emulator))]
    for job in emulator.lifecycle.jobs():
        row = job_row(job, emulator.steady_at())
        words += [row["queue_time"], row["run_time"], str(job_part(emulator, job.job_id, emulator.steady_at()))]
        words.append(str(emulator.job(job.job_id)._repr_mimebundle_()))
    now = emulator.looked_at()
    flow = flow_part(emulator, figures([activity_of(emulator.lifecycle.jobs(), now)], now, now), now)
    assert flow["facts"]["uptime"].endswith((" s", "ms"))
    words += [str(flow), str(runtimes_part(emulator, now)), str(emulator.events), str(emulator._repr_mimebundle_())]
    for durations in ("1 h", "59 min", "2 h", "1 d"):
        assert not any(f" {durations}" in each for each in words if "ago" not in each)


def test_durations_are_right_and_later_times_follow_whatever_the_clock_does(clock: Clock, tmp_path: Path) -> None:
    with serving() as emulator:
        runtime = Api(emulator.url, TOKEN).open("r", RID)
        for ahead in ((0, HOUR, 0), (HOUR, 0, HOUR), (0, 0, HOUR), (0, 0, -HOUR), (-HOUR, HOUR, 24 * HOUR), (0, 0, 0)):
            job = emulator.lifecycle.job(run(runtime, clock, *ahead))
            times = zip((job.queued_at, job.started_at, job.completed_at), ahead, strict=True)
            assert all(near(at, REAL() + each) for at, each in times)
            look_at_everything(emulator)
            answer = runtime.send("GET", f"{runtime.uri}/jobs?newest=true&limit=1").json()["jobs"][0]
            assert 0 <= answer["queue_time"] < 60_000
            assert 0 <= answer["run_time"] < 60_000
        # Some that are queued, taken, failed and given back meanwhile.
        clock.ahead = HOUR
        queued, running, failed = (runtime.submit() for _ in range(3))
        assert runtime.take_id() == queued
        emulator.change(lambda state: state.give_back(state.job(queued)))
        assert [runtime.take_id(), runtime.take_id()] == [queued, running]
        emulator.change(lambda state: state.give_back(state.job(queued)))
        for jump in (-HOUR, 0, 24 * HOUR, 0):
            clock.ahead = jump
            look_at_everything(emulator)
        emulator.job(failed).fail("why not")
        look_at_everything(emulator)
        emulator.lifecycle.note("request_refused")
        assert near(emulator.lifecycle.events.recent()[-1].at, REAL())
        clock.ahead = -2 * HOUR
        exported = emulator.export(tmp_path / "run.json")
        clock.ahead = 5 * HOUR
        again = Emulator.from_export(exported)
        look_at_everything_again(again, emulator)


def look_at_everything_again(again: Emulator, emulator: Emulator) -> None:
    check_durations(again.lifecycle.jobs(), again.steady_at())
    assert [job.queue_clock for job in again.lifecycle.jobs()] == [job.queue_clock for job in emulator.lifecycle.jobs()]
    assert again.jobs["queue_time"].max() < pd.Timedelta("60s")
    assert again.timeline().text.startswith("Timeline of 9 jobs")


def test_time_limits_are_not_those_of_the_wall_clock(clock: Clock) -> None:
    with serving(job_timeout=0.5) as emulator:
        runtime = Api(emulator.url, TOKEN).open("r", RID)
        clock.ahead = HOUR
        late = runtime.submit()
        runtime.take_id()
        clock.ahead = -HOUR
        eventually(lambda: emulator.lifecycle.job(late).finished, "the lease ran out")
        assert (emulator.lifecycle.job(late).run_time() or 0) >= NS_PER_S // 2
    with serving(job_timeout=60.0) as emulator:
        runtime = Api(emulator.url, TOKEN).open("r", RID)
        clock.ahead = 0
        job_id = runtime.submit()
        runtime.take_id()
        clock.ahead = 24 * HOUR
        # A start grants what is left of the lease.
        emulator.stop()
        emulator.start()
        assert runtime.post_result(job_id, b"1").status_code == 204
        assert emulator.lifecycle.job(job_id).status == JobStatus.SUCCEEDED


def test_exports_of_earlier_versions_have_the_durations_that_their_times_say(tmp_path: Path) -> None:
    state = Lifecycle()
    state.open_session("r")
    with Emulator(port=0, home="thread") as emulator:
        runtime = emulator.open_runtime("r")
        for _ in range(3):
            runtime.enqueue("f")
        taken = [emulator.change(lambda lifecycle: lifecycle.take("r")) for _ in range(2)]
        assert taken[0]
        done = taken[0].job_id
        emulator.change(lambda lifecycle: lifecycle.finish("r", done, b"1"))
        path = emulator.export(tmp_path / "run.json")
    document: dict[str, Any] = json.loads(path.read_text())
    del document["steady_at"]
    at = document["exported_at"]
    times: tuple[dict[str, int], ...] = (
        {"queued_at": at - 9, "started_at": at - 7, "completed_at": at - 2},
        {"queued_at": at - 8, "started_at": at - 3},
        {"queued_at": at - 5},
    )
    for job, each in zip(document["jobs"], times, strict=True):
        for name in ("queue_clock", "run_clock"):
            del job[name]
        job.update(each)
    path.write_text(json.dumps(document))
    again = Emulator.from_export(path)
    frame = again.jobs
    assert [each.value for each in frame["queue_time"]] == [2, 5, 5]
    assert [each.value for each in frame["run_time"][:2]] == [5, 3]
    assert pd.isna(frame["run_time"].iloc[2])
    assert again.timeline().text.startswith("Timeline of 3 jobs")


def test_the_last_minute_is_not_counted_again_when_the_clock_comes_back_there() -> None:
    state = Lifecycle()
    state.open_session("r")
    state.submit("r", "f", b"{}")
    job = state.take("r")
    assert job is not None
    done = state.finish("r", job.job_id, b"1")
    assert done.completed_at is not None
    activity = Activity()
    ahead, back = (record_at(done, done.completed_at + each) for each in (HOUR, 0))
    activity.add(ahead)
    activity.add(back)
    assert [second.at for second in activity.seconds()] == [done.completed_at // NS_PER_S]


def record_at(job: Job, at: int) -> Job:
    from msgspec.structs import replace  # noqa: PLC0415

    return replace(job, completed_at=at)


def test_durations_outlive_a_restart_with_a_journal(clock: Clock, tmp_path: Path) -> None:
    journal = str(tmp_path / "lifecycle.db")
    with serving(journal=journal) as emulator:
        runtime = Api(emulator.url, TOKEN).open("r", RID)
        done = emulator.lifecycle.job(run(runtime, clock, 0, HOUR, -HOUR))
        clock.ahead = 0
        running, queued = runtime.submit(), runtime.submit()
        runtime.take_id()
    for ahead in (0, -HOUR):
        clock.ahead = ahead
        with serving(journal=journal) as emulator:
            state = emulator.lifecycle
            assert state.job(done.job_id) == done
            assert 0 <= (state.job(running).run_time(state.steady()) or 0) < 60 * NS_PER_S
            assert 0 <= (state.job(queued).queue_time(state.steady()) or 0) < 60 * NS_PER_S
            look_at_everything(emulator)
    with serving(journal=journal) as emulator:
        emulator.change(lambda lifecycle: (lifecycle.finish("r", running, b"1"), lifecycle.take("r")))
        look_at_everything(emulator)
