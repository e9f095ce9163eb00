"""The state machine of the runtime lifecycle: sessions, bindings, queues, jobs, results, schemas.

Plain Python: no sockets, no asyncio, no clock of its own. Every change emits one event. Every
operation takes the same time whatever the history; opening or deleting a session is linear in
what it throws away. One thread at a time may call the methods that change something; the records
never change, so looking is safe from any thread.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cmemu_nb.errors import InvalidModuleAuthToken, NotFound, TooManyRuntimes, known
from cmemu_nb.lifecycle.jobs import Jobs
from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, JobStatus, Runtime
from cmemu_nb.lifecycle.session import Replica, Session, ThrownAway, checked_runtime_id, trimmed
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH
from cmemu_nb.phrases import closest, plural, quoted
from cmemu_nb.tokens import MODULE_TOKEN_START
from cmemu_nb.wire.masking import is_masked_by_its_form

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.snapshot import SavedState
    from cmemu_nb.storage.seed_file import Seed, SeededApp


class Lifecycle(Jobs):
    """Every runtime session, deployed-app binding, schema and job of one emulator.

    `clock` gives Unix nanoseconds, `time.time_ns()` if it is left out, and `monotonic` those of a clock that is never
    set; `keep_events` is how many events the log holds, in at most a quarter of `keep_bytes`; `max_queued` how many
    jobs may be queued for one runtime; `max_runtimes` how many runtimes there may be; `max_label_bytes` how long names,
    ids and branches may be.
    """

    _seed: Seed | None = None

    # Sessions

    def open_session(
        self,
        runtime_id: str,
        deployed_app_rid: str | None = None,
        branch: str | None = None,
        display_name: str | None = None,
        *,
        token: str | None = None,
        keeps_apps: bool = False,
    ) -> tuple[Runtime, ThrownAway | None]:
        """Open a runtime's session, or reset it: no jobs, schemas and bindings, and a new token [page].

        Returns the runtime and what a reset threw away, or None for a runtime that is new.
        A binding of the same app and branch moves here from whichever runtime holds it [ours].
        Fields are trimmed, a blank optional one counts as absent; a `token` that is given must be nobody else's;
        `keeps_apps` says that the caller binds the apps that it had. Raises
        `InvalidRequest` for an id that is blank, or would vanish from URIs, `TooManyRuntimes` for a new one when there
        are `max_runtimes`.
        """
        runtime_id = checked_runtime_id(runtime_id)
        deployed_app_rid = trimmed("deployed app RID", deployed_app_rid)
        branch = trimmed("branch", branch)
        display_name = trimmed("display name", display_name)
        labels = {"runtime id": runtime_id, "deployed app RID": deployed_app_rid, "branch": branch}
        for what, label in {**labels, "display name": display_name}.items():
            self.check_label(what, label)
        old = self._sessions.get(runtime_id)
        if old is None:
            self._check_room(runtime_id)
        # A Token is no text to the JSON encoder.
        token = str(token or MODULE_TOKEN_START + secrets.token_urlsafe(32))
        runtime = Runtime(runtime_id, token, self.now(), display_name)
        session = self._sessions[runtime_id] = Session(runtime)
        self._add_replica(session, Replica(runtime_id, "", token, None))
        if old is None:
            self._emit("session_opened", runtime_id)
        thrown_away = self._throw_away(old, "session_reset") if old else None
        # A listener may have ended the session when it was told of it.
        if deployed_app_rid is not None and self._sessions.get(runtime_id) is session:
            self._bind(runtime_id, deployed_app_rid, branch or DEFAULT_BRANCH, runtime.display_name)
        if not keeps_apps:
            self.take_app_back(runtime_id)
        return runtime, thrown_away

    def _check_room(self, runtime_id: str) -> None:
        if len(self._sessions) >= self._max_runtimes:
            raise TooManyRuntimes(
                f"The session of runtime {quoted(runtime_id)} can't be opened: the emulator has "
                f"{plural(len(self._sessions), 'runtime')} already (max_runtimes). Delete some that are no longer "
                "needed, or start with a larger max_runtimes."
            )

    def reset_session(self, runtime_id: str) -> tuple[Runtime, ThrownAway | None]:
        """Reset a runtime's session and keep its bindings and display name [ours]."""
        session = self._session(runtime_id)
        apps = self.apps_of(runtime_id)
        runtime, thrown_away = self.open_session(runtime_id, display_name=session.runtime.display_name, keeps_apps=True)
        for app in apps:
            self._bind_missing(app)
        self.take_app_back(runtime_id)
        return runtime, thrown_away

    def delete_session(self, runtime_id: str) -> ThrownAway:
        """End a runtime's session and forget the runtime [ours]."""
        session = self._session(runtime_id)
        del self._sessions[runtime_id]
        return self._throw_away(session, "session_deleted")

    def undo_session(self, runtime_id: str, before: DeployedApp | None) -> None:
        """Delete a session that was opened in vain, and bind its app as it was bound `before` [ours]."""
        self.delete_session(runtime_id)
        if before is not None:
            self._bind_missing(before)

    def reset(self) -> None:
        """Delete every session: an emulator as new, so with those of its seed file, if it has one [ours]."""
        for runtime_id in list(self._sessions):
            self.delete_session(runtime_id)
        if self._seed is not None:
            self.apply_seed(self._seed)

    def apply_seed(self, seed: Seed) -> None:
        """Open the sessions and make the bindings of a seed file that are not there [ours]; `reset()` does too then.

        A runtime that is there keeps its session, whatever token the file gives it, and an app its binding.
        """
        self._seed = seed
        there = sorted({each.runtime_id for each in seed.runtimes} & self._sessions.keys())
        for each in seed.runtimes:
            if each.runtime_id not in self._sessions:
                self.open_session(each.runtime_id, token=each.module_auth_token)
        for app in seed.apps:
            if app.active:
                self._bind_missing(app)
        inactive = [f"{app.deployed_app_rid} on branch {app.branch!r}" for app in seed.apps if not app.active]
        runtimes, apps = plural(len(seed.runtimes), "runtime"), plural(len(seed.apps) - len(inactive), "deployed app")
        told = [f"{runtimes}, {apps} of {seed.path}"]
        told += [f"kept as they were: {', '.join(map(repr, there))}"] if there else []
        told += [f"inactive, so bound to no runtime: {', '.join(inactive)}"] if inactive else []
        self._emit("seed_applied", detail="; ".join(told))

    def authenticate(self, runtime_id: str, token: str | None) -> Runtime:
        """Return the runtime if the token is its session's; an unknown runtime is told before a wrong token."""
        runtime = self._session(runtime_id).runtime
        given = (token or "").encode(errors="surrogatepass")
        if not hmac.compare_digest(given, runtime.module_auth_token.encode()):
            raise InvalidModuleAuthToken
        return runtime

    def _throw_away(self, session: Session, kind: str) -> ThrownAway:
        thrown_away = ThrownAway(len(session.jobs), len(session.schemas), len(session.apps))
        self._forget_jobs(session)
        for name in session.schemas:
            _drop(self._serving, name, session.runtime.runtime_id)
        for rid, branch in session.apps:
            self._unbind(rid, branch)
        for replica in session.replicas.values():
            self._revoke(replica)
            replica.held.clear()
        self._emit(kind, session.runtime.runtime_id, detail=f"threw away {thrown_away}")
        for job in session.jobs.values():
            if not job.finished:
                self._emit("job_cleared", job.runtime_id, job.job_id, kind.replace("_", " "))
        return thrown_away

    # Replicas

    def add_replica(
        self, runtime_id: str, max_concurrent_tasks: int = 1, *, launched: bool = False, name: str | None = None
    ) -> Replica:
        """Make a token for one more copy of a runtime's module, valid as long as the session [ours].

        It is handed at most so many unfinished jobs at a time, because real clients poll ahead [foundry]. `launched`
        says that it ends with this process; `name` is its id, a random one if left out; one that is taken gets an end.
        """
        session = self._session(runtime_id)
        token, name = MODULE_TOKEN_START + secrets.token_urlsafe(32), name or secrets.token_hex(4)
        if name in session.replicas:  # by one that is still leaving, for instance
            name = f"{name}-{secrets.token_hex(2)}"
        replica = Replica(runtime_id, name, token, max_concurrent_tasks, launched=launched)
        self._add_replica(session, replica)
        self._emit("replica_added", runtime_id, detail=name)
        return replica

    def _add_replica(self, session: Session, replica: Replica) -> Replica:
        session.replicas[replica.replica_id] = replica
        self._replicas[_hashed(replica.token)] = replica
        if not is_masked_by_its_form(replica.token):
            self.events.hide(replica.token)
        return replica

    def remove_replica(self, replica: Replica, reason: str) -> list[str]:
        """Revoke a replica's token and fail the jobs that it holds; returns their ids."""
        failed = self.fail_held(replica, reason)
        if not replica.revoked:
            self._revoke(replica)
            del self._session(replica.runtime_id).replicas[replica.replica_id]
        return failed

    def _revoke(self, replica: Replica) -> None:
        replica.revoked = True
        del self._replicas[_hashed(replica.token)]

    def fail_held(self, replica: Replica, reason: str) -> list[str]:
        """Fail the jobs that a replica holds, because it can't finish them any more; returns their ids [foundry]."""
        held = list(replica.held)
        for job_id in held:
            if job_id in replica.held:  # a listener may have ended it when it was told of another
                self.fail(job_id, reason)
        return held

    def authenticate_replica(self, token: str | None) -> Replica:
        """Find a replica by its token alone; an unknown one is an `InvalidModuleAuthToken`."""
        replica = self._replicas.get(_hashed(token or ""))
        if replica is None:
            raise InvalidModuleAuthToken
        return replica

    # After the end of a process

    def restore(self, saved: SavedState) -> None:
        """Take over what another process had, into a lifecycle that has nothing [ours]. No events."""
        for each in saved.sessions:
            session = self._sessions[each.runtime.runtime_id] = Session(each.runtime)
            session.schemas = {schema.function_name: schema for schema in each.schemas}
            for function_name in session.schemas:
                self._serving.setdefault(function_name, {})[each.runtime.runtime_id] = None
            session.evicted = each.evicted
            if session.evicted:
                self._evicting[each.runtime.runtime_id] = session
            name, token = each.runtime.runtime_id, each.runtime.module_auth_token
            self._add_replica(session, Replica(name, "", token, None))
            for replica in each.replicas:
                limit = replica.max_concurrent_tasks
                self._add_replica(session, Replica(name, replica.replica_id, replica.token, limit))
        for app in saved.apps:
            self._apps.setdefault(app.deployed_app_rid, {})[app.branch] = app
            self._namespaces.setdefault(app.namespace, {})[app.deployed_app_rid] = None
            self._sessions[app.runtime_id].apps[app.deployed_app_rid, app.branch] = None
        self._restore_jobs(self._sessions, saved.jobs)

    def fail_what_ended_with_kernel(self, reason: str) -> None:
        """Fail the running jobs of functions in cells and of launched replicas of a process that ended."""
        for job in self.jobs():
            if job.status == JobStatus.RUNNING and job.ends_with_kernel:
                self.fail(job.job_id, reason)

    # Deployed apps

    def _bind_missing(self, app: DeployedApp | SeededApp) -> None:
        """Bind an app that no runtime serves, unless a listener has deleted its runtime meanwhile."""
        rid, branch = app.deployed_app_rid, app.branch
        if branch not in self._apps.get(rid, {}) and app.runtime_id in self._sessions:
            self._bind(app.runtime_id, rid, branch, app.display_name)

    def take_app_back(self, runtime_id: str) -> None:
        """Bind a runtime's own app to it if no app is, unless another runtime serves it [ours]."""
        session, own = self._sessions.get(runtime_id), self.own_apps.get(runtime_id)
        if session is not None and own is not None and not session.apps and own not in self._apps:
            self._bind(runtime_id, own, DEFAULT_BRANCH, session.runtime.display_name)

    def _bind(self, runtime_id: str, rid: str, branch: str, display_name: str | None) -> None:
        taken_from = None
        held = self.binding(rid, branch)
        if held:
            taken_from = held.runtime_id
            self._sessions[held.runtime_id].apps.pop((rid, branch), None)
            self._unbind(rid, branch)
        app = DeployedApp(rid, branch, runtime_id, self.now(), display_name)
        self._apps.setdefault(rid, {})[branch] = app
        self._namespaces.setdefault(app.namespace, {})[rid] = None
        self._sessions[runtime_id].apps[rid, branch] = None
        self._note_rebound(rid, branch)
        moved = f", taken from runtime {taken_from!r}" if taken_from else ""
        self._emit("app_bound", runtime_id, detail=f"{rid} on branch {branch!r}{moved}")

    def _unbind(self, rid: str, branch: str) -> None:
        self._note_rebound(rid, branch)
        branches = self._apps[rid]
        app = branches.pop(branch)
        if not branches:
            del self._apps[rid]
            _drop(self._namespaces, app.namespace, rid)

    def _note_rebound(self, rid: str, branch: str) -> None:
        if self.rebound is not None:
            # At its end: what is bound anew comes after all that was bound before.
            self.rebound.pop((rid, branch), None)
            self.rebound[rid, branch] = None

    # Schemas

    def post_schemas(self, runtime_id: str, schemas: Iterable[tuple[str, bytes]]) -> None:
        """Add or update the runtime's schemas, each a function's name and its payload as JSON text [page]."""
        session = self._session(runtime_id)
        schemas = list(schemas)
        for name, _ in schemas:
            self.check_label("function name", name)
        now = self.now()
        posted = {name: FunctionSchema(runtime_id, name, payload, now) for name, payload in schemas}
        self.write_ahead([*(session.schemas | posted).values()])
        session.runtime = replace(session.runtime, last_schema_post_at=now)
        session.schemas.update(posted)
        for name in posted:
            self._serving.setdefault(name, {})[runtime_id] = None
        self._emit("schemas_posted", runtime_id, detail=", ".join(map(repr, posted)) or "none")

    def delete_schema(self, runtime_id: str, function_name: str) -> None:
        """Forget one function's schema [ours]."""
        session = self._session(runtime_id)
        if session.schemas.pop(function_name, None) is None:
            raise NotFound(
                f"Runtime '{runtime_id}' has no schema of function {quoted(function_name)}."
                f"{closest(function_name, session.schemas)} {known(session.schemas, 'functions')}"
            )
        _drop(self._serving, function_name, runtime_id)
        self._emit("schema_deleted", runtime_id, detail=repr(function_name))


def _drop(index: dict[str, dict[str, None]], key: str, value: str) -> None:
    """Take a value from under a key of an index, and the key with its last value."""
    del index[key][value]
    if not index[key]:
        del index[key]


def _hashed(token: str) -> bytes:
    # Looked up by its hash, a token can't be guessed letter by letter from the time that it takes.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
