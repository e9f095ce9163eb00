"""Upgrades of launched modules, and replicas that have lived long enough: new ones take over, and no job is lost."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, eventually
from conftest import end_programs

from cmemu_nb import Scaling
from cmemu_nb.arguments import add_launch, given_configuration
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.errors import InvalidRequest, LaunchFailed, NotRunning
from cmemu_nb.executors.modules import replacements, restarts
from cmemu_nb.lifecycle.configuration import Configuration
from cmemu_nb.lifecycle.scaling import Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmemu_nb import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.executors.modules.process import ReplicaProcess

# Answers with its version, one job at a time. The first argument is the version, the second a file that it waits for
# before it polls, and the third one that a job with {"wait": true} waits for; "" for none. The version "broken" has
# raised an exception while it was imported, before it had any function, and "half" after its first one.
WORKER = """
import json, os, pathlib, ssl, sys, time, urllib.request
version, start, end = sys.argv[1:]
token = pathlib.Path(os.environ["MODULE_AUTH_TOKEN"]).read_text()
context = ssl.create_default_context(cafile=os.environ["DEFAULT_CA_PATH"])
def send(url, data=None):
    request = urllib.request.Request(url, data, {"Module-Auth-Token": token, "Content-Type": "application/json"})
    with urllib.request.urlopen(request, context=context) as answer:
        return answer.read()
def wait_for(file):
    while file and not os.path.exists(file):
        time.sleep(0.01)
print("version", version, "starts", flush=True)
output = {"type": "string", "string": {}}
names = {"broken": [], "half": ["f"]}.get(version, ["f", version])
schemas = [{"functionName": name, "inputs": [], "output": output} for name in names]
if version in ("broken", "half"):
    print('Traceback (most recent call last):\\n  File "app.py", line 9, in <module>')
    print("ValueError:", version, flush=True)
send(os.environ["POST_SCHEMA_URI"], json.dumps(schemas).encode())
wait_for(start)
while True:
    if polled := send(os.environ["GET_JOB_URI"]):
        job = json.loads(polled)["computeModuleJobV1"]
        if job["query"].get("wait"):
            wait_for(end)
        send(os.environ["POST_RESULT_URI"] + "/" + job["jobId"], json.dumps(version).encode())
"""


@pytest.fixture(autouse=True)
def programs_end(emu: Emulator) -> Iterator[None]:
    yield
    end_programs(emu)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return path


@pytest.fixture
def worker(program: Path) -> Callable[..., list[str]]:
    """Return the command of a version of the program."""

    def command(version: str, start: Path | str = "", end: Path | str = "") -> list[str]:
        return [sys.executable, str(program), version, str(start), str(end)]

    return command


def fails(text: str) -> list[str]:
    return [sys.executable, "-c", f"print('loading'); raise SystemExit({text!r})"]


@pytest.fixture
def events(emu: Emulator) -> Callable[[], list[str]]:
    """Return the kinds and details of this test's events about upgrades."""
    since = emu.lifecycle.events.newest

    def found() -> list[str]:
        new = [each for each in emu.lifecycle.events.recent() if each.sequence > since]
        kinds = ("upgrade_began", "replicas_switched", "switch_failed")
        return [f"{each.kind}: {each.detail}" for each in new if each.kind in kinds]

    return found


def launch(emu: Emulator, *command: str, **options: Any) -> LaunchedModule:
    emu.open_runtime("worker", RID)
    return emu.launch(list(command), "worker", **options).wait_until_responsive()


def only(module: LaunchedModule, state: str, number: int = 1) -> None:
    eventually(lambda: module.states == [state] * number, f"only {number} {state} are left: {module.states}")


def test_an_upgrade_loses_and_doubles_no_job_of_a_steady_stream(
    emu: Emulator, worker: Callable[..., list[str]], events: Callable[[], list[str]], tmp_path: Path
) -> None:
    end = tmp_path / "end"
    module = launch(emu, *worker("old", end=end), replicas=2)
    old = [process.replica.replica_id for process in module.replicas]
    long_job = emu.submit("f", {"wait": True}, RID)
    eventually(lambda: long_job.status == "running", "an old replica has a job that takes long")
    done, answers = threading.Event(), list[Any]()

    def stream() -> None:
        while not done.is_set():
            answers.append(emu.call("f", {}, RID))

    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(stream) for _ in range(2)]
        try:
            eventually(lambda: answers, "the old version answers")
            assert module.upgrade(worker("new")) is module
            switched_at = emu.lifecycle.now()
            # The old replica finishes the job that it has, and gets no other one.
            assert "decommissioned" in module.states
            assert emu.call("f", {}, RID) == "new"
            eventually(lambda: "new" in answers, "the new version answers")
        finally:
            done.set()
        for each in streams:
            each.result(30)
    assert long_job.status == "running"
    end.write_text("")
    assert long_job.result(30) == "old"
    only(module, "responsive", 2)
    assert set(answers) == {"old", "new"}
    jobs = emu.lifecycle.jobs()
    assert {job.status for job in jobs} == {"succeeded"}
    assert len(jobs) == len(answers) + 2
    versions = Counter(json.loads(job.result or b"") for job in jobs)
    assert versions["old"] == sum(job.replica_id in old for job in jobs)
    assert all(job.result == b'"new"' for job in jobs if (job.started_at or 0) > switched_at)
    assert not any("replica" in (job.error_message or "") for job in jobs)
    began, switched = events()
    assert began.startswith("upgrade_began: from python ")
    assert all(replica_id in switched for replica_id in old)
    assert module.command.endswith(" new '' ''")


def test_an_upgrade_that_fails_leaves_the_old_replicas_serving_and_says_why(
    emu: Emulator, worker: Callable[..., list[str]], events: Callable[[], list[str]], tmp_path: Path
) -> None:
    module = launch(emu, *worker("old"))
    (old,) = module.replicas
    command = module.command
    with pytest.raises(
        LaunchFailed, match=r"was not upgraded to .* ended before it polled for jobs, with exit code 1"
    ) as no:
        module.upgrade(fails("no database"))
    assert str(no.value).endswith("The last lines of the new ones:\nloading\nno database")
    only(module, "responsive")
    with pytest.raises(LaunchFailed, match="raised an exception while it was imported, so it polls without any") as no:
        module.upgrade(worker("broken"))
    assert str(no.value).endswith("ValueError: broken")
    assert emu.lifecycle.runtime("worker").import_error == ""
    never = tmp_path / "never"
    with pytest.raises(LaunchFailed, match=r"did not poll for jobs within 0\.5 s: start(ed|ing)\."):
        module.upgrade(worker("stuck", start=never), timeout=0.5)
    with pytest.raises(LaunchFailed, match="There is no program 'no-such-program' on the PATH"):
        module.upgrade("no-such-program --fast")
    with pytest.raises(LaunchFailed, match="The directory '/no/such' does not exist"):
        module.upgrade(cwd="/no/such")
    with pytest.raises(InvalidRequest, match="takes no jobs that a new one could take over"):
        module.upgrade(mode="pipeline")
    with pytest.raises(InvalidRequest, match="'replicaz'"):
        module.upgrade(replicaz=2)
    only(module, "responsive")
    assert module.replicas == [old]
    assert (module.command, emu.call("f", {}, RID)) == (command, "old")
    # What the failed ones have posted is not the runtime's.
    assert [schema.function_name for schema in emu.lifecycle.schemas("worker")] == ["f", "old"]
    kinds = [each.partition(":")[0] for each in events()]
    assert kinds == ["upgrade_began", "switch_failed"] * 3
    assert events()[1].endswith("no database")
    # The same program again, as after a change of its file or its configuration.
    emu.configure("worker", environment={"COLOUR": "red"}, replicas=2)
    module.upgrade()
    only(module, "responsive", 2)
    assert module.configuration.environment == {"COLOUR": "red"}
    module.stop()
    with pytest.raises(InvalidRequest, match="was stopped, so it can't be upgraded"):
        module.upgrade()


def test_the_functions_become_those_of_the_new_version_when_it_takes_over(
    emu: Emulator, worker: Callable[..., list[str]], tmp_path: Path
) -> None:
    start = tmp_path / "start"
    module = launch(emu, *worker("half"))
    assert "ValueError: half" in emu.lifecycle.runtime("worker").import_error
    with ThreadPoolExecutor(1) as pool:
        upgrade = pool.submit(module.upgrade, worker("new", start=start), max_concurrent_tasks=2)
        new = on_standby(module)
        assert (new.state, module.states[0]) == ("started", "responsive")
        assert [schema.function_name for schema in emu.lifecycle.schemas("worker")] == ["f"]
        (row,) = [row for row in runtimes_part(emu, time.time_ns())["rows"] if row["key"] == "worker"]
        assert dict(row["facts"])["upgrade"].startswith("to python ")
        assert [line["state"] for line in row["lines"]] == ["responsive", "started"]
        assert [line["slots"] for line in row["lines"]] == ["0/1", ""]
        assert row["slots"] == "0/1"
        with pytest.raises(InvalidRequest, match=r"is being upgraded to python .* already"):
            module.upgrade(worker("third"))
        start.write_text("")
        upgrade.result(30)
    assert sorted(schema.function_name for schema in emu.lifecycle.schemas("worker")) == ["f", "new"]
    assert emu.lifecycle.runtime("worker").import_error == ""
    assert new.replica.max_concurrent_tasks == 2
    only(module, "responsive")


def on_standby(module: LaunchedModule) -> ReplicaProcess:
    """Return the new replica of a module that is being upgraded, when it has posted its schemas."""

    def found() -> list[ReplicaProcess]:
        return [each for each in list(module.replicas) if each.replica.standby and each.replica.schemas]

    return eventually(found, "the new replica has posted its schemas")[0]


@pytest.mark.parametrize("what", ["reset", "delete", "restart", "stop", "interrupt"])
def test_whatever_happens_during_an_upgrade_leaves_no_new_replica_behind(
    emu: Emulator, worker: Callable[..., list[str]], what: str, tmp_path: Path
) -> None:
    module = launch(emu, *worker("old"))
    with ThreadPoolExecutor(1) as pool:
        upgrade = pool.submit(module.upgrade, worker("new", start=tmp_path / "never"))
        new = on_standby(module)
        if what == "reset":
            emu.runtime("worker").reset()
        elif what == "delete":
            emu.runtime("worker").delete()
        elif what == "interrupt":
            emu.home.run(cancel_upgrade())
        else:
            getattr(module, what)()
        with pytest.raises((LaunchFailed, NotRunning)) as failed:
            upgrade.result(30)
    eventually(lambda: new.exit_code is not None, "the new replica has ended")
    if what in ("delete", "stop"):
        eventually(lambda: not module.running, "the old replica has ended, too")
        return
    only(module, "responsive")
    if what == "reset":
        assert "was not upgraded to" in str(failed.value)
        assert "the runtime session was reset" in str(failed.value)
    assert emu.call("f", {}, RID) == "old"
    assert new not in module.replicas


async def cancel_upgrade() -> None:
    """Cancel what an interrupt of the cell would cancel: the coroutine that the cell waits for."""
    for task in asyncio.all_tasks():
        if "LaunchedModule._upgrade" in repr(task):
            task.cancel()


def test_an_upgrade_takes_precedence_over_the_replacement_of_a_replica(
    emu: Emulator, worker: Callable[..., list[str]], events: Callable[[], list[str]], program: Path
) -> None:
    module = launch(emu, *worker("v"), max_lifetime=72_000)
    (old,) = module.replicas
    program.write_text(WORKER.replace("wait_for(start)", "time.sleep(600)"))
    emu.home.run(expire(module, old))
    new = on_standby(module)
    program.write_text(WORKER)
    module.upgrade(worker("new"))
    only(module, "responsive")
    assert not {old, new} & set(module.replicas)
    assert emu.call("f", {}, RID) == "new"
    assert [each.partition(":")[0] for each in events()] == ["upgrade_began", "replicas_switched"]


def test_an_upgrade_mends_a_module_that_exits_again_and_again(
    emu: Emulator, worker: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 600)
    module = launch(emu, *worker("old"))
    os.kill(module.replicas[0].pid or 0, signal.SIGKILL)
    only(module, "backing off")
    job = emu.submit("f", {}, RID)
    module.upgrade(worker("new"))
    assert job.result(30) == "new"
    only(module, "responsive")
    assert not module.backing_off


def test_a_replica_that_has_lived_long_enough_is_replaced_before_it_ends(
    emu: Emulator, worker: Callable[..., list[str]], events: Callable[[], list[str]], tmp_path: Path
) -> None:
    end = tmp_path / "end"
    module = launch(emu, *worker("v", end=end), max_lifetime=72_000, replicas=2)
    assert "max_lifetime 72000 s" in repr(module.configuration)
    first, second = module.replicas
    job = emu.submit("f", {"wait": True}, RID)
    eventually(lambda: first.replica.held or second.replica.held, "a replica has the job")
    old, other = (first, second) if first.replica.held else (second, first)
    emu.home.run(expire(module, old))
    eventually(lambda: old.state == "decommissioned", "another one has taken its place")
    assert other.state == "responsive"
    emu.home.run(expire(module, other))
    eventually(lambda: len(events()) == 2, "both are replaced")
    assert f"replica {old.replica.replica_id} has lived for 72000 s (max_lifetime) and is replaced" in events()[0]
    end.write_text("")
    assert job.result(30) == "v"
    only(module, "responsive", 2)
    assert not {old, other} & set(module.replicas)
    assert emu.call("f", {}, RID) == "v"


async def expire(module: LaunchedModule, process: ReplicaProcess) -> None:
    """Let a replica have lived long enough."""
    timer = module._replacements._lives[process]  # noqa: SLF001 - nobody waits for 20 hours
    assert 71_000 < timer.when() - asyncio.get_running_loop().time() <= 72_000
    timer.cancel()
    module._replacements._on_end_of_life(process)  # noqa: SLF001


def test_a_replica_is_not_replaced_by_one_that_fails_and_it_is_tried_again(
    emu: Emulator, worker: Callable[..., list[str]], events: Callable[[], list[str]], program: Path
) -> None:
    module = launch(emu, *worker("v"), max_lifetime=72_000)
    (old,) = module.replicas
    program.write_text("raise SystemExit('broken')")
    emu.home.run(expire(module, old))
    eventually(lambda: len(events()) == 1, "the replacement has failed")
    assert events()[0].startswith("switch_failed: replica ")
    assert "has lived for 72000 s (max_lifetime) and was not replaced" in events()[0]
    assert events()[0].endswith("\nbroken")
    only(module, "responsive")
    assert emu.call("f", {}, RID) == "v"
    program.write_text(WORKER)
    retry = module._replacements._lives[old]  # noqa: SLF001
    assert 0 < retry.when() - time.monotonic() <= replacements.RETRY_SECONDS
    module.upgrade()  # a new one is begun anew
    only(module, "responsive")
    assert old not in module.replicas
    assert list(module._replacements._lives) == module.replicas  # noqa: SLF001


def test_a_scaled_module_is_upgraded_with_as_many_replicas_as_it_has(
    emu: Emulator, worker: Callable[..., list[str]]
) -> None:
    module = launch(emu, *worker("old"), scaling=Scaling(2, 3))
    module.upgrade(worker("new"))
    only(module, "responsive", 2)
    assert emu.lifecycle.scale_of("worker") == Scale(2, 2, 3)
    module.upgrade(scaling=Scaling(0, 1))
    assert emu.lifecycle.scale_of("worker") == Scale(1, 0, 1)
    only(module, "responsive")
    assert emu.call("f", {}, RID) == "new"


@pytest.mark.parametrize("value", [0, -1, "a day", True, float("inf")])
def test_a_lifetime_is_a_number_of_seconds(emu: Emulator, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="max_lifetime of a module's configuration must be"):
        emu.launch("python -c pass", "worker", max_lifetime=value)
    with pytest.raises(InvalidRequest, match="This program takes no jobs"):
        emu.launch("python -c pass", "worker", max_lifetime=1, mode="pipeline")


def test_a_lifetime_is_an_option_of_a_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_launch(parser)
    given = given_configuration(parser.parse_args(["--max-lifetime", "72e3"]))
    assert Configuration().changed(given).max_lifetime == 72_000
    with pytest.raises(SystemExit):
        parser.parse_args(["--max-lifetime", "long"])
    assert "invalid float value: 'long'" in capsys.readouterr().err
