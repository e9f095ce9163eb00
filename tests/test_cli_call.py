"""`cmemu call`, as real processes, and how every command finds its emulator."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cells import ADD, make
from cli_processes import CMEMU, OnTerminal, run, run_here
from client import eventually
from conftest import serving as emulator_serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmemu_nb import Emulator
    from cmemu_nb.calls.handles import JobHandle

pytestmark = [pytest.mark.once, pytest.mark.long_lived]
GATE = threading.Event()
FUNCTIONS = (
    ADD,
    "def echo(context, event):\n    return event['value']",
    "def boom(context, event):\n    raise ValueError('no \\x1b[31mluck')",
    "def wait(context, event) -> str:\n    gate.wait(60)\n    return 'done'",
)
COUNT = """
def count(context, event) -> Iterable[dict[str, int]]:
    for n in range(event["n"]):
        yield {"n": n}
        n != 1 or gate.wait(60)
"""


@pytest.fixture(scope="module")
def emu() -> Iterator[Emulator]:
    with emulator_serving(max_concurrent_tasks=8) as emulator:
        for source in FUNCTIONS:
            emulator.function(make(source, gate=GATE))
        emulator.function(make(COUNT, gate=GATE), streaming=True)
        yield emulator
        GATE.set()
        emulator.reset()


@pytest.fixture(autouse=True)
def _closed_gate() -> None:
    GATE.clear()


@pytest.fixture
def call(emu: Emulator) -> Callable[..., Any]:
    def call(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        if text is None and "--raw" not in arguments:
            return run_here("call", *arguments, "--url", emu.url)
        return run("call", *arguments, text=text, CMEMU_URL=emu.url, CMEMU_TOKEN=emu.token)

    return call


# Results


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ('{"a":  [1.10, 12345678901234567890123, 1e400]}', None),
        ('"ü\\u001b\\u202e"', None),
        ("null", "null"),
        ('"a\x9bb\u202ec"', '"a\\u009bb\\u202ec"'),
    ],
    ids=["numbers", "escaped", "null", "what a terminal would obey"],
)
def test_a_result_is_printed_as_json(call: Callable[..., Any], value: str, printed: str | None) -> None:
    done = call("echo", f'{{"value": {value}}}')
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == json.loads(value)
    assert printed is None or done.stdout == f"{printed}\n"


def test_a_query_is_given_as_text_on_stdin_or_in_a_file(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "query.json").write_text('{"x": 3}')
    assert call("add", '{"x": 1}').stdout == "3\n"
    assert call("add", "-", text='{"x": 2}').stdout == "4\n"
    assert call("add", f"@{tmp_path / 'query.json'}").stdout == "5\n"


def test_a_runtime_and_a_branch_are_called_by_name(emu: Emulator, call: Callable[..., Any]) -> None:
    assert call("add", '{"x": 1}', "--runtime", "notebook").stdout == "3\n"
    app = "ri.foundry.main.deployed-app.notebook"
    assert call("add", '{"x": 1}', "--app", app, "--branch", "master").stdout == "3\n"
    assert emu.lifecycle.jobs()[-1].deployed_app_branch == "master"


def test_items_are_printed_while_they_arrive(emu: Emulator) -> None:
    command = [*CMEMU, "call", "count", '{"n": 3}', "--stream", "--url", emu.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ['{"n": 0}\n', '{"n": 1}\n']
        GATE.set()
        assert process.stdout.read() == '{"n": 2}\n'
    assert process.returncode == 0


def test_a_whole_stream_is_an_array_whatever_the_number_of_its_items_or_its_bytes(
    emu: Emulator, call: Callable[..., Any]
) -> None:
    GATE.set()
    for number in range(3):
        assert json.loads(call("count", json.dumps({"n": number})).stdout) == emu.call("count", {"n": number})
    assert call("count", '{"n": 2}').stdout == '[{"n": 0}, {"n": 1}]\n'
    assert call("count", '{"n": 1}').stdout == '[{"n": 0}]\n'
    assert call("count", '{"n": 0}').stdout == "[]\n"
    assert call("count", '{"n": 2}', "--raw").stdout == '{"n": 0}{"n": 1}'
    assert call("count", '{"n": 0}', "--stream").stdout == ""


def test_a_reader_that_has_seen_enough_ends_it_quietly(emu: Emulator) -> None:
    command = [*CMEMU, "call", "count", '{"n": 9}', "--stream", "--url", emu.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == '{"n": 0}\n'
        process.stdout.close()
        GATE.set()
        assert process.stderr.read() == ""
    assert process.returncode == 0


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["boom"], 1, "ValueError: no ␛[31mluck\n\nTraceback (most recent call last):\n  File "),
        (["boom", "--stream"], 1, "ValueError: no ␛[31mluck\n\nTraceback"),
        (["ad", '{"x": 1}'], 5, "No function 'ad' is served. Did you mean 'add'? Known functions: 'add', 'boom', "),
        (["ad", "--no-validate"], 1, "Unknown query type"),
        (["add", '{"x": "1"}'], 2, "The query does not match add: 'x': expected integer, given a string ('1')."),
        (["add", "{x: 1}"], 2, "The query is not JSON: Expecting property name"),
        (["add", '{"x": NaN}'], 2, "The query is not JSON: NaN is not a JSON value."),
        (["add", "@/no/such/file"], 2, "The query can't be read from /no/such/file: No such file or directory."),
        (["add", "--runtime", "no"], 5, "There is no runtime 'no'. Known runtimes: 'notebook'."),
        (["add", '{"x": 1}', "--app", "no"], 5, "No active compute-module runtime is bound to 'no'."),
        (["add", "--runtime", "no", "--app", "a"], 2, "--runtime calls a runtime directly"),
        (["add", "--timeout", "-1"], 2, "The timeout must be a number of seconds"),
        (["add", "--token", "wrong"], 7, "The emulator at http://127.0.0.1:"),
    ],
)
def test_what_goes_wrong_is_one_message_and_an_exit_code(
    emu: Emulator, arguments: list[str], code: int, said: str
) -> None:
    done = run_here("call", *arguments, "--url", emu.url)
    assert done.stderr.startswith(f"cmemu call: {said}")
    assert (done.stdout, done.returncode) == ("", code)
    assert "\x1b" not in done.stderr


def test_a_job_that_takes_too_long_stays_as_it_is_and_the_message_says_why(
    emu: Emulator, call: Callable[..., Any]
) -> None:
    for option in ([], ["--stream"]):
        done = call("wait", "--timeout", "0.2", *option)
        assert done.returncode == 4
        assert done.stderr.startswith("cmemu call: Job 'foundry_job_")
        assert "was not done within 0.2 s. 'wait' has been running for " in done.stderr
        assert "on a worker of 'notebook'; cmemu cancel wait ends it. 'cmemu jobs' shows its state" in done.stderr
    assert emu.lifecycle.jobs()[-1].status == "running"


def test_a_job_that_fails_says_why(emu: Emulator) -> None:
    runtime = emu.open_runtime("nobody polls")
    for option in ([], ["--stream"]):
        command = [*CMEMU, "call", "f", "--runtime", runtime.id, "--url", emu.url, "--no-progress", *option]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            eventually(lambda: runtime.queue_depth, "the job is queued")
            emu.job(emu.lifecycle.jobs(runtime.id)[-1].job_id).fail("no more fuel")
            assert process.stderr is not None
            assert process.stderr.read() == "cmemu call: no more fuel\n"
        assert process.returncode == 3
    runtime.delete()


def test_who_waits_is_told_why_and_what_to_type_in_a_terminal(emu: Emulator) -> None:
    runtime = emu.open_runtime("nobody polls")
    command = [*CMEMU, "call", "f", "--runtime", runtime.id, "--url", emu.url]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        (job,) = emu.lifecycle.jobs(runtime.id)
        assert line == (
            "No result for 2 s. 'f' is queued, and nothing has polled 'nobody polls' for jobs yet. Start its program "
            "with the environment that this prints: cmemu env 'nobody polls'.\n"
        )
        runtime.delete()
        gone = "It was discarded when the session of 'nobody polls' was deleted. Submit it again."
        assert process.stderr.read() == f"cmemu call: Job '{job.job_id}' no longer exists. {gone}\n"
    assert process.returncode == 3
    runtime = emu.open_runtime("nobody polls")
    quiet = run("call", "f", "--runtime", runtime.id, "--timeout", "2.5", "--url", emu.url, CI="true")
    assert (quiet.returncode, quiet.stderr.count("\n")) == (4, 1)
    runtime.delete()


def test_on_a_terminal_the_line_makes_room_for_the_items_of_a_stream(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with OnTerminal("call", "count", '{"n": 3}', "--stream", "--url", emu.url, TERM="xterm") as terminal:
        terminal.until("16 bytes of its result have arrived; cmemu cancel ")
        terminal.until("cmemu cancel count ends it.")
        GATE.set()
        terminal.until('{"n": 2}')
        assert terminal.process.wait(20) == 0
    before, *lines, after = re.split(r"\r\x1b\[1A\x1b\[J", terminal.seen)
    assert (before.partition("No result")[0], after) == ('{"n": 0}\r\n{"n": 1}\r\n', '{"n": 2}\r\n')
    assert all(line.startswith("No result for ") and "\n" not in line for line in lines)


@pytest.mark.parametrize("way", ["cancel", "leave"])
def test_ctrl_c_cancels_the_job_or_leaves_it(emu: Emulator, way: str) -> None:
    with OnTerminal("call", "wait", "--url", emu.url, *(() if way == "cancel" else ("--interrupt", way))) as terminal:
        job = _running(emu)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(20) == 130
        said = "was cancelled." if way == "cancel" else "continues; 'cmemu jobs' shows its state."
        assert f"Job '{job.id}' {said}" in terminal.until("Interrupted.").replace("\r\n", " ")
        assert "Traceback" not in terminal.seen
    if way == "cancel":
        assert job.record.error_message == "cancelled: Ctrl-C in 'cmemu call'"
    else:
        assert job.status == "running"
        job.cancel()


def test_ctrl_c_twice_gets_out_of_a_call_whose_emulator_does_not_answer(emu: Emulator) -> None:
    silent = threading.Event()
    with OnTerminal("call", "wait", "--url", emu.url) as terminal:
        _running(emu)
        emu.home.loop.call_soon_threadsafe(silent.wait, 30)
        try:
            terminal.process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                terminal.process.wait(1)
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.process.wait(20) == 130
        finally:
            silent.set()
    emu.cancel("wait")


def test_jobs_are_cancelled_from_a_terminal(emu: Emulator) -> None:
    jobs = [emu.submit("wait") for _ in range(3)]
    done = run_here("cancel", jobs[0].id[-6:], "too", "slow", "--url", emu.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "Cancelled 1 job.\n")
    assert jobs[0].record.error_message == "cancelled: too slow"
    assert run_here("cancel", "wait", "--url", emu.url).stderr == "Cancelled 2 jobs.\n"
    assert jobs[2].record.error_message == "cancelled: by 'cmemu cancel'"
    assert run_here("cancel", "all", "--url", emu.url).stderr == "No such job is queued or running.\n"
    unknown = run_here("cancel", "wiat", "--url", emu.url)
    assert unknown.returncode == 5
    assert "cmemu cancel: There is no job or function 'wiat'" in unknown.stderr


def _running(emu: Emulator) -> JobHandle:
    """Wait until a job runs, and return it."""
    return emu.job(eventually(lambda: [job for job in emu.lifecycle.jobs() if job.status == "running"], "it runs")[-1])


# Which emulator


def test_the_only_one_that_runs_is_found_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    with emulator_serving() as emulator:
        emulator.function(make(ADD))
        assert run("call", "add", '{"x": 1}').stdout == "3\n"
        with emulator_serving() as other:
            done = run("call", "add", '{"x": 1}')
            assert done.returncode == 2
            assert done.stderr.startswith("cmemu call: 2 emulators run here. Choose one with --url URL.\n")
            assert emulator.url in done.stderr
            assert other.url in done.stderr
            assert emulator.token not in done.stderr
            # The token is known by its file.
            assert run("call", "add", '{"x": 1}', "--url", emulator.url).stdout == "3\n"
            named = {"CMEMU_URL": emulator.url.replace("127.0.0.1", "localhost"), "CMEMU_TOKEN": None}
            assert run("call", "add", '{"x": 1}', **named).stdout == "3\n"
        emulator.reset()
    done = run("call", "add", '{"x": 1}')
    assert done.returncode == 6
    assert done.stderr == (
        "cmemu call: No emulator runs here. Start one: cmemu serve in a terminal, or %cmemu start in a notebook.\n"
    )


def test_one_that_is_not_found_by_its_file_needs_a_token(
    emu: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    assert run("call", "add", '{"x": 1}', CMEMU_URL=emu.url, CMEMU_TOKEN=emu.token).stdout == "3\n"
    assert run("call", "add", '{"x": 1}', "--url", emu.url, "--token", emu.token).stdout == "3\n"
    done = run("call", "add", '{"x": 1}', CMEMU_URL=emu.url)
    assert done.returncode == 2
    assert done.stderr == (
        f"cmemu call: The token of the emulator at {emu.url} is not known here. Set CMEMU_TOKEN, or give --token.\n"
    )


@pytest.mark.parametrize("url", ["127.0.0.1:4000", "https://h", "http://h:x", "http://h/lab", "http://[", ""])
def test_a_url_that_can_be_none_is_one_sentence(url: str) -> None:
    done = run_here("jobs", f"--url={url or 'http://'}", "--token", "a-token-of-mine")
    assert done.returncode == 2
    assert "can't be the URL of an emulator. Use the form http://HOST:PORT, as 'cmemu list' shows it.\n" in done.stderr
    assert "a-token-of-mine" not in done.stderr


def test_where_nobody_or_somebody_else_listens_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        thread = threading.Thread(target=lambda: _answer(other, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
        thread.start()
        done = run("jobs", "--url", url, "--token", "a-token-of-mine")
        thread.join()
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr == (
        f"cmemu jobs: The program that answers at {url} is not a cmemu_nb emulator. "
        "'cmemu list' shows the emulators that run here.\n"
    )
    done = run("jobs", "--url", url, "--token", "a-token-of-mine")
    assert done.returncode == 6
    assert done.stderr == f"cmemu jobs: No emulator answers at {url}. 'cmemu list' shows the emulators that run here.\n"


def _answer(listening: socket.socket, answer: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        assert b"a-token-of-mine" not in connection.recv(65_536)
        connection.sendall(answer)
