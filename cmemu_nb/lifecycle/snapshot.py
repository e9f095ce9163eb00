"""What of a lifecycle outlives its process: the form in which the journal and exported sessions hold it."""

from __future__ import annotations

import msgspec

from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, Job, Runtime  # noqa: TC001 - msgspec reads the fields' types


class SavedReplica(msgspec.Struct, frozen=True):
    """A replica that was started outside this process: its token is still good."""

    replica_id: str
    token: str
    max_concurrent_tasks: int


class SavedSession(msgspec.Struct, frozen=True):
    """One runtime's session without its jobs; `evicted` says how many of those were let go."""

    runtime: Runtime
    schemas: list[FunctionSchema]
    replicas: list[SavedReplica]
    evicted: int


class SavedState(msgspec.Struct, frozen=True):
    """Sessions in the order of their first opening, bindings and jobs from old to new."""

    sessions: list[SavedSession]
    apps: list[DeployedApp]
    jobs: list[Job]

    def __post_init__(self) -> None:
        """Refuse what hangs in the air with a `ValueError`."""
        there = {session.runtime.runtime_id for session in self.sessions}
        strays = ({app.runtime_id for app in self.apps} | {job.runtime_id for job in self.jobs}) - there
        if strays:
            raise ValueError(f"it has no runtime {min(strays)!r}, but something of it")
