"""The files by which other processes find the emulators that run."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cli_processes import run, serving

from cmemu_nb import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory that does not exist yet."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "share" / "runtime"))
    return tmp_path / "share" / "runtime"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def listed(**environment: str) -> list[Any]:
    return [json.loads(line) for line in run("list", "--json", **environment).stdout.splitlines()]


def test_an_emulator_is_found_while_it_runs(folder: Path, serve: Callable[..., Any]) -> None:
    with serve() as emulator:
        (path,) = folder.iterdir()
        assert path.name == f"cmemu-{os.getpid()}.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        found = json.loads(path.read_text())
        assert (found["url"], found["platform_url"]) == (emulator.url, emulator.platform_url)
        assert (found["token"], found["pid"], found["cwd"]) == (emulator.token, os.getpid(), os.getcwd())  # noqa: PTH109
        assert found["id"] == requests.get(f"{emulator.url}/_emulate/health", timeout=10).json()["id"]
        (shown,) = listed()
        assert shown == {name: value for name, value in found.items() if name != "token"}
        table = run("list").stdout
        assert emulator.url in table
        assert emulator.token not in table
    assert names(folder) == []


def test_several_emulators_of_one_process_have_a_file_each(folder: Path, serve: Callable[..., Any]) -> None:
    first, second, third = (f"cmemu-{os.getpid()}{number}.json" for number in ("", "-2", "-3"))
    with serve():
        with serve():
            assert names(folder) == sorted([first, second])
        with serve() as emulator:
            assert names(folder) == sorted([first, second])
            emulator.stop()
            emulator.start()
            with serve():
                assert names(folder) == sorted([first, second, third])
    assert names(folder) == []


def test_a_folder_that_cant_be_written_stops_no_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "file" / "runtime"))
    with Emulator(port=0, home="thread") as emulator:
        assert requests.get(f"{emulator.url}/_emulate/health", timeout=10).ok
        assert [event.kind for event in emulator.lifecycle.events.recent()][-1] == "live_file_failed"


def test_the_command_line_says_that_nobody_will_find_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with serving(runtime_folder=tmp_path / "file" / "runtime") as server:
        _, errors = server.end()
    assert errors.startswith("live_file_failed: NotADirectoryError: ")


def test_a_forked_child_removes_nothing(folder: Path) -> None:
    program = """
        import os, sys
        from cmemu_nb import Emulator
        emulator = Emulator(port=0, home="thread").start()
        if os.fork() == 0:
            emulator._live_file.close()
            sys.exit()  # with all that is to be done at exit
        os.wait()
        print(*os.listdir(os.environ["JUPYTER_RUNTIME_DIR"]))
    """
    code = "\n".join(line.removeprefix("        ") for line in program.splitlines())
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cmemu-")
    assert names(folder) == []  # at its own exit


def test_the_file_of_a_killed_process_is_cleaned_away(folder: Path) -> None:
    with serving() as server:
        (left,) = names(folder)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(20)
    assert names(folder) == [left]
    assert listed() == []
    assert names(folder) == []


def test_a_file_whose_port_another_emulator_has_is_cleaned_away(folder: Path, serve: Callable[..., Any]) -> None:
    with serve() as emulator:
        (path,) = folder.iterdir()
        stale = {**json.loads(path.read_text()), "id": "0" * 16}
        (folder / "cmemu-1.json").write_text(json.dumps(stale))
        assert [each["url"] for each in listed()] == [emulator.url]
        assert names(folder) == [path.name]


def test_what_is_not_ours_to_judge_is_left_alone(folder: Path, serve: Callable[..., Any]) -> None:
    with serve():
        (path,) = folder.iterdir()
        elsewhere = {**json.loads(path.read_text()), "hostname": "another-machine", "url": "http://127.0.0.1:1"}
        (folder / "cmemu-2.json").write_text(json.dumps(elsewhere))
        (folder / "cmemu-3.json").write_text("")
        (folder / "cmemu-4.json").write_text("[]")
        assert len(listed()) == 1
        assert names(folder) == sorted([path.name, "cmemu-2.json", "cmemu-3.json", "cmemu-4.json"])


def test_one_that_hangs_is_still_there(folder: Path) -> None:
    with serving() as server:
        server.process.send_signal(signal.SIGSTOP)
        try:
            assert [each["url"] for each in listed()] == [server.url]
        finally:
            server.process.send_signal(signal.SIGCONT)
        server.end()
    assert names(folder) == []


@pytest.mark.parametrize("answer", [b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status": "ok"}', b"SSH-2.0-x\r\n"])
def test_a_program_that_has_taken_the_port_is_never_told_the_token(
    folder: Path, serve: Callable[..., Any], answer: bytes
) -> None:
    with serve() as emulator:
        (path,) = folder.iterdir()
        found = json.loads(path.read_text())
    assert not emulator.running
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path.write_text(json.dumps({**found, "url": f"http://127.0.0.1:{port}"}))

        def serve_once() -> None:
            connection, _ = other.accept()
            with connection:
                heard.append(connection.recv(65_536))
                connection.sendall(answer)

        thread = threading.Thread(target=serve_once)
        thread.start()
        done = run("jobs")
        thread.join()
    assert found["token"].encode() not in heard[0]
    assert done.returncode == 6
    assert done.stderr.startswith("cmemu jobs: No emulator runs here. Start one: cmemu serve")
    assert names(folder) == []
