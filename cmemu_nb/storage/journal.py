"""The journal: it lets an emulator continue where its process ended, even by kill -9.

It follows the events of the lifecycle, and writes all changes in one transaction at the next iteration of the
emulator's loop. Answers wait for the transaction, so every change that a client was told is in the file. While the file
can't be written, answers are errors, and the journal tries to write it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from typing import TYPE_CHECKING

from cmemu_nb.errors import JournalBehind, PayloadTooLarge
from cmemu_nb.eventloop.loop import is_all_that_is_ready
from cmemu_nb.lifecycle.events import ENDS_SESSION
from cmemu_nb.lifecycle.records import Job, JobStatus
from cmemu_nb.lifecycle.snapshot import SavedReplica, SavedSession
from cmemu_nb.storage.journal_data import PIECE_BYTES, DataRows, pieces_of
from cmemu_nb.storage.journal_file import MAX_LOG_BYTES
from cmemu_nb.storage.journal_lock import FileReplaced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.records import FunctionSchema, Runtime
    from cmemu_nb.storage.journal_file import JournalFile
    from cmemu_nb.storage.journal_tables import Tables

    Waiter = Callable[[JournalBehind | None], object]

CHANGES_SESSION = ENDS_SESSION | {"session_opened", "schemas_posted", "schema_deleted", "replica_added"}
CHANGES_DATA = frozenset(
    {
        *("dataset_created", "dataset_deleted", "branch_created", "branch_deleted"),
        *("transaction_opened", "transaction_committed", "transaction_aborted", "transaction_evicted"),
        *("file_uploaded", "file_deleted", "dataset_schema_set", "stream_created", "stream_reset", "stream_deleted"),
        *("records_published", "subscriber_created", "subscriber_moved", "subscriber_deleted"),
    }
)
CHANGES_JOB = frozenset({"job_started", "job_given_back", "job_succeeded", "job_failed", "late_result"})
RETRY_SECONDS = 0.5
# A record of at least this size is written to the file before it is added to the lifecycle.
LARGE_BYTES = 1_000_000
# SQLite's errors for a single record: it is too long, too long for the interface, or too large for the memory.
CANT_TAKE = (sqlite3.DataError, OverflowError, MemoryError)
CHECKPOINT_BYTES = 4 * 1024 * 1024
COMMITS_PER_LOG_CHECK = 64
CHECKPOINT_SECONDS = 1.0
# While the pieces of a large file are written, the log is copied into the file after so many of them.
PIECES_PER_CHECKPOINT = 16
CHECKPOINT_POLL_SECONDS = 0.01
DISCARD_SECONDS = 0.02
# Large files leave so much of the disk free, which is enough for the log.
SPARE_BYTES = 32 * 1024 * 1024


class Changes:
    """The changes that are not in the file yet, as names and numbers only: the records are in the lifecycle."""

    def __init__(self) -> None:
        self.ended: dict[str, None] = {}
        self.deleted: dict[str, None] = {}
        self.sessions: dict[str, None] = {}
        self.runtimes: dict[str, None] = {}
        self.queued: dict[str, None] = {}
        self.jobs: dict[str, None] = {}
        self.evicted: list[int] = []
        self.ahead: Job | None = None
        """A job that is already in the file."""

    def note_session(self, kind: str, runtime_id: str) -> None:
        """Record that a session was opened or ended, or that its schemas or replicas have changed."""
        if kind == "session_opened":  # if it is opened again, it is written after the others
            self.sessions.pop(runtime_id, None)
        self.sessions[runtime_id] = None
        if kind in ENDS_SESSION:
            self.ended[runtime_id] = None
        if kind == "session_deleted":
            self.deleted[runtime_id] = None


class Journal:
    """Keeps a journal file up to date with a lifecycle. Its methods are called on the emulator's event loop."""

    def __init__(self, file: JournalFile, lifecycle: Lifecycle, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self._lifecycle = lifecycle
        self._loop = loop
        self._changes = Changes()
        self._waiters: list[Waiter] = []
        self._handle: asyncio.Handle | None = None
        self._failing = False
        self._reason: Exception | None = None
        self._commits = 0
        self._checkpointing: threading.Thread | None = None
        self._written: dict[int, tuple[bytes, int]] = {}
        self._released: set[int] = set()
        # It is read first: the loop, which may run already, uses the file as soon as something is to be written.
        self._discarded = deque(file.unused_contents())
        self._discarding: asyncio.Handle | None = None
        self._next_checkpoint = 0.0
        self.behind = False
        """Whether there are changes that are not in the file yet."""
        self._unsubscribe: Callable[[], None] = lifecycle.events.subscribe(self._on_event)
        lifecycle.attach_journal(self.write_ahead, new=file.new)
        if file.new and (lifecycle.runtimes() or lifecycle.data_changes):
            self._write_all()
        if self._discarded:
            loop.call_soon_threadsafe(self._discard_all, ())

    def _on_event(self, event: Event) -> None:
        kind, job_id, changes = event.kind, event.job_id or "", self._changes
        if kind == "job_queued":
            changes.queued[job_id] = None
        elif kind in CHANGES_JOB:
            changes.jobs[job_id] = None
        elif kind == "job_evicted":
            changes.evicted.append(self._lifecycle.job(job_id).sequence)
            changes.runtimes[event.runtime_id or ""] = None
        elif kind in ("runtime_connected", "mode_set", "import_error_set"):
            changes.runtimes[event.runtime_id or ""] = None
        elif kind in CHANGES_SESSION:
            changes.note_session(kind, event.runtime_id or "")
        elif kind != "app_bound" and kind not in CHANGES_DATA:
            return
        if not self.behind:
            self.behind = True
            self._handle = self._loop.call_soon(self._write)

    def _write_all(self) -> None:
        """Write everything that the lifecycle has, for a journal that is attached to it later."""
        self._changes.sessions = dict.fromkeys(runtime.runtime_id for runtime in self._lifecycle.runtimes())
        self._changes.queued = dict.fromkeys(job.job_id for job in self._lifecycle.jobs())
        self._changes.jobs = dict(self._changes.queued)
        self.behind = True
        self._handle = self._loop.call_soon_threadsafe(self._write)

    def when_written(self, notify: Waiter) -> None:
        """Call `notify(None)` when all changes are in the file, or `notify(error)` if they can't be written."""
        if self._failing:
            notify(self._behind_error())
        elif self.behind:
            self._waiters.append(notify)
            # Several requests share one transaction; if only the journal is waiting, it writes at once.
            if is_all_that_is_ready(self._loop, self._handle):
                self._write()
        else:
            notify(None)

    async def written(self) -> None:
        """Wait until all changes are in the file. Raises `JournalBehind` if they can't be written."""
        future: asyncio.Future[JournalBehind | None] = self._loop.create_future()

        def notify(error: JournalBehind | None) -> None:
            if not future.done():
                future.set_result(error)

        self.when_written(notify)
        error = await future
        if error is not None:
            raise error

    # The bytes of large files

    @contextlib.asynccontextmanager
    async def contents(self, bodies: Iterable[bytes]) -> AsyncIterator[None]:
        """Write the bytes of large files, and let the very same objects be added to datasets inside.

        They are written in pieces, and other requests are served between them. Raises `JournalBehind` if they can't be
        written. Those of files that are not added are deleted again.
        """
        written: dict[int, tuple[bytes, int]] = {}
        try:
            for body in bodies:
                if len(body) >= LARGE_BYTES:
                    written[id(body)] = body, await self._write_pieces(body)
            self._written |= written
            yield
        finally:
            self._released |= {content for _, content in written.values()}
            if not self.behind:
                self._settle_released()

    async def _write_pieces(self, body: bytes) -> int:
        content = self._file.new_content()
        try:
            for number in range(pieces_of(body)):
                self._check_room(len(body) - number * PIECE_BYTES)
                with self._file.transaction() as rows:
                    DataRows(rows).put_piece(content, number, body)
                await self._give_way(number)
        except BaseException as error:
            self._discard_all([content])
            if isinstance(error, sqlite3.Error | OSError):
                raise JournalBehind(
                    f"Nothing was done, because the {len(body):,} bytes can't be written to the journal ({error}). "
                    "Make room on the disk, or end the program that holds the file, then send them again."
                ) from None
            raise
        return content

    def _check_room(self, size: int) -> None:
        """Refuse bytes that would fill the disk: on a full one, not even what was written of them could be deleted."""
        free = self._file.free_bytes()
        if free < size + SPARE_BYTES:
            raise OSError(f"its disk has {free:,} bytes free, of which {SPARE_BYTES:,} are kept for other changes")

    async def _give_way(self, number: int) -> None:
        """Let others use the loop, and now and then wait until the log is in the file, so that it stays short."""
        if number % PIECES_PER_CHECKPOINT == PIECES_PER_CHECKPOINT - 1 and not self._is_checkpointing():
            self._checkpoint_beside()
        await asyncio.sleep(0)
        while self._is_checkpointing():  # noqa: ASYNC110 - it may be one that was started for another reason
            await asyncio.sleep(CHECKPOINT_POLL_SECONDS)

    def _settle(self, data: DataRows) -> None:
        """Discard the contents that no file has any more, after a commit."""
        self._discard_all(data.discarded)
        self._released -= data.used
        self._settle_released()
        self._written = {key: each for key, each in self._written.items() if each[1] not in data.used}

    def _settle_released(self) -> None:
        self._discard_all(self._released)
        self._written = {key: each for key, each in self._written.items() if each[1] not in self._released}
        self._released = set()

    def _discard_all(self, contents: Iterable[int]) -> None:
        self._discarded.extend(contents)
        if self._discarded and self._discarding is None:
            self._discarding = self._loop.call_later(DISCARD_SECONDS, self._discard)

    def _discard(self) -> None:
        """Delete a part of the contents that no file has any more; what is left is deleted at the next start."""
        self._discarding = None
        with contextlib.suppress(Exception):
            with self._file.transaction() as rows:
                is_left = DataRows(rows).delete_pieces(self._discarded[0])
            if not is_left:
                self._discarded.popleft()
            self._discard_all([])

    # Writing

    def write_ahead(self, record: Job | Sequence[FunctionSchema]) -> None:
        """Write a large record, after all changes so far, before it is added to the lifecycle.

        So a record that SQLite can't store, for which this raises `PayloadTooLarge`, changes nothing and does not
        block other changes.
        """
        what, size = _large_part(record)
        if size < LARGE_BYTES:
            return
        try:
            self._commit(record)
        except CANT_TAKE as error:
            reason = str(error) or "there is not enough memory for it"
            raise PayloadTooLarge(
                f"The journal can't store {what}, {size:,} bytes ({reason}), so it was not kept. Send less, or start "
                "without a journal."
            ) from None
        except Exception:  # noqa: BLE001 - the file can't be written at all: _write reports this, and tries again
            return
        self._changes.ahead = record if isinstance(record, Job) else None

    def _write(self) -> None:
        self._stop_timer()
        waiters, self._waiters = self._waiters, []
        try:
            self._commit()
        except Exception as error:  # noqa: BLE001 - after any error, no client may be told that it was written
            self._fail(error, waiters)
            return
        self.behind = False
        if self._failing:
            self._failing = False
            self._lifecycle.note("journal_written", detail=f"{self._file.path} has everything again")
        for notify in waiters:
            notify(None)
        self._check_log()

    def _fail(self, error: Exception, waiters: list[Waiter]) -> None:
        self._reason = error
        if not self._failing:
            self._failing = True
            self._lifecycle.note("journal_failed", detail=f"{self._file.path} can't be written: {error}")
        self._handle = self._loop.call_later(RETRY_SECONDS, self._write)
        for notify in waiters:
            notify(self._behind_error())

    def _behind_error(self) -> JournalBehind:
        remedy = (
            "Stop the emulator and start it with a new file, which gets all that it has: start(journal='new.db')."
            if isinstance(self._reason, FileReplaced)
            else "The emulator keeps trying: make room on the disk, or end the program that holds the file."
        )
        return JournalBehind(
            f"This was done, but it is not in the journal, which can't be written ({self._reason}). {remedy} "
            "Check the state before you repeat it."
        )

    def _commit(self, ahead: Job | Sequence[FunctionSchema] | None = None) -> None:
        state, changes = self._lifecycle, self._changes
        with self._file.transaction() as rows:
            for runtime_id in changes.ended:
                rows.delete_jobs_of(runtime_id)
            if changes.evicted:
                rows.delete_jobs(changes.evicted)
            self._put_sessions(rows)
            for rid, branch in state.rebound:
                rows.put_app(rid, branch, state.binding(rid, branch))
            if changes.queued:
                rows.put_jobs(self._not_ahead(map(state.find_job, changes.queued)))
            if changes.jobs:
                rows.put_states(self._not_ahead(map(state.find_job, changes.jobs)))
            if ahead is not None:
                _put_ahead(rows, ahead)
            data = DataRows(rows, {key: content for key, (_, content) in self._written.items()})
            data.write(state, state.data_changes)
        self._changes = Changes()
        state.forget_changes()
        self._settle(data)

    def _not_ahead(self, jobs: Iterable[Job | None]) -> list[Job]:
        return [job for job in jobs if job is not None and job is not self._changes.ahead]

    def _put_sessions(self, rows: Tables) -> None:
        state, changes = self._lifecycle, self._changes
        for runtime_id in changes.deleted:
            rows.delete_session(runtime_id)
        for runtime_id in filter(state.has_runtime, changes.sessions):
            rows.put_session(self._saved(state.runtime(runtime_id)))
        for runtime_id in filter(state.has_runtime, changes.runtimes):
            if runtime_id not in changes.sessions:
                rows.put_runtime(state.runtime(runtime_id), state.count_evicted(runtime_id))

    def _saved(self, runtime: Runtime) -> SavedSession:
        replicas = [
            SavedReplica(each.replica_id, each.token, each.max_concurrent_tasks or 1)
            for each in self._lifecycle.replicas(runtime.runtime_id)
            if not each.launched
        ]
        state, name = self._lifecycle, runtime.runtime_id
        return SavedSession(runtime, state.schemas(name), replicas, state.count_evicted(name))

    def _stop_timer(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    # The log

    def _check_log(self) -> None:
        """Copy a large write-ahead log into the file, in a thread beside the loop, because that waits for the disk."""
        self._commits += 1
        if self._commits % COMMITS_PER_LOG_CHECK:
            return
        size = self._file.log_bytes
        if size > MAX_LOG_BYTES:
            # While the thread copies, new commits arrive, so it never reaches the end. What is left now is small, and
            # copying it here lets the log start again.
            self._file.checkpoint_here()
        elif size > CHECKPOINT_BYTES and self._loop.time() >= self._next_checkpoint and not self._is_checkpointing():
            # A log that starts again keeps its file size, which does not show how much of it must be copied.
            self._next_checkpoint = self._loop.time() + CHECKPOINT_SECONDS
            self._checkpoint_beside()

    def _checkpoint_beside(self) -> None:
        self._checkpointing = threading.Thread(target=self._file.checkpoint, name="cmemu-checkpoint", daemon=True)
        self._checkpointing.start()

    def _is_checkpointing(self) -> bool:
        return self._checkpointing is not None and self._checkpointing.is_alive()

    def close(self) -> None:
        """Write the remaining changes, and when each runtime last polled."""
        self._unsubscribe()
        self._stop_timer()
        if self._discarding is not None:
            self._discarding.cancel()
        polled = [runtime.runtime_id for runtime in self._lifecycle.runtimes() if runtime.connected]
        self._changes.runtimes.update(dict.fromkeys(polled))
        failure = ""
        try:
            self._commit()
        except Exception as error:  # noqa: BLE001 - the emulator stops anyway
            failure = f"{self._file.path} can't be written: {error}"
        self._lifecycle.detach_journal()
        if failure:
            self._lifecycle.note("journal_failed", detail=failure)
        if self._checkpointing is not None:
            self._checkpointing.join()


def _large_part(record: Job | Sequence[FunctionSchema]) -> tuple[str, int]:
    if not isinstance(record, Job):
        return "the schemas of the runtime", sum(len(each.schema_payload) for each in record)
    if record.status == JobStatus.QUEUED:
        return "the query", len(record.query)
    return f"the result of job '{record.job_id}'", len(record.result or b"")


def _put_ahead(rows: Tables, record: Job | Sequence[FunctionSchema]) -> None:
    if not isinstance(record, Job):
        rows.put_schemas(record)
    elif record.status == JobStatus.QUEUED:
        rows.put_jobs([record])
    else:
        rows.put_states([record])
