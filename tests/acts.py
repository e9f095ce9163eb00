"""What clients do with an emulator over more than one moment: wait, go away, post a result piece by piece."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client import EXECUTE, Wire, eventually
from operations import APPS, Operations, Replica, module, path_of, waiting

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from operations import Clients, Operation
    from truth import TrueJob, Truth

MOST_HELD = 24
FOR_LONG = 60  # seconds that a client is ready to wait: longer than any example takes
NOTHING: Operation = iter(())


@dataclass
class Held:
    """A request that is being held: `due` tells whether the emulator has a reason to answer it."""

    future: Future[object]
    operation: Operation
    due: Callable[[], bool]


@dataclass
class Streaming:
    """A client that posts a result piece by piece."""

    wire: Wire
    job: TrueJob
    sent: bytes = b""

    def send(self, piece: bytes) -> None:
        self.sent += piece
        try:
            self.wire.send_chunk(piece)
        except ConnectionError:
            return  # refused, and the server has hung up

    def status(self) -> int | None:
        """End the result and return the answer's status; None when the server has hung up."""
        self.send(b"")
        try:
            return self.wire.answer().status
        except (ConnectionError, AssertionError):
            return None


class Acts:
    """Begins what was drawn. Each act takes a runtime, a number that says which one of something, and a job."""

    def __init__(self, clients: Clients, truth: Truth) -> None:
        self.clients = clients
        self.emulator = clients.emulator
        self.truth = truth
        self.can = Operations(clients, truth)
        self.held: list[Held] = []
        self.leaving: list[Wire] = []
        self.streams: list[Streaming] = []
        self.replicas: list[Replica] = []
        self.may_be_unheard: set[int] = set()

    def begin(self, kind: str, name: str, index: int) -> Operation:
        """Begin an act; nothing if there is no job, replica, stream or connection for it."""
        wanted = {"post_again": "succeeded", "fail_queued": "queued"}.get(kind, "running")
        job = self.can.some(name, index, wanted)
        if hasattr(self, kind):
            return getattr(self, kind)(name, index, job)  # type: ignore[no-any-return]
        if kind in self.can.on_jobs:
            return getattr(self.can, kind)(job) if job else NOTHING
        return getattr(self.can, kind)(name, index)  # type: ignore[no-any-return]

    def post_chunked(self, _: str, index: int, job: TrueJob | None) -> Operation:
        return self.can.post(job, *[b"more"] * (1 + index % 3)) if job else NOTHING

    def post_again(self, _: str, __: int, job: TrueJob | None) -> Operation:
        return self.can.post_again(job) if job and job.status == "succeeded" else NOTHING

    def fail_queued(self, _: str, __: int, job: TrueJob | None) -> Operation:
        return self.can.fail(job) if job else NOTHING

    # Clients that wait

    def hold_execute(self, _: str, index: int, __: object) -> Operation:
        ticket = self.can.ticket()
        return self._hold(self.can.execute(index, *ticket), partial(self._is_over, ticket[0]))

    def hold_poll(self, name: str, _: int, __: object) -> Operation:
        token = self.truth.tokens.get(name)
        return self._hold(self.can.poll(name, 1, FOR_LONG, token), partial(self._may_poll, name, token))

    def hold_poll_platform(self, name: str, index: int, _: object) -> Operation:
        replica = self._replica(name, index)
        if replica is None:
            return NOTHING
        return self._hold(self.can.poll_platform(replica, FOR_LONG), partial(self._may_poll_platform, replica))

    def hold_status(self, _: str, __: int, job: TrueJob | None) -> Operation:
        return self._hold(self.can.status(job, FOR_LONG), partial(self._is_over, job.ticket)) if job else NOTHING

    def hold_result(self, _: str, __: int, job: TrueJob | None) -> Operation:
        return self._hold(self.can.result(job, FOR_LONG), partial(self._is_over, job.ticket)) if job else NOTHING

    def hold_stream(self, _: str, __: int, job: TrueJob | None) -> Operation:
        return self._hold(self.can.stream(job), partial(self._is_over, job.ticket)) if job else NOTHING

    def _hold(self, operation: Operation, due: Callable[[], bool]) -> Operation:
        if len(self.held) < MOST_HELD:
            self.held.append(Held(self.clients.pool.submit(next, operation, None), operation, due))
        return NOTHING

    def _is_over(self, ticket: int) -> bool:
        job = self.truth.by_ticket.get(ticket)
        return job is not None and (job.ended or job.gone)

    def _may_poll(self, name: str, token: str | None) -> bool:
        return self.can.stale(name, token) or bool(self.truth.queue(name))

    def _may_poll_platform(self, replica: Replica) -> bool:
        full = self.truth.held_by(replica.replica_id) >= replica.most
        return self.can.stale(replica.runtime, replica.session) or not (full or not self.truth.queue(replica.runtime))

    # Replicas

    def add_replica(self, name: str, index: int, _: object) -> Operation:
        session, most = self.truth.tokens.get(name), 1 + index % 3
        if session is not None:
            environment = self.emulator.env(name, most)
            token = Path(environment["MODULE_AUTH_TOKEN"]).read_text()
            replica_id = environment["COMPUTE_SESSION_ID"].split("-")[1]
            self.truth.limit(replica_id, most)
            self.replicas.append(Replica(name, session, token, replica_id, most))
        return NOTHING

    def restart(self, name: str, index: int, _: object) -> Operation:
        replica = self._replica(name, index)
        return self.can.restart(replica) if replica else NOTHING

    def _replica(self, name: str, index: int) -> Replica | None:
        there = [each for each in self.replicas if each.runtime == name][-4:]
        return there[index % len(there)] if there else None

    # Clients that go away

    def come_to_poll(self, name: str, *_: object) -> Operation:
        headers = module(self.truth.tokens.get(name)) | waiting(FOR_LONG)
        return self._come("GET", f"{path_of(name)}/job", headers)

    def come_to_execute(self, _: str, index: int, __: object) -> Operation:
        number, fields = self.can.ticket()
        self.may_be_unheard.add(number)
        return self._come("POST", EXECUTE, self.can.bearer, {"deployedAppRid": APPS[index % 2], **fields})

    def _come(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None = None) -> Operation:
        self.leaving.append(Wire(self.emulator.port))
        self.leaving[-1].request(method, path, headers, json.dumps(body).encode() if body else b"")
        return NOTHING

    def leave(self, _: str, index: int, __: object) -> Operation:
        if not self.leaving:
            return NOTHING
        return self._leave(self.leaving.pop(index % len(self.leaving)), abruptly=index % 2 == 0)

    def leave_last(self, *, abruptly: bool) -> Operation:
        return self._leave(self.leaving.pop(), abruptly=abruptly)

    def _leave(self, wire: Wire, *, abruptly: bool) -> Operation:
        wire.reset() if abruptly else wire.close()
        yield

    # Results that come piece by piece

    def begin_stream(self, _: str, __: int, job: TrueJob | None) -> Operation:
        if job is not None:
            stream = Streaming(Wire(self.emulator.port), job)
            headers = module(job.session) | {"Transfer-Encoding": "chunked"}
            stream.wire.request("POST", f"{path_of(job.runtime)}/results/{job.job_id}", headers)
            stream.send(self.can.a_result(job))
            self.streams.append(stream)
        return NOTHING

    def go_on_streaming(self, _: str, index: int, __: object) -> Operation:
        if self.streams:
            self.streams[index % len(self.streams)].send(b"more")
        return NOTHING

    def end_stream(self, _: str, index: int, __: object) -> Operation:
        return self._ending(self.streams.pop(index % len(self.streams))) if self.streams else NOTHING

    def _ending(self, stream: Streaming) -> Operation:
        status = stream.status()
        stream.wire.close()
        yield
        self.can.posted_fits(stream.job, stream.sent, status)

    def break_stream(self, _: str, index: int, __: object) -> Operation:
        return self._breaking(self.streams.pop(index % len(self.streams))) if self.streams else NOTHING

    def _breaking(self, stream: Streaming) -> Operation:
        stream.wire.reset()
        yield
        if all(each.job is not stream.job for each in self.streams):
            job_id = stream.job.job_id
            eventually(lambda: self.emulator.lifecycle.stream(job_id) is None, "the broken stream is over")
        assert stream.job.result != stream.sent
