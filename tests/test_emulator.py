"""The object that people hold: starting, opening, submitting, calling, waiting, failing."""

from __future__ import annotations

import asyncio
import inspect
import math
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from client import RUNTIMES, SUBMIT, closed, error_code, eventually, free_port

from cmemu_nb import Emulator
from cmemu_nb.errors import (
    CmemuError,
    FunctionError,
    HomeError,
    InvalidRequest,
    JobAlreadyCompleted,
    JobFailed,
    JobTimeout,
    JournalError,
    NotFound,
    NotRunning,
    PortTakenWarning,
    QueueFull,
    ResultError,
    ResultWarning,
    SettingError,
)
from cmemu_nb.lifecycle.records import NOTEBOOK_APP
from cmemu_nb.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.calls.handles import JobHandle
    from cmemu_nb.lifecycle.events import Event

RID = "ri.foundry.main.deployed-app.my-app"
OPEN_FILES = Path("/proc/self/fd")


@contextmanager
def answering(emu: Emulator, result: bytes) -> Iterator[None]:
    """Take each job that is queued for any runtime, and answer it with the same bytes."""

    def answer(event: Event) -> None:
        if event.kind == "job_queued" and event.runtime_id is not None:
            job = emu.lifecycle.take(event.runtime_id)
            assert job is not None
            emu.lifecycle.finish(event.runtime_id, job.job_id, result)

    end = emu.on_event(answer)
    try:
        yield
    finally:
        end()


def double(_, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - the SDK can't read texts
    return int(event["x"] * 2)


def message(excinfo: pytest.ExceptionInfo[CmemuError]) -> str:
    return str(excinfo.value)


def test_call_returns_the_value(emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    with answering(emu, b'{"sum": 3}'):
        assert emu.call("add", {"x": 1, "y": 2}) == {"sum": 3}
        assert asyncio.run(emu.acall("add", {"x": 1})) == {"sum": 3}
    assert [job.query for job in emu.lifecycle.jobs()] == [b'{"x": 1, "y": 2}', b'{"x": 1}']


def test_a_job_handle_tells_how_its_job_goes(emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    job = emu.submit("add", [1])
    assert (job.status, job.outcome, job.done()) == ("queued", None, False)
    assert repr(job) == f"<Job {job.id} 'add' on 'r': queued>"
    emu.change(lambda state: state.take("r"))
    assert job.status == "running"
    emu.change(lambda state: state.finish("r", job.id, b"[2]"))
    assert (job.status, job.outcome, job.done(), job.raw(), job.result()) == ("succeeded", "ok", True, b"[2]", [2])
    assert repr(job).endswith("'r': ok>")


def test_a_job_handle_can_be_awaited(emu: Emulator) -> None:
    emu.open_runtime("r", RID)

    async def main() -> Any:
        return await (await emu.asubmit("add"))

    with answering(emu, b"5"):
        assert asyncio.run(main()) == 5


def test_a_result_is_waited_for_as_long_as_it_takes(emu: Emulator) -> None:
    runtime = emu.open_runtime("r", RID)
    job = runtime.enqueue("slow", {"a": 1})
    results: list[Any] = []
    waiting = threading.Thread(target=lambda: results.append(job.result()))
    waiting.start()
    emu.change(lambda state: state.take("r"))
    emu.change(lambda state: state.finish("r", job.id, b'"late"'))
    waiting.join()
    assert results == ["late"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"exception": "ZeroDivisionError: x"}', "ZeroDivisionError: x"),
        (b'{"error": "Unknown query type"}', "Unknown query type"),
        (b'{"error": "failed", "reason": "because"}', "failed: because"),
    ],
)
def test_a_function_that_raised_is_a_function_error(emu: Emulator, body: bytes, said: str) -> None:
    emu.open_runtime("r", RID)
    with answering(emu, body), pytest.raises(FunctionError) as excinfo:
        emu.call("f")
    assert message(excinfo) == said
    job = emu.job(emu.lifecycle.jobs()[0].job_id)
    assert (job.status, job.outcome, job.raw()) == ("succeeded", "function error", body)


def test_a_result_that_is_no_json_points_to_the_bytes(emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    with answering(emu, b"\xff\x00"), pytest.raises(ResultError, match=r"job\.raw\(\)"):
        emu.call("f")


def test_nan_is_given_with_a_warning_at_the_line_of_the_call(emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    with answering(emu, b'{"NaN": [1, -Infinity]}'), pytest.warns(ResultWarning, match="contains Infinity") as warned:
        assert emu.call("f") == {"NaN": [1, -math.inf]}
    assert warned[0].filename == __file__
    with answering(emu, b"NaN"), pytest.warns(ResultWarning, match="contains NaN.*InvalidQueryOutputValue"):
        assert math.isnan(asyncio.run(emu.acall("f")))
    with answering(emu, b"NaN"), pytest.warns(ResultWarning, match="contains NaN"):
        assert math.isnan(emu.map("f", [{}])["value"][0])


def test_a_failed_job_says_why(emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    job = emu.submit("f")
    job.fail("no longer wanted")
    with pytest.raises(JobFailed, match="no longer wanted"):
        job.result()
    assert job.outcome == "failed"
    with pytest.raises(JobAlreadyCompleted, match="it has failed already"):
        job.fail("again")


def test_a_timeout_leaves_the_job_as_it_is(emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    with pytest.raises(JobTimeout, match=r"was not done within 0\.01 s\. 'f' is queued, and nothing has polled 'r'"):
        emu.call("f", timeout=0.01)
    assert emu.lifecycle.jobs()[0].status == "queued"
    assert isinstance(JobTimeout(""), TimeoutError)


def test_a_job_whose_runtime_is_reset_fails_at_once(emu: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    emu.open_runtime("r", RID)
    job = emu.submit("f")
    errors: list[str] = []

    def wait() -> None:
        with pytest.raises(JobFailed) as excinfo:
            job.result()
        errors.append(message(excinfo))

    waiting = threading.Thread(target=wait)
    waiting.start()
    emu.open_runtime("r", RID)
    waiting.join()
    assert "reset" in errors[0]
    assert "discarded 1 job, 1 binding" in capsys.readouterr().out
    assert "removed" in repr(job)


def test_which_app_is_called_when_none_is_named(emu: Emulator) -> None:
    with pytest.raises(NotFound, match=r"emu\.open_runtime\("):
        emu.submit("f")
    emu.open_runtime("one", "ri.one")
    assert emu.submit("f").record.deployed_app_rid == "ri.one"
    emu.open_runtime("two", "ri.two", "dev")
    with pytest.raises(NotFound, match=r"deployed_app_rid='ri\.one' or 'ri\.two'"):
        emu.submit("f")
    assert emu.submit("f", deployed_app_rid="ri.two", branch="dev").record.runtime_id == "two"
    with pytest.raises(NotFound, match=r"No active compute-module runtime is bound to 'ri\.two'"):
        emu.submit("f", deployed_app_rid="ri.two", branch="nope")


def test_unknown_names_list_the_known_ones(emu: Emulator) -> None:
    with pytest.raises(NotFound, match="There are no runtimes yet"):
        emu.runtime("nope")
    emu.open_runtime("here")
    with pytest.raises(NotFound, match="Known runtimes: 'here'"):
        emu.runtime("nope")
    with pytest.raises(NotFound, match="never issued"):
        emu.job("nope")


@pytest.mark.parametrize("name", ["half \ud83d", "", "  ", 5, None])
def test_names_that_no_function_can_have(emu: Emulator, name: Any) -> None:
    runtime = emu.open_runtime("r", RID)
    for submit in (runtime.enqueue, emu.submit):
        with pytest.raises(InvalidRequest):
            submit(name)
    job = emu.submit("f")
    with pytest.raises(InvalidRequest, match="The reason must be text"):
        job.fail("half \ud83d")
    assert [each.status for each in emu.lifecycle.jobs()] == ["queued"]


@pytest.mark.parametrize("runtime_id", ["", "  ", ".", "..", "\ud800", "x" * 1001, 5, None])
def test_ids_that_no_runtime_can_have(emu: Emulator, runtime_id: Any) -> None:
    with pytest.raises(InvalidRequest, match="runtime id"):
        emu.open_runtime(runtime_id)
    assert emu.lifecycle.runtimes() == []


@pytest.mark.parametrize("query", [float("nan"), b"\xff", object()], ids=["nan", "bytes", "object"])
def test_queries_that_are_no_json(emu: Emulator, query: object) -> None:
    emu.open_runtime("r", RID)
    with pytest.raises(InvalidRequest, match="The query can't be sent as JSON"):
        emu.call("f", query)
    assert emu.lifecycle.jobs() == []


def test_a_runtime_handle_follows_its_session(emu: Emulator) -> None:
    runtime = emu.open_runtime("a/b", RID, display_name="My App")
    before = runtime.token
    assert runtime.get_job_uri == f"{emu.url}/_emulate/foundry/compute-modules/runtimes/a%2Fb/job"
    assert runtime.reset().token == runtime.token != before
    assert [(app.deployed_app_rid, app.branch) for app in emu.lifecycle.deployed_apps()] == [(RID, "master")]
    runtime.delete()
    with pytest.raises(NotFound, match="There is no runtime 'a/b'"):
        _ = runtime.token
    assert repr(runtime)


def test_a_listener_that_raises_becomes_an_event() -> None:
    with Emulator(port=0, home="thread") as emu:
        end = emu.on_event(lambda event: 1 // 0 if event.kind == "session_opened" else None)
        emu.open_runtime("r")
        failed = eventually(
            lambda: [event for event in emu.lifecycle.events.recent() if event.kind == "listener_failed"], "the failure"
        )
        assert "ZeroDivisionError" in (failed[0].detail or "")
        end()
        emu.open_runtime("s")
        emu.open_runtime("t")
        assert len([event for event in emu.lifecycle.events.recent() if event.kind == "listener_failed"]) == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_listeners_that_always_raise_do_not_feed_themselves(error: type[BaseException]) -> None:
    def boom(_: Event) -> None:
        raise error

    with Emulator(port=0, home="thread") as emu:
        emu.open_runtime("r", RID)
        for _ in range(2):
            emu.on_event(boom)
        with answering(emu, b"1"):
            assert emu.call("f") == 1
        failed = [event for event in emu.lifecycle.events.recent() if event.kind == "listener_failed"]
        others = [event for event in emu.lifecycle.events.recent(all=True) if event.kind != "listener_failed"]
        assert 0 < len(failed) <= 2 * len(others)


@pytest.mark.parametrize("listener", [None, 5])
def test_a_listener_must_be_callable(emu: Emulator, listener: Any) -> None:
    with pytest.raises(InvalidRequest, match="must be callable"):
        emu.on_event(listener)


def test_a_call_from_a_listener_leaves_asyncio_s_run_to_others(emu: Emulator) -> None:
    before, called = asyncio.run, threading.Event()

    def call(event: Event) -> None:
        if event.kind == "session_opened":
            emu.home.run(asyncio.sleep(0))
            called.set()

    emu.on_event(call)
    emu.open_runtime("r", RID)
    assert called.wait(30)
    assert asyncio.run is before


@pytest.mark.parametrize("timeout", ["x", float("nan"), -1])
def test_a_timeout_that_is_no_number_of_seconds(emu: Emulator, timeout: Any) -> None:
    emu.open_runtime("r", RID)
    with pytest.raises(InvalidRequest, match="The timeout must be a number of seconds"):
        emu.call("f", timeout=timeout)
    assert emu.lifecycle.jobs() == []


def test_an_async_context_manager_leaves_the_loop_to_others_while_it_stops() -> None:
    ticked, ran = threading.Event(), []

    async def main() -> Any:
        async with Emulator(port=0, home="thread") as emu:
            emu.open_runtime("r", RID)
            with answering(emu, b"3"):
                answer = await emu.acall("f")
            # At the events of its stop the emulator, in another thread, waits for this loop.
            emu.lifecycle.events.subscribe(lambda _: ran.append(ticked.wait(10)))
            asyncio.get_running_loop().call_later(0.001, ticked.set)
        assert not emu.running
        return answer

    assert asyncio.run(main()) == 3
    assert ran
    assert all(ran)


def test_starting_and_stopping_from_several_threads() -> None:
    before = set(threading.enumerate())
    emu = Emulator(port=0, home="thread")
    errors: list[BaseException] = []

    def again() -> None:
        try:
            for _ in range(10):
                emu.start()
                emu.stop()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    emu.stop()
    assert set(threading.enumerate()) == before


def test_a_callback_that_does_not_return_is_named_when_the_emulator_can_t_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cmemu_nb.eventloop.home.PATIENCE_SECONDS", 0.2)
    entered, leave = threading.Event(), threading.Event()

    def hold(_: Event) -> None:
        entered.set()
        leave.wait()

    with Emulator(port=0, home="thread") as emu:
        emu.on_event(hold)
        opening = threading.Thread(target=emu.open_runtime, args=("r",))
        opening.start()
        entered.wait()
        try:
            with pytest.raises(HomeError, match="an event callback has not returned"):
                emu.stop()
        finally:
            leave.set()
        opening.join()


def test_a_stopped_emulator_says_how_to_start_it_and_keeps_its_records() -> None:
    with Emulator(port=0, home="thread") as emu:
        emu.open_runtime("r", RID)
        job = emu.submit("f")
    for use in (lambda: emu.call("f"), lambda: emu.open_runtime("r"), emu.reset, job.result):
        with pytest.raises(NotRunning, match="not running"):
            use()
    assert job.status == "queued"
    assert "not running" in repr(emu)
    emu.stop()


def test_a_call_that_waits_ends_when_the_emulator_stops() -> None:
    emu = Emulator(port=0, home="thread").start()
    emu.open_runtime("r", RID)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            emu.call("f")
        except CmemuError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually(emu.lifecycle.jobs, "the job")
    emu.stop()
    waiting.join()
    assert [type(error) for error in errors] == [NotRunning]


def test_it_can_be_started_again() -> None:
    emu = Emulator(port=0, home="thread")
    for _ in range(3):
        with emu:
            emu.open_runtime("r", RID)
            with answering(emu, b"1"):
                assert emu.call("f") == 1
    assert len(emu.lifecycle.jobs()) == 1


def test_stopping_leaves_no_thread_and_no_port() -> None:
    before = set(threading.enumerate())
    with Emulator(port=0, home="thread") as emu:
        assert emu.start() is emu
        port = emu.port
    assert set(threading.enumerate()) == before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_that_another_emulator_of_the_process_has_is_named_so() -> None:
    with Emulator(port=0, home="thread") as first, pytest.warns(PortTakenWarning, match="emulator of this process"):
        Emulator(port=first.port, tls_port=0, home="thread").start().stop()


def test_one_that_was_stopped_starts_again_as_it_was_and_takes_other_settings() -> None:
    emu = Emulator(port=0, home="thread", execute_timeout=7)
    with emu:
        emu.open_runtime("r", RID)
        emu.function(double)
        before = (emu.url, emu.platform_url, emu.token, emu.submit("f", deployed_app_rid=RID).id)
        with pytest.raises(
            SettingError, match=r"only a start sets its execute_timeout and tokens\. Stop it first: emu\.stop\(\)"
        ):
            emu.start(execute_timeout=5, tokens=["mine"], host="127.0.0.1")
    with pytest.raises(SettingError, match=r"no\.such\.invalid"):
        emu.start(host="no.such.invalid", allow_remote=True, port=1)
    with emu.start():
        assert (emu.url, emu.platform_url, emu.token, emu.jobs.index[0]) == before
        assert emu.call("double", {"x": 4}, NOTEBOOK_APP) == 8
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with emu.start(port=port, token="mine", max_queued=1, keep_events=3):
        assert (emu.port, emu.token, len(emu.events), emu.settings.execute_timeout) == (port, "mine", 3, 7)
        with pytest.raises(QueueFull):
            emu.submit("f", deployed_app_rid=RID)


def test_a_journal_that_comes_later_takes_in_what_there_is(tmp_path: Path) -> None:
    emu = Emulator(port=0, home="thread")
    with emu:
        emu.open_runtime("r", RID, display_name="Mine")
        job, other = emu.submit("f", {"x": 1}), emu.submit("f", {"x": 2})
        emu.change(lambda state: state.take("r"))
        emu.change(lambda state: state.finish("r", job.id, b"[2]"))
        with pytest.raises(SettingError, match="only a start sets its journal"):
            emu.start(journal=str(tmp_path / "lifecycle.db"))
    with emu.start(journal=str(tmp_path / "lifecycle.db")):
        later = emu.submit("f", {"x": 3})
        url, token = emu.url, emu.token
    with Emulator(port=0, home="thread", journal=str(tmp_path / "lifecycle.db")) as again:
        assert (again.url, again.token) == (url, token)
        assert [(each.job_id, each.status) for each in again.lifecycle.jobs()] == [
            (job.id, "succeeded"),
            (other.id, "queued"),
            (later.id, "queued"),
        ]
        assert again.job(job.id).result() == [2]
        assert again.lifecycle.runtime("r").display_name == "Mine"
    with pytest.raises(JournalError, match="was used by another emulator since this one was stopped"):
        emu.start()
    with Emulator(port=0, home="thread") as third:
        third.stop()
        with pytest.raises(JournalError, match="has another emulator's records, and this one has its own"):
            third.start(journal=str(tmp_path / "lifecycle.db"))


def test_it_listens_on_each_loopback_address_of_a_name_of_this_machine(emu: Emulator) -> None:
    for address in ("127.0.0.1", "::1", "127.0.1.1"):
        socket.create_connection((address, emu.port)).close()


def test_a_port_that_is_taken_is_replaced_with_a_warning_that_names_both() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.warns(PortTakenWarning) as warned:
            emu = Emulator(port=port, tls_port=0, home="thread").start()
        with emu:
            assert emu.port != port
            assert all(str(number) in str(warned[0].message) for number in (port, emu.port))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prot": 1}, "There is no setting 'prot'. The settings are access_token_seconds, allow_remote,"),
        ({"port": 70000}, "port"),
        ({"port": "x"}, "port"),
        ({"home": "cloud"}, "home"),
        ({"host": "0.0.0.0"}, "allow_remote=True"),
        ({"token": "a b\n"}, "printable ASCII"),
        ({"tokens": ["ok", "é"]}, "printable ASCII"),
        ({"token": ""}, "let every client in"),
        ({"execute_timeout": -1}, "execute_timeout"),
        ({"execute_timeout": float("nan")}, "execute_timeout"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as excinfo:
        Emulator(**settings)
    assert said in message(excinfo)


def test_an_address_that_is_not_here() -> None:
    before = set(threading.enumerate())
    with pytest.raises(SettingError, match=r"Listening on 203\.0\.113\.1"):
        Emulator(port=0, host="203.0.113.1", allow_remote=True, home="thread").start()
    assert set(threading.enumerate()) == before


def test_the_kernel_home_needs_a_kernel() -> None:
    with pytest.raises(HomeError, match="home='kernel' works in a notebook"):
        Emulator(port=0, home="kernel").start()


def test_a_token_can_be_chosen_and_is_random_otherwise() -> None:
    assert Emulator(token="mine").token == "mine"
    assert Emulator().token != Emulator().token


def test_every_token_of_the_settings_is_accepted() -> None:
    with Emulator(port=0, home="thread", token="one", tokens=["two", "three"]) as emu:
        answers = [
            closed(requests.get(f"{emu.url}{RUNTIMES}", headers={"Authorization": f"Bearer {token}"}, timeout=10))
            for token in ("one", "two", "three", "four")
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 401]


def test_a_fault_of_the_emulator_is_answered_without_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(port=0, home="thread") as emu:
        runtime = emu.open_runtime("r")
        monkeypatch.setattr(emu.lifecycle, "take", lambda *_, **__: 1 // 0)
        answer = closed(requests.get(runtime.get_job_uri, headers={"Module-Auth-Token": runtime.token}, timeout=10))
        assert (answer.status_code, error_code(answer)) == (500, "internal_error")
        assert "ZeroDivisionError" not in answer.text
        assert [event.detail for event in emu.lifecycle.events.recent() if "ZeroDivisionError" in (event.detail or "")]


def test_an_absent_query_is_an_empty_object(emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    job = emu.submit("f")
    headers = {"Authorization": f"Bearer {emu.token}"}
    body = {"deployedAppRid": RID, "queryType": "f"}
    assert requests.post(f"{emu.url}{SUBMIT}", json=body, headers=headers, timeout=10).status_code == 200
    assert [each.query for each in emu.lifecycle.jobs()] == [b"{}", b"{}"]
    assert job.record.query == b"{}"


def test_every_time_on_the_wire_is_in_unix_milliseconds(emu: Emulator) -> None:
    before = time.time_ns() // 1_000_000
    runtime = emu.open_runtime("r", RID)
    emu.change(lambda state: state.post_schemas("r", [("f", b"{}")]))
    with answering(emu, b"1"):
        job = emu.submit("f")
        job.result()
    inspected = requests.get(f"{runtime.inspect_uri}/{job.id}", timeout=10).json()
    records = [inspected["runtime"], inspected["job"], *inspected["schemas"]]
    times = [value for record in records for name, value in record.items() if name.endswith("_at")]
    assert len(times) == 7
    assert all(before <= value <= time.time_ns() // 1_000_000 for value in times)


def test_the_signature_names_what_the_settings_are() -> None:
    for name in Settings.class_trait_names(config=True):
        assert f"`{name}`" in (inspect.getdoc(Emulator) or "")


def test_jobs_submitted_from_many_threads_all_come_back(emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    jobs: list[JobHandle] = []
    with answering(emu, b"1"):
        threads = [threading.Thread(target=lambda: jobs.extend(emu.submit("f") for _ in range(25))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [job.result() for job in jobs] == [1] * 200
    assert len({job.id for job in jobs}) == 200


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="only Linux frees a port whose socket another process holds")
def test_a_process_that_holds_copies_of_its_sockets_does_not_hold_its_port() -> None:
    with Emulator(port=free_port(), tls_port=0) as emulator:
        port = emulator.port
        sockets = [int(each.name) for each in OPEN_FILES.iterdir() if each.is_socket()]
        holder = subprocess.Popen(["sleep", "60"], pass_fds=sockets)
    try:
        with Emulator(port=port, tls_port=0) as again:
            assert again.port == port
            assert requests.get(f"{again.url}/_emulate/health", timeout=10).status_code == 200
    finally:
        holder.kill()
        holder.wait()
