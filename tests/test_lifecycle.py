"""The state machine by example: every transition, every refusal, and what each costs."""

from __future__ import annotations

import gc
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from cmemu_nb.errors import InvalidModuleAuthToken, InvalidRequest, JobAlreadyCompleted, JobNotRunning, NotFound
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.records import Job, JobSource, JobStatus
from cmemu_nb.lifecycle.session import ThrownAway

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.errors import WireError

APP = "ri.foundry.main.deployed-app.my-app"
BODY = b'{"output": 1}'


@pytest.fixture
def lifecycle() -> Lifecycle:
    """A lifecycle with two sessions; "rt" serves an app."""
    lifecycle = Lifecycle()
    lifecycle.open_session("rt", APP)
    lifecycle.open_session("other")
    return lifecycle


def kinds(lifecycle: Lifecycle, after: int = 0) -> list[str]:
    return [event.kind for event in lifecycle.events.recent(all=True) if event.sequence > after]


def picture(lifecycle: Lifecycle) -> tuple[object, ...]:
    look = lifecycle
    return look.runtimes(), look.jobs(), look.schemas(), look.deployed_apps(), kinds(look), look.queue_depth("rt")


def queued(lifecycle: Lifecycle) -> Job:
    return lifecycle.submit("rt", "add", b"{}")


def running(lifecycle: Lifecycle) -> Job:
    queued(lifecycle)
    job = lifecycle.take("rt")
    assert job is not None
    return job


def streaming(lifecycle: Lifecycle) -> Job:
    job = running(lifecycle)
    lifecycle.add_chunk(lifecycle.open_stream("rt", job.job_id), BODY)
    return job


def succeeded(lifecycle: Lifecycle) -> Job:
    return lifecycle.finish("rt", running(lifecycle).job_id, BODY)


def failed(lifecycle: Lifecycle) -> Job:
    return lifecycle.fail(running(lifecycle).job_id, "lost patience")


def cleared(lifecycle: Lifecycle) -> Job:
    job = running(lifecycle)
    lifecycle.open_session("rt", APP)
    return job


def unknown(_: Lifecycle) -> Job:
    return Job("foundry_job_never_issued", 1, "rt", "add", b"{}", JobSource.RUNTIME_DIRECT, 0)


def of_another_runtime(lifecycle: Lifecycle) -> Job:
    lifecycle.submit("other", "add", b"{}")
    job = lifecycle.take("other")
    assert job is not None
    return job


# Sessions


def test_a_session_starts_empty_and_unconnected(lifecycle: Lifecycle) -> None:
    runtime, thrown_away = lifecycle.open_session("new", display_name="My App")
    assert thrown_away is None
    assert runtime.module_auth_token.startswith("foundry_module_auth_")
    assert (runtime.display_name, runtime.connected, runtime.last_poll_at) == ("My App", False, None)
    assert lifecycle.runtime("new") == runtime
    assert (lifecycle.jobs("new"), lifecycle.schemas("new"), lifecycle.queue_depth("new")) == ([], [], 0)
    assert [each.runtime_id for each in lifecycle.runtimes()] == ["rt", "other", "new"]


def test_every_session_has_a_token_of_its_own(lifecycle: Lifecycle) -> None:
    assert len({lifecycle.open_session("rt")[0].module_auth_token for _ in range(100)}) == 100


def test_a_reset_says_what_it_threw_away_and_revokes_the_token(lifecycle: Lifecycle) -> None:
    token = lifecycle.runtime("rt").module_auth_token
    old = [succeeded(lifecycle), failed(lifecycle), queued(lifecycle)]
    lifecycle.post_schemas("rt", [("add", b"{}")])
    _, thrown_away = lifecycle.open_session("rt", "another app")
    assert thrown_away == ThrownAway(jobs=3, schemas=1, deployed_apps=1)
    assert (lifecycle.jobs(), lifecycle.schemas(), lifecycle.queue_depth("rt")) == ([], [], 0)
    assert [each.deployed_app_rid for each in lifecycle.deployed_apps()] == ["another app"]
    assert [lifecycle.find_job(job.job_id) for job in old] == [None, None, None]
    with pytest.raises(InvalidModuleAuthToken):
        lifecycle.authenticate("rt", token)


@pytest.mark.parametrize(
    ("thrown_away", "words"),
    [
        (ThrownAway(), "nothing"),
        (ThrownAway(1, 1, 1), "1 job, 1 schema, 1 binding"),
        (ThrownAway(2, 0, 3), "2 jobs, 3 bindings"),
    ],
)
def test_what_was_thrown_away_reads_as_a_phrase(thrown_away: ThrownAway, words: str) -> None:
    assert str(thrown_away) == words
    assert bool(thrown_away) == (words != "nothing")


def test_only_the_unfinished_jobs_of_a_reset_session_are_told_one_by_one(lifecycle: Lifecycle) -> None:
    succeeded(lifecycle)
    unfinished = [running(lifecycle).job_id, queued(lifecycle).job_id]
    lifecycle.open_session("rt")
    assert [event.job_id for event in lifecycle.events.recent() if event.kind == "job_cleared"] == unfinished


def test_a_deleted_runtime_is_forgotten_with_all_it_had(lifecycle: Lifecycle) -> None:
    job = queued(lifecycle)
    assert lifecycle.delete_session("rt") == ThrownAway(1, 0, 1)
    assert lifecycle.find_job(job.job_id) is None
    with pytest.raises(NotFound, match="'other'"):
        lifecycle.runtime("rt")
    with pytest.raises(NotFound, match=APP):
        lifecycle.resolve_app(APP)


def test_a_reset_of_everything_leaves_nothing(lifecycle: Lifecycle) -> None:
    running(lifecycle)
    lifecycle.reset()
    assert (lifecycle.runtimes(), lifecycle.jobs(), lifecycle.deployed_apps()) == ([], [], [])
    assert kinds(lifecycle)[-3:] == ["session_deleted", "job_cleared", "session_deleted"]


def test_fields_are_trimmed_and_blank_ones_are_absent(lifecycle: Lifecycle) -> None:
    runtime, _ = lifecycle.open_session(" new ", f" {APP}2 ", "  ", " \t")
    assert (runtime.runtime_id, runtime.display_name) == ("new", None)
    assert lifecycle.resolve_app(f"{APP}2").branch == "master"
    lifecycle.open_session("blank app", " ", "dev")
    assert [each.runtime_id for each in lifecycle.deployed_apps()] == ["rt", "new"]


@pytest.mark.parametrize("runtime_id", ["", "  ", ".", " .. ", "\ud800", 5, b"rt", None])
def test_an_id_that_no_uri_can_carry_is_refused(lifecycle: Lifecycle, runtime_id: Any) -> None:
    before = picture(lifecycle)
    with pytest.raises(InvalidRequest, match="runtime id"):
        lifecycle.open_session(runtime_id, "an app")
    assert picture(lifecycle) == before


@pytest.mark.parametrize("token", [None, "", "x", "foundry_module_auth_", "ü", "\ud800"])
def test_only_the_sessions_own_token_is_accepted(lifecycle: Lifecycle, token: str | None) -> None:
    runtime = lifecycle.runtime("rt")
    assert lifecycle.authenticate("rt", runtime.module_auth_token) is runtime
    with pytest.raises(InvalidModuleAuthToken, match=r"^The Module-Auth-Token header is invalid\.$"):
        lifecycle.authenticate("rt", token)
    with pytest.raises(InvalidModuleAuthToken):
        lifecycle.authenticate("other", runtime.module_auth_token)


def test_an_unknown_runtime_is_told_before_a_wrong_token_with_the_known_ones(lifecycle: Lifecycle) -> None:
    with pytest.raises(NotFound, match=r"no runtime 'nobody'\. Known runtimes: 'other', 'rt'\."):
        lifecycle.authenticate("nobody", "wrong")


@pytest.mark.parametrize(
    "call",
    [
        lambda lifecycle: lifecycle.delete_session("nobody"),
        lambda lifecycle: lifecycle.submit("nobody", "add", b"{}"),
        lambda lifecycle: lifecycle.submit_to_app("nobody", None, "add", b"{}", JobSource.CONTOUR_SYNC),
        lambda lifecycle: lifecycle.take("nobody"),
        lambda lifecycle: lifecycle.finish("nobody", "job", BODY),
        lambda lifecycle: lifecycle.open_stream("nobody", "job"),
        lambda lifecycle: lifecycle.post_schemas("nobody", []),
        lambda lifecycle: lifecycle.delete_schema("nobody", "add"),
        lambda lifecycle: lifecycle.delete_schema("rt", "add"),
        lambda lifecycle: lifecycle.fail("nobody", "why"),
        lambda lifecycle: lifecycle.runtime("nobody"),
        lambda lifecycle: lifecycle.job("nobody"),
        lambda lifecycle: lifecycle.jobs("nobody"),
        lambda lifecycle: lifecycle.job_of("rt", "nobody"),
        lambda lifecycle: lifecycle.schemas("nobody"),
        lambda lifecycle: lifecycle.queue_depth("nobody"),
    ],
)
def test_what_is_not_there_is_not_found_and_changes_nothing(
    lifecycle: Lifecycle, call: Callable[[Lifecycle], object]
) -> None:
    before = picture(lifecycle)
    with pytest.raises(NotFound):
        call(lifecycle)
    assert picture(lifecycle) == before


# Deployed apps


def test_the_latest_binding_of_an_app_and_branch_wins_and_its_event_names_the_loser(lifecycle: Lifecycle) -> None:
    lifecycle.open_session("other", APP)
    assert [each.runtime_id for each in lifecycle.deployed_apps()] == ["other"]
    assert lifecycle.events.recent()[-1].detail == f"{APP} on branch 'master', taken from runtime 'rt'"
    assert lifecycle.delete_session("rt") == ThrownAway()
    assert lifecycle.resolve_app(APP).runtime_id == "other"


@pytest.mark.parametrize(
    ("bound", "asked", "found"),
    [
        (["master"], None, "master"),
        (["master", "dev"], None, "master"),
        (["dev", "test"], None, "test"),
        (["dev", "test", "dev"], None, "dev"),
        (["master", "dev"], "dev", "dev"),
        (["dev"], "master", None),
        (["dev"], "test", None),
        ([], None, None),
    ],
)
def test_an_app_is_served_by_the_asked_branch_else_master_else_the_newest(
    bound: list[str], asked: str | None, found: str | None
) -> None:
    lifecycle = Lifecycle()
    for number, branch in enumerate(bound):
        lifecycle.open_session(f"rt{number}", APP, branch)
    if found is None:
        with pytest.raises(NotFound, match=f"^No active compute-module runtime is bound to '{APP}'.$"):
            lifecycle.resolve_app(APP, asked)
    else:
        assert lifecycle.resolve_app(APP, asked).branch == found


# Jobs


def test_a_job_knows_where_it_came_from(lifecycle: Lifecycle) -> None:
    job = lifecycle.submit_to_app(APP, None, "add", b'{"x": 1e400}', JobSource.CONTOUR_SYNC)
    assert job.job_id.startswith("foundry_job_")
    assert (job.runtime_id, job.deployed_app_rid, job.deployed_app_branch) == ("rt", APP, "master")
    assert (job.query_type, job.query, job.source) == ("add", b'{"x": 1e400}', "contour-sync")
    direct = queued(lifecycle)
    assert (direct.deployed_app_rid, direct.deployed_app_branch, direct.source) == (None, None, "runtime-direct")
    assert lifecycle.jobs("rt") == [job, direct]


def test_jobs_are_handed_out_in_the_order_of_their_submission(lifecycle: Lifecycle) -> None:
    submitted = [queued(lifecycle).job_id for _ in range(5)]
    taken = [lifecycle.take("rt") for _ in range(6)]
    assert [job and job.job_id for job in taken] == [*submitted, None]
    assert all(job.status == JobStatus.RUNNING and job.started_at for job in taken if job)


def test_every_poll_is_noted_also_an_empty_one() -> None:
    now = iter(range(10, 1000, 10))
    lifecycle = Lifecycle(clock=lambda: next(now))
    lifecycle.open_session("rt")
    assert lifecycle.take("rt") is None
    first = lifecycle.runtime("rt")
    lifecycle.take("rt")
    assert first.connected
    assert (lifecycle.runtime("rt").last_poll_at or 0) > (first.last_poll_at or 0) > first.created_at
    assert kinds(lifecycle) == ["session_opened", "runtime_connected", "poll_empty", "poll_empty"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_jobs_given_back_in_any_order_are_handed_out_again_as_they_were_submitted(
    lifecycle: Lifecycle, order: tuple[int, ...]
) -> None:
    submitted = [queued(lifecycle).job_id for _ in range(4)]
    taken = [lifecycle.take("rt") for _ in range(3)]
    for job in (taken[index] for index in order):
        assert job is not None
        lifecycle.give_back(job)
        assert lifecycle.job(job.job_id).status == JobStatus.QUEUED
        assert lifecycle.job(job.job_id).started_at is None
    again = [lifecycle.take("rt") for _ in range(4)]
    assert [job and job.job_id for job in again] == submitted


@pytest.mark.parametrize("state", [queued, streaming, succeeded, failed, cleared, unknown])
def test_only_a_running_job_can_be_given_back(lifecycle: Lifecycle, state: Callable[[Lifecycle], Job]) -> None:
    job = state(lifecycle)
    before = picture(lifecycle)
    lifecycle.give_back(job)
    assert picture(lifecycle) == before


def test_a_job_that_was_handed_out_again_is_not_given_back_by_its_first_taker(lifecycle: Lifecycle) -> None:
    first = running(lifecycle)
    lifecycle.give_back(first)
    assert lifecycle.take("rt") is not None
    lifecycle.give_back(first)
    assert lifecycle.job(first.job_id).status == JobStatus.RUNNING


def test_a_result_is_kept_exactly_and_ends_the_job(lifecycle: Lifecycle) -> None:
    body = bytes(range(256))
    job = lifecycle.finish("rt", running(lifecycle).job_id, body, "text/plain")
    assert (job.status, job.result, job.result_content_type) == ("succeeded", body, "text/plain")
    assert lifecycle.job(job.job_id) is job
    assert job.completed_at is not None
    assert job.finished


@pytest.mark.parametrize("body", [b"", BODY])
def test_the_same_result_again_changes_nothing(lifecycle: Lifecycle, body: bytes) -> None:
    job = lifecycle.finish("rt", running(lifecycle).job_id, body, "text/plain")
    before = picture(lifecycle)
    assert lifecycle.finish("rt", job.job_id, body, "another/type") is job
    assert picture(lifecycle) == before


NO_RESULT_FOR: list[tuple[Callable[[Lifecycle], Job], type[WireError], str]] = [
    (queued, JobNotRunning, "still queued: poll for it"),
    (streaming, JobAlreadyCompleted, "receiving another result"),
    (succeeded, JobAlreadyCompleted, "succeeded already; this result was not kept"),
    (failed, JobAlreadyCompleted, r"failed already \(lost patience\)"),
    (cleared, NotFound, "a reset cleared it"),
    (unknown, NotFound, "has no job"),
    (of_another_runtime, NotFound, "it belongs to another runtime"),
]


@pytest.mark.parametrize(("state", "error", "says"), NO_RESULT_FOR)
@pytest.mark.parametrize(
    "post",
    [
        lambda lifecycle, job_id: lifecycle.finish("rt", job_id, b"different"),
        lambda lifecycle, job_id: lifecycle.open_stream("rt", job_id),
    ],
    ids=["whole", "in chunks"],
)
def test_a_result_is_refused_unless_the_job_runs_and_the_refusal_changes_nothing(
    lifecycle: Lifecycle,
    state: Callable[[Lifecycle], Job],
    error: type[WireError],
    says: str,
    post: Callable[[Lifecycle, str], object],
) -> None:
    job = state(lifecycle)
    before = picture(lifecycle)
    with pytest.raises(error, match=says):
        post(lifecycle, job.job_id)
    assert picture(lifecycle) == before


@pytest.mark.parametrize("state", [queued, running, streaming])
def test_an_unfinished_job_can_be_failed_and_then_is_in_no_queue(
    lifecycle: Lifecycle, state: Callable[[Lifecycle], Job]
) -> None:
    job = lifecycle.fail(state(lifecycle).job_id, "lost patience")
    assert (job.status, job.error_message, job.result) == ("failed", "lost patience", None)
    assert job.completed_at is not None
    assert lifecycle.stream(job.job_id) is None
    assert lifecycle.queue_depth("rt") == 0
    assert lifecycle.take("rt") is None


@pytest.mark.parametrize(
    ("state", "error"),
    [(succeeded, JobAlreadyCompleted), (failed, JobAlreadyCompleted), (cleared, NotFound), (unknown, NotFound)],
)
def test_a_job_that_is_over_can_not_be_failed(
    lifecycle: Lifecycle, state: Callable[[Lifecycle], Job], error: type[WireError]
) -> None:
    job = state(lifecycle)
    before = picture(lifecycle)
    with pytest.raises(error):
        lifecycle.fail(job.job_id, "too late")
    assert picture(lifecycle) == before


# Results in chunks


def test_a_stream_can_be_read_while_it_grows_and_becomes_the_result(lifecycle: Lifecycle) -> None:
    job = running(lifecycle)
    stream = lifecycle.open_stream("rt", job.job_id)
    for chunk in (b"1", b"", b"\xff"):
        lifecycle.add_chunk(stream, chunk)
    assert lifecycle.stream(job.job_id) is stream
    assert (bytes(stream.body), stream.size) == (b"1\xff", 2)
    assert lifecycle.job(job.job_id).status == JobStatus.RUNNING
    done = lifecycle.close_stream(stream, "application/json")
    assert (done.status, done.result, done.result_content_type) == ("succeeded", b"1\xff", "application/json")
    assert lifecycle.stream(job.job_id) is None


def test_a_stream_that_breaks_off_fails_its_job_and_says_how_much_came(lifecycle: Lifecycle) -> None:
    job = running(lifecycle)
    stream = lifecycle.open_stream("rt", job.job_id)
    lifecycle.add_chunk(stream, b"12345")
    lifecycle.break_stream(stream)
    broken = lifecycle.job(job.job_id)
    assert (broken.status, broken.error_message) == ("failed", "the result stream broke off after 5 bytes")


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        (lambda lifecycle, stream: lifecycle.fail(stream.job_id, "lost patience"), JobAlreadyCompleted),
        (lambda lifecycle, stream: lifecycle.close_stream(stream), JobAlreadyCompleted),
        (lambda lifecycle, stream: lifecycle.break_stream(stream), JobAlreadyCompleted),
        (lambda lifecycle, _: lifecycle.open_session("rt"), NotFound),
        (lambda lifecycle, _: lifecycle.delete_session("rt"), NotFound),
        (lambda lifecycle, _: lifecycle.reset(), NotFound),
    ],
)
def test_once_its_job_is_over_a_stream_takes_nothing_more_and_changes_nothing(
    lifecycle: Lifecycle, ending: Callable[..., object], error: type[WireError]
) -> None:
    stream = lifecycle.open_stream("rt", running(lifecycle).job_id)
    lifecycle.add_chunk(stream, b"1")
    ending(lifecycle, stream)
    before = lifecycle.jobs(), kinds(lifecycle)
    with pytest.raises(error):
        lifecycle.add_chunk(stream, b"2")
    with pytest.raises(error):
        lifecycle.close_stream(stream)
    lifecycle.break_stream(stream)
    assert (lifecycle.jobs(), kinds(lifecycle)) == before
    assert stream.body == b"1"


# Schemas


def test_schemas_are_sorted_by_name_updated_and_deleted(lifecycle: Lifecycle) -> None:
    lifecycle.post_schemas("rt", [("mul", b"1"), ("add", b"2")])
    lifecycle.post_schemas("rt", [("mul", b"3")])
    lifecycle.post_schemas("other", [("add", b"4")])
    assert [each.schema_payload for each in lifecycle.schemas("rt")] == [b"2", b"3"]
    assert [each.schema_payload for each in lifecycle.schemas()] == [b"2", b"3", b"4"]
    lifecycle.delete_schema("rt", "mul")
    assert [each.function_name for each in lifecycle.schemas("rt")] == ["add"]
    with pytest.raises(NotFound, match=r"no schema of function 'mul'\. Known functions: 'add'\."):
        lifecycle.delete_schema("rt", "mul")


def test_a_query_type_that_no_schema_names_is_delivered_with_an_event_that_names_the_known(
    lifecycle: Lifecycle,
) -> None:
    assert "unknown_query_type" not in (running(lifecycle), kinds(lifecycle))[1]
    lifecycle.post_schemas("rt", [("mul", b"{}")])
    assert running(lifecycle).query_type == "add"
    event = lifecycle.events.recent()[-1]
    assert (event.kind, event.detail) == (
        "unknown_query_type",
        "'add' is in none of the posted schemas. Known functions: 'mul'.",
    )


def test_a_function_whose_name_allows_no_api_name_is_reported_once(lifecycle: Lifecycle) -> None:
    def reports() -> list[str | None]:
        return [event.detail for event in lifecycle.events.recent() if event.kind == "invalid_api_name"]

    lifecycle.open_session("rt")
    lifecycle.post_schemas("rt", [(name, b"{}") for name in ("add", "addOne", "add_one", "f0", "MyName")])
    assert reports() == []
    for _ in range(2):
        lifecycle.post_schemas("rt", [("get-user", b"{}")])
    rule = "an API name consists of letters and digits in camel case"
    assert reports() == [
        f"No API name can be made from 'get-user', since {rule}. Rename it, for instance to 'getUser'."
    ]
    lifecycle.post_schemas("rt", [("größe", b"{}"), ("add_2", b"{}")])
    assert reports()[1:] == [f"No API name can be made from 'größe', 'add_2', since {rule}."]


# Events, times, cost


def test_a_whole_life_is_told_one_event_a_change() -> None:
    lifecycle = Lifecycle()
    lifecycle.open_session("rt", APP)
    lifecycle.post_schemas("rt", [("add", b"{}")])
    succeeded(lifecycle)
    lifecycle.give_back(running(lifecycle))
    lifecycle.close_stream(lifecycle.open_stream("rt", lifecycle.take("rt").job_id))  # type: ignore[union-attr]
    failed(lifecycle)
    lifecycle.delete_schema("rt", "add")
    lifecycle.delete_session("rt")
    assert kinds(lifecycle) == [
        *("session_opened", "app_bound", "schemas_posted"),
        *("job_queued", "runtime_connected", "job_started", "job_succeeded"),
        *("job_queued", "job_started", "job_given_back", "job_started", "result_started", "job_succeeded"),
        *("job_queued", "job_started", "job_failed"),
        *("schema_deleted", "session_deleted"),
    ]


def test_times_are_those_of_the_wall_clock_also_when_it_steps_back() -> None:
    now = iter(range(1_000_000, 0, -1))
    lifecycle = Lifecycle(clock=lambda: next(now))
    lifecycle.open_session("rt")
    job = succeeded(lifecycle)
    assert job.started_at is not None
    assert job.completed_at is not None
    assert lifecycle.runtime("rt").created_at > job.queued_at > job.started_at > job.completed_at
    times = [event.at for event in lifecycle.events.recent(all=True)]
    assert times == sorted(times, reverse=True)


def test_a_listener_may_end_the_session_whose_opening_it_is_told() -> None:
    lifecycle = Lifecycle()
    lifecycle.events.subscribe(lambda event: lifecycle.reset() if event.kind == "session_opened" else None)
    lifecycle.open_session("rt", APP)
    assert (lifecycle.runtimes(), lifecycle.deployed_apps()) == ([], [])
    with pytest.raises(NotFound):
        lifecycle.submit_to_app(APP, None, "add", b"{}", JobSource.CONTOUR_SYNC)


def test_records_never_change(lifecycle: Lifecycle) -> None:
    before = running(lifecycle)
    lifecycle.finish("rt", before.job_id, BODY)
    lifecycle.post_schemas("rt", [("add", b"{}")])
    assert (before.status, before.result) == (JobStatus.RUNNING, None)
    records: list[Any] = [before, *lifecycle.runtimes(), *lifecycle.schemas(), *lifecycle.deployed_apps()]
    for record in [*records, lifecycle.events.recent()[0]]:
        with pytest.raises(AttributeError, match="immutable"):
            record.runtime_id = "changed"


def steps(work: Callable[[], object]) -> int:
    """Count the lines and calls that some work takes: what a clock would show, without its noise."""
    count = 0

    def note(*_: object) -> Any:
        nonlocal count
        count += 1
        return note

    before = sys.gettrace(), sys.getprofile()
    gc.disable()
    sys.settrace(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
        gc.enable()
    return count


def test_every_operation_costs_the_same_after_twenty_thousand_jobs(lifecycle: Lifecycle) -> None:
    def cycle() -> None:
        lifecycle.post_schemas("rt", [("add", b"{}")])
        job = lifecycle.submit_to_app(APP, None, "add", b"{}", JobSource.CONTOUR_SYNC)
        lifecycle.give_back(running(lifecycle))
        lifecycle.fail(job.job_id, "lost patience")
        stream = lifecycle.open_stream("rt", lifecycle.take("rt").job_id)  # type: ignore[union-attr]
        lifecycle.add_chunk(stream, b"1")
        lifecycle.close_stream(stream)
        lifecycle.finish("rt", job_id := running(lifecycle).job_id, BODY)
        lifecycle.take("rt")
        lifecycle.authenticate("rt", lifecycle.runtime("rt").module_auth_token)
        assert lifecycle.job_of("rt", job_id) is lifecycle.job(job_id)
        assert lifecycle.queue_depth("rt") == 0

    # A log that is full at once, since dropping the oldest event is a step, too.
    limits = {"max_queued": 10**6, "max_runtimes": 10**6, "max_label_bytes": 4096}
    limits |= {"keep_records": 1, "max_data_bytes": 10**9}
    lifecycle.limit(keep_events=1, keep_bytes=10**9, **limits)
    cycle()
    at_first = steps(cycle)
    for _ in range(6667):
        cycle()
    assert len(lifecycle.jobs("rt")) > 20_000
    assert steps(cycle) == at_first


def test_looking_from_another_thread_while_everything_changes_never_fails(lifecycle: Lifecycle) -> None:
    done = threading.Event()
    errors: list[BaseException] = []
    looks = 0

    def look() -> None:
        nonlocal looks
        try:
            while not done.is_set() or not looks:
                looks += 1
                jobs = lifecycle.jobs()
                assert len({job.job_id for job in jobs}) == len(jobs)
                assert all((job.completed_at is not None) == job.finished for job in jobs)
                assert all(
                    found is None or found.job_id for found in map(lifecycle.find_job, {job.job_id for job in jobs})
                )
                picture(lifecycle)
        except BaseException as error:  # noqa: BLE001 - asserted below, in the test's own thread
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=look)
    thread.start()
    try:
        change_everything(lifecycle, 1500)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert errors == []
    assert looks > 0


def change_everything(lifecycle: Lifecycle, rounds: int) -> None:
    for number in range(rounds):
        lifecycle.open_session(f"rt{number % 5}", APP, f"branch {number % 7}")
        lifecycle.post_schemas("rt", [(f"f{number % 11}", b"{}")])
        succeeded(lifecycle)
        lifecycle.give_back(running(lifecycle))
        if number % 20 == 19:
            lifecycle.open_session("rt", APP)
            lifecycle.delete_session(f"rt{number % 5}")
