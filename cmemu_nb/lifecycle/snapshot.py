"""The state that a lifecycle begins with: an earlier process's, from a journal or an exported session, or a seed's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import SeedError
from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, Job, Runtime  # noqa: TC001 - msgspec reads the fields' types
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH

if TYPE_CHECKING:
    from collections.abc import Collection

    from cmemu_nb.lifecycle.configuration import Configuration
    from cmemu_nb.tokens import Token


class SavedReplica(msgspec.Struct, frozen=True):
    """A replica that was started outside this process, so its token stays valid."""

    replica_id: str
    token: str
    max_concurrent_tasks: int


class SavedSession(msgspec.Struct, frozen=True):
    """One runtime's session without its jobs; `evicted` says how many of those were evicted."""

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
        """Reject references to runtimes that are missing, with a `ValueError`."""
        there = {session.runtime.runtime_id for session in self.sessions}
        strays = ({app.runtime_id for app in self.apps} | {job.runtime_id for job in self.jobs}) - there
        if strays:
            raise ValueError(f"it has a job or a binding of runtime {min(strays)!r}, but not the runtime")


class SeededRuntime(msgspec.Struct, frozen=True):
    """A runtime whose session is open from the start; without a token of its own it gets a random one.

    `configuration` is that of its module, None if the file has none.
    """

    runtime_id: str
    module_auth_token: Token | None = None
    configuration: Configuration | None = None


class SeededApp(msgspec.Struct, frozen=True):
    """A deployed app's branch and the runtime that serves it; an inactive app is bound to no runtime."""

    deployed_app_rid: str
    runtime_id: str
    branch: str = DEFAULT_BRANCH
    display_name: str | None = None
    active: bool = True


class Seed(msgspec.Struct, frozen=True):
    """The contents of a seed file.

    `settings` are those of the file, overridden by those that were given; `logins` are by bearer token; `runtimes`
    includes runtimes that only an app names.
    """

    path: str
    settings: dict[str, Any]
    runtimes: list[SeededRuntime]
    apps: list[SeededApp]
    logins: dict[Token, str]

    def plants_the_same(self, other: Seed | None) -> bool:
        """Return whether another seed has the same sessions, bindings and bearer tokens, from the same file."""
        return other is not None and msgspec.structs.replace(self, settings=other.settings) == other

    def check_tokens(self, sessions: Collection[SavedSession]) -> None:
        """Refuse a token that another runtime of a journal has: a token must identify one runtime."""
        theirs = {each.runtime.module_auth_token: each.runtime.runtime_id for each in sessions}
        theirs |= {replica.token: each.runtime.runtime_id for each in sessions for replica in each.replicas}
        names = set(theirs.values())
        for runtime in self.runtimes:
            holder = theirs.get(runtime.module_auth_token or "")
            if holder is not None and runtime.runtime_id not in names:
                raise SeedError(
                    f"{self.path}: runtime {runtime.runtime_id!r} has the module_auth_token of runtime {holder!r} in "
                    "the journal. Give it another one, or choose another journal."
                )
