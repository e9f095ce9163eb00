"""The probes of launched programs: a replica gets jobs when it is ready, and is restarted when it does not work."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, alive, eventually, free_port
from test_scaling import WORKER

from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.errors import InvalidRequest, LaunchFailed
from cmemu_nb.executors.modules import modules, restarts
from cmemu_nb.lifecycle.configuration import Configuration

if TYPE_CHECKING:
    from pathlib import Path

    from cmemu_nb import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule

# Answers a GET with the status that its file holds, if it has the header of a probe.
SERVER = f"""
import http.server, pathlib, sys, threading
status = pathlib.Path(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        right = self.path == "/ready?q=1" and self.headers["X-Probe"] == "yes"
        self.send_response(int(status.read_text()) if right else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
{WORKER}"""


@pytest.fixture
def done(tmp_path: Path) -> str:
    """Return the path of a file that exists, which the worker's jobs wait for."""
    (tmp_path / "done").write_text("")
    return str(tmp_path / "done")


def launch(emu: Emulator, code: str, *words: object, **configuration: Any) -> LaunchedModule:
    emu.open_runtime("probed", RID)
    return emu.launch([sys.executable, "-c", code, *map(str, words)], "probed", **configuration)


def write(path: Path, text: str) -> None:
    """Replace a file at once, so that nobody reads a part of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def details(emu: Emulator, kind: str) -> list[str]:
    return [event.detail or "" for event in emu.lifecycle.events.recent() if event.kind == kind]


def test_a_replica_gets_jobs_when_its_readiness_probe_succeeds_and_none_while_it_fails(
    emu: Emulator, tmp_path: Path, done: str
) -> None:
    ready = tmp_path / "ready"
    probe = {"command": ["test", "-e", str(ready)], "period": 0.05, "failures": 2, "timeout": 30}
    module = launch(emu, WORKER, readiness_probe=probe)
    (replica,) = module.replicas
    eventually(lambda: module.unready and replica.replica.polls, "it polls, and its probe has failed")
    assert module.states == ["started"]
    why = f"test -e {ready} exited with code 1"
    with pytest.raises(LaunchFailed, match=re.escape(f": started. The readiness probe failed: {why}.")):
        module.wait_until_responsive(0.01)
    first = emu.submit("f", {"file": done}, RID)
    assert first.diagnosis == (
        f"'f' is queued: no replica of 'probed' is ready to get jobs, because its readiness probe fails: {why}."
    )
    assert shown(emu) == ("0 of 1", "started", "")
    ready.write_text("")
    assert first.result(30) == 1
    module.wait_until_responsive()
    assert module.unready == ""
    ready.unlink()
    eventually(lambda: module.states == ["unresponsive"], "its probe has failed twice")
    assert details(emu, "replica_unresponsive")[-1].endswith(f": its readiness probe failed 2 times: {why}")
    assert shown(emu) == ("0 of 1", "unresponsive", "amber")
    second = emu.submit("f", {"file": done}, RID)
    assert "is ready to get jobs" in second.diagnosis
    ready.write_text("")
    assert second.result(30) == 1
    # Only the changes are events.
    assert len(details(emu, "replica_ready")) - len(details(emu, "replica_unresponsive")) == 1
    module.stop()


def shown(emu: Emulator) -> tuple[str, str, str]:
    """Return what the dashboard shows of the only runtime's replicas: how many are responsive, the state and tone."""
    (row,) = runtimes_part(emu, time.time_ns())["rows"]
    (line,) = row["lines"]
    return row["replicas"], line["state"], line["tone"]


def test_http_probes_and_a_replica_whose_liveness_probe_fails_is_started_again(
    emu: Emulator, tmp_path: Path, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 0.005)
    port, status, dead = free_port(), tmp_path / "status", tmp_path / "dead"
    status.write_text("204")
    # It fails just twice when the file is there, so that the next process lives.
    probe = tmp_path / "alive.sh"
    probe.write_text(
        f"test -e {dead} || exit 0; if test -e {dead}2; then rm {dead} {dead}2; else touch {dead}2; fi; exit 1"
    )
    module = launch(
        emu,
        SERVER,
        *(port, status),
        readiness_probe={"path": "/ready?q=1", "port": port, "headers": {"X-Probe": "yes"}, "period": 0.05},
        liveness_probe={"command": f"sh {probe}", "period": 0.05, "failures": 2, "timeout": 30},
    )
    assert emu.call("f", {"file": done}, RID) == 1
    write(status, "500")
    eventually(lambda: module.states == ["unresponsive"], "500 is a failure")
    assert module.unready == f"GET :{port}/ready?q=1 answered 500"
    write(status, "302")
    eventually(lambda: module.states == ["responsive"], "302 is a success")
    (before,) = module.replicas
    dead.write_text("")
    eventually(lambda: before.exit_code is not None, "its liveness probe has failed")
    assert emu.call("f", {"file": done}, RID) == 1  # another process runs
    assert module.replicas[0] is not before
    why = f"(its liveness probe failed 2 times: sh {probe} exited with code 1) and starts again in 0.005 s"
    assert f"exited with code 143 {why}" in details(emu, "replica_exited")[-1]
    assert "WARNING: Replica 1 is ended, because its liveness probe failed 2 times: sh " in module.logs.text
    module.stop()
    assert module.unready == ""


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("sh -c 'echo $$ > pid; exec sleep 600'", "took longer than 0.3 s"),
        ("no-such-program", "no-such-program exited with code 127: no-such-program: No such file or directory"),
        ("sh -c 'echo $MAX_CONCURRENT_TASKS; exit 4'", "exited with code 4: 1"),
    ],
)
def test_a_command_that_hangs_or_fails_says_how_and_leaves_nothing(
    emu: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, why: str
) -> None:
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.01)
    probe = {"command": command, "timeout": 0.3 if "sleep" in command else 30, "period": 0.05}
    module = launch(emu, "import time; time.sleep(600)", readiness_probe=probe, cwd=str(tmp_path))
    eventually(lambda: module.unready.endswith(why), why)
    if "sleep" in command:
        pid = tmp_path / "pid"
        eventually(lambda: pid.exists() and pid.read_text(), "it has written its process id")
        module.stop()
        eventually(lambda: not alive(int(pid.read_text())), "it was ended")


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        (
            {},
            "readiness_probe of a module's configuration needs either a command, such as ['python', 'check.py'], or a",
        ),
        ({"command": "true", "port": 8000}, "needs either a command"),
        ({"command": []}, "readiness_probe.command of a module's configuration must be a command line, or a list of"),
        ({"command": "'"}, "readiness_probe.command of a module's configuration can't be split: No closing quotation."),
        ({"path": "/", "port": 80}, "readiness_probe.port of a module's configuration must be from 1024 to 65535, but"),
        ({"path": "/", "port": 8945}, "not 8945 or 8946, where modules find the runtime. It is 8945."),
        ({"path": "health", "port": 8000}, "readiness_probe.path of a module's configuration must begin with '/'"),
        ({"path": "/a b", "port": 8000}, "and be as in a URL"),
        ({"path": "/", "port": 8000, "headers": {"a": "b\r\nc"}}, "have a character that no header can have"),
        ({"path": "/", "port": 8000, "every": 1}, "readiness_probe of a module's configuration has no key 'every'."),
        (
            {"path": "/", "port": 8000, "period": 0},
            "readiness_probe.period of a module's configuration must be a number",
        ),
        ({"command": "true", "failures": 0}, "readiness_probe.failures of a module's configuration must be from 1 to"),
    ],
)
def test_a_probe_that_is_not_valid_is_refused(probe: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(why)):
        Configuration().changed({"readiness_probe": probe})


def test_a_probe_of_a_port_allows_one_replica_and_is_shown_in_words(emu: Emulator) -> None:
    probe = {"path": "/health", "port": 8000}
    for given in ({"replicas": 2}, {"scaling": {"max": 2}}):
        with pytest.raises(InvalidRequest, match="each further one would need port 8000, too"):
            emu.launch("python -c pass", "probed", liveness_probe=probe, **given)
    configured = Configuration().changed({"liveness_probe": probe, "readiness_probe": {"command": "test -e a"}})
    assert repr(configured) == "<Configuration: readiness_probe test -e a; liveness_probe GET :8000/health>"
