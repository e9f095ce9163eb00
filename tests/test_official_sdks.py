"""Programs with the official SDKs, unmodified, over TLS: as they run in production."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cells import ADD, make
from cli_processes import run, serving
from client import eventually
from conftest import end_programs
from environments import node_modules
from test_faults import seed_of

from cmemu_nb.dashboard.functions import FunctionList
from cmemu_nb.display.text import duration
from cmemu_nb.errors import FunctionError, JobFailed, LaunchFailed, NotFound, ResultError
from cmemu_nb.executors.modules import modules
from cmemu_nb.lifecycle.records import app_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule

pytestmark = pytest.mark.once

PROGRAMS = Path(__file__).parent / "programs"
PYTHON = f"python {PROGRAMS / 'python_module.py'}"
ORDER = {
    "items": [{"name": "bolt", "price": "1.10"}, {"name": "nut", "price": "2.20"}],
    "placed": "2026-11-24T10:00:00Z",
    "due": "2026-12-01",
    "stamp": "ü",
}


@pytest.fixture(scope="module")
def node_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(PROGRAMS / "node_module.mjs", folder)
    (folder / "node_modules").symlink_to(node_modules() / "node_modules")
    return f"node {folder / 'node_module.mjs'}"


@pytest.fixture
def emu(serve: Callable[..., Any]) -> Iterator[Emulator]:
    with serve() as emulator:
        yield emulator
        end_programs(emulator)


@pytest.fixture(params=["process pool", "thread pool", "node"])
def module(request: pytest.FixtureRequest, emu: Emulator) -> LaunchedModule:
    """A module of each kind, three replicas of two tasks."""
    node = request.param == "node"
    command = request.getfixturevalue("node_program") if node else PYTHON
    command += " threads" if request.param == "thread pool" else ""
    return emu.launch(command, "real", replicas=3, max_concurrent_tasks=2).wait_until_responsive()


@pytest.fixture
def python(emu: Emulator) -> LaunchedModule:
    return emu.launch(PYTHON, "real").wait_until_responsive()


@pytest.fixture
def node(emu: Emulator, node_program: str) -> LaunchedModule:
    return emu.launch(node_program, "real").wait_until_responsive()


# Both


def test_a_stream_is_a_list_of_any_length(emu: Emulator, module: LaunchedModule) -> None:
    assert emu.call("count", {"to": 1}, validate=False) == ["0"]
    assert emu.call("count", {"to": 2}, validate=False) == ["0", "1"]
    # Node posts an empty stream with a Content-Length of 0, like the result of a function that returns nothing.
    assert emu.call("count", {"to": 0}, validate=False) == (None if "node" in str(module.command) else [])


@pytest.mark.usefixtures("module")
def test_two_hundred_jobs_at_once_are_all_answered_once(emu: Emulator) -> None:
    frame = emu.map("echo", [{"n": n} for n in range(200)], concurrency=200, validate=False)
    assert list(frame.value) == [{"n": n} for n in range(200)]
    starts = [event.job_id for event in emu.lifecycle.events.recent() if event.kind == "job_started"]
    assert len(starts) == len(set(starts)) == 200
    assert {job.replica_id for job in emu.lifecycle.jobs()} == {each.replica_id for each in replicas(emu)}


def replicas(emu: Emulator) -> list[Any]:
    return [process.replica for module in emu.modules.of("real") for process in module.replicas]


@pytest.mark.usefixtures("module")
def test_a_megabyte_goes_both_ways(emu: Emulator) -> None:
    assert emu.call("echo", {"text": "ü" * 500_000}, validate=False) == {"text": "ü" * 500_000}
    assert emu.call("large", {"size": 1_000_000}, validate=False) == "x" * 1_000_000


@pytest.mark.usefixtures("module")
def test_items_of_a_stream_arrive_while_the_function_runs(emu: Emulator, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    items = emu.stream("count", {"to": 3, "until": str(go_on)}, validate=False)
    assert next(items) == "0"
    assert emu.job(items.job_id).status == "running"
    go_on.touch()
    assert list(items) == ["1", "2"]
    assert emu.job(items.job_id).raw() == b'"0""1""2"'


def test_a_job_that_is_failed_by_hand_while_it_runs_leaves_the_module_alive(
    emu: Emulator, module: LaunchedModule
) -> None:
    job = emu.submit("slow", {"seconds": 0.5})
    eventually(lambda: job.status == "running", "it runs")
    job.fail("by hand")
    eventually(lambda: "late_result" in [event.kind for event in emu.lifecycle.events.recent()], "the result came late")
    assert job.record.error_message == "by hand"
    assert emu.call("echo", {"n": 1}, validate=False) == {"n": 1}
    assert module.states == ["responsive"] * 3


def test_a_killed_replica_s_job_fails_at_once_and_the_others_go_on(emu: Emulator, module: LaunchedModule) -> None:
    job = emu.submit("slow", {"seconds": 60})
    eventually(lambda: job.status == "running", "it runs")
    victim = next(each for each in module.replicas if each.replica.replica_id == job.record.replica_id)
    victim.stop()
    with pytest.raises(JobFailed, match=rf"replica {victim.replica.replica_id} exited with code \d+"):
        job.result(timeout=10)
    assert emu.call("echo", {"n": 1}, validate=False) == {"n": 1}


def test_a_module_follows_a_reset_of_its_runtime_and_goes_with_its_deletion(
    emu: Emulator, module: LaunchedModule
) -> None:
    tokens = {each.replica.token for each in module.replicas}
    emu.runtime("real").reset()
    eventually(lambda: module.states == ["responsive"] * 3, "every replica polls again")
    assert tokens.isdisjoint({each.replica.token for each in module.replicas})
    assert emu.call("echo", {"n": 1}, validate=False) == {"n": 1}
    emu.runtime("real").delete()
    eventually(lambda: not module.running, "the module has ended")


# Python


@pytest.mark.usefixtures("python")
def test_python_gets_dates_decimals_bytes_structs_and_optional_fields(emu: Emulator) -> None:
    said = {"total": "3.30", "days": "7", "note": "None", "stamp": "ü"}
    assert emu.call("describe", ORDER) == said
    assert emu.call("describe", {**ORDER, "note": "urgent", "discount": 0.5}) == {**said, "note": "urgent"}


def test_python_finds_its_sources_resources_tokens_and_client(emu: Emulator) -> None:
    emu.launch(
        PYTHON,
        "real",
        sources={"Crm": {"password": "s3cret"}},
        source_configurations={"Crm": {"sourceConfiguration": {"url": "https://crm"}}},
        aliases={"orders": {"rid": "ri.orders", "branch": None}},
        client={"id": "the-client", "secret": "the-secret"},
        build2_token="the-token",
    )
    assert emu.call("configuration", validate=False) == {
        "secret": "s3cret",
        "in context": "s3cret",
        "configuration": {"url": "https://crm"},
        "resource": "ri.orders",
        "token": "the-token",
        "client": ["the-client", "the-secret"],
    }


class Orders(BaseHTTPRequestHandler):
    """A system outside the platform, which answers with what it was asked."""

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "key": self.headers["X-Api-Key"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def https_server(authority: trustme.CA) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_python_uses_its_sources_which_may_have_a_public_or_a_private_authority(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    public, private = trustme.CA(), trustme.CA()
    # It stands for the authorities that every program trusts.
    public.cert_pem.write_to_path(tmp_path / "public.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "public.pem"))

    def source(url: str, **more: Any) -> dict[str, Any]:
        token = {"accessToken": "an-access-token", "expiration": "2099-01-01T00:00:00Z"}
        connection = {"url": url, "authHeaders": {"X-Api-Key": "the-key"}, "queryParameters": {"page": "1"}}
        return {
            "secrets": {"password": "s3cret"},
            "sourceConfiguration": {"kind": "rest"},
            "httpConnectionConfig": connection,
            "resolvedCredentials": {"oauth2Credentials": token},
            **more,
        }

    with serve() as emulator, https_server(public) as known, https_server(private) as unknown:
        certificates = {"ours": private.cert_pem.bytes().decode()}
        sources = {"Public": source(known), "Private": source(unknown, serverCertificates=certificates)}
        emulator.launch(PYTHON, "real", source_configurations=sources).wait_until_responsive()
        for name in sources:
            assert emulator.call("ask_a_source", {"name": name}, validate=False) == {
                "answer": {"path": "/orders?page=1", "key": "the-key"},
                "secret": "s3cret",
                "configuration": {"kind": "rest"},
                "credentials": "an-access-token",
            }
        end_programs(emulator)


def test_node_finds_its_sources_resources_and_client(emu: Emulator, node_program: str, tmp_path: Path) -> None:
    program = Path(shutil.copy(PROGRAMS / "customers.mjs", Path(node_program.split()[1]).parent))
    configuration: dict[str, Any] = {
        "sources": {"Crm": {"password": "the-password"}},
        "aliases": {"orders": {"rid": "ri.orders"}},
        "client": {"id": "the-client", "secret": "the-secret"},
        "environment": {"LOG_LEVEL": "DEBUG"},
    }
    connected = {"password": "the-password", "orders": "ri.orders", "client": "the-client", "level": "DEBUG"}
    emu.launch(["node", str(program)], "real", **configuration).wait_until_responsive()
    assert emu.call("connect", validate=False) == connected
    assert emu.call("callBack", validate=False) == 200
    config = tmp_path / "module.json"
    config.write_text(json.dumps(configuration))
    words = ["--config", str(config), "--", "node", str(program)]
    with serving(*words, command="run", runtime_folder=tmp_path) as server:
        assert any(line.startswith("Call it") for line in iter(server.output.readline, ""))
        done = run("call", "connect", "{}", "--no-validate", JUPYTER_RUNTIME_DIR=str(tmp_path))
        assert json.loads(done.stdout) == connected


def test_an_exception_in_python_is_a_function_error_and_its_logs_belong_to_the_job(
    emu: Emulator, python: LaunchedModule
) -> None:
    job = emu.submit("fail")
    with pytest.raises(FunctionError) as raised:
        job.result()
    said = str(raised.value)
    assert re.match(r"\w+Error: it failed\n\nTraceback \(most recent call last\):\n  File \S+python_module\.py", said)
    assert "compute_modules" not in said
    eventually(lambda: "Error executing job: it failed" in python.logs.text, "all of its log has come")
    # The SDK's log repeats the error.
    assert job.logs == "WARNING: about to fail (order=12)\n"
    lines = [line for line in python.logs if line.message == "about to fail (order=12)"]
    assert [(line.level, line.job_id) for line in lines] == [("WARNING", job.id)]
    assert {"at", "level", "message", "job_id"} <= set(python.logs.frame.columns)


def test_what_a_job_prints_belongs_to_it_where_one_job_runs_at_a_time(
    emu: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    program = f"python {PROGRAMS / 'talking_module.py'}"
    module = emu.launch(program, "talking").wait_until_responsive()
    app = app_named("talking")
    jobs = [emu.submit(name, {"word": "ab"}, app) for name in ("talk", "spell", "crash", "talk")]
    eventually(lambda: all(job.done() for job in jobs), "all of them have ended")
    talked = "printed ab\nto stderr ab\nINFO    | logged ab\n"
    # The error that the result has is not repeated.
    assert [job.logs for job in jobs] == [talked, "spells a\nspells b\n", "about to crash\n", talked]
    said = {line.message: line.job_id for line in module.logs}
    assert (said["talking starts"], said["about to crash"]) == (None, jobs[2].id)
    assert said["ERROR   | Error executing job: ab"] == jobs[2].id
    assert emu.call("talk", {"word": "cd"}, app, echo=True) == "cd"
    assert capsys.readouterr().out == talked.replace("ab", "cd")
    # Where several run at a time, nothing says whose line it is.
    emu.launch(program, "two", max_concurrent_tasks=2).wait_until_responsive()
    job = emu.submit("talk", {"word": "ab"}, app_named("two"))
    assert (job.result(), job.logs) == ("ab", "")


def test_its_functions_are_listed_with_their_calls_beside_those_of_cells(emu: Emulator, python: LaunchedModule) -> None:
    emu.function(make(ADD))
    emu.function(make("def echo(context, event): return 'of a cell'"))
    emu.call("describe", ORDER, "ri.foundry.main.deployed-app.real")
    with pytest.raises(FunctionError):
        emu.call("fail")
    slow = emu.submit("slow", {"seconds": 60})
    eventually(lambda: emu.functions["slow"].running == 1, "it is seen to run")
    describe, fail = emu.functions["describe"], emu.functions["fail"]
    assert repr(describe) == "<describe on 'real', calls: 1 (1 ok)>"
    assert describe.schema_in_words.startswith("items: list of struct {name: string, price: decimal}, placed: times")
    assert describe.schema_in_words.endswith("discount: float (may be left out) -> map of string to string")
    assert (describe.calls, describe.errors, fail.calls, fail.errors) == (1, 0, 1, 1)
    assert describe.percentile(50) == describe.percentile(95) == emu.lifecycle.jobs()[0].run_time()
    listed = {(each.runtime_id, each.name) for each in emu.functions}
    assert listed == {(each.runtime_id, each.function_name) for each in emu.lifecycle.schemas()}
    assert len(emu.functions) == len(listed)
    choices = r"find_on\('notebook', 'echo'\) or find_on\('real', 'echo'\)"
    with pytest.raises(NotFound, match=rf"'echo' is served on 2 runtimes: say which one, {choices}\."):
        emu.functions["echo"]
    assert repr(emu.functions.find_on("real", "echo")) == "<echo on 'real', calls: 0>"
    with pytest.raises(NotFound, match=r"No function 'fail' is served in a cell\. Known functions: 'add', 'echo'\."):
        emu.functions.remove("fail")
    histories = FunctionList(emu).histories()
    page = emu.functions._repr_mimebundle_()["text/html"]
    for each, counts in ((describe, [1, 0, 0]), (fail, [0, 1, 0])):
        times = [duration(each.percentile(percent)) for percent in (50, 95)]
        history = histories[json.dumps([each.runtime_id, each.name])]
        assert [history[name] for name in ("o", "e", "f", "p50", "p95")] == [*counts, *times]
        assert f">{each.name}<" in page
    slow.cancel()
    python.restart()
    assert emu.functions["fail"].calls == 1
    emu.runtime("real").delete()
    assert [each.label for each in emu.functions] == ["add v1", "echo v1"]


@pytest.mark.usefixtures("python")
def test_python_s_http_clients_trust_the_emulator_without_any_setting(emu: Emulator) -> None:
    assert emu.call("reach_the_platform") == ["ok"] * 3


@pytest.mark.usefixtures("python")
def test_python_answers_an_unknown_function(emu: Emulator) -> None:
    assert emu.submit("nobody").raw() == b'{"error": "Unknown query type"}'


CRASHED = "def load():\n    raise RuntimeError('no weights')\nload()\n"
FUNCTION = (
    "from compute_modules.annotations import function\n@function\ndef served(context, event) -> int:\n    return 1\n"
)


def test_a_python_module_that_raised_while_it_was_imported_is_no_module(
    emu: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK starts in an exit handler: it polls although the program has raised."""
    (tmp_path / "app.py").write_text(f"import compute_modules.annotations\n{CRASHED}")
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 30.0)
    raised = r" raised an exception while it was imported, so it polls for jobs without any function\. The end of its "
    raised += r"traceback:\n(.|\n)*  File .*line 4, in <module>(.|\n)*\nRuntimeError: no weights$"
    with pytest.raises(LaunchFailed, match=rf"^python app\.py{raised}"):
        emu.launch("python app.py", cwd=str(tmp_path))
    assert "app" not in [each.runtime_id for each in emu.lifecycle.runtimes()]
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.0)
    module = emu.launch("python -m app", "app", cwd=str(tmp_path))
    with pytest.raises(LaunchFailed, match=rf"^python -m app{raised}"):
        module.wait_until_responsive()
    with pytest.raises(
        FunctionError, match=r"^Unknown query type: the module 'app' raised .*, before it had defined 'f'"
    ):
        emu.call("f", deployed_app_rid="ri.foundry.main.deployed-app.app")
    (tmp_path / "app.py").write_text(FUNCTION)
    module.restart()
    module.wait_until_responsive()
    assert emu.call("served", deployed_app_rid="ri.foundry.main.deployed-app.app") == 1
    # What it had posted before does not hide the next error.
    (tmp_path / "app.py").write_text(f"import compute_modules.annotations\n{CRASHED}")
    module.restart()
    with pytest.raises(LaunchFailed, match=raised):
        module.wait_until_responsive()


def test_a_python_module_that_raised_behind_some_functions_serves_those(emu: Emulator, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"{FUNCTION}{CRASHED}")
    emu.launch("python app.py", cwd=str(tmp_path)).wait_until_responsive()
    assert emu.call("served") == 1
    job = emu.submit("missing")
    with pytest.raises(FunctionError, match=r"before it had defined 'missing'(.|\n)*\nRuntimeError: no weights$"):
        job.result()
    assert job.raw() == b'{"error": "Unknown query type"}'
    assert job.explanation.startswith("Unknown query type: the module 'app' raised")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("break_half_way", "ValueError: half way$"),
        ("yield_a_set", "TypeError: Object of type set is not JSON serializable$"),
    ],
)
@pytest.mark.usefixtures("python")
def test_a_python_stream_that_breaks_off_fails_its_job_with_the_reason_and_no_other(
    emu: Emulator, name: str, reason: str
) -> None:
    job = emu.submit(name)
    with pytest.raises(JobFailed, match=rf"the result stream broke off after 7 bytes: {reason}"):
        job.result()
    assert "compute_modules" not in job.logs
    if name == "break_half_way":
        own_lines = r'  File "\S+python_module\.py", line \d+, in break_half_way\n    raise ValueError\("half way"\)\n'
        last = r"Traceback \(most recent call last\):\n" + own_lines + "ValueError: half way\n"
        assert re.fullmatch(rf"ERROR: ValueError: half way\n\n{last}", job.logs)
    with pytest.raises(JobFailed, match=reason):
        list(emu.stream(name, validate=False))
    assert emu.call("echo", {"n": 1}) == {"n": 1}


def test_a_worker_process_that_died_inside_a_python_replica_is_named(emu: Emulator, python: LaunchedModule) -> None:
    worker = emu.call("who")
    job = emu.submit("slow", {"seconds": 600})
    # An idle worker holds the lock of the pool's queue: if it were killed, no other one could take a job.
    eventually(lambda: "slow begins" in job.logs, "the function runs")
    assert "died" not in job.diagnosis
    os.kill(worker, signal.SIGKILL)
    said = f"of 'real', whose worker process {worker} died meanwhile: the official SDK replaces a worker, but the job "
    eventually(lambda: said in job.diagnosis, "it is named")
    job.cancel()
    eventually(lambda: emu.call("who") != worker, "the next worker answers")
    later = emu.submit("slow", {"seconds": 600})
    eventually(lambda: later.status == "running", "it runs")
    assert "died" not in later.diagnosis
    assert python.states == ["responsive"]


# Node


@pytest.mark.usefixtures("node")
def test_a_node_module_s_schemas_are_there_and_it_answers(emu: Emulator) -> None:
    eventually(lambda: len(emu.schemas) == 3, "the schemas are posted")
    assert emu.call("addOne", {"value": 41}) == 42
    assert emu.call("keep", {"settings": {"depth": 3}}) == {"depth": 3}


@pytest.mark.usefixtures("node")
def test_plain_text_that_a_node_function_writes_is_passed_on(emu: Emulator) -> None:
    items = emu.stream("talk", validate=False)
    assert "".join(items) == "Hello, wörld"
    with pytest.raises(ResultError, match=r"is not JSON .* 'Hello, wörld'"):
        emu.job(items.job_id).result()


@pytest.mark.usefixtures("node")
def test_node_trusts_the_emulator_and_finds_its_services_without_any_setting(emu: Emulator) -> None:
    url = emu.platform_url
    apis = [f"{url}/api", f"{url}/stream-proxy/api", f"{url}/mio/api"]
    # The functions routes want a token, which the module does not have.
    assert emu.call("reachThePlatform", validate=False) == ["ok", 401, *apis]


@pytest.mark.usefixtures("node")
def test_an_exception_in_node_is_a_function_error(emu: Emulator) -> None:
    job = emu.submit("fail")
    with pytest.raises(FunctionError, match="TypeError: it failed"):
        job.result()
    assert json.loads(job.raw()) == {"error": "TypeError", "reason": "it failed"}


def test_a_node_function_that_never_settles_is_failed_by_hand_and_frees_its_slot(
    emu: Emulator, node: LaunchedModule
) -> None:
    jobs = [emu.submit("never"), emu.submit("nobody")]
    later = emu.submit("echo", {"n": 1})
    for job in jobs:
        eventually(lambda job=job: job.status == "running", "it runs")  # type: ignore[misc]
        assert later.status == "queued"
        job.fail("enough")
    assert later.result() == {"n": 1}
    assert node.states == ["responsive"]


def test_a_node_default_handler_takes_unknown_functions(emu: Emulator, node_program: str) -> None:
    emu.launch(f"{node_program} with-default", "real").wait_until_responsive()
    assert emu.call("nobody", validate=False) == {"unknown": "nobody"}


# When the platform misbehaves


@pytest.mark.usefixtures("python")
def test_python_posts_a_refused_result_again_and_after_five_refusals_an_error(emu: Emulator) -> None:
    with emu.faults("real", error_rate=0.5, seed=seed_of("echo", [True, True, False], "real")) as faults:
        assert emu.call("echo", {"n": 1}) == {"n": 1}
        assert faults.struck == {"error_rate": 2}
    with emu.faults("real", error_rate=0.5, seed=seed_of("echo", [True] * 5 + [False], "real")) as faults:
        job = emu.submit("echo")
        with pytest.raises(FunctionError, match="Unable to post job result after 5 attempts"):
            job.result(timeout=60)
        assert faults.struck == {"error_rate": 5}


@pytest.mark.usefixtures("python")
def test_a_python_stream_that_is_refused_at_its_end_is_empty_when_it_comes_again(emu: Emulator) -> None:
    with emu.faults("real", error_rate=0.5, seed=seed_of("count", [True, False], "real")):
        assert emu.submit("count", {"to": 3}).raw(timeout=60) == b""


@pytest.mark.usefixtures("python")
def test_python_calls_its_function_twice_for_a_job_that_is_delivered_twice(emu: Emulator) -> None:
    with emu.faults("real", duplicate_dispatch=1) as faults:
        job = emu.submit("slow", {"seconds": 0.2})
        eventually(lambda: faults.struck["duplicate_dispatch"], "it is delivered again")
        assert isinstance(job.result(timeout=60), int)
    assert emu.call("echo", {"n": 1}) == {"n": 1}
    eventually(lambda: job.logs.count("slow begins") == 2, "both calls are in the log")


def test_a_dropped_result_leaves_python_s_job_running_until_its_lease_ends(serve: Callable[..., Any]) -> None:
    with serve(job_timeout=2) as emulator:
        emulator.launch(PYTHON, "real").wait_until_responsive()
        with emulator.faults("real", "echo", drop_result=1), pytest.raises(JobFailed, match="lease ran out"):
            emulator.call("echo", {"n": 1})
        assert emulator.call("echo", {"n": 2}) == {"n": 2}
        end_programs(emulator)


@pytest.mark.parametrize("chances", [{"reject_poll": 0.4}, {"disconnect": 0.5}, {"delay": (0, 0.2)}], ids=str)
def test_both_sdks_go_on_when_polls_are_refused_cut_off_or_slow(
    emu: Emulator, node_program: str, chances: dict[str, Any]
) -> None:
    for runtime_id, command in {"python": PYTHON, "node": node_program}.items():
        emu.launch(command, runtime_id).wait_until_responsive()
    with emu.faults(**chances, seed=1) as faults:
        for runtime_id in ("python", "node"):
            jobs = [emu.runtime(runtime_id).enqueue("echo", {"n": n}) for n in range(3)]
            assert [job.result(timeout=60) for job in jobs] == [{"n": n} for n in range(3)]
        assert faults.struck


# Clients that are refused, or wait


def test_refused_clients_do_not_storm(emu: Emulator, python: LaunchedModule, node_program: str) -> None:
    modules = [python, emu.launch(node_program, "other").wait_until_responsive()]
    for module in modules:
        replica = module.replicas[0].replica
        emu.change(lambda lifecycle, replica=replica: lifecycle.remove_replica(replica, "revoked"))  # type: ignore[misc]
    eventually(lambda: len(refusals(emu)) >= 10, "ten requests are refused")
    times = refusals(emu)
    # Each client waits a second for each refusal: together they send two a second, and the first two at once.
    assert (len(times) - 2) / (times[-1] - times[0]) <= 2.0


def refusals(emu: Emulator) -> list[float]:
    return [event.at / 1e9 for event in emu.lifecycle.events.recent() if event.kind == "request_refused"]


def test_waiting_clients_ask_once_in_ten_seconds(emu: Emulator, node_program: str) -> None:
    for runtime_id, command in {"python": PYTHON, "node": node_program}.items():
        emu.launch(command, runtime_id).wait_until_responsive()
    for runtime_id in ("python", "node"):
        eventually(lambda runtime_id=runtime_id: len(empty_polls(emu, runtime_id)) >= 2, "two polls were in vain")  # type: ignore[misc]
        first, second = empty_polls(emu, runtime_id)[:2]
        assert second - first >= 9.9


def empty_polls(emu: Emulator, runtime_id: str) -> list[float]:
    events = emu.lifecycle.events.recent(all=True)
    return [each.at / 1e9 for each in events if each.kind == "poll_empty" and each.runtime_id == runtime_id]
