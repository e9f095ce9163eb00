"""Counts are outcomes: what raised is never counted among what went well, wherever jobs are counted."""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from cli_processes import run_here
from client import RID, RUNTIMES, Api

from cmemu_nb import Emulator
from cmemu_nb.dashboard.activity import activity_of, figures
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.dashboard.functions import FunctionList
from cmemu_nb.dashboard.summary import summary
from cmemu_nb.display.text import tally
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.records import STATES, column_of
from cmemu_nb.wire.results import function_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmemu_nb.executors.cells.functions import Functions
    from cmemu_nb.lifecycle.session import Session

RESULTS = (b"1", b'{"error": 0.1}', b'{"error": "no"}', b'{"exception": "no luck"}', b' {"err\\u006fr": "x"}', b"{}")
COUNTS = {"queued": 0, "running": 0, "ok": 10, "function error": 3, "failed": 1}


@pytest.fixture
def emu(serve_functions: Callable[..., Any]) -> Iterator[Emulator]:
    with serve_functions(max_concurrent_tasks=3) as emulator:
        yield emulator


@pytest.fixture
def raised(emu: Emulator) -> Emulator:
    """Ten jobs that went well, three whose function raised, one that failed; all of a function in a cell."""

    def work(context: object, event: dict[str, int]) -> int:  # noqa: ARG001
        return 1 // event["x"]

    work.__annotations__ = {}
    emu.function(work)
    emu.map("work", [{"x": x} for x in (0, 0, 0, *range(1, 11))])
    emu.change(lambda state: state.fail(state.submit("notebook", "work", b"{}").job_id, "before anybody took it"))
    return emu


def test_every_place_that_counts_jobs_counts_their_outcomes(raised: Emulator, tmp_path: Path) -> None:
    words = "10 ok, 3 function errors, 1 failed"
    assert {state: raised.lifecycle.outcomes()[state] for state in STATES} == COUNTS
    assert repr(raised) == f"<Emulator at {raised.url}: 1 runtime, 14 jobs ({words})>"
    card = raised._repr_mimebundle_()
    assert all(f"1 runtime, 14 jobs ({words})" in card[kind] for kind in ("text/plain", "text/html"))
    assert words in summary(raised)
    assert words in raised.timeline().text
    again = Emulator.from_export(raised.export(tmp_path / "run.json"))
    assert repr(again) == f"<Emulator, read from a file: 1 runtime, 14 jobs ({words})>"
    as_columns = {column_of(state): COUNTS[state] for state in STATES}
    assert raised.runtimes.loc["notebook", list(as_columns)].to_dict() == as_columns
    assert Api(raised.url, raised.token).contour("GET", RUNTIMES).json()["runtimes"][0]["job_counts"] == as_columns
    heading, row = run_here("runtimes", "--url", raised.url).stdout.splitlines()
    begins = [heading.index(state.upper()) for state in STATES]
    assert [row[begin:].split()[0] for begin in begins] == [str(COUNTS[state]) for state in STATES]


def test_the_dashboard_s_flow_tells_function_errors_from_what_went_well(raised: Emulator) -> None:
    now = raised.looked_at()
    found = figures([activity_of(raised.lifecycle.jobs(), now)], now, 0)
    flow = flow_part(raised, found, now)
    assert flow["counts"] == {"queued": 0, "running": 0, "ok": 10, "function_error": 3, "failed": 1}
    assert [sum(each) for each in zip(*flow["history"], strict=True)] == [10, 3, 1]


def test_the_functions_count_outcomes_too(raised: Emulator) -> None:
    work = raised.functions["work"]
    assert repr(work) == "<work v1 on 'notebook', calls: 14 (10 ok, 3 function errors, 1 failed)>"
    assert (work.calls, work.errors) == (14, 4)
    [history] = FunctionList(raised).histories().values()
    assert [history[outcome] for outcome in "oef"] == [10, 3, 1]
    assert re.search(r"work v1.*>10<.*>3<.*>1<.*>0<", _row(raised.functions))


def _row(functions: Functions) -> str:
    return functions._repr_mimebundle_()["text/html"].partition("<tbody>")[2]


def test_a_single_function_error_is_one_error() -> None:
    assert tally(Counter({"ok": 1, "function error": 1, "failed": 1})) == "1 ok, 1 function error, 1 failed"
    assert tally(Counter({"ok": 1_200, "queued": 0})) == "1,200 ok"
    assert tally(Counter()) == ""


# Counting


def act(state: Lifecycle, chance: random.Random) -> None:
    """Do one thing after which there are other jobs, or they stand elsewhere."""
    name = chance.choice("ab")
    match chance.randrange(10):
        case 0:
            state.open_session(name)
        case 1 | 2 | 3:
            state.submit(name, "f", b"{}")
        case 4 | 5 | 6 | 7 if job := state.take(name):
            state.finish(name, job.job_id, chance.choice(RESULTS))
        case 8:
            state.evict(chance.randrange(20), 10**9, 5)
        case _:
            unfinished = [job for job in state.jobs() if not job.finished]
            if unfinished:
                state.fail(chance.choice(unfinished).job_id, "chance")


def plain_count(state: Lifecycle) -> Counter[str]:
    return Counter(job.outcome or job.status for job in state.jobs())


@pytest.mark.parametrize("seed", range(20))
def test_the_counts_are_those_of_a_plain_count_whatever_happens_and_whenever_one_looks(seed: int) -> None:
    chance, state = random.Random(seed), Lifecycle()
    for name in "ab":
        state.open_session(name)
    for _ in range(300):
        act(state, chance)
        if chance.random() < 0.2:
            assert +state.outcomes() == plain_count(state)
    assert +state.outcomes() == plain_count(state)
    by_runtime = state.outcomes_by_runtime()
    assert all(state.outcomes(name) == by_runtime[name] for name in "ab")


def sessions(state: Lifecycle) -> list[Session]:
    return list(state._sessions.values())  # noqa: SLF001


def test_nothing_is_kept_of_jobs_that_are_gone() -> None:
    state = Lifecycle()
    state.open_session("a")
    for _ in range(100):
        _one_of_each(state)
        state.outcomes()
        state.evict(10, 10**9, 10**6)
    (session,) = sessions(state)
    assert set(session.unread) | set(session.function_errors) <= set(session.jobs)
    assert len(session.jobs) == 10


def _one_of_each(state: Lifecycle) -> None:
    for result in RESULTS:
        _one(state, result)


def _one(state: Lifecycle, result: bytes) -> None:
    state.submit("a", "f", b"{}")
    job = state.take("a")
    assert job is not None
    state.finish("a", job.job_id, result)


def test_each_result_is_read_once_and_none_before_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def note(result: bytes) -> dict[str, str] | None:
        read.append(result)
        return function_error(result)

    monkeypatch.setattr("cmemu_nb.lifecycle.session.function_error", note)
    state = Lifecycle()
    state.open_session("a")
    _one_of_each(state)
    assert read == []
    for _ in range(3):
        assert state.outcomes()["function error"] == 3
    # Those that can't be an error by their first bytes are not read at all.
    assert read == [result for result in RESULTS if result not in (b"1", b"{}")]
    _one(state, b'{"error": "another"}')
    assert state.outcomes()["function error"] == 4
    assert len(read) == 5


def test_what_is_counted_while_jobs_end_and_go_is_never_more_than_there_is() -> None:
    state, enough = Lifecycle(), threading.Event()
    state.open_session("a")

    def work() -> None:
        while not enough.is_set():
            _one_of_each(state)
            state.evict(50, 10**9, 100)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(2_000):
            counts = state.outcomes()
            assert all(count > 0 for count in counts.values())
            assert counts.total() <= 50 + 2 * len(RESULTS)
    finally:
        enough.set()
        worker.join()
    assert +state.outcomes() == plain_count(state)


def test_the_jobs_of_a_journal_and_of_a_file_are_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for expected in (3, 6):
        with Emulator(port=0, tls_port=0, home="thread", journal=str(path)) as emulator:
            if not emulator.lifecycle.runtimes():
                emulator.open_runtime("a", RID)
            emulator.change(_one_of_each)
            counts = emulator.lifecycle.outcomes()
            assert (counts["function error"], counts["ok"]) == (expected, expected)
    exported = Emulator.from_export(emulator.export(tmp_path / "run.json"))
    assert exported.lifecycle.outcomes() == counts


def test_a_listed_job_says_how_it_ended_and_how_long_it_took(raised: Emulator) -> None:
    listed = Api(raised.url, raised.token).contour("GET", f"{RUNTIMES}/notebook/jobs").json()["jobs"]
    jobs = raised.lifecycle.jobs()
    assert [each["outcome"] for each in listed] == [job.outcome for job in jobs]
    for each, job in zip(listed, jobs, strict=True):
        assert [round(each[name] * 1e6) if each[name] is not None else None for name in ("queue_time", "run_time")] == [
            job.queue_time(),
            job.run_time(),
        ]
    line = json.loads(run_here("jobs", "--json", "--url", raised.url).stdout.splitlines()[0])
    assert line["outcome"] == "function error"
