"""The start and the end of a replica, as the lifecycle records them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.session import Replica


def record_start(lifecycle: Lifecycle, replica: Replica, program: str) -> None:
    """Record that a replica was started; `program` says what it runs, or where."""
    lifecycle.note("replica_started", replica.runtime_id, detail=f"{replica.replica_id}: {program}")


def record_exit(lifecycle: Lifecycle, replica: Replica, reason: str, consequence: str = "") -> None:
    """Remove a replica that has ended, which fails the jobs that it holds, and record the reason.

    `consequence` is the end of the sentence that the event has, such as " and starts again in 4 s".
    """
    message = f"replica {replica.replica_id} {reason}"
    lifecycle.remove_replica(replica, message)
    lifecycle.note("replica_exited", replica.runtime_id, detail=f"{message}{consequence}")
