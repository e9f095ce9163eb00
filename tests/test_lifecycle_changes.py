"""Only `Lifecycle` changes the state, and every change emits exactly one event: each public operation, driven once.

Which changes an operation made is found by comparing the state before and after it, not by asking the operation.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import cmemu_nb
from cmemu_nb import lifecycle as package
from cmemu_nb.errors import (
    ApiError,
    CmemuError,
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
)
from cmemu_nb.lifecycle.configuration import Configuration
from cmemu_nb.lifecycle.data_streams import (
    MAX_RECORD_BYTES,
    MAX_STREAMS,
    MAX_SUBSCRIBERS,
    DataStream,
    Partition,
    StreamLog,
    StreamOptions,
)
from cmemu_nb.lifecycle.datasets import DatasetFile, DatasetHistory, DataSize, Reader, Transaction, TransactionType
from cmemu_nb.lifecycle.events import KINDS, EventLog
from cmemu_nb.lifecycle.fifo import LongQueue
from cmemu_nb.lifecycle.job_log import JobLog, Printed
from cmemu_nb.lifecycle.lifecycle import Lifecycle, in_memory_only
from cmemu_nb.lifecycle.records import FunctionSchema, Job, JobSource, Mode, Runtime
from cmemu_nb.lifecycle.scaling import Scale
from cmemu_nb.lifecycle.scratch import LEASE_SECONDS, MAX_CACHE_BYTES, MAX_LOCKS, MAX_VALUE_BYTES, Lock, Scratch
from cmemu_nb.lifecycle.session import Replica, ResultStream, Session
from cmemu_nb.lifecycle.snapshot import SavedSession, SavedState, Seed, SeededApp, SeededRuntime
from cmemu_nb.lifecycle.state import State
from cmemu_nb.wire.stream_schemas import parse
from cmemu_nb.wire.stream_values import NewRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

APP, OTHER_APP, NEW_APP = (f"ri.foundry.main.deployed-app.{name}" for name in ("a", "b", "c"))
CONTOUR = JobSource.CONTOUR_SYNC
LIMITS = {"keep_events": 1000, "keep_bytes": 10**6, "max_queued": 2, "max_runtimes": 4, "max_label_bytes": 100}
LIMITS["max_data_bytes"] = MAX_DATA = 100_000
LIMITS["keep_records"] = 3
SEED = Seed(
    "seed.yaml",
    {},
    [SeededRuntime("rt"), SeededRuntime("seeded")],
    [SeededApp(NEW_APP, "seeded"), SeededApp(APP, "seeded"), SeededApp("x", "rt", active=False)],
    {},
)
CONFIGURED = Configuration().changed({"sources": {"Crm": {"password": "a long password"}}})
SCHEMA, RECORD = parse({"sensor": "STRING"}), NewRecord(b'{"sensor":"a"}', None)
SAVED = SavedState(
    [SavedSession(Runtime("saved", "token-of-saved", 1), [FunctionSchema("saved", "f", b"{}", 1)], [], 2)], [], []
)


class World:
    """A lifecycle with something of everything, whose clocks tick at each look at them and can be set forward."""

    def __init__(self) -> None:
        clock = itertools.count(10**18)
        self.ahead = 0
        self.state = state = Lifecycle(clock=lambda: next(clock), monotonic=lambda: next(clock) + self.ahead, **LIMITS)
        state.open_session("rt", APP)
        state.open_session("other", OTHER_APP, "dev")
        state.post_schemas("rt", [("add", b"{}"), ("mul", b"{}")])
        self.replica = state.add_replica("rt", 2, launched=True, name="replica")
        self.idle = state.add_replica("rt", name="idle")
        self.waiting = state.add_replica("rt", name="waiting", ready=None)
        self.standby = state.add_replica("rt", name="standby", standby=True)
        state.hold_schemas(self.standby, [("new", b"{}")])
        self.succeeded = state.finish("rt", self.running().job_id, b'{"error":"no"}')
        self.failed = state.fail(self.running().job_id, "broke")
        self.taken = self.running()
        self.held = [self.running(self.replica), self.running(self.replica)]
        self.stream = state.open_stream("rt", self.running().job_id)
        state.add_chunk(self.stream, b"[1")
        self.queued = state.submit_to_app(APP, None, "add", b"{}", CONTOUR, "user")
        state.log(self.succeeded.job_id).write("printed")
        state.put_cached("rt", "key", "value", 60)
        lock = state.try_lock(self.replica, "lock")
        assert lock is not None
        self.lock = lock
        self.dataset = state.create_dataset("in").rid
        self.first = self.committed(TransactionType.SNAPSHOT, "old")
        self.second = self.committed(TransactionType.SNAPSHOT, "a", "b")
        self.open = state.open_transaction(self.dataset, TransactionType.UPDATE).rid
        state.put_file(self.dataset, self.open, "c", b"c")
        state.create_branch(self.dataset, "dev", self.second)
        self.stream_rid = state.create_data_stream("events", SCHEMA, StreamOptions(2)).rid
        state.publish(self.stream_rid, "master", [RECORD, RECORD])
        state.create_subscriber(self.stream_rid, "master", "reader", {"type": "earliest"}, (0, 0))

    def committed(self, kind: TransactionType, *paths: str) -> str:
        transaction = self.state.open_transaction(self.dataset, kind).rid
        for path in paths:
            self.state.put_file(self.dataset, transaction, path, path.encode())
        return self.state.commit_transaction(self.dataset, transaction).rid

    def deleting(self) -> str:
        self.state.abort_transaction(self.dataset, self.open)
        return self.state.open_transaction(self.dataset, TransactionType.DELETE).rid

    def running(self, replica: Replica | None = None) -> Job:
        self.state.submit("rt", "add", b"{}")
        job = self.state.take("rt", replica=replica)
        assert job is not None
        return job

    def wait(self, seconds: int) -> World:
        self.ahead += seconds * 10**9
        return self

    def refuse_large_records(self) -> World:
        def refuse(_: Job | Sequence[FunctionSchema]) -> None:
            raise PayloadTooLarge("too large")

        self.state.attach_journal(refuse, new=True)
        return self


@dataclass
class Case:
    work: Callable[[World], object]
    emits: tuple[str, ...]
    raises: type[CmemuError] | None


def does(work: Callable[[World], object], *emits: str, raises: type[CmemuError] | None = None) -> Case:
    return Case(work, emits, raises)


def in_turn(*works: Callable[[World], object]) -> Callable[[World], object]:
    def work(world: World) -> None:
        for each in works:
            each(world)

    return work


TOO_LARGE = "x" * (MAX_VALUE_BYTES + 1)
FILL = MAX_CACHE_BYTES // MAX_VALUE_BYTES - 1


def fill_cache(state: Lifecycle) -> None:
    """Put values into the cache until the last one needs the room of the oldest, which is small."""
    for number in range(FILL):
        state.put_cached("rt", str(number), TOO_LARGE[1:], 60)
    state.put_cached("rt", "last", TOO_LARGE[:-1300], 60)


def refresh(world: World, lock: Lock) -> bool:
    return world.state.refresh_lock("rt", lock.name, lock.lock_id)


# What the datasets take when the file "old" with its path has made room for the record of another file.
HELD_BYTES = World().state.data_bytes - 2 * len("old")


def aliased(name: str) -> Configuration:
    return Configuration().changed({"aliases": {"a": name}})


def on_branch(world: World, branch: str) -> object:
    return world.state.create_stream_branch(world.stream_rid, branch, SCHEMA, StreamOptions())


def subscribe(world: World, name: str, branch: str = "master") -> object:
    return world.state.create_subscriber(world.stream_rid, branch, name, {"type": "earliest"}, (0, 0))


def move(world: World, name: str, offset: int) -> object:
    return world.state.move_subscriber(world.stream_rid, "master", name, (offset, 0))


CLEARED = ("job_cleared",) * 5  # in "rt": a taken job, two that a replica holds, a streaming one and a queued one
OPERATIONS: dict[str, list[Case]] = {
    # Set-up, clocks and events
    "limit": [does(lambda world: world.state.limit(**LIMITS))],
    "check_label": [
        does(lambda world: world.state.check_label("name", "short")),
        does(lambda world: world.state.check_label("name", "x" * 101), raises=InvalidRequest),
    ],
    "now": [does(lambda world: world.state.now())],
    "steady": [does(lambda world: world.state.steady())],
    "note": [does(lambda world: world.state.note("log", "rt", detail="noted"), "log")],
    # Sessions
    "open_session": [
        does(lambda world: world.state.open_session("new"), "session_opened"),
        does(lambda world: world.state.open_session("new", NEW_APP), "session_opened", "app_bound"),
        does(lambda world: world.state.open_session("new", APP), "session_opened", "app_bound"),  # moved
        does(lambda world: world.state.open_session("rt", APP), "session_reset", *CLEARED, "app_bound"),
        does(lambda world: world.state.open_session("other"), "session_reset"),
        does(
            lambda world: [world.state.open_session(name) for name in ("3", "4", "5")],
            *["session_opened"] * 2,
            raises=TooManyRuntimes,
        ),
        does(lambda world: world.state.open_session(" "), raises=InvalidRequest),
    ],
    "reset_session": [
        does(lambda world: world.state.reset_session("rt"), "session_reset", *CLEARED, "app_bound"),
        does(lambda world: world.state.reset_session("unknown"), raises=NotFound),
    ],
    "delete_session": [
        does(lambda world: world.state.delete_session("rt"), "session_deleted", *CLEARED),
        does(lambda world: world.state.delete_session("unknown"), raises=NotFound),
    ],
    "configure": [
        does(lambda world: world.state.configure("rt", CONFIGURED), "runtime_configured"),
        does(lambda world: world.state.configure("not-opened", CONFIGURED), "runtime_configured"),
        does(lambda world: world.state.configure("..", CONFIGURED), raises=InvalidRequest),
        does(lambda world: world.state.configure("rt", aliased("events")), "runtime_configured"),
        does(lambda world: world.state.configure("rt", aliased("unknown")), raises=InvalidRequest),
    ],
    "undo_session": [
        does(lambda world: world.state.undo_session("other", None), "session_deleted"),
        does(
            lambda world: world.state.undo_session(
                "other", msgspec.structs.replace(world.state.apps_of("other")[0], runtime_id="rt")
            ),
            *("session_deleted", "app_bound"),
        ),
    ],
    "reset": [
        does(
            lambda world: world.state.reset(),
            *("session_deleted", *CLEARED, "session_deleted", "dataset_deleted", "stream_deleted"),
        ),
        does(
            in_turn(
                lambda world: world.state.configure("rt", CONFIGURED),
                lambda world: world.state.reset_session("rt"),
            ),
            *("runtime_configured", "session_reset", *CLEARED, "app_bound"),
        ),
    ],
    "apply_seed": [does(lambda world: world.state.apply_seed(SEED), "session_opened", "app_bound", "seed_applied")],
    "authenticate": [
        does(lambda world: world.state.authenticate("rt", world.state.runtime("rt").module_auth_token)),
        does(lambda world: world.state.authenticate("rt", "wrong"), raises=InvalidModuleAuthToken),
    ],
    # Deployed apps
    "keep_app": [
        does(lambda world: world.state.keep_app("rt", NEW_APP)),  # another app is bound to it
        does(
            in_turn(lambda world: world.state.open_session("new"), lambda world: world.state.keep_app("new", NEW_APP)),
            "session_opened",
            "app_bound",
        ),
    ],
    "release_app": [does(lambda world: world.state.release_app("rt"))],
    # Schemas
    "post_schemas": [
        does(lambda world: world.state.post_schemas("rt", [("add", b"[]"), ("new", b"{}")]), "schemas_posted"),
        does(lambda world: world.state.post_schemas("rt", []), "schemas_posted"),
        does(lambda world: world.state.post_schemas("rt", [("x" * 101, b"{}")]), raises=InvalidRequest),
        does(lambda world: world.refuse_large_records().state.post_schemas("rt", [("a", b"")]), raises=PayloadTooLarge),
    ],
    "delete_schema": [
        does(lambda world: world.state.delete_schema("rt", "add"), "schema_deleted"),
        does(lambda world: world.state.delete_schema("rt", "unknown"), raises=NotFound),
    ],
    # Modules and their replicas
    "set_mode": [
        does(lambda world: world.state.set_mode("rt", Mode.PIPELINE), "mode_set"),
        does(lambda world: world.state.set_mode("rt", Mode.FUNCTION)),
        does(lambda world: world.state.set_mode("unknown", Mode.PIPELINE), raises=NotFound),
    ],
    "set_import_error": [
        does(lambda world: world.state.set_import_error("rt", "ValueError: x"), "import_error_set"),
        does(lambda world: world.state.set_import_error("rt", "")),
    ],
    "set_scale": [
        does(lambda world: world.state.set_scale("rt", Scale(1, 0, 2), "from 0 to 1"), "module_scaled"),
        does(in_turn(*[lambda world: world.state.set_scale("rt", Scale(1, 0, 2), "")] * 2), "module_scaled"),
        does(lambda world: world.state.set_scale("rt", None, "not scaled")),
        does(lambda world: world.state.set_scale("unknown", None, ""), raises=NotFound),
    ],
    "add_replica": [does(lambda world: world.state.add_replica("rt", name="idle"), "replica_added")],
    "authenticate_replica": [
        does(lambda world: world.state.authenticate_replica(world.replica.token)),
        does(lambda world: world.state.authenticate_replica("wrong"), raises=InvalidModuleAuthToken),
    ],
    "count_poll": [does(lambda world: world.state.count_poll(world.replica))],
    "set_ready": [
        does(lambda world: world.state.set_ready(world.idle, "a test", ready=False), "replica_unresponsive"),
        does(lambda world: world.state.set_ready(world.waiting, "a test", ready=True), "replica_ready"),
        does(lambda world: world.state.set_ready(world.idle, "a test", ready=True)),
    ],
    "drain_replica": [
        does(
            in_turn(
                lambda world: world.state.drain_replica(world.idle),
                lambda world: world.state.take("rt", replica=world.idle),
            ),
            "poll_empty",
        ),
    ],
    "hold_schemas": [
        does(lambda world: world.state.hold_schemas(world.state.add_replica("rt"), [("f", b"{}")]), "replica_added"),
        does(lambda world: world.state.hold_schemas(world.standby, [("x" * 101, b"{}")]), raises=InvalidRequest),
    ],
    "switch_replicas": [
        does(
            lambda world: world.state.switch_replicas([world.standby], [world.replica], "upgraded"),
            *("schemas_posted", "replicas_switched"),
        ),
        does(
            lambda world: world.refuse_large_records().state.switch_replicas([world.standby], [world.replica], ""),
            raises=PayloadTooLarge,
        ),
    ],
    "restart_replica": [
        does(lambda world: world.state.restart_replica(world.replica), "job_failed", "job_failed"),
        does(lambda world: world.state.restart_replica(world.idle)),
    ],
    "remove_replica": [
        does(
            lambda world: world.state.remove_replica(world.replica, "ended"),
            "job_failed",
            "job_failed",
            "replica_removed",
        ),
        does(lambda world: [world.state.remove_replica(world.idle, "ended") for _ in range(2)], "replica_removed"),
    ],
    # The scratch cache and the locks of a runtime's replicas
    "authenticate_scratch": [
        does(lambda world: world.state.authenticate_scratch(world.replica.scratch_token)),
        does(lambda world: world.state.authenticate_scratch(world.replica.token), raises=InvalidScratchToken),
    ],
    "cached": [does(lambda world: world.wait(61).state.cached("rt", ["key", "unknown"]))],
    "put_cached": [
        does(lambda world: world.state.put_cached("rt", "new", "value", 60), "cache_put"),
        does(lambda world: world.state.put_cached("rt", "key", "value", 60), "cache_put"),
        does(lambda world: world.state.put_cached("rt", "x" * 101, "value", 60), raises=InvalidRequest),
        does(lambda world: world.state.put_cached("rt", "new", TOO_LARGE, 60), raises=PayloadTooLarge),
        does(lambda world: fill_cache(world.state), *["cache_put"] * FILL, "cache_evicted", "cache_put"),
    ],
    "delete_cached": [
        does(lambda world: world.state.delete_cached("rt", "key"), "cache_deleted"),
        does(lambda world: world.state.delete_cached("rt", "unknown")),
    ],
    "try_lock": [
        does(lambda world: world.state.try_lock(world.idle, "other"), "lock_acquired"),
        does(lambda world: world.state.try_lock(world.idle, "lock")),  # another replica has it
        does(
            lambda world: world.wait(LEASE_SECONDS).state.try_lock(world.idle, "lock"), "lock_expired", "lock_acquired"
        ),
        does(lambda world: world.state.try_lock(world.idle, "x" * 101), raises=InvalidRequest),
        does(
            lambda world: [world.state.try_lock(world.idle, str(number)) for number in range(MAX_LOCKS)],
            *["lock_acquired"] * (MAX_LOCKS - 1),
            raises=TooManyLocks,
        ),
    ],
    "refresh_lock": [
        does(lambda world: refresh(world.wait(LEASE_SECONDS - 1), world.lock), "lock_refreshed"),
        does(lambda world: refresh(world.wait(LEASE_SECONDS), world.lock), "lock_expired"),
        does(lambda world: world.state.refresh_lock("rt", "lock", "another acquisition")),
    ],
    "unlock": [
        does(lambda world: world.state.unlock("rt", "lock", world.lock.lock_id), "lock_released"),
        does(lambda world: world.state.unlock("rt", "lock", "another acquisition")),
    ],
    # Jobs
    "submit_to_app": [
        does(lambda world: world.state.submit_to_app(APP, None, "add", b"{}", CONTOUR), "job_queued"),
        does(lambda world: world.state.submit_to_app(NEW_APP, None, "add", b"{}", CONTOUR), raises=NotFound),
    ],
    "submit": [
        does(lambda world: world.state.submit("other", "add", b"{}"), "job_queued"),
        does(lambda world: [world.state.submit("rt", "add", b"{}") for _ in range(2)], "job_queued", raises=QueueFull),
        does(lambda world: world.state.submit("rt", " ", b"{}"), raises=InvalidRequest),
        does(lambda world: world.refuse_large_records().state.submit("rt", "add", b"{}"), raises=PayloadTooLarge),
    ],
    "take": [
        does(lambda world: world.state.take("rt", ends_with_kernel=True), "job_started"),
        does(lambda world: world.state.take("rt", replica=world.idle), "job_started"),
        does(lambda world: world.state.take("rt", replica=world.replica), "poll_empty"),  # it holds all that it may
        does(lambda world: world.state.take("other"), "runtime_connected", "poll_empty"),
        does(lambda world: world.state.take("other", will_wait=True), "runtime_connected"),
        does(lambda world: world.state.take("rt", replica=world.replica, will_wait=True)),
        does(
            lambda world: [world.state.submit("rt", "unknown", b"{}"), world.state.take("rt"), world.state.take("rt")],
            *("job_queued", "job_started", "job_started", "unknown_query_type"),
        ),
    ],
    "give_back": [
        does(lambda world: world.state.give_back(world.taken), "job_given_back"),
        does(lambda world: world.state.give_back(world.held[0]), "job_given_back"),
        does(
            in_turn(
                lambda world: world.state.give_back(world.queued), lambda world: world.state.give_back(world.failed)
            )
        ),
    ],
    "finish": [
        does(lambda world: world.state.finish("rt", world.held[0].job_id, b"1", "text/plain"), "job_succeeded"),
        does(lambda world: world.state.finish("rt", world.succeeded.job_id, b'{"error":"no"}')),
        does(lambda world: world.state.finish("rt", world.succeeded.job_id, b"2"), raises=JobAlreadyCompleted),
        does(lambda world: world.state.finish("rt", world.queued.job_id, b"2"), raises=JobNotRunning),
        does(
            lambda world: world.refuse_large_records().state.finish("rt", world.taken.job_id, b"1"),
            "job_failed",
            raises=PayloadTooLarge,
        ),
    ],
    "fail": [
        does(lambda world: world.state.fail(world.queued.job_id, ""), "job_failed"),
        does(lambda world: world.state.fail(world.held[1].job_id, "why"), "job_failed"),
        does(lambda world: world.state.fail(world.failed.job_id, "why"), raises=JobAlreadyCompleted),
    ],
    "cancel": [
        does(lambda world: world.state.cancel(world.state.job_ids(), "enough"), *["job_failed"] * 5),
        does(lambda world: world.state.cancel([world.succeeded.job_id, "unknown"], "enough")),
    ],
    "add_reason": [does(lambda world: world.state.add_reason(world.failed.job_id, "why"), "late_result")],
    "fail_what_ended_with_kernel": [
        does(lambda world: world.state.fail_what_ended_with_kernel("the kernel ended"), "job_failed", "job_failed")
    ],
    # Results that arrive in chunks
    "open_stream": [
        does(lambda world: world.state.open_stream("rt", world.taken.job_id), "result_started"),
        does(lambda world: world.state.open_stream("rt", world.queued.job_id), raises=JobNotRunning),
    ],
    "add_chunk": [
        does(lambda world: world.state.add_chunk(world.stream, b",2]"), "result_chunk"),
        does(lambda world: world.state.add_chunk(ResultStream(world.taken.job_id), b"1"), raises=JobAlreadyCompleted),
    ],
    "close_stream": [
        does(lambda world: world.state.close_stream(world.stream), "job_succeeded"),
        does(
            lambda world: world.refuse_large_records().state.close_stream(world.stream),
            "job_failed",
            raises=PayloadTooLarge,
        ),
    ],
    "break_stream": [
        does(in_turn(*[lambda world: world.state.break_stream(world.stream)] * 2), "job_failed"),
    ],
    # Datasets
    "create_dataset": [
        does(lambda world: world.state.create_dataset("new"), "dataset_created"),
        does(lambda world: world.state.create_dataset("in"), raises=ApiError),
        does(lambda world: world.state.create_dataset("a/b"), raises=ApiError),
        does(lambda world: world.state.create_dataset("x" * 101), raises=InvalidRequest),
    ],
    "delete_dataset": [
        does(lambda world: world.state.delete_dataset(world.dataset), "dataset_deleted"),
        does(lambda world: world.state.delete_dataset("unknown"), raises=ApiError),
    ],
    "create_branch": [
        does(lambda world: world.state.create_branch(world.dataset, "new"), "branch_created"),
        does(lambda world: world.state.create_branch(world.dataset, "dev"), raises=ApiError),
        does(lambda world: world.state.create_branch(world.dataset, "new", world.open), raises=ApiError),
        does(lambda world: world.state.create_branch(world.dataset, "ri.a"), raises=ApiError),
    ],
    "delete_branch": [
        does(lambda world: world.state.delete_branch(world.dataset, "dev"), "branch_deleted"),
        does(lambda world: world.state.delete_branch(world.dataset, "master"), "transaction_aborted", "branch_deleted"),
        does(lambda world: world.state.delete_branch(world.dataset, "unknown"), raises=ApiError),
    ],
    "open_transaction": [
        does(
            lambda world: world.state.open_transaction(world.dataset, TransactionType.APPEND, "dev"),
            "transaction_opened",
        ),
        does(lambda world: world.state.open_transaction(world.dataset, TransactionType.APPEND), raises=ApiError),
        does(lambda world: world.state.open_transaction(world.dataset, TransactionType.APPEND, "x"), raises=ApiError),
    ],
    "commit_transaction": [
        does(lambda world: world.state.commit_transaction(world.dataset, world.open), "transaction_committed"),
        does(lambda world: world.state.commit_transaction(world.dataset, world.second), raises=ApiError),
    ],
    "abort_transaction": [
        does(lambda world: world.state.abort_transaction(world.dataset, world.open), "transaction_aborted"),
        does(lambda world: world.state.abort_transaction(world.dataset, "unknown"), raises=ApiError),
    ],
    "put_file": [
        does(lambda world: world.state.put_file(world.dataset, world.open, "a", b"new"), "file_uploaded"),
        does(lambda world: world.state.put_file(world.dataset, world.open, "/a", b""), raises=ApiError),
        does(lambda world: world.state.put_file(world.dataset, world.second, "a", b""), raises=ApiError),
        does(
            # It needs the room of the files that no branch shows any more.
            lambda world: world.state.put_file(world.dataset, world.open, "d", bytes(MAX_DATA - HELD_BYTES)),
            *("transaction_evicted", "file_uploaded"),
        ),
        does(
            lambda world: world.state.put_file(world.dataset, world.open, "d", bytes(MAX_DATA)),
            "transaction_evicted",
            raises=PayloadTooLarge,
        ),
    ],
    "delete_file": [
        does(
            lambda world: world.state.delete_file(world.dataset, world.deleting(), "a"),
            *("transaction_aborted", "transaction_opened", "file_deleted"),
        ),
        does(lambda world: world.state.delete_file(world.dataset, world.open, "a"), raises=ApiError),
        does(
            lambda world: world.state.delete_file(world.dataset, world.deleting(), "c"),
            *("transaction_aborted", "transaction_opened"),
            raises=ApiError,
        ),
    ],
    "set_dataset_schema": [
        does(
            lambda world: world.state.set_dataset_schema(world.dataset, world.second, "master", b"[]", Reader.CSV),
            "dataset_schema_set",
        ),
        does(
            lambda world: world.state.set_dataset_schema(world.dataset, "unknown", "master", b"[]", Reader.CSV),
            raises=ApiError,
        ),
    ],
    # Eviction
    "evictable": [does(lambda world: world.state.evictable)],
    "keeps_more_than": [does(lambda world: world.state.keeps_more_than(1, 1))],
    "evict": [
        does(lambda world: world.state.evict(0, 0, 1), "job_evicted"),
        does(lambda world: world.state.evict(0, 0, 9), "job_evicted", "job_evicted"),
        does(lambda world: world.state.evict(100, 10**9, 9)),
    ],
    # Data streams
    "create_data_stream": [
        does(lambda world: world.state.create_data_stream("new", SCHEMA), "stream_created"),
        does(
            lambda world: world.state.create_data_stream(
                "new", SCHEMA, branch="dev", rid="ri.foundry.main.dataset.new"
            ),
            "stream_created",
        ),
        does(lambda world: world.state.create_data_stream("events", SCHEMA), raises=ApiError),
        does(lambda world: world.state.create_data_stream("new", SCHEMA, rid=world.stream_rid), raises=ApiError),
        does(lambda world: world.state.create_data_stream("new", SCHEMA, StreamOptions(0)), raises=ApiError),
        does(lambda world: world.state.create_data_stream(" ", SCHEMA), raises=InvalidRequest),
        does(
            lambda world: [world.state.create_data_stream(str(number), SCHEMA) for number in range(MAX_STREAMS)],
            *["stream_created"] * (MAX_STREAMS - 1),
            raises=ApiError,
        ),
    ],
    "create_stream_branch": [
        does(lambda world: on_branch(world, "dev"), "stream_created"),
        does(lambda world: on_branch(world, "master"), raises=ApiError),
        does(lambda world: on_branch(world, "x" * 101), raises=InvalidRequest),
        does(lambda world: world.state.create_stream_branch("ri", "dev", SCHEMA, StreamOptions()), raises=ApiError),
    ],
    "reset_data_stream": [
        does(lambda world: world.state.reset_data_stream(world.stream_rid, "master"), "stream_reset"),
        does(lambda world: world.state.reset_data_stream(world.stream_rid, "dev"), raises=ApiError),
        does(
            lambda world: world.state.reset_data_stream(world.stream_rid, "master", SCHEMA, StreamOptions(1, "FAST")),
            raises=ApiError,
        ),
    ],
    "delete_data_stream": [
        does(lambda world: world.state.delete_data_stream(world.stream_rid), "stream_deleted"),
        does(lambda world: world.state.delete_data_stream("ri"), raises=ApiError),
    ],
    "publish": [
        does(lambda world: world.state.publish(world.stream_rid, "master", [RECORD]), "records_published"),
        does(lambda world: world.state.publish(world.stream_rid, "master", [RECORD] * 9), "records_published"),
        does(lambda world: world.state.publish(world.stream_rid, "master", [])),
        does(lambda world: world.state.publish(world.stream_rid, "master", [RECORD], "old"), raises=ApiError),
        does(
            lambda world: world.state.publish(
                world.stream_rid, "master", [RECORD, NewRecord(b"x" * (MAX_RECORD_BYTES + 1), None)]
            ),
            raises=ApiError,
        ),
    ],
    "create_subscriber": [
        does(lambda world: subscribe(world, "new"), "subscriber_created"),
        does(lambda world: subscribe(world, "reader")),
        does(lambda world: subscribe(world, "x" * 101), raises=InvalidRequest),
        does(
            lambda world: [on_branch(world, "dev"), subscribe(world, "reader", "dev")],
            "stream_created",
            raises=ApiError,
        ),
        does(
            lambda world: [subscribe(world, str(number)) for number in range(MAX_SUBSCRIBERS)],
            *["subscriber_created"] * (MAX_SUBSCRIBERS - 1),
            raises=ApiError,
        ),
    ],
    "move_subscriber": [
        does(lambda world: move(world, "reader", 1), "subscriber_moved"),
        does(lambda world: move(world, "reader", 0)),
        does(lambda world: move(world, "unknown", 1), raises=ApiError),
    ],
    "delete_subscriber": [
        does(lambda world: world.state.delete_subscriber(world.stream_rid, "master", "reader"), "subscriber_deleted"),
        does(lambda world: world.state.delete_subscriber(world.stream_rid, "master", "unknown"), raises=ApiError),
    ],
    # The journal, and the state of a process that has ended
    "rebound": [does(lambda world: world.state.rebound)],
    "data_changes": [does(lambda world: world.state.data_changes)],
    "attach_journal": [does(lambda world: world.state.attach_journal(in_memory_only, new=True))],
    "forget_changes": [does(lambda world: world.state.forget_changes())],
    "detach_journal": [does(lambda world: world.state.detach_journal())],
}
READS: dict[str, Callable[[World], object]] = {
    "runtime": lambda world: world.state.runtime("rt"),
    "newest_runtimes": lambda world: world.state.newest_runtimes(1),
    "runtimes": lambda world: world.state.runtimes("rt", 1),
    "count_runtimes": lambda world: world.state.count_runtimes(),
    "configuration": lambda world: world.state.configuration("rt"),
    "is_configured": lambda world: world.state.is_configured("rt"),
    "has_runtime": lambda world: world.state.has_runtime("rt"),
    "job": lambda world: world.state.job(world.queued.job_id),
    "find_job": lambda world: world.state.find_job("unknown"),
    "job_ids": lambda world: world.state.job_ids(),
    "jobs": lambda world: world.state.jobs(),
    "unfinished": lambda world: world.state.unfinished("add"),
    "has_function": lambda world: world.state.has_function("add"),
    "function_names": lambda world: world.state.function_names(),
    "runtimes_serving": lambda world: world.state.runtimes_serving("add"),
    "newest_jobs": lambda world: world.state.newest_jobs(3),
    "count": lambda world: world.state.count("rt"),
    "outcomes": lambda world: world.state.outcomes(),
    "outcomes_by_runtime": lambda world: world.state.outcomes_by_runtime(),
    "evicted": lambda world: world.state.evicted(),
    "count_evicted": lambda world: world.state.count_evicted(),
    "replicas": lambda world: world.state.replicas("rt"),
    "scale_of": lambda world: world.state.scale_of("rt"),
    "job_of": lambda world: world.state.job_of("rt", world.queued.job_id),
    "schemas": lambda world: world.state.schemas(),
    "count_schemas": lambda world: world.state.count_schemas(),
    "find_schema": lambda world: world.state.find_schema("rt", "add"),
    "log": lambda world: world.state.log(world.queued.job_id),
    "logs": lambda world: world.state.logs(),
    "deployed_apps": lambda world: world.state.deployed_apps(),
    "apps_of": lambda world: world.state.apps_of("rt"),
    "app_rids": lambda world: world.state.app_rids(),
    "is_bound": lambda world: world.state.is_bound("rt"),
    "running_jobs": lambda world: world.state.running_jobs("rt"),
    "queued_before": lambda world: world.state.queued_before(world.queued),
    "queue_depth": lambda world: world.state.queue_depth("rt"),
    "resolve_app": lambda world: world.state.resolve_app(APP),
    "stream": lambda world: world.state.stream(world.stream.job_id),
    "datasets": lambda world: world.state.datasets(),
    "dataset": lambda world: world.state.dataset(world.dataset).view(world.second),
    "find_dataset": lambda world: world.state.find_dataset("in"),
    "data_bytes": lambda world: world.state.data_bytes,
    "binding": lambda world: world.state.binding(APP, "master"),
    "configuration_with": lambda world: world.state.configuration_with("rt", {"aliases": {"a": "events"}}),
    "resource": lambda world: [world.state.resource(name) for name in ("events", "in")],
    "data_streams": lambda world: world.state.data_streams(),
    "data_stream": lambda world: world.state.data_stream(world.stream_rid).read(0, 0, 10),
    "find_data_stream": lambda world: world.state.find_data_stream("events"),
    "subscribers": lambda world: world.state.subscribers(),
    "subscriber": lambda world: world.state.subscriber(world.stream_rid, "master", "reader"),
}
FILLS_EMPTY = {"restore"}

# Events that report what changed nothing.
REPORTS = frozenset({"poll_empty", "unknown_query_type", "invalid_api_name", "seed_applied", "log"})
# What is not part of the state, as the class says.
SET_UP = frozenset(
    {
        *("events", "_clock", "_monotonic", "_steady_from", "_max_queued", "_max_runtimes", "_max_label_bytes"),
        *("_max_data_bytes", "_seed", "_own_apps", "_write_ahead", "_rebound", "_submitted", "max_concurrent_tasks"),
        *("_keep_records", "reader", "_data_changes", "changes"),
    }
)
MARKS = frozenset({"last_poll_at", "heard", "polls"})
# What readers find out and keep: whose results are a function's error, logs that are still empty.
KEPT_BY_READERS = frozenset({"unread", "function_errors", "_noted"})
APART = SET_UP | MARKS | KEPT_BY_READERS


def picture(value: Any) -> Any:  # noqa: C901, PLR0911 - one for each type
    """Return a copy of all that a state holds, which compares by value; without what is no part of it."""
    if isinstance(value, State):
        return {name: picture(each) for name, each in vars(value).items() if name not in APART}
    if isinstance(value, Session | Replica | ResultStream | Scratch | DatasetHistory | StreamLog | Partition):
        return {name: picture(getattr(value, name)) for name in value.__slots__ if name not in APART}
    if isinstance(value, msgspec.Struct):
        return {name: each for name, each in msgspec.structs.asdict(value).items() if name not in APART}
    if isinstance(value, Counter):
        return +value
    if isinstance(value, tuple):
        return [picture(each) for each in value]
    if isinstance(value, dict):
        copied = [(key, picture(each)) for key, each in value.items()]
        return [(key, each) for key, each in copied if each != ""]
    if isinstance(value, JobLog | Configuration):
        return value.text if isinstance(value, JobLog) else repr(value)
    if isinstance(value, Printed | DataSize):
        return value.size
    if isinstance(value, LongQueue):
        return list(value)
    if isinstance(value, list | deque):
        return [picture(each) for each in value]
    if isinstance(value, bytearray):
        return bytes(value)
    assert value is None or isinstance(value, str | bytes | int), f"the picture has no {type(value)}"
    return value


@dataclass
class DatasetSeen:
    """The same of one dataset."""

    branches: set[str]
    transactions: dict[str, Transaction]
    files: dict[tuple[str, str], DatasetFile | None]
    schemas: set[str]


def look_at_dataset(history: DatasetHistory) -> DatasetSeen:
    return DatasetSeen(
        {*history.branches},
        {**history.transactions},
        {(rid, path): file for rid, files in history.files.items() for path, file in files.items()},
        {schema.version_id for schemas in history.schemas.values() for schema in schemas},
    )


@dataclass
class Seen:
    """What the public methods show, by what each change is about."""

    runtimes: dict[str, Runtime]
    jobs: dict[str, Job]
    evicted: dict[str, int]
    apps: dict[tuple[str, str], int]
    schemas: dict[tuple[str, str], FunctionSchema]
    replicas: set[tuple[str, str]]
    streams: dict[str, int]
    configurations: list[Configuration]
    cache: dict[tuple[str, str], int]
    locks: dict[tuple[str, str], Lock]
    datasets: dict[str, DatasetSeen]
    logs: dict[tuple[str, str], tuple[str, int]]
    subscribers: dict[str, tuple[int, ...]]
    scales: dict[str, Scale | None]
    ready: dict[str, bool | None]
    standby: set[tuple[str, str]]
    at: int


def look(state: Lifecycle) -> Seen:
    jobs = {job.job_id: job for job in state.jobs()}
    streams = {name: state.stream(name) for name in jobs}
    names = [each.runtime_id for each in state.runtimes()]
    scratches = [(name, state._session(name).scratch) for name in names]  # noqa: SLF001 - it is read by key only
    return Seen(
        {each.runtime_id: each for each in state.runtimes()},
        jobs,
        state.evicted(),
        {(each.deployed_app_rid, each.branch): each.bound_at for each in state.deployed_apps()},
        {(each.runtime_id, each.function_name): each for each in state.schemas()},
        {(name.runtime_id, each.token) for name in state.runtimes() for each in state.replicas(name.runtime_id)},
        {name: stream.size for name, stream in streams.items() if stream is not None},
        [state.configuration(name) for name in ("rt", "not-opened")],
        {(name, key): entry.ends_at for name, scratch in scratches for key, entry in scratch.cache.items()},
        {(name, key): lock for name, scratch in scratches for key, lock in scratch.locks.items()},
        {dataset.rid: look_at_dataset(state.dataset(dataset.rid)) for dataset in state.datasets()},
        {(each.rid, each.branch): (each.view_rid, published(state, each)) for each in state.data_streams()},
        {name: each.positions for name, each in state._subscribers.items()},  # noqa: SLF001 - no method lists them
        {name: state.scale_of(name) for name in names},
        {each.token: each.ready for each in state.replicas()},
        {(name, each.token) for name in names for each in state.replicas(name) if each.standby},
        state.steady(),
    )


def published(state: Lifecycle, stream: DataStream) -> int:
    return sum(state.data_stream(stream.rid, stream.branch).ends)


def changes(before: Seen, after: Seen) -> Iterator[str]:  # noqa: C901, PLR0912 - a line for each kind
    """Name each change between two looks by the kind of event that it should emit."""
    ended = set()
    for name in before.runtimes | after.runtimes:
        old, new = before.runtimes.get(name), after.runtimes.get(name)
        if old is None or new is None:
            yield "session_opened" if old is None else "session_deleted"
        elif old.module_auth_token != new.module_auth_token:
            yield "session_reset"
        else:
            yield from ["runtime_connected"] * (new.connected and not old.connected)
            yield from ["mode_set"] * (new.mode != old.mode)
            yield from ["import_error_set"] * (new.import_error != old.import_error)
            yield from ["schemas_posted"] * (old.last_schema_post_at != new.last_schema_post_at)
            yield from ["job_evicted"] * (after.evicted[name] - before.evicted[name])
            continue
        ended.add(name)
    if before.configurations != after.configurations:
        yield "runtime_configured"
    for app, bound_at in after.apps.items():
        yield from ["app_bound"] * (before.apps.get(app) != bound_at)
    yield from ("schema_deleted" for name, _ in before.schemas.keys() - after.schemas.keys() if name not in ended)
    yield from ("replica_removed" for name, _ in before.replicas - after.replicas if name not in ended)
    yield from ("replica_added" for _ in after.replicas - before.replicas)
    yield from ["replicas_switched"] * bool((before.standby - after.standby) & after.replicas)
    kept = before.scales.keys() & after.scales.keys() - ended
    for key, ready in after.ready.items():
        if before.ready.get(key, ready) is not ready:
            yield "replica_ready" if ready else "replica_unresponsive"
    yield from ("module_scaled" for name in kept if before.scales[name] != after.scales[name])
    yield from changes_of_scratch(before, after, ended)
    yield from changes_of_streams(before, after)
    for job_id in before.jobs | after.jobs:
        yield from changes_of_job(before.jobs.get(job_id), after.jobs.get(job_id))
    for job_id, size in after.streams.items():
        yield from ["result_started"] * (job_id not in before.streams)
        yield from ["result_chunk"] * (before.streams.get(job_id, 0) != size)
    yield from ("dataset_created" for _ in after.datasets.keys() - before.datasets.keys())
    for rid, dataset in before.datasets.items():
        if rid in after.datasets:
            yield from changes_of_dataset(dataset, after.datasets[rid])
        else:
            yield "dataset_deleted"


def changes_of_dataset(before: DatasetSeen, after: DatasetSeen) -> Iterator[str]:
    yield from ("branch_created" for _ in after.branches - before.branches)
    yield from ("branch_deleted" for _ in before.branches - after.branches)
    for rid, new in after.transactions.items():
        old = before.transactions.get(rid)
        yield from ["transaction_opened"] * (old is None)
        if old is not None and old.status != new.status:
            yield f"transaction_{new.status.lower()}"
    lost = {rid for rid, path in before.files if (rid, path) not in after.files}
    yield from ("transaction_evicted" for rid in lost if after.transactions[rid].status != "ABORTED")
    for key, file in after.files.items():
        if before.files.get(key, "none") != file:
            yield "file_deleted" if file is None else "file_uploaded"
    yield from ("dataset_schema_set" for _ in after.schemas - before.schemas)


def changes_of_streams(before: Seen, after: Seen) -> Iterator[str]:
    for key in before.logs | after.logs:
        old, new = before.logs.get(key), after.logs.get(key)
        if old is None or new is None:
            yield "stream_created" if old is None else "stream_deleted"
        elif old != new:
            yield "stream_reset" if old[0] != new[0] else "records_published"
    deleted = before.logs.keys() - after.logs.keys()
    for name in before.subscribers | after.subscribers:
        was, now = before.subscribers.get(name), after.subscribers.get(name)
        if now is None:
            yield from ["subscriber_deleted"] * (not deleted)
        elif was != now:
            yield "subscriber_created" if was is None else "subscriber_moved"


def changes_of_scratch(before: Seen, after: Seen, ended: set[str]) -> Iterator[str]:
    put = {key for key, ends_at in after.cache.items() if before.cache.get(key) != ends_at}
    gone = [name for name, _ in before.cache.keys() - after.cache.keys() if name not in ended]
    # What makes room is evicted, and only then.
    yield from ["cache_put" for _ in put] + ["cache_evicted" if put else "cache_deleted" for _ in gone]
    for key in before.locks | after.locks:
        old, new = before.locks.get(key), after.locks.get(key)
        if old == new or key[0] in ended:
            continue
        if old is not None and new is not None and old.lock_id == new.lock_id:
            yield "lock_refreshed"
            continue
        if old is not None:
            # The look before was long ago if the lease has ended meanwhile.
            yield "lock_expired" if after.at >= old.ends_at else "lock_released"
        yield from ["lock_acquired"] * (new is not None)


def changes_of_job(before: Job | None, after: Job | None) -> Iterator[str]:
    if after is None:
        assert before is not None
        yield from ["job_cleared"] * (not before.finished)
    elif before is None:
        # One that was submitted and taken in one case was queued first.
        yield from ["job_queued"] + ["job_started"] * (after.status == "running")
    elif before.status != after.status:
        given = {"queued": "job_given_back", "running": "job_started"}
        yield given.get(after.status, f"job_{after.status}")
    elif before.error_message != after.error_message:
        yield "late_result"
    else:
        assert before == after


CASES = [
    pytest.param(case, id=f"{name}-{number}") for name, cases in OPERATIONS.items() for number, case in enumerate(cases)
]


@pytest.mark.parametrize("case", CASES)
def test_each_change_of_an_operation_emits_one_event(case: Case) -> None:
    world = World()
    state, emitted = world.state, list[str]()
    state.events.subscribe(lambda event: emitted.append(event.kind))
    before, seen = picture(state), look(state)
    if case.raises is None:
        case.work(world)
    else:
        with pytest.raises(case.raises):
            case.work(world)
    assert emitted == list(case.emits)
    made = Counter(changes(seen, look(state)))
    assert made == Counter(kind for kind in emitted if kind not in REPORTS)
    assert bool(made) == (picture(state) != before)


@pytest.mark.parametrize("name", READS)
def test_a_look_changes_nothing_and_emits_nothing(name: str) -> None:
    world = World()
    before, newest = picture(world.state), world.state.events.recent(all=True)[-1]
    READS[name](world)
    assert picture(world.state) == before
    assert world.state.events.recent(all=True)[-1] is newest


def test_every_public_operation_is_driven_here() -> None:
    public = {name for name in (*vars(State), *vars(Lifecycle)) if not name.startswith("_")}
    assert {*OPERATIONS, *READS, *FILLS_EMPTY} == public
    kinds = {kind for cases in OPERATIONS.values() for case in cases for kind in case.emits}
    assert kinds - REPORTS == kinds_of_the_docstring() <= {*KINDS}


def kinds_of_the_docstring() -> set[str]:
    changes_in_words, _, _ = (Lifecycle.__doc__ or "").partition("An operation that makes several")
    return {word for word in changes_in_words.split("`") if word in KINDS}


def test_a_lifecycle_that_is_restored_emits_nothing() -> None:
    state = Lifecycle()
    state.restore(SAVED)
    assert (state.runtimes(), state.schemas(), state.evicted()) == (
        [SAVED.sessions[0].runtime],
        SAVED.sessions[0].schemas,
        {"saved": 2},
    )
    assert state.events.recent(all=True) == []


def test_a_listener_that_resets_the_session_of_the_first_poll_leaves_no_job_to_it() -> None:
    state = Lifecycle()
    state.open_session("rt")
    state.submit("rt", "add", b"{}")
    state.events.subscribe(lambda event: state.reset_session("rt") if event.kind == "runtime_connected" else None)
    assert state.take("rt") is None
    assert (state.jobs(), +state.count()) == ([], {})


# Nothing outside the package assigns to what a lifecycle holds

ROOT = Path(cmemu_nb.__file__).parent
MUTATORS = frozenset(
    {
        *(
            "append",
            "add",
            "clear",
            "discard",
            "extend",
            "insert",
            "move_to_end",
            "pop",
            "popitem",
            "popleft",
            "remove",
        ),
        *("setdefault", "update", "subtract"),
    }
)


def held_names() -> set[str]:
    """Return the names of all attributes of the objects that a lifecycle holds, but for the private ones."""
    kinds = (Session, Replica, ResultStream, Scratch, DatasetHistory, JobLog, StreamLog, Partition)
    slots = {name for kind in kinds for name in kind.__slots__}
    return {name for name in slots | vars(Lifecycle()).keys() | vars(EventLog()).keys() if not name.startswith("_")}


HELD = held_names()
# Objects of other classes that have attributes of the same names: requests, the options of a command, and what a
# journal has not written yet.
OTHERS = frozenset({"request", "_request", "options", "changes", "_changes"})


def chain(node: ast.expr) -> list[str]:
    """Return the names in `a.b[i].c`, here a, b and c."""
    if isinstance(node, ast.Attribute):
        return [*chain(node.value), node.attr]
    if isinstance(node, ast.Subscript):
        return chain(node.value)
    if isinstance(node, ast.Call):
        return chain(node.func)
    return [node.id] if isinstance(node, ast.Name) else []


def is_held(names: list[str], *, itself: bool) -> bool:
    """Return whether a chain of names leads into a lifecycle, or to an attribute of what one holds.

    `self.jobs` belongs to the class in which it stands. `itself` says that the last name is assigned to, and not an
    item of it.
    """
    if {"lifecycle", "_lifecycle"} & {*(names[:-1] if itself else names)}:
        return True
    owned = itertools.pairwise(names[1:] if names[:1] == ["self"] else names)
    return any(name in HELD and owner not in OTHERS for owner, name in owned)


def is_mutator(function: ast.expr) -> bool:
    """Return whether a function that is called is a container's method that changes what a lifecycle holds."""
    if not isinstance(function, ast.Attribute) or function.attr not in MUTATORS:
        return False
    names = chain(function.value)
    return is_held(names, itself=False) and names[-1] != "events"  # an EventLog has a method clear() of its own


def assignments(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each statement that changes what a lifecycle holds."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = [
                each for target in node.targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])
            ]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and is_mutator(node.func):
            yield node.lineno, ast.unparse(node)
        for target in targets:
            if isinstance(target, ast.Attribute | ast.Subscript) and is_held(
                chain(target), itself=isinstance(target, ast.Attribute)
            ):
                yield target.lineno, ast.unparse(target)


def test_nothing_outside_assigns_to_what_a_lifecycle_holds() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in sorted(ROOT.rglob("*.py"))
        if not path.is_relative_to(ROOT / "lifecycle")
        for line, what in assignments(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        *(
            "request.replica.heard = True",
            "replica.polls += 1",
            "seat.replica.held.pop(job_id)",
            "seat.replica.max_concurrent_tasks = 0",
            "del replica.held[job_id]",
        ),
        *(
            "self._lifecycle.rebound = {}",
            "emulator.lifecycle.own_apps[name] = rid",
            "lifecycle.log(job_id).explanation = why",
        ),
        *(
            "self._stream.body += chunk",
            "self._emulator.lifecycle.own_apps.pop(name, None)",
            "a, session.runtime = b, runtime",
        ),
    ],
)
def test_an_assignment_from_outside_would_be_found(code: str) -> None:
    assert len(list(assignments(ast.parse(code)))) == 1


def test_records_are_frozen() -> None:
    modules = [
        importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    ]
    records = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, msgspec.Struct)
    }
    assert {Job, Runtime, FunctionSchema} < records
    assert [each for each in records if each is not msgspec.Struct and not each.__struct_config__.frozen] == []
