"""Replicas on the workers of a Dask cluster, as the notebook sees them: who they are, how they go, what they serve.

State lives on the emulator's loop. Dask is called from threads of its own, because its calls wait for the cluster; what
happens on the cluster comes back as Dask's events.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from concurrent.futures import Future, wait
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

from cmemu_nb.errors import CmemuError, FunctionRefused, InvalidRequest, LaunchFailed, NotFound
from cmemu_nb.executors.cluster.pickling import pickled
from cmemu_nb.executors.cluster.tasks import check_versions, replica_name, said, watch
from cmemu_nb.executors.cluster.worker import GiveUp, Leave, NewFunctions, Start, deliver, leave, serve
from cmemu_nb.executors.modules.logs import LogLine, ModuleLogs
from cmemu_nb.lifecycle.lifecycle import BROKEN_OFF, until
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client
    from distributed import Future as DaskFuture

    from cmemu_nb.executors.cluster.clusters import Clusters
    from cmemu_nb.executors.cluster.worker import Message
    from cmemu_nb.lifecycle.session import Replica

T = TypeVar("T")
SHIP_SECONDS = 5.0
STOP_SECONDS = 3.0
ANSWER_SECONDS = 15.0
LOOK_SECONDS = 0.1


class Seat:
    """The place of one replica, which workers take one after the other. `left` are those that have left it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.attempt = ""
        self.worker = ""
        self.replica: Replica | None = None
        self.problem = ""
        self.future: DaskFuture[None] | None = None
        self.left: set[str] = set()

    @property
    def state(self) -> str:
        """One of waiting for a worker, starting, responsive (it has polled for jobs), lost, or failed with a reason."""
        if self.problem:
            return f"failed: {self.problem}"
        if self.replica is None:
            return "waiting for a worker"
        if self.replica.revoked:
            return "lost"
        return "responsive" if self.replica.polls else "starting"


# To whom a message went, and what it answers.
Sent = tuple[Seat, str, Future[str]]


class Cluster:
    """The replicas of one runtime on a Dask cluster.

    `runtime_id` is whose replicas they are, `seats` the replicas by number, `logs` what their functions printed, the
    newest 10,000 lines. `url` is where workers reach the emulator; `local` says whether the notebook takes jobs too.
    """

    def __init__(
        self,
        clusters: Clusters,
        client: Client,
        runtime_id: str,
        url: str,
        max_concurrent_tasks: int,
        *,
        local: bool,
    ) -> None:
        self.local = local
        self.runtime_id = runtime_id
        self.seats: dict[int, Seat] = {}
        self._leaving: dict[str, Seat] = {}
        self._one_left = asyncio.Event()
        self.logs = ModuleLogs()
        self.stopped = False
        self._clusters = clusters
        self._engine = clusters.engine
        self._client = client
        self._url = url
        self._slots = max_concurrent_tasks
        self._topic = f"cmemu-{secrets.token_hex(4)}"
        self._version = 0
        self._functions = b""
        self._one_at_a_time = threading.Lock()
        self._listens = False

    # In any thread

    def scale(self, replicas: int) -> Cluster:
        """Have so many replicas. Those that are too many end when their jobs are done. Returns this at once."""
        check_at_least_one(replicas=replicas)
        self._engine.home.run(self._resize(replicas))
        return self

    def wait_until_responsive(self, timeout: float = 60.0) -> Cluster:
        """Wait until every replica polls for jobs, and return this; `timeout` is in seconds.

        Raises `LaunchFailed`, which says how each of them stands.
        """
        self._engine.home.run(self._wait_until_responsive(timeout))
        return self

    def stop(self) -> None:
        """End every replica; the jobs that they hold fail, those that are queued wait."""
        if not self.stopped:
            self._engine.home.run(self.end("the replicas on the cluster were stopped"))

    def ship(self) -> None:
        """Bring the functions as they are now to every replica, and wait a moment for it; jobs that run go on.

        Raises `FunctionRefused` when a worker can't read them; its replicas go on with the ones before.
        """
        functions = pickled(self._clusters.functions.definitions(self.runtime_id))
        sent = self._engine.home.run(self._ship(functions))
        _wait_for(sent)
        problems = {told.result() for *_, told in sent if told.done() and told.exception() is None} - {""}
        if problems:
            raise FunctionRefused(
                f"The new version did not reach the replicas of {self.runtime_id!r}, which go on with the one before: "
                f"{'; '.join(sorted(problems))}. Then run the cell again."
            )

    # On the emulator's loop

    async def begin(self, replicas: int) -> None:
        """Start the replicas."""
        self._functions = pickled(self._clusters.functions.definitions(self.runtime_id))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.wrap_future(self._call(check_versions, self._client))
                await asyncio.wrap_future(self._call(self._listen))
        except TimeoutError:
            raise LaunchFailed(
                f"The Dask cluster did not answer within {ANSWER_SECONDS:g} s: its scheduler or a worker hangs. "
                "client.scheduler_info() says when each worker was seen; client.restart() begins them anew."
            ) from None
        except OSError as error:
            raise LaunchFailed(f"The Dask cluster can't be reached: {error}. Connect again: Client(address).") from None
        await self._resize(replicas)

    async def _resize(self, replicas: int) -> None:
        self._check_not_stopped()
        for number in [each for each in self.seats if each >= replicas]:
            self._close(self.seats.pop(number))
        new = [Seat(each) for each in range(replicas) if each not in self.seats or self.seats[each].problem]
        self.seats |= {seat.number: seat for seat in new}
        self._call(self._submit, new)

    def _check_not_stopped(self) -> None:
        if self.stopped:
            raise LaunchFailed(
                f"The replicas of {self.runtime_id!r} are stopped. {self._engine.name}.scale(client) starts new ones."
            )

    @property
    def nothing(self) -> str:
        """What to say when it is stopped."""
        return f"Stopped. {self._engine.name}.scale(client) starts replicas again."

    def give_up(self, job_id: str, replica_id: str | None) -> None:
        """Free the slot of a job that was ended, in case its function goes on; without a replica all slots."""
        for seat in (*self.seats.values(), *self._leaving.values()):
            here = seat.replica is not None and replica_id in (None, seat.replica.replica_id)
            if here and seat.attempt not in seat.left:
                self._send(seat, GiveUp(job_id))

    def _close(self, seat: Seat) -> None:
        """Let a replica end when its jobs are done: its token is good for their results only."""
        seat.future = None
        if seat.replica is not None:
            self._engine.lifecycle.drain_replica(seat.replica)
            self._leaving[seat.attempt] = seat
            self._send(seat, Leave(finishes_jobs=True))

    async def _ship(self, functions: bytes) -> list[Sent]:
        self._functions = functions
        self._version += 1
        news = NewFunctions(functions, self._version)
        there = [seat for seat in self.seats.values() if seat.attempt and seat.attempt not in seat.left]
        return [(seat, seat.attempt, self._send(seat, news)) for seat in there]

    async def end(self, reason: str) -> None:
        """End the replicas and wait a moment until they have left."""
        if self.stopped:
            return
        self.stopped = True
        self._leaving |= {seat.attempt: seat for seat in self.seats.values() if seat.replica is not None}
        for seat in self._leaving.values():
            self._send(seat, Leave(finishes_jobs=False))
            self._remove(seat, reason)
        self._clusters.share(self.runtime_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while self._leaving:
                    self._one_left.clear()
                    await self._one_left.wait()
        # Awaited, because a call of Dask's that is under way when its client is closed never returns.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.wrap_future(self._call(self._forget)), STOP_SECONDS)

    async def _wait_until_responsive(self, timeout: float) -> None:  # noqa: ASYNC109
        def settled() -> bool:
            problem = self.stopped or any(seat.problem for seat in self.seats.values())
            return problem or all(seat.state == "responsive" for seat in self.seats.values())

        there = await until(self._engine.lifecycle, settled, timeout)
        self._check_not_stopped()
        if not there or any(seat.problem for seat in self.seats.values()):
            states = ", ".join(f"{seat.number} {seat.state}" for seat in self.seats.values())
            raise LaunchFailed(
                f"Not every replica on the cluster polls for jobs{'' if there else f' after {timeout:g} s'}: {states}. "
                f"client.get_worker_logs() may say why; .scale({len(self.seats)}) tries the failed ones again."
            )

    def _remove(self, seat: Seat, reason: str) -> None:
        """Take a replica's token away: its jobs fail."""
        if seat.replica is not None and seat.attempt not in seat.left:
            seat.left.add(seat.attempt)
            gone = f"replica {seat.replica.replica_id} is gone: {reason}"
            if not seat.replica.revoked:
                self._engine.lifecycle.remove_replica(seat.replica, gone)
            self._engine.lifecycle.note("replica_exited", self.runtime_id, detail=gone)

    # What happens on the cluster

    def _hear(self, message: dict[str, Any]) -> None:
        what = message["what"]
        if what == "asks":
            self._seat(self.seats.get(message["number"]), message)
        elif what == "printed":
            self._print(message)
        elif what == "explained":
            self._engine.lifecycle.log(message["job_id"]).explain(message["why"])
        elif what == "failed":
            self._fail(message["job_id"], message["reason"])
        elif what == "broke":
            self._start_again(message)
        elif what == "left":
            self._has_left(message["attempt"])
        else:
            self._is_lost(message["worker"])

    def _start_again(self, message: dict[str, Any]) -> None:
        """Fail the jobs of a replica whose polling has ended; it asks for a new token next."""
        told = f"replica {message['number']} on {message['worker']} ended ({message['reason']}) and is started again"
        self._engine.lifecycle.note("executor_restarted", self.runtime_id, detail=told)
        seat = self.seats.get(message["number"])
        if seat is not None and seat.attempt == message["attempt"] and seat.replica and not seat.replica.revoked:
            self._engine.lifecycle.remove_replica(seat.replica, told)

    def _fail(self, job_id: str, reason: str) -> None:
        """Fail a job with the reason, or add it to that of one whose stream is known to have broken off."""
        job = self._engine.lifecycle.find_job(job_id)
        if job is not None and (job.error_message or "").startswith(BROKEN_OFF):
            self._engine.lifecycle.add_reason(job_id, reason)
            return
        with contextlib.suppress(CmemuError):  # it has ended otherwise
            self._engine.lifecycle.fail(job_id, reason)

    def _has_left(self, attempt: str) -> None:
        seat = self._leaving.pop(attempt, None)
        self._one_left.set()
        if seat is not None:
            self._remove(seat, "it has left")

    def _is_lost(self, worker: str) -> None:
        for seat in [each for each in (*self.seats.values(), *self._leaving.values()) if each.worker == worker]:
            self._remove(seat, f"its worker {worker} left the cluster")
            self._has_left(seat.attempt)

    def _seat(self, seat: Seat | None, message: dict[str, Any]) -> None:
        """Give whoever asks for a seat a token of its own, unless the seat is gone, or was taken after it."""
        if seat is None or self.stopped or message["attempt"] in seat.left:
            self._call(self._deliver, message["worker"], message["attempt"], Leave(finishes_jobs=False))
            return
        if seat.attempt and seat.attempt != message["attempt"]:
            self._remove(seat, f"worker {message['worker']} has begun in its place")
        seat.attempt, seat.worker, seat.problem = message["attempt"], message["worker"], ""
        name = replica_name(seat.number, seat.worker)
        try:
            seat.replica = self._engine.lifecycle.add_replica(self.runtime_id, self._slots, launched=True, name=name)
        except NotFound:
            self._engine.home.loop.create_task(self.end("the runtime was deleted"))
            return
        self._engine.lifecycle.note("replica_started", self.runtime_id, detail=f"{name}: on Dask worker {seat.worker}")
        authority = self._engine.identity.certificates.authority.certificate
        self._send(seat, Start(self._url, authority, seat.replica.token, self._slots, self._functions, self._version))

    def _print(self, message: dict[str, Any]) -> None:
        # A function that prints its environment would leave its token in a saved notebook.
        job_id, text = message["job_id"], self._engine.lifecycle.events.masked(message["text"])
        self._engine.lifecycle.log(job_id).write(text)
        name = replica_name(message["number"], message["worker"])
        for line in text.splitlines():
            self.logs.append(LogLine(time.time_ns(), name, line, job_id=job_id))

    def _ended(self, seat: Seat, problem: str) -> None:
        if self.seats.get(seat.number) is seat and not self.stopped:
            seat.problem = problem
            self._remove(seat, problem)
            self._note(f"replica {seat.number} on the cluster: {problem}")
            if self._client.status in ("closing", "closed"):
                self._engine.home.loop.create_task(self.end("the Dask client was closed"))

    # Calls of Dask, in threads of its own

    def _call(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call Dask in a thread of its own: one that waits for a worker that is cut off holds nobody else up."""
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # who was interrupted while they waited does not cancel it

        def run() -> None:
            try:
                done.set_result(work(*arguments))
            except Exception as error:  # noqa: BLE001 - whatever the cluster says
                done.set_exception(error)
                if self._client.status == "running":  # else it says nothing new
                    self._on_loop(self._note, f"the Dask cluster: {error!r}")

        threading.Thread(target=run, name="cmemu-dask", daemon=True).start()
        return done

    def _note(self, detail: str) -> None:
        self._engine.lifecycle.note("log", self.runtime_id, detail=detail)

    def _on_loop(self, work: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(CmemuError, RuntimeError):  # the emulator is stopped
            self._engine.home.loop.call_soon_threadsafe(work, *arguments)

    def _send(self, seat: Seat, message: Message) -> Future[str]:
        return self._call(self._deliver, seat.worker, seat.attempt, message)

    def _deliver(self, worker: str, attempt: str, message: Message) -> str:
        told = self._client.run(deliver, attempt, message, workers=[worker], on_error="ignore")
        if isinstance(message, Leave):  # which it sees when its poll is answered
            self._on_loop(self._engine.application.context.waiting.end_polls)
        return str(told.get(worker, ""))

    def _listen(self) -> None:
        with self._one_at_a_time:
            if not self.stopped:
                self._client.subscribe_topic(self._topic, lambda event: self._on_loop(self._hear, event[1]))
                self._client.register_plugin(watch(self._topic), name=self._topic)
                self._listens = True

    def _submit(self, seats: list[Seat]) -> None:
        try:
            with self._one_at_a_time:
                workers = list(self._client.nthreads())
                for seat in seats if not self.stopped else ():
                    near = [workers[seat.number % len(workers)]] if workers else None
                    self._submit_one(seat, near)
        except Exception as error:  # noqa: BLE001 - whatever the cluster says
            for seat in seats:
                self._on_loop(self._ended, seat, f"Dask did not take it: {error!r}")

    def _submit_one(self, seat: Seat, workers: list[str] | None) -> None:
        key = f"{self._topic}-{seat.number}-{secrets.token_hex(4)}"
        future = self._client.submit(
            serve, self._topic, seat.number, key=key, pure=False, workers=workers, allow_other_workers=bool(workers)
        )
        future.add_done_callback(lambda done: self._on_loop(self._ended, seat, said(done)))
        seat.future = future
        if self.seats.get(seat.number) is not seat:
            seat.future = None  # which cancels it

    def _forget(self) -> None:
        with self._one_at_a_time:
            end = time.monotonic() + STOP_SECONDS
            for seat in self.seats.values():
                if seat.future is not None:
                    with contextlib.suppress(Exception):  # those that ask yet are told to leave while this listens
                        seat.future.exception(max(end - time.monotonic(), LOOK_SECONDS))
                    seat.future = None
            if self._listens:
                self._client.unsubscribe_topic(self._topic)
                self._client.unregister_scheduler_plugin(self._topic)
        self._client.run(leave, self._topic, on_error="ignore")

    def __repr__(self) -> str:
        if self.stopped:
            return f"<Replicas of {self.runtime_id!r}: stopped>"
        ready = sum(seat.state == "responsive" for seat in self.seats.values())
        workers = len({seat.worker for seat in self.seats.values() if seat.worker})
        return (
            f"<Replicas of {self.runtime_id!r} on {plural(workers, 'worker')}: {ready} of {len(self.seats)} responsive>"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_cluster  # noqa: PLC0415 - only a notebook wants it

        return show_cluster(self)


def _wait_for(sent: list[Sent]) -> None:
    """Wait until messages have arrived, for some seconds, and not for replicas whose worker is lost meanwhile."""
    end = time.monotonic() + SHIP_SECONDS
    while time.monotonic() < end:
        if not wait([told for seat, attempt, told in sent if attempt not in seat.left], LOOK_SECONDS).not_done:
            return


def check_at_least_one(**numbers: object) -> None:
    """Refuse what is no whole number of at least 1."""
    for name, number in numbers.items():
        if not isinstance(number, Integral) or number < 1:
            raise InvalidRequest(f"{name} must be a whole number of at least 1, not {number!r}.")
