"""`emu.faults(...)`: the platform misbehaves towards executors, by chance and yet the same again with the same seed."""

from __future__ import annotations

import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from client import EXECUTE, RID, Api, Wire, error_code, eventually, framed
from conftest import waiting_of

from cmemu_nb.errors import FunctionError, InvalidRequest, JobFailed, NotFound, NotRunning
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.server.faults import MAX_ENDED, Faults
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client import Runtime

    from cmemu_nb import Emulator
    from cmemu_nb.calls.handles import JobHandle

pytestmark = pytest.mark.once

FAULTS = ("delay", "error_rate", "drop_result", "truncate_result", "duplicate_dispatch", "reject_poll", "disconnect")


class Side:
    """An executor's side, on the emulator routes or on the platform routes."""

    def __init__(self, runtime: Runtime, *, platform: bool) -> None:
        self.runtime = runtime
        self.uri = f"{runtime.api.url}{PLATFORM}" if platform else runtime.uri

    def poll(self, wait: int = 1) -> requests.Response:
        return self.runtime.send("GET", f"{self.uri}/job", headers={"Prefer": f"wait={wait}"})

    def take(self) -> str:
        answer = self.poll(30)
        assert answer.status_code == 200, answer.text
        job_id: str = answer.json()["computeModuleJobV1"]["jobId"]
        return job_id

    def post(self, job_id: str, body: Any) -> int:
        return self.runtime.send("POST", f"{self.uri}/results/{job_id}", data=body).status_code


@pytest.fixture
def emu(serve: Callable[..., Any]) -> Iterator[Emulator]:
    with serve(refusal_seconds=0.01) as emulator:
        yield emulator
        emulator.faults.off()
        emulator.reset()


@pytest.fixture
def api(emu: Emulator) -> Api:
    return Api(emu.url, emu.token)


@pytest.fixture
def runtime(api: Api) -> Runtime:
    return api.open("r", RID)


@pytest.fixture(params=["emulator routes", "platform routes"])
def side(request: pytest.FixtureRequest, runtime: Runtime) -> Side:
    return Side(runtime, platform=request.param == "platform routes")


@pytest.fixture
def plain(runtime: Runtime) -> Side:
    return Side(runtime, platform=False)


def details(emu: Emulator, kind: str = "fault_injected") -> list[str | None]:
    return [event.detail for event in emu.lifecycle.events.recent() if event.kind == kind]


def kinds_of(emu: Emulator, job: JobHandle) -> list[str]:
    return [event.kind for event in emu.lifecycle.events.recent() if event.job_id == job.id]


# Each fault


@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_a_result_that_is_refused_is_not_kept_and_may_come_again(emu: Emulator, side: Side, framing: str) -> None:
    job = emu.submit("f")
    side.take()
    with emu.faults(error_rate=1) as faults:
        assert side.post(job.id, framed(framing, b'"a', b'b"')) == 500
        assert job.status == "running"
        assert faults.struck == {"error_rate": 1}
    assert details(emu) == ["error_rate: refused the result, 4 bytes, with 500"]
    assert "request_refused" not in kinds_of(emu, job)
    assert side.post(job.id, framed(framing, b'"a', b'b"')) == 204
    assert job.result() == (["ab"] if framing == "chunked" else "ab")


def test_the_refusal_has_the_documented_shape(emu: Emulator, runtime: Runtime) -> None:
    job = emu.submit("f")
    runtime.take()
    with emu.faults(error_rate=1):
        assert error_code(runtime.post_result(job.id, b"1")) == "injected_fault"


def test_schemas_are_refused_too_but_not_by_a_fault_of_one_function(emu: Emulator, runtime: Runtime) -> None:
    schemas = [{"functionName": "f", "schema": {}}]
    with emu.faults(error_rate=1):
        assert error_code(runtime.post_schemas(schemas)) == "injected_fault"
    assert emu.schemas.empty
    with emu.faults(function="f", error_rate=1):
        assert runtime.post_schemas(schemas).status_code == 204
    assert list(emu.schemas.index) == [("r", "f")]


def test_a_restart_notification_is_refused_and_its_jobs_run_on(emu: Emulator, runtime: Runtime) -> None:
    side = Side(runtime, platform=True)
    job = emu.submit("f")
    side.take()
    with emu.faults(error_rate=1):
        refused = runtime.send("POST", f"{side.uri}/restart")
    assert (refused.status_code, error_code(refused)) == (500, "injected_fault")
    assert job.status == "running"
    assert details(emu) == ["error_rate: answered 500"]
    with emu.faults(function="f", error_rate=1):
        assert runtime.send("POST", f"{side.uri}/restart").json() == [job.id]
    assert job.status == "failed"


@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_a_result_that_is_dropped_is_answered_as_if_it_were_kept(emu: Emulator, side: Side, framing: str) -> None:
    job = emu.submit("f")
    side.take()
    with emu.faults(drop_result=1):
        assert side.post(job.id, framed(framing, b"1", b"2")) == 204
    assert (job.status, job.record.result) == ("running", None)
    assert details(emu) == ["drop_result: threw the result away, 2 bytes"]
    assert kinds_of(emu, job) == ["job_queued", "job_started", "fault_injected"]
    job.fail("nothing came")
    with pytest.raises(JobFailed, match="nothing came"):
        job.result()


def test_the_lease_of_a_job_whose_result_was_dropped_runs_out(serve: Callable[..., Any]) -> None:
    with serve(job_timeout=0.2) as emulator, emulator.faults(drop_result=1):
        side = Side(Api(emulator.url, emulator.token).open("r", RID), platform=False)
        job = emulator.submit("f")
        assert side.post(side.take(), b"1") == 204
        with pytest.raises(JobFailed, match="the job's lease ran out"):
            job.result(timeout=10)


@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_of_a_result_that_is_truncated_the_beginning_is_kept_and_never_the_whole(
    emu: Emulator, side: Side, framing: str
) -> None:
    body = b'"0123456789"'
    with emu.faults(truncate_result=1, seed=1):
        jobs = [emu.submit("f") for _ in range(20)]
        for _ in jobs:
            assert side.post(side.take(), framed(framing, body[:5], body[5:])) == 204
    kept = [job.raw() for job in jobs]
    assert all(body.startswith(each) and each != body for each in kept)
    assert len(set(kept)) > 5
    assert details(emu) == [f"truncate_result: kept {len(each)} of 12 bytes" for each in kept]


def test_a_result_of_one_byte_becomes_empty_and_an_empty_one_is_left_alone(emu: Emulator, plain: Side) -> None:
    with emu.faults(truncate_result=1):
        jobs = [emu.submit("f"), emu.submit("f")]
        assert [plain.post(plain.take(), b"7"), plain.post(plain.take(), b"")] == [204, 204]
    assert [job.raw() for job in jobs] == [b"", b""]
    assert len(details(emu)) == 1


def test_nobody_sees_a_chunk_of_a_stream_that_is_truncated_but_those_kept(emu: Emulator, plain: Side) -> None:
    with emu.faults(truncate_result=1, seed=3):
        items = emu.stream("f", validate=False)
        plain.post(plain.take(), iter([b'"a"', b'"b"', b'"c"']))
    whole, seen = b'"a""b""c"', emu.job(items.job_id).raw()
    assert seen in {whole[:length] for length in range(len(whole))}


def test_a_job_is_delivered_twice(emu: Emulator, side: Side) -> None:
    job, other = emu.submit("f", {"n": 1}), emu.submit("f", {"n": 2})
    with emu.faults(duplicate_dispatch=1) as faults:
        first, again, next_one = side.poll(), side.poll(), side.poll()
        assert first.content == again.content
        assert next_one.json()["computeModuleJobV1"]["jobId"] == other.id
        assert faults.struck == {"duplicate_dispatch": 1}
        assert [side.post(job.id, b"1"), side.post(job.id, b"1")] == [204, 204]
        assert side.take() == other.id
        assert side.poll().status_code == 204
    assert kinds_of(emu, job) == ["job_queued", "job_started", "fault_injected", "job_succeeded"]


def test_a_job_that_has_ended_or_was_given_back_is_not_delivered_twice(emu: Emulator, plain: Side) -> None:
    with emu.faults(duplicate_dispatch=1) as faults:
        done, failed = emu.submit("f"), emu.submit("f")
        plain.post(plain.take(), b"1")
        assert plain.take() == failed.id
        failed.fail("by hand")
        assert plain.poll().status_code == 204
        back = emu.submit("f")
        plain.take()
        emu.change(lambda lifecycle: lifecycle.give_back(lifecycle.job(back.id)))
        emu.change(lambda lifecycle: lifecycle.take("r"))
        assert plain.poll().status_code == 204
        assert faults.struck == {}
    assert done.result() == 1


def test_a_full_replica_gets_the_second_delivery_too(emu: Emulator, runtime: Runtime) -> None:
    job = emu.submit("f")
    replica = emu.change(lambda lifecycle: lifecycle.add_replica(runtime.runtime_id))
    headers = {"Module-Auth-Token": replica.token}
    with emu.faults(duplicate_dispatch=1):
        answers = [requests.get(f"{emu.url}{PLATFORM}/job", headers=headers, timeout=30) for _ in range(2)]
    assert [answer.json()["computeModuleJobV1"]["jobId"] for answer in answers] == [job.id] * 2
    assert list(replica.held) == [job.id]


def test_a_poll_is_rejected_and_takes_no_job(emu: Emulator, side: Side) -> None:
    job = emu.submit("f")
    with emu.faults(reject_poll=1):
        answer = side.poll()
        assert (answer.status_code, error_code(answer)) == (503, "injected_fault")
        assert job.status == "queued"
    assert details(emu) == ["reject_poll: answered 503"]
    assert side.take() == job.id


def test_a_head_request_is_no_poll(emu: Emulator, runtime: Runtime) -> None:
    with emu.faults(reject_poll=1):
        assert runtime.poll(method="HEAD").status_code == 204


def test_a_poll_that_is_cut_off_gives_its_job_back(emu: Emulator, side: Side) -> None:
    job = emu.submit("f")
    with emu.faults(disconnect=1):
        with pytest.raises(requests.ConnectionError):
            side.poll()
        assert job.status == "queued"
    assert details(emu) == ["disconnect: closed the connection instead of handing the job out"]
    assert kinds_of(emu, job)[-1] == "job_given_back"
    assert side.take() == job.id


@pytest.mark.parametrize("framing", ["whole", "chunked"])
def test_a_result_whose_answer_is_cut_off_was_kept(emu: Emulator, side: Side, framing: str) -> None:
    job = emu.submit("f")
    side.take()
    with emu.faults(disconnect=1):
        with pytest.raises(requests.ConnectionError):
            side.post(job.id, framed(framing, b"1", b"2"))
        assert job.raw() == b"12"
        assert side.post(job.id, b"12") == 204
    assert details(emu) == ["disconnect: closed the connection after the result was kept"]


def test_over_tls_a_connection_is_cut_off_too(emu: Emulator, runtime: Runtime) -> None:
    emu.submit("f")
    with emu.faults(disconnect=1), pytest.raises(requests.ConnectionError):
        requests.get(
            f"{emu.platform_url}{PLATFORM}/job",
            headers=runtime.headers,
            verify=str(emu.certificates.authority_path),
            timeout=30,
        )


@pytest.mark.parametrize(
    ("delay", "said"),
    [(0.1, "0.1 s"), ((0.1, 0.2), "0.1 to 0.2 s"), (lambda random: random.choice([0.1, 0.2]), "of <lambda>")],
)
def test_answers_about_jobs_are_held_back(emu: Emulator, side: Side, delay: Any, said: str) -> None:
    job = emu.submit("f")
    with emu.faults(delay=delay) as faults:
        assert f"delay={said} on every runtime" in repr(faults)
        start = time.monotonic()
        side.take()
        taken = time.monotonic()
        assert side.post(job.id, b"1") == 204
        assert taken - start >= 0.1
        assert time.monotonic() - taken >= 0.1
        assert faults.struck == {"delay": 2}
    first, second = (str(each) for each in details(emu))
    assert first.startswith("delay: delayed the answer to the poll by 0.")
    assert second.startswith("delay: delayed the answer to the result by 0.")


def test_a_result_counts_before_its_answer(emu: Emulator, plain: Side) -> None:
    job = emu.submit("f")
    plain.take()
    with emu.faults(delay=0.3), ThreadPoolExecutor() as pool:
        posting = pool.submit(plain.post, job.id, b"1")
        assert job.result() == 1
        assert not posting.done()
        assert posting.result() == 204


def test_a_client_that_goes_away_while_its_job_is_held_back_gives_it_back(emu: Emulator, plain: Side) -> None:
    job = emu.submit("f")
    with emu.faults(delay=60), Wire(emu.port) as wire:
        wire.request("GET", f"{plain.runtime.path}/job", plain.runtime.headers)
        eventually(lambda: job.status == "running", "it is handed out")
        wire.close()
        eventually(lambda: job.status == "queued", "it is given back")
    assert plain.take() == job.id


def test_a_delay_that_goes_wrong_later_is_in_the_log_and_holds_nothing_back(emu: Emulator, plain: Side) -> None:
    answers = iter([0.0, -1.0, "soon"])
    emu.submit("f")
    with emu.faults(delay=lambda _: next(answers)):  # type: ignore[arg-type,return-value]
        job_id = plain.take()
        plain.post(job_id, b"1")
    wrong = "delay: nothing was delayed: Setting faults: the delay of <lambda> returned"
    assert details(emu) == [f"{wrong} {each}, which is not a number of seconds." for each in ("-1.0", "'soon'")]


# Whom they strike


def test_only_the_runtime_and_the_function_that_are_named_are_struck(emu: Emulator, api: Api) -> None:
    sides = [Side(api.open(name, f"ri.{name}"), platform=False) for name in ("a", "b")]
    with emu.faults(emu.runtime("a"), "f", drop_result=1) as faults:
        jobs = [emu.submit(function, deployed_app_rid=f"ri.{name}") for name in "ab" for function in "fg"]
        for side in sides:
            for _ in range(2):
                side.post(side.take(), b"1")
        assert [job.status for job in jobs] == ["running", "succeeded", "succeeded", "succeeded"]
        assert "drop_result=1 on runtime 'a', function 'f'" in repr(faults)
    assert [event.runtime_id for event in emu.lifecycle.events.recent() if event.kind == "fault_injected"] == ["a"]


def test_results_that_come_too_early_too_late_or_for_nobody_are_answered_as_ever(emu: Emulator, plain: Side) -> None:
    with emu.faults(error_rate=1, disconnect=1):
        queued, done = emu.submit("g"), emu.submit("f")
        assert plain.post(queued.id, b"1") == 409
        assert plain.post("foundry_job_nobody", b"1") == 404
        done.fail("by hand")
        assert plain.post(done.id, b"1") == 409
    assert details(emu) == []


def test_applications_are_never_struck(emu: Emulator, api: Api, plain: Side) -> None:
    with emu.faults(error_rate=1, drop_result=1, truncate_result=1, delay=0), ThreadPoolExecutor() as pool:
        answer = pool.submit(api.execute)
        job_id = plain.take()
        emu.change(lambda lifecycle: lifecycle.finish("r", job_id, b'"whole"'))
        assert answer.result().content == b'"whole"'
        assert api.contour("POST", EXECUTE, json={}).status_code == 400


def begin(wire: Wire, side: Side, job: JobHandle) -> None:
    """Begin to post a result in chunks, and wait until the emulator has read that."""
    headers = {**side.runtime.headers, "Transfer-Encoding": "chunked", "Expect": "100-continue"}
    wire.request("POST", f"{side.uri.removeprefix(side.runtime.api.url)}/results/{job.id}", headers)
    assert wire.head().status == 100


def test_a_broken_body_of_a_result_that_would_be_spoilt_changes_nothing(emu: Emulator, plain: Side) -> None:
    job = emu.submit("f")
    plain.take()
    with emu.faults(drop_result=1), Wire(emu.port) as wire:
        begin(wire, plain, job)
        wire.send_chunk(b"1")
    assert plain.post(job.id, b"2") == 204
    assert job.result() == 2


def test_a_job_that_ends_while_its_result_comes_is_answered_as_ever(emu: Emulator, side: Side) -> None:
    job = emu.submit("f")
    side.take()
    with emu.faults(error_rate=1), Wire(emu.port) as wire:
        begin(wire, side, job)
        wire.send_chunk(b"1")
        job.fail("by hand")
        wire.send_chunk(b"")
        assert wire.answer().status == (204 if PLATFORM in side.uri else 409)
    assert details(emu) == []


def test_a_result_that_was_still_coming_when_the_faults_ended_is_kept(emu: Emulator, side: Side) -> None:
    job = emu.submit("f")
    side.take()
    with Wire(emu.port) as wire:
        with emu.faults(drop_result=1, disconnect=1, delay=60):
            begin(wire, side, job)
            wire.send_chunk(b"1")
        wire.send_chunk(b"")
        assert wire.answer().status == 204
    assert job.raw() == b"1"
    assert details(emu) == []


# Together


def test_several_sets_decide_by_themselves_and_their_delays_add_up(emu: Emulator, plain: Side) -> None:
    with emu.faults(delay=0.1, seed=1) as one:
        with emu.faults(delay=0.2, error_rate=1, seed=2) as two:
            assert list(emu.faults) == [one, two]
            emu.submit("f")
            start = time.monotonic()
            job_id = plain.take()
            assert time.monotonic() - start >= 0.3
            assert plain.post(job_id, b"1") == 500
        assert list(emu.faults) == [one]
        assert plain.post(job_id, b"1") == 204
    assert (one.struck, two.struck) == ({"delay": 3}, {"delay": 2, "error_rate": 1})


def test_the_first_set_that_strikes_counts(emu: Emulator, plain: Side) -> None:
    with emu.faults(reject_poll=1) as one, emu.faults(reject_poll=1) as two:
        assert plain.poll().status_code == 503
    assert (one.struck, two.struck) == ({"reject_poll": 1}, {})


def test_of_faults_that_strike_one_result_the_one_that_keeps_least_counts(emu: Emulator, plain: Side) -> None:
    emu.submit("f")
    job_id = plain.take()
    with emu.faults(error_rate=1, drop_result=1, truncate_result=1, disconnect=1) as faults:
        assert plain.post(job_id, b"1") == 500
        assert faults.struck == {"error_rate": 1}


# The same again


def picture(emu: Emulator, workers: int, seed: int) -> list[Any]:
    """Run sixty jobs under many faults, and say for each job what its executor saw and what was kept."""
    side = Side(Api(emu.url, emu.token).open("r", RID), platform=False)
    chances: dict[str, Any] = {"error_rate": 0.3, "drop_result": 0.2, "truncate_result": 0.3, "disconnect": 0.2}
    saw: dict[str, list[Any]] = {}
    with emu.faults(**chances, seed=seed) as faults:
        jobs = [emu.submit("fg"[n % 2], n) for n in range(60)]

        def work() -> None:
            while any(job.status == "queued" for job in jobs):
                try:
                    answer = side.poll(0)
                except requests.ConnectionError:
                    continue
                if answer.status_code == 200:
                    job_id = answer.json()["computeModuleJobV1"]["jobId"]
                    saw[job_id] = [attempt(side, job_id) for _ in range(3)]

        with ThreadPoolExecutor(workers) as pool:
            for worker in [pool.submit(work) for _ in range(workers)]:
                worker.result()
        struck = dict(faults.struck)
    # A connection is cut off once for each time that a job is given back, whoever polls.
    given_back = [kinds_of(emu, job).count("job_given_back") for job in jobs]
    return [struck, given_back, [(saw[job.id], job.status, job.record.result) for job in jobs]]


def attempt(side: Side, job_id: str) -> int | str:
    try:
        return side.post(job_id, b'"a result of some length"')
    except requests.ConnectionError:
        return "cut off"


def test_the_same_seed_gives_the_same_picture_whoever_comes_first_and_another_seed_another(emu: Emulator) -> None:
    alone = picture(emu, 1, seed=7)
    assert picture(emu, 16, seed=7) == alone
    assert picture(emu, 16, seed=8) != alone
    assert set(alone[0]) == {"error_rate", "drop_result", "truncate_result", "disconnect"}


def decisions(seed: int, order: Callable[[list[Any]], None], functions: str) -> dict[Any, list[Any]]:
    """Ask about many jobs in some order; returns what was said, by call."""
    lifecycle = Lifecycle()
    lifecycle.open_session("r")
    faults = Faults(lifecycle, lambda _: None, {"error_rate": 0.5}, None, runtime_id=None, function=None, seed=seed)
    faults.begin()
    numbers: dict[str, int] = {}
    jobs = []
    for function in functions:
        numbers[function] = numbers.get(function, 0) + 1
        jobs.append(((function, numbers[function]), lifecycle.submit("r", function, b"{}")))
    questions = jobs * 3
    order(questions)
    said: dict[Any, list[Any]] = {}
    for call, job in questions:
        struck = faults.strikes("error_rate", job)
        said.setdefault(call, []).append(struck and struck.random())
    return said


@pytest.mark.parametrize("shuffle", range(5))
def test_a_decision_depends_on_the_call_and_the_attempt_alone(shuffle: int) -> None:
    expected = decisions(1, lambda _: None, "fg" * 20)
    assert decisions(1, random.Random(shuffle).shuffle, "fg" * 20) == expected
    assert decisions(1, random.Random(shuffle).shuffle, "f" * 20 + "g" * 20) == expected
    assert decisions(2, lambda _: None, "fg" * 20) != expected
    assert len({tuple(map(bool, answers)) for answers in expected.values()}) > 4


def test_jobs_that_were_submitted_before_count_as_the_first(emu: Emulator, plain: Side) -> None:
    seed = next(seed for seed in range(1000) if pattern("f", 3, seed, attempts=1) == [True, False, True])
    jobs = [emu.submit("f"), emu.submit("f")]
    with emu.faults("r", drop_result=0.5, seed=seed):
        jobs.append(emu.submit("f"))
        for _ in jobs:
            plain.post(plain.take(), b"1")
    assert [job.status for job in jobs] == ["running", "succeeded", "running"]


def pattern(
    function: str, jobs: int, seed: int, attempts: int, fault: str = "drop_result", on: str = "r"
) -> list[bool]:
    """Tell what a fault with a chance of a half does, job by job and attempt by attempt."""
    lifecycle = Lifecycle()
    lifecycle.open_session(on)
    faults = Faults(lifecycle, lambda _: None, {fault: 0.5}, None, runtime_id=None, function=None, seed=seed)
    submitted = [lifecycle.submit(on, function, b"{}") for _ in range(jobs)]
    faults.begin()
    return [faults.strikes(fault, job) is not None for job in submitted for _ in range(attempts)]


def seed_of(function: str, wanted: list[bool], on: str = "r") -> int:
    """Find a seed with which `error_rate=0.5` treats a job's first results as wanted."""
    return next(seed for seed in range(100_000) if pattern(function, 1, seed, len(wanted), "error_rate", on) == wanted)


def test_faults_that_are_on_for_days_do_not_remember_every_call(emu: Emulator) -> None:
    emu.open_runtime("r")
    with emu.faults(error_rate=0.5) as faults:

        def run(lifecycle: Lifecycle) -> None:
            for _ in range(MAX_ENDED + 100):
                job = lifecycle.submit("r", "f", b"{}")
                lifecycle.take("r")
                lifecycle.finish("r", job.job_id, b"1")

        emu.change(run)
        assert len(faults._calls) == MAX_ENDED  # noqa: SLF001


def test_a_seed_that_was_left_out_is_shown_so_that_the_run_can_be_repeated(emu: Emulator) -> None:
    with emu.faults(error_rate=0.2) as faults, emu.faults(error_rate=0.2) as other:
        assert f"seed={faults.seed};" in repr(faults)
        assert faults.seed != other.seed
    said = f"error_rate=0.2 on every runtime, seed={faults.seed}"
    assert [each for each in details(emu, "faults_changed") if str(faults.seed) in str(each)] == [
        f"on: {said}",
        f"off: {said}",
    ]
    assert repr(faults) == f"<Faults off: {said}; struck: error_rate 0>"


# On and off


def test_off_leaves_no_trace(emu: Emulator, plain: Side) -> None:
    listening = len(emu.lifecycle.events._subscribers)  # noqa: SLF001
    faults = emu.faults(error_rate=1, reject_poll=1, duplicate_dispatch=1)
    with pytest.raises(RuntimeError), emu.faults(delay=1):
        raise RuntimeError
    assert len(emu.faults) == 1
    faults.off()
    faults.off()
    assert (emu.application.context.faults, len(emu.faults)) == ((), 0)
    assert len(emu.lifecycle.events._subscribers) == listening  # noqa: SLF001
    emu.submit("f")
    assert plain.post(plain.take(), b"1") == 204
    assert details(emu) == []
    assert len(details(emu, "faults_changed")) == 4


def test_all_are_ended_at_once(emu: Emulator) -> None:
    sets = [emu.faults(error_rate=1), emu.faults("r" if emu.lifecycle.runtimes() else None, delay=1)]
    assert repr(emu.faults).count("<Faults on") == 2
    emu.faults.off()
    assert [each.on for each in sets] == [False, False]
    assert repr(emu.faults) == "No faults are on. Try: emu.faults(error_rate=0.2)"


def test_polls_that_are_held_end_so_that_the_next_ones_are_under_the_faults(emu: Emulator, runtime: Runtime) -> None:
    replica = emu.change(lambda lifecycle: lifecycle.add_replica("r"))
    emu.change(lambda lifecycle: lifecycle.submit("r", "f", b"{}"))
    headers = {"Module-Auth-Token": replica.token, "Prefer": "wait=60"}

    def poll() -> int:
        return requests.get(f"{emu.url}{PLATFORM}/job", headers=headers, timeout=90).status_code

    assert poll() == 200
    waiting = waiting_of(emu)
    with ThreadPoolExecutor() as pool:
        held, full = pool.submit(runtime.poll, 60), pool.submit(poll)
        eventually(lambda: waiting._polls and waiting._slots, "both polls are held")  # noqa: SLF001
        with emu.faults(reject_poll=1):
            assert (held.result().status_code, full.result()) == (204, 204)
            assert (runtime.poll(60).status_code, poll()) == (503, 503)


def test_a_job_for_a_poll_that_was_held_when_the_faults_ended_arrives_untouched(
    emu: Emulator, runtime: Runtime
) -> None:
    faults = emu.faults(disconnect=1, delay=1, duplicate_dispatch=1)
    with ThreadPoolExecutor() as pool:
        held = pool.submit(runtime.take, 60)
        eventually(lambda: waiting_of(emu)._polls, "the poll is held")  # noqa: SLF001
        faults.off()
        job = emu.submit("f")
        assert held.result()["jobId"] == job.id
    assert details(emu) == []


def test_stopping_the_emulator_ends_them(serve: Callable[..., Any]) -> None:
    with serve() as emulator:
        with emulator.faults(error_rate=1) as faults:
            emulator.stop()
            assert not faults.on
            with pytest.raises(NotRunning):
                emulator.faults(error_rate=1)
            emulator.start()
            assert len(emulator.faults) == 0
        assert emulator.application.context.faults == ()


def test_they_are_set_and_ended_from_many_threads(emu: Emulator) -> None:
    def work(_: int) -> None:
        for _ in range(5):
            with emu.faults(error_rate=0.5):
                pass

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert (emu.application.context.faults, len(details(emu, "faults_changed"))) == ((), 160)


# What can't be


@pytest.mark.parametrize("name", FAULTS[1:])
@pytest.mark.parametrize("value", [-0.1, 1.1, 10**50, math.nan, math.inf, "0.5", [1], 1j])
def test_a_chance_is_from_0_to_1(emu: Emulator, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        emu.faults(**{name: value})
    assert str(caught.value) == f"Setting faults: {name} must be a chance from 0, never, to 1, always, not {value!r}."


@pytest.mark.parametrize("value", [-1, math.nan, 10**400, "1", (1,), (2, 1), (-1, 1), (1, 2, 3), (0, math.nan), {}])
def test_a_delay_is_seconds_a_range_or_a_function(emu: Emulator, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"delay must be seconds, from 0 to 86400, \(low, high\) in"):
        emu.faults(delay=value)


def test_a_delay_that_is_no_such_function_is_refused_when_it_is_set(emu: Emulator) -> None:
    with pytest.raises(InvalidRequest, match="the delay of <lambda> returned 'soon', which is not a number of seconds"):
        emu.faults(delay=lambda _: "soon")  # type: ignore[arg-type,return-value]
    with pytest.raises(
        InvalidRequest, match=r"the delay of <lambda> raised TypeError: .* Its argument is a random\.Random"
    ):
        emu.faults(delay=lambda: 1)  # type: ignore[arg-type,misc]


def test_without_any_fault_the_message_lists_them(emu: Emulator, runtime: Runtime) -> None:
    for given in ({}, {"seed": 1}, {"runtime": runtime.runtime_id}):
        with pytest.raises(InvalidRequest) as caught:
            emu.faults(**given)
        assert str(caught.value) == f"Setting faults: no fault was given. The faults are {', '.join(FAULTS)}."


def test_an_unknown_runtime_or_function_names_the_known(emu: Emulator, runtime: Runtime) -> None:
    with pytest.raises(NotFound, match=r"There is no runtime 's'\. Known runtimes: 'r'\."):
        emu.faults("s", error_rate=1)
    with pytest.raises(InvalidRequest, match="The runtime must be text, not 5"):
        emu.faults(5, error_rate=1)  # type: ignore[arg-type]
    emu.faults(function="anything", error_rate=1)  # nobody has said yet what there is
    runtime.post_schemas([{"functionName": "add", "schema": {}}])
    with pytest.raises(NotFound, match=r"no function 'ad' is served\. Did you mean 'add'\? Known functions: 'add'\."):
        emu.faults(function="ad", error_rate=1)
    with pytest.raises(InvalidRequest, match="The function must be text"):
        emu.faults(function=5, error_rate=1)  # type: ignore[arg-type]


def test_a_poll_is_of_no_function_and_a_seed_is_a_whole_number(emu: Emulator) -> None:
    with pytest.raises(InvalidRequest, match="reject_poll concerns polls, which belong to no function"):
        emu.faults(function="f", reject_poll=1)
    with pytest.raises(InvalidRequest, match=r"seed must be a whole number, not 0\.5\. Leave it out"):
        emu.faults(error_rate=1, seed=0.5)  # type: ignore[arg-type]
    assert len(emu.faults) == 0


def test_a_chance_of_0_never_strikes_and_true_always(emu: Emulator, plain: Side) -> None:
    with emu.faults(error_rate=0, drop_result=True, delay=0) as faults:
        emu.submit("f")
        assert plain.post(plain.take(), b"1") == 204
        assert faults.struck == {"drop_result": 1}


# Functions in cells


@pytest.fixture
def calls(emu: Emulator) -> list[Any]:
    """Serve `echo`, and note its calls."""
    called = []

    @emu.function
    def echo(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001 - as in a cell
        called.append(event)
        return event

    return called


def test_a_function_in_a_cell_posts_its_refused_result_again_as_the_sdk_does(emu: Emulator, calls: list[Any]) -> None:
    with emu.faults(error_rate=0.5, seed=seed_of("echo", [True, True, False], "notebook")) as faults:
        assert emu.call("echo", {"n": 1}) == {"n": 1}
        assert faults.struck == {"error_rate": 2}
    assert calls == [{"n": 1}]


def test_after_five_refusals_it_posts_an_error_and_after_three_more_nothing(emu: Emulator, calls: list[Any]) -> None:
    with emu.faults(error_rate=0.5, seed=seed_of("echo", [True] * 5 + [False], "notebook")):
        job = emu.submit("echo")
        with pytest.raises(FunctionError, match="Unable to post job result after 5 attempts"):
            job.result()
    with emu.faults(error_rate=1) as faults:
        job = emu.submit("echo")
        eventually(lambda: faults.struck["error_rate"] == 8, "it has given up")
        eventually(lambda: emu.functions["echo"].running == 0, "its thread has ended")
        assert job.status == "running"
    assert emu.call("echo", {"n": 2}) == {"n": 2}
    assert len(calls) == 3


def test_a_stream_in_a_cell_that_is_refused_at_its_end_is_empty_as_with_the_sdk(emu: Emulator) -> None:
    def count(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        yield "a"

    emu.function(count, streaming=True)
    with emu.faults(error_rate=0.5, seed=seed_of("count", [True, False], "notebook")):
        assert emu.call("count") == []


def test_a_function_in_a_cell_is_called_twice_for_a_job_that_is_delivered_twice(emu: Emulator) -> None:
    gate, called = threading.Event(), threading.Semaphore(0)

    @emu.function
    def wait(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        called.release()
        gate.wait()
        return 1

    with emu.faults(duplicate_dispatch=1):
        jobs = [emu.submit("wait"), emu.submit("wait")]
        for _ in range(4):
            assert called.acquire(timeout=30)
    gate.set()
    assert [job.result() for job in jobs] == [1, 1]
    eventually(lambda: emu.functions["wait"].running == 0, "every thread has ended")
    assert emu.call("wait") == 1
    assert "late_result" not in [event.kind for event in emu.lifecycle.events.recent()]


def test_a_job_that_is_delivered_twice_and_fails_is_given_up_twice(emu: Emulator) -> None:
    gate, called = threading.Event(), threading.Semaphore(0)

    @emu.function
    def wait(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        called.release()
        gate.wait()

    with emu.faults(duplicate_dispatch=1):
        job = emu.submit("wait")
        assert called.acquire(timeout=30)
        assert called.acquire(timeout=30)
    job.fail("by hand")
    assert (emu.functions["wait"].running, emu.functions["wait"].abandoned) == (0, 2)
    gate.set()
    eventually(lambda: emu.functions["wait"].abandoned == 0, "both threads have ended")


@pytest.mark.parametrize("fault", ["reject_poll", "disconnect"])
def test_an_executor_of_functions_in_cells_polls_again(emu: Emulator, calls: list[Any], fault: str) -> None:
    chance: dict[str, Any] = {fault: 1}
    with emu.faults(**chance) as faults:
        job = emu.submit("echo")
        eventually(lambda: faults.struck[fault], "a poll was struck")
    assert job.result() == {}
    assert calls == [{}]


def test_an_answer_that_is_cut_off_after_the_result_was_kept_makes_no_second_result(emu: Emulator) -> None:
    gate = threading.Event()

    @emu.function
    def wait(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        gate.wait()
        return 1

    job = emu.submit("wait")
    eventually(lambda: emu.functions["wait"].running, "it runs")
    with emu.faults(disconnect=1) as faults:
        gate.set()
        assert job.result() == 1
        eventually(lambda: emu.functions["wait"].running == 0, "its thread has ended")
        assert faults.struck == {"disconnect": 1}
    assert "late_result" not in kinds_of(emu, job)
