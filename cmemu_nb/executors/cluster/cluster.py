"""The notebook's side of the replicas on the workers of a Dask cluster: it starts, follows, updates and ends them.

Its state is changed on the emulator's loop only. Dask is called in separate threads, because its calls wait for the
cluster. Replicas report to the notebook by Dask's events.
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
from cmemu_nb.executors.cluster.tasks import (
    ANSWER_SECONDS,
    CHECK_SECONDS,
    check_versions,
    describe_end,
    make_worker_watch,
    replica_name,
    run_on_workers,
)
from cmemu_nb.executors.cluster.worker import Abandon, Leave, NewFunctions, Start, deliver, leave, serve
from cmemu_nb.executors.modules.logs import LogLine, ModuleLogs
from cmemu_nb.executors.replicas import record_exit, record_start
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


class Seat:
    """The position of one replica, by number. A worker that is lost is replaced by another one in the same seat.

    Each time that a worker takes the seat is an attempt, which has an id; `left` are the ids of those that have ended.
    """

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


# A message that was sent: its seat, its attempt, and the answer.
Sent = tuple[Seat, str, Future[str]]


class Cluster:
    """The replicas of one runtime on a Dask cluster.

    `runtime_id` is their runtime, `seats` are the replicas by number, `logs` the newest 10,000 lines that their
    functions printed. Workers reach the emulator at `url`; `local` says whether the notebook takes jobs too.
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
        self._any_left = asyncio.Event()
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
        self._dask_lock = threading.Lock()
        self._listening = False

    # Methods for any thread

    def scale(self, replicas: int) -> Cluster:
        """Change the number of replicas, and return this at once. Surplus replicas end when their jobs are done."""
        check_at_least_one(replicas=replicas)
        self._engine.home.run(self._resize(replicas))
        return self

    def wait_until_responsive(self, timeout: float = 60.0) -> Cluster:
        """Wait until every replica polls for jobs, and return this; `timeout` is in seconds.

        Raises `LaunchFailed` with the state of each replica if one fails or the time has passed.
        """
        self._engine.home.run(self._wait_until_responsive(timeout))
        return self

    def stop(self) -> None:
        """End every replica; the jobs that the replicas hold fail, queued jobs stay queued."""
        if not self.stopped:
            self._engine.home.run(self.end("the replicas on the cluster were stopped"))

    def ship(self) -> None:
        """Send the current functions to every replica, and wait up to five seconds for them; running jobs continue.

        Raises `FunctionRefused` if a worker can't load them; its replicas keep the previous ones.
        """
        sent = self._engine.home.run(self._ship(self._pickled()))
        _wait_for_answers(sent)
        problems = {answer.result() for *_, answer in sent if answer.done() and answer.exception() is None} - {""}
        if problems:
            raise FunctionRefused(
                f"The replicas of {self.runtime_id!r} can't load the new version and keep the previous one: "
                f"{'; '.join(sorted(problems))}. Then run the cell again."
            )

    # Methods for the emulator's loop

    async def begin(self, replicas: int) -> None:
        """Start the replicas."""
        self._functions = self._pickled()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.wrap_future(self._call_dask(check_versions, self._client))
                await asyncio.wrap_future(self._call_dask(self._listen))
        except TimeoutError:
            raise LaunchFailed(
                f"The Dask cluster did not answer within {ANSWER_SECONDS:g} s: its scheduler or a worker hangs. "
                "client.scheduler_info() says when each worker was seen; client.restart() restarts them."
            ) from None
        except OSError as error:
            raise LaunchFailed(f"The Dask cluster can't be reached: {error}. Connect again: Client(address).") from None
        await self._resize(replicas)

    async def _resize(self, replicas: int) -> None:
        self._check_not_stopped()
        for number in [each for each in self.seats if each >= replicas]:
            self._drain(self.seats.pop(number))
        new = [Seat(each) for each in range(replicas) if each not in self.seats or self.seats[each].problem]
        self.seats |= {seat.number: seat for seat in new}
        self._call_dask(self._submit, new)

    def _check_not_stopped(self) -> None:
        if self.stopped:
            raise LaunchFailed(
                f"The replicas of {self.runtime_id!r} are stopped. {self._engine.name}.scale(client) starts new ones."
            )

    @property
    def nothing(self) -> str:
        """The message to show when it is stopped."""
        return f"Stopped. {self._engine.name}.scale(client) starts replicas again."

    def abandon(self, job_id: str, replica_id: str | None) -> None:
        """Free the slot of a job that was ended although its function may still run.

        A `replica_id` of None means all replicas, a `job_id` of "" all of their jobs.
        """
        for seat in (*self.seats.values(), *self._leaving.values()):
            is_meant = seat.replica is not None and replica_id in (None, seat.replica.replica_id)
            if is_meant and seat.attempt not in seat.left:
                self._send(seat, Abandon(job_id))

    def _drain(self, seat: Seat) -> None:
        """End a replica when its jobs are done: until then its token is valid for their results only."""
        seat.future = None
        if seat.replica is not None:
            self._engine.lifecycle.drain_replica(seat.replica)
            self._leaving[seat.attempt] = seat
            self._send(seat, Leave(finishes_jobs=True))

    def _pickled(self) -> bytes:
        functions = self._clusters.functions
        return pickled(functions.definitions(self.runtime_id), functions.context(self.runtime_id))

    async def configure(self) -> None:
        """Send the functions with their new configuration to every replica."""
        await self._ship(self._pickled())

    async def _ship(self, functions: bytes) -> list[Sent]:
        self._functions = functions
        self._version += 1
        message = NewFunctions(functions, self._version)
        taken = [seat for seat in self.seats.values() if seat.attempt and seat.attempt not in seat.left]
        return [(seat, seat.attempt, self._send(seat, message)) for seat in taken]

    async def end(self, reason: str) -> None:
        """End the replicas, and wait up to three seconds until they have left."""
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
                    self._any_left.clear()
                    await self._any_left.wait()
        # The call is awaited because a call of Dask that runs while its client is closed never returns.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.wrap_future(self._call_dask(self._clean_up)), STOP_SECONDS)

    async def _wait_until_responsive(self, timeout: float) -> None:  # noqa: ASYNC109
        def settled() -> bool:
            problem = self.stopped or any(seat.problem for seat in self.seats.values())
            return problem or all(seat.state == "responsive" for seat in self.seats.values())

        in_time = await until(self._engine.lifecycle, settled, timeout)
        self._check_not_stopped()
        if not in_time or any(seat.problem for seat in self.seats.values()):
            states = ", ".join(f"{seat.number} {seat.state}" for seat in self.seats.values())
            after = "" if in_time else f" after {timeout:g} s"
            raise LaunchFailed(
                f"Not every replica on the cluster polls for jobs{after}: {states}. "
                f"client.get_worker_logs() may say why; .scale({len(self.seats)}) tries the failed ones again."
            )

    def _remove(self, seat: Seat, reason: str) -> None:
        """Revoke a replica's token, which fails its jobs."""
        if seat.replica is not None and seat.attempt not in seat.left:
            seat.left.add(seat.attempt)
            record_exit(self._engine.lifecycle, seat.replica, f"ended: {reason}")

    # Reports from the cluster

    def _on_report(self, report: dict[str, Any]) -> None:
        kind = report["kind"]
        if kind == "token_wanted":
            self._give_token(self.seats.get(report["number"]), report)
        elif kind == "printed":
            self._print(report)
        elif kind == "explained":
            self._engine.lifecycle.log(report["job_id"]).explain(report["why"])
        elif kind == "job_failed":
            self._fail(report["job_id"], report["reason"])
        elif kind == "polling_failed":
            self._on_polling_failed(report)
        elif kind == "left":
            self._on_left(report["attempt"])
        else:
            self._on_worker_lost(report["worker"])

    def _on_polling_failed(self, report: dict[str, Any]) -> None:
        """Fail the jobs of a replica whose polling has ended; the replica asks for a new token next."""
        message = f"replica {report['number']} on {report['worker']} ended ({report['reason']}) and is started again"
        self._engine.lifecycle.note("executor_restarted", self.runtime_id, detail=message)
        seat = self.seats.get(report["number"])
        if seat is not None and seat.attempt == report["attempt"] and seat.replica and not seat.replica.revoked:
            self._engine.lifecycle.remove_replica(seat.replica, message)

    def _fail(self, job_id: str, reason: str) -> None:
        """Fail a job; if it has failed already because its stream broke off, add the reason to its error message."""
        job = self._engine.lifecycle.find_job(job_id)
        if job is not None and (job.error_message or "").startswith(BROKEN_OFF):
            self._engine.lifecycle.add_reason(job_id, reason)
            return
        with contextlib.suppress(CmemuError):  # the job has ended otherwise
            self._engine.lifecycle.fail(job_id, reason)

    def _on_left(self, attempt: str) -> None:
        seat = self._leaving.pop(attempt, None)
        self._any_left.set()
        if seat is not None:
            self._remove(seat, "it has left the runtime")

    def _on_worker_lost(self, worker: str) -> None:
        for seat in [each for each in (*self.seats.values(), *self._leaving.values()) if each.worker == worker]:
            self._remove(seat, f"its worker {worker} left the cluster")
            self._on_left(seat.attempt)

    def _give_token(self, seat: Seat | None, report: dict[str, Any]) -> None:
        """Give the replica that asks for it a token of its own, unless its seat was removed or taken by a later one."""
        if seat is None or self.stopped or report["attempt"] in seat.left:
            self._call_dask(self._deliver, report["worker"], report["attempt"], Leave(finishes_jobs=False))
            return
        if seat.attempt and seat.attempt != report["attempt"]:
            self._remove(seat, f"worker {report['worker']} has taken its place")
        seat.attempt, seat.worker, seat.problem = report["attempt"], report["worker"], ""
        name = replica_name(seat.number, seat.worker)
        try:
            seat.replica = self._engine.lifecycle.add_replica(self.runtime_id, self._slots, launched=True, name=name)
        except NotFound:
            self._engine.home.loop.create_task(self.end("the runtime was deleted"))
            return
        record_start(self._engine.lifecycle, seat.replica, f"on Dask worker {seat.worker}")
        authority = self._engine.identity.certificates.authority.certificate
        self._send(seat, Start(self._url, authority, seat.replica.token, self._slots, self._functions, self._version))

    def _print(self, report: dict[str, Any]) -> None:
        # A function may print its environment; unmasked, a saved notebook would contain its token.
        job_id, text = report["job_id"], self._engine.lifecycle.events.masked(report["text"])
        self._engine.lifecycle.log(job_id).write(text)
        name = replica_name(report["number"], report["worker"])
        for line in text.splitlines():
            self.logs.append(LogLine(time.time_ns(), name, line, job_id=job_id))

    def _on_task_end(self, seat: Seat, problem: str) -> None:
        if self.seats.get(seat.number) is seat and not self.stopped:
            seat.problem = problem
            self._remove(seat, problem)
            self._log(f"replica {seat.number} on the cluster: {problem}")
            if self._client.status in ("closing", "closed"):
                self._engine.home.loop.create_task(self.end("the Dask client was closed"))

    # Calls of Dask, in separate threads

    def _call_dask(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in a new thread: a call that waits for an unreachable worker must not delay other calls."""
        answer: Future[T] = Future()
        answer.set_running_or_notify_cancel()  # from now on, a caller that is interrupted does not cancel it

        def run() -> None:
            try:
                answer.set_result(function(*arguments))
            except Exception as error:  # noqa: BLE001 - the cluster's errors are of many types
                answer.set_exception(error)
                if self._client.status == "running":  # errors of a closed client are expected
                    self._on_loop(self._log, f"the Dask cluster: {error!r}")

        threading.Thread(target=run, name="cmemu-dask", daemon=True).start()
        return answer

    def _log(self, detail: str) -> None:
        self._engine.lifecycle.note("log", self.runtime_id, detail=detail)

    def _on_loop(self, function: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(CmemuError, RuntimeError):  # the emulator is stopped
            self._engine.home.loop.call_soon_threadsafe(function, *arguments)

    def _send(self, seat: Seat, message: Message) -> Future[str]:
        return self._call_dask(self._deliver, seat.worker, seat.attempt, message)

    def _deliver(self, worker: str, attempt: str, message: Message) -> str:
        answers = {}
        with contextlib.suppress(OSError):  # the loss of a worker is reported by the scheduler
            answers = run_on_workers(self._client, deliver, attempt, message, workers=[worker], on_error="ignore")
        if isinstance(message, Leave):  # the replica reads the message only when its poll is answered
            self._on_loop(self._engine.end_polls)
        return str(answers.get(worker, ""))

    def _listen(self) -> None:
        with self._dask_lock:
            if not self.stopped:
                self._client.subscribe_topic(self._topic, lambda event: self._on_loop(self._on_report, event[1]))
                self._client.register_plugin(make_worker_watch(self._topic), name=self._topic)
                self._listening = True

    def _submit(self, seats: list[Seat]) -> None:
        try:
            with self._dask_lock:
                workers = list(self._client.nthreads())
                for seat in seats if not self.stopped else ():
                    preferred = [workers[seat.number % len(workers)]] if workers else None
                    self._submit_one(seat, preferred)
        except Exception as error:  # noqa: BLE001 - the cluster's errors are of many types
            for seat in seats:
                self._on_loop(self._on_task_end, seat, f"Dask did not accept it: {error!r}")

    def _submit_one(self, seat: Seat, workers: list[str] | None) -> None:
        key = f"{self._topic}-{seat.number}-{secrets.token_hex(4)}"
        future = self._client.submit(
            serve, self._topic, seat.number, key=key, pure=False, workers=workers, allow_other_workers=bool(workers)
        )
        future.add_done_callback(lambda task: self._on_loop(self._on_task_end, seat, describe_end(task)))
        seat.future = future
        if self.seats.get(seat.number) is not seat:
            seat.future = None  # this cancels the task

    def _clean_up(self) -> None:
        with self._dask_lock:
            end = time.monotonic() + STOP_SECONDS
            for seat in self.seats.values():
                if seat.future is not None:
                    with contextlib.suppress(Exception):  # a replica that still asks for a token is told to leave here
                        seat.future.exception(max(end - time.monotonic(), CHECK_SECONDS))
                    seat.future = None
            if self._listening:
                self._client.unsubscribe_topic(self._topic)
                self._client.unregister_scheduler_plugin(self._topic)
        run_on_workers(self._client, leave, self._topic, on_error="ignore")

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


def _wait_for_answers(sent: list[Sent]) -> None:
    """Wait up to five seconds until messages are answered, except by replicas whose worker is lost meanwhile."""
    end = time.monotonic() + SHIP_SECONDS
    while time.monotonic() < end:
        answers = [answer for seat, attempt, answer in sent if attempt not in seat.left]
        if not wait(answers, CHECK_SECONDS).not_done:
            return


def check_at_least_one(**numbers: object) -> None:
    """Raise `InvalidRequest` for a value that is not a whole number of at least 1."""
    for name, number in numbers.items():
        if not isinstance(number, Integral) or number < 1:
            raise InvalidRequest(f"{name} must be a whole number of at least 1, not {number!r}.")
