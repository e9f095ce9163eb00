"""The worker's side of a replica on a Dask cluster: it runs as a Dask task, in a thread of the worker's process.

It is a client of the platform routes like any other program. Dask starts it and delivers its functions; it reports what
they print by Dask's events.
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

from cmemu_nb.clients.received_job import ReceivedJob, not_posted, not_started, without_result
from cmemu_nb.errors import JobEnded
from cmemu_nb.eventloop.ending import Ending
from cmemu_nb.executors.sdk.adapter import Definition, handle_job, posts
from cmemu_nb.executors.sdk.output import output_to
from cmemu_nb.tracebacks import in_one_line, print_from_its_own_frame
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Report = Callable[[dict[str, Any]], None]

TOKEN_SECONDS = 30.0
# Longer than the server holds a poll.
READ_SECONDS = 30.0
MAX_SILENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
# Text without an end of line is reported once it has this many characters.
MAX_UNFINISHED_LINE = 100_000
MAX_ABANDONED = 100
JOB_ENDED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE)
BYTES = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Start:
    """What a replica needs to poll: the emulator's address and certificate authority, its token, pickled functions.

    With the functions is what their context has of the configuration of their runtime.
    """

    url: str
    authority: str
    token: str = field(repr=False)
    max_concurrent_tasks: int
    functions: bytes = field(repr=False)
    version: int


@dataclass(frozen=True)
class NewFunctions:
    """The pickled functions that later jobs run, and what their context has of the configuration."""

    functions: bytes = field(repr=False)
    version: int


@dataclass(frozen=True)
class Leave:
    """The replica must end: when its running jobs are done if `finishes_jobs` is true, else at once."""

    finishes_jobs: bool


@dataclass(frozen=True)
class Abandon:
    """A job that the replica runs was ended, so its slot is free. An id of "" means all jobs."""

    job_id: str = ""


@dataclass(frozen=True, eq=False)
class Run:
    """A job that runs in a slot; `ending` ends its function."""

    job_id: str
    slots: threading.Semaphore
    ending: Ending = field(default_factory=Ending)


Message = Start | NewFunctions | Leave | Abandon
_replicas: dict[str, WorkerReplica] = {}


def serve(topic: str, number: int) -> None:
    """Run replica `number` until it is told to leave. This is the Dask task; if its worker is lost, Dask reruns it."""
    from distributed import get_worker, secede  # noqa: PLC0415 - Dask is an optional dependency

    worker = get_worker()
    secede()  # the replica must not occupy one of the worker's threads for other tasks
    replica = WorkerReplica(lambda event: worker.log_event(topic, event), topic, number, worker.address)
    _replicas[replica.attempt] = replica
    try:
        replica.run()
    finally:
        del _replicas[replica.attempt]


def deliver(attempt: str, message: Message) -> str:
    """Pass a message to a replica of this process, unless it has ended. Returns why it can't be used, "" if it can."""
    replica = _replicas.get(attempt)
    try:
        if replica is not None:
            replica.receive(message)
    except Exception as error:  # noqa: BLE001 - loading functions imports modules, which may raise any error
        return describe_error(error)
    return ""


def leave(topic: str) -> None:
    """End all replicas of a cluster in this process, including those that still wait for a token."""
    for replica in list(_replicas.values()):
        if replica.topic == topic:
            replica.receive(Leave(finishes_jobs=False))


def describe_error(error: BaseException) -> str:
    """Return what went wrong on a worker, and how to install a package that is missing there."""
    message = f"{type(error).__name__}: {error}"
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return message
    package = error.name.partition(".")[0]
    return f"{message}. Install {package} on the workers, or upload your own file: client.upload_file('{package}.py')"


class TokenRevoked(Exception):
    """The emulator does not accept the token any more."""


class ResultRefused(Exception):
    """The emulator does not accept a result; the message is its answer."""


class WorkerReplica:
    """One replica. `send(report)` reaches the notebook by `topic`; the notebook addresses messages to `attempt`."""

    def __init__(self, send: Report, topic: str, number: int, address: str) -> None:
        self.topic = topic
        self.attempt = secrets.token_hex(8)
        self._origin = {"attempt": self.attempt, "number": number, "worker": address}
        self._send = send
        self._messages: queue.SimpleQueue[Start | Leave] = queue.SimpleQueue()
        self._functions: dict[str, Definition] = {}
        self._configured: dict[str, Any] | None = None
        self._version = -1
        self._lock = threading.Lock()
        self._leaving: Leave | None = None
        self._runs: set[Run] = set()
        self._abandoned: deque[str] = deque(maxlen=MAX_ABANDONED)

    def receive(self, message: Message) -> None:
        """Receive a message, in any thread."""
        if isinstance(message, NewFunctions):
            self._load(message)
            return
        if isinstance(message, Abandon):
            self._abandon(message.job_id)
            return
        self._messages.put(message)
        if isinstance(message, Leave):
            self._leaving = message
            if not message.finishes_jobs:
                self._abandon("")

    def _load(self, message: Start | NewFunctions) -> None:
        # Messages may arrive in another order than they were sent.
        with self._lock:
            if message.version > self._version:
                (self._functions, self._configured), self._version = (
                    cloudpickle.loads(message.functions),
                    message.version,
                )

    def _abandon(self, job_id: str) -> None:
        self._abandoned.append(job_id)  # the job may arrive after this message
        for run in [each for each in self._runs.copy() if job_id in ("", each.job_id)]:
            self._free(run)
            end(run.ending)

    def _free(self, run: Run) -> None:
        with self._lock:
            if run in self._runs:
                self._runs.remove(run)
                run.slots.release()

    def run(self) -> None:
        """Ask for a token and run jobs with it; ask for a new one when it is not valid any more."""
        while not self._leaving:
            self._report("token_wanted")
            try:
                message = self._messages.get(timeout=TOKEN_SECONDS)
            except queue.Empty:
                break
            if isinstance(message, Start):
                self._run_jobs_or_report(message)
        self._report("left")

    def _run_jobs_or_report(self, start: Start) -> None:
        try:
            self._run_jobs(start)
        except TokenRevoked:
            pass
        except Exception as error:  # noqa: BLE001 - the notebook fails its jobs, and it asks for a new token
            self._report("polling_failed", reason=in_one_line(error))
            time.sleep(PAUSE_SECONDS)

    def _report(self, kind: str, **details: Any) -> None:
        self._send({"kind": kind, **self._origin, **details})

    def _run_jobs(self, start: Start) -> None:
        self._load(start)
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
            if run.job_id in self._abandoned:
                self._free(run)
                continue
            try:
                self._start(platform, job, run)
            except Exception as error:  # noqa: BLE001 - the replica must outlive every job
                self._free(run)
                self._report("job_failed", job_id=run.job_id, reason=not_started(error))
        for _ in range(start.max_concurrent_tasks if self._leaving.finishes_jobs else 0):
            slots.acquire()

    def _start(self, platform: Platform, job: ReceivedJob, run: Run) -> None:
        arguments = (platform, job.envelope(), run)
        name = f"cmemu-job-{run.job_id}"
        threading.Thread(target=self._run_job, args=arguments, name=name, daemon=True).start()

    def _run_job(self, platform: Platform, envelope: dict[str, Any], run: Run) -> None:
        definition = self._functions.get(envelope["computeModuleJobV1"]["queryType"])
        lines = Lines(lambda text: self._report("printed", job_id=run.job_id, text=text))
        try:
            with output_to(lines.write):
                self._handle(platform, envelope, run, definition)
        except BaseException as error:  # noqa: BLE001 - a job must end after any error, such as MemoryError
            self._report("job_failed", job_id=run.job_id, reason=not_started(error))
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
                lambda why: self._report("explained", job_id=run.job_id, why=why),
                run.ending,
                self._configured,
            )
        except JobEnded:  # the job has ended already, so it needs no result
            pass
        except ResultRefused as error:
            self._report("job_failed", job_id=run.job_id, reason=not_posted(error))
        except BaseException as error:  # noqa: BLE001 - a broken stream, or an error for which the SDK posts no result
            print_from_its_own_frame()
            self._report("job_failed", job_id=run.job_id, reason=without_result(in_one_line(error)))


def end(ending: Ending, retry_in: float = PAUSE_SECONDS) -> None:
    """End a function as soon as possible."""
    if not ending.request():
        timer = threading.Timer(retry_in, end, (ending, retry_in))
        timer.daemon = True
        timer.start()


class Lines:
    """The output of a job, passed to `send(text)` in whole lines. It may be used in any thread."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._pieces: list[str] = []
        self._size = 0

    def write(self, text: str) -> None:
        """Add a text."""
        with self._lock:
            before, newline, rest = text.rpartition("\n")
            self._pieces.append(before + newline)
            if newline or self._size > MAX_UNFINISHED_LINE:
                self._flush()
            self._pieces.append(rest)
            self._size += len(rest)

    def end(self) -> None:
        """Send an unfinished last line."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        lines, self._pieces, self._size = "".join(self._pieces), [], 0
        if lines:
            self._send(lines)


class Platform:
    """A client of the platform routes, with a replica's token."""

    def __init__(self, start: Start) -> None:
        context = ssl.create_default_context(cadata=start.authority)
        timeout = urllib3.Timeout(connect=PAUSE_SECONDS * 10, read=READ_SECONDS)
        self._http = urllib3.PoolManager(
            ssl_context=context, timeout=timeout, retries=False, maxsize=start.max_concurrent_tasks + 1
        )
        self._headers = {"Module-Auth-Token": start.token}
        self._url = f"{start.url}{PLATFORM}"
        self._last_answer = time.monotonic()

    def next_job(self) -> ReceivedJob | None:
        """Poll once for a job; None if there is none yet.

        Raises `TokenRevoked`, also when the emulator has not answered for a minute.
        """
        try:
            answer = self._http.request("GET", f"{self._url}/job", headers=self._headers)
        except urllib3.exceptions.HTTPError:
            if time.monotonic() - self._last_answer > MAX_SILENCE_SECONDS:
                raise TokenRevoked from None
            time.sleep(PAUSE_SECONDS)
            return None
        self._last_answer = time.monotonic()
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise TokenRevoked
        if answer.status != HTTPStatus.OK:
            if answer.status != HTTPStatus.NO_CONTENT:
                time.sleep(PAUSE_SECONDS)
            return None
        return ReceivedJob(answer.data)

    def post(self, job_id: str, body: bytes | Iterable[bytes]) -> None:
        """Post a result. A whole one is posted again, as the SDK does, until it is accepted or its job has ended.

        Raises `ResultRefused` if it is not accepted.
        """
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
            if answer.status < HTTPStatus.BAD_REQUEST or answer.status in JOB_ENDED:
                return
            if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise ResultRefused(answer.data.decode(errors="replace"))
        if broken:
            raise ResultRefused(broken)

    def _send(self, job_id: str, body: bytes | Iterable[bytes]) -> urllib3.BaseHTTPResponse:
        chunked = not isinstance(body, bytes)
        url, headers = f"{self._url}/results/{job_id}", {**self._headers, **BYTES}
        return self._http.request("POST", url, body=body, headers=headers, chunked=chunked)
