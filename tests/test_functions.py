"""Functions of this process, served through the official SDK's own code: from their definition to their results."""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import getpass
import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cells import ADD, Sum, make
from client import eventually
from compute_modules.logging import get_logger

from cmemu_nb.clients.runtime import RuntimeClient
from cmemu_nb.errors import FunctionError, InvalidRequest, JobFailed, NotFound, NotRunning, ResultError
from cmemu_nb.lifecycle.records import NOTEBOOK_APP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle.events import Event

ADD_MORE = "def add(context, event: Sum) -> int:\n    return 100 + event.x + event.y"


@pytest.fixture
def emu(serve_functions: Callable[..., Any]) -> Iterator[Emulator]:
    with serve_functions(max_concurrent_tasks=4) as emulator:
        yield emulator


# Serving


def test_functions_that_are_defined_at_the_same_moment_are_all_served(emu: Emulator) -> None:
    """In threads that begin the notebook's executor together: it is one, and has all of them."""
    together = threading.Barrier(8)

    def define(number: int) -> None:
        function = make(f"def f{number}(context, event):\n    return {number}")
        together.wait(10)
        emu.function(function)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(define, range(8)))
    assert sorted(each.name for each in emu.functions) == [f"f{number}" for number in range(8)]
    assert [emu.call(f"f{number}", timeout=10) for number in range(8)] == list(range(8))
    assert sum(event.kind in ("session_opened", "session_reset") for event in emu.lifecycle.events.recent()) == 1


def test_an_event_callback_may_define_a_function_while_another_is_being_defined(emu: Emulator) -> None:
    defined = threading.Event()

    def define_more(event: Event) -> None:
        if event.kind == "session_opened":
            emu.function(make(ADD))
            defined.set()

    unsubscribe = emu.on_event(define_more)
    emu.function(make("def first(context, event):\n    return 1"))
    assert defined.wait(10)
    assert [emu.call("first", timeout=10), emu.call("add", {"x": 1}, timeout=10)] == [1, 3]
    unsubscribe()


def test_a_served_function_stays_a_plain_function_and_is_called_through_the_whole_lifecycle(emu: Emulator) -> None:
    add = make(ADD)
    assert emu.function(add) is add
    assert add({}, Sum(1)) == 3
    assert emu.call("add", {"x": 1}) == 3
    kinds = [event.kind for event in emu.lifecycle.events.recent()]
    wanted = ["session_opened", "app_bound", "schemas_posted", "runtime_connected", "job_queued", "job_started"]
    assert [kind for kind in kinds if kind in wanted] == wanted
    assert kinds[-1] == "job_succeeded"


def test_the_schema_is_posted_at_once_and_the_notebook_s_app_is_bound(emu: Emulator) -> None:
    emu.function(make(ADD))
    assert list(emu.schemas.index) == [("notebook", "add")]
    assert list(emu.deployed_apps.index) == [(NOTEBOOK_APP, "master")]
    posted = json.loads(emu.lifecycle.schemas()[0].schema_payload)
    assert [(each["name"], each["required"]) for each in posted["inputs"]] == [("x", True), ("y", False)]


def test_an_outside_application_reaches_it_over_http(emu: Emulator) -> None:
    emu.function(make(ADD))
    url = f"{emu.url}/contour-backend-multiplexer/api/module-group-multiplexer/compute-modules/jobs/execute"
    body = {"deployedAppRid": NOTEBOOK_APP, "queryType": "add", "query": {"x": 40}}
    answer = requests.post(url, json=body, headers={"Authorization": f"Bearer {emu.token}"}, timeout=10)
    assert (answer.status_code, answer.content) == (200, b"42")


def test_a_function_of_a_chosen_runtime_is_served_there(emu: Emulator) -> None:
    runtime = emu.open_runtime("mine", deployed_app_rid="ri.mine")
    token = runtime.token
    runtime.function(make(ADD))
    emu.function(make("def other(context, event): return 'notebook'"))
    assert emu.call("add", {"x": 1}) == 3
    assert emu.call("other") == "notebook"
    assert emu.call("add", {"x": 1}, "ri.mine") == 3
    assert runtime.token == token
    assert {each.name: each.runtime_id for each in emu.functions} == {"add": "mine", "other": "notebook"}


def test_a_function_of_a_runtime_without_an_app_is_enqueued(emu: Emulator) -> None:
    runtime = emu.open_runtime("mine")
    runtime.function(make(ADD))
    assert runtime.enqueue("add", {"x": 1}).result() == 3
    with pytest.raises(NotFound, match=r"emu\.runtime\('mine'\)\.enqueue\('add'\) needs none"):
        emu.call("add", {"x": 1})


def test_a_streaming_function_arrives_chunk_by_chunk_and_is_always_a_list(emu: Emulator, gate: threading.Event) -> None:
    source = "def count(context, event) -> Iterable[str]:\n    yield 'a'\n    gate.wait()\n    yield 'b'"
    emu.function(make(source, gate=gate), streaming=True)
    job = emu.submit("count")
    eventually(lambda: emu.lifecycle.stream(job.id), "the first chunk has come")
    gate.set()
    assert job.raw() == b'"a""b"'
    assert job.result() == ["a", "b"]
    emu.function(make("def one(context, event) -> Iterable[str]:\n    yield 'a'"), streaming=True)
    assert emu.call("one") == ["a"]
    emu.function(make("def numbers(context, event) -> Iterable[int]:\n    yield 1"), streaming=True)
    with pytest.raises(ResultError, match="bare numbers"):
        emu.call("numbers")


def test_a_stopped_emulator_serves_nothing(serve: Callable[..., Any]) -> None:
    with serve() as emulator:
        emulator.stop()
        with pytest.raises(NotRunning, match=r"emu\.start\(\)"):
            emulator.function(make(ADD))


# Errors


def test_a_function_that_raises_succeeds_on_the_wire_and_is_a_function_error_to_people(emu: Emulator) -> None:
    emu.function(make("def divide(context, event):\n    return event['x'] / 0"))
    job = emu.submit("divide", {"x": 1})
    with pytest.raises(FunctionError, match=r'division by zero(.|\n)*File "<cell>", line 2, in divide'):
        job.result()
    assert (job.status, job.outcome) == ("succeeded", "function error")
    assert set(json.loads(job.raw())) == {"exception"}
    assert emu.functions["divide"].errors == 1


def test_an_unknown_function_is_answered_as_the_sdk_does(emu: Emulator) -> None:
    emu.function(make(ADD))
    assert emu.submit("nobody").raw() == b'{"error": "Unknown query type"}'


@pytest.mark.parametrize(("line", "said"), [("raise ValueError('bad')", "ValueError: bad"), ("yield {1}", "TypeError")])
def test_a_stream_that_breaks_off_fails_its_job_with_the_reason(emu: Emulator, line: str, said: str) -> None:
    source = f"def count(context, event) -> Iterable[str]:\n    yield 'a'\n    {line}"
    emu.function(make(source), streaming=True)
    job = emu.submit("count")
    with pytest.raises(JobFailed, match=f"the result stream broke off after 3 bytes: {said}"):
        job.result()
    assert 'File "<cell>", line 3' in job.logs or said == "TypeError"
    assert emu.functions["count"].errors == 1


def test_a_function_that_exits_fails_its_job_and_the_executor_goes_on(emu: Emulator) -> None:
    emu.function(make("def leave(context, event):\n    import sys\n    sys.exit(3)"))
    emu.function(make(ADD))
    with pytest.raises(JobFailed, match="the function ended with SystemExit"):
        emu.call("leave")
    assert emu.call("add", {"x": 1}) == 3


def test_a_result_that_is_too_large_fails_its_job_with_the_reason(serve: Callable[..., Any]) -> None:
    with serve(max_body_bytes=5000) as small:
        small.function(make("def whole(context, event): return 'x' * 10_000_000"))
        small.function(
            make("def stream(context, event):\n    for _ in range(99):\n        yield 'x' * 1000"), streaming=True
        )
        with pytest.raises(JobFailed, match=r"could not be posted: The body is larger than 5000 bytes"):
            small.call("whole", timeout=10)
        with pytest.raises(JobFailed):
            small.call("stream", timeout=10)
        small.reset()


def test_functions_that_never_return_are_failed_by_hand_and_their_threads_replaced(
    emu: Emulator, gate: threading.Event
) -> None:
    stubborn = "    try:\n        gate.wait()\n    except KeyboardInterrupt:\n        return 'late'"
    emu.function(make(f"def forever(context, event):\n{stubborn}", gate=gate))
    emu.function(make(ADD))
    jobs = [emu.submit("forever") for _ in range(4)]
    forever = emu.functions["forever"]
    eventually(lambda: forever.running == 4, "all slots are taken")
    waiting = emu.submit("add", {"x": 1})
    assert waiting.status == "queued"
    for job in jobs:
        job.fail("enough")
    assert waiting.result(timeout=10) == 3
    assert (forever.running, forever.abandoned) == (0, 4)
    assert "(+ 4 abandoned)" in emu.functions._repr_mimebundle_()["text/html"]
    gate.set()
    eventually(lambda: forever.abandoned == 0, "the abandoned threads have ended")
    late = [event for event in emu.lifecycle.events.recent() if event.kind == "late_result"]
    assert sorted((event.job_id, event.detail) for event in late) == sorted((job.id, '"late"') for job in jobs)
    assert {job.status for job in jobs} == {"failed"}


def test_what_a_job_sets_in_a_context_variable_is_not_seen_by_the_next(emu: Emulator) -> None:
    who = contextvars.ContextVar("who", default="nobody")
    source = "def greet(context, event):\n    before = who.get()\n    who.set(event['name'])\n    return before"
    emu.function(make(source, who=who))
    assert [emu.call("greet", {"name": name}) for name in ("Ada", "Grace", "Mary")] == ["nobody"] * 3


def test_a_stream_that_is_failed_by_hand_ends(emu: Emulator) -> None:
    emu.function(
        make("def tick(context, event) -> Iterable[str]:\n    while True:\n        yield 'tick'"), streaming=True
    )
    job = emu.submit("tick")
    eventually(lambda: emu.lifecycle.stream(job.id), "the stream has begun")
    job.fail("enough")
    eventually(lambda: emu.functions["tick"].abandoned == 0, "its thread has ended")
    assert job.record.error_message == "enough"


@pytest.mark.parametrize("ask", ["input()", "getpass.getpass()"])
def test_a_function_has_nobody_to_ask(emu: Emulator, ask: str) -> None:
    before = builtins.input, getpass.getpass
    emu.function(make(f"def asks(context, event):\n    {ask}", getpass=getpass))
    with pytest.raises(FunctionError, match=r"EOFError: .* in a function has no user to ask"):
        emu.call("asks", timeout=20)
    eventually(lambda: (builtins.input, getpass.getpass) == before, "all is as it was")


# Versions


def test_defining_it_again_serves_the_new_version_and_running_jobs_keep_theirs(
    emu: Emulator, gate: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    emu.function(make("def f(context, event):\n    gate.wait()\n    return 'old'", gate=gate))
    running = [emu.submit("f") for _ in range(4)]
    eventually(lambda: emu.functions["f"].running == 4, "the old version runs")
    queued = [emu.submit("f") for _ in range(4)]
    assert capsys.readouterr().out == ""
    emu.function(make("def f(context, event: Sum) -> str:\n    return 'new'"))
    said = capsys.readouterr().out
    assert said == '4 jobs of f\'s earlier version still run. emu.cancel("f") ends them.\n'
    assert emu.functions["f"].version == 2
    assert [each["name"] for each in json.loads(emu.lifecycle.schemas()[0].schema_payload)["inputs"]] == ["x", "y"]
    gate.set()
    assert [job.result() for job in running] == ["old"] * 4
    assert [job.raw()[:12] for job in queued] == [b'{"exception"'] * 4
    assert emu.call("f", {"x": 1}) == "new"


def test_a_new_version_that_is_refused_leaves_the_last_good_one(emu: Emulator) -> None:
    emu.function(make(ADD))
    with pytest.raises(Exception, match=r"add can't be served.* add v1 is still served\."):
        emu.function(make("def add(context, event: dict): return 1"))
    assert emu.call("add", {"x": 1}) == 3


def test_of_several_functions_all_are_served_or_none(emu: Emulator) -> None:
    with pytest.raises(Exception, match="bad can't be served"):
        emu.functions.serve([(make(ADD), False), (make("async def bad(context, event): ..."), False)])
    assert len(emu.functions) == 0


@pytest.mark.once
def test_a_thousand_running_jobs_survive_a_new_version(emu: Emulator) -> None:
    emu.function(make(ADD))
    jobs = [emu.submit("add", {"x": x}) for x in range(500)]
    emu.function(make(ADD_MORE))
    jobs += [emu.submit("add", {"x": x}) for x in range(500, 1000)]
    results = [job.result() for job in jobs]
    assert [result in (x + 2, x + 102) for x, result in enumerate(results)] == [True] * 1000
    assert results[500:] == [x + 102 for x in range(500, 1000)]


@pytest.mark.parametrize("value", [{"a": 1}, None])
def test_a_streaming_function_that_returns_no_items_posts_one_value_as_there(emu: Emulator, value: object) -> None:
    emu.function(make("def count(context, event): return value", value=value), streaming=True)
    assert emu.call("count") == value


def test_a_removed_function_is_unknown_and_its_schema_is_withdrawn(emu: Emulator) -> None:
    emu.function(make(ADD))
    emu.function(make("def other(context, event): return 1"))
    emu.functions.remove("add")
    assert list(emu.schemas.index) == [("notebook", "other")]
    with pytest.raises(NotFound, match="No function 'add' is served"):
        emu.call("add", {"x": 1})
    with pytest.raises(NotFound, match=r"No function 'othr' is served in a cell\. Did you mean 'other'\?"):
        emu.functions.remove("othr")


# The session that it serves on


def test_after_a_reset_of_its_runtime_it_goes_on_with_the_new_session(emu: Emulator) -> None:
    emu.function(make(ADD))
    emu.runtime("notebook").reset()
    eventually(lambda: len(emu.schemas) == 1, "the schemas are posted again")
    assert emu.call("add", {"x": 1}) == 3


def test_a_deleted_runtime_takes_its_functions_with_it_and_can_be_served_again(emu: Emulator) -> None:
    emu.function(make(ADD))
    emu.reset()
    eventually(lambda: len(emu.functions) == 0, "the functions are forgotten")
    emu.function(make(ADD))
    assert emu.call("add", {"x": 1}) == 3


def test_a_runtime_that_is_deleted_while_its_executor_opens_it_is_opened_again(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_session = RuntimeClient.open_session

    async def open_and_delete(client: RuntimeClient, *arguments: Any) -> None:
        monkeypatch.undo()
        await open_session(client, *arguments)
        emu.lifecycle.reset()

    monkeypatch.setattr(RuntimeClient, "open_session", open_and_delete)
    emu.function(make(ADD))
    assert emu.call("add", {"x": 1}) == 3


def test_a_started_again_emulator_serves_again(emu: Emulator, gate: threading.Event) -> None:
    emu.function(make(ADD))
    emu.function(make("def forever(context, event): gate.wait()", gate=gate))
    job = emu.submit("forever")
    eventually(lambda: job.status == "running", "it runs")
    emu.stop()
    assert job.record.error_message == "the emulator was stopped while the function ran"
    emu.start()
    assert emu.call("add", {"x": 1}) == 3


# Logs


def test_four_functions_that_print_at_once_have_a_log_each(emu: Emulator) -> None:
    barrier = threading.Barrier(4)
    source = (
        "def talk(context, event):\n    for n in range(50):\n        barrier.wait(10)\n"
        "        print(event['who'], n)\n        log.warning('%s warns %s', event['who'], n)"
    )
    handler = logging.StreamHandler(sys.stderr)
    log = logging.getLogger("talk")
    log.addHandler(handler)
    log.propagate = False
    emu.function(make(source, barrier=barrier, log=log))
    jobs = {who: emu.submit("talk", {"who": who}) for who in "abcd"}
    for who, job in jobs.items():
        job.result()
        assert job.logs == "".join(f"{who} {n}\n{who} warns {n}\n" for n in range(50))
    log.removeHandler(handler)


def test_lines_of_the_sdk_s_loggers_are_text_in_the_log_of_their_job_and_json_elsewhere(
    emu: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    log = get_logger("orders of a cell")  # made before the job, as at the beginning of a program
    source = """
def talk(context, event):
    log.warning("order placed", params={"order": event["n"]}, unsafe_params={"user": "ann"})
    get_logger("made in the job").warning("the second")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("it failed", params={"order": event["n"]})
"""
    emu.function(make(source, log=log, get_logger=get_logger))
    jobs = [emu.submit("talk", {"n": number}) for number in range(3)]
    for number, job in enumerate(jobs):
        job.result()
        first, second, third, *traceback = job.logs.splitlines()
        assert first == f"WARNING: order placed (order={number}, user='ann')"
        assert second == "WARNING: the second"
        assert third == f"ERROR: it failed (order={number})"
        assert (traceback[0], traceback[-1]) == (
            "Traceback (most recent call last):",
            "ZeroDivisionError: division by zero",
        )
    for logger in (log, get_logger("made in the job")):
        logger.warning("outside", params={"order": 7})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["message"], line["params"]["order"]) for line in lines] == [("outside", 7)] * 2


def test_what_others_print_meanwhile_is_theirs(
    emu: Emulator, gate: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    emu.function(make("def talk(context, event):\n    print('mine')\n    gate.wait()", gate=gate))
    job = emu.submit("talk")
    eventually(lambda: job.logs, "it has printed")
    print("a cell's")  # noqa: T201
    gate.set()
    job.result()
    assert job.logs == "mine\n"
    assert capsys.readouterr().out == "a cell's\n"


def test_echo_shows_what_a_function_prints(emu: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    emu.function(make("def talk(context, event):\n    print('hello')"))
    emu.call("talk", echo=True)
    assert capsys.readouterr().out == "hello\n"


def test_a_log_keeps_its_newest_million_characters(emu: Emulator) -> None:
    emu.function(
        make("def talk(context, event):\n    for n in range(3000):\n        print('x' * 999)\n    print('end')")
    )
    job = emu.submit("talk")
    job.result()
    assert job.logs.startswith("… 2,000,004 characters before this were dropped …\n")
    assert job.logs.endswith("end\n")
    assert len(job.logs) < 1_000_100


# Before submission


def test_a_query_that_does_not_match_the_schema_is_caught_before_it_is_submitted(emu: Emulator) -> None:
    emu.function(make(ADD))
    with pytest.raises(InvalidRequest, match=r"does not match add: 'x': expected integer, given a string \('1'\)"):
        emu.call("add", {"x": "1"})
    with pytest.raises(InvalidRequest, match=r"'x' is missing: expected integer; 'z' is unknown"):
        emu.call("add", {"z": 1})
    assert len(emu.jobs) == 0
    assert emu.call("add", {"x": "1", "z": 5}, validate=False) == 3


def test_an_unknown_function_names_the_closest_and_the_known_ones(emu: Emulator) -> None:
    emu.function(make(ADD))
    with pytest.raises(NotFound, match=r"No function 'Ad' is served\. Did you mean 'add'\? Known functions: 'add'"):
        emu.call("Ad")


def test_the_listing_says_what_is_served_and_how_it_went(emu: Emulator) -> None:
    emu.function(make(ADD))
    emu.function(make(ADD_MORE))
    emu.call("add", {"x": 1})
    add = emu.functions["add"]
    assert (add.version, add.calls, add.errors) == (2, 1, 0)
    assert add.schema_in_words == "x: integer, y: integer (may be left out) -> integer"
    page = emu.functions._repr_mimebundle_()["text/html"]
    assert all(words in page for words in ("add v2", "notebook", add.schema_in_words.replace(">", "&gt;"), "p95"))


def test_an_empty_listing_says_what_to_type(emu: Emulator) -> None:
    assert "@emu.function" in emu.functions._repr_mimebundle_()["text/html"]
    assert "@emu.function" in repr(emu.functions)


# Maps


def test_a_map_returns_inputs_outcomes_values_and_times_in_order(emu: Emulator) -> None:
    source = "def half(context, event):\n    assert event['value'] % 2 == 0\n    return event['value'] // 2"
    emu.function(make(source))
    frame = emu.map("half", [{"value": value} for value in (4, 3, 2)], concurrency=2)
    wanted = ["input.value", "outcome", "value", "error", "queue_time", "run_time", "job_id"]
    assert list(frame.columns) == wanted
    assert list(frame["input.value"]) == [4, 3, 2]
    assert list(frame.outcome) == ["ok", "function error", "ok"]
    assert [frame.value[0], frame.value[2]] == [2, 1]
    assert "AssertionError" in frame.error[1]
    assert (frame.run_time.dt.total_seconds() > 0).all()
    assert [emu.job(job_id).record.query for job_id in frame.job_id] == [
        b'{"value": 4}',
        b'{"value": 3}',
        b'{"value": 2}',
    ]


IMPORTED_DURING_THE_JOBS = """
import sys
from cmemu_nb import Emulator

def work(context, event):
    return event["x"]

with Emulator(port=0, tls_port=0, max_concurrent_tasks=2) as emu:
    emu.function(work)
    before, during = None, set()
    def compare(event):
        global before
        before = set(sys.modules) if before is None else before
        during.update(set(sys.modules) - before)
    unsubscribe = emu.lifecycle.events.subscribe(compare)
    frame = emu.map("work", [{"x": x} for x in range(4)])
    unsubscribe()
print(sorted(during), frame["run_time"].notna().all())
print([name for name in sys.modules if name.startswith("cmemu_nb.executors.cluster")])
"""


def test_nothing_is_imported_while_the_jobs_of_a_process_s_first_map_run() -> None:
    # An import on the emulator's loop is half a second that every result waits for, and that its job seems to run.
    # What serves functions on a cluster is imported for an emulator that has one.
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED_DURING_THE_JOBS], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["[] True", "[]"]


def test_the_errors_of_a_map_begin_with_their_kind(emu: Emulator) -> None:
    class Odd(Exception):
        pass

    errors = [KeyError("x"), MemoryError(), ValueError("two\nlines"), Odd("odd"), Odd()]
    emu.function(make("def fail(context, event):\n    raise errors[event['n']]", errors=errors))
    frame = emu.map("fail", [{"n": n} for n in range(5)])
    heads = [error.partition("\n")[0] for error in frame.error]
    assert heads[:3] == ["KeyError: 'x'", "MemoryError", "ValueError: two"]
    assert [head.rpartition(".")[2] for head in heads[3:]] == ["Odd: odd", "Odd"]
    with pytest.raises(FunctionError, match=r"^MemoryError\n\nTraceback"):
        emu.call("fail", n=1)


def test_a_map_over_a_data_frame_keeps_its_index(emu: Emulator) -> None:
    import pandas as pd  # noqa: PLC0415 - slow to import

    emu.function(make(ADD))
    frame = emu.map("add", pd.DataFrame({"x": [1, 2]}, index=["a", "b"]))
    assert list(frame.index) == ["a", "b"]
    assert list(frame.value) == [3, 4]


def test_a_map_of_nothing_is_an_empty_frame(emu: Emulator) -> None:
    emu.function(make(ADD))
    frame = emu.map("add", [])
    assert len(frame) == 0
    assert {"outcome", "value", "run_time"} <= set(frame.columns)
    assert frame.run_time.dtype == frame.queue_time.dtype == "timedelta64[ns]"


def test_a_map_with_a_bad_row_submits_none(emu: Emulator) -> None:
    emu.function(make(ADD))
    with pytest.raises(InvalidRequest, match=r"Row 1 of the map: .*'x': expected integer.* No row was submitted"):
        emu.map("add", [{"x": 1}, {"x": "1"}])
    with pytest.raises(InvalidRequest, match="Row 1 of the map: The query can't be sent as JSON"):
        emu.map("add", [{"x": 1}, {"x": 2j}], validate=False)
    with pytest.raises(InvalidRequest, match="takes a list"):
        emu.map("add", {"x": 1})
    assert len(emu.jobs) == 0


@pytest.mark.once
def test_a_thousand_mapped_jobs_leave_no_thread_task_or_connection(emu: Emulator) -> None:
    emu.function(make(ADD))
    emu.call("add", {"x": 1})

    def left_open() -> tuple[int, set[threading.Thread], int]:
        return len(list(Path("/proc/self/fd").iterdir())), set(threading.enumerate()), emu.home.run(count_tasks())

    before = left_open()
    frame = emu.map("add", [{"x": x} for x in range(1000)])
    assert list(frame.value) == [x + 2 for x in range(1000)]
    eventually(lambda: left_open() <= before, "connections, threads and tasks are what they were")


async def count_tasks() -> int:
    return len(asyncio.all_tasks())


def test_functions_may_call_functions(emu: Emulator) -> None:
    emu.function(make(ADD))
    emu.function(make("def twice(context, event):\n    return 2 * emu.call('add', event)", emu=emu))
    assert emu.call("twice", {"x": 1}) == 6


def test_the_context_has_what_the_sdk_gives(emu: Emulator) -> None:
    emu.function(make("def who(context, event):\n    return sorted(context), context['jobId']"))
    job = emu.submit("who")
    wanted = ["authHeader", "jobId", "source_configs", "sources", "tempCredsAuthToken", "userId"]
    assert job.result() == [wanted, job.id]


def test_it_waits_by_long_poll_and_not_by_asking_again(emu: Emulator) -> None:
    emu.function(make(ADD))
    for x in range(10):
        emu.call("add", {"x": x})
    kinds = [event.kind for event in emu.lifecycle.events.recent(all=True)]
    assert "poll_empty" not in kinds
