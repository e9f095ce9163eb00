"""The forwarder, through which programs with the Java SDK get their jobs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from client import MODULE_HEADER, Api, eventually, free_port
from conftest import end_programs, serving
from environments import program
from test_faults import seed_of

from cmemu_nb.errors import FunctionError, JobFailed, LaunchFailed
from cmemu_nb.executors.modules import forwarders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb import Emulator
    from cmemu_nb.calls.handles import JobHandle
    from cmemu_nb.executors.modules.modules import LaunchedModule

pytestmark = [pytest.mark.once, pytest.mark.long_lived]

MODULE = Path(__file__).parent / "programs" / "java_speaking_module.py"
ERROR = """java.lang.IllegalStateException: it failed
\tat App.fail(App.java:12)
Caused by: java.lang.ArithmeticException: / by zero
\tat App.divide(App.java:20)
\t... 2 more"""
OF_THE_SDK = """
\tat com.palantir.computemodules.functions.FunctionRunner.run(FunctionRunner.java:48)
\tat java.base/java.lang.Thread.run(Thread.java:840)"""
POSTED = ERROR.replace("(App.java:12)", f"(App.java:12){OF_THE_SDK}")
SMALL = 100_000
LONG = bool(os.environ.get("CMEMU_LONG"))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port that takes the place of 8946, which another test process may use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwarders, "FIXED_PORT", free_port())
        yield forwarders.FIXED_PORT


@pytest.fixture(scope="module")
def emu(port: int) -> Iterator[Emulator]:
    with serving(max_body_bytes=SMALL) as emulator:
        for version in ("new", "old"):
            launch(emulator, version, port, replicas=2, max_concurrent_tasks=4).wait_until_responsive()
        yield emulator
        end_programs(emulator)
        assert not listens(port)


def launch(emulator: Emulator, version: str, port: int, runtime_id: str = "", **options: Any) -> LaunchedModule:
    """Launch the program by a script, as a program in Java is: a command of Python does not need port 8946."""
    script = f"exec {shlex.join([sys.executable, str(MODULE), version])}"
    return emulator.launch(
        ["sh", "-c", script], runtime_id or version, environment={"FIXED_PORT": str(port)}, **options
    )


def listens(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture(params=["new", "old"])
def module(request: pytest.FixtureRequest, emu: Emulator) -> LaunchedModule:
    """A module of each version, two replicas."""
    return emu.modules[request.param]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file for which the functions `wait` and `chunks` wait."""
    return tmp_path / "gate"


def enqueue(emulator: Emulator, module: LaunchedModule, function: str, query: object = None) -> JobHandle:
    return emulator.runtime(module.runtime_id).enqueue(function, query)


def test_a_module_with_the_java_sdk_answers_calls(emu: Emulator, module: LaunchedModule) -> None:
    query = 'Jo "é" </job>}}'
    assert enqueue(emu, module, "hello", query).result(timeout=30) == f"hello {query}"
    jobs = [enqueue(emu, module, "add", {"x": n, "y": n * n}) for n in range(20)]
    assert [job.result(timeout=30) for job in jobs] == [n + n * n for n in range(20)]
    assert {line.message for line in module.logs if line.message.startswith("result")} >= {
        "result: 202" if module.runtime_id == "new" else "result: 202 "
    }
    assert not any("poll" in line.message for line in module.logs)


def test_each_replica_is_known_by_its_port_or_token(emu: Emulator, module: LaunchedModule, gate: Path) -> None:
    check_replicas(emu, module, gate, 4)


def test_a_replica_that_sends_no_token_to_the_fixed_port_is_known_by_its_process(
    emu: Emulator, port: int, gate: Path
) -> None:
    module = launch(emu, "bare", port, replicas=2).wait_until_responsive()
    check_replicas(emu, module, gate, 1)
    module.stop()


def check_replicas(emulator: Emulator, module: LaunchedModule, gate: Path, tasks: int) -> None:
    """Give two replicas as many jobs as they may have, and check that each has its own."""
    jobs = [enqueue(emulator, module, "wait", {"until": str(gate)}) for _ in range(2 * tasks)]
    eventually(lambda: all(job.status == "running" for job in jobs), "each replica runs as many as it may")
    assert {job.record.replica_id for job in jobs} == {process.replica.replica_id for process in module.replicas}
    gate.touch()
    assert all(job.result(timeout=30) for job in jobs)


def test_a_result_in_chunks_is_a_whole_result(emu: Emulator, module: LaunchedModule, gate: Path) -> None:
    job = enqueue(emu, module, "chunks", {"until": str(gate)})
    eventually(lambda: job.status == "running", "it runs")
    gate.touch()
    assert job.result(timeout=30) == {"beginning": 1, "rest": [2]}
    assert not job.record.streamed


def test_the_text_of_an_error_is_a_function_error(emu: Emulator, module: LaunchedModule) -> None:
    job = enqueue(emu, module, "fail")
    with pytest.raises(FunctionError) as raised:
        job.result(timeout=30)
    assert str(raised.value) == ERROR
    assert job.raw() == f"JobId: {job.id}\n{POSTED}\n".encode()
    assert job.record.outcome == "function error"
    with pytest.raises(FunctionError) as raised:
        list(job.stream())
    assert str(raised.value) == ERROR
    row = emu.jobs.loc[job.id]
    assert (row.outcome, row.result) == ("function error", ERROR.partition("\n")[0])


def test_the_schemas_of_the_java_sdk_are_stored_and_used(emu: Emulator) -> None:
    assert [name for runtime, name in emu.schemas.index if runtime == "new"] == ["add", "fail", "hello"]
    api, headers = f"{emu.url}/api/v2/functions/queries/", {"Authorization": f"Bearer {emu.token}"}
    body = {"parameters": {"x": 1, "y": 2}}
    answer = requests.post(f"{api}add/execute?preview=true", json=body, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"value": 3})


def test_a_java_error_is_one_on_every_route(emu: Emulator) -> None:
    api, headers = f"{emu.url}/api/v2/functions/queries/fail/", {"Authorization": f"Bearer {emu.token}"}
    message, _, trace = POSTED.partition("\n")
    for route in ("execute", "streamingExecuteEvents"):
        answer = requests.post(f"{api}{route}?preview=true", json={"parameters": {}}, headers=headers, timeout=30)
        error = answer.json() if route == "execute" else json.loads(answer.text.removeprefix("data: "))
        assert (error["errorName"], error["parameters"]["message"]) == ("QueryRuntimeError", message)
        assert error["parameters"]["stacktrace"] == trace
    assert dict(emu.runtimes.function_error)["new"] >= 2


def test_a_result_that_is_too_large_is_an_error(emu: Emulator) -> None:
    job = enqueue(emu, emu.modules["new"], "large", {"size": SMALL})
    with pytest.raises(FunctionError, match="Failed to post result, statusCode: 413"):
        job.result(timeout=30)


def test_a_report_of_a_restart_fails_the_jobs_that_the_replica_held(emu: Emulator, port: int, gate: Path) -> None:
    module = emu.modules["new"]
    reports = [line.message for line in module.logs if "restart" in line.message]
    assert reports == ["restart: 200 []"] * 2  # each replica reports one when it starts, at the fixed port
    # A sender that is no replica's program and has no token can't make any job fail.
    assert requests.post(f"http://127.0.0.1:{port}/restart-notify", timeout=30).status_code == 401
    token = {MODULE_HEADER: emu.modules["old"].replicas[0].replica.token}
    assert requests.post(f"http://127.0.0.1:{port}/restart-notify", headers=token, timeout=30).json() == []
    job = enqueue(emu, module, "wait", {"until": str(gate)})
    eventually(lambda: job.status == "running", "it runs")
    process = next(each for each in module.replicas if each.replica.replica_id == job.record.replica_id)
    assert requests.post(f"{own_url(emu, process)}/restart-notify", timeout=30).json() == [job.id]
    with pytest.raises(JobFailed, match="the replica restarted"):
        job.result(timeout=30)
    gate.touch()


def test_a_program_that_its_script_starts_again_reports_the_restart_of_its_own_replica(
    emu: Emulator, port: int, gate: Path
) -> None:
    program = shlex.join([sys.executable, str(MODULE), "new"])
    script = f"{program}; {program}; true"
    module = emu.launch(["sh", "-c", script], "again", environment={"FIXED_PORT": str(port)}).wait_until_responsive()
    other = enqueue(emu, emu.modules["new"], "wait", {"until": str(gate)})
    with pytest.raises(JobFailed, match="the replica restarted"):
        enqueue(emu, module, "exit").result(timeout=30)
    assert enqueue(emu, module, "add", {"x": 1, "y": 2}).result(timeout=30) == 3
    gate.touch()
    assert other.result(timeout=30).startswith("hello")
    module.stop()


def own_url(emulator: Emulator, process: Any) -> str:
    """Return the address of a replica's forwarder."""
    own = emulator.modules._forwarders._own[process.replica]  # noqa: SLF001 - only its environment shows it
    return own.environment["GET_JOB_URI_V2"].removesuffix("/job")


@pytest.mark.parametrize(
    "header",
    [
        ("Sec-Fetch-Site", "cross-site"),
        ("Origin", "http://127.0.0.1"),
        ("Referer", "http://evil.example/"),
        ("Host", "evil.example"),
    ],
    ids=str,
)
def test_a_web_page_gets_no_job(emu: Emulator, header: tuple[str, str]) -> None:
    process = emu.modules["new"].replicas[0]
    answer = requests.get(f"{own_url(emu, process)}/job", headers=dict([header]), timeout=30)
    assert answer.status_code == 403
    assert "replica" in answer.text or "Host" in answer.text


def test_the_fixed_port_needs_the_token_of_a_replica(emu: Emulator, port: int) -> None:
    for headers in ({}, {MODULE_HEADER: "wrong"}):
        assert requests.get(f"http://127.0.0.1:{port}/job", headers=headers, timeout=30).status_code == 401
    unknown = requests.get(f"http://127.0.0.1:{port}/openapi.json", timeout=30)
    assert (unknown.status_code, unknown.json()["error_description"]) == (
        404,
        "There is no route /openapi.json. The routes are /job, /results/{jobId}, /schemas, /restart-notify.",
    )
    assert Api(emu.url, emu.token).contour("GET", "/job").status_code == 404  # the main port has no such route


@pytest.mark.parametrize("chances", [{"reject_poll": 0.4}, {"disconnect": 0.7}, {"delay": (0, 0.2)}], ids=str)
def test_faults_strike_the_forwarder_too(emu: Emulator, module: LaunchedModule, chances: dict[str, Any]) -> None:
    with emu.faults(module.runtime_id, **chances, seed=1) as faults:
        for number in range(20):
            assert enqueue(emu, module, "add", {"x": number, "y": 1}).result(timeout=60) == number + 1
            if faults.struck and number:
                return
        pytest.fail(f"{chances} never struck")


def test_a_refused_result_is_posted_again(emu: Emulator, gate: Path) -> None:
    with emu.faults("new", error_rate=0.5, seed=seed_of("add", [True, True, False], "new")) as faults:
        assert enqueue(emu, emu.modules["new"], "add", {"x": 1, "y": 1}).result(timeout=30) == 2
        assert faults.struck == {"error_rate": 2}
    with emu.faults("old", "wait", duplicate_dispatch=1) as faults:
        job = enqueue(emu, emu.modules["old"], "wait", {"until": str(gate)})
        eventually(lambda: faults.struck["duplicate_dispatch"], "it is delivered again")
        gate.touch()
        assert job.result(timeout=30).startswith("hello")


def test_schemas_and_restarts_are_refused_by_a_fault_too(emu: Emulator) -> None:
    url = own_url(emu, emu.modules["new"].replicas[0])
    with emu.faults("new", error_rate=1):
        assert requests.post(f"{url}/schemas", json=[], timeout=30).status_code == 500
        assert requests.post(f"{url}/restart-notify", timeout=30).status_code == 500
    assert requests.post(f"{url}/schemas", json=[], timeout=30).status_code == 204


def test_a_result_for_no_running_job_of_the_runtime_is_refused(emu: Emulator, gate: Path) -> None:
    url = own_url(emu, emu.modules["new"].replicas[0])
    queued = emu.open_runtime("idle").enqueue("hello")
    for job_id in ("unknown", queued.id):
        assert requests.post(f"{url}/results/{job_id}", data=b"1", timeout=30).status_code == 404
    job = enqueue(emu, emu.modules["new"], "wait", {"until": str(gate)})
    eventually(lambda: job.status == "running", "it runs")
    job.fail("by hand")
    # A result that comes too late is accepted, and changes nothing.
    assert requests.post(f"{url}/results/{job.id}", data=iter([b"1"]), timeout=30).status_code == 202
    gate.touch()
    with pytest.raises(JobFailed, match="by hand"):
        job.result(timeout=30)


# Ports


def test_a_port_closes_with_its_replica_and_others_stay(emu: Emulator, port: int) -> None:
    module = launch(emu, "new", port, "killed", replicas=2).wait_until_responsive()
    first, second = module.replicas
    ports = [int(own_url(emu, each).rpartition(":")[2]) for each in (first, second)]
    assert first.pid is not None
    os.killpg(first.pid, signal.SIGKILL)
    eventually(lambda: not listens(ports[0]), "its port is closed")
    assert listens(ports[1])
    assert listens(port)
    eventually(lambda: module.states == ["responsive"] * 2, "it was started again")
    again = int(own_url(emu, module.replicas[0]).rpartition(":")[2])
    assert enqueue(emu, module, "add", {"x": 1, "y": 2}).result(timeout=30) == 3
    assert listens(again)
    module.stop()
    assert not listens(ports[1])
    assert not listens(again)


def test_the_fixed_port_is_free_as_soon_as_no_program_may_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarders, "FIXED_PORT", fixed := free_port())
    with serving() as emulator:
        emulator.launch([sys.executable, "-c", "import time; time.sleep(60)"], "python")
        assert not listens(fixed)
        module = emulator.launch(["sh", "-c", "sleep 60"], "asleep")
        assert listens(fixed)
        module.stop()
        assert not listens(fixed)
        end_programs(emulator)


@pytest.mark.usefixtures("emu")
def test_a_program_that_cannot_have_the_fixed_port_says_so() -> None:
    with serving() as other:
        module = other.launch(["sh", "-c", "sleep 60"], "asleep")
        (line,) = module.logs
        assert (line.level, line.message) == ("WARNING", forwarders.TAKEN)
        assert "8946 of 127.0.0.1 is in use" in line.message
        with pytest.raises(LaunchFailed, match="8946"):
            module.wait_until_responsive(timeout=0.01)
        assert not list(other.launch([sys.executable, "-c", "import time; time.sleep(60)"], "python").logs)
        assert not list(other.launch(["sh", "-c", "sleep 60"], "pipeline", mode="pipeline").logs)
        end_programs(other)


def test_everything_is_closed_when_the_emulator_stops(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/jo/")
    with serving() as emulator:
        other = free_port() if listens(port) else port
        module = launch(emulator, "new", other).wait_until_responsive()
        own = int(own_url(emulator, module.replicas[0]).rpartition(":")[2])
        assert listens(own)
        # A hub's proxy, through which a login suffices, does not lead to it.
        proxied = {"Host": "hub.example", "X-Forwarded-Context": f"/user/jo/proxy/{own}"}
        assert requests.get(f"http://127.0.0.1:{own}/job", headers=proxied, timeout=30).status_code == 403
        emulator.stop()
        assert not listens(own)
        emulator.start()
        assert not list(emulator.modules)
        module = launch(emulator, "new", other).wait_until_responsive()
        assert module.states == ["responsive"]
        end_programs(emulator)


# Java


if LONG:  # the JDK compiles for seconds, and is large to install

    @pytest.mark.parametrize("version", ["new", "old"])
    def test_java_s_own_http_client_gets_jobs_and_posts_results(emu: Emulator, port: int, version: str) -> None:
        java = program("default-jdk-headless").with_name("java")
        command = [str(java), str(MODULE.with_name("JavaModule.java")), version]
        module = emu.launch(command, "java", environment={"FIXED_PORT": str(port)}, replicas=2, max_concurrent_tasks=4)
        module.wait_until_responsive(timeout=60)
        jobs = [enqueue(emu, module, "add", {"x": n}) for n in range(200)]
        assert [job.result(timeout=60) for job in jobs] == [n + 1 for n in range(200)]
        job = enqueue(emu, module, "large", {"size": SMALL - 2})
        assert (job.result(timeout=60), job.record.streamed) == ("x" * (SMALL - 2), False)
        with pytest.raises(FunctionError, match=r"java.lang.IllegalStateException: it failed\n\tat JavaModule.call"):
            enqueue(emu, module, "fail").result(timeout=60)
        with emu.faults("java", reject_poll=0.3, delay=(0, 0.1), seed=1):
            assert [enqueue(emu, module, "add", {"x": n}).result(timeout=60) for n in range(5)] == [1, 2, 3, 4, 5]
        assert "result: 202" in module.logs.text
        assert (version == "new") == ("restart: 200 []" in module.logs.text)
        emu.runtime("java").delete()
        eventually(lambda: not module.running, "it has ended")
