"""Why a job has no result yet: the sentence that every wait shows, for every kind of wait, and what ends it."""

from __future__ import annotations

import re
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from cells import make
from client import RID, Api, eventually
from journaled import process
from test_platform_routes import Client, token_of

from cmemu_nb import Emulator
from cmemu_nb.dashboard.job_detail import job_part
from cmemu_nb.errors import JobFailed, JobTimeout
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmemu_nb.calls.handles import JobHandle

WAIT = "def wait(context, event):\n    gate.wait()\n    return 'done'"


@pytest.fixture
def emu(serve_functions: Callable[..., Any]) -> Iterator[Emulator]:
    with serve_functions(max_concurrent_tasks=2) as emulator:
        yield emulator


def why(job: JobHandle) -> str:
    """Return what a timeout says of a job, with every duration as N s."""
    with pytest.raises(JobTimeout) as caught:
        job.result(timeout=0.001)
    again = re.escape(f"{job.expression}.result() waits for it again.")
    said = re.fullmatch(rf"Job '{job.id}' was not done within 0\.001 s\. (.*) {again}", str(caught.value))
    assert said, str(caught.value)
    return re.sub(r"[\d.]+ (ns|µs|ms|s)\b( ago)?|just now", "N s", said[1])


def cancels(job: JobHandle) -> str:
    return f'emu.job("{job.id[-6:]}").cancel()'


def run(emu: Emulator, name: str) -> JobHandle:
    """Submit a job and wait until it runs."""
    job = emu.submit(name)
    eventually(lambda: job.status == "running", f"{name} runs")
    return job


def test_a_job_behind_busy_workers_names_what_keeps_them_busy(emu: Emulator, gate: threading.Event) -> None:
    emu.function(make(WAIT, gate=gate))
    emu.function(make(WAIT.replace("wait(c", "other(c"), gate=gate))
    jobs = [run(emu, "wait"), run(emu, "wait"), emu.submit("other"), emu.submit("other")]
    ends = 'emu.cancel("wait") or %cmemu cancel wait ends them.'
    busy = f"both workers of 'notebook' are busy (2 x wait, longest N s); {ends}"
    assert why(jobs[2]) == f"'other' is queued behind 2 running jobs: {busy}"
    assert why(jobs[3]) == f"'other' is queued behind 2 running jobs and 1 queued job: {busy}"
    mine = (
        f"'wait' has been running for N s on a worker of 'notebook'; {cancels(jobs[0])} or %cmemu cancel wait ends it."
    )
    assert why(jobs[0]) == mine
    gate.set()
    assert [job.result() for job in jobs] == ["done"] * 4


def test_what_ends_a_job_works_as_it_is_written_where_no_variable_holds_the_job(
    emu: Emulator, gate: threading.Event
) -> None:
    emu.function(make(WAIT, gate=gate))
    with pytest.raises(JobTimeout) as caught:
        emu.call("wait", timeout=0.3, interrupt="leave")
    (job,) = emu.lifecycle.jobs()
    said = f"on a worker of 'notebook'; {cancels(emu.job(job.job_id))} or %cmemu cancel wait ends it."
    assert said in str(caught.value)
    assert str(caught.value).endswith(f'emu.job("{job.job_id[-6:]}").result() waits for it again.')
    assert eval(cancels(emu.job(job.job_id)), {"emu": emu}) is True
    assert emu.job(job.job_id).status == "failed"


def test_a_runtime_that_nobody_has_polled_says_how_to_start_its_executor(emu: Emulator) -> None:
    runtime = emu.open_runtime("r")
    job = runtime.enqueue("f")
    start = "emu.launch('python app.py', 'r') starts a program for it; @emu.runtime('r').function above a function "
    assert why(job) == f"'f' is queued, and nothing has polled 'r' for jobs yet. {start}serves that."
    emu.env("r")
    start = "Start its program with the environment that emu.env('r') gave."
    assert why(job) == f"'f' is queued, and nothing has polled 'r' for jobs yet. {start}"
    runtime.function(make("def f(context, event): return 1"))
    assert job.result(timeout=10) == 1


def test_an_executor_that_has_stopped_polling_is_named_with_its_last_poll(emu: Emulator) -> None:
    runtime = Api(emu.url, emu.token).open("r", RID)
    jobs = [emu.submit("f"), emu.submit("f")]
    runtime.take()
    on = "on the executor of 'r', which last polled N s"
    assert why(jobs[0]) == f"'f' has been running for N s {on}; {cancels(jobs[0])} or %cmemu cancel f ends it."
    silent = "and nothing polls 'r' now: the last poll was N s. Start its executor again if it has ended."
    assert why(jobs[1]) == f"'f' is queued behind 1 running job (1 x f, for N s), {silent}"
    runtime.post_result(jobs[0].id, b"1")
    assert why(jobs[1]) == f"'f' is queued, {silent}"


def test_faults_that_are_on_are_named(emu: Emulator) -> None:
    emu.function(make("def f(context, event): return 1"))
    with emu.faults(reject_poll=1.0):
        job = emu.submit("f")
        silent = "'f' is queued, and the executor of 'notebook' is free, but does not poll. emu.events may say why."
        eventually(
            lambda: why(job) == f"{silent} Faults are on, which may be the reason; emu.faults.off() ends them.",
            "it says so",
        )
    assert job.result(timeout=10) == 1


def test_a_module_says_that_it_starts_and_how_it_has_ended(emu: Emulator, tmp_path: Path) -> None:
    going = tmp_path / "going"
    program = "import os, sys, time\nprint('loading', flush=True)\n"
    program += f"while not os.path.exists({str(going)!r}): time.sleep(0.01)\nsys.exit('no weights')"
    module = emu.launch(["python", "-c", program], "app", restart=False)
    eventually(lambda: "loading" in module.logs.text, "it has said something")
    job = emu.submit("f")
    starting = "the module 'app' is starting and has not polled for jobs yet; the last line that it wrote is"
    assert why(job) == f"'f' is queued: {starting} 'loading'."
    going.touch()
    eventually(lambda: module.ended, "the program has ended")
    again = 'emu.modules["app"].logs has every line, emu.modules["app"].restart() starts it again.'
    assert why(job) == f"'f' is queued: the module 'app' exited (1): its last line was 'no weights'. {again}"
    module.stop()
    assert why(job) == "'f' is queued: the module 'app' was stopped. emu.modules[\"app\"].restart() starts it again."


def test_replicas_that_are_busy_or_have_fallen_silent_are_named(emu: Emulator) -> None:
    emu.open_runtime("real", RID)
    client, jobs = Client(emu, token_of(emu.env("real"))), [emu.submit("f"), emu.submit("f")]
    assert client.take() == jobs[0].id
    ran = f"'f' has been running for N s on replica '{jobs[0].record.replica_id}' of 'real'"
    assert why(jobs[0]) == f"{ran}; {cancels(jobs[0])} or %cmemu cancel f ends it."
    busy = f"the only replica of 'real' is busy (1 x f, for N s); {cancels(jobs[0])} or %cmemu cancel f ends it."
    assert why(jobs[1]) == f"'f' is queued behind 1 running job: {busy} The last poll was N s."
    client.post(jobs[0].id, b"1")
    silent = "no replica of 'real' polls for jobs now: the last poll was N s. Start its program again, if it hangs."
    assert why(jobs[1]) == f"'f' is queued, and {silent}"


def test_after_a_restart_with_a_journal_the_cells_have_to_run_again(tmp_path: Path) -> None:
    serve = """
        def dbl(context, event):
            return 2
        emu.function(dbl)
        emu.open_runtime("app", "ri.app").function(dbl)
        emu.home.run(emu.functions.stopping("the test has stopped them"))
        emu.runtime("notebook").enqueue("dbl"), emu.runtime("app").enqueue("dbl")
        answer = None
    """
    wait = """
        answer = []
        for each in emu.lifecycle.jobs():
            try:
                emu.job(each.job_id).result(timeout=0)
            except TimeoutError as late:
                answer.append(str(late))
    """
    with process(tmp_path / "journal.db") as first:
        first.run(textwrap.dedent(serve))
        first.kill()
    with process(tmp_path / "journal.db") as second:
        dbl, app = second.run(textwrap.dedent(wait))
        second.stop()
    assert "'dbl' is queued, and nothing polls 'notebook': run the cell that defines 'dbl' again." in dbl
    again = "start its program again, or run the cell that defines 'dbl' again."
    assert f"'dbl' is queued, and nothing has polled 'app' since the emulator was started: {again}" in app


def test_whoever_waits_for_a_job_that_goes_with_its_session_is_told_so(emu: Emulator) -> None:
    for end, was in ((lambda: emu.open_runtime("r", RID), "reset"), (lambda: emu.runtime("r").delete(), "deleted")):
        emu.open_runtime("r", RID)
        job = emu.submit("f")
        with ThreadPoolExecutor(2) as pool:
            waiting, streaming = pool.submit(job.result), pool.submit(lambda job: list(job.stream()), job)
            eventually(lambda: emu.application.context.waiters == 2, "both wait")
            end()
        said = f"Job '{job.id}' does not exist any more. "
        said += f"It was discarded when the session of 'r' was {was}. Submit it again."
        for result in (waiting.result, streaming.result, job.result):
            with pytest.raises(JobFailed, match=re.escape(said)):
                result()


def test_the_result_of_a_job_that_finished_and_went_with_its_session_is_a_clear_failure(emu: Emulator) -> None:
    runtime = emu.open_runtime("r", RID)
    runtime.function(make("def f(context, event):\n    return 1"))
    job = emu.submit("f")
    eventually(job.done, "the job is done")
    runtime.delete()
    with pytest.raises(JobFailed, match="Its runtime's session was reset or deleted before its result was read"):
        job.result()


def test_a_synchronous_execute_that_is_late_says_why_after_its_usual_sentence(serve: Callable[..., Any]) -> None:
    with serve(execute_timeout=0.01) as emu:
        emu.open_runtime("r", RID)
        said = Api(emu.url, emu.token).execute().json()["error_description"]
        (job,) = emu.lifecycle.jobs()
        begins = f"Timed out waiting for compute-module job '{job.job_id}'. "
        assert said.startswith(f"{begins}'f' is queued, and nothing has polled 'r' for jobs yet.")


def test_the_dashboard_and_the_job_s_card_say_the_same(emu: Emulator, tmp_path: Path) -> None:
    emu.open_runtime("r", RID)
    job = emu.submit("f")
    now = job.record.queued_at
    assert job_part(emu, job.id, now)["diagnosis"] == ""
    assert job_part(emu, job.id, now + 3 * NS_PER_S)["diagnosis"] == job.diagnosis
    assert job.diagnosis in job._repr_mimebundle_()["text/plain"]
    exported = Emulator.from_export(emu.export(tmp_path / "run.json"))
    assert exported.job(job.id).diagnosis == "'f' was queued when the session was exported."
    job.cancel()
    assert job_part(emu, job.id, now + 3 * NS_PER_S)["diagnosis"] == ""


def test_a_tool_asks_why_a_job_has_no_result(emu: Emulator) -> None:
    api = Api(emu.url, emu.token)
    emu.open_runtime("r", RID)
    job = emu.submit("f")

    def ask(job_id: str) -> tuple[int, dict[str, str]]:
        answer = api.contour("GET", f"/_emulate/jobs/{job_id}/diagnosis")
        return answer.status_code, answer.json()

    queued = "'f' is queued, and nothing has polled 'r' for jobs yet."
    assert job.diagnosis.startswith(f"{queued} emu.launch(")
    said = f"{queued} Start its program with the environment that this prints: cmemu env r."
    assert ask(job.id) == (200, {"job_id": job.id, "kind": "no_executor", "sentence": said, "explanation": None})
    done = emu.submit("f")
    emu.change(lambda lifecycle: lifecycle.fail(done.id, "it is not wanted"))
    assert ask(done.id)[1]["kind"] == "finished"
    emu.runtime("r").reset()
    assert ask(job.id)[1]["kind"] == "cleared"
    assert ask("nobody-s")[1]["error"] == "not_found"
    assert api.send("GET", f"/_emulate/jobs/{job.id}/diagnosis").status_code == 401
