"""What is asked costs what it asks for, however many runtimes, jobs and schemas there are."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from client import RUNTIMES, Api, Runtime, error_code

from cmemu_nb import Emulator
from cmemu_nb.cli import remote as remote_module
from cmemu_nb.cli import show
from cmemu_nb.cli.remote import Remote
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.dashboard.functions import MAX_FUNCTIONS, FunctionList
from cmemu_nb.dashboard.job_list import JobFilter, JobList
from cmemu_nb.dashboard.job_rows import JobRows, jobs_part
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.errors import TooManyRuntimes
from cmemu_nb.phrases import MAX_RATIOS, closest
from cmemu_nb.server.api import ontologies, queries
from cmemu_nb.server.api.queries import MAX_QUERIES_OF_A_TURN, find_query
from cmemu_nb.server.listing import MAX_RECORDS_OF_A_TURN
from cmemu_nb.server.routes import tools
from cmemu_nb.storage import session_file
from cmemu_nb.wire.paths import ONTOLOGIES, QUERIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cmemu_nb.cli.watch import View

    Serve = Callable[..., AbstractContextManager[Emulator]]

pytestmark = pytest.mark.once

FEW, MANY = 50, 1_000


def app_of(number: int) -> str:
    return f"ri.foundry.main.deployed-app.app-{number}"


def open_sessions(emulator: Emulator, first: int, last: int) -> None:
    """Open sessions with an app and a schema each."""

    def act(lifecycle: Any) -> None:
        for number in range(first, last):
            lifecycle.open_session(f"r{number}", app_of(number))
            lifecycle.post_schemas(f"r{number}", [(f"f{number}", b"{}")])

    emulator.change(act)


# The number of runtimes


def test_a_runtime_too_many_is_429_with_what_to_do_until_one_is_deleted(serve: Serve) -> None:
    with serve(max_runtimes=2) as emulator:
        api = Api(emulator.url, emulator.token)
        first = [api.open("a"), api.open("b")][0]
        refused = api.send("POST", RUNTIMES, json={"runtimeId": "c"})
        assert (refused.status_code, error_code(refused)) == (429, "too_many_runtimes")
        said = refused.json()["error_description"]
        assert "the emulator has 2 runtimes already (max_runtimes)" in said
        assert "Delete some that are no longer needed, or start with a larger max_runtimes." in said
        with pytest.raises(TooManyRuntimes, match="'c' can't be opened: the emulator has 2 runtimes already"):
            emulator.open_runtime("c")
        assert api.open("b").poll().status_code == 204  # a reset makes none
        assert first.send("DELETE", first.uri).status_code == 204
        assert emulator.open_runtime("c").id == "c"
        emulator.stop()
        emulator.start(max_runtimes=3)
        assert emulator.open_runtime("d").id == "d"


# Pages


def test_the_runtimes_are_listed_in_pages(serve: Serve) -> None:
    with serve() as emulator:
        open_sessions(emulator, 0, 250)
        api = Api(emulator.url, emulator.token)
        names: list[str] = []
        more = True
        while more:
            after = f"?after={names[-1]}" if names else ""
            page = api.contour("GET", RUNTIMES + after).json()
            names += [each["runtime_id"] for each in page["runtimes"]]
            more = page["more"]
            assert len(names) in (100, 200, 250)
        assert names == [f"r{number}" for number in range(250)]
        three = api.contour("GET", f"{RUNTIMES}?limit=3&after=r7").json()
        assert ([each["runtime_id"] for each in three["runtimes"]], three["more"]) == (["r8", "r9", "r10"], True)
        assert error_code(api.contour("GET", f"{RUNTIMES}?after=nobody")) == "not_found"
        for wrong in ("limit=0", "limit=10001", "limit=x", "newest=true"):
            assert error_code(api.contour("GET", f"{RUNTIMES}?{wrong}")) == "invalid_request"


def test_commands_follow_the_pages_and_ask_only_for_runtimes_that_have_something(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    send = Remote._send  # noqa: SLF001

    async def noting(remote: Remote, method: str, path: str, body: bytes = b"") -> bytes:
        asked.append(path)
        return await send(remote, method, path, body)

    async def look(emulator: Emulator) -> tuple[list[dict[str, Any]], View, View]:
        options = argparse.Namespace(runtime=None, status=None, job=None, last=10)
        async with Remote(emulator.url, emulator.token) as remote:
            schemas = await show.schemas_view(remote, options)
            return await remote.runtimes(), schemas, await show.jobs_view(remote, options)

    monkeypatch.setattr(Remote, "_send", noting)
    monkeypatch.setattr(remote_module, "MAX_PAGE", 100)
    with serve() as emulator:
        emulator.change(lambda lifecycle: [lifecycle.open_session(f"r{number}") for number in range(250)])
        open_sessions(emulator, 7, 8)
        emulator.change(lambda lifecycle: lifecycle.submit("r9", "f9", b"{}"))
        runtimes, schemas, jobs = asyncio.run(look(emulator))
        assert [each["runtime_id"] for each in runtimes] == [f"r{number}" for number in range(250)]
        assert [each["function_name"] for each in schemas.records] == ["f7"]
        assert [each["query_type"] for each in jobs.records] == ["f9"]
        assert len(asked) == 3 * 3 + 2


@contextmanager
def turns(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[list[int]]:
    """Count the calls of a function between each two turns of the emulator's loop."""
    made, counts = [0], []
    real = getattr(owner, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        made[0] += 1
        return real(*args, **kwargs)

    def beat() -> None:
        counts.append(made[0])
        made[0] = 0
        if not done:
            emulator.home.loop.call_soon(beat)

    done: list[bool] = []
    monkeypatch.setattr(owner, name, counting)
    emulator.home.loop.call_soon_threadsafe(beat)
    yield counts
    done.append(True)
    emulator.change(lambda _: None)


def test_others_have_the_loop_while_a_long_page_is_made(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as emulator:
        open_sessions(emulator, 0, 500)
        emulator.change(lambda lifecycle: [lifecycle.submit("r1", "f", b"{}") for _ in range(500)])
        api = Api(emulator.url, emulator.token)
        paths = {"_runtime": f"{RUNTIMES}?limit=500", "_job": f"{RUNTIMES}/r1/jobs?limit=500"}
        for name, path in paths.items():
            with turns(emulator, monkeypatch, tools, name) as counts:
                answer = api.contour("GET", path).json()
            assert len(next(each for each in answer.values() if isinstance(each, list))) == 500
            assert (sum(counts), max(counts) <= MAX_RECORDS_OF_A_TURN) == (500, True)


def test_a_runtime_that_is_deleted_while_its_page_is_made_is_left_out(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as emulator:
        open_sessions(emulator, 0, 120)
        real = tools._runtime  # noqa: SLF001

        def deleting(app: Any, runtime: Any) -> Any:
            if runtime.runtime_id == "r10":
                app.lifecycle.delete_session("r119")
            return real(app, runtime)

        monkeypatch.setattr(tools, "_runtime", deleting)
        listed = Api(emulator.url, emulator.token).contour("GET", f"{RUNTIMES}?limit=200").json()["runtimes"]
        assert [each["runtime_id"] for each in listed] == [f"r{number}" for number in range(119)]


# Work


@contextmanager
def counted(emulator: Emulator) -> Iterator[list[int]]:
    """Count what this thread and the emulator's loop do: steps of Python's machine in the package's functions."""
    steps = [0]

    def trace(frame: Any, kind: str, _: object) -> Any:
        if kind == "call":
            if "cmemu_nb" not in frame.f_code.co_filename:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif kind == "opcode":
            steps[0] += 1
        return trace

    here = sys.gettrace()
    emulator.change(lambda _: sys.settrace(trace))
    sys.settrace(trace)
    try:
        yield steps
    finally:
        sys.settrace(here)
        emulator.change(lambda _: sys.settrace(None))


def requests_of(api: Api, number: int) -> dict[str, Callable[[], Any]]:
    """Return what clients do with one runtime, in this order."""
    app, name = app_of(number), f"r{number}"
    opened: list[Runtime] = []
    jobs: list[str] = []
    schema = {"functionName": "g", "inputs": [], "output": {}}
    return {
        "open": lambda: opened.append(api.open(name, app)),
        "reset": lambda: opened.append(api.open(name, app)),
        "post schemas": lambda: opened[-1].post_schemas([schema]),
        "empty poll": lambda: opened[-1].poll(None),
        "submit": lambda: jobs.append(api.submit("g", rid=app)),
        "status": lambda: api.status(jobs[0]),
        "take": lambda: jobs.append(opened[-1].take_id()),
        "inspect": lambda: opened[-1].inspect(jobs[0]),
        "post result": lambda: opened[-1].post_result(jobs[0], "1"),
        "result": lambda: api.result(jobs[0]),
        "function": lambda: api.contour("GET", f"{QUERIES}/com.app-{number}.computemodules.g"),
        "call": lambda: api.contour(
            "POST", f"{QUERIES}/com.app-{number}.computemodules.g/executeAsync", json={"parameters": {}}
        ),
        "call by name": lambda: api.contour("POST", f"{QUERIES}/g/executeAsync", json={"parameters": {}}),
        "runtimes": lambda: api.contour("GET", f"{RUNTIMES}?limit=10"),
        "runtime": lambda: opened[-1].show()["schemas"],
        "jobs": lambda: api.contour("GET", f"{RUNTIMES}/{name}/jobs"),
        "unknown job": lambda: api.result(f"foundry_job_{'0' * 32}"),
        "delete": lambda: opened[-1].send("DELETE", opened[-1].uri),
    }


def work(emulator: Emulator, number: int) -> dict[str, int]:
    """Return how many steps each request takes."""
    api = Api(emulator.url, emulator.token)
    found = {}
    for what, act in requests_of(api, number).items():
        with counted(emulator) as steps:
            act()
        found[what] = steps[0]
    return found


@pytest.mark.parametrize("journal", [False, True], ids=["without a journal", "with a journal"])
def test_a_request_takes_the_same_work_however_many_runtimes_there_are(
    serve: Serve, tmp_path: Path, *, journal: bool
) -> None:
    with serve(**({"journal": str(tmp_path / "j.db")} if journal else {})) as emulator:
        open_sessions(emulator, 0, FEW)
        work(emulator, 5_000)  # Python 3.13 counts a function's steps from its second call on
        few = work(emulator, 5_001)
        open_sessions(emulator, FEW, MANY)
        many = work(emulator, 5_002)
        assert {what: (few[what], steps) for what, steps in many.items() if steps > 1.5 * few[what]} == {}


def test_looking_and_calling_take_the_same_work_however_many_runtimes_there_are(serve: Serve) -> None:
    now = time.time_ns()

    def look(emulator: Emulator) -> dict[str, int]:
        acts: dict[str, Callable[[], Any]] = {
            "submit": lambda: emulator.submit("f7", {}),
            "open": lambda: emulator.open_runtime("another"),
            "repr": lambda: repr(emulator),
            "flow": lambda: flow_part(emulator, emulator.board.figures(now), now),
            "jobs": lambda: jobs_part(emulator.lifecycle, JobList(emulator.lifecycle, JobFilter()), JobRows(), 50),
            "runtimes": lambda: runtimes_part(emulator, now),
            "functions": lambda: FunctionList(emulator).cards(),
            "histories": lambda: FunctionList(emulator).histories(),
        }
        found = {}
        for what, act in acts.items():
            with counted(emulator) as steps:
                act()
            found[what] = steps[0]
        return found

    with serve() as emulator:
        open_sessions(emulator, 0, MAX_FUNCTIONS)
        emulator.change(lambda lifecycle: [lifecycle.submit("r1", "f1", b"{}") for _ in range(60)])
        emulator.open_runtime("another")
        look(emulator)
        few = look(emulator)
        open_sessions(emulator, MAX_FUNCTIONS, 3 * MAX_FUNCTIONS)
        many = look(emulator)
        assert {what: (few[what], steps) for what, steps in many.items() if steps > 1.5 * few[what]} == {}
        cards = FunctionList(emulator).cards()
        assert (len(cards["rows"]), cards["every"]) == (500, 1_500)


def test_cancelling_one_job_takes_the_same_work_however_many_there_are(serve: Serve) -> None:
    with serve() as emulator:
        api = Api(emulator.url, emulator.token)
        api.open("r", app_of(1))

        def cancel_one() -> int:
            job_id = api.submit("f", rid=app_of(1))
            with counted(emulator) as steps:
                answer = api.contour("POST", f"{tools.JOBS}/cancel", json={"jobs": job_id})
            assert answer.json() == {"cancelled": 1}
            return steps[0]

        cancel_one()
        few = cancel_one()
        emulator.change(lambda lifecycle: [lifecycle.submit("r", "f", b"{}") for _ in range(2_000)])
        assert cancel_one() < 1.5 * few


def test_opening_a_session_writes_the_same_to_a_journal_however_many_there_are(serve: Serve, tmp_path: Path) -> None:
    with serve(journal=str(tmp_path / "j.db")) as emulator:
        api = Api(emulator.url, emulator.token)
        file = emulator._engine.identity._journal_file  # noqa: SLF001
        assert file is not None

        def written(number: int) -> int:
            statements: list[str] = []
            file.connection.set_trace_callback(statements.append)
            api.open(f"r{number}", app_of(number))
            file.connection.set_trace_callback(None)
            assert len(statements) > 5
            return sum(map(len, statements))

        open_sessions(emulator, 0, FEW)
        few = written(5_000)
        open_sessions(emulator, FEW, MANY)
        assert written(5_001) < 1.5 * few
        # Some of them end, move and come back: what is in the file is what there was, in its order.
        for number in (3, 5_000):
            emulator.runtime(f"r{number}").delete()
        for number in (5_000, 7):
            api.open(f"r{number}", app_of(9))
        before = (emulator.lifecycle.runtimes(), emulator.lifecycle.deployed_apps())
    with serve(journal=str(tmp_path / "j.db")) as emulator:
        assert (emulator.lifecycle.runtimes(), emulator.lifecycle.deployed_apps()) == before


def test_an_export_of_many_runtimes_gives_the_loop_back_and_is_whole(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as emulator:
        open_sessions(emulator, 0, MANY)
        with counted(emulator) as steps, turns(emulator, monkeypatch, session_file, "_fields") as counts:
            exported = Api(emulator.url, emulator.token).contour("GET", tools.EXPORT)
        # A runtime, its binding, its schema and its three events; each has about twenty fields.
        assert steps[0] < 6 * 20 * 100 * MANY
        assert max(counts) <= MAX_RECORDS_OF_A_TURN
        path = tmp_path / "run.json"
        path.write_bytes(exported.content)
        assert len(Emulator.from_export(path).lifecycle.runtimes()) == MANY


# Schemas


def test_the_closest_name_is_found_with_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = [0]

    class Counting(difflib.SequenceMatcher):  # type: ignore[type-arg]
        def find_longest_match(self, *args: Any, **kwargs: Any) -> Any:
            compared[0] += 1
            return super().find_longest_match(*args, **kwargs)

    monkeypatch.setattr(difflib, "SequenceMatcher", Counting)
    letters = "a" * 100
    names = [letters[:number] + "b" + letters[number:] for number in range(100)]
    assert "Did you mean '" in closest(letters, (f"{name}{end}" for end in range(200) for name in names))
    assert 0 < compared[0] <= 5 * MAX_RATIOS
    assert closest("functoin", [*(f"name{number}" for number in range(900)), "function"]) == " Did you mean 'function'?"
    assert closest("other", ["name", "function"]) == ""


def test_functions_are_found_by_their_rids_in_one_pass_that_gives_the_loop_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as emulator:
        api = Api(emulator.url, emulator.token)
        schema = b'{"inputs": [], "output": {"type": "single", "single": {"dataType": {"type": "integer"}}}}'
        api.open("r", app_of(1))
        names = [f"f{number}" for number in range(4_000)]
        emulator.change(lambda lifecycle: lifecycle.post_schemas("r", [(name, schema) for name in names]))
        rids = [find_query(emulator.lifecycle, name).rid for name in names[:99]]
        asked = [{"rid": rid} for rid in [*rids, "ri.function-registry.main.function.none"]]
        with turns(emulator, monkeypatch, queries, "_rid") as counts:
            answer = api.contour("POST", f"{QUERIES}/getByRidBatch", json=asked).json()
        assert [each["displayName"] for each in answer["data"]] == names[:99]
        assert sum(counts) == len(names)
        assert max(counts) <= MAX_QUERIES_OF_A_TURN
        with turns(emulator, monkeypatch, queries, "read_exactly") as counts:
            assert api.contour("GET", f"{QUERIES}/getByRid?rid={rids[5]}").json()["displayName"] == "f5"
            assert api.contour("GET", f"{QUERIES}/unknown").status_code == 404
        assert sum(counts) == 1
        with turns(emulator, monkeypatch, ontologies, "query_record") as in_turns:
            full = api.contour("GET", f"{ONTOLOGIES}/any/fullMetadata").json()["queryTypes"]
            page = api.contour("GET", f"{ONTOLOGIES}/any/queryTypes?pageSize=1000").json()["data"]
        assert (len(full), len(page), sum(in_turns)) == (len(names), 1000, len(names) + 1000)
        assert max(in_turns) <= MAX_RECORDS_OF_A_TURN
