"""The limits that Foundry's API has for each caller: requests in a minute, requests at once, and the time of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from client import RID, RUNTIMES, Api, eventually
from conftest import TOKEN
from foundry_sdk import BadRequestError, Config, FoundryClient, RateLimitError, UserTokenAuth
from test_oauth import token_of

from cmemu_nb.errors import SettingError, TooManyRequests
from cmemu_nb.server import call_limits
from cmemu_nb.server.auth import Caller
from cmemu_nb.server.call_limits import CallLimits
from cmemu_nb.settings import make_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from cmemu_nb import Emulator

    Serve = Callable[..., AbstractContextManager[Emulator]]
    Background = Callable[..., Future[Any]]

pytestmark = pytest.mark.usefixtures("sdk_connections")
ALICE, BOB, SERVICE = Caller("alice"), Caller("bob"), Caller("app", service=True)
QUERY = "/api/v2/functions/queries/f/execute"
AT_ONCE = Config(scheme="http", propagate_qos="PROPAGATE_429_AND_503_TO_CALLER")


def sdk(emu: Emulator, config: Config, token: str = TOKEN) -> Any:
    return FoundryClient(auth=UserTokenAuth(token), hostname=urlsplit(emu.url).netloc, config=config).functions


def refusals(emu: Emulator) -> list[str]:
    return [event.detail or "" for event in emu.lifecycle.events.recent() if event.kind == "request_refused"]


def test_a_caller_may_send_so_many_requests_in_any_minute_and_refusals_do_not_count() -> None:
    now, events = [1000.0], list[str]()
    limits = CallLimits(2, None, events.append, lambda: now[0])
    limits.count(ALICE)
    now[0] += 20
    limits.count(ALICE)
    with pytest.raises(TooManyRequests, match=r"user 'alice' has sent 2 requests, .* again in 40 s") as refused:
        limits.count(ALICE)
    assert refused.value.retry_after == 40
    for _ in range(3):
        limits.count(SERVICE)  # service users have no such limit
    limits.count(BOB)
    limits.count(None)
    now[0] += 40  # the first request is a minute old
    limits.count(ALICE)
    with pytest.raises(TooManyRequests, match="again in 20 s"):
        limits.count(ALICE)
    assert len(events) == 2


def test_many_refusals_are_few_events_with_their_number() -> None:
    now, events = [0.0], list[str]()
    limits = CallLimits(1, None, events.append, lambda: now[0])
    limits.count(ALICE)
    for number in range(1000):
        now[0] = number / 100
        with pytest.raises(TooManyRequests):
            limits.count(ALICE)
    assert len(events) == 10
    assert events[0].endswith("again in 60 s.")
    assert "refusal number 901 of this caller" in events[-1]


@pytest.mark.parametrize("name", ["max_requests_per_minute", "max_concurrent_requests"])
def test_a_limit_is_a_whole_number_of_at_least_one(name: str) -> None:
    assert getattr(make_settings({}), name) is None
    with pytest.raises(SettingError, match=name):
        make_settings({name: 0})


def test_a_request_too_many_in_a_minute_is_the_sdk_s_rate_limit_and_executors_have_none(serve: Serve) -> None:
    with serve(max_requests_per_minute=3) as emulator:
        api = Api(emulator.url, TOKEN)
        runtime = api.open("r", RID)
        functions = sdk(emulator, AT_ONCE)
        for _ in range(2):
            functions.Query.execute_async("f", parameters={})
        api.submit("f")
        with pytest.raises(RateLimitError, match="as many as max_requests_per_minute allows"):
            functions.Query.execute_async("f", parameters={})
        refused = api.contour("POST", QUERY, json={"parameters": {}})
        assert (refused.status_code, refused.json()["errorName"]) == (429, "TooManyRequests")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        contour = api.execute("f")
        assert (contour.status_code, contour.json()["error"]) == (429, "too_many_requests")
        assert len(emulator.jobs) == 3
        # Neither executors nor the emulator's own routes are limited, and another caller has a limit of its own.
        for _ in range(3):
            runtime.post_result(runtime.take_id(), b"1")
        assert api.contour("GET", RUNTIMES).status_code == 200
        service = sdk(emulator, AT_ONCE, token_of(emulator))
        for _ in range(4):
            service.Query.execute_async("f", parameters={})
        events = refusals(emulator)
        assert 1 <= len(events) <= 3
        assert "429 too_many_requests: In the last minute user 'cmemu' has sent 3 requests" in events[0]


def test_the_sdk_sends_a_request_too_many_at_once_again_by_itself(
    serve: Serve, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_limits, "EVENT_SECONDS", 0.0)
    with serve(max_concurrent_requests=1) as emulator:
        runtime = Api(emulator.url, TOKEN).open("r", RID)
        first = background(sdk(emulator, AT_ONCE).Query.execute, "f", parameters={"call": 1})
        job = runtime.take(wait=30)
        with pytest.raises(RateLimitError, match=r"1 request of user 'cmemu' is being processed.*max_concurrent_req"):
            sdk(emulator, AT_ONCE).Query.get("f")
        patient = Config(scheme="http", max_retries=14, backoff_slot_size_ms=20)
        second = background(sdk(emulator, patient).Query.execute, "f", parameters={"call": 2})
        eventually(lambda: any("refusal number" in each for each in refusals(emulator)), "the second is refused")
        assert len(emulator.jobs) == 1
        runtime.post_result(job["jobId"], b"1")
        assert first.result().value == 1
        job = runtime.take(wait=30)
        assert job["query"] == {"call": 2}
        runtime.post_result(job["jobId"], b"2")
        assert second.result().value == 2


def test_a_call_that_takes_too_long_fails_with_the_platform_s_error(serve: Serve) -> None:
    with serve(function_timeout=0.05, execute_timeout=0) as emulator:
        Api(emulator.url, TOKEN).open("r", RID)
        functions = sdk(emulator, AT_ONCE)
        with pytest.raises(BadRequestError, match=r"no result within 0.05 s \(function_timeout\)") as failed:
            functions.Query.execute("f", parameters={})
        assert failed.value.name == "QueryTimeExceededLimit"
        execution = functions.Query.execute_async("f", parameters={}).execution_id
        with pytest.raises(BadRequestError, match="function_timeout") as failed:
            functions.Execution.get_result(execution, timeout=30)
        assert failed.value.name == "AsyncQueryTimeExceededLimit"
        assert list(emulator.jobs["status"]) == ["failed", "failed"]
        # Jobs of the contour routes have no such limit.
        assert emulator.submit("f").status == "queued"


def test_with_a_limit_for_calls_the_limit_of_synchronous_ones_does_not_apply(
    serve: Serve, background: Background
) -> None:
    with serve(function_timeout=60, execute_timeout=0) as emulator:
        runtime = Api(emulator.url, TOKEN).open("r", RID)
        answer = background(sdk(emulator, AT_ONCE).Query.execute, "f", parameters={})
        runtime.post_result(runtime.take(wait=30)["jobId"], b"1")
        assert answer.result().value == 1
