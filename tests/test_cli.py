"""The command line, as real processes: what all commands share, and `cmemu serve`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cli_processes import CMEMU, run, run_here, serving, unread_pipe
from client import eventually
from traitlets import Bool, CaselessStrEnum, Float, Int, List

from cmemu_nb import Emulator, __version__, cli
from cmemu_nb.arguments import given_settings
from cmemu_nb.cli.serve import faults_reported
from cmemu_nb.data.seeds import read_seed
from cmemu_nb.notebook import commands
from cmemu_nb.settings import Settings
from cmemu_nb.storage import live_file

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

COMMANDS = {"serve", "run", "call", "cancel", "jobs", "runtimes", "schemas", "env", "export", "list", "lab", "ui"}
CONTOUR = "/contour-backend-multiplexer/api/module-group-multiplexer"
NO_JUPYTERLAB = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "jupyterlab":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from cmemu_nb.cli import main
sys.exit(main(["lab"]))
"""


def submit(url: str, token: str) -> int:
    job = {"deployedAppRid": "ri.foundry.main.deployed-app.none", "queryType": "add"}
    headers = {"Authorization": f"Bearer {token}"}
    return requests.post(f"{url}{CONTOUR}/deployed-apps/jobs", json=job, headers=headers, timeout=10).status_code


def test_behind_a_hub_it_also_says_where_a_browser_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/jo/")
    with serving() as served:
        output, errors = served.end()
    port = served.url.rpartition(":")[2]
    assert output == f"Through the hub, for requests with a token: /user/jo/proxy/{port}\n"
    assert errors == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_where_it_is_and_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    with serving() as server:
        health = requests.get(f"{server.url}/_emulate/health", timeout=10)
        assert health.json()["status"] == "ok"
        assert server.end(number) == ("", "")
        assert server.process.returncode == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{server.url}/_emulate/health", timeout=10)


def test_serve_ends_promptly_while_a_poll_is_held() -> None:
    with serving() as server:
        runtimes = f"{server.url}/_emulate/foundry/compute-modules/runtimes"
        session = requests.post(runtimes, json={"runtimeId": "r"}, timeout=10).json()
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as poll:
            poll.sendall(
                b"GET /_emulate/foundry/compute-modules/runtimes/r/job HTTP/1.1\r\nHost: localhost\r\n"
                b"Prefer: wait=60\r\nModule-Auth-Token: " + session["moduleAuthToken"].encode() + b"\r\n\r\n"
            )
            assert requests.get(f"{server.url}/_emulate/health", timeout=10).ok
            assert server.end() == ("", "")
            assert server.process.returncode == 0
            assert poll.recv(4096) == b""


def test_the_token_is_never_printed_into_a_pipe() -> None:
    with serving("--token", "a-token-of-mine") as server:
        assert submit(server.url, "a-token-of-mine") == 404
        assert submit(server.url, "another") == 401
        assert "a-token-of-mine" not in server.first_line + "".join(server.end())


def test_the_token_is_printed_when_asked_for() -> None:
    with serving("--print-token") as server:
        output, errors = server.end()
        assert output.startswith("Bearer token: ")
        assert len(output.split()[-1]) > 20
        assert output.count("\n") == 1
        assert errors == ""


def test_the_token_is_printed_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    command = [*CMEMU, "serve", "--port", "0", "--token", "a-token-of-mine"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        with os.fdopen(ours) as terminal:
            assert terminal.readline().startswith("The emulator is at http://127.0.0.1:")
            assert terminal.readline() == "Bearer token: a-token-of-mine\n"
            process.terminate()
            assert process.wait(20) == 0


def test_a_taken_port_is_no_error_and_the_warning_names_both() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with serving("--port", str(taken), "--tls-port", "0") as server:
            chosen = server.url.rpartition(":")[2]
            assert requests.get(f"{server.url}/_emulate/health", timeout=10).ok
            output, errors = server.end()
            assert server.process.returncode == 0
    assert output == ""
    assert errors == f"Warning: Port {taken} is in use; the emulator listens on port {chosen}.\n"


def test_listening_for_other_machines_says_what_that_exposes() -> None:
    with serving("--host", "0.0.0.0", "--allow-remote", "--token", "a-token-of-mine-0123") as server:
        port = server.url.rpartition(":")[2]
        output, errors = server.end()
    assert output == ""
    assert errors.startswith(f"Warning: The emulator listens on 0.0.0.0 port {port}, which other machines can reach.")
    assert errors.endswith("tokens, queries and results can be read on the way.\n")
    assert errors.count("\n") == 1
    assert "a-token-of-mine-0123" not in errors


def test_what_is_asked_wrongly_leaves_no_token_in_the_output() -> None:
    token = "a-token-of-mine-0123"
    with serving("--token", token, "--hide-tokens") as server:
        runtimes = f"{server.url}/_emulate/foundry/compute-modules/runtimes"
        session = requests.post(runtimes, json={"runtimeId": "r"}, timeout=10).json()
        for secret in (token, session["moduleAuthToken"]):
            for headers in (
                {"Host": secret},
                {"Origin": secret},
                {"Module-Auth-Token": secret, "X-Long": "x" * 70_000},
            ):
                with contextlib.suppress(requests.ConnectionError):
                    assert (
                        requests.get(f"{runtimes}/{secret}/job?{secret}", headers=headers, timeout=10).status_code
                        >= 400
                    )
        bearer = {"Authorization": f"Bearer {token}"}
        assert "module_auth_token" not in requests.get(runtimes, headers=bearer, timeout=10).text
        assert server.end() == ("", "")


def test_the_limits_reach_the_emulator() -> None:
    options = ("--max-connections", "1", "--max-waiting", "1", "--slow-client-seconds", "0.1", "--idle-seconds", "600")
    with serving(*options) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as first:
            assert requests.get(f"{server.url}/_emulate/health", timeout=10).status_code == 503
            first.sendall(b"GET /_emulate")
            assert first.recv(4096) == b""
        assert server.end() == ("", "")


def test_the_options_reach_the_emulator() -> None:
    options = ("--local-hostnames", "a.test", "--local-hostnames", "b.test", "--max-body-bytes", "10")
    with serving(*options, "--token", "t", "--execute-timeout", "0.05") as server:
        for host, status in {"a.test": 200, "b.test": 200, "c.test": 403}.items():
            health = requests.get(f"{server.url}/_emulate/health", headers={"Host": host}, timeout=10)
            assert health.status_code == status
        assert submit(server.url, "t") == 413


def typed(name: str) -> tuple[list[str], Any]:
    """Return the words that set a setting, and what it is then."""
    trait, flag = Settings.class_traits()[name], f"--{name.replace('_', '-')}"
    if isinstance(trait, Bool):
        return [flag], True
    if isinstance(trait, List):
        return [flag, "http://first", flag, "http://second"], ["http://first", "http://second"]
    if name == "host":
        return [flag, "127.0.0.2"], "127.0.0.2"
    if name == "ontology_rid":
        return [flag, "ri.ontology.main.ontology.a"], "ri.ontology.main.ontology.a"
    value = {Int: 7, Float: 0.5, CaselessStrEnum: [*(getattr(trait, "values", None) or [""])][-1]}.get(type(trait), "a")
    return [flag, str(value)], value


@pytest.mark.parametrize("name", Settings.class_trait_names(config=True))
def test_every_setting_is_an_option_of_the_commands_that_start_and_a_key_of_seed_files(
    name: str, tmp_path: Path
) -> None:
    words, value = typed(name)
    assert given_settings(commands.parse(f"start {' '.join(words)}", {})[1]) == {name: value}
    (tmp_path / "seed.yaml").write_text(json.dumps({"settings": {name: value}}))
    assert read_seed(tmp_path / "seed.yaml", {}).settings == {name: value}
    if not Settings.class_traits()[name].metadata.get("notebook_only"):
        for command in ("serve", "run"):
            options, rest = cli._parsers()[0].parse_known_args([command, *words])  # noqa: SLF001
            assert (given_settings(options)[name], rest) == (value, [])


def test_further_options_reach_the_emulator() -> None:
    options = ("--token", "first", "--tokens", "second", "--tokens", "third", "--job-timeout", "0.01")
    with serving(*options, "--tls-port", "0", "--tls") as server:
        platform = server.output.readline().split()[-1]
        authority = server.output.readline().removeprefix("Certificate authority: ").strip()
        health = requests.get(f"{platform}/_emulate/health", verify=authority, timeout=10)
        assert health.json() == requests.get(f"{server.url}/_emulate/health", timeout=10).json()
        assert [submit(server.url, token) for token in ("first", "second", "third", "fourth")] == [404, 404, 404, 401]
        assert server.end() == ("", "")


def test_a_synchronous_execute_waits_as_long_as_the_option_says() -> None:
    with serving("--token", "t", "--execute-timeout", "0.05") as server:
        app = {"deployedAppRid": "ri.a"}
        runtimes = f"{server.url}/_emulate/foundry/compute-modules/runtimes"
        requests.post(runtimes, json={"runtimeId": "r", **app}, timeout=10)
        answer = requests.post(
            f"{server.url}{CONTOUR}/compute-modules/jobs/execute",
            json={**app, "queryType": "add"},
            headers={"Authorization": "Bearer t"},
            timeout=10,
        )
        assert (answer.status_code, answer.json()["error"]) == (504, "job_timeout")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--frobnicate"], "cmemu serve: unknown arguments: --frobnicate."),
        (["serve", "4000"], "cmemu serve: unknown arguments: 4000."),
        (["serve", "--port", "many"], "cmemu serve: argument --port: invalid int value: 'many'."),
        (["serve", "--port", "70000"], "cmemu serve: A setting was refused: The value of the 'port' trait"),
        (["serve", "--max-body-bytes", "0"], "cmemu serve: A setting was refused: The value of the 'max_body_bytes'"),
        (["serve", "--host", "0.0.0.0"], "cmemu serve: Listening on 0.0.0.0 would let other machines connect."),
        (["serve", "--host", "no.such.invalid", "--allow-remote"], "cmemu serve: Listening on no.such.invalid port"),
        (["serve", "--token", " "], "cmemu serve: A token can't be sent in a header"),
        (["--frobnicate"], "cmemu: unknown arguments: --frobnicate."),
        (["start"], "cmemu: argument COMMAND: invalid choice: 'start'"),
        (["jobs", "--", "python"], "cmemu jobs: only 'cmemu run' takes a program after '--'."),
        (["jobs", "--last", "0"], "cmemu jobs: argument --last: 0 is less than 1."),
        (["run"], "cmemu run: the program is missing: cmemu run -- python app.py."),
        (["run", "app.py"], "cmemu run: unknown arguments: app.py. Write '--' before the program: cmemu run -- python"),
        (["run", "--env", "X", "--", "python"], "cmemu run: --env takes NAME=VALUE, not 'X'."),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_the_version_is_told() -> None:
    assert run("--version").stdout == f"cmemu_nb {__version__}\n"


def test_no_arguments_and_help_tell_the_commands() -> None:
    shown = run().stdout
    assert shown == run("--help").stdout
    for name in COMMANDS:
        assert f"\n    {name} " in shown


@pytest.mark.parametrize("command", sorted(COMMANDS - {"lab"}))
def test_the_help_of_a_command_has_an_example_and_the_exit_codes(command: str) -> None:
    shown = run_here(command, "--help").stdout
    assert f"cmemu {command}" in shown.partition("for example:")[2]
    assert "exit codes:\n  0  done" in shown


@pytest.mark.parametrize("command", ["call", "jobs", "list"])
def test_commands_start_without_what_only_notebooks_need(command: str, tmp_path: Path) -> None:
    code = "import sys; from cmemu_nb.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    words = [sys.executable, "-c", code, command, *(["add"] if command == "call" else [])]
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    modules = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout.split()
    assert "cmemu_nb.cli" in modules
    heavy = {"pandas", "numpy", "IPython", "ipywidgets", "anywidget", "trustme", "cryptography", "sqlite3"}
    assert heavy & set(modules) == set()


def test_the_help_of_serve_has_every_setting_with_its_default() -> None:
    text = " ".join(run("serve", "--help").stdout.split())
    assert "Port to listen on; a free port is used if it is taken or if it is 0. Default: 4000." in text
    assert "--execute-timeout SECONDS" in text


def test_the_command_is_installed() -> None:
    script = os.path.join(os.path.dirname(sys.executable), "cmemu")  # noqa: PTH118, PTH120
    assert subprocess.check_output([script, "--version"], text=True) == f"cmemu_nb {__version__}\n"


def test_lab_without_jupyterlab_says_how_to_install_it() -> None:
    done = subprocess.run([sys.executable, "-c", NO_JUPYTERLAB], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "JupyterLab can't be started: No module named 'jupyterlab'. Install it with: pip install 'cmemu_nb[lab]'\n"
    )


def test_faults_are_written_to_stderr_as_they_happen(capsys: pytest.CaptureFixture[str]) -> None:
    with Emulator(port=0) as emulator, faults_reported(emulator):
        emulator.change(lambda lifecycle: lifecycle.note("internal_error", detail="GET /x: a traceback"))
        emulator.change(lambda lifecycle: lifecycle.note("log", detail="tornado.general: odd"))
        emulator.open_runtime("r")
    assert capsys.readouterr().err == "internal_error: GET /x: a traceback\nlog: tornado.general: odd\n"


def test_nobody_waits_for_a_stderr_that_is_not_read() -> None:
    """Here it is full from the start, and every plain request to the TLS port is worth a line."""
    words = [*CMEMU, "serve", "--port", "0", "--tls", "--print-token"]
    with unread_pipe() as full, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=full, text=True) as process:
        assert process.stdout is not None
        url, _, platform = (process.stdout.readline().split()[-1] for _ in range(3))
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", int(platform.rpartition(":")[2].strip("/"))), 10) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    plain.recv(1)
        assert requests.get(f"{url}/_emulate/health", timeout=10).status_code == 200
        process.terminate()
        assert process.wait(20) == 0


def test_lines_that_anybody_can_cause_are_bounded_and_counted() -> None:
    with Emulator(port=0) as emulator:

        async def log() -> None:
            for number in range(5_000):
                logging.getLogger("tornado.general").warning("odd request %d", number)

        emulator.open_runtime("r")
        emulator.home.run(log())
    details = [event.detail for event in emulator.lifecycle.events.recent() if event.kind == "log"]
    assert details[0] == "tornado.general: odd request 0"
    assert details[20:] == ["4,980 more lines within the same second were left out"]


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("words", [["--help"], ["serve", "--port", "0"]])
def test_an_output_that_does_not_fit_on_the_disk_is_one_sentence(words: list[str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        process = subprocess.run(
            [*CMEMU, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=BUFFERED
        )
        silent = subprocess.run([*CMEMU, *words], stdout=full, stderr=full, timeout=60, check=False, env=BUFFERED)
    said = "cmemu: The output can't be written: No space left on device. Free some space, or write it elsewhere.\n"
    assert (process.returncode, process.stderr, silent.returncode) == (2, said, 2)


def test_a_reader_of_the_help_that_has_gone_away_is_no_error() -> None:
    unread, pipe = os.pipe()
    os.close(unread)
    done = subprocess.run(
        [*CMEMU, "--help"], stdout=pipe, stderr=subprocess.PIPE, timeout=60, check=False, env=BUFFERED
    )
    os.close(pipe)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed: str, tmp_path: Path) -> None:
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", *CMEMU]
    absent = [*words, "jobs", "--url", "http://127.0.0.1:1"]
    wrong = subprocess.run(absent, capture_output=True, timeout=60, check=False)
    assert b"Traceback" not in wrong.stderr
    assert wrong.stdout == b""
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    with subprocess.Popen([*words, "serve", "--port", "0"], stderr=subprocess.PIPE, env=environment) as process:
        try:
            eventually(
                lambda: list(tmp_path.glob(live_file.PATTERN)) or process.poll() is not None, "it runs, or ended"
            )
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(20)
        assert process.stderr is not None
        assert process.stderr.read() == b""
