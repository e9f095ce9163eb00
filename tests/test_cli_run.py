"""`cmemu run`, as real processes: the emulator with a program as a module of it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from cli_processes import CMEMU, run, serving, unread_pipe
from client import alive, eventually, free_port

from cmemu_nb.cli.parser import LATE

pytestmark = pytest.mark.once

MODULE = str(Path(__file__).parent / "programs" / "python_module.py")
BOOKS = Path(__file__).parent / "programs" / "book_server"
SLEEPER = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"
# A module in a few lines that start at once: it polls until a file is there, and ends with the code that it holds.
POLLER = """
import os, pathlib, ssl, sys, time, urllib.request
token = pathlib.Path(os.environ["MODULE_AUTH_TOKEN"]).read_text()
print("hello", os.environ.get("GREETING"), "\\x1b[2J", flush=True)
context = ssl.create_default_context(cafile=os.environ["DEFAULT_CA_PATH"])
request = urllib.request.Request(os.environ["GET_JOB_URI"], headers={"Module-Auth-Token": token})
urllib.request.urlopen(request, context=context).close()
file = pathlib.Path(sys.argv[1])
while not file.exists():
    time.sleep(0.01)
print("bye", flush=True)
sys.exit(int(file.read_text()))
"""


@pytest.fixture
def poller(tmp_path: Path) -> list[str]:
    (tmp_path / "poller.py").write_text(POLLER)
    return ["python", str(tmp_path / "poller.py"), str(tmp_path / "code")]


def test_a_real_module_is_called_as_it_says(tmp_path: Path) -> None:
    with serving("--", "python", MODULE, command="run", runtime_folder=tmp_path) as server:
        said = [server.output.readline()]
        while not said[-1].startswith("Call it"):
            said.append(server.output.readline())
        assert said[0] == f"python {MODULE} polls for jobs, as the runtime 'python_module'.\n"
        assert "  echo: anything -> string\n" in said
        words = shlex.split(said[-1].removeprefix("Call it from another terminal: "))
        assert words[:2] == ["cmemu", "call"]
        done = run("call", "echo", '{"a": 1}', JUPYTER_RUNTIME_DIR=str(tmp_path))
        assert (done.stdout, done.stderr) == ('{"a": 1}\n', "")
        server.end()
    assert server.process.returncode == 0


def test_a_server_without_an_sdk_is_called_as_it_says(tmp_path: Path) -> None:
    port = str(free_port())
    options = ("--openapi", "openapi.yaml", "--server-port", port, "--cwd", str(BOOKS))
    with serving(*options, "--", "python", "server.py", port, command="run", runtime_folder=tmp_path) as server:
        said = [server.output.readline()]
        while not said[-1].startswith("Call it"):
            said.append(server.output.readline())
        assert said[0] == f"python server.py {port} answers at http://localhost:{port}, as the runtime 'server'.\n"
        assert "  clear: anything -> boolean\n" in said
        done = run("call", "addBook", '{"body": {"title": "Dune"}}', JUPYTER_RUNTIME_DIR=str(tmp_path))
        assert (done.stdout, done.stderr) == ('"1"\n', "")
        _, errors = server.end()
    assert "adds Dune\n" in errors
    assert server.process.returncode == 0


def test_a_server_that_does_not_listen_or_has_no_document_is_said() -> None:
    port = str(free_port())
    never = ("--", "python", "-c", SLEEPER)
    done = failing("--ready-timeout", "0.1", "--openapi", str(BOOKS / "openapi.yaml"), "--server-port", port, *never)
    assert done.returncode == LATE
    assert f"did not answer at http://localhost:{port} within 0.1 s: waiting for port {port}." in done.stderr
    assert "SDK" not in done.stderr
    done = failing("--server-port", "8000", *never)
    assert "server of a module's configuration needs openapi." in done.stderr


def test_a_module_with_the_java_sdk_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIXED_PORT", "9")
    program = Path(MODULE).with_name("java_speaking_module.py")
    (tmp_path / "start.sh").write_text(f"exec {shlex.join([sys.executable, str(program), 'new'])}\n")
    words = ["--", "sh", str(tmp_path / "start.sh")]
    with serving(*words, command="run", runtime_folder=tmp_path) as server:
        while not server.output.readline().startswith("Call it"):
            pass
        done = run("call", "add", '{"x": 1, "y": 2}', JUPYTER_RUNTIME_DIR=str(tmp_path))
        assert (done.stdout, done.stderr) == ("3\n", "")
        for options in ([], ["--stream"]):
            done = run("call", *options, "fail", JUPYTER_RUNTIME_DIR=str(tmp_path))
            assert done.returncode != 0
            assert "java.lang.IllegalStateException: it failed\n\tat App.fail(App.java:12)\nCaused by" in done.stderr
        server.end()
    assert server.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_too(number: signal.Signals) -> None:
    with serving("--", "python", "-c", SLEEPER, command="run") as server:
        pid = int(server.errors.readline().split()[1])
        assert server.end(number) == ("", "")
        assert server.process.returncode == 0
    eventually(lambda: not alive(pid), "the program has ended")


def test_nobody_waits_for_a_stderr_that_is_not_read(poller: list[str]) -> None:
    """The program has written to it before it polls for jobs."""
    words = [*CMEMU, "run", "--port", "0", "--", *poller]
    with unread_pipe() as full, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=full, text=True) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline().split()[0] for _ in range(3)] == ["The", "python", "Call"]
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("code", [0, 3])
def test_a_program_that_ends_gives_its_exit_code_and_its_lines(poller: list[str], tmp_path: Path, code: int) -> None:
    options = ("--env", "GREETING=you=all", "--runtime", "mine", "--no-restart", "--", *poller)
    with serving(*options, command="run", runtime_folder=tmp_path) as server:
        assert server.output.readline().endswith("polls for jobs, as the runtime 'mine'.\n")
        assert server.output.readline() == "Call it from another terminal: cmemu call FUNCTION '{}'\n"
        (tmp_path / "code").write_text(str(code))
        server.process.wait(20)
        assert server.errors.read().splitlines() == [
            "hello you=all ␛[2J",
            "bye",
            f"cmemu run: {shlex.join(poller)} ended with exit code {code}.",
        ]
    assert server.process.returncode == code


def test_a_program_that_exits_is_started_again_as_it_says(poller: list[str], tmp_path: Path) -> None:
    with serving("--env", "GREETING=you", "--", *poller, command="run") as server:
        assert server.output.readline().endswith("polls for jobs, as the runtime 'poller'.\n")
        assert server.output.readline().startswith("Call it from another terminal: ")
        (tmp_path / "code").write_text("3")
        said = [server.errors.readline() for _ in range(3)]
        assert said[1:] == ["bye\n", "WARNING: Replica 1 exited (3) and starts again in 1 s.\n"]
        (tmp_path / "code").unlink()
        assert server.errors.readline() == said[0] == "hello you ␛[2J\n"
        (tmp_path / "code").write_text("4")
        assert [server.errors.readline() for _ in range(2)][1].endswith(
            "Replica 1 exited (4) and starts again in 2 s.\n"
        )
        # An interrupt while it backs off ends the command at once.
        assert server.end(signal.SIGINT) == ("", "")
    assert server.process.returncode == 0


def test_one_that_other_emulators_run_beside_says_which_to_call(poller: list[str], tmp_path: Path) -> None:
    with (
        serving(runtime_folder=tmp_path),
        serving("--", *poller, command="run", runtime_folder=tmp_path) as server,
    ):
        server.output.readline()
        assert server.output.readline().endswith(f"cmemu call FUNCTION '{{}}' --url {server.url}\n")


def failing(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("run", "--port", "0", *arguments)


def test_a_program_that_never_polls_is_one_sentence_after_a_while() -> None:
    done = failing("--ready-timeout", "0.1", "--", "python", "-c", SLEEPER)
    assert done.returncode == 4
    *_, said = done.stderr.splitlines()
    assert said.startswith("cmemu run: python -c ")
    assert "did not poll for jobs within 0.1 s: starting. Is it a module with an official SDK?" in said


def test_what_cant_be_launched_is_said() -> None:
    done = failing("--", "python", "-c", "import sys; print('no config'); sys.exit(7)")
    assert done.returncode == 7
    assert "no config\n" in done.stderr
    assert "with exit code 7." in done.stderr
    # Whether it has ended before launch() returns, which waits for a second, makes no difference.
    for code, expected in ((7, 7), (0, 3)):
        done = failing("--no-restart", "--", "python", "-c", f"import time, sys; time.sleep(1.2); sys.exit({code})")
        assert done.returncode == expected
        assert f"with exit code {code}." in done.stderr
    done = failing("--no-restart", "--", "python", "-c", "")
    assert (done.returncode, "with exit code 0." in done.stderr) == (3, True)
    done = failing("--", "no-such-program")
    assert done.returncode == 3
    assert done.stderr.startswith("cmemu run: There is no program 'no-such-program' on the PATH")


def test_a_module_that_raised_while_it_was_imported_is_said(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import compute_modules.annotations\nimport no_such_package\n")
    done = failing("--cwd", str(tmp_path), "--", "python", "app.py")
    assert done.returncode == 3
    said = (
        "cmemu run: python app.py raised an exception while it was imported, so it polls for jobs without any function."
    )
    assert said in done.stderr
    assert done.stderr.endswith("\nModuleNotFoundError: No module named 'no_such_package'\n")


def test_an_interrupt_ends_it_while_it_waits_for_the_program() -> None:
    command = [*CMEMU, "run", "--port", "0", "--ready-timeout", "600", "--", sys.executable, "-c", SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        pid = int(process.stderr.readline().split()[1])
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    eventually(lambda: not alive(pid), "the program has ended")


def test_a_program_whose_runtime_is_deleted_ends(poller: list[str]) -> None:
    with serving("--token", "t", "--", *poller, command="run") as server:
        server.output.readline()
        runtimes = f"{server.url}/_emulate/foundry/compute-modules/runtimes"
        headers = {"Authorization": "Bearer t"}
        assert requests.delete(f"{runtimes}/poller", headers=headers, timeout=10).status_code == 204
        assert server.process.wait(20) == 3
        said = server.errors.read().splitlines()[-1]
    assert said.startswith("cmemu run: the runtime 'poller' was deleted, so python ")
