from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import cloudpickle
import pytest
from client import eventually
from conftest import faults

from cmemu_nb import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client


from scale import cluster
from scale.cluster import count, local_cluster, nobody_serves, where


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """Connect to a cluster of two workers; functions of the tests go there whole, as those of a notebook do."""
    for module in (request.module, cluster):
        cloudpickle.register_pickle_by_value(module)
    with local_cluster(2) as client:
        yield client
    for module in (request.module, cluster):
        cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture
def emu(client: Client) -> Iterator[Emulator]:
    with Emulator(port=0, home="thread", job_timeout=60) as emulator:
        emulator.function(where)
        emulator.function(count, streaming=True)
        yield emulator
        for cluster in emulator.clusters:
            cluster.stop()
        eventually(lambda: nobody_serves(client), "every replica has left its worker")
        eventually(lambda: not asking_dask(), "Dask has answered, which it never does once its client is closed")
        assert faults(emulator) == []


def asking_dask() -> bool:
    return any(thread.name == "cmemu-dask" for thread in threading.enumerate())
