"""A soak: many clients, resets, broken connections, faults and kills at once, and nothing that was told gets lost.

`tests/run --long` has the full figures: 100,000 jobs of 64 clients. It prints what became of every job, and memory and
open files before and after.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from client import RUNTIMES, Api, eventually
from journaled import Process, process
from soak import RIDS, Application, Chaos, Executor, Plan, Tally

if TYPE_CHECKING:
    from soak import Client

pytestmark = pytest.mark.once

LONG = bool(os.environ.get("CMEMU_LONG"))
JOBS, CLIENTS, KILLS = (100_000, 64, 20) if LONG else (1_500, 24, 3)
STANDING_FILES = 24  # more than the emulator, its journal and the pipes to this test need
SETTINGS = {"keep_jobs": JOBS // 5, "job_timeout": 2.0, "execute_timeout": 20.0}
FAULTS = (
    "emu.faults(delay=(0, 0.005), error_rate=0.02, drop_result=0.002, duplicate_dispatch=0.02, reject_poll=0.02, "
    "disconnect=0.02, seed=6)"
)


def crew(plan: Plan, tally: Tally) -> list[threading.Thread]:
    """Start the clients: half of them applications, the others executors, and a few that make trouble."""
    clients: list[Client] = [Application(plan, tally, number) for number in range(CLIENTS // 2)]
    clients += [Executor(plan, tally, number) for number in range(CLIENTS // 2 - 3)]
    clients += [Chaos(plan, tally, number) for number in range(3)]
    threads = [threading.Thread(target=client.work, name=type(client).__name__) for client in clients]
    for thread in threads:
        thread.start()
    return threads


def size(emulator: Process) -> tuple[float, int]:
    """Return the process's memory in MB, and how many files it has open."""
    folder = Path(f"/proc/{emulator.popen.pid}")
    [line] = [line for line in (folder / "status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024, len(list((folder / "fd").iterdir()))


def left(emulator: Process) -> int:
    """Return how many jobs are queued or running."""
    code = "answer = sum(n for status, n in emu.lifecycle.count().items() if status in ('queued', 'running'))"
    return int(emulator.run(code))


@pytest.mark.timeout(3600)
def test_nothing_is_lost_whatever_happens_at_once(tmp_path: Path) -> None:
    tally, start = Tally(), time.monotonic()
    journal = tmp_path / "soak.db"
    plan = Plan("", "", [], JOBS)
    threads: list[threading.Thread] = []
    for life in range(KILLS + 1):
        with process(journal, **SETTINGS) as emulator:
            emulator.run(FAULTS)
            if not threads:
                plan.url, plan.token = emulator.url, emulator.token
                api = Api(plan.url, plan.token)
                plan.sessions += [api.open(f"soak-{n}", rid).session["moduleAuthToken"] for n, rid in enumerate(RIDS)]
                threads = crew(plan, tally)
            if life < KILLS:
                # The kills come in the first half; the last life is long enough to see whether it grows.
                goal = JOBS - (life + 1) * JOBS // (2 * KILLS)
                eventually(lambda goal=goal: plan.jobs <= goal or tally.wrong, "enough jobs", 600)  # type: ignore[misc]
                emulator.kill()
            else:
                finish(emulator, plan, tally, threads, start)


def finish(emulator: Process, plan: Plan, tally: Tally, threads: list[threading.Thread], start: float) -> None:
    """Wait for the last job, let everything settle, and look at what is left."""
    before = size(emulator)
    applications = [thread for thread in threads if thread.name == "Application"]
    eventually(lambda: not any(thread.is_alive() for thread in applications), "every application is done", 3000)
    eventually(lambda: left(emulator) == 0, "every job has ended", 60)
    plan.over.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a client hangs"
    eventually(lambda: size(emulator)[1] < STANDING_FILES, "the connections are closed")
    after = size(emulator)
    faults = emulator.run(
        "answer = [e.detail for e in emu.lifecycle.events.recent() if e.kind in ('internal_error', 'log')]"
    )
    held = emulator.run(
        "answer = len(emu.application.context.long_polls._polls) + len(emu.application.context.long_polls._jobs)"
    )
    counts = emulator.run("answer = len(emu.lifecycle.jobs())")
    total = sum(tally.ends.values())
    report = [
        f"{JOBS:,} jobs, {CLIENTS} clients, {KILLS} kills in {time.monotonic() - start:.0f} s; lost: {JOBS - total}",
        *(f"  {count:>7,} {how}" for how, count in tally.ends.most_common()),
        f"  {dict(tally.did)}",
        f"  after the last kill {before[0]:.0f} MB, {before[1]} open files; at the end {after[0]:.0f} MB, {after[1]}",
    ]
    print("\n" + "\n".join(report))  # noqa: T201
    assert tally.wrong == []
    assert total == JOBS
    assert tally.ends["submitted, succeeded"] > JOBS // 3
    assert tally.did["resets"] > 3
    assert faults == []
    assert held == 0
    assert counts <= SETTINGS["keep_jobs"]
    assert emulator.run("answer = len(emu.runtimes)") == len(RIDS)
    assert Api(emulator.url, emulator.token).contour("GET", RUNTIMES).status_code == 200
