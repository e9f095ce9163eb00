"""The executors of functions in cells: no job ends one, and one that ends all the same is started again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import requests
from client import eventually

from cmemu_nb.errors import JobFailed, NotRunning
from cmemu_nb.lifecycle.records import NOTEBOOK_APP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmemu_nb import Emulator

LONG = "7" * 5_000
HUGE = "[-7E+99999999999999999999]"


@pytest.fixture
def emu(serve: Callable[..., Any]) -> Iterator[Emulator]:
    """An emulator that serves `echo`, which returns what it is given."""
    with serve(max_concurrent_tasks=2) as emulator:
        emulator.function(echo)
        yield emulator
        emulator.reset()


def echo(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001
    return event


def raw(text: str) -> Any:
    """Return JSON text as a query."""
    return msgspec.Raw(text.encode())


@pytest.mark.parametrize("query", [f'{{"x": {LONG}}}', f"-{LONG}"])
def test_a_query_that_the_sdk_cannot_read_fails_its_job_alone(emu: Emulator, query: str) -> None:
    """As many as there are slots, and more: the SDK only logs such a query, and its job never ends [foundry]."""
    jobs = [emu.submit("echo", raw(query)) for _ in range(5)]
    for job in jobs:
        with pytest.raises(JobFailed, match="could not be started: the official SDK can't read the query"):
            job.result(10)
    assert emu.call("echo", {"x": 1}, timeout=10) == {"x": 1}


def test_a_number_beyond_floats_is_infinity_to_a_function(emu: Emulator) -> None:
    """As the SDK reads it."""
    assert emu.submit("echo", raw('{"x": 1e400}')).raw(10) == b'{"x": Infinity}'


def test_a_thread_that_cannot_be_started_fails_its_job_alone(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python raises RuntimeError when the system gives no thread."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        jobs = [emu.submit("echo", {}) for _ in range(5)]
        for job in jobs:
            eventually(partial(getattr, job, "done"), "the job has ended")
    assert {job.record.error_message for job in jobs} == {
        "the job could not be started: RuntimeError: can't start new thread"
    }
    assert emu.functions["echo"].running == 0
    assert emu.call("echo", {"x": 1}, timeout=10) == {"x": 1}


def test_what_is_raised_when_a_result_is_posted_fails_its_job(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what no request is to raise."""
    from cmemu_nb.clients.runtime import RuntimeClient  # noqa: PLC0415

    async def break_down(*_: object) -> None:
        raise OSError("no buffer space")

    with monkeypatch.context() as patch:
        patch.setattr(RuntimeClient, "post_result", break_down)
        for _ in range(3):
            with pytest.raises(JobFailed, match="the result could not be posted: OSError: no buffer space"):
                emu.call("echo", {}, timeout=10)
    assert emu.call("echo", {"x": 1}, timeout=10) == {"x": 1}


@pytest.mark.parametrize("how", ["raises", "cancelled"])
def test_an_executor_that_ends_is_started_again_with_an_event(emu: Emulator, how: str) -> None:
    """Twice in a row, too, and all of its slots are there afterwards."""
    executor: Any = emu.functions.executor("notebook")

    async def end_it() -> None:
        if how == "cancelled":
            executor._polling.cancel()  # noqa: SLF001
        else:
            executor._takes_jobs = asyncio.Event  # noqa: SLF001 - whose methods raise without an instance
            emu.application.context.long_polls.end_polls()

    for _ in range(2):
        before = restarts(emu)
        healthy = executor._takes_jobs  # noqa: SLF001
        emu.home.run(end_it())
        eventually(partial(more_restarts, emu, before), "the event is there")
        executor._takes_jobs = healthy  # noqa: SLF001
        assert emu.call("echo", {"x": 1}, timeout=20) == {"x": 1}
    told = "it was cancelled" if how == "cancelled" else "TypeError: "
    assert f"the notebook's executor ended ({told}" in (restarts(emu)[0] or "")
    assert executor._slots._value >= 1  # noqa: SLF001 - the other is that of the poll


def more_restarts(emu: Emulator, before: list[str | None]) -> bool:
    """Tell whether an executor was started again since then."""
    return len(restarts(emu)) > len(before)


def restarts(emu: Emulator) -> list[str | None]:
    """Return what the events say of executors that were started again."""
    return [event.detail for event in emu.lifecycle.events.recent() if event.kind == "executor_restarted"]


def test_functions_that_are_served_and_removed_while_it_stops_and_starts_work_afterwards(serve: Any) -> None:
    """Whoever does so is told that it is stopped, or is done; no function is lost, and none is served twice."""
    with serve() as emu:
        emu.function(echo)
        change_while_it_stops(emu)
        assert emu.call("echo", {"x": 1}, timeout=20) == {"x": 1}
        assert restarts(emu) == []
        emu.reset()


def change_while_it_stops(emu: Emulator) -> None:
    """Stop and start ten times, beside threads that serve and remove functions."""
    stop = threading.Event()
    unexpected: list[BaseException] = []

    def change(name: str) -> None:
        function = FunctionType(echo.__code__, {}, name)
        while not stop.is_set():
            try:
                emu.function(function)
                emu.functions.remove(name)
            except NotRunning:
                stop.wait(0.001)
            except BaseException as error:  # noqa: BLE001 - shown below
                unexpected.append(error)

    threads = [threading.Thread(target=change, args=(f"f{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert emu.call("echo", {"x": 1}, timeout=20) == {"x": 1}
            emu.stop()
            emu.start()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not unexpected


@pytest.mark.once
@pytest.mark.parametrize("query", [f'{{"x": {LONG}}}', '{"x": 1e400}', f'[-{LONG}, 1e400, "{LONG}"]', HUGE])
def test_whatever_shows_a_job_takes_numbers_of_any_length(serve: Any, tmp_path: Path, query: str) -> None:
    """What Python's own JSON refuses to read or to write: results, frames, exports, and the command line, exactly."""
    with serve() as emu:
        emu.open_runtime("r", deployed_app_rid="ri.a")
        job = emu.submit("f", raw(query))
        emu.lifecycle.take("r")
        emu.change(lambda lifecycle: lifecycle.finish("r", job.id, query.encode(), "application/json"))
        values = [repr(job.result()), repr(emu.jobs.loc[job.id, "query"]), repr(next(iter(job.stream())))]
        assert all(any(part in value for part in ("777", "inf", "1e400", "-7E+")) for value in values), values
        assert job._repr_mimebundle_()
        assert emu.jobs._repr_html_()
        again = emu.from_export(emu.export(tmp_path / "run.json"))
        assert repr(again.job(job.id).result()) == repr(job.result())
        listed = command(emu, "jobs", "--json").replace("1E+400", "1e400")
        assert query in listed
        assert any(part in command(emu, "jobs", job.id) for part in (LONG[:100], "1E+400", HUGE[1:-1]))


def test_commands_show_jobs_as_deep_as_the_emulator_takes_them(serve: Any) -> None:
    with serve() as emu:
        runtime = emu.open_runtime("r", deployed_app_rid="ri.a")
        url, headers = f"{emu.url}/_emulate/foundry/compute-modules/runtimes/r", {"Module-Auth-Token": runtime.token}
        taken = 0
        for depth in range(930, 990, 4):
            job = f'{{"queryType": "f", "query": {"[" * depth}1e400{"]" * depth}}}'
            taken += requests.post(f"{url}/jobs", data=job, headers=headers, timeout=10).status_code == 200
        assert len(command(emu, "jobs").splitlines()) == taken + 1
        assert command(emu, "jobs", "--json").count("1E+400") == taken
        assert taken


def test_a_schema_with_a_number_beyond_decimals_stops_no_call_of_its_function(serve: Any) -> None:
    """Also the functions routes and the command line go on."""
    with serve() as emu:
        runtime = emu.open_runtime("r", deployed_app_rid="ri.a")
        schema = f'[{{"functionName": "f", "inputs": [], "more": {HUGE}}}]'
        url, headers = f"{emu.url}/_emulate/foundry/compute-modules/runtimes/r", {"Module-Auth-Token": runtime.token}
        requests.post(f"{url}/schemas", data=schema, headers=headers, timeout=10).raise_for_status()
        assert emu.submit("f", {}).status == "queued"
        path, bearer = f"{emu.url}/api/v2/functions/queries/f", {"Authorization": f"Bearer {emu.token}"}
        assert requests.get(path, headers=bearer, timeout=10).status_code == 200
        assert "f " in command(emu, "schemas")
        assert HUGE in command(emu, "schemas", "--json")


def test_integers_of_any_length_are_sent_and_come_back_exactly(serve: Any) -> None:
    """A runtime of another language may take them; what comes back is a number that shows itself."""
    with serve() as emu:
        emu.open_runtime("r", deployed_app_rid="ri.a")
        job = emu.submit("f", {"x": [10**5000, 1]})
        assert job.record.query.decode() == f'{{"x": [1{"0" * 5000}, 1]}}'
        emu.lifecycle.take("r")
        emu.change(lambda lifecycle: lifecycle.finish("r", job.id, LONG.encode(), "application/json"))
        result = job.result()
        assert repr(result) == LONG
        assert int(result) + 1 == 7 * (10**5000 - 1) // 9 + 1
        assert emu.submit("f", {"x": result}).record.query.decode() == f'{{"x": {LONG}}}'


def command(emu: Emulator, *arguments: str) -> str:
    """Return what `cmemu` prints."""
    environment = {**os.environ, "CMEMU_URL": emu.url, "CMEMU_TOKEN": str(emu.token)}
    words = [sys.executable, "-m", "cmemu_nb", *arguments]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_notebook_takes_its_app_back_from_a_session_that_was_opened_without_one(emu: Emulator) -> None:
    """Whoever opens the runtime's session resets it [page]; calls go on, and an app that was given stays alone."""
    url = f"{emu.url}/_emulate/foundry/compute-modules/runtimes"
    requests.post(url, json={"runtimeId": "notebook"}, timeout=10).raise_for_status()
    assert emu.call("echo", {"x": 1}, timeout=10) == {"x": 1}
    told = [event.detail for event in emu.lifecycle.events.recent() if event.kind == "app_bound"]
    assert told == [f"{NOTEBOOK_APP} on branch 'master'"] * 2
    requests.post(url, json={"runtimeId": "notebook", "deployedAppRid": "ri.b"}, timeout=10).raise_for_status()
    assert emu.call("echo", {"x": 1}, timeout=10) == {"x": 1}
    assert [app.deployed_app_rid for app in emu.lifecycle.deployed_apps()] == ["ri.b"]


def test_a_function_is_called_by_the_notebook_s_app_where_somebody_opened_the_session_before(serve: Any) -> None:
    """Without an app, before the first cell was run."""
    with serve() as emu:
        emu.open_runtime("notebook")
        emu.function(echo)
        assert emu.call("echo", {"x": 1}, timeout=10) == {"x": 1}
        emu.reset()


def test_a_protected_notebook_is_reset_by_who_has_a_token_only(serve: Any) -> None:
    """Other runtimes are opened as the page says, and so is one that is called notebook where there is none yet."""
    with serve(protect_notebook=True) as emu:
        url = f"{emu.url}/_emulate/foundry/compute-modules/runtimes"

        def opened(runtime_id: str = "notebook", **headers: str) -> requests.Response:
            return requests.post(url, json={"runtimeId": runtime_id}, headers=headers, timeout=10)

        token = opened().json()["moduleAuthToken"]
        emu.function(echo)
        for refused in (opened(), opened(" notebook "), opened(Authorization="Bearer x")):
            assert (refused.status_code, refused.json()["error"]) == (409, "notebook_protected")
        assert opened("other").status_code == 200
        assert opened(**{"Module-Auth-Token": token}).status_code == 200
        assert opened(**{"Module-Auth-Token": token}).status_code == 409
        assert opened(Authorization=f"Bearer {emu.token}").status_code == 200
        assert emu.call("echo", {"x": 1}, timeout=10) == {"x": 1}
        emu.reset()
