"""Schemathesis on the served OpenAPI document: whatever a request holds, its answer is one that the document names."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pytest
import requests
import schemathesis
from client import DEADLINE, MODULE_HEADER, RID, Api, code_of, eventually, prepared_dataset
from conftest import FAULTS, TOKEN, idle, serving, waiting_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from updates import open_updates

from cmemu_nb.lifecycle.records import JobSource, JobStatus
from cmemu_nb.server.api.queries import Query
from cmemu_nb.server.application import ROUTES
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.wire.paths import AUTHORIZE, UI
from cmemu_nb.wire.stream_schemas import parse
from cmemu_nb.wire.stream_values import NewRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.server.routing import Route

pytestmark = [pytest.mark.once, pytest.mark.long_lived]
OF_DATASETS = ("branchName", "transactionRid", "startTransactionRid", "endTransactionRid", "versionId", "columns")
REFUSED = ("transactionId", "scenarioRid", "version", "branch", "pageToken", *OF_DATASETS)
EXAMPLES = 600 if os.environ.get("CMEMU_LONG") else 30
SLOW = {"/_emulate/export": 4}  # an export contains the whole state, which grows with each test
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
RUNTIME_ID = "läuft/gut 1"
MOST_QUEUED = 2
RAW = {"fields": [{"name": "raw", "schema": {"nullable": True, "dataType": {"type": "binary"}}}]}
ENDED = ("evicted", "succeeded", "no UTF-8", "failed")
JOBS = (*ENDED, "running", "queued")
# What the protocol itself answers with 5xx; nothing is injected here, and nobody else keeps the emulator busy.
FAILURES = {(500, "job_failed"), (504, "job_timeout")}
FAILURES |= {(500, "QueryDeploymentNotAvailable"), (500, "AsyncQueryDeploymentNotAvailable")}


@dataclass(frozen=True)
class Plan:
    """What is done to a generated request, and to the emulator before and while it is sent.

    `real` says whether its ids are those of what there is, else they stay as generated; `settled` how a request that is
    held gets what it waits for.
    """

    token: str = "right"
    real: bool = True
    job: str = "running"
    prefer: str | None = None
    queued: int = 1
    settled: str = "succeed"


PLANS = st.builds(
    Plan,
    token=st.sampled_from(["right", "right", "right", "right", "wrong", "missing"]),
    real=st.sampled_from([True, True, True, False]),
    job=st.sampled_from(["running", "succeeded", *JOBS]),
    prefer=st.sampled_from([None, "wait=0", "wait=7", "wait=99999", "respond-async, wait=30"]),
    queued=st.integers(0, MOST_QUEUED),
    settled=st.sampled_from(["succeed", "stream", "fail", "reset", "time out"]),
)


@dataclass
class World:
    """An emulator, its document, and the ids and the token of what was prepared in it."""

    emulator: Emulator
    document: Any
    session: requests.Session
    pool: ThreadPoolExecutor
    jobs: dict[str, str] = field(default_factory=dict)
    module_token: str = ""
    scratch_token: str = ""
    page_id: str = ""
    stream: dict[str, str] = field(default_factory=dict)

    def prepare(self, queued: int) -> None:
        """Make a runtime with a job of every kind, so many of them queued, and nothing else."""
        self.emulator.change(lambda lifecycle: self._prepare(lifecycle, queued))

    def _prepare(self, lifecycle: Lifecycle, queued: int) -> None:
        lifecycle.reset()
        self.module_token = lifecycle.open_session(RUNTIME_ID, RID, None, "My App")[0].module_auth_token
        self.scratch_token = lifecycle.add_replica(RUNTIME_ID).scratch_token
        lifecycle.post_schemas(RUNTIME_ID, [("f", b"{}")])
        for name in (*ENDED, "running"):
            self.jobs[name] = lifecycle.submit(RUNTIME_ID, "f", b'{"x": 1}').job_id
            lifecycle.take(RUNTIME_ID)
            if name in ENDED:
                end(lifecycle, self.jobs[name], name)
        assert lifecycle.evict(0, 0, 1) == 1
        self.jobs["queued"] = "foundry_job_none"
        self.stream = make_stream(lifecycle)
        for _ in range(queued):
            self.jobs["queued"] = lifecycle.submit_to_app(RID, None, "f", b"[]", JobSource.CONTOUR_ASYNC).job_id

    def call(self, case: Any, headers: dict[str, str], plan: Plan) -> Any:
        """Send a request; one that is held gets what it waits for as planned."""
        options = {"session": self.session, "headers": headers, "timeout": DEADLINE, "allow_redirects": False}
        answer = self.pool.submit(case.call, self.emulator.url, **options)
        eventually(lambda: wait([answer], 0.002).done or not idle(self.emulator), "the request is answered or held")
        if plan.settled == "time out" and case.operation.path.lower().endswith("execute"):
            return answer.result()
        if not answer.done():
            self.emulator.change(lambda lifecycle: self._settle(lifecycle, plan.settled))
            self.emulator.change(lambda lifecycle: self._settle(lifecycle, "succeed"))
        return answer.result()

    def _settle(self, lifecycle: Lifecycle, how: str) -> None:
        if how == "reset":
            lifecycle.reset()
        if not lifecycle.runtimes():
            return
        if waiting_of(self.emulator)._polls:  # noqa: SLF001
            lifecycle.submit(RUNTIME_ID, "f", b"[]")
            return
        while lifecycle.take(RUNTIME_ID):
            pass
        for job in lifecycle.jobs(RUNTIME_ID):
            if job.status == JobStatus.RUNNING:
                end(lifecycle, job.job_id, how)


def make_stream(lifecycle: Lifecycle) -> dict[str, str]:
    """Make a stream of one binary field, and return the parameters of paths that lead to it."""
    stream = lifecycle.create_data_stream("readings", parse({"raw": "BINARY"}))
    lifecycle.publish(stream.rid, "master", [NewRecord(b'{"raw":""}', None)])
    lifecycle.create_subscriber(stream.rid, "master", "alerts", {"type": "earliest"}, (0,))
    found = {"datasetRid": stream.rid, "streamBranchName": "master", "viewRid": stream.view_rid}
    return found | {"subscriberSubscriberId": "alerts"}


def end(lifecycle: Lifecycle, job_id: str, how: str) -> None:
    """End a running job; `how="stream"` only begins to."""
    stream = lifecycle.stream(job_id)
    if stream is not None:
        lifecycle.close_stream(stream)
    elif how == "stream":
        lifecycle.add_chunk(lifecycle.open_stream(RUNTIME_ID, job_id), b"1 ")
    elif how in ("fail", "failed"):
        lifecycle.fail(job_id, "by hand")
    else:
        lifecycle.finish(RUNTIME_ID, job_id, b"\xff" if how == "no UTF-8" else b"1", "text/plain")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    faults: list[Event] = []
    with (
        serving(
            execute_timeout=0.1,
            refusal_seconds=0.0,
            max_queued=MOST_QUEUED,
            max_body_bytes=400,
            redirect_uris=[examples.SIGN_IN["redirect_uri"]],
            keep_events=200,  # of thousands of requests: each export has all of them
        ) as emulator,
        requests.Session() as session,
        ThreadPoolExecutor(1) as pool,
    ):
        session.trust_env = False
        emulator.lifecycle.events.subscribe(lambda event: faults.append(event) if event.kind in FAULTS else None)
        config = schemathesis.Config()
        # The tokens are the plan's.
        config.projects.default.generation.update(with_security_parameters=False)
        document = schemathesis.openapi.from_url(f"{emulator.url}/openapi.json", config=config)
        with open_updates(Api(emulator.url, TOKEN)) as page_id:
            yield World(emulator, document, session, pool, page_id=page_id)
        emulator.reset()
    assert faults == []


def tokens(world: World, route: Route, plan: Plan) -> dict[str, str]:
    """Return the headers of the plan's token; where both kinds are right, jobs decide which."""
    if plan.token == "missing" or route.auth in (Auth.NONE, Auth.CLIENT):
        return {}
    if route.auth is Auth.SCRATCH:
        return {"Authorization": world.scratch_token if plan.token == "right" else "wrong"}
    bearer, module = (TOKEN, world.module_token) if plan.token == "right" else ("wrong", "wrong")
    by_bearer = route.auth in (Auth.BEARER, Auth.DATA) or (route.auth is Auth.EITHER and plan.job in ENDED)
    return {"Authorization": f"Bearer {bearer}"} if by_bearer else {MODULE_HEADER: module}


def aim(world: World, route: Route, case: Any, plan: Plan) -> None:
    """Put the ids of what there is into a generated request; a body that is to be refused keeps its own."""
    job_id = world.jobs[plan.job]
    real = {"runtimeId": RUNTIME_ID, "jobId": job_id, "executionId": job_id, "functionName": "f", "queryApiName": "f"}
    real |= {"userId": "cmemu", "deployedAppRid": RID, "branch": "master"}
    real |= {
        name: unquote(value)
        for name, value in world.emulator.change(partial(prepared_dataset, path=route.path)).items()
    }
    real |= dict.fromkeys(("ontology", "ontologyRid"), "ri.ontology.main.ontology.any")
    real |= world.stream if "stream" in route.path else {}
    case.path_parameters = {name: quote(real[name], safe="") for name in case.path_parameters}
    if route.path == AUTHORIZE and case.meta.generation.mode is GenerationMode.POSITIVE:
        wanted = world.emulator.application.context.sign_ins.wanted("http://localhost:3000/callback", examples.SIGN_IN)
        ticket = world.emulator.application.context.sign_ins.open_page(wanted)
        case.query.update(examples.SIGN_IN if case.method == "GET" else {})
        case.body = {"ticket": ticket, "login": "cmemu"} if case.method == "POST" else case.body
        case.headers["Origin"] = world.emulator.url
    if route.path == f"{UI}/messages" and case.meta.generation.mode is GenerationMode.POSITIVE:
        case.body = examples.PAGE_MESSAGES | {"page": world.page_id}
    if case.meta.generation.mode is GenerationMode.POSITIVE and "stream" in route.path:
        aim_at_stream(case, route)
    if "after" in case.query and case.meta.generation.mode is GenerationMode.POSITIVE:
        case.query["after"] = world.jobs[plan.job]
    if isinstance(case.body, dict) and case.meta.generation.mode is GenerationMode.POSITIVE and route.body is not None:
        app = {"deployedAppRid": RID, "id": job_id, "jobs": job_id, **client_fields(world, plan)}
        known = {name: value for name, value in app.items() if name in route.body.get("properties", {})}
        left_out = {"deployedAppBranch", "branch", "ontology", "version"}
        left_out |= set() if "streams" in route.path else {*OF_DATASETS}
        case.body = {name: value for name, value in case.body.items() if name not in left_out} | known
    if case.meta.generation.mode is GenerationMode.POSITIVE:
        case.query = {name: value for name, value in case.query.items() if name not in REFUSED}
        if "format" in route.query:
            case.query["format"] = "ARROW"
        if "rid" in route.query:
            case.query["rid"] = Query(RID, "master", RUNTIME_ID, "f").rid


def aim_at_stream(case: Any, route: Route) -> None:
    """Put what fits the stream into a generated request."""
    case.query = {name: value for name, value in case.query.items() if name != "viewRid"}
    case.query |= {"partitionId": "0"} if "partitionId" in case.query else {}
    if not isinstance(case.body, dict | list):
        return
    record = {"raw": "AA=="}
    if route.path.endswith("/jsonRecord"):
        case.body = record
    elif route.path.endswith("/jsonRecords"):
        case.body = [{"value": record}] * len(case.body[:5])
    else:
        fitting: dict[str, Any] = {"record": record, "records": [record], "schema": RAW, "streamType": "LOW_LATENCY"}
        fitting |= {"partitionsCount": 2, "name": "new", "branchName": "new", "subscriberId": "alerts"}
        fitting |= {"offsets": {"0": 0}, "partitionIds": ["0"]}
        fitting |= {name: {"type": "latest"} for name in ("position", "readPosition")}
        case.body = {name: fitting.get(name, each) for name, each in dict(case.body).items() if name != "viewRid"}


def client_fields(world: World, plan: Plan) -> dict[str, str]:
    """Return the OAuth client as the plan has it."""
    secret = str(world.emulator.client_secret) if plan.token == "right" else plan.token
    return {"client_id": world.emulator.client_id, "client_secret": secret}


def exercise(world: World, route: Route, case: Any, plan: Plan) -> int:
    """Send a generated request as planned, check its answer, and return the status."""
    world.prepare(plan.queued)
    if plan.real:
        aim(world, route, case, plan)
    if route.path == f"{UI}/updates":  # else the answer never ends
        ends = {"most": 1}
        case.query = ends if case.meta.generation.mode is GenerationMode.POSITIVE else ends | case.query
    headers = tokens(world, route, plan)
    if route.waits and plan.prefer is not None:
        headers["Prefer"] = plan.prefer
    answer = world.call(case, headers, plan)
    if case.method != route.method:
        assert answer.status_code == 405
        return 405
    case.validate_response(answer, checks=CHECKS)
    status: int = answer.status_code
    code = code_of(answer.json()) if status >= 400 else ""
    assert status < 500 or (status, code) in FAILURES
    if plan.token != "right" and route.auth is not Auth.NONE:
        # Where the client stands in the body, all of that must be there first.
        too_large = status == 413 and route.auth is Auth.CLIENT
        refused = refused_with(route)
        assert too_large or (status == refused if plan.real else status in (400, refused, 404))
    return status


def refused_with(route: Route) -> int:
    """Return the status of a wrong token."""
    return 403 if route.auth is Auth.SCRATCH else 401


def every_case(world: World, route: Route) -> Any:
    """Generate requests that fit the document and, where a body or options leave room for it, such that do not."""
    operation = world.document[route.path][route.method]
    fitting = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if route.body is None and not route.query:
        return fitting
    return fitting | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_answer_to_generated_requests_is_one_that_the_document_names(world: World, route: Route) -> None:
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES // SLOW.get(route.path, 1),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(case=every_case(world, route), plan=PLANS)
    def run(case: Any, plan: Plan) -> None:
        statuses[exercise(world, route, case, plan)] += 1

    run()
    assert any(status < 400 for status in statuses)
    assert (refused_with(route) in statuses) == (route.auth is not Auth.NONE)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_so_it_is_at_the_edges_of_every_parameter_and_body(world: World, route: Route) -> None:
    operation = world.document[route.path][route.method]
    cases = list(
        world.document.iter_coverage_cases(
            operation, generation_modes=list(GenerationMode), generation_config=world.document.config.generation
        )
    )
    plan = Plan(job="running" if route.method == "POST" else "succeeded")
    statuses = Counter(exercise(world, route, case, plan) for case in cases)
    assert any(status < 400 for status in statuses)
