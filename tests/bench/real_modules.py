"""Real modules of both official SDKs: what waiting costs, and a soak in which replicas are killed all the time.

The soak runs with CMEMU_LONG=1 only.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.figures import Figure, report
from environments import node_modules

from cmemu_nb import Emulator

if TYPE_CHECKING:
    from cmemu_nb.calls.handles import JobHandle
    from cmemu_nb.executors.modules.modules import LaunchedModule

LONG = bool(os.environ.get("CMEMU_LONG"))
JOBS = 5000
KILL_SECONDS = 2.0
SLOW_SECONDS = 0.2
JOB_TIMEOUT = 20.0
IDLE_SECONDS = 30.0 if LONG else 15.0
PROGRAMS = Path(__file__).parent.parent / "programs"


def commands(folder: Path) -> dict[str, str]:
    """Return the command of each SDK's program."""
    shutil.copy(PROGRAMS / "node_module.mjs", folder)
    (folder / "node_modules").symlink_to(node_modules() / "node_modules")
    return {"python": f"python {PROGRAMS / 'python_module.py'}", "node": f"node {folder / 'node_module.mjs'}"}


def idle(emulator: Emulator, programs: dict[str, str]) -> None:
    """Report how soon replicas are there, and what two that wait cost."""
    for name, command in programs.items():
        start = time.monotonic()
        emulator.launch(command, name).wait_until_responsive()
        while not emulator.lifecycle.schemas(name):
            time.sleep(0.001)
        report(Figure("real_modules", f"{name}: from launch to schemas", time.monotonic() - start, "s"))
    before = emulator.lifecycle.events.recent(all=True)[-1].sequence
    cpu, start = time.process_time(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - start
    events = emulator.lifecycle.events.recent(all=True)[-1].sequence - before
    share = 100 * (time.process_time() - cpu) / seconds
    report(Figure("real_modules", "two waiting replicas: CPU of the emulator", share, "%"))
    report(Figure("real_modules", "two waiting replicas: events", events / seconds, "a second"))
    emulator.reset()


def soak(emulator: Emulator, programs: dict[str, str]) -> None:
    """Submit many jobs while replicas are killed and launched again; report how every job ended."""
    chance = random.Random(1)
    modules: list[LaunchedModule] = []
    for name, command in programs.items():
        emulator.open_runtime(name, f"ri.foundry.main.deployed-app.{name}")
        modules.append(emulator.launch(command, name, replicas=2, max_concurrent_tasks=4))
    names = list(programs)
    jobs: list[JobHandle] = []
    start, killed, next_kill = time.monotonic(), 0, time.monotonic() + KILL_SECONDS
    while len(jobs) < JOBS or not all(job.done() for job in jobs[-JOBS:]):
        unfinished = sum(not job.done() for job in jobs[-400:])
        if len(jobs) < JOBS and unfinished < 200:
            rid = f"ri.foundry.main.deployed-app.{names[len(jobs) % 2]}"
            # Every other pair of jobs takes a while, so that replicas are killed while they hold some.
            slow = len(jobs) % 4 > 1
            query = {"seconds": SLOW_SECONDS} if slow else {"n": len(jobs)}
            jobs.append(emulator.submit("slow" if slow else "echo", query, rid))
            continue
        if time.monotonic() > next_kill:
            next_kill = time.monotonic() + KILL_SECONDS
            running = [(module, each) for module in modules for each in module.replicas if each.exit_code is None]
            module, victim = chance.choice(running)
            victim.stop()
            killed += 1
            modules.append(emulator.launch(programs[module.runtime_id], module.runtime_id, max_concurrent_tasks=4))
        time.sleep(0.002)
    judge(emulator, jobs, time.monotonic() - start, killed)


def judge(emulator: Emulator, jobs: list[JobHandle], seconds: float, killed: int) -> None:
    """Report the outcome of a soak; anything stuck, doubled or without a reason ends the benchmark."""
    statuses = Counter(str(job.status) for job in jobs)
    starts = Counter(event.job_id for event in emulator.lifecycle.events.recent() if event.kind == "job_started")
    ends = Counter(
        event.job_id for event in emulator.lifecycle.events.recent() if event.kind in ("job_succeeded", "job_failed")
    )
    echoes = [(number, job) for number, job in enumerate(jobs) if number % 4 <= 1 and job.status == "succeeded"]
    wrong = [job for number, job in echoes if job.result() != {"n": number}]
    silent = [job for job in jobs if job.status == "failed" and not job.record.error_message]
    report(Figure("real_modules", "soak: replicas killed", killed, "of them"))
    report(Figure("real_modules", "soak: done", len(jobs) / seconds, "jobs a second"))
    report(Figure("real_modules", "soak: failed", statuses["failed"], "jobs"))
    report(Figure("real_modules", "soak: started twice", sum(n > 1 for n in starts.values()), "jobs"))
    assert not wrong
    assert not silent
    assert len(ends) == len(jobs) == sum(ends.values())


def main() -> None:
    """Run both."""
    with tempfile.TemporaryDirectory() as folder:
        programs = commands(Path(folder))
        with Emulator(port=0) as emulator:
            idle(emulator, programs)
        if LONG:
            with Emulator(port=0, job_timeout=JOB_TIMEOUT, keep_events=100_000) as emulator:
                soak(emulator, programs)


if __name__ == "__main__":
    main()
