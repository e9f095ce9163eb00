"""The files with the tokens and credentials of replicas, which are deleted when the replica has ended."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.session import Replica
    from cmemu_nb.storage.private_files import PrivateFiles

ENDS = ("replica_exited", "session_reset", "session_deleted")


class ReplicaFiles:
    """The files of an emulator's replicas in its private folder, including those that an earlier process wrote.

    The files of a launched program are deleted when it has ended; those of a program that was started by hand are
    deleted when its session is reset or deleted. Files of an earlier process that belong to no replica are deleted.
    """

    def __init__(self, files: PrivateFiles, lifecycle: Lifecycle) -> None:
        self._files = files
        self._replicas: defaultdict[str, set[Replica]] = defaultdict(set)
        for runtime in lifecycle.runtimes():
            self._replicas[runtime.runtime_id].update(lifecycle.replicas(runtime.runtime_id))
        files.clean([each.replica_id for replicas in self._replicas.values() for each in replicas])
        lifecycle.events.subscribe(self._on_event)

    def write(self, replica: Replica, name: str, text: str) -> Path:
        """Write a file for a replica and return its path."""
        self._replicas[replica.runtime_id].add(replica)
        return self._files.write(f"{name}-{replica.replica_id}", text.encode())

    def _on_event(self, event: Event) -> None:
        if event.kind in ENDS:
            for replica in list(self._replicas.get(event.runtime_id or "", ())):
                if replica.revoked:
                    self.delete(replica)

    def delete(self, replica: Replica) -> None:
        """Delete the files of a replica."""
        self._files.delete(f"-{replica.replica_id}")
        replicas = self._replicas[replica.runtime_id]
        replicas.discard(replica)
        if not replicas:
            del self._replicas[replica.runtime_id]
