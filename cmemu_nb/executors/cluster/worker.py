"""A replica on a worker of a Dask cluster: what runs there, in a thread of the worker's process.

It is a client of the platform routes like any other program. Dask starts it and brings it its functions; what they
print goes back by Dask's events. `distributed` is imported by whoever runs this.
"""

from __future__ import annotations

import queue
import secrets
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import cloudpickle
import urllib3

from cmemu_nb.clients.received_job import ReceivedJob, not_started
from cmemu_nb.errors import JobEnded
from cmemu_nb.eventloop.ending import Ending
from cmemu_nb.executors.sdk.adapter import Definition, handle_job, posts
from cmemu_nb.executors.sdk.output import output_to
from cmemu_nb.tracebacks import in_one_line, print_from_its_own_frame
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Tell = Callable[[dict[str, Any]], None]

ASK_SECONDS = 30.0
# Longer than a poll is held.
READ_SECONDS = 30.0
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
# As much of a text without an end of line is told at once.
MOST_OF_A_LINE = 100_000
MOST_GIVEN_UP = 100
ENDED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE)
BYTES = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Start:
    """What a replica begins with: where the emulator is, whom to trust, its own token, and its pickled functions."""

    url: str
    authority: str
    token: str = field(repr=False)
    max_concurrent_tasks: int
    functions: bytes = field(repr=False)
    version: int


@dataclass(frozen=True)
class NewFunctions:
    """The functions that jobs run from now on, pickled."""

    functions: bytes = field(repr=False)
    version: int


@dataclass(frozen=True)
class Leave:
    """The replica is to end, when the jobs that it runs are done or at once."""

    finishes_jobs: bool


@dataclass(frozen=True)
class GiveUp:
    """A job that the replica runs has been ended: its slot is free. No id means all of them."""

    job_id: str = ""


@dataclass(frozen=True, eq=False)
class Run:
    """A job that runs in a slot; `ending` is that of its function."""

    job_id: str
    slots: threading.Semaphore
    ending: Ending = field(default_factory=Ending)


Message = Start | NewFunctions | Leave | GiveUp
_replicas: dict[str, WorkerReplica] = {}


def serve(topic: str, number: int) -> None:
    """Be replica `number` until told to leave: the task that Dask runs, and again elsewhere if the worker is lost."""
    from distributed import get_worker, secede  # noqa: PLC0415 - not everybody has it

    worker = get_worker()
    secede()  # other tasks may use the worker's threads
    replica = WorkerReplica(lambda event: worker.log_event(topic, event), topic, number, worker.address)
    _replicas[replica.attempt] = replica
    try:
        replica.run()
    finally:
        del _replicas[replica.attempt]


def deliver(attempt: str, message: Message) -> str:
    """Give a replica of this process a message; nothing if it has ended. Returns why it can't be used, or nothing."""
    replica = _replicas.get(attempt)
    try:
        if replica is not None:
            replica.take(message)
    except Exception as error:  # noqa: BLE001 - functions are read, and import what they like
        return told(error)
    return ""


def leave(topic: str) -> None:
    """Have all replicas of a cluster in this process leave, those too that nobody has answered yet."""
    for replica in list(_replicas.values()):
        if replica.topic == topic:
            replica.take(Leave(finishes_jobs=False))


def told(error: BaseException) -> str:
    """Say what went wrong on a worker, and what to do where something is missing there."""
    said = f"{type(error).__name__}: {error}"
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return said
    package = error.name.partition(".")[0]
    return f"{said}. Install {package} on the workers; client.upload_file('{package}.py') brings a file of yours"


class Refused(Exception):
    """The emulator does not know the token any more."""


class NotTaken(Exception):
    """A result that the emulator does not take; the message is its answer."""


class WorkerReplica:
    """One replica. `tell(event)` reaches the notebook by `topic`; `attempt` is its address for messages from there."""

    def __init__(self, tell: Tell, topic: str, number: int, address: str) -> None:
        self.topic = topic
        self.attempt = secrets.token_hex(8)
        self._about = {"attempt": self.attempt, "number": number, "worker": address}
        self._tell = tell
        self._messages: queue.SimpleQueue[Start | Leave] = queue.SimpleQueue()
        self._functions: dict[str, Definition] = {}
        self._version = -1
        self._lock = threading.Lock()
        self._leaving: Leave | None = None
        self._runs: set[Run] = set()
        self._given_up: deque[str] = deque(maxlen=MOST_GIVEN_UP)

    def take(self, message: Message) -> None:
        """Receive a message, in any thread."""
        if isinstance(message, NewFunctions):
            self._use(message)
            return
        if isinstance(message, GiveUp):
            self._give_up(message.job_id)
            return
        self._messages.put(message)
        if isinstance(message, Leave):
            self._leaving = message
            if not message.finishes_jobs:
                self._give_up("")

    def _use(self, message: Start | NewFunctions) -> None:
        # Messages may overtake each other.
        with self._lock:
            if message.version > self._version:
                self._functions, self._version = cloudpickle.loads(message.functions), message.version

    def _give_up(self, job_id: str) -> None:
        self._given_up.append(job_id)  # which may be on its way here
        for run in [each for each in self._runs.copy() if job_id in ("", each.job_id)]:
            self._free(run)
            end(run.ending)

    def _free(self, run: Run) -> None:
        with self._lock:
            if run in self._runs:
                self._runs.remove(run)
                run.slots.release()

    def run(self) -> None:
        """Ask for a token and work with it; ask again when it is worth nothing any more."""
        while not self._leaving:
            self._say("asks")
            try:
                message = self._messages.get(timeout=ASK_SECONDS)
            except queue.Empty:
                break
            if isinstance(message, Start):
                self._work_or_say_why_not(message)
        self._say("left")

    def _work_or_say_why_not(self, start: Start) -> None:
        try:
            self._work(start)
        except Refused:
            pass
        except Exception as error:  # noqa: BLE001 - it asks for a new token, and its earlier jobs are failed with that
            self._say("broke", reason=in_one_line(error))
            time.sleep(PAUSE_SECONDS)

    def _say(self, what: str, **more: Any) -> None:
        self._tell({"what": what, **self._about, **more})

    def _work(self, start: Start) -> None:
        self._use(start)
        platform = Platform(start)
        slots = threading.Semaphore(start.max_concurrent_tasks)
        while not self._leaving:
            slots.acquire()
            job = None if self._leaving else platform.next_job()
            if job is None:
                slots.release()
                continue
            run = Run(job.job_id, slots)
            self._runs.add(run)
            if run.job_id in self._given_up:
                self._free(run)
                continue
            try:
                self._start(platform, job, run)
            except Exception as error:  # noqa: BLE001 - the replica must outlive every job
                self._free(run)
                self._say("failed", job_id=run.job_id, reason=not_started(error))
        for _ in range(start.max_concurrent_tasks if self._leaving.finishes_jobs else 0):
            slots.acquire()

    def _start(self, platform: Platform, job: ReceivedJob, run: Run) -> None:
        arguments = (platform, job.envelope(), run)
        name = f"cmemu-job-{run.job_id}"
        threading.Thread(target=self._run_job, args=arguments, name=name, daemon=True).start()

    def _run_job(self, platform: Platform, envelope: dict[str, Any], run: Run) -> None:
        definition = self._functions.get(envelope["computeModuleJobV1"]["queryType"])
        lines = Lines(lambda text: self._say("printed", job_id=run.job_id, text=text))
        try:
            with output_to(lines.write):
                self._handle(platform, envelope, run, definition)
        except BaseException as error:  # noqa: BLE001 - such as no memory; a job must end whatever goes wrong
            self._say("failed", job_id=run.job_id, reason=not_started(error))
        finally:
            lines.end()
            self._free(run)

    def _handle(self, platform: Platform, envelope: dict[str, Any], run: Run, definition: Definition | None) -> None:
        run.ending.begin()
        try:
            handle_job(
                definition,
                envelope,
                lambda body: platform.post(run.job_id, body),
                lambda why: self._say("explained", job_id=run.job_id, why=why),
                run.ending,
            )
        except JobEnded:  # nobody waits for a result
            pass
        except NotTaken as error:
            self._say("failed", job_id=run.job_id, reason=f"the result could not be posted: {error}")
        except BaseException as error:  # noqa: BLE001 - a stream that breaks off, or what the SDK posts nothing for
            print_from_its_own_frame()
            said = in_one_line(error)
            self._say("failed", job_id=run.job_id, reason=f"the function ended without a result: {said}")


def end(ending: Ending, again_in: float = PAUSE_SECONDS) -> None:
    """Have a function end, as soon as that may be."""
    if not ending.request():
        timer = threading.Timer(again_in, end, (ending, again_in))
        timer.daemon = True
        timer.start()


class Lines:
    """What a job prints, told line by line; in any thread."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._pieces: list[str] = []
        self._size = 0

    def write(self, text: str) -> None:
        """Add a text."""
        with self._lock:
            before, newline, rest = text.rpartition("\n")
            self._pieces.append(before + newline)
            if newline or self._size > MOST_OF_A_LINE:
                self._flush()
            self._pieces.append(rest)
            self._size += len(rest)

    def end(self) -> None:
        """Tell what is left of a line."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        lines, self._pieces, self._size = "".join(self._pieces), [], 0
        if lines:
            self._tell(lines)


class Platform:
    """The platform routes, for the holder of a token."""

    def __init__(self, start: Start) -> None:
        context = ssl.create_default_context(cadata=start.authority)
        timeout = urllib3.Timeout(connect=PAUSE_SECONDS * 10, read=READ_SECONDS)
        self._http = urllib3.PoolManager(
            ssl_context=context, timeout=timeout, retries=False, maxsize=start.max_concurrent_tasks + 1
        )
        self._headers = {"Module-Auth-Token": start.token}
        self._url = f"{start.url}{PLATFORM}"
        self._last_heard = time.monotonic()

    def next_job(self) -> ReceivedJob | None:
        """Wait for a job, some seconds at most. Raises `Refused`, also when nobody has answered for a minute."""
        try:
            answer = self._http.request("GET", f"{self._url}/job", headers=self._headers)
        except urllib3.exceptions.HTTPError:
            if time.monotonic() - self._last_heard > PATIENCE_SECONDS:
                raise Refused from None
            time.sleep(PAUSE_SECONDS)
            return None
        self._last_heard = time.monotonic()
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise Refused
        if answer.status != HTTPStatus.OK:
            if answer.status != HTTPStatus.NO_CONTENT:
                time.sleep(PAUSE_SECONDS)
            return None
        return ReceivedJob(answer.data)

    def post(self, job_id: str, body: bytes | Iterable[bytes]) -> None:
        """Post a result; a whole one again, as the SDK does, until it is taken or its job has ended; or `NotTaken`."""
        if not isinstance(body, bytes):
            self._send(job_id, body)
            return
        for each in posts(body):
            try:
                answer, broken = self._send(job_id, each), ""
            except urllib3.exceptions.HTTPError as error:
                broken = str(error)
                time.sleep(PAUSE_SECONDS)
                continue
            if answer.status < HTTPStatus.BAD_REQUEST or answer.status in ENDED:
                return
            if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise NotTaken(answer.data.decode(errors="replace"))
        if broken:
            raise NotTaken(broken)

    def _send(self, job_id: str, body: bytes | Iterable[bytes]) -> urllib3.BaseHTTPResponse:
        chunked = not isinstance(body, bytes)
        url, headers = f"{self._url}/results/{job_id}", {**self._headers, **BYTES}
        return self._http.request("POST", url, body=body, headers=headers, chunked=chunked)
