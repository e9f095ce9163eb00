"""What of a lifecycle outlives its process: the form in which the journal and exported sessions hold it."""

from __future__ import annotations

import msgspec

from cmemu_nb.model import DeployedApp, FunctionSchema, Job, Runtime  # noqa: TC001 - msgspec reads the fields' types


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
