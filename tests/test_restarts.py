"""Replicas whose programs exit are started again: they back off, and not too often."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, alive, eventually
from test_cli_run import POLLER

from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.errors import JobFailed, LaunchFailed
from cmemu_nb.executors.modules import restarts
from cmemu_nb.executors.modules.restarts import MAX_RESTARTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule

# Polls once, says its process id, and ends with the code that its file holds, as soon as there is one.
PROGRAM = POLLER.replace('print("hello"', 'print("pid", os.getpid(), flush=True); print("hello"')


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return tmp_path / "code"


def launch(emu: Emulator, code: Path, **options: Any) -> LaunchedModule:
    return emu.launch([sys.executable, "-c", PROGRAM, str(code)], "poller", **options).wait_until_responsive()


def pids(module: LaunchedModule) -> list[int]:
    return [int(line.message.split()[1]) for line in module.logs if line.message.startswith("pid ")]


def kill(module: LaunchedModule, number: int = 1) -> None:
    process = module.replicas[number - 1]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: process.replica.revoked, "the replica has exited")
    module._engine.home.run(_nothing())  # noqa: SLF001 - the loop has done all that it does at an exit


async def _nothing() -> None:
    pass


@pytest.fixture
def exits(emu: Emulator) -> Callable[[], list[str]]:
    """Return what the events of this test say about replicas that have exited, without their ids."""
    since = emu.lifecycle.events.newest

    def details() -> list[str]:
        recent = emu.lifecycle.events.recent()
        new = [event.detail or "" for event in recent if event.sequence > since and event.kind == "replica_exited"]
        return [re.sub("replica [0-9a-f]{8} ", "", detail) for detail in new]

    return details


def test_a_replica_that_exits_backs_off_and_whatever_shows_it_says_so(
    emu: Emulator, code: Path, exits: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 600)
    emu.open_runtime("poller", RID)
    module = launch(emu, code, replicas=2)
    kill(module, 2)
    assert module.states == ["responsive", "backing off"]
    (row,) = runtimes_part(emu, time.time_ns())["rows"]
    ids = [process.replica.replica_id for process in module.replicas]
    shown = [(line["name"], line["state"], line["tone"], line["exit_code"], line["pid"]) for line in row["lines"]]
    assert shown == [
        (ids[0], "responsive", "", None, module.replicas[0].pid),
        (ids[1], "backing off", "amber", 137, None),
    ]
    assert (row["replicas"], row["slots"]) == ("1 of 2", "0/1")
    assert "next restart" in dict(row["facts"])
    assert repr(module).endswith(": responsive, backing off>")
    assert f"{ids[1]} backing off" in module._repr_mimebundle_()["text/plain"]
    assert module.logs.text.endswith("WARNING: Replica 2 exited (137) and starts again in 600 s.")
    kill(module, 1)
    assert exits() == ["exited with code 137 and starts again in 600 s"] * 2
    assert "backing off</" in emu.modules._repr_mimebundle_()["text/html"]
    said = (
        r"'f' is queued, and no replica of 'poller' takes jobs: replica 1 exited \(137\) and starts again in "
        r"\d{3} s; the last line that it wrote is 'hello None.*'\."
    )
    assert re.fullmatch(said, emu.submit("f", {}, RID).diagnosis)
    with pytest.raises(LaunchFailed, match=r"did not poll for jobs within 0\.1 s: backing off, backing off\."):
        module.wait_until_responsive(0.1)


def test_a_program_that_always_exits_is_started_a_few_times_only(
    emu: Emulator, code: Path, exits: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 0.005)
    module = launch(emu, code)
    code.write_text("3")
    assert module.wait_until_ended(30) == 3
    assert (module.states, module.ended) == (["exited(3)"], True)
    eventually(lambda: len(pids(module)) == 1 + MAX_RESTARTS, "every start has said its process id")
    *delays, last = exits()
    assert delays == [f"exited with code 3 and starts again in {0.005 * 2**n:g} s" for n in range(MAX_RESTARTS)]
    assert last == "exited with code 3 and is not started again, after 5 restarts in 10 minutes"
    assert module.logs.text.endswith(f"WARNING: Replica 1 {last.replace('with code 3', '(3)')}.")
    # A person may start it again, and it has as many restarts as at first.
    module.restart()
    assert module.wait_until_ended(30) == 3
    eventually(lambda: len(pids(module)) == 2 * (1 + MAX_RESTARTS), "every start has said its process id")
    with pytest.raises(LaunchFailed, match=r"ended, with exit code 3\. Its last lines:"):
        module.wait_until_responsive(1)


def test_what_exits_before_the_window_does_not_count(
    emu: Emulator, code: Path, exits: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 0.005)
    monkeypatch.setattr(restarts, "WINDOW_SECONDS", 0.0)
    module = launch(emu, code)
    for count in range(2, 3 + MAX_RESTARTS):
        kill(module)
        eventually(lambda count=count: len(pids(module)) == count, "it was started again")  # type: ignore[misc]
    assert set(exits()) == {"exited with code 137 and starts again in 0.005 s"}


def test_restart_false_leaves_a_program_that_exits_as_it_is(
    emu: Emulator, code: Path, exits: Callable[[], list[str]]
) -> None:
    module = launch(emu, code, restart=False)
    kill(module)
    assert (module.states, module.ended, exits()) == (["exited(137)"], True, ["exited with code 137"])


def test_a_job_of_a_replica_that_exits_fails_and_the_next_one_waits_for_its_successor(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 0.01)
    module = emu.launch(["python", str(Path(__file__).parent / "programs" / "crashing_module.py")], "crashing")
    app = "ri.foundry.main.deployed-app.crashing"
    job = emu.submit("exit", {"code": 4}, app)
    with pytest.raises(JobFailed, match=r"replica [0-9a-f]{8} exited with code 4"):
        job.result()
    assert job.logs == "runs exit\n"
    assert emu.call("echo", {"x": 1}, app, timeout=30) == {"x": 1}
    with pytest.raises(JobFailed, match=r"replica [0-9a-f]{8} exited with code 5"):
        emu.call("exit", {"code": 5}, app)
    assert module.wait_until_responsive().states == ["responsive"]


def test_stopping_while_it_backs_off_leaves_no_process_and_no_timer(
    serve: Any, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 600)
    with serve() as emu:
        module = launch(emu, code)
        timers = emu.home.loop._scheduled  # noqa: SLF001

        def restarts_due() -> int:
            return sum("_restart" in repr(timer) and not timer.cancelled() for timer in list(timers))

        kill(module)
        assert restarts_due() == 1
        module.stop()
        assert (restarts_due(), module.states) == (0, ["exited(137)"])
        module.restart()
        module.wait_until_responsive()
        kill(module)
        emu.runtime("poller").reset()  # launches it again, at once
        module.wait_until_responsive()
        kill(module)
        emu.runtime("poller").delete()
        eventually(lambda: not emu.modules.any_running(), "the module has ended")
        assert restarts_due() == 0
        module = launch(emu, code)
        kill(module)
        emu.stop()
        assert (restarts_due(), module.states) == (0, ["exited(137)"])
        assert not any(map(alive, pids(module)))


def test_a_launch_that_fails_at_once_starts_nothing_again(emu: Emulator, exits: Callable[[], list[str]]) -> None:
    with pytest.raises(LaunchFailed, match="ended at once, with exit code 3"):
        emu.launch([sys.executable, "-c", "import sys; sys.exit(3)"], "failing")
    assert exits() == ["exited with code 3"]
