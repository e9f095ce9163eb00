"""The state machine of the runtime lifecycle: every change of sessions, bindings, schemas, replicas and jobs.

It has no sockets and no clock of its own. Every operation takes the same time whatever the history; opening or deleting
a session takes time in proportion to what it discards. One thread at a time may call the methods that change something;
the records never change, so reading is safe from any thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
import uuid
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from cmemu_nb.errors import (
    ApiError,
    InvalidModuleAuthToken,
    InvalidRequest,
    InvalidScratchToken,
    JobAlreadyCompleted,
    JobNotRunning,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    TooManyLocks,
    TooManyRuntimes,
    known,
    quoted_names,
)
from cmemu_nb.lifecycle.data_streams import (
    MAX_BRANCHES,
    MAX_STREAMS,
    MAX_SUBSCRIBERS,
    DataStream,
    StreamLog,
    StreamOptions,
    Subscriber,
    check_size,
    new_view_rid,
    stream_not_found,
)
from cmemu_nb.lifecycle.datasets import (
    FOLDER,
    MASTER,
    RECORD_BYTES,
    Branch,
    Dataset,
    DatasetFile,
    DatasetHistory,
    DatasetSchema,
    Reader,
    Transaction,
    TransactionStatus,
    TransactionType,
    check_dataset_name,
    check_rid,
)
from cmemu_nb.lifecycle.events import MAX_DETAIL_BYTES, EventLog
from cmemu_nb.lifecycle.fifo import LongQueue
from cmemu_nb.lifecycle.records import (
    CANCELLED,
    NS_PER_S,
    DeployedApp,
    FunctionSchema,
    Job,
    JobSource,
    JobStatus,
    Mode,
    Runtime,
    new_rid,
    one_text,
)
from cmemu_nb.lifecycle.scratch import LEASE_SECONDS, MAX_LOCKS, MAX_VALUE_BYTES, Lock
from cmemu_nb.lifecycle.session import Replica, ResultStream, Session, ThrownAway
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH, State
from cmemu_nb.phrases import closest, plural, quoted
from cmemu_nb.settings import DEFAULT_KEEP_BYTES, DEFAULT_KEEP_RECORDS, DEFAULT_MAX_DATA_BYTES
from cmemu_nb.tokens import MODULE_TOKEN_START
from cmemu_nb.wire.api_names import RULE, advice, name_in_api
from cmemu_nb.wire.job_ids import new_job_id
from cmemu_nb.wire.labels import (
    MAX_LABEL_BYTES,
    check_label,
    checked_runtime_id,
    checked_text,
    shortened,
    size_of,
    trimmed,
)
from cmemu_nb.wire.masking import is_masked_by_its_form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cmemu_nb.lifecycle.configuration import Configuration
    from cmemu_nb.lifecycle.data_changes import DataChanges
    from cmemu_nb.lifecycle.data_streams import StreamRecord
    from cmemu_nb.lifecycle.scaling import Scale
    from cmemu_nb.lifecycle.snapshot import SavedSession, SavedState, Seed, SeededApp, SeededDataset
    from cmemu_nb.wire.stream_schemas import StreamSchema
    from cmemu_nb.wire.stream_values import NewRecord

    WriteAhead = Callable[[Job | Sequence[FunctionSchema]], None]

BROKEN_OFF = "the result stream broke off after"
REPLICA_RESTARTED = "the replica restarted"


def in_memory_only(record: Job | Sequence[FunctionSchema]) -> None:
    """Write nothing ahead: there is no journal."""


class Lifecycle(State):
    """Every runtime session, deployed-app binding, schema, replica and job of one emulator, and every change of them.

    Nothing else changes the state, and each change emits exactly one event:

    - a session is opened, reset or deleted: `session_opened`, `session_reset`, `session_deleted`. A reset or deletion
      is one change with all that belongs to the session: its schemas, bindings, replicas and finished jobs;
    - each unfinished job of such a session is cleared: `job_cleared`;
    - an app is bound, also if another runtime served it before: `app_bound`;
    - the configuration of a runtime's module is set, or removed by a reset of everything: `runtime_configured`;
    - schemas are posted, even none, or one is deleted: `schemas_posted`, `schema_deleted`;
    - a runtime polls for the first time in its session: `runtime_connected`;
    - a runtime's module has another execution mode than before: `mode_set`;
    - a runtime's module raised an exception while it was imported, or does so no longer: `import_error_set`;
    - a runtime's module is given another number of replicas by its scaling: `module_scaled`;
    - a replica is added or its token revoked: `replica_added`, `replica_removed`;
    - the readiness probe of a replica succeeds, or fails after that: `replica_ready`, `replica_unresponsive`;
    - replicas on standby take the place of others: `replicas_switched`;
    - a value is put into a scratch cache, deleted or evicted: `cache_put`, `cache_deleted`, `cache_evicted`;
    - a lock is acquired, refreshed or released, or its lease ends: `lock_acquired`, `lock_refreshed`, `lock_released`,
      `lock_expired`. The last one is emitted when the runtime's locks are used the next time;
    - a data stream is created on a branch, reset with all of its records, or deleted with its branches and subscribers:
      `stream_created`, `stream_reset`, `stream_deleted`;
    - records are published to a data stream, where they may take the place of the oldest: `records_published`;
    - a subscriber of a data stream is created, has other positions, or is deleted: `subscriber_created`,
      `subscriber_moved`, `subscriber_deleted`;
    - a job is queued, started, given back to the queue, succeeds, fails or is evicted: `job_queued`, `job_started`,
      `job_given_back`, `job_succeeded`, `job_failed`, `job_evicted`. The last one is emitted just before the change,
      while the job can still be read;
    - a chunked result begins, or a chunk arrives: `result_started`, `result_chunk`. Its end is that of the job;
    - the reason of a failed job becomes known better: `late_result`;
    - a dataset is created, or deleted with all that belongs to it: `dataset_created`, `dataset_deleted`;
    - a branch of a dataset is created or deleted: `branch_created`, `branch_deleted`;
    - a transaction is opened, committed or aborted: `transaction_opened`, `transaction_committed`,
      `transaction_aborted`. An abort discards its files;
    - the files of a transaction that are in no branch's view any more are discarded to make room:
      `transaction_evicted`;
    - a file is uploaded into a transaction, or deleted in one: `file_uploaded`, `file_deleted`;
    - a schema of a dataset is set: `dataset_schema_set`.

    An operation that makes several of these changes emits one event for each: a reset of a session that binds an app,
    for instance, or the removal of a replica that holds jobs. Other events report what changed nothing: an empty poll,
    an applied seed file, and all that `note()` logs.

    Three things are not part of this state, so they change without an event: the marks that a client was heard from
    (`Runtime.last_poll_at`, `Replica.heard`, `Replica.polls`), what the functions of jobs print (`log()`), and how the
    lifecycle is set up (`limit()`, `keep_app()`, `drain_replica()`, `hold_schemas()`, `attach_journal()`). `restore()`
    fills a lifecycle that has no listener yet.

    `clock` returns Unix nanoseconds, `time.time_ns()` by default, and `monotonic` the nanoseconds of a clock that is
    never set; `keep_events` is how many events the log holds, in at most a quarter of `keep_bytes`; `max_queued` how
    many jobs may be queued for one runtime; `max_runtimes` how many runtimes there may be; `max_label_bytes` how long
    names, ids and branches may be; `keep_records` how many records of each data stream are kept.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        *,
        clock: Callable[[], int] | None = None,
        monotonic: Callable[[], int] = time.monotonic_ns,
        keep_events: int = 10_000,
        keep_bytes: int = DEFAULT_KEEP_BYTES,
        max_queued: int = 100_000,
        max_runtimes: int = 10_000,
        max_label_bytes: int = MAX_LABEL_BYTES,
        max_data_bytes: int = DEFAULT_MAX_DATA_BYTES,
        keep_records: int = DEFAULT_KEEP_RECORDS,
    ) -> None:
        super().__init__()
        self.events = EventLog(keep_events, keep_bytes)
        self._clock = clock or time.time_ns
        self._monotonic = monotonic
        self._steady_from = self._clock() - monotonic()
        self._submitted = 0
        self._finished = LongQueue()
        self._max_queued = max_queued
        self._max_runtimes = max_runtimes
        self._max_label_bytes = max_label_bytes
        self._max_data_bytes = max_data_bytes
        self._keep_records = keep_records
        self._seed: Seed | None = None
        self._own_apps: dict[str, str] = {}
        self._write_ahead: WriteAhead = in_memory_only
        self._rebound: dict[tuple[str, str], None] | None = None

    # Set-up, clocks and events

    def limit(
        self,
        *,
        keep_events: int,
        keep_bytes: int,
        max_queued: int,
        max_runtimes: int,
        max_label_bytes: int,
        max_data_bytes: int,
        keep_records: int,
    ) -> None:
        """Set from now on what is kept, how many jobs and runtimes are accepted, and how long labels may be."""
        self.events.keep(keep_events, keep_bytes)
        self._max_queued = max_queued
        self._max_runtimes = max_runtimes
        self._max_label_bytes = max_label_bytes
        self._max_data_bytes = max_data_bytes
        self._keep_records = keep_records

    def check_label(self, what: str, label: str | None) -> None:
        """Refuse a text that is longer than `max_label_bytes` with an `InvalidRequest`."""
        check_label(what, label, self._max_label_bytes)

    def now(self) -> int:
        """Return the wall clock's time in Unix nanoseconds. A clock may be set: it can be earlier than before."""
        return self._clock()

    def steady(self) -> int:
        """Return the time on a clock that is never set, in nanoseconds: durations are differences of it.

        It begins with the wall clock's time when the lifecycle is made, and continues with the monotonic clock.
        """
        return self._steady_from + self._monotonic()

    def note(self, kind: str, runtime_id: str | None = None, job_id: str | None = None, detail: str = "") -> None:
        """Log what happened around the state machine, such as an internal fault."""
        self._emit(kind, runtime_id, job_id, detail)

    def _emit(
        self, kind: str, runtime_id: str | None = None, job_id: str | None = None, detail: str | None = None
    ) -> None:
        self.events.emit(kind, self.now(), runtime_id, job_id, detail)

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

        Returns the runtime and what a reset discarded, or None for a runtime that is new. A binding of the same app and
        branch moves here from whichever runtime holds it [ours]. Fields are trimmed, and a blank optional one counts as
        absent. A `token` that is given must not be in use already; `keeps_apps` says that the caller binds the apps
        that the runtime had. Raises `InvalidRequest` for an id that is blank or would vanish from URIs, and
        `TooManyRuntimes` for a new one when there are `max_runtimes`.
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
        session = self._add_session(runtime_id, token, display_name)
        if old is None:
            self._emit("session_opened", runtime_id)
        thrown_away = self._discard(old, "session_reset") if old else None
        # A listener may have ended the session when it received that event.
        if deployed_app_rid is not None and self._sessions.get(runtime_id) is session:
            self._bind(runtime_id, deployed_app_rid, branch or DEFAULT_BRANCH, display_name)
        if not keeps_apps:
            self._take_app_back(runtime_id)
        return session.runtime, thrown_away

    def _check_room(self, runtime_id: str) -> None:
        if len(self._sessions) >= self._max_runtimes:
            raise TooManyRuntimes(
                f"The session of runtime {quoted(runtime_id)} can't be opened: the emulator has "
                f"{plural(len(self._sessions), 'runtime')} already (max_runtimes). Delete some that are no longer "
                "needed, or start with a larger max_runtimes."
            )

    def _add_session(self, runtime_id: str, token: str | None, display_name: str | None) -> Session:
        # The JSON encoder takes a str, and not a Token.
        token = str(token or MODULE_TOKEN_START + secrets.token_urlsafe(32))
        session = self._sessions[runtime_id] = Session(Runtime(runtime_id, token, self.now(), display_name))
        self._add_replica(session, Replica(runtime_id, "", token, None))
        return session

    def reset_session(self, runtime_id: str) -> tuple[Runtime, ThrownAway | None]:
        """Reset a runtime's session and keep its bindings and display name [ours]."""
        session = self._session(runtime_id)
        apps = self.apps_of(runtime_id)
        runtime, thrown_away = self.open_session(runtime_id, display_name=session.runtime.display_name, keeps_apps=True)
        for app in apps:
            self._bind_missing(app)
        self._take_app_back(runtime_id)
        return runtime, thrown_away

    def delete_session(self, runtime_id: str) -> ThrownAway:
        """End a runtime's session and forget the runtime [ours]."""
        session = self._session(runtime_id)
        del self._sessions[runtime_id]
        self._configurations.pop(runtime_id, None)
        return self._discard(session, "session_deleted")

    def configure(self, runtime_id: str, configuration: Configuration) -> Configuration:
        """Configure a runtime's module, in place of its configuration until now, and return the new one [ours].

        Resets keep it. A runtime can be configured before its session is opened. The secrets are masked from now on.
        Aliases that are given by name get the RIDs of the datasets and streams. Raises `InvalidRequest` if there is
        none of a name.
        """
        runtime_id = checked_runtime_id(runtime_id)
        configuration = configuration.resolved(self.resource)
        self.events.hide(*configuration.secrets)
        self._configurations[runtime_id] = configuration
        self._emit("runtime_configured", runtime_id, detail=configuration.in_words)
        return configuration

    def undo_session(self, runtime_id: str, before: DeployedApp | None) -> None:
        """Delete a session that turned out not to be needed, and bind its app as it was bound `before` [ours].

        The runtime keeps its configuration, for the next session.
        """
        configuration = self._configurations.get(runtime_id)
        self.delete_session(runtime_id)
        if configuration is not None:
            self._configurations[runtime_id] = configuration
        if before is not None:
            self._bind_missing(before)

    def reset(self) -> None:
        """Delete every session, dataset and data stream, and apply the seed, as in a new emulator [ours]."""
        for runtime_id in list(self._sessions):
            self.delete_session(runtime_id)
        for runtime_id in list(self._configurations):
            del self._configurations[runtime_id]
            self._emit("runtime_configured", runtime_id, detail="nothing")
        for rid in list(self._datasets):
            self.delete_dataset(rid)
        for rid in list(self._data_streams):
            self.delete_data_stream(rid)
        if self._seed is not None:
            self.apply_seed(self._seed)

    def apply_seed(self, seed: Seed) -> None:
        """Make the sessions, bindings, datasets and streams of a seed that do not exist yet [ours].

        `reset()` repeats it. A runtime that exists keeps its session, whatever token the file gives it, and a bound app
        its binding; a configured runtime keeps its configuration, and a dataset or stream of the same name its data.
        """
        self._seed = seed
        existing = sorted({each.runtime_id for each in seed.runtimes} & self._sessions.keys())
        # Before the configurations: their aliases name datasets and streams.
        for dataset in seed.datasets:
            if not self._keeps_data(dataset.name, existing):
                self._make_seeded_dataset(dataset)
        for seeded in seed.streams:
            if not self._keeps_data(seeded.name, existing):
                stream = self.create_data_stream(seeded.name, seeded.schema, seeded.options, rid=seeded.rid)
                self.publish(stream.rid, stream.branch, seeded.records)
        for each in seed.runtimes:
            if each.runtime_id not in self._sessions:
                self.open_session(each.runtime_id, token=each.module_auth_token)
            if each.configuration is not None and each.runtime_id not in self._configurations:
                self.configure(each.runtime_id, each.configuration)
        for app in seed.apps:
            if app.active:
                self._bind_missing(app)
        self._emit("seed_applied", detail=_describe_seed(seed, existing))

    def _keeps_data(self, name: str, existing: list[str]) -> bool:
        """Return whether there is a dataset or data stream of a name, and add it to what exists."""
        exists = self.find_dataset(name) is not None or self.find_data_stream(name, None) is not None
        existing.extend([name] if exists else [])
        return exists

    def _make_seeded_dataset(self, seeded: SeededDataset) -> None:
        rid, file = self.create_dataset(seeded.name, rid=seeded.rid).rid, seeded.file
        if file is not None:
            transaction = self.open_transaction(rid, TransactionType.SNAPSHOT)
            self.put_file(rid, transaction.rid, file.path, file.body)
            self.commit_transaction(rid, transaction.rid)
            self.set_dataset_schema(rid, transaction.rid, MASTER, file.fields, file.reader)

    def authenticate(self, runtime_id: str, token: str | None) -> Runtime:
        """Return the runtime if the token is its session's; an unknown runtime is reported before a wrong token."""
        runtime = self._session(runtime_id).runtime
        given = (token or "").encode(errors="surrogatepass")
        if not hmac.compare_digest(given, runtime.module_auth_token.encode()):
            raise InvalidModuleAuthToken
        return runtime

    def _discard(self, session: Session, kind: str) -> ThrownAway:
        thrown_away = ThrownAway(len(session.jobs), len(session.schemas), len(session.apps))
        self._forget_jobs(session)
        for name in session.schemas:
            _remove_from(self._serving, name, session.runtime.runtime_id)
        for rid, branch in session.apps:
            self._unbind(rid, branch)
        for replica in session.replicas.values():
            self._revoke(replica)
            replica.held.clear()
        self._emit(kind, session.runtime.runtime_id, detail=f"discarded {thrown_away}")
        for job in session.jobs.values():
            if not job.finished:
                self._emit("job_cleared", job.runtime_id, job.job_id, kind.replace("_", " "))
        return thrown_away

    def _forget_jobs(self, session: Session) -> None:
        for job in session.jobs.values():
            del self._owners[job.job_id]
            self._counts[job.status] -= 1
            self._kept_bytes -= job.size
        for job_id in list(session.logs):
            session.drop_log(job_id)
        for sessions in (self._evicting, self._noted):
            if sessions.get(session.runtime.runtime_id) is session:
                del sessions[session.runtime.runtime_id]
        if len(self._finished) > 2 * len(self._owners):
            self._finished = LongQueue(job_id for job_id in self._finished if job_id in self._owners)

    # Deployed apps

    def keep_app(self, runtime_id: str, deployed_app_rid: str) -> None:
        """Bind an app to a runtime, now and after every reset, while no app is bound to it and no runtime serves it.

        `release_app()` ends that [ours].
        """
        self._own_apps[runtime_id] = deployed_app_rid
        self._take_app_back(runtime_id)

    def release_app(self, runtime_id: str) -> None:
        """Bind a runtime's own app no more after a reset; a binding that there is stays."""
        self._own_apps.pop(runtime_id, None)

    def _take_app_back(self, runtime_id: str) -> None:
        session, own = self._sessions.get(runtime_id), self._own_apps.get(runtime_id)
        if session is not None and own is not None and not session.apps and own not in self._apps:
            self._bind(runtime_id, own, DEFAULT_BRANCH, session.runtime.display_name)

    def _bind_missing(self, app: DeployedApp | SeededApp) -> None:
        """Bind an app that no runtime serves, unless a listener has deleted its runtime meanwhile."""
        rid, branch = app.deployed_app_rid, app.branch
        if branch not in self._apps.get(rid, {}) and app.runtime_id in self._sessions:
            self._bind(app.runtime_id, rid, branch, app.display_name)

    def _bind(self, runtime_id: str, rid: str, branch: str, display_name: str | None) -> None:
        taken_from = None
        held = self.binding(rid, branch)
        if held:
            taken_from = held.runtime_id
            self._sessions[held.runtime_id].apps.pop((rid, branch), None)
            self._unbind(rid, branch)
        self._hold_binding(DeployedApp(rid, branch, runtime_id, self.now(), display_name))
        self._note_rebound(rid, branch)
        moved = f", taken from runtime {taken_from!r}" if taken_from else ""
        self._emit("app_bound", runtime_id, detail=f"{rid} on branch {branch!r}{moved}")

    def _hold_binding(self, app: DeployedApp) -> None:
        self._apps.setdefault(app.deployed_app_rid, {})[app.branch] = app
        self._namespaces.setdefault(app.namespace, {})[app.deployed_app_rid] = None
        self._sessions[app.runtime_id].apps[app.deployed_app_rid, app.branch] = None

    def _unbind(self, rid: str, branch: str) -> None:
        self._note_rebound(rid, branch)
        branches = self._apps[rid]
        app = branches.pop(branch)
        if not branches:
            del self._apps[rid]
            _remove_from(self._namespaces, app.namespace, rid)

    # Schemas

    def post_schemas(self, runtime_id: str, schemas: Iterable[tuple[str, bytes]]) -> None:
        """Add or update the runtime's schemas, each a function's name and its payload as JSON text [page]."""
        session = self._session(runtime_id)
        schemas = list(schemas)
        for name, _ in schemas:
            self.check_label("function name", name)
        now = self.now()
        posted = {name: FunctionSchema(runtime_id, name, payload, now) for name, payload in schemas}
        self._write_ahead([*(session.schemas | posted).values()])
        invalid = [name for name in posted if name not in session.schemas and name_in_api(name) is None]
        session.runtime = replace(session.runtime, last_schema_post_at=now)
        self._hold_schemas(session, posted)
        self._emit("schemas_posted", runtime_id, detail=", ".join(map(repr, posted)) or "none")
        if invalid:
            self._emit("invalid_api_name", runtime_id, detail=_describe_invalid(invalid))

    def _hold_schemas(self, session: Session, schemas: dict[str, FunctionSchema]) -> None:
        session.schemas.update(schemas)
        for name in schemas:
            self._serving.setdefault(name, {})[session.runtime.runtime_id] = None

    def delete_schema(self, runtime_id: str, function_name: str) -> None:
        """Forget one function's schema [ours]."""
        session = self._session(runtime_id)
        if session.schemas.pop(function_name, None) is None:
            raise NotFound(
                f"Runtime '{runtime_id}' has no schema of function {quoted(function_name)}."
                f"{closest(function_name, session.schemas)} {known(session.schemas, 'functions')}"
            )
        _remove_from(self._serving, function_name, runtime_id)
        self._emit("schema_deleted", runtime_id, detail=repr(function_name))

    # Modules and their replicas

    def set_mode(self, runtime_id: str, mode: Mode) -> None:
        """Set the execution mode of the module that a runtime has from now on."""
        session = self._session(runtime_id)
        if session.runtime.mode != mode:
            session.runtime = replace(session.runtime, mode=mode)
            self._emit("mode_set", runtime_id, detail=mode)

    def set_import_error(self, runtime_id: str, error: str) -> None:
        """Set the end of the traceback with which the import of a runtime's module ended, "" if it did not raise."""
        session, error = self._session(runtime_id), shortened(error, MAX_DETAIL_BYTES)
        if session.runtime.import_error != error:
            session.runtime = replace(session.runtime, import_error=error)
            self._emit("import_error_set", runtime_id, detail=error or "none")

    def set_scale(self, runtime_id: str, scale: Scale | None, detail: str) -> None:
        """Set how many replicas the module of a runtime should have, None when it is not scaled any more.

        `detail` says what changes and why.
        """
        session = self._session(runtime_id)
        if session.scale != scale:
            session.scale = scale
            self._emit("module_scaled", runtime_id, detail=detail)

    def add_replica(
        self,
        runtime_id: str,
        max_concurrent_tasks: int = 1,
        *,
        launched: bool = False,
        name: str | None = None,
        ready: bool | None = True,
        standby: bool = False,
    ) -> Replica:
        """Make a token for one more copy of a runtime's module, valid as long as the session [ours].

        The replica gets at most `max_concurrent_tasks` unfinished jobs at a time, because real clients poll ahead
        [foundry]. `launched` says that it ends with this process. `name` is its id, a random one by default; a suffix
        is added to one that is in use. `ready` is None for one that gets no jobs until `set_ready()`; one on `standby`
        gets none until `switch_replicas()`.
        """
        session = self._session(runtime_id)
        token, name = MODULE_TOKEN_START + secrets.token_urlsafe(32), name or secrets.token_hex(4)
        if name in session.replicas:  # by one that is still leaving, for instance
            name = f"{name}-{secrets.token_hex(2)}"
        replica = Replica(
            runtime_id, name, token, max_concurrent_tasks, launched=launched, ready=ready, standby=standby
        )
        self._add_replica(session, replica)
        self._emit("replica_added", runtime_id, detail=name)
        return replica

    def _add_replica(self, session: Session, replica: Replica) -> None:
        session.replicas[replica.replica_id] = replica
        self._replicas[_hashed(replica.token)] = replica
        if replica.replica_id:
            self._own_tokens[_hashed(replica.token)] = replica
        self._scratch_tokens[_hashed(replica.scratch_token)] = replica
        if not is_masked_by_its_form(replica.token):
            self.events.hide(replica.token)

    def authenticate_replica(self, token: str | None) -> Replica:
        """Find a replica by its token alone and mark it as heard; an unknown token is an `InvalidModuleAuthToken`."""
        replica = self._replicas.get(_hashed(token or ""))
        if replica is None:
            raise InvalidModuleAuthToken
        replica.heard = True
        return replica

    def count_poll(self, replica: Replica) -> bool:
        """Count a poll of a replica; return whether it is its first since its start or last restart."""
        replica.polls += 1
        return replica.polls == 1

    def set_ready(self, replica: Replica, why: str, *, ready: bool) -> None:
        """Set whether a replica is ready to get jobs; `why` says what its readiness probe has shown."""
        if replica.ready is not ready:
            replica.ready = ready
            kind = "replica_ready" if ready else "replica_unresponsive"
            self._emit(kind, replica.runtime_id, detail=f"{replica.replica_id}: {why}")

    def drain_replica(self, replica: Replica) -> None:
        """Hand a replica no more jobs; its token stays valid for the results of those that it holds."""
        replica.max_concurrent_tasks = 0

    def hold_schemas(self, replica: Replica, schemas: Iterable[tuple[str, bytes]]) -> None:
        """Keep the schemas that a replica on standby has posted until `switch_replicas()`."""
        for name, payload in schemas:
            self.check_label("function name", name)
            replica.schemas = {**(replica.schemas or {}), name: payload}
        replica.schemas = replica.schemas or {}

    def switch_replicas(self, new: Sequence[Replica], old: Iterable[Replica], detail: str) -> None:
        """Hand out jobs to replicas on standby in place of the old ones, which finish those that they hold [foundry].

        All are of one runtime. The schemas that the new ones have posted become the runtime's [ours]. `detail` says
        why they are switched.
        """
        runtime_id = new[0].runtime_id
        held = [replica.schemas for replica in new if replica.schemas is not None]
        if held:
            self.post_schemas(runtime_id, {name: each for schemas in held for name, each in schemas.items()}.items())
        for replica in new:
            replica.standby, replica.schemas = False, None
        for replica in old:
            self.drain_replica(replica)
        self._emit("replicas_switched", runtime_id, detail=detail)

    def restart_replica(self, replica: Replica) -> list[str]:
        """Fail the jobs that a replica held before it restarted, and count its polls anew; returns the jobs' ids."""
        replica.polls = 0
        return self._fail_held(replica, REPLICA_RESTARTED)

    def remove_replica(self, replica: Replica, reason: str) -> list[str]:
        """Revoke a replica's token and fail the jobs that it holds; returns their ids."""
        failed = self._fail_held(replica, reason)
        if not replica.revoked:
            self._revoke(replica)
            del self._session(replica.runtime_id).replicas[replica.replica_id]
            self._emit("replica_removed", replica.runtime_id, detail=f"{replica.replica_id}: {reason}")
        return failed

    def _revoke(self, replica: Replica) -> None:
        replica.revoked = True
        del self._replicas[_hashed(replica.token)]
        self._own_tokens.pop(_hashed(replica.token), None)
        del self._scratch_tokens[_hashed(replica.scratch_token)]

    def _fail_held(self, replica: Replica, reason: str) -> list[str]:
        """Fail the jobs that a replica holds, because it can't finish them any more; return their ids [foundry]."""
        held = list(replica.held)
        for job_id in held:
            if job_id in replica.held:  # a listener may have ended it when another one failed
                self.fail(job_id, reason)
        return held

    # The scratch cache and the locks of a runtime's replicas

    def authenticate_scratch(self, token: str | None) -> Replica:
        """Find a replica by its scratch token and mark it as heard; an unknown one is an `InvalidScratchToken`."""
        replica = self._scratch_tokens.get(_hashed(token or ""))
        if replica is None:
            raise InvalidScratchToken
        replica.heard = True
        return replica

    def cached(self, runtime_id: str, keys: Iterable[str]) -> dict[str, str]:
        """Return the values of those keys that are in a runtime's cache [foundry]."""
        return self._session(runtime_id).scratch.values(keys, self.steady())

    def put_cached(self, runtime_id: str, key: str, value: str, seconds: int) -> None:
        """Put a value into a runtime's cache for some seconds; the oldest values make room for it [foundry]."""
        session, size = self._session(runtime_id), size_of(value)
        self.check_label("cache key", key)
        if size > MAX_VALUE_BYTES:
            raise PayloadTooLarge(
                f"The value of the cache key {quoted(key)} has {size:,} bytes, and the cache takes values of at most "
                f"{MAX_VALUE_BYTES:,}. Store it elsewhere and cache its address, or divide it."
            )
        for evicted in session.scratch.put(key, value, self.steady() + seconds * NS_PER_S):
            self._emit("cache_evicted", runtime_id, detail=repr(evicted))
        self._emit("cache_put", runtime_id, detail=f"{key!r}: {plural(size, 'byte')} for {seconds:,} s")

    def delete_cached(self, runtime_id: str, key: str) -> None:
        """Delete a value from a runtime's cache, if it is there [foundry]."""
        entry = self._session(runtime_id).scratch.drop(key)
        if entry is not None and entry.ends_at > self.steady():
            self._emit("cache_deleted", runtime_id, detail=repr(key))

    def try_lock(self, replica: Replica, name: str) -> Lock | None:
        """Lock a name for a replica for 20 seconds; None if another holder has it [foundry]."""
        runtime_id, scratch = replica.runtime_id, self._session(replica.runtime_id).scratch
        self.check_label("lock name", name)
        self._end_leases(runtime_id)
        if name in scratch.locks:
            return None
        if len(scratch.locks) >= MAX_LOCKS:
            raise TooManyLocks(
                f"The lock {quoted(name)} can't be acquired: the replicas of runtime {quoted(runtime_id)} hold "
                f"{MAX_LOCKS:,} locks already. Unlock some, or wait {LEASE_SECONDS} seconds until their leases end."
            )
        lock = Lock(name, secrets.token_hex(16), replica.replica_id, self.steady() + LEASE_SECONDS * NS_PER_S)
        scratch.lock(lock)
        self._emit("lock_acquired", runtime_id, detail=f"{name!r} by {_holder(lock)}")
        return lock

    def refresh_lock(self, runtime_id: str, name: str, lock_id: str) -> bool:
        """Extend a lock by 20 seconds from now; return False if its lease has ended or it was unlocked [foundry]."""
        lock = self._held_lock(runtime_id, name, lock_id)
        if lock is None:
            return False
        refreshed = replace(lock, ends_at=self.steady() + LEASE_SECONDS * NS_PER_S)
        self._session(runtime_id).scratch.lock(refreshed)
        self._emit("lock_refreshed", runtime_id, detail=f"{name!r} by {_holder(lock)}")
        return True

    def unlock(self, runtime_id: str, name: str, lock_id: str) -> None:
        """Release a lock; do nothing if its lease has ended [foundry]."""
        lock = self._held_lock(runtime_id, name, lock_id)
        if lock is not None:
            del self._session(runtime_id).scratch.locks[name]
            self._emit("lock_released", runtime_id, detail=f"{name!r} by {_holder(lock)}")

    def _held_lock(self, runtime_id: str, name: str, lock_id: str) -> Lock | None:
        self._end_leases(runtime_id)
        lock = self._session(runtime_id).scratch.locks.get(name)
        return lock if lock is not None and lock.lock_id == lock_id else None

    def _end_leases(self, runtime_id: str) -> None:
        """Release the locks of a runtime that their holders have not refreshed in time."""
        scratch = self._session(runtime_id).scratch
        while (lock := scratch.pop_ended(self.steady())) is not None:
            late = f"{_holder(lock)} did not refresh it within {LEASE_SECONDS} s"
            self._emit("lock_expired", runtime_id, detail=f"{lock.name!r}: {late}")

    # Jobs

    def submit_to_app(
        self,
        deployed_app_rid: str,
        branch: str | None,
        query_type: str,
        query: bytes,
        source: JobSource,
        user_id: str | None = None,
    ) -> Job:
        """Queue a job for the runtime that serves a deployed app; `query` is JSON text, `user_id` the submitter."""
        app = self.resolve_app(deployed_app_rid, branch)
        return self._enqueue(self._sessions[app.runtime_id], query_type, query, source, app, user_id)

    def submit(self, runtime_id: str, query_type: str, query: bytes, user_id: str | None = None) -> Job:
        """Queue a `runtime-direct` job for a runtime; `query` is JSON text, `user_id` the submitter [ours]."""
        return self._enqueue(self._session(runtime_id), query_type, query, JobSource.RUNTIME_DIRECT, None, user_id)

    def _enqueue(
        self,
        session: Session,
        query_type: str,
        query: bytes,
        source: JobSource,
        app: DeployedApp | None,
        user_id: str | None,
    ) -> Job:
        if not checked_text("query type", query_type).strip():
            raise InvalidRequest("Submitting a job: the query type is blank. Give the function's name.")
        self.check_label("query type", query_type)
        if len(session.queue) >= self._max_queued:
            raise QueueFull(
                f"Runtime '{session.runtime.runtime_id}' has {plural(len(session.queue), 'job')} queued already "
                "(max_queued). Submit again when it has taken some."
            )
        self._submitted += 1
        job = Job(
            new_job_id(session.runtime.module_auth_token),
            self._submitted,
            session.runtime.runtime_id,
            one_text(query_type),
            query,
            source,
            self.now(),
            app.deployed_app_rid if app else None,
            app.branch if app else None,
            user_id=user_id,
            queue_clock=self.steady(),
        )
        self._write_ahead(job)
        session.queue[job.job_id] = job
        self._owners[job.job_id] = session
        return self._change(session, job, "job_queued", query_type)

    def take(
        self,
        runtime_id: str,
        *,
        will_wait: bool = False,
        replica: Replica | None = None,
        ends_with_kernel: bool = False,
    ) -> Job | None:
        """Record a poll, and return the oldest queued job, now running; None when nothing is queued [page].

        A poll that will wait is not reported as empty yet. A replica that holds as many jobs as it may gets None.
        `ends_with_kernel` says that the executor lives in this process, as launched replicas do.
        """
        session, now = self._session(runtime_id), self.now()
        first = not session.runtime.connected
        session.runtime = replace(session.runtime, connected=True, last_poll_at=now)
        if first:
            self._emit("runtime_connected", runtime_id)
            session = self._session(runtime_id)  # a listener may have reset it
        if not session.queue or (replica and replica.full):
            if not will_wait:
                self._emit("poll_empty", runtime_id)
            return None
        _, job = session.queue.popitem(last=False)
        if replica is not None:
            replica.held[job.job_id] = None
            ends_with_kernel = replica.launched
        steady = self.steady()
        running = replace(
            job,
            status=JobStatus.RUNNING,
            started_at=now,
            replica_id=None if replica is None else replica.replica_id,
            ends_with_kernel=ends_with_kernel,
            queue_clock=job.queue_time(steady),
            run_clock=steady,
        )
        self._change(session, running, "job_started", job.query_type)
        if session.schemas and job.query_type not in session.schemas:
            self._emit("unknown_query_type", runtime_id, job.job_id, _describe_unknown(job, session))
        return running

    def give_back(self, job: Job) -> None:
        """Put a job that was taken but never arrived back at the head of its queue [ours]."""
        session = self._owners.get(job.job_id)
        if session is None or session.jobs[job.job_id] is not job or job.job_id in session.streams:
            return
        if job.status != JobStatus.RUNNING:
            return
        queued = replace(
            job,
            status=JobStatus.QUEUED,
            started_at=None,
            replica_id=None,
            ends_with_kernel=False,
            queue_clock=None if job.run_clock is None else job.run_clock - (job.queue_time() or 0),
            run_clock=None,
        )
        session.put_back(queued)
        self._change(session, queued, "job_given_back", "the client disconnected before the job reached it")

    def finish(self, runtime_id: str, job_id: str, result: bytes, content_type: str | None = None) -> Job:
        """Store the result of a running job; the same result again changes nothing [page, ours]."""
        session, job = self._job_of(runtime_id, job_id)
        if job.status == JobStatus.SUCCEEDED and job.result == result:
            return job
        _require_running(session, job)
        return self._succeed(session, self._done(job, result, content_type))

    def fail(self, job_id: str, reason: str) -> Job:
        """End a queued or running job as `failed`, with the reason [ours]."""
        session, job = self._owner(job_id)
        reason = shortened(checked_text("reason", reason).strip(), MAX_DETAIL_BYTES) or "failed by hand"
        if job.finished:
            raise JobAlreadyCompleted(f"Job '{job_id}' can't be failed: it has {job.status} already.")
        session.queue.pop(job_id, None)
        session.streams.pop(job_id, None)
        failed = replace(self._ended(job), status=JobStatus.FAILED, error_message=reason)
        return self._change(session, failed, "job_failed", reason)

    def cancel(self, job_ids: Iterable[str], reason: str) -> int:
        """Fail those of the jobs that are queued or running [ours]; return how many those were.

        Their error messages say that they were cancelled, and the reason.
        """
        count = 0
        for job_id in list(job_ids):
            job = self.find_job(job_id)  # only now: a listener may have ended it when another one failed
            if job is not None and not job.finished:
                self.fail(job_id, f"{CANCELLED}{reason}")
                count += 1
        return count

    def add_reason(self, job_id: str, reason: str, detail: str | None = None) -> None:
        """Append to a failed job's message a reason that became known later, from a result that came too late.

        `detail` is that of the event, the reason by default.
        """
        session, job = self._owner(job_id)
        message = shortened(f"{job.error_message}: {reason}", MAX_DETAIL_BYTES)
        session.jobs[job_id] = replace(job, error_message=message)
        self._kept_bytes += session.jobs[job_id].size - job.size
        self._emit("late_result", job.runtime_id, job_id, reason if detail is None else detail)

    def _change(self, session: Session, job: Job, kind: str, detail: str) -> Job:
        before = session.jobs.get(job.job_id)
        if before is not None and before.replica_id in session.replicas and job.status != JobStatus.RUNNING:
            session.replicas[before.replica_id].held.pop(job.job_id, None)
        if before is not None:
            session.counts[before.status] -= 1
            self._counts[before.status] -= 1
            self._kept_bytes -= before.size
        self._hold_job(session, job)
        if job.finished:
            self._finished.append(job.job_id)
        self._emit(kind, job.runtime_id, job.job_id, detail)
        return job

    def _hold_job(self, session: Session, job: Job) -> None:
        session.counts[job.status] += 1
        self._counts[job.status] += 1
        self._kept_bytes += job.size
        session.jobs[job.job_id] = job

    def _ended(self, job: Job) -> Job:
        """Return a job with the time at which it ended, and how long it was queued and ran."""
        now, steady = self.now(), self.steady()
        return replace(job, completed_at=now, queue_clock=job.queue_time(steady), run_clock=job.run_time(steady))

    def _done(self, job: Job, result: bytes, content_type: str | None, *, streamed: bool = False) -> Job:
        """Return a job with its result; one whose result can't be kept fails, and the sender gets the reason."""
        done = replace(
            self._ended(job),
            status=JobStatus.SUCCEEDED,
            result=result,
            result_content_type=content_type and one_text(content_type),
            streamed=streamed,
        )
        try:
            self._write_ahead(done)
        except PayloadTooLarge as error:
            self.fail(job.job_id, str(error))
            raise
        return done

    def _succeed(self, session: Session, done: Job) -> Job:
        self._note_result(session, done)
        return self._change(session, done, "job_succeeded", plural(len(done.result or b""), "byte"))

    def _note_result(self, session: Session, job: Job) -> None:
        session.note_result(job)
        if session.unread:
            self._noted[job.runtime_id] = session

    # Results that arrive in chunks

    def open_stream(self, runtime_id: str, job_id: str) -> ResultStream:
        """Begin to receive the result of a running job in chunks."""
        session, job = self._job_of(runtime_id, job_id)
        _require_running(session, job)
        stream = session.streams[job_id] = ResultStream(job_id)
        self._emit("result_started", runtime_id, job_id)
        return stream

    def add_chunk(self, stream: ResultStream, chunk: bytes) -> None:
        """Append a chunk; a `JobAlreadyCompleted` or `NotFound` says that the job ended meanwhile."""
        session = self._streaming(stream)
        stream.body += chunk
        self._emit("result_chunk", session.runtime.runtime_id, stream.job_id)

    def close_stream(self, stream: ResultStream, content_type: str | None = None) -> Job:
        """End the result: the job succeeded."""
        session = self._streaming(stream)
        done = self._done(session.jobs[stream.job_id], bytes(stream.body), content_type, streamed=True)
        del session.streams[stream.job_id]
        stream.complete = True
        return self._succeed(session, done)

    def break_stream(self, stream: ResultStream, reason: str = "") -> None:
        """Fail the job of a stream that broke off, with the reason if it is known; do nothing if the job has ended."""
        session = self._owners.get(stream.job_id)
        if session and session.streams.get(stream.job_id) is stream:
            why = f": {reason}" if reason else ""
            self.fail(stream.job_id, f"{BROKEN_OFF} {plural(stream.size, 'byte')}{why}")

    def _streaming(self, stream: ResultStream) -> Session:
        session, job = self._owner(stream.job_id)
        if session.streams.get(stream.job_id) is not stream:
            raise JobAlreadyCompleted(f"Job '{stream.job_id}' has {job.status} already; this result was not kept.")
        return session

    # Datasets

    def create_dataset(self, name: str, folder_rid: str = FOLDER, rid: str | None = None) -> Dataset:
        """Create a dataset with an empty branch `master`, and return it [foundry].

        Its name must be new, whatever the folder, and so must a `rid` that is given [ours].
        """
        name = checked_text("name of a dataset", name)
        check_dataset_name(name)
        self.check_label("name of a dataset", name)
        self.check_label("folder", checked_text("folder", folder_rid))
        self._check_new_name(name, folder_rid)
        if rid is not None:
            check_rid(rid)
            self.check_label("RID of a dataset", rid)
            self._check_new_name(rid, folder_rid)
        self._check_data_room(f"The dataset {quoted(name)}", 2 * RECORD_BYTES + size_of(name) + size_of(folder_rid))
        history = self._add_dataset(Dataset(rid or new_rid("dataset"), name, folder_rid, self.now()))
        history.hold_branch(Branch(MASTER))
        self._emit("dataset_created", detail=f"{name} ({history.dataset.rid})")
        return history.dataset

    def _add_dataset(self, dataset: Dataset) -> DatasetHistory:
        history = DatasetHistory(dataset, self._data_size, self._data_changes)
        self._datasets[dataset.rid] = self._datasets_by_name[dataset.name] = history
        return history

    def delete_dataset(self, rid: str) -> None:
        """Delete a dataset with all that belongs to it [ours]."""
        history = self.dataset(rid)
        dataset = history.dataset
        del self._datasets[rid], self._datasets_by_name[dataset.name]
        history.leave()
        self._emit("dataset_deleted", detail=f"{dataset.name} ({rid})")

    def create_branch(self, rid: str, name: str, transaction_rid: str | None = None) -> Branch:
        """Create a branch of a dataset that begins with a committed transaction, or empty, and return it [foundry]."""
        history = self.dataset(rid)
        history.check_new_branch(name)
        self.check_label("branch", name)
        if transaction_rid is not None:
            history.committed(transaction_rid)
        self._check_data_room(f"The branch {quoted(name)}", RECORD_BYTES)
        history.hold_branch(branch := Branch(name, transaction_rid, transaction_rid))
        self._emit("branch_created", detail=f"{name} of {history.dataset.name}")
        return branch

    def delete_branch(self, rid: str, name: str) -> None:
        """Delete a branch of a dataset; an open transaction of it is aborted before [ours]."""
        history = self.dataset(rid)
        branch = history.branch(name)
        if branch.transaction_rid != branch.committed_rid:
            self.abort_transaction(rid, branch.transaction_rid or "")
        history.drop_branch(name)
        self._emit("branch_deleted", detail=f"{name} of {history.dataset.name}")

    def open_transaction(self, rid: str, kind: TransactionType, branch: str = MASTER) -> Transaction:
        """Open a transaction on a branch, which may have one open transaction at a time, and return it [foundry]."""
        history = self.dataset(rid)
        base = history.branch(branch)
        history.check_can_open(base)
        self._check_data_room("The transaction", RECORD_BYTES)
        transaction = Transaction(new_rid("transaction"), branch, kind, self.now(), base.committed_rid)
        history.hold_transaction(transaction)
        history.hold_branch(replace(base, transaction_rid=transaction.rid))
        self._emit("transaction_opened", detail=_describe_transaction(history, transaction))
        return transaction

    def commit_transaction(self, rid: str, transaction_rid: str) -> Transaction:
        """Commit an open transaction: from now on readers see what it changed [foundry]."""
        history = self.dataset(rid)
        done = self._closed(history.opened(transaction_rid), TransactionStatus.COMMITTED)
        history.hold_transaction(done)
        history.hold_branch(replace(history.branch(done.branch), committed_rid=done.rid))
        self._emit("transaction_committed", detail=_describe_transaction(history, done))
        return done

    def abort_transaction(self, rid: str, transaction_rid: str) -> Transaction:
        """Abort an open transaction: its files are discarded, and nothing of it is ever seen [foundry]."""
        history = self.dataset(rid)
        done = self._closed(history.opened(transaction_rid), TransactionStatus.ABORTED)
        history.hold_transaction(done)
        history.drop_files(done.rid)
        branch = history.branch(done.branch)
        history.hold_branch(replace(branch, transaction_rid=branch.committed_rid))
        self._emit("transaction_aborted", detail=_describe_transaction(history, done))
        return done

    def _closed(self, transaction: Transaction, status: TransactionStatus) -> Transaction:
        return replace(transaction, status=status, closed_at=self.now())

    def put_file(self, rid: str, transaction_rid: str, path: str, body: bytes) -> DatasetFile:
        """Upload a file into an open transaction, and return it [foundry].

        Raises `PayloadTooLarge` if the datasets would take more than `max_data_bytes`.
        """
        history = self.dataset(rid)
        history.check_upload(history.opened(transaction_rid), path)
        self._check_data_room(f"The file {quoted(path)}", len(body) + RECORD_BYTES)
        history.hold_file(transaction_rid, path, file := DatasetFile(path, transaction_rid, self.now(), body))
        self._emit("file_uploaded", detail=f"{path} of {history.dataset.name}: {plural(file.size, 'byte')}")
        return file

    def delete_file(self, rid: str, transaction_rid: str, path: str) -> None:
        """Delete a file in an open transaction of type `DELETE`; earlier views still have it [foundry]."""
        history = self.dataset(rid)
        history.check_delete(history.opened(transaction_rid), path)
        self._check_data_room("The transaction", RECORD_BYTES)
        history.hold_file(transaction_rid, path, None)
        self._emit("file_deleted", detail=f"{path} of {history.dataset.name}")

    def set_dataset_schema(
        self, rid: str, transaction_rid: str, branch: str, fields: bytes, reader: Reader
    ) -> DatasetSchema:
        """Set the schema of a dataset from a transaction on, and return it; `fields` is JSON text [foundry]."""
        history = self.dataset(rid)
        history.transaction(transaction_rid)
        self._check_data_room("The schema", len(fields) + RECORD_BYTES)
        history.hold_schema(schema := DatasetSchema(str(uuid.uuid4()), branch, transaction_rid, reader, fields))
        self._emit("dataset_schema_set", detail=f"{history.dataset.name}: {plural(len(fields), 'byte')}")
        return schema

    def _check_data_room(self, what: str, size: int) -> None:
        """Discard the oldest files that no branch shows any more until there is room; `PayloadTooLarge` without it."""
        if self.data_bytes + size > self._max_data_bytes:
            self._evict_transactions(self.data_bytes + size - self._max_data_bytes)
        taken = self.data_bytes
        if taken + size > self._max_data_bytes:
            raise PayloadTooLarge(
                f"{what} of {plural(size, 'byte')} can't be kept: the datasets take {plural(taken, 'byte')} already, "
                f"and max_data_bytes allows {self._max_data_bytes:,}. Delete datasets that are no longer needed, or "
                "start with a larger max_data_bytes."
            )

    def _evict_transactions(self, size: int) -> None:
        for history in list(self._datasets.values()):
            for transaction_rid in history.superseded():
                if size <= 0:
                    return
                before = history.size
                history.drop_files(transaction_rid)
                size -= before - history.size
                self._emit("transaction_evicted", detail=f"{transaction_rid} of {history.dataset.name}")

    # Eviction

    @property
    def evictable(self) -> int:
        """How many finished jobs can be evicted, at most."""
        return len(self._finished)

    def keeps_more_than(self, jobs: int, size: int) -> bool:
        """Return whether more jobs are kept, or more bytes of jobs, of what they have printed and of events."""
        return len(self._owners) > jobs or self._kept_bytes + self._printed.size + self.events.size > size

    def evict(self, keep_jobs: int, keep_bytes: int, most: int) -> int:
        """Evict the jobs that finished first, at most `most`, while more are kept than the two limits allow [ours].

        Queued and running jobs are never evicted. Returns how many were.
        """
        count = 0
        for _ in range(min(most, self.evictable)):
            if not self.keeps_more_than(keep_jobs, keep_bytes):
                break
            count += self._evict_job(self._finished.popleft())
        return count

    def _evict_job(self, job_id: str) -> bool:
        session = self._owners.get(job_id)
        if session is None:  # a reset has cleared it
            return False
        job = session.jobs[job_id]
        session.evicted += 1
        self._evicting[job.runtime_id] = session
        # Before the job is dropped: the journal reads its number.
        self._emit("job_evicted", job.runtime_id, job_id)
        session.forget(job_id)
        del self._owners[job_id]
        session.counts[job.status] -= 1
        self._counts[job.status] -= 1
        self._kept_bytes -= job.size
        return True

    # Data streams

    def create_data_stream(
        self,
        name: str,
        schema: StreamSchema,
        options: StreamOptions = StreamOptions(),  # noqa: B008 - it never changes
        *,
        branch: str = DEFAULT_BRANCH,
        folder_rid: str = FOLDER,
        rid: str | None = None,
    ) -> DataStream:
        """Create a data stream with a stream on one branch, and return that stream [foundry].

        Its name must be new, whatever the folder [ours]; the RID is a new one by default.
        """
        name = checked_text("name of a stream", name).strip()
        if not name:
            raise InvalidRequest("A data stream needs a name that is not blank.")
        self._check_new_name(name, folder_rid)
        if rid is not None:
            check_rid(rid)
            self._check_new_name(rid, folder_rid)
        new = DataStream(
            rid or new_rid("dataset"), name, folder_rid, branch, new_view_rid(), schema, options, self.now()
        )
        return self._add_stream(new)

    def _check_new_name(self, name: str, folder_rid: str) -> None:
        """Refuse the name, or the RID, of a dataset or data stream that exists, with the platform's error."""
        dataset, stream = self.find_dataset(name), self.find_data_stream(name, None)
        if dataset is not None or stream is not None:
            kind = "dataset" if stream is None else "stream"
            message = f"There is a {kind} {quoted(name)} already. Choose another name, or delete that {kind}."
            ids = {"parentFolderRid": folder_rid, "resourceName": name, "displayName": name}
            raise ApiError(409, "ResourceNameAlreadyExists", message, **ids)

    def create_stream_branch(self, rid: str, branch: str, schema: StreamSchema, options: StreamOptions) -> DataStream:
        """Create a stream on a new branch of a data stream, and return it [foundry]."""
        branches = self._branches(rid)
        first = next(iter(branches.values())).stream
        if branch in branches:
            message = f"The stream {quoted(first.name)} has a branch {quoted(branch)} already."
            raise ApiError(409, "BranchAlreadyExists", message, datasetRid=rid, branchName=branch)
        new = DataStream(rid, first.name, first.folder_rid, branch, new_view_rid(), schema, options, self.now())
        return self._add_stream(new)

    def _branches(self, rid: str) -> dict[str, StreamLog]:
        if rid not in self._data_streams:
            raise stream_not_found(rid, DEFAULT_BRANCH, (each.name for each in self.data_streams()))
        return self._data_streams[rid]

    def _add_stream(self, new: DataStream) -> DataStream:
        labels = {"name of a stream": new.name, "RID": new.rid, "branch": new.branch, "folder": new.folder_rid}
        for what, label in labels.items():
            self.check_label(what, checked_text(what, label))
        new.options.check()
        branches = self._data_streams.get(new.rid, {})
        if len(branches) >= MAX_BRANCHES or (not branches and len(self._data_streams) >= MAX_STREAMS):
            message = f"There may be {MAX_STREAMS:,} streams with {MAX_BRANCHES} branches each. Delete some of them."
            raise ApiError(429, "TooManyStreams", message)
        self._add_log(StreamLog(new))
        self._emit("stream_created", detail=f"{new.label} ({new.rid}): {new.schema.in_words}")
        return new

    def _add_log(self, log: StreamLog) -> None:
        stream = log.stream
        self._data_streams.setdefault(stream.rid, {})[stream.branch] = log
        self._stream_names[stream.name] = stream.rid
        self._note_log(log)

    def _note_log(self, log: StreamLog) -> None:
        self._data_changes.put(log.stream.rid, "stream", log.stream.branch)
        self._data_changes.put(log.stream.rid, "log", log.stream.branch)

    def reset_data_stream(
        self, rid: str, branch: str, schema: StreamSchema | None = None, options: StreamOptions | None = None
    ) -> DataStream:
        """Clear the stream on a branch, which gets a new view, and return it [foundry].

        It may get another schema and other options.
        """
        old = self.data_stream(rid, branch).stream
        stream = replace(old, schema=schema or old.schema, options=options or old.options, view_rid=new_view_rid())
        stream.options.check()
        self._add_log(StreamLog(stream))
        self._emit("stream_reset", detail=f"{stream.label}: {stream.schema.in_words}")
        return stream

    def delete_data_stream(self, rid: str) -> None:
        """Delete a data stream with its branches, records and subscribers [ours]."""
        branches = self._branches(rid)
        del self._data_streams[rid], self._stream_names[next(iter(branches.values())).stream.name]
        for name in [name for name, each in self._subscribers.items() if each.rid == rid]:
            del self._subscribers[name]
        self._data_changes.remove_everything(rid)
        self._emit("stream_deleted", detail=f"{next(iter(branches.values())).stream.name} ({rid})")

    def publish(
        self, rid: str, branch: str, records: Sequence[NewRecord], view_rid: str | None = None
    ) -> list[StreamRecord]:
        """Publish records that match the schema to the stream on a branch, and return them with their offsets.

        Beyond `keep_records` the oldest records are dropped [ours]. `view_rid` must be the current view, if it is
        given. Raises the platform's errors.
        """
        log = self.data_stream(rid, branch)
        log.check_view(view_rid)
        for record in records:
            check_size(record)
        if not records:
            return []
        now, before = self.now(), len(log.arrived)
        added = [log.append(record, now, self._keep_records) for record in records]
        self._data_changes.put(rid, "log", branch)
        dropped = before + len(added) - len(log.arrived)
        also = f"; {plural(dropped, 'old record')} dropped" if dropped else ""
        self._emit("records_published", detail=f"{plural(len(added), 'record')} to {log.stream.label}{also}")
        return added

    def create_subscriber(
        self, rid: str, branch: str, subscriber_id: str, read_position: Mapping[str, Any], start: tuple[int, ...]
    ) -> Subscriber:
        """Create a subscriber of the stream on a branch that reads from `start` on, and return it [foundry].

        If the stream has that subscriber already, it stays as it is. Raises the platform's error if another stream has
        a subscriber of this id.
        """
        stream, existing = self.data_stream(rid, branch).stream, self._subscribers.get(subscriber_id)
        if existing is not None:
            return self._check_same_stream(existing, rid, branch)
        self.check_label("subscriber id", subscriber_id)
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise ApiError(429, "TooManySubscribers", f"There are {MAX_SUBSCRIBERS} subscribers already. Delete some.")
        now = self.now()
        new = Subscriber(subscriber_id, rid, branch, stream.view_rid, read_position, start, start, now)
        self._hold_subscriber(new)
        self._emit("subscriber_created", detail=f"{subscriber_id} of {stream.label}")
        return new

    def _hold_subscriber(self, subscriber: Subscriber) -> None:
        self._subscribers[subscriber.subscriber_id] = subscriber
        self._data_changes.put(subscriber.rid, "subscriber", subscriber.subscriber_id)

    def _check_same_stream(self, existing: Subscriber, rid: str, branch: str) -> Subscriber:
        name = existing.subscriber_id
        if (existing.rid, existing.branch) == (rid, branch):
            return self.subscriber(rid, branch, name)
        message = f"Another stream has a subscriber {quoted(name)} already: {existing.rid}. Choose another id."
        ids = {"existingDatasetRid": existing.rid, "existingBranchName": existing.branch}
        raise ApiError(409, "SubscriberAlreadyExists", message, subscriberId=name, **ids)

    def move_subscriber(self, rid: str, branch: str, subscriber_id: str, positions: tuple[int, ...]) -> Subscriber:
        """Let a subscriber read from other positions on, the next offset of each partition, and return it [foundry]."""
        subscriber = self.subscriber(rid, branch, subscriber_id)
        self._hold_subscriber(moved := replace(subscriber, positions=positions))
        if positions != subscriber.positions:
            self._emit("subscriber_moved", detail=f"{subscriber_id} to {', '.join(map(str, positions))}")
        return moved

    def delete_subscriber(self, rid: str, branch: str, subscriber_id: str) -> None:
        """Delete a subscriber with its positions [foundry]."""
        del self._subscribers[self.subscriber(rid, branch, subscriber_id).subscriber_id]
        self._data_changes.remove(rid, "subscriber", subscriber_id)
        self._emit("subscriber_deleted", detail=subscriber_id)

    # The journal, and the state of a process that has ended

    @property
    def rebound(self) -> list[tuple[str, str]]:
        """The apps' branches that were bound or lost their binding since a journal wrote them, in that order."""
        return list(self._rebound or ())

    @property
    def data_changes(self) -> DataChanges:
        """What has changed in the datasets and data streams since a journal wrote them."""
        return self._data_changes

    def attach_journal(self, write_ahead: WriteAhead, *, new: bool) -> None:
        """Call `write_ahead` with each record that may be large before it is kept.

        A `PayloadTooLarge` from it refuses the record. From now on, what is `rebound` and the `data_changes` are
        collected. A `new` journal has nothing yet, so it needs all bindings, datasets and data streams.
        """
        self._data_changes.collect(now=True)
        if new:
            self._note_all_data()
        self._write_ahead = write_ahead
        self._rebound = {(app.deployed_app_rid, app.branch): None for app in self.deployed_apps()} if new else {}

    def _note_all_data(self) -> None:
        for history in self._datasets.values():
            history.note_everything()
        for branches in self._data_streams.values():
            for log in branches.values():
                self._note_log(log)
        for subscriber in self._subscribers.values():
            self._data_changes.put(subscriber.rid, "subscriber", subscriber.subscriber_id)

    def forget_changes(self) -> None:
        """Start to collect anew what is `rebound` and the `data_changes`: the journal has written them."""
        self._rebound = {}
        self._data_changes.collect(now=True)

    def detach_journal(self) -> None:
        """Keep records in memory only from now on."""
        self._data_changes.collect(now=False)
        self._write_ahead = in_memory_only
        self._rebound = None

    def _note_rebound(self, rid: str, branch: str) -> None:
        if self._rebound is not None:
            # At the end: the journal keeps bindings in the order in which they were made.
            self._rebound.pop((rid, branch), None)
            self._rebound[rid, branch] = None

    def restore(self, saved: SavedState) -> None:
        """Adopt the state of another process, in a lifecycle that is empty [ours]. It emits no events."""
        for each in saved.sessions:
            self._restore_session(each)
        for app in saved.apps:
            self._hold_binding(app)
        for job in saved.jobs:
            self._restore_job(self._sessions[job.runtime_id], job)
        for dataset in saved.datasets:
            self._add_dataset(dataset.dataset).restore(dataset)
        for stream in saved.streams:
            self._add_log(log := StreamLog(stream.stream))
            log.restore(stream)
        for subscriber in saved.subscribers:
            self._hold_subscriber(subscriber)
        finished = [job for job in saved.jobs if job.finished]
        self._finished = LongQueue(job.job_id for job in sorted(finished, key=lambda job: job.completed_at or 0))

    def _restore_session(self, saved: SavedSession) -> None:
        name, token = saved.runtime.runtime_id, saved.runtime.module_auth_token
        session = self._sessions[name] = Session(saved.runtime)
        self._hold_schemas(session, {schema.function_name: schema for schema in saved.schemas})
        session.evicted = saved.evicted
        if session.evicted:
            self._evicting[name] = session
        self._add_replica(session, Replica(name, "", token, None))
        for each in saved.replicas:
            self._add_replica(session, Replica(name, each.replica_id, each.token, each.max_concurrent_tasks))

    def _restore_job(self, session: Session, job: Job) -> None:
        self._hold_job(session, job)
        self._owners[job.job_id] = session
        self._submitted = max(self._submitted, job.sequence)
        if job.status == JobStatus.SUCCEEDED:
            self._note_result(session, job)
        elif job.status == JobStatus.QUEUED:
            session.queue[job.job_id] = job
        elif job.status == JobStatus.RUNNING and job.replica_id in session.replicas:
            session.replicas[job.replica_id].held[job.job_id] = None

    def fail_what_ended_with_kernel(self, reason: str) -> None:
        """Fail the running jobs of functions in cells and of launched replicas of a process that ended."""
        for job in self.jobs():
            if job.status == JobStatus.RUNNING and job.ends_with_kernel:
                self.fail(job.job_id, reason)


async def until(lifecycle: Lifecycle, condition: Callable[[], bool], seconds: float | None) -> bool:
    """Wait until a condition holds, which is checked after every event; return False after `seconds` without it.

    Without `seconds`, the wait has no limit.
    """
    changed = asyncio.Event()
    unsubscribe = lifecycle.events.subscribe(lambda _: changed.set())
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                changed.clear()
                await changed.wait()
    except TimeoutError:
        return False
    finally:
        unsubscribe()
    return True


def _require_running(session: Session, job: Job) -> None:
    if job.status == JobStatus.QUEUED:
        raise JobNotRunning(f"Job '{job.job_id}' is still queued: poll for it before posting its result.")
    if job.finished:
        why = f" ({job.error_message})" if job.error_message else ""
        raise JobAlreadyCompleted(f"Job '{job.job_id}' has {job.status} already{why}; this result was not kept.")
    if job.job_id in session.streams:
        raise JobAlreadyCompleted(f"Job '{job.job_id}' is receiving another result; this one was not kept.")


def _describe_unknown(job: Job, session: Session) -> str:
    return f"'{job.query_type}' is in none of the posted schemas. {known(session.schemas, 'functions')}"


def _describe_invalid(names: list[str]) -> str:
    what = f"No API name can be made from {quoted_names(names)}, since {RULE}."
    return f"{what} {advice(names[0])}" if len(names) == 1 else what


def _holder(lock: Lock) -> str:
    return f"replica {lock.replica_id}" if lock.replica_id else "the session's own executor"


def _describe_transaction(history: DatasetHistory, transaction: Transaction) -> str:
    return f"{transaction.kind} on branch {transaction.branch} of {history.dataset.name} ({transaction.rid})"


def _describe_seed(seed: Seed, existing: list[str]) -> str:
    inactive = [f"{app.deployed_app_rid} on branch {app.branch!r}" for app in seed.apps if not app.active]
    runtimes, apps = plural(len(seed.runtimes), "runtime"), plural(len(seed.apps) - len(inactive), "deployed app")
    counted = {"dataset": len(seed.datasets), "stream": len(seed.streams)}
    data = [f", {plural(count, noun)}" for noun, count in counted.items() if count]
    parts = [f"{runtimes}, {apps}{''.join(data)} of {seed.path or 'the given data'}"]
    parts += [f"kept as they were: {', '.join(map(repr, existing))}"] if existing else []
    parts += [f"inactive, so bound to no runtime: {', '.join(inactive)}"] if inactive else []
    return "; ".join(parts)


def _remove_from(index: dict[str, dict[str, None]], key: str, value: str) -> None:
    """Remove a value from under a key of an index, and the key with its last value."""
    del index[key][value]
    if not index[key]:
        del index[key]


def _hashed(token: str) -> bytes:
    # Looked up by its hash, a token can't be guessed letter by letter from the time that it takes.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
