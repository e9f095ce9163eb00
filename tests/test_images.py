"""Images as modules, with a `docker` whose containers are processes: no test machine need have a daemon.

A real podman has run an exported project this way; what only it shows, that the image's user may read the mounted
files, is shown here by their rights.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_processes import run, serving
from client import alive, eventually

from cmemu_nb import Emulator
from cmemu_nb.errors import LaunchFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

DOCKER = Path(__file__).parent / "programs" / "docker.py"
ORDERS = """
import os, sys
from compute_modules.annotations import function

@function
def which(context, event) -> dict[str, str]:
    names = "GREETING", "MODULE_AUTH_TOKEN", "DEFAULT_CA_PATH", "CMEMU_TEST_OUTSIDE"
    return {"arguments": " ".join(sys.argv[1:]), **{name: os.environ.get(name, "") for name in names}}

print("process", os.getpid(), flush=True)
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder on PATH with `docker`, and with a program for each image."""
    program = tmp_path / "docker"
    program.write_text(f"#!{sys.executable}\n{DOCKER.read_text()}")
    program.chmod(0o755)
    (tmp_path / "orders.py").write_text(ORDERS)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CMEMU_TEST_OUTSIDE", "not for containers")
    return tmp_path


@pytest.fixture
def emu() -> Iterator[Emulator]:
    with Emulator(port=0, home="thread") as emulator:
        yield emulator


def calls(docker: Path, verb: str) -> list[list[str]]:
    lines = (docker / "calls").read_text().splitlines()
    return [call for call in map(json.loads, lines) if call[0] == verb]


def container_of(docker: Path, call: list[str]) -> int:
    return int((docker / call[call.index("--name") + 1]).read_text())


def test_an_image_runs_as_a_module_with_its_own_user_and_ends_with_it(emu: Emulator, docker: Path) -> None:
    module = emu.launch(
        ["one", "two words"],
        image="host:5000/team/orders:0.1.0",
        environment={"GREETING": "hello"},
        readiness_probe={"command": "test -e /ready", "timeout": 30},
    )
    assert repr(module.wait_until_responsive(30)).startswith(
        "<Module 'orders': docker run host:5000/team/orders:0.1.0 one 'two words': "
    )
    given: dict[str, str] = emu.call("which")
    assert (given["arguments"], given["GREETING"], given["CMEMU_TEST_OUTSIDE"]) == ("one two words", "hello", "")
    mounted = json.loads((docker / "mounted").read_text())
    folder = Path(mounted["folder"])
    assert (folder.parent, folder.stat().st_mode & 0o777) == (emu.files.path, 0o755)
    assert emu.files.path.stat().st_mode & 0o777 == 0o700  # other users of this machine do not reach the folder
    assert {Path(given[name]).parent for name in ("MODULE_AUTH_TOKEN", "DEFAULT_CA_PATH")} == {folder}
    assert set(mounted["rights"].values()) == {"0o755", "0o644"}
    [call] = calls(docker, "run")
    assert "--user" not in call
    assert call[call.index("--network") + 1] == "host"
    assert Path(given["MODULE_AUTH_TOKEN"]).read_text() not in " ".join(call)
    assert "process" in module.logs.text
    name = f"cmemu-{module.replicas[0].replica.replica_id}"
    assert calls(docker, "exec")[0] == ["exec", name, "test", "-e", "/ready"], "the probe runs in the container"
    (docker / "invoices.py").write_text(ORDERS)
    module.upgrade(image="invoices:0.2.0")
    assert emu.call("which")["arguments"] == "one two words"
    calls_of_both = calls(docker, "run")
    assert calls_of_both[1][-3:] == ["invoices:0.2.0", "one", "two words"]
    first, pid = (container_of(docker, each) for each in calls_of_both)
    eventually(lambda: not alive(first), "the container of the first image has ended")
    module.stop()
    eventually(lambda: not alive(pid), "the container, which ignores SIGTERM, was killed")
    assert not folder.exists()
    names = [each[each.index("--name") + 1] for each in calls_of_both]
    eventually(lambda: calls(docker, "kill") == [["kill", name] for name in names], "both were killed")


def test_a_line_for_a_terminal_runs_the_image_as_its_own_user(emu: Emulator) -> None:
    emu.open_runtime("orders")
    environment = emu.env("orders")
    line = environment.docker_line("orders:1")
    assert line.startswith(f"docker run --rm --network host -v {emu.files.path}/container-")
    assert line.endswith(" orders:1")
    assert "--user" not in shlex.split(line)
    token = next(word for word in shlex.split(line) if word.startswith("MODULE_AUTH_TOKEN=")).partition("=")[2]
    assert Path(token).read_text() == Path(environment["MODULE_AUTH_TOKEN"]).read_text()
    assert Path(token).parent.stat().st_mode & 0o777 == 0o755
    emu.reset()
    assert not Path(token).parent.exists()


def test_without_docker_and_podman_a_sentence_says_what_to_do(emu: Emulator, docker: Path) -> None:
    (docker / "silent").write_text("Cannot connect to the Docker daemon. Is the docker daemon running?")
    with pytest.raises(LaunchFailed) as refused:
        emu.launch(image="orders:1")
    assert str(refused.value) == (
        "The image 'orders:1' can't be run: Docker does not answer (Cannot connect to the Docker daemon. Is the docker "
        "daemon running?), and podman is not installed. Start Docker, install podman, or run the program without its "
        "image: cmemu run -- python app.py"
    )
    (docker / "docker").unlink()
    with pytest.raises(LaunchFailed, match=r"Docker is not installed, and podman is not installed\. Start Docker"):
        emu.launch(image="orders:1")
    assert emu.lifecycle.runtimes() == []


def test_the_command_line_runs_an_image_until_a_signal(docker: Path, tmp_path: Path) -> None:
    with serving("--image", "orders:0.1.0", "--", "one", command="run", runtime_folder=tmp_path) as server:
        assert server.output.readline() == "docker run orders:0.1.0 one polls for jobs, as the runtime 'orders'.\n"
        done = run("call", "which", JUPYTER_RUNTIME_DIR=str(tmp_path))
        assert json.loads(done.stdout)["arguments"] == "one"
        server.end(signal.SIGTERM)
    assert server.process.returncode == 0
    pid = container_of(docker, calls(docker, "run")[0])
    eventually(lambda: not alive(pid), "the container has ended")
