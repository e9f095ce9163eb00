"""The lifecycle against a model that can be checked by reading it: lists and dicts, nothing clever.

The model's queue is "the queued ones of the jobs in the order of their submission", so first in, first out
is true of it by its shape.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cmemu_nb.errors import InvalidModuleAuthToken, JobAlreadyCompleted, JobNotRunning, NotFound
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.records import Job, JobSource, Runtime
from cmemu_nb.lifecycle.session import ThrownAway
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.errors import WireError
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.session import ResultStream

pytestmark = pytest.mark.once

APPS = ["ri.app.1", "ri.app.2"]
NAMES = ["a", "b", "ü/<c>"]
FUNCTIONS = ["add", "mul"]
runtimes = st.sampled_from(NAMES)
apps = st.sampled_from(APPS)
branches = st.sampled_from([None, "master", "dev", "test"])
functions = st.sampled_from(FUNCTIONS)
queries = st.sampled_from([b"{}", b'{"x":1e400}'])
bodies = st.sampled_from([b"", b"1", b"\xff\x00", b'{"error":"x"}'])
own_or_other = st.sampled_from([None, None, None, None, *NAMES])
indexes = st.integers(0, 999)
counts = st.integers(1, 4)

T = TypeVar("T")

# A step with nothing to work on is only refused: worth a try now and then, not all the time.
now_and_then = precondition(lambda machine: machine.steps % 4 == 3)
seldom = precondition(lambda machine: machine.steps % 16 == 15)
with_queue = precondition(lambda machine: machine.of("queued") or machine.steps % 8 == 0)
with_running = precondition(lambda machine: machine.of("running") or (machine.steps % 8 == 0 and machine.takes))
with_succeeded = precondition(lambda machine: machine.of("succeeded") and machine.steps % 4 == 1)
with_stream = precondition(lambda machine: machine.open_streams() or (machine.steps % 8 == 0 and machine.streams))
with_schemas = precondition(lambda machine: machine.lifecycle.schemas() or machine.steps % 8 == 0)


@dataclass(eq=False)
class ModelJob:
    job_id: str
    runtime: str
    function: str
    query: bytes
    source: str
    app: tuple[str | None, str | None]
    status: str = "queued"  # or running, succeeded, failed; cleared once its session is gone
    taken: Job | None = None  # the record that the latest take handed out
    stream: ModelStream | None = None
    result: bytes | None = None
    content_type: str | None = None
    error: str | None = None


@dataclass(eq=False)
class ModelStream:
    real: ResultStream
    job: ModelJob
    chunks: list[bytes] = field(default_factory=list)


@dataclass
class ModelSession:
    token: str
    display_name: str | None
    polled: bool = False
    posted_schemas: bool = False
    jobs: list[ModelJob] = field(default_factory=list)
    schemas: dict[str, bytes] = field(default_factory=dict)

    @property
    def queue(self) -> list[ModelJob]:
        return [job for job in self.jobs if job.status == "queued"]


class LifecycleMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_700_000_000 * 10**9
        self.monotonic = 0
        self.lifecycle = Lifecycle(clock=lambda: self.now, monotonic=lambda: self.monotonic)
        self.heard: list[Event] = []
        self.lifecycle.events.subscribe(self.heard.append)
        self.events_due: list[tuple[str, str | None, str | None]] = []
        self.last_event = 0
        self.sessions: dict[str, ModelSession] = {}
        self.bindings: list[tuple[str, str, str]] = []  # app, branch, runtime; the newest last
        self.gone: list[ModelJob] = []
        self.old_tokens: list[tuple[str, str]] = []
        self.takes: list[Job] = []
        self.streams: list[ModelStream] = []
        self.steps = 0

    # Sessions

    @initialize()
    def open_all(self) -> None:
        for name, branch in zip(NAMES, ("dev", "master", "test"), strict=True):
            self.open_or_reset(name, APPS[0], branch, None)

    @now_and_then
    @rule(name=runtimes, app=apps | st.none(), branch=branches, display_name=st.sampled_from([None, "My App"]))
    def open_or_reset(self, name: str, app: str | None, branch: str | None, display_name: str | None) -> None:
        runtime, thrown_away = self.lifecycle.open_session(name, app, branch, display_name)
        if name in self.sessions:
            assert thrown_away == self.throw_away(name, "session_reset")
        else:
            assert thrown_away is None
            self.due("session_opened", name)
        self.sessions[name] = ModelSession(runtime.module_auth_token, display_name)
        if app is not None:
            where = (app, branch or "master")
            self.bindings = [each for each in self.bindings if each[:2] != where] + [(*where, name)]
            self.due("app_bound", name)

    @seldom
    @rule(name=runtimes)
    def delete(self, name: str) -> None:
        if name not in self.sessions:
            return self.refused(NotFound, self.lifecycle.delete_session, name)
        assert self.lifecycle.delete_session(name) == self.throw_away(name, "session_deleted")
        del self.sessions[name]
        return None

    @seldom
    @rule()
    def reset_all(self) -> None:
        self.lifecycle.reset()
        for name in list(self.sessions):
            self.throw_away(name, "session_deleted")
        self.sessions.clear()

    def throw_away(self, name: str, kind: str) -> ThrownAway:
        session = self.sessions[name]
        self.due(kind, name)
        for job in session.jobs:
            if job.status in {"queued", "running"}:
                self.due("job_cleared", name, job)
            job.status, job.stream = "cleared", None
        self.gone += session.jobs
        self.old_tokens.append((name, session.token))
        bound = [each for each in self.bindings if each[2] == name]
        self.bindings = [each for each in self.bindings if each[2] != name]
        return ThrownAway(len(session.jobs), len(session.schemas), len(bound))

    # Jobs

    @rule(name=runtimes, function=functions, query=queries, count=counts)
    def submit(self, name: str, function: str, query: bytes, count: int) -> None:
        if name not in self.sessions:
            return self.refused(NotFound, self.lifecycle.submit, name, function, query)
        for _ in range(count):
            job = self.lifecycle.submit(name, function, query)
            self.queued(ModelJob(job.job_id, name, function, query, "runtime-direct", (None, None)))
        return None

    @rule(index=indexes, any_branch=st.booleans(), function=functions, query=queries)
    def submit_to_app(self, index: int, any_branch: bool, function: str, query: bytes) -> None:  # noqa: FBT001
        app, bound = pick(index, [each[:2] for each in self.bindings], [(APPS[1], "none such")])
        branch = None if any_branch else bound
        source, where = JobSource.CONTOUR_ASYNC, self.serving(app, branch)
        if where is None:
            return self.refused(NotFound, self.lifecycle.submit_to_app, app, branch, function, query, source)
        job = self.lifecycle.submit_to_app(app, branch, function, query, source)
        return self.queued(ModelJob(job.job_id, where[2], function, query, source, where[:2]))

    def serving(self, app: str, branch: str | None) -> tuple[str, str, str] | None:
        bound = [each for each in self.bindings if each[0] == app]
        on_branch = [each for each in bound if each[1] == (branch or "master")]
        found = on_branch or (bound if branch is None else [])
        return found[-1] if found else None

    def queued(self, job: ModelJob) -> None:
        self.sessions[job.runtime].jobs.append(job)
        self.due("job_queued", job.runtime, job)

    @with_queue
    @rule(name=runtimes, count=counts)
    def take(self, name: str, count: int) -> None:
        if name not in self.sessions:
            return self.refused(NotFound, self.lifecycle.take, name)
        for _ in range(count):
            if self.take_next(name) is None:
                break
        return None

    def take_next(self, name: str) -> Job | None:
        session = self.sessions[name]
        if not session.polled:
            self.due("runtime_connected", name)
        session.polled = True
        record = self.lifecycle.take(name)
        if not session.queue:
            assert record is None
            self.due("poll_empty", name)
            return None
        job = session.queue[0]
        assert record is not None
        assert record.job_id == job.job_id
        job.status, job.taken = "running", record
        self.takes.append(record)
        self.due("job_started", name, job)
        if session.schemas and job.function not in session.schemas:
            self.due("unknown_query_type", name, job)
        return record

    @with_running
    @rule(index=indexes)
    def give_back_any(self, index: int) -> None:
        latest = [job.taken for job in self.of("running") if job.taken]
        self.give_back(pick(index, latest, self.takes))

    def give_back(self, record: Job) -> None:
        """Only the latest take of a job that still runs, its result not begun, can be given back."""
        self.lifecycle.give_back(record)
        for job in self.alive():
            if job.taken is record and job.status == "running" and job.stream is None:
                job.status, job.taken = "queued", None
                self.due("job_given_back", job.runtime, job)

    @with_queue
    @rule(name=runtimes, order=st.permutations(range(4)))
    def give_several_back_in_any_order(self, name: str, order: list[int]) -> None:
        if name in self.sessions:
            records = [self.take_next(name) for _ in order]
            for record in (records[index] for index in order):
                if record is not None:
                    self.give_back(record)

    @with_running
    @rule(index=indexes, other=own_or_other, body=bodies, content_type=st.sampled_from([None, "text/plain"]))
    def finish(self, index: int, other: str | None, body: bytes, content_type: str | None) -> None:
        job = self.pick_job(index)
        self.post_result(job, other or job.runtime, body, content_type)

    @with_succeeded
    @rule(index=indexes)
    def finish_again(self, index: int) -> None:
        job = pick(index, self.of("succeeded"), self.of("succeeded"))
        self.post_result(job, job.runtime, job.result or b"", None)

    def post_result(self, job: ModelJob, name: str, body: bytes, content_type: str | None) -> None:
        error = self.objection(job, name)
        if error is JobAlreadyCompleted and job.status == "succeeded" and job.result == body:
            before = self.picture()
            self.lifecycle.finish(name, job.job_id, body, content_type)
            assert self.picture() == before
        elif error:
            self.refused(error, self.lifecycle.finish, name, job.job_id, body, content_type)
        else:
            self.lifecycle.finish(name, job.job_id, body, content_type)
            self.succeeded(job, body, content_type)

    def objection(self, job: ModelJob, name: str) -> type[WireError] | None:
        """Say what stands against a result of this job from this runtime."""
        if job.status == "cleared" or name != job.runtime:
            return NotFound
        if job.status == "queued":
            return JobNotRunning
        return None if job.status == "running" and job.stream is None else JobAlreadyCompleted

    def succeeded(self, job: ModelJob, body: bytes, content_type: str | None) -> None:
        job.status, job.result, job.content_type, job.stream = "succeeded", body, content_type, None
        self.due("job_succeeded", job.runtime, job)

    @with_running
    @rule(index=indexes, reason=st.sampled_from(["lost patience", ""]))
    def fail(self, index: int, reason: str) -> None:
        job = self.pick_job(index)
        if job.status == "cleared":
            self.refused(NotFound, self.lifecycle.fail, job.job_id, reason)
        elif job.status in {"succeeded", "failed"}:
            self.refused(JobAlreadyCompleted, self.lifecycle.fail, job.job_id, reason)
        else:
            self.lifecycle.fail(job.job_id, reason)
            self.failed(job, reason or "failed by hand")

    def failed(self, job: ModelJob, reason: str) -> None:
        job.status, job.error, job.stream = "failed", reason, None
        self.due("job_failed", job.runtime, job)

    # Streams

    @with_running
    @rule(index=indexes, other=own_or_other)
    def open_stream(self, index: int, other: str | None) -> None:
        job = self.pick_job(index)
        error = self.objection(job, other or job.runtime)
        if error:
            self.refused(error, self.lifecycle.open_stream, other or job.runtime, job.job_id)
        else:
            job.stream = ModelStream(self.lifecycle.open_stream(job.runtime, job.job_id), job)
            self.streams.append(job.stream)
            self.due("result_started", job.runtime, job)

    @with_stream
    @rule(index=indexes, chunk=bodies)
    def add_chunk(self, index: int, chunk: bytes) -> None:
        stream = self.pick_stream(index)
        if not self.refused_stream(stream, self.lifecycle.add_chunk, stream.real, chunk):
            self.lifecycle.add_chunk(stream.real, chunk)
            stream.chunks.append(chunk)
            self.due("result_chunk", stream.job.runtime, stream.job)

    @with_stream
    @rule(index=indexes)
    def close_stream(self, index: int) -> None:
        stream = self.pick_stream(index)
        if not self.refused_stream(stream, self.lifecycle.close_stream, stream.real):
            self.lifecycle.close_stream(stream.real, "text/plain")
            self.succeeded(stream.job, b"".join(stream.chunks), "text/plain")

    @with_stream
    @rule(index=indexes)
    def break_stream(self, index: int) -> None:
        stream = self.pick_stream(index)
        self.lifecycle.break_stream(stream.real)
        if stream.job.stream is stream:
            size = plural(len(b"".join(stream.chunks)), "byte")
            self.failed(stream.job, f"the result stream broke off after {size}")

    def refused_stream(self, stream: ModelStream, call: Callable[..., object], *arguments: object) -> bool:
        if stream.job.stream is not stream:
            self.refused(NotFound if stream.job.status == "cleared" else JobAlreadyCompleted, call, *arguments)
        return stream.job.stream is not stream

    # Schemas, the clock

    @rule(name=runtimes, schemas=st.lists(st.tuples(functions, queries), max_size=3))
    def post_schemas(self, name: str, schemas: list[tuple[str, bytes]]) -> None:
        if name not in self.sessions:
            return self.refused(NotFound, self.lifecycle.post_schemas, name, schemas)
        self.lifecycle.post_schemas(name, schemas)
        self.sessions[name].schemas.update(schemas)
        self.sessions[name].posted_schemas = True
        return self.due("schemas_posted", name)

    @with_schemas
    @rule(name=runtimes, function=functions)
    def delete_schema(self, name: str, function: str) -> None:
        if name not in self.sessions or function not in self.sessions[name].schemas:
            return self.refused(NotFound, self.lifecycle.delete_schema, name, function)
        self.lifecycle.delete_schema(name, function)
        del self.sessions[name].schemas[function]
        return self.due("schema_deleted", name)

    @rule(seconds=st.sampled_from([-3600, -1, 1, 60]))
    def clock_jumps(self, seconds: int) -> None:
        self.now += seconds * 10**9
        self.monotonic += 10**9

    # What holds after every step

    def due(self, kind: str, name: str, job: ModelJob | None = None) -> None:
        self.events_due.append((kind, name, job.job_id if job else None))

    def refused(self, error: type[WireError], call: Callable[..., object], *arguments: object) -> None:
        before = self.picture()
        with pytest.raises(error, match=r"\S"):
            call(*arguments)
        assert self.picture() == before

    def picture(self) -> tuple[object, ...]:
        look = self.lifecycle
        streams = [stream and bytes(stream.body) for stream in (look.stream(job.job_id) for job in look.jobs())]
        depths = [look.queue_depth(each.runtime_id) for each in look.runtimes()]
        return look.runtimes(), look.jobs(), look.schemas(), look.deployed_apps(), streams, depths, list(self.heard)

    def alive(self) -> list[ModelJob]:
        return [job for session in self.sessions.values() for job in session.jobs]

    def of(self, status: str) -> list[ModelJob]:
        return [job for job in self.alive() if job.status == status]

    def open_streams(self) -> list[ModelStream]:
        return [job.stream for job in self.alive() if job.stream]

    def pick_job(self, index: int) -> ModelJob:
        return pick(index, self.of("running"), self.alive() + self.gone)

    def pick_stream(self, index: int) -> ModelStream:
        return pick(index, self.open_streams(), self.streams)

    @invariant()
    def count(self) -> None:
        self.steps += 1

    @invariant()
    def every_change_was_told_once_and_in_order(self) -> None:
        assert [(event.kind, event.runtime_id, event.job_id) for event in self.heard] == self.events_due
        for event in self.heard:
            assert event.sequence == self.last_event + 1
            assert event.at == self.now
            self.last_event = event.sequence
        self.heard.clear()
        self.events_due.clear()

    @invariant()
    def the_jobs_are_the_models(self) -> None:
        real = self.lifecycle.jobs()
        assert [job.job_id for job in real] == [job.job_id for job in self.alive()]
        assert [job.sequence for job in self.by_submission(real)] == sorted({job.sequence for job in real})
        for job, model in zip(real, self.alive(), strict=True):
            assert self.lifecycle.job(job.job_id) is self.lifecycle.job_of(model.runtime, job.job_id) is job
            assert_same(job, model)
        for name, session in self.sessions.items():
            assert self.lifecycle.queue_depth(name) == len(session.queue)
            assert +self.lifecycle.count(name) == Counter(job.status for job in real if job.runtime_id == name)
        assert +self.lifecycle.count() == Counter(job.status for job in real)
        assert self.lifecycle.newest_jobs(3) == self.by_submission(real)[:-4:-1]

    def by_submission(self, jobs: list[Job]) -> list[Job]:
        return sorted(jobs, key=lambda job: job.sequence)

    @invariant()
    def streams_are_the_models(self) -> None:
        for job in self.alive():
            stream = self.lifecycle.stream(job.job_id)
            assert stream is (job.stream.real if job.stream else None)
            if stream and job.stream:
                assert stream.body == b"".join(job.stream.chunks)

    @invariant()
    def nothing_of_a_session_that_is_gone_can_be_reached(self) -> None:
        for job in self.gone:
            assert self.lifecycle.find_job(job.job_id) is None
            assert self.lifecycle.stream(job.job_id) is None
            with pytest.raises(NotFound):
                self.lifecycle.job(job.job_id)
        for name, token in self.old_tokens:
            with pytest.raises((InvalidModuleAuthToken, NotFound)):
                self.lifecycle.authenticate(name, token)

    @invariant()
    def runtimes_and_schemas_are_the_models(self) -> None:
        assert [each.runtime_id for each in self.lifecycle.runtimes()] == list(self.sessions)
        for name, session in self.sessions.items():
            assert_same_session(self.lifecycle.authenticate(name, session.token), session)
            stored = [(each.function_name, each.schema_payload) for each in self.lifecycle.schemas(name)]
            assert stored == sorted(session.schemas.items())

    @invariant()
    def bindings_are_the_models(self) -> None:
        real = [(each.deployed_app_rid, each.branch, each.runtime_id) for each in self.lifecycle.deployed_apps()]
        assert sorted(real) == sorted(self.bindings)
        for app in APPS:
            assert [each for each in real if each[0] == app] == [each for each in self.bindings if each[0] == app]
            for branch in (None, "master", "dev", "test", "none such"):
                self.app_is_served_as_in_the_model(app, branch)

    def app_is_served_as_in_the_model(self, app: str, branch: str | None) -> None:
        where = self.serving(app, branch)
        if where is None:
            with pytest.raises(NotFound):
                self.lifecycle.resolve_app(app, branch)
        else:
            found = self.lifecycle.resolve_app(app, branch)
            assert (found.deployed_app_rid, found.branch, found.runtime_id) == where

    def teardown(self) -> None:
        for name, session in self.sessions.items():
            left = [self.lifecycle.take(name) for _ in session.queue]
            assert [job and job.job_id for job in left] == [job.job_id for job in session.queue]
            assert self.lifecycle.take(name) is None


def pick(index: int, likely: list[T], others: list[T]) -> T:
    """Choose mostly one of the likely ones; what is over and gone must be tried too, but not all the time."""
    pool = others if index % 3 == 2 or not likely else likely
    return pool[index // 3 % len(pool)]


def assert_same(job: Job, model: ModelJob) -> None:
    assert (job.runtime_id, job.query_type, job.query) == (model.runtime, model.function, model.query)
    assert (job.source, job.deployed_app_rid, job.deployed_app_branch) == (model.source, *model.app)
    assert (job.status, job.error_message) == (model.status, model.error)
    assert (job.result, job.result_content_type) == (model.result, model.content_type)
    assert (job.started_at is None) == (model.taken is None)
    assert (job.completed_at is None) == (model.status in {"queued", "running"})
    assert job.queue_clock is not None
    assert (job.run_clock is None) == (model.taken is None)
    # The monotonic clock advances by a second when the other one jumps, and there are sixty steps.
    assert all(0 <= each <= 60 * 10**9 for each in (job.queue_time(), job.run_time()) if each is not None)


def assert_same_session(runtime: Runtime, session: ModelSession) -> None:
    assert (runtime.connected, runtime.display_name) == (session.polled, session.display_name)
    assert (runtime.last_poll_at is not None) == session.polled
    assert (runtime.last_schema_post_at is not None) == session.posted_schemas


TestLifecycleAgainstTheModel = LifecycleMachine.TestCase
TestLifecycleAgainstTheModel.settings = settings(
    max_examples=1_000 if "CMEMU_LONG" in os.environ else 100,
    stateful_step_count=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
