"""`job_timeout`: a job that was taken and gets no result in time fails, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from client import RID, Api, eventually

from cmemu_nb import Emulator
from cmemu_nb.errors import JobFailed, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable

REASON = r"the job's lease ran out: no result within 0\.2 s \(job_timeout\)"


def test_a_job_without_a_result_fails_when_its_lease_runs_out(serve: Callable[..., Any]) -> None:
    with serve(job_timeout=0.2) as emulator:
        runtime = Api(emulator.url, emulator.token).open("r", RID)
        job = emulator.submit("f")
        runtime.take()
        with pytest.raises(JobFailed, match=REASON):
            job.result(timeout=10)
        assert runtime.post_result(job.id, "1").status_code == 409


def test_a_job_that_nobody_takes_waits_on(serve: Callable[..., Any]) -> None:
    with serve(job_timeout=0.2) as emulator:
        runtime = Api(emulator.url, emulator.token).open("r", RID)
        taken, waiting = emulator.submit("f"), emulator.submit("f")
        runtime.take()
        eventually(taken.done, "the first lease has run out")
        assert waiting.status == "queued"


def test_a_result_in_time_ends_the_lease(serve: Callable[..., Any]) -> None:
    with serve(job_timeout=0.2) as emulator:
        runtime = Api(emulator.url, emulator.token).open("r", RID)
        jobs = [emulator.submit("f"), emulator.submit("f")]
        runtime.take()
        assert runtime.post_result(jobs[0].id, "1").status_code == 204
        runtime.take()
        eventually(jobs[1].done, "the second lease has run out")
        assert [job.status for job in jobs] == ["succeeded", "failed"]


def test_without_the_setting_there_is_no_lease_and_a_wrong_one_is_refused() -> None:
    assert Emulator().settings.job_timeout is None
    with pytest.raises(SettingError):
        Emulator(job_timeout=-1)
    with pytest.raises(SettingError, match="must be a number of seconds"):
        Emulator(job_timeout=float("inf"))
