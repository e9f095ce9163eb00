"""`keep_jobs`, `keep_bytes` and `max_queued`: the oldest finished jobs are let go, counted and told; others never."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from client import RESULT, RID, Api, error_code, eventually

from cmemu_nb import Emulator
from cmemu_nb.dashboard.activity import figures
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.dashboard.job_list import JobFilter, JobList
from cmemu_nb.errors import JobEvicted, NotFound, QueueFull, SettingError
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.wire.job_ids import is_job_of, new_job_id
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable

    from client import Runtime

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.records import Job

EVERYTHING = 10**9
OTHER_LIMITS = {"max_queued": 10, "max_runtimes": 10, "max_label_bytes": 256}
OTHER_LIMITS |= {"keep_records": 10, "max_data_bytes": 10**9}


def finish(state: Lifecycle, count: int, result: bytes = b"1", runtime: str = "r") -> list[str]:
    """Submit, take and finish so many jobs; returns their ids."""
    job_ids = []
    for _ in range(count):
        state.submit(runtime, "f", b"{}")
        job = state.take(runtime)
        assert job is not None
        state.finish(runtime, job.job_id, result)
        job_ids.append(job.job_id)
    return job_ids


@pytest.fixture
def state() -> Lifecycle:
    lifecycle = Lifecycle()
    lifecycle.open_session("r", RID)
    return lifecycle


# The state machine


def test_the_jobs_that_finished_first_go_first(state: Lifecycle) -> None:
    slow = state.submit("r", "f", b"{}")
    state.take("r")
    others = finish(state, 4)
    state.finish("r", slow.job_id, b"late")
    assert state.evict(3, EVERYTHING, 100) == 2
    assert [job.job_id for job in state.jobs()] == [slow.job_id, *others[2:]]


def test_thousands_go_in_the_order_in_which_they_finished(state: Lifecycle) -> None:
    draw = random.Random(5)
    state.open_session("other")
    told: list[Event] = []
    state.events.subscribe(told.append)
    of_r: dict[str, None] = {}
    for turn in range(8):
        state.open_session("other")  # a reset: what finished there is not let go any more
        running = [state.submit("r", "f", b"{}").job_id for _ in range(draw.randrange(2_000))]
        for _ in running:
            state.take("r")
        draw.shuffle(running)
        for job_id in running:
            state.finish("r", job_id, b"1")
        finish(state, draw.randrange(2_000), runtime="other")
        of_r |= dict.fromkeys(running)
        kept = state.count("r").total() if turn < 7 else 0
        state.evict(draw.randrange(kept + 1), EVERYTHING, 100_000)
    assert [event.job_id for event in told if event.kind == "job_evicted" and event.job_id in of_r] == list(of_r)
    assert not state.jobs("r")


def test_queued_and_running_jobs_are_never_let_go(state: Lifecycle) -> None:
    running, queued = state.submit("r", "f", b"{}"), state.submit("r", "f", b"{}")
    state.take("r")
    assert state.evict(1, 1, 100) == 0
    state.fail(queued.job_id, "why not")
    assert state.evict(1, 1, 100) == 1
    assert [job.job_id for job in state.jobs()] == [running.job_id]


def test_bytes_are_those_of_names_queries_results_errors_logs_and_events(state: Lifecycle) -> None:
    big = finish(state, 1, b"x" * 1000)
    finish(state, 10)
    assert state.evict(EVERYTHING, 1_043 + state.events.size, 100) == 0
    [last] = finish(state, 1)
    assert state.evict(EVERYTHING, 1_043 + state.events.size, 100) == 1
    assert state.find_job(big[0]) is None

    def keeps(size: int) -> bool:
        within = not state.keeps_more_than(EVERYTHING, size + state.events.size)
        return within and state.keeps_more_than(EVERYTHING, size + state.events.size - 1)

    assert keeps(44)
    failed = state.submit("r", "ünï", b"{}")
    assert keeps(44 + 5 + 2)
    state.fail(failed.job_id, "why")
    state.add_reason(failed.job_id, "ö")
    assert keeps(44 + 5 + 2 + len("why: ") + 2)
    log = state.log(last)
    log.write("ä" * 100)
    assert keeps(58 + 200)
    state.evict(0, EVERYTHING, 11)
    assert keeps(14)
    log.write("by a function that goes on")
    state.log(last).write("or asks for it again")
    assert keeps(14)
    state.log(failed.job_id).write("x" * 50)
    assert keeps(64)
    state.open_session("r")
    assert keeps(0)


def test_reasons_that_come_again_and_again_are_cut(state: Lifecycle) -> None:
    job = state.submit("r", "f", b"{}")
    state.fail(job.job_id, "x" * 10**6)
    assert state.job(job.job_id).error_message == f"{'x' * 16_384}… (the first 16,384 of 1,000,000 bytes)"
    for _ in range(20):
        state.add_reason(job.job_id, "late")
    assert len(state.job(job.job_id).error_message or "") < 16_500


def test_events_have_at_most_a_quarter_and_the_newest_is_always_there(state: Lifecycle) -> None:
    state.limit(keep_events=EVERYTHING, keep_bytes=80_000, **OTHER_LIMITS)
    for number in range(1000):
        state.note("request_refused", detail=f"{number} {'x' * 500}")
        state.take("r")
    assert state.events.size <= 20_000
    kept = [event for event in state.events.recent(all=True) if event.kind == "request_refused"]
    assert [int((event.detail or "").split()[0]) for event in kept] == list(range(1000 - len(kept), 1000))
    assert len(kept) > 10
    assert any(event.kind == "poll_empty" for event in state.events.recent(all=True))
    state.note("log", detail="y" * 10**6)
    newest = state.events.recent()[-1]
    assert newest.detail == f"{'y' * 16_384}… (the first 16,384 of 1,000,000 bytes)"
    state.limit(keep_events=EVERYTHING, keep_bytes=1, **OTHER_LIMITS)
    assert state.events.recent() == [newest]


def test_what_is_printed_makes_room_for_itself() -> None:
    with Emulator(port=0, home="thread", keep_bytes=1_000_000) as emulator:

        def chatter(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
            print("x" * 100_000)  # noqa: T201

        emulator.function(chatter)
        for _ in range(30):
            emulator.call("chatter", {})
        eventually(lambda: not emulator.lifecycle.keeps_more_than(EVERYTHING, 1_000_000), "the oldest were let go")
        assert 5 < len(emulator.lifecycle.logs()) < 10
        assert len(emulator.lifecycle.jobs()) == len(emulator.lifecycle.logs())


def test_it_goes_in_slices(state: Lifecycle) -> None:
    finish(state, 10)
    assert state.evict(1, EVERYTHING, 4) == 4
    assert state.evict(1, EVERYTHING, 4) == 4
    assert state.evict(1, EVERYTHING, 4) == 1


def test_a_reset_takes_its_jobs_out_of_the_line(state: Lifecycle) -> None:
    state.open_session("other")
    finish(state, 5)
    [kept] = finish(state, 1, runtime="other")
    state.open_session("r")
    assert not state.keeps_more_than(1, 4 + state.events.size)
    assert state.evict(0, 0, 100) == 1
    assert state.find_job(kept) is None


def test_an_evicted_job_is_told_from_one_that_never_was_and_from_one_that_was_cleared(state: Lifecycle) -> None:
    [evicted] = finish(state, 1)
    state.evict(0, 0, 1)
    for look in (state.job, lambda job_id: state.job_of("r", job_id)):
        with pytest.raises(JobEvicted, match=f"'{evicted}' was evicted to make room"):
            look(evicted)
        for never in (new_job_id("another token"), "foundry_job_zz", "", "ü\ud800", evicted[:-1], evicted + "0"):
            with pytest.raises(NotFound):
                look(never)
    state.open_session("r")
    with pytest.raises(NotFound):
        state.job(evicted)


def test_ids_are_unlike_each_other_and_a_session_knows_its_own() -> None:
    ids = [new_job_id("a") for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {len(job_id) for job_id in ids} == {len("foundry_job_") + 32}
    assert all(is_job_of(job_id, "a") and not is_job_of(job_id, "b") for job_id in ids)


def test_counts_bytes_and_lists_stay_right_whatever_happens() -> None:
    rng, state = random.Random(11), Lifecycle()
    gone: Counter[str] = Counter()
    for name in "rs":
        state.open_session(name)
    for _ in range(3000):
        name = rng.choice("rs")
        step = rng.random()
        if step < 0.6:
            finish(state, 1, b"x" * rng.randrange(50), name)
        elif step < 0.8:
            state.submit(name, "f", b"{}")
        elif step < 0.99:
            before = state.evicted()
            state.evict(rng.randrange(60), rng.randrange(3000), 10)
            gone.update({key: count - before[key] for key, count in state.evicted().items()})
        else:
            state.open_session(name)
            gone[name] = 0
        jobs = state.jobs()
        assert +state.count() == Counter(job.status for job in jobs)
        assert not state.keeps_more_than(len(jobs), sum(map(size, jobs)) + state.events.size)
        assert state.keeps_more_than(len(jobs), sum(map(size, jobs)) + state.events.size - 1)
        assert state.keeps_more_than(len(jobs) - 1, 10**9)
        assert state.evicted() == {"r": gone["r"], "s": gone["s"]}


def size(job: Job) -> int:
    return len(job.query_type) + len(job.query) + len(job.result or b"")


@pytest.mark.parametrize("wanted", [JobFilter(), JobFilter(status="succeeded"), JobFilter(function="g")], ids=repr)
def test_a_dashboards_list_forgets_what_was_let_go(state: Lifecycle, wanted: JobFilter) -> None:
    done = finish(state, 10)
    listed = JobList(state, wanted)
    state.evict(4, EVERYTHING, 100)
    listed.update(done)
    expected = [] if wanted.function == "g" else done[:5:-1]
    assert [job.job_id for job in listed.newest(100)] == expected
    assert len(listed) == len(expected)


def test_a_full_queue_refuses_and_says_when_to_try_again() -> None:
    state = Lifecycle(max_queued=2)
    state.open_session("r")
    for _ in range(2):
        state.submit("r", "f", b"{}")
    with pytest.raises(QueueFull, match="'r' has 2 jobs queued already"):
        state.submit("r", "f", b"{}")
    job = state.take("r")
    assert job is not None
    state.submit("r", "f", b"{}")
    state.give_back(job)  # it has its place
    assert state.queue_depth("r") == 3


# Over HTTP


def run_jobs(emulator: Emulator, runtime: Runtime, count: int, result: bytes = b"1") -> list[str]:
    job_ids = []
    for _ in range(count):
        job_ids.append(runtime.submit())
        runtime.take()
        assert runtime.post_result(job_ids[-1], result).status_code == 204
    eventually(lambda: not emulator.lifecycle.keeps_more_than(emulator.settings.keep_jobs, 10**9), "it has let go")
    return job_ids


def test_a_client_that_asks_for_an_evicted_job_is_told_so_on_every_route(serve: Callable[..., Any]) -> None:
    with serve(keep_jobs=2) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("r", RID)
        gone, *_ = run_jobs(emulator, runtime, 3)
        answers = [
            api.result(gone),
            api.contour("GET", f"/contour-backend-multiplexer/api/module-group-multiplexer/jobs/{gone}/status"),
            api.contour("PUT", RESULT, json={"id": gone}, headers={"Prefer": "wait=5"}),
            api.send("GET", f"{runtime.uri}/jobs/{gone}"),
            runtime.post_result(gone, b"1"),
            runtime.fail(gone, "why"),
        ]
        assert [(answer.status_code, error_code(answer)) for answer in answers] == [(410, "job_evicted")] * 6
        with pytest.raises(JobEvicted, match="Fetch results sooner"):
            emulator.job(gone).result()


def test_a_late_result_for_an_evicted_job_does_not_end_a_real_client(serve: Callable[..., Any]) -> None:
    with serve(keep_jobs=1) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("r", RID)
        gone, _ = run_jobs(emulator, runtime, 2)
        for body in (b"again", iter([b"in ", b"chunks"])):
            path = f"{PLATFORM}/results/{gone}"
            assert api.send("POST", path, headers=runtime.headers, data=body).status_code == 204
        late = [event for event in emulator.lifecycle.events.recent() if event.kind == "late_result"]
        assert [(event.job_id, event.detail) for event in late] == [(gone, "again"), (gone, "in chunks")]


def test_what_was_let_go_is_counted_and_visible(serve: Callable[..., Any]) -> None:
    with serve(keep_jobs=2) as emulator:
        runtime = Api(emulator.url, emulator.token).open("r", RID)
        run_jobs(emulator, runtime, 5)
        assert runtime.show()["runtime"]["evicted_jobs"] == 3
        assert emulator.runtimes.loc["r", "evicted"] == 3
        assert "3 finished jobs, to make room" in emulator._repr_mimebundle_()["text/plain"]
        facts = flow_part(emulator, figures([], 0, 0), 0)["facts"]
        assert facts["evicted"] == "3 finished jobs, to make room"
        [began] = [event for event in emulator.lifecycle.events.recent() if event.kind == "eviction_began"]
        assert "keep_jobs=2" in (began.detail or "")
        assert sum(event.kind == "job_evicted" for event in emulator.lifecycle.events.recent(all=True)) == 3


def test_whoever_waits_for_a_job_gets_its_result_however_little_is_kept(serve: Callable[..., Any]) -> None:
    with serve(keep_jobs=1, keep_bytes=1) as emulator, ThreadPoolExecutor(16) as pool:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("r", RID)
        answers = [pool.submit(api.execute, "f", number) for number in range(16)]
        for _ in answers:
            job = runtime.take(wait=10)
            runtime.post_result(job["jobId"], str(job["query"]).encode())
        assert [answer.result().content for answer in answers] == [str(number).encode() for number in range(16)]


def test_a_stream_is_relayed_to_its_end_though_its_job_is_let_go(serve: Callable[..., Any]) -> None:
    with serve(keep_bytes=1) as emulator, ThreadPoolExecutor(1) as pool:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("r", RID)
        answer = pool.submit(api.execute)
        job_id = runtime.take(wait=10)["jobId"]
        runtime.post_result(job_id, iter([b"x" * 100_000] * 20))
        assert answer.result().content == b"x" * 2_000_000


def test_a_full_queue_is_429_with_retry_after_on_every_way_to_submit(serve: Callable[..., Any]) -> None:
    with serve(max_queued=1) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("r", RID)
        api.submit()
        body = {"deployedAppRid": RID, "queryType": "f"}
        for path in ("compute-modules/jobs/execute", "deployed-apps/jobs"):
            answer = api.contour("POST", f"/contour-backend-multiplexer/api/module-group-multiplexer/{path}", json=body)
            assert (answer.status_code, error_code(answer), answer.headers["Retry-After"]) == (429, "queue_full", "1")
        assert runtime.send("POST", f"{runtime.uri}/jobs", json={"queryType": "f"}).status_code == 429
        with pytest.raises(QueueFull, match="Submit again when it has taken some"):
            emulator.submit("f")


def test_a_map_over_more_jobs_than_are_kept_has_every_row() -> None:
    with Emulator(port=0, home="thread", keep_jobs=20) as emulator:

        def double(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
            return 2 * event["x"]

        emulator.function(double)
        frame = emulator.map("double", [{"x": number} for number in range(200)], progress=False)
        assert list(frame["value"]) == [2 * number for number in range(200)]
        eventually(lambda: len(emulator.lifecycle.jobs()) == 20, "the others were let go")


def test_limits_of_nothing_are_refused() -> None:
    for name in ("keep_jobs", "keep_bytes", "max_queued"):
        with pytest.raises(SettingError, match=name):
            Emulator(**{name: 0})
