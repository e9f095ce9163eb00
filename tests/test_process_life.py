"""Launched programs end when they should: with the emulator, with its process however that ends, and never alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import pytest
import yaml
from client import alive, eventually
from journaled import process

from cmemu_nb import Emulator
from cmemu_nb.errors import InvalidRequest, LaunchFailed
from cmemu_nb.executors.modules import modules, nanny, restarts
from cmemu_nb.storage.private_files import KEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb.executors.modules.modules import LaunchedModule

SLEEPER = "import os, sys, time; print('pid', os.getpid(), flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
FAMILY = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); {SLEEPER}"


@pytest.fixture
def emu(serve: Callable[..., Any]) -> Iterator[Emulator]:
    threads = set(threading.enumerate())
    with serve() as emulator:
        yield emulator
    assert set(threading.enumerate()) <= threads


def pids(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("pid ")]


def launch(emu: Emulator, code: str, count: int = 1) -> list[int]:
    module = emu.launch(["python", "-c", code], "sleeper")
    eventually(lambda: len(pids(module.logs.text)) == count, "the program says its pid")
    return pids(module.logs.text)


@pytest.mark.parametrize(
    ("code", "count"), [(SLEEPER, 1), (STUBBORN, 1), (FAMILY, 2)], ids=["plain", "stubborn", "family"]
)
def test_stopping_the_emulator_ends_a_program_and_all_that_it_started(emu: Emulator, code: str, count: int) -> None:
    running = launch(emu, code, count)
    assert all(map(alive, running))
    emu.stop()
    eventually(lambda: not any(map(alive, running)), "they have ended")


def test_the_pid_of_a_replica_is_its_program_s(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 600)
    (pid,) = launch(emu, SLEEPER)
    (replica,) = emu.modules.of("sleeper")[0].replicas
    assert replica.pid == pid
    assert repr(replica) == f"<ReplicaProcess {replica.replica.replica_id!r}: pid {pid}, starting>"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: replica.exit_code is not None, "the replica has ended")
    assert not alive(pid)
    assert repr(replica).endswith(f"pid {pid}, backing off>")
    emu.modules["sleeper"].stop()
    assert repr(replica).endswith(f"pid {pid}, exited(137)>")


@pytest.mark.parametrize(("code", "count"), [(STUBBORN, 1), (FAMILY, 2)], ids=["stubborn", "family"])
def test_a_guard_that_is_killed_takes_its_program_along_and_all_that_it_started(
    emu: Emulator, code: str, count: int
) -> None:
    running = launch(emu, code, count)
    (replica,) = emu.modules.of("sleeper")[0].replicas
    os.kill(replica._process.pid, signal.SIGKILL)  # noqa: SLF001
    eventually(lambda: not any(map(alive, running)), "they have ended")
    eventually(lambda: replica.exit_code == 137, "the replica has ended")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no system call ends a program with its parent")
def test_a_program_ends_with_its_guard_also_when_nobody_looks(tmp_path: Path) -> None:
    read, write = os.pipe()
    leash, holder = os.pipe()
    command = [sys.executable, "-ISE", nanny.__file__, str(write), sys.executable, "-c", "import time; time.sleep(600)"]
    guard = subprocess.Popen(command, stdin=leash, pass_fds=[write], cwd=tmp_path)
    program = int(os.read(read, 100))
    guard.kill()
    guard.wait()
    eventually(lambda: not alive(program), "the program has ended")
    for descriptor in (read, write, leash, holder):
        os.close(descriptor)


def test_a_module_is_stopped_and_restarted_by_hand(emu: Emulator) -> None:
    (first,) = launch(emu, SLEEPER)
    (module,) = emu.modules.of("sleeper")
    module.restart()
    eventually(lambda: len(pids(module.logs.text)) == 2, "it has started again")
    assert not alive(first)
    module.stop()
    assert not module.running
    assert module.states == ["exited(143)"]
    assert not any(map(alive, pids(module.logs.text)))


def test_starting_and_stopping_leaves_no_listener_of_events_behind(emu: Emulator) -> None:
    listeners = len(emu.lifecycle.events._subscribers)  # noqa: SLF001
    launch(emu, SLEEPER)
    for _ in range(3):
        emu.stop()
        emu.start()
    assert len(emu.lifecycle.events._subscribers) == listeners  # noqa: SLF001


def test_killing_the_emulator_s_process_ends_its_programs() -> None:
    code = f"""
        import sys, time
        from cmemu_nb import Emulator
        emu = Emulator(port=0).start()
        module = emu.launch([sys.executable, "-c", {FAMILY!r}], "sleeper")
        while len(module.logs) < 2:
            time.sleep(0.01)
        print(module.logs.text, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        running = pids(process.stdout.readline() + process.stdout.readline())
        assert len(running) == 2
        assert all(map(alive, running))
        process.send_signal(signal.SIGKILL)
    eventually(lambda: not any(map(alive, running)), "they have ended")


SECRETS: dict[str, Any] = {
    "sources": {"db": {"password": "pa55word-of-the-source"}},
    "build2_token": "the-token-of-the-build",
    "aliases": {"data": {"rid": "ri.data"}},
}
FILES = {
    *("token", "service_discovery", "build2_token", "resource_alias_map"),
    *("source_credentials", "source_configurations_path"),
}


@pytest.mark.once
def test_what_a_program_was_given_in_files_is_deleted_when_it_ends_in_whatever_way(tmp_path: Path) -> None:
    folder, go = tmp_path / "run.db-files", tmp_path / "go"
    ends_by_itself = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"

    def given() -> set[str]:
        return {path.name.rpartition("-")[0] for path in folder.iterdir() if path.name not in KEPT}

    with Emulator(port=0, home="thread", journal=str(tmp_path / "run.db")) as emulator:

        def launched(code: str) -> LaunchedModule:
            module = emulator.launch([sys.executable, "-c", code], "sleeper", restart=False, **SECRETS)
            assert given() == FILES
            return module

        launched(ends_by_itself)
        go.touch()
        eventually(lambda: given() == set(), "the program has ended by itself")
        (pid,) = pids_of(launched(SLEEPER))
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: given() == set(), "the program was killed")
        launched(SLEEPER).stop()
        assert given() == set()
        module = launched(STUBBORN)
        module.restart()
        assert given() == FILES
        assert len([path for path in folder.iterdir() if path.name.startswith("token-")]) == 1
        emulator.runtime("sleeper").reset()
        eventually(lambda: module.states == ["starting"], "it was launched again")
        assert len([path for path in folder.iterdir() if path.name.startswith("token-")]) == 1
        by_hand = Path(emulator.env("sleeper", **SECRETS)["BUILD2_TOKEN"])
        module.stop()
        assert by_hand.read_text() == SECRETS["build2_token"]
        emulator.runtime("sleeper").delete()
        assert given() == set()
        emulator.open_runtime("mine")
        with pytest.raises(
            LaunchFailed, match=r"can't be started: Argument list too long\. Give it a smaller environment"
        ):
            emulator.launch(["python", "-c", ""], "mine", environment={"LARGE": "x" * 10_000_000})
        assert (given(), emulator.lifecycle.replicas("mine")) == (set(), [])
        launched(SLEEPER)
    assert given() == set()


def pids_of(module: LaunchedModule) -> list[int]:
    eventually(lambda: pids(module.logs.text), "the program says its pid")
    return pids(module.logs.text)


def test_what_a_killed_process_gave_to_its_programs_is_deleted_at_the_next_start(tmp_path: Path) -> None:
    journal, folder = tmp_path / "run.db", tmp_path / "run.db-files"
    with process(journal) as killed:
        killed.run(f"import sys; emu.launch([sys.executable, '-c', {SLEEPER!r}], 'sleeper', **{SECRETS!r})")
        by_hand = killed.run(f"answer = emu.env('sleeper', **{SECRETS!r})['BUILD2_TOKEN']")
        killed.kill()
    left = {path.name for path in folder.iterdir()} - set(KEPT)
    assert len(left) == 2 * len(FILES)
    with Emulator(port=0, home="thread", journal=str(journal)) as emulator:
        kept = {path.name.rpartition("-")[2] for path in folder.iterdir() if path.name not in KEPT}
        assert kept == {each.replica_id for each in emulator.lifecycle.replicas("sleeper")}
        assert Path(by_hand).read_text() == SECRETS["build2_token"]
        emulator.runtime("sleeper").reset()
        assert {path.name for path in folder.iterdir()} == set(KEPT)


def test_a_program_that_ends_at_once_is_an_error_with_its_exit_code_and_last_lines(emu: Emulator) -> None:
    with pytest.raises(LaunchFailed, match=r"ended at once, with exit code 3\. Its last lines:\nno config"):
        emu.launch(["python", "-c", "import sys; print('no config'); sys.exit(3)"])
    with pytest.raises(LaunchFailed, match=r"with exit code 0\. It wrote nothing\."):
        emu.launch("python -c pass")
    assert not emu.modules.any_running()


def bindings(emu: Emulator) -> set[tuple[str, str, str]]:
    return {(app.deployed_app_rid, app.branch, app.runtime_id) for app in emu.lifecycle.deployed_apps()}


def test_a_launch_that_fails_leaves_no_runtime_behind_and_every_app_where_it_was(emu: Emulator) -> None:
    app = "ri.foundry.main.deployed-app.sleeper"
    holder = emu.open_runtime("holder", app)
    queued = holder.enqueue("f")
    before = bindings(emu)
    for command in (["python", "-c", "raise SystemExit(3)"], ["no-such-program"]):
        for runtime in ("sleeper", "of-its-own"):
            with pytest.raises(LaunchFailed):
                emu.launch(command, runtime)
            assert [each.runtime_id for each in emu.lifecycle.runtimes()] == ["holder"]
            assert bindings(emu) == before
    # A runtime that was there stays as it is, with its jobs.
    with pytest.raises(LaunchFailed):
        emu.launch("false", holder)
    assert (queued.status, bindings(emu)) == ("queued", before)


def test_a_program_that_does_not_poll_is_an_error_with_its_state(emu: Emulator) -> None:
    launch(emu, SLEEPER)
    (module,) = emu.modules.of("sleeper")
    with pytest.raises(LaunchFailed, match=r"did not poll for jobs within 0\.1 s: starting\. Its last lines:\npid"):
        module.wait_until_responsive(0.1)


@pytest.mark.parametrize(
    ("command", "options", "error", "said"),
    [
        ("no-such-program x", {}, LaunchFailed, "There is no program 'no-such-program' on the PATH"),
        ("./no-such-program", {"cwd": "/"}, LaunchFailed, "There is no program './no-such-program' in '/'"),
        ("python app.py", {"cwd": "/no/such"}, LaunchFailed, "The directory '/no/such' does not exist"),
        ("", {}, InvalidRequest, r"launch\(\) needs a command"),
        ("python 'app.py", {}, InvalidRequest, r"can't be split into arguments: No closing quotation\. Close each"),
        ("python app.py \0", {}, InvalidRequest, "The command has a null character"),
        ("python app.py", {"replica": 2}, InvalidRequest, r"has no key .replica.\. Did you mean .replicas.\?"),
        (
            "python app.py",
            {"replicas": 0},
            InvalidRequest,
            "replicas of a module.s configuration must be from 1 to 10,000, not 0",
        ),
    ],
)
def test_what_can_not_be_launched_is_refused_in_one_sentence(
    emu: Emulator, command: str, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        emu.launch(command, **options)


def test_a_program_with_a_relative_path_is_found_from_its_directory(
    emu: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    script = folder / "start.sh"
    script.write_text("#!/bin/sh\npwd\nexec sleep 600\n")
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.0)
    monkeypatch.chdir(folder)
    with pytest.raises(LaunchFailed, match=r"'./start.sh' is not executable. Make it so: chmod \+x start.sh"):
        emu.launch("./start.sh")
    script.chmod(0o700)
    with pytest.raises(LaunchFailed, match=r"no program 'start.sh' on the PATH.*: './start.sh' runs it"):
        emu.launch("start.sh")
    module = emu.launch("./start.sh")
    assert module.runtime_id == "start"
    eventually(lambda: module.logs.text == str(folder), "it runs there")
    monkeypatch.chdir(tmp_path)
    for command, cwd in (("./start.sh", "app"), ("app/start.sh", None), ("./app/start.sh", str(tmp_path))):
        module = emu.launch(command, "start", cwd=cwd)
        eventually(lambda logs=module.logs, at=cwd: logs.text == str(tmp_path / (at or ".")), "it runs there")  # type: ignore[misc]


def test_lines_of_any_bytes_and_length_are_kept(emu: Emulator) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'\xff\n' + b'x' * 50_000 + b'\n{\"message\": 5}\nlast'); sys.exit(1)"
    with pytest.raises(LaunchFailed, match="last"):
        emu.launch(["python", "-c", code])


def test_the_environment_is_that_of_production_and_not_ours(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_ENV", "development")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    names = ("NODE_ENV", "FORCE_COLOR", "NO_PROXY", "MAX_CONCURRENT_TASKS", "MINE", "CLIENT_ID")
    code = f"import os; print(*(os.environ.get(name) for name in {names})); {SLEEPER}"
    module = emu.launch(
        ["python", "-c", code],
        "sleeper",
        max_concurrent_tasks=3,
        environment={"MINE": "mine"},
        client={"id": "the-client", "secret": "the-secret"},
    )
    eventually(lambda: len(module.logs) == 2, "it has spoken")
    assert module.logs.text.splitlines()[0] == "None None localhost,127.0.0.1,127.0.1.1,::1 3 mine the-client"


def test_the_environment_has_the_forms_of_the_platform(emu: Emulator) -> None:
    emu.open_runtime("bound", deployed_app_rid="ri.foundry.main.deployed-app.shop")
    emu.open_runtime("unbound")
    aliases = {"orders": {"rid": "ri.orders"}, "stream": {"rid": "ri.stream", "branch": "develop"}}
    bound, unbound = emu.env("bound", aliases=aliases), emu.env("unbound")
    assert emu.platform_url == f"https://{bound['RUNTIME_API']}"
    assert bound["FOUNDRY_COMPUTE_MODULE_RID"] == "ri.foundry.main.deployed-app.shop"
    assert unbound["FOUNDRY_COMPUTE_MODULE_RID"] == "ri.foundry.main.deployed-app.unbound"
    assert bound["FOUNDRY_URL"] == bound["FOUNDRY_HOSTNAME"] == bound["RUNTIME_API"]
    url = emu.platform_url
    assert yaml.safe_load(Path(bound["FOUNDRY_SERVICE_DISCOVERY_V2"]).read_text()) == {
        "api_gateway": [f"{url}/api"],
        "multipass": [f"{url}/multipass/api"],
        "stream_proxy": [f"{url}/stream-proxy/api"],
        "contour_backend_multiplexer": [f"{url}/contour-backend-multiplexer/api"],
        "foundry_mio": [f"{url}/mio/api"],
        "on_prem_proxy": [],
    }
    kind, _, session_id = bound["COMPUTE_SESSION_ID"].partition("-")
    (replica,) = emu.lifecycle.replicas("bound")
    assert (kind, str(uuid.UUID(session_id))) == ("ses", session_id)
    assert session_id.startswith(f"{replica.replica_id}-")
    assert json.loads(Path(bound["RESOURCE_ALIAS_MAP"]).read_text()) == {
        "orders": {"rid": "ri.orders", "branch": None},
        "stream": {"rid": "ri.stream", "branch": "develop"},
    }


def written_by(module: LaunchedModule) -> str:
    """Return the text that the program itself has written."""
    return "\n".join(line.message for line in module.logs if not line.by_emulator)


def test_a_program_finds_the_commands_of_its_interpreter_first(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    other = tmp_path / "python3"
    other.symlink_to(sys.executable)
    code = "import os, time; print(os.environ['PATH'], flush=True); time.sleep(600)"
    ours = str(Path(sys.executable).parent)
    for command, first in [
        (["sh", "-c", f'exec python -c "{code}"'], [ours]),
        ([str(other), "-c", code], [str(tmp_path)]),
    ]:
        module = emu.launch(command, "said")
        eventually(lambda module=module: written_by(module), "it has printed its PATH")  # type: ignore[misc]
        assert written_by(module).split(":") == [*first, "/usr/bin", "/bin"]
        module.stop()
    module = emu.launch(["python", "-c", code], "said", environment={"PATH": "/bin"})
    eventually(lambda: len(module.logs), "it has printed its PATH")
    assert module.logs.text == "/bin"


def test_curl_trusts_the_emulator_without_any_setting_in_a_shell_program(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURL_CA_BUNDLE", certifi.where())
    module = emu.launch(["sh", "-c", "curl -sS https://$FOUNDRY_URL/_emulate/health; echo; sleep 600"])
    eventually(lambda: written_by(module), "it has printed the answer")
    assert json.loads(written_by(module))["status"] == "ok"


def test_the_environment_for_a_terminal(emu: Emulator) -> None:
    emu.open_runtime("mine")
    first, second = emu.env("mine", 2), emu.env("mine")
    assert Path(first["MODULE_AUTH_TOKEN"]).read_text() != Path(second["MODULE_AUTH_TOKEN"]).read_text()
    script = f"{first.export_lines}\nenv"
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert f"GET_JOB_URI={emu.platform_url}/interactive-module/api/internal-query/job\n" in printed
    assert "MAX_CONCURRENT_TASKS=2\n" in printed
