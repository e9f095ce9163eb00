"""Replicas on a Dask worker that is another host: one with an address of its own, in a network namespace."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import cloudpickle
import pytest
from client import eventually
from conftest import faults
from scale import cluster
from scale.cluster import local_cluster, where

from cmemu_nb import Emulator
from cmemu_nb.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

pytestmark = [
    pytest.mark.once,
    pytest.mark.long_lived,
    pytest.mark.filterwarnings("ignore::cmemu_nb.errors.ExposedWarning"),
]
NAME = f"cm{os.getpid() % 100_000}"
IN_NAMESPACE = ("ip", "netns", "exec", NAME)
HERE, THERE = "10.203.77.1", "10.203.77.2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def other_host() -> Iterator[None]:
    """Make another host, as far as the network knows."""
    with contextlib.ExitStack() as undo:
        try:
            ip("netns", "add", NAME)
            undo.callback(ip, "netns", "del", NAME)
            ip("link", "add", f"{NAME}a", "type", "veth", "peer", "name", f"{NAME}b", "netns", NAME)
            ip("addr", "add", f"{HERE}/24", "dev", f"{NAME}a")
            ip("link", "set", f"{NAME}a", "up")
            ip("-n", NAME, "addr", "add", f"{THERE}/24", "dev", f"{NAME}b")
            ip("-n", NAME, "link", "set", f"{NAME}b", "up")
            ip("-n", NAME, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this machine lets nobody make network namespaces: {error}")
        yield


@pytest.fixture(scope="module")
def client(other_host: None) -> Iterator[Client]:  # noqa: ARG001 - must be there
    """Connect to a cluster whose scheduler is here and whose only worker is there."""
    cloudpickle.register_pickle_by_value(cluster)
    with local_cluster(0, HERE) as client:
        worker = [
            *IN_NAMESPACE,
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            str(client.scheduler_info()["address"]),
        ]
        options = ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--host", THERE]
        with subprocess.Popen([*worker, *options], stderr=subprocess.DEVNULL) as there:
            client.wait_for_workers(1, timeout=60)
            yield client
            there.terminate()
    cloudpickle.unregister_pickle_by_value(cluster)


def test_an_emulator_for_this_machine_only_refuses_it_and_says_what_to_set(client: Client) -> None:
    with Emulator(port=0, home="thread") as emu:
        emu.function(where)
        with pytest.raises(SettingError, match=rf"workers on {THERE} can't reach .* --allow-remote --local-hostnames"):
            emu.scale(client)
        assert emu.lifecycle.replicas("notebook") == []


@pytest.mark.parametrize("host", [HERE, "0.0.0.0"])
def test_an_emulator_for_other_machines_is_served_from_there(client: Client, host: str) -> None:
    with Emulator(port=0, home="thread", host=host, allow_remote=True, local_hostnames=[HERE]) as emu:
        emu.function(where)
        emu.scale(client, replicas=2).wait_until_responsive()
        job = emu.submit("where")
        assert [job.result()] == list(client.run(os.getpid).values())
        assert str(job.record.replica_id).partition("@")[2].startswith(f"{THERE}:")
        assert faults(emu) == []


def test_a_host_that_is_cut_off_loses_its_jobs_with_their_lease_and_comes_back(client: Client) -> None:
    settings = {"host": HERE, "allow_remote": True, "local_hostnames": [HERE], "job_timeout": 2}
    with Emulator(port=0, home="thread", **settings) as emu:
        emu.function(where)
        emu.scale(client, replicas=1).wait_until_responsive()
        ip("link", "set", f"{NAME}a", "down")
        try:
            job = emu.submit("where")
            eventually(lambda: job.done() or job.status == "queued", "it fails, or waits for who can take it")
            eventually(lambda: job.status != "running", "its lease ends")
        finally:
            ip("link", "set", f"{NAME}a", "up")
        eventually(lambda: emu.submit("where").result() in client.run(os.getpid).values(), "it is back", seconds=60)
        assert faults(emu) == []
