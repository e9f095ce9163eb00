"""What the dashboard's tabs of functions, runtimes and events compute."""

from __future__ import annotations

import itertools
import json
import queue
import weakref
from dataclasses import field, make_dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from cells import make
from kernels.driver import wait_until

from cmemu_nb import Emulator
from cmemu_nb.dashboard import events
from cmemu_nb.dashboard.ahead import Ahead
from cmemu_nb.dashboard.board import Board, Changes
from cmemu_nb.dashboard.events import MAX_EVENTS, EventFilter, EventList
from cmemu_nb.dashboard.functions import FunctionList, form_part
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.dashboard.view import View
from cmemu_nb.display.text import duration
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmemu_nb.dashboard.panels import Part

pytestmark = [pytest.mark.once, pytest.mark.long_lived]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(port=0, home="thread") as emulator:
        yield emulator


# Functions


Order = make_dataclass(
    "Order",
    [
        ("item", str),
        ("price", Decimal, Decimal("1.10")),
        ("amount", int, 2**60),
        ("note", str | None, None),
        ("tags", list[str], field(default_factory=list)),
        ("made", list[str], field(default_factory=lambda: ["by the user's code"])),
    ],
)
ORDER = '''
def order(context, event: Order) -> str:
    """Take an order.

    The rest of the docstring.
    """
    return event.item
'''
WORK = """
def work(context, event) -> int:
    if event["x"] == 3:
        raise ValueError("no 3")
    return 1
"""


def card(functions: FunctionList, name: str) -> Part:
    found: Part
    [found] = [row for row in functions.cards()["rows"] if row["name"] == name]
    return found


def history(functions: FunctionList, runtime_id: str, name: str) -> Any:
    return functions.histories().get(json.dumps([runtime_id, name]))


def test_a_card_has_the_signature_with_defaults_the_docstring_and_the_version(emulator: Emulator) -> None:
    order = make(ORDER, Order=Order)
    emulator.function(order)
    functions = FunctionList(emulator)
    first = card(functions, "order")
    assert first["words"] == (
        'item: string, price: decimal = "1.10", amount: integer = 1152921504606846976, note: optional string = null, '
        "tags: list of string = [], made: list of string (may be left out) -> string"
    )
    assert (first["summary"], first["version"]) == ("Take an order.", "")
    emulator.function(order)
    assert card(functions, "order")["version"] == "v2"
    schema = emulator.lifecycle.find_schema("notebook", "order")
    values = '{"price": "1.10", "amount": 1152921504606846976, "note": null, "tags": []}'
    assert form_part(emulator, schema)["defaults"] == values


def test_the_history_of_a_function_in_a_cell_has_its_last_runs_and_its_last_error(emulator: Emulator) -> None:
    emulator.function(make(WORK))
    functions = FunctionList(emulator)
    assert history(functions, "notebook", "work") is None
    jobs = [emulator.submit("work", {"x": x}) for x in range(5)]
    wait_until(lambda: emulator.functions["work"].calls == len(jobs), "the end of the jobs")
    shown = history(functions, "notebook", "work")
    assert (shown["o"], shown["e"], shown["f"]) == (4, 1, 0)
    assert sorted(shown["letters"]) == ["e", "o", "o", "o", "o"]
    assert "z" in shown["heights"]
    assert len(shown["heights"]) == 5
    assert shown["error"] == [jobs[3].id, "ValueError: no 3"]
    assert history(functions, "notebook", "work") is shown


def test_jobs_that_another_program_runs_are_counted_once_each(emulator: Emulator) -> None:
    runtime = emulator.open_runtime("elsewhere")
    emulator.change(lambda state: state.post_schemas("elsewhere", [("far", b'{"inputs": []}')]))
    before = runtime.enqueue("far", {}).id
    emulator.change(lambda state: state.fail(before, "it was\nlost"))
    functions = FunctionList(emulator)
    after = runtime.enqueue("far", {}).id
    functions.update([before, after])
    emulator.change(lambda state: state.take("elsewhere"))
    emulator.change(lambda state: state.finish("elsewhere", after, b"7"))
    functions.update([after])
    functions.update([before, after])
    shown = history(functions, "elsewhere", "far")
    assert (shown["o"], shown["e"], shown["f"], shown["letters"]) == (1, 0, 1, "fo")
    assert shown["error"] == [before, "it was"]
    assert shown == history(FunctionList(emulator), "elsewhere", "far")


# Runtimes


def test_a_runtime_has_its_slots_and_the_replicas_that_other_programs_run(emulator: Emulator) -> None:
    runtime = emulator.open_runtime("shop", deployed_app_rid="ri.x", display_name="The shop")
    replica = emulator.change(lambda state: state.add_replica("shop", 2, name="one"))
    emulator.change(lambda state: state.add_replica("shop", 2, name="two"))
    queued = [runtime.enqueue("far", {}) for _ in range(4)]
    replica.polls = 2  # as its polls through the platform routes do
    emulator.change(lambda state: [state.take("shop", replica=replica) for _ in range(2)])
    row = shown_runtime(emulator, "shop")
    assert (row["replicas"], row["slots"], row["full"]) == ("1 of 2", "2/2", True)
    assert (row["queued"], row["running"], row["restarts"], row["stops"]) == (2, 2, False, False)
    assert (row["display_name"], row["apps"]) == ("The shop", ["ri.x (master)"])
    assert [(line["name"], line["state"], line["slots"], line["running"]) for line in row["lines"]] == [
        ("one", "responsive", "2/2", 2),
        ("two", "never polled", "0/2", 0),
    ]
    assert row["polled_at"] == (runtime.record.last_poll_at or 0) // NS_PER_S
    for job in queued:
        job.cancel()


def shown_runtime(emulator: Emulator, name: str) -> Part:
    found: Part
    [found] = [row for row in runtimes_part(emulator, emulator.looked_at())["rows"] if row["key"] == name]
    return found


def test_the_details_of_a_runtime_name_what_is_configured_and_have_no_secret(emulator: Emulator) -> None:
    emulator.open_runtime("secretive")
    emulator.configure("secretive", sources={"Crm": {"password": "p4ssw0rd-of-crm"}}, environment={"KEY": "k3y-value"})
    row = shown_runtime(emulator, "secretive")
    assert dict(row["facts"])["configuration"] == "sources Crm; environment KEY"
    assert "p4ssw0rd" not in str(row)
    assert "k3y" not in str(row)


class HeldBoard(Board):
    """A board whose tasks the test does itself."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(emulator)
        self.tasks: queue.Queue[Callable[[], object]] = queue.Queue()

    def do(self, task: Callable[[], object]) -> None:
        self.tasks.put(task)


def test_a_launched_program_is_restarted_and_stopped_by_buttons_while_the_dashboard_is_updated(
    emulator: Emulator, tmp_path: Path
) -> None:
    program = tmp_path / "idle.sh"
    program.write_text("sleep 1000")
    answers: list[Part] = []
    board = HeldBoard(emulator)
    view = View(board, lambda _parts: None, answers.append, lambda: None)
    module = emulator.launch(["sh", str(program)], "idle")

    def press(action: str) -> Part:
        answers.clear()
        view.receive({"do": action, "id": action, "window": "w", "runtime": "idle"})
        board.tasks.get(timeout=30)()  # it only starts the action, whose end is another task
        board.tasks.get(timeout=30)()
        return answers[0]

    before = module.replicas[0].pid
    assert press("restart")["value"] == f"sh {program} was restarted."
    wait_until(lambda: module.replicas[0].pid not in (None, before), "the restarted program")
    row = shown_runtime(emulator, "idle")
    assert (row["state"], row["restarts"], row["stops"]) == ("never polled", True, True)
    assert row["lines"][0]["pid"] == module.replicas[0].pid
    assert press("stop")["value"] == f"Stopped: sh {program}."
    row = shown_runtime(emulator, "idle")
    assert (row["state"], row["tone"], row["restarts"], row["stops"]) == ("stopped", "", True, False)
    assert (row["lines"][0]["exit_code"], row["lines"][0]["pid"]) == (module.exit_code, None)


# Events


@pytest.fixture
def lifecycle() -> Lifecycle:
    clock = itertools.count(NS_PER_S, NS_PER_S)
    lifecycle = Lifecycle(clock=lambda: next(clock), monotonic=lambda: next(clock))
    lifecycle.open_session("r")
    return lifecycle


def lines(lifecycle: Lifecycle, **wanted: Any) -> list[Part]:
    found: list[Part] = EventList(EventFilter(**wanted)).part(lifecycle.events, lifecycle)["lines"]
    return found


def words(line: Part) -> list[tuple[str, str]]:
    return [(word, tone) for word, _, tone in line["chain"]]


def test_the_events_of_a_job_are_one_line_with_the_states_that_it_had(lifecycle: Lifecycle) -> None:
    ok, wrong, failed, running, queued = (lifecycle.submit("r", f"f{number}", b"{}").job_id for number in range(5))
    for job_id, result in ((ok, b"1"), (wrong, b'{"exception": "no"}')):
        lifecycle.take("r")
        lifecycle.finish("r", job_id, result)
    lifecycle.fail(failed, "lost")
    lifecycle.take("r")
    lifecycle.note("log", detail="something else")
    other, *of_jobs = lines(lifecycle)
    assert (other["kind"], other["detail"]) == ("log", "something else")
    assert [(line["function"], words(line)) for line in of_jobs if "job" in line] == [
        ("f3", [("queued", ""), ("running", "blue")]),
        ("f2", [("queued", ""), ("failed", "red")]),
        ("f1", [("queued", ""), ("running", ""), ("function error", "amber")]),
        ("f0", [("queued", ""), ("running", ""), ("ok", "")]),
        ("f4", [("queued", "")]),
    ]
    [shown] = [line for line in of_jobs if line["key"] == ok]
    job = lifecycle.job(ok)
    assert [time for _, time, _ in shown["chain"]] == [duration(job.queue_time()), duration(job.run_time()), ""]
    assert [each["kind"] for each in shown["events"]] == ["job_queued", "job_started", "job_succeeded"]
    assert [time for line in of_jobs if line["key"] in (running, queued) for *_, time, _ in line["chain"][-1:]] == [
        "",
        "",
    ]


def test_a_paused_list_counts_newer_events_and_is_filtered_still(lifecycle: Lifecycle) -> None:
    lifecycle.submit("r", "f", b"{}")
    paused = EventList(EventFilter(pause=lifecycle.events.newest))
    before = paused.part(lifecycle.events, lifecycle)
    assert before["newer"] == 0
    lifecycle.note("log")
    lifecycle.submit("r", "g", b"{}")
    after = paused.part(lifecycle.events, lifecycle)
    assert (after["lines"], after["newer"]) == (before["lines"], 2)
    assert paused.part(lifecycle.events, lifecycle)["newer"] == 2
    filtered = EventList(EventFilter(kind="job_queued", pause=before["newest"])).part(lifecycle.events, lifecycle)
    assert [line["function"] for line in filtered["lines"]] == ["f"]
    assert filtered["newer"] == 1


def test_events_that_come_faster_than_they_can_be_read_change_the_list_at_intervals(
    lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_of_events = EventList(EventFilter())
    before = list_of_events.part(lifecycle.events, lifecycle)
    for _ in range(MAX_EVENTS):
        lifecycle.note("log", detail="readable")
    readable = list_of_events.part(lifecycle.events, lifecycle)
    assert readable["newest"] == before["newest"] + MAX_EVENTS
    for number in range(MAX_EVENTS + 1):
        lifecycle.note("log", detail=f"number {number}")
    monkeypatch.setattr(events, "FLOOD_SECONDS", 3_600.0)
    assert list_of_events.part(lifecycle.events, lifecycle) == readable
    monkeypatch.setattr(events, "FLOOD_SECONDS", 0.0)
    after = list_of_events.part(lifecycle.events, lifecycle)
    assert [line["detail"] for line in after["lines"]] == [f"number {each}" for each in range(MAX_EVENTS, 0, -1)]


def test_the_line_of_a_job_that_is_not_kept_has_the_states_of_its_events(lifecycle: Lifecycle) -> None:
    lifecycle.submit("r", "f", b"{}")
    lifecycle.take("r")
    lifecycle.reset_session("r")
    [line] = [line for line in lines(lifecycle) if "job" in line]
    assert words(line) == [("queued", ""), ("running", ""), ("cleared", "")]


# What is sent ahead


class JobId(str):
    """A text that can be referred to weakly."""

    __slots__ = ("__weakref__",)


def test_a_dashboard_without_a_running_cell_does_not_collect_the_jobs_that_changed() -> None:
    ahead, job_id = Ahead(), JobId("1234")
    kept = weakref.ref(job_id)
    assert ahead.due(Changes({job_id}, everything=False, anything=True)) is None
    del job_id
    assert kept() is None
