"""Functions on a Dask cluster of two processes: against the notebook's threads, and what the emulator carries."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.figures import Figure, report
from distributed import Client, LocalCluster

from cmemu_nb import Emulator

if TYPE_CHECKING:
    from cmemu_nb.executors.cluster.cluster import Cluster

PIECES, LAST = 40, 2_000_000
JOBS = 2_000
MANY = (1, 8, 32)
WAITING, WAITING_SECONDS = 100, 12.0

figure = partial(Figure, "scale")


def count(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001 - as the SDK wants it
    """Compute for a while, in plain Python."""
    return sum(n % 7 == 0 for n in range(event["last"]))


def echo(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001
    """Do nothing."""
    return event


def seconds(emu: Emulator, function: str, queries: list[dict[str, int]]) -> float:
    """Return how long many calls take."""
    start = time.perf_counter()
    assert (emu.map(function, queries, progress=False)["outcome"] == "ok").all()
    return time.perf_counter() - start


def computing(emu: Emulator, cluster: Cluster) -> None:
    """Report what two processes gain where a function computes."""
    queries = [{"last": LAST}] * PIECES
    there = seconds(emu, "count", queries)
    cluster.stop()
    here = seconds(emu, "count", queries)
    # At least 1.7 times as fast.
    report(figure("functions that compute, 2 workers", there, "s", "threads of the notebook", here, at_most=1 / 1.7))


def loop_cpu(emu: Emulator) -> float:
    """Return how many seconds of processor time the emulator's loop has used."""
    thread: Any = emu.home
    return time.clock_gettime(time.pthread_getcpuclockid(thread._thread.ident))  # noqa: SLF001


def carrying(emu: Emulator, cluster: Cluster) -> None:
    """Report how many jobs go through the emulator to few and to many replicas."""
    queries = [{"n": number} for number in range(JOBS)]
    for replicas in MANY:
        cluster.scale(replicas).wait_until_responsive()
        seconds(emu, "echo", queries[:200])
        cpu = loop_cpu(emu)
        taken = seconds(emu, "echo", queries)
        report(figure(f"jobs a second, {replicas} replicas", JOBS / taken, "/s"))
        report(figure(f"the emulator's CPU for a job, {replicas} replicas", (loop_cpu(emu) - cpu) * 1000 / JOBS, "ms"))


def waiting(emu: Emulator, cluster: Cluster) -> None:
    """Report what replicas cost that wait."""
    cluster.scale(WAITING).wait_until_responsive()
    time.sleep(1)
    cpu = loop_cpu(emu)
    time.sleep(WAITING_SECONDS)
    share = 100 * (loop_cpu(emu) - cpu) / WAITING_SECONDS
    report(figure(f"the emulator's CPU for {WAITING} replicas that wait", share, "% of a core"))


def main() -> None:
    """Measure and report."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as workers,
        Client(workers) as client,
        Emulator(port=0, home="thread") as emu,
    ):
        emu.function(count)
        emu.function(echo)
        computing(emu, emu.scale(client, replicas=2).wait_until_responsive())
        cluster = emu.scale(client, replicas=2).wait_until_responsive()
        carrying(emu, cluster)
        waiting(emu, cluster)


if __name__ == "__main__":
    main()
