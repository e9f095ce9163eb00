"""Queue times, run times and percentiles: one definition of each, whichever place shows them."""

from __future__ import annotations

import json
import math
import random
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from cli_processes import run_here
from hypothesis import given
from hypothesis import strategies as st

from cmemu_nb.dashboard.activity import activity_of, figures, shortened
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.dashboard.functions import FunctionList
from cmemu_nb.dashboard.job_panels import job_row
from cmemu_nb.dashboard.summary import summary
from cmemu_nb.display.charts import latency_chart
from cmemu_nb.display.percentiles import percentile
from cmemu_nb.display.text import duration, short_id
from cmemu_nb.lifecycle.lifecycle import Lifecycle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from cmemu_nb import Emulator

NAMES = ("queue_time", "run_time")


def nearest_rank(values: list[int], percent: int) -> int:
    """Do as the textbook says."""
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


def shown(values: list[int]) -> list[str]:
    return [duration(nearest_rank(values, percent)) for percent in (50, 95)]


@pytest.fixture
def emu(serve_functions: Callable[..., Any]) -> Iterator[Emulator]:
    with serve_functions(max_concurrent_tasks=3) as emulator:
        yield emulator


@pytest.fixture
def mapped(emu: Emulator) -> pd.DataFrame:
    """A map over a function in a cell that takes 1 to 12 ms, and raises once."""

    def wait(context: object, event: dict[str, int]) -> int:  # noqa: ARG001
        time.sleep(event["ms"] / 1000)
        return 1 // (event["ms"] - 1)

    wait.__annotations__ = {}
    emu.function(wait)
    return emu.map("wait", [{"ms": ms} for ms in range(1, 13)], concurrency=3)


def test_every_place_shows_the_same_times_of_the_same_jobs(emu: Emulator, mapped: pd.DataFrame) -> None:
    jobs = emu.lifecycle.jobs()
    exact = {name: [getattr(job, name)() for job in jobs] for name in NAMES}
    for job in jobs:
        assert job.started_at is not None
        assert job.completed_at is not None
        # Measured with another clock than the times, but as long.
        times = (job.started_at - job.queued_at, job.completed_at - job.started_at)
        assert (job.queue_time(), job.run_time()) == (job.queue_clock, job.run_clock)
        assert times == pytest.approx((job.queue_clock, job.run_clock), abs=10**9)

    # Each job's own times.
    by_id = mapped.set_index("job_id")
    for name in NAMES:
        assert emu.jobs[name].astype("int64").to_list() == exact[name]
        assert by_id.loc[[job.job_id for job in jobs], name].astype("int64").to_list() == exact[name]
    now = emu.looked_at()
    saved = summary(emu)
    lines = {line.split()[-1]: line for line in run_here("jobs", "--url", emu.url).stdout.splitlines()}
    for job in jobs:
        both = (duration(job.queue_time()), duration(job.run_time()))
        row = job_row(job, now)
        assert (row["queue_time"], row["run_time"]) == both
        assert "  ".join(both) in re.sub("  +", "  ", lines[job.job_id])
        after_state = saved.partition(short_id(job.job_id))[0].rpartition("<tr>")[2]
        assert all(f">{each}<" in after_state for each in both)
    for line in run_here("jobs", "--json", "--url", emu.url).stdout.splitlines():
        record = json.loads(line)
        job = emu.job(record["job_id"]).record
        assert [round(record[name] * 1e6) for name in NAMES] == [job.queue_time(), job.run_time()]

    # Their percentiles.
    queue, run = shown(exact["queue_time"]), shown(exact["run_time"])
    assert [duration(emu.functions["wait"].percentile(percent)) for percent in (50, 95)] == run
    page = emu.functions._repr_mimebundle_()["text/html"]
    assert re.search(r">{}<.*>{}<".format(*run), page)
    [history] = FunctionList(emu).histories().values()
    assert [history["p50"], history["p95"]] == run
    chart = emu.latency().text
    assert "run time p50 {}, p95 {};".format(*run) in chart
    assert "queue time p50 {}, p95 {}.".format(*queue) in chart
    flow = flow_part(emu, figures([activity_of(jobs, now)], now, 0), now)
    assert list(flow["queue"].values()) == queue
    assert list(flow["run"].values()) == run


def test_what_counts_another_window_says_which(emu: Emulator, mapped: pd.DataFrame) -> None:
    assert len(mapped) == 12
    assert "run times of the last 1,000 jobs of each" in emu.functions._repr_mimebundle_()["text/html"]
    jobs = emu.lifecycle.newest_jobs(5)
    assert latency_chart(jobs, 12).text.startswith("Latency of the last 5 finished jobs: ")
    assert emu.latency().text.startswith("Latency of 12 finished jobs: ")


def test_the_calls_of_a_function_are_its_jobs_that_have_ended_whoever_ended_them(emu: Emulator) -> None:
    def never(context: object, event: object) -> None:
        pass

    never.__annotations__ = {}
    emu.function(never)
    emu.change(lambda state: state.fail(state.submit("notebook", "never", b"{}").job_id, "before anybody took it"))
    served = emu.functions["never"]
    assert (served.calls, served.errors, served.percentile(50)) == (1, 1, None)


@pytest.mark.parametrize(("values", "percent", "expected"), [([10, 200], 50, 10), ([10, 200], 95, 200), ([7], 1, 7)])
def test_a_percentile_is_a_value_that_was_measured(values: list[int], percent: int, expected: int) -> None:
    assert percentile(values, percent) == expected


@given(st.lists(st.integers(0, 10**12), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_nearest_rank(values: list[int], percent: int) -> None:
    assert percentile(sorted(values), percent) == nearest_rank(values, percent)
    assert percentile([], percent) is None


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_what_the_last_minute_leaves_out_of_a_time_is_never_shown(one: int, other: int) -> None:
    assert duration(shortened(one)) == duration(one)
    assert (shortened(one) <= shortened(other)) >= (one <= other)


def test_the_last_minute_shows_the_percentiles_of_a_plain_computation() -> None:
    chance, now = random.Random(3), 1_000_000 * 10**9
    clock = [now - 50 * 10**9]
    state = Lifecycle(clock=lambda: clock[0], monotonic=lambda: clock[0])
    state.open_session("r")
    for _ in range(500):
        state.submit("r", "f", b"{}")
        clock[0] += round(10 ** chance.uniform(3, 7.5))
        job = state.take("r")
        assert job is not None
        clock[0] += round(10 ** chance.uniform(3, 7.5))
        state.finish("r", job.job_id, b"1")
    jobs = state.jobs()
    found = figures([activity_of(jobs, now)], now, 0)
    times = {name: [getattr(job, name)() for job in jobs] for name in NAMES}
    assert [duration(found.queue_p50), duration(found.queue_p95)] == shown(times["queue_time"])
    assert [duration(found.run_p50), duration(found.run_p95)] == shown(times["run_time"])


def test_a_time_goes_on_until_it_has_ended_and_is_never_negative() -> None:
    clock = [100]
    state = Lifecycle(clock=lambda: clock[0], monotonic=lambda: clock[0])
    state.open_session("r")
    job_id = state.submit("r", "f", b"{}").job_id

    def times(now: int | None) -> tuple[int | None, int | None]:
        job = state.job(job_id)
        return job.queue_time(now), job.run_time(now)

    assert (times(None), times(130), times(90)) == ((None, None), (30, None), (0, None))
    clock[0] = 150
    state.take("r")
    assert (times(None), times(170)) == ((50, None), (50, 20))
    clock[0] = 190
    state.finish("r", job_id, b"1")
    assert times(None) == times(1_000) == (50, 40)
    failed = state.submit("r", "f", b"{}").job_id
    clock[0] = 200
    state.fail(failed, "why not")
    assert (state.job(failed).queue_time(), state.job(failed).run_time(1_000)) == (10, None)
