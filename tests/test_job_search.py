"""The last characters of an id, a handle, a record or a variable mean a job, wherever an id is taken."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from cli_processes import run_here
from shells import plain_shell

from cmemu_nb import Emulator
from cmemu_nb.dashboard.job_list import JobFilter, JobList
from cmemu_nb.errors import InvalidRequest, JobEvicted, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.calls.handles import JobHandle


@pytest.fixture
def emu() -> Iterator[Emulator]:
    with Emulator(port=0, tls_port=0, home="thread") as emulator:
        emulator.open_runtime("r", deployed_app_rid="ri.app")
        yield emulator


@pytest.fixture
def job(emu: Emulator) -> JobHandle:
    job, _ = [emu.submit(name, {"x": 1}) for name in ("add", "other")]
    return job


def two_that_end_alike(emu: Emulator) -> tuple[str, list[str]]:
    """Submit so many jobs that the ids of some end in the same four characters; returns these and two such ids."""
    ids = emu.change(lambda state: [state.submit("r", "many", b"{}").job_id for _ in range(1500)])
    (ending, count), *_ = Counter(job_id[-4:] for job_id in ids).most_common(1)
    assert count > 1
    return ending, [job_id for job_id in ids if job_id.endswith(ending)]


def test_a_job_is_found_by_the_end_of_its_id_and_by_itself(emu: Emulator, job: JobHandle) -> None:
    short = job.id[-6:]
    for meant in (job.id, short, job.id[-4:], f"…{short}", f" ...{short}\n", job, job.record):
        assert emu.job(meant).id == job.id
    assert emu.job(job).record.query_type == "add"


def test_an_unknown_id_shows_the_newest_jobs(emu: Emulator, job: JobHandle) -> None:
    listed = rf"The newest: foundry_job_\w{{32}} \('other', queued, just now\), {job.id} \('add', queued, just now\)\."
    with pytest.raises(NotFound, match=rf"There is no job 'nobody'.*{listed}"):
        emu.job("nobody")
    with pytest.raises(NotFound, match=rf"There is no job '{job.id[-3:]}'.*at least 4 characters.*{listed}"):
        emu.job(job.id[-3:])
    with pytest.raises(NotFound, match=rf"There is no job 'foundry_job_0{{32}}': the id was never issued.*{listed}"):
        emu.job("foundry_job_" + "0" * 32)
    with pytest.raises(InvalidRequest, match=r"17 is not a job\. Give a job's id as text, or the job itself\."):
        emu.job(17)  # type: ignore[arg-type]
    emu.reset()
    with pytest.raises(NotFound, match=r"There are no jobs yet\."):
        emu.job("nobody")


def test_several_ids_that_end_alike_are_listed(emu: Emulator) -> None:
    ending, alike = two_that_end_alike(emu)
    with pytest.raises(InvalidRequest) as refused:
        emu.job(ending)
    said = str(refused.value)
    assert said.startswith(f"{len(alike)} jobs have ids that end in '{ending}': {alike[-1]} ('many', queued, ")
    assert all(job_id in said for job_id in alike[-5:])
    assert said.endswith(" Give more of the id.")
    assert emu.job(alike[0][-12:]).id == alike[0]


def test_a_job_that_was_let_go_is_said_to_be(emu: Emulator, job: JobHandle) -> None:
    job.fail("by hand")
    emu.change(lambda state: state.evict(0, 0, 10))
    with pytest.raises(JobEvicted, match="was evicted to make room"):
        emu.job(job.id)


def test_jobs_are_cancelled_by_the_end_of_an_id_or_by_their_function(emu: Emulator, job: JobHandle) -> None:
    assert emu.cancel(job.id[-6:]) == 1
    assert (job.status, emu.cancel(job), emu.cancel(job.record)) == ("failed", 0, 0)
    with pytest.raises(NotFound, match=r"no job or function 'othr'\. Did you mean 'other'\? Known functions with unf"):
        emu.cancel("othr")
    assert emu.cancel("other") == 1
    ending, alike = two_that_end_alike(emu)
    with pytest.raises(InvalidRequest, match=f"{len(alike)} jobs have ids that end in"):
        emu.cancel(ending)
    # A function's name comes first, whatever ids end in.
    emu.submit(ending)
    assert emu.cancel(ending) == 1


def test_magics_take_the_end_of_an_id_or_a_variable(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    with plain_shell(tmp_path_factory.mktemp("ipython")) as shell:

        def run(code: str) -> str:
            capsys.readouterr()
            shell.run_cell(code)
            captured = capsys.readouterr()
            return captured.out + captured.err

        run("%load_ext cmemu_nb\n%cmemu start --port 0 --tls-port 0")
        run("@emu.function\ndef say(context, event):\n    print('said')")
        run("job = emu.submit('say')\njob.result()\nrecord, short = job.record, job.id[-6:]")
        short = shell.user_ns["short"]
        for meant in ("job", "record", short, f"…{short}"):
            assert run(f"%cmemu logs {meant}") == "said\n\n"
        assert "UsageError: %cmemu logs: There is no job 'nobody'" in run("%cmemu logs nobody")
        run("rt = emu.open_runtime('r')\nqueued = [rt.enqueue('f') for _ in range(3)]\nfirst, second, third = queued")
        assert run("%cmemu cancel first") == "Cancelled 1 job.\n"
        assert "failed" in run(f"%cmemu fail {shell.user_ns['second'].id[-6:]} it must")
        assert shell.user_ns["second"].record.error_message == "it must"
        assert run(f"%cmemu cancel {shell.user_ns['third'].id[-4:]}") == "Cancelled 1 job.\n"
        assert "There is no runtime 'notebok'. Did you mean 'notebook'?" in run("%cmemu jobs --runtime notebok")
        assert "There is no function 'sa'. Did you mean 'say'? Known functions: 'f', 'say'." in run(
            "%cmemu jobs --function sa"
        )
        assert "%cmemu has no command 'job'. Did you mean 'jobs'?" in run("%cmemu job")
        run("%unload_ext cmemu_nb")


def test_the_command_line_shows_one_job_by_the_end_of_its_id(emu: Emulator, job: JobHandle) -> None:
    def show(*arguments: str) -> tuple[int, str]:
        done = run_here("jobs", *arguments, "--url", emu.url, "--token", str(emu.token))
        return done.returncode, done.stdout + done.stderr

    waiting = show(job.id[-6:])[1]
    words = " ".join(waiting.partition("diagnosis")[2].split())
    assert words.startswith(job.diagnosis.partition(" emu.launch(")[0])
    assert words.endswith("cmemu env r.")
    job.fail("one line\nand another")
    code, said = show(job.id[-6:])
    assert "diagnosis" not in said
    assert code == 0
    assert said.splitlines()[0].split() == ["JOB", job.id.upper()]
    assert re.search(r"^state +failed$", said, re.MULTILINE)
    assert re.search(r'^query +\{"x": ?1\}$', said, re.MULTILINE)
    assert re.search(r"^result +one line\n +and another$", said, re.MULTILINE)
    assert show(f"…{job.id[-6:]}", "--json")[1].count('"job_id"') == 1
    code, said = show("nobody")
    assert (code, "There is no job 'nobody'" in said, f"{job.id} ('add', failed, " in said) == (5, True, True)
    code, said = show("abc")
    assert (code, "at least the last 4 characters" in said) == (2, True)
    ending, alike = two_that_end_alike(emu)
    code, said = show(ending)
    assert (code, said.startswith(f"cmemu jobs: {len(alike)} jobs have ids that end in '{ending}': ")) == (2, True)


@pytest.mark.parametrize("text", ["{}", "…{}"])
def test_the_dashboard_finds_a_job_by_the_short_id_that_it_shows(emu: Emulator, job: JobHandle, text: str) -> None:
    found = JobList(emu.lifecycle, JobFilter(text=text.format(job.id[-6:])))
    assert [each.job_id for each in found.newest(9)] == [job.id]


def test_an_unknown_runtime_or_function_is_answered_with_the_closest_name(emu: Emulator) -> None:
    emu.open_runtime("orders", "ri.orders", "dev")
    with pytest.raises(
        NotFound, match=r"There is no runtime 'order'\. Did you mean 'orders'\? Known runtimes: 'orders'"
    ):
        emu.runtime("order")
    emu.change(lambda state: state.post_schemas("r", [("total", b"{}")]))
    with pytest.raises(
        NotFound, match=r"no schema of function 'totl'\. Did you mean 'total'\? Known functions: 'total'"
    ):
        emu.change(lambda state: state.delete_schema("r", "totl"))
    with pytest.raises(
        NotFound, match=r"bound to 'ri\.ordrs'\. Did you mean 'ri\.orders'\? Known deployed apps: 'ri\.app'"
    ):
        emu.call("total", {}, "ri.ordrs")
    with pytest.raises(NotFound, match=r"is bound to 'ri\.orders'\. Known branches: 'dev'\."):
        emu.call("total", {}, "ri.orders", "main")
    with pytest.raises(NotFound, match=r"No function 'total' is served on runtime 'r'\."):
        emu.functions.remove("total", "r")
