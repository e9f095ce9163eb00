"""An exported session that was damaged: it is refused with one sentence, or every view of it works."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, Api

from cmemu_nb import Emulator
from cmemu_nb.dashboard.activity import activity_of, figures
from cmemu_nb.dashboard.data import DataList
from cmemu_nb.dashboard.events import EventFilter, EventList
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.dashboard.functions import FunctionList, form_part
from cmemu_nb.dashboard.job_detail import job_part
from cmemu_nb.dashboard.job_list import JobFilter, JobList
from cmemu_nb.dashboard.job_rows import JobRows, choices_part, jobs_part
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.dashboard.summary import summary
from cmemu_nb.errors import CmemuError, SessionFileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("arrow_pipe")]

TIMES = 5_000 if os.environ.get("CMEMU_LONG") else 250
SEED = 20_261_130
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**53, 2**62, 2**63 - 1, 2**63, -(2**63), 10**400, 0.5, 1e308),
    *("", " ", "x", "ü\u2028", "\ud800", "\x00", "null", "running", "queued", "succeeded", "x" * 5_000, "<b>", "%s{}"),
    *([], {}, [[]], [None], {"": None}, [[[[[[]]]]]], {"a": {"b": {"c": 1}}}),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What `emu.export` writes of a session in which much has happened."""
    path = tmp_path_factory.mktemp("export") / "run.json"
    with Emulator(port=0, home="thread", keep_jobs=9) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("ü/r", RID, displayName="<My App>")
        api.open("other", RID, branch="dev")
        schema = {"functionName": "f", "inputs": [{"name": "n", "dataType": {"type": "integer"}, "required": True}]}
        runtime.post_schemas([schema, {"functionName": "g", "x": 10**30}])
        jobs = [api.submit("f", {"n": n}) for n in range(9)]
        for job_id, body in zip(jobs, [b"gone", b"", b"42", b'{"exception":"no"}', b"\xff\x00"], strict=False):
            assert runtime.take_id() == job_id
            runtime.post_result(job_id, body, Content_Type="text/x")
        runtime.fail(runtime.take_id(), "why not")
        runtime.take()
        emulator.lifecycle.log(jobs[4]).write("printed\n")
        emulator.datasets["in"] = [{"n": 1, "text": None}]
        emulator.streams["events"] = [{"n": 1, "text": "a"}, {"n": 2, "text": None}]
        emulator.change(lambda state: state.create_subscriber(emulator.streams["events"].rid, "master", "me", {}, (0,)))
        emulator.export(path)
    return path.read_bytes()


def look(emulator: Emulator) -> None:
    """Show all that can be shown."""
    state, now = emulator.lifecycle, emulator.looked_at()
    for name in ("runtimes", "jobs", "schemas", "deployed_apps"):
        repr(getattr(emulator, name))
    repr(emulator.event_frame(all=True))
    for each in (emulator, emulator.functions, emulator.timeline(), emulator.latency()):
        repr(each)
        each._repr_mimebundle_()
    for job in state.jobs():
        handle = emulator.job(job.job_id)
        handle._repr_mimebundle_()
        repr((job, job.wire(), handle, handle.logs, handle.outcome, handle.diagnosis))
        for read in (handle.raw, handle.result):
            with contextlib.suppress(CmemuError):
                read(timeout=0)
        job_part(emulator, job.job_id, now)
    for runtime in state.runtimes():
        shown = emulator.runtime(runtime.runtime_id)
        shown._repr_mimebundle_()
        repr((runtime, runtime.wire(), shown))
    for schema in state.schemas():
        form_part(emulator, schema)
        schema.wire()
    flow_part(emulator, figures([activity_of(state.jobs(), now)], now, now), now)
    jobs_part(state, JobList(state, JobFilter()), JobRows(), 50)
    functions = FunctionList(emulator)
    for part in (runtimes_part(emulator, now), functions.cards(), functions.histories(), choices_part(state)):
        json.dumps(part)
    json.dumps(EventList(EventFilter(all=True)).part(state.events, state))
    summary(emulator)
    look_at_data(emulator)
    [event.wire() for event in state.events.recent(all=True)]


def look_at_data(emulator: Emulator) -> None:
    json.dumps(DataList(emulator.lifecycle).part())
    for mapping in (emulator.datasets, emulator.streams):
        repr(mapping)
        for each in mapping.values():
            repr(each)
            with contextlib.suppress(CmemuError):
                each.frame()
    for dataset in emulator.datasets.values():
        repr((dataset.transactions, dataset.branches))
        with contextlib.suppress(CmemuError):  # its branch master may be missing
            repr(dataset.files)


def places(document: Any) -> list[tuple[Any, Any]]:
    """Return each place in a document: what it is in, and its key there."""
    if not isinstance(document, dict | list):
        return []
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    return [(document, key) for key in keys] + [each for key in keys for each in places(document[key])]


def mutated(text: bytes, rng: random.Random) -> bytes:
    """Return a text with some damage: in its bytes, or in the document that it is."""
    if rng.random() < 0.25:
        changed = bytearray(text)
        for _ in range(rng.choice((1, 1, 5))):
            place = rng.randrange(len(changed))
            kind = rng.randrange(4)
            if kind == 0:
                changed[place] = rng.randrange(256)
            elif kind == 1:
                changed[place] ^= 1 << rng.randrange(8)
            elif kind == 2:
                del changed[place : place + rng.randrange(1, 50)]
            else:
                changed[place:place] = rng.randbytes(rng.randrange(1, 5))
        return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.1 else changed)
    document = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        there = places(document)
        inside, key = rng.choice(there)
        kind = rng.randrange(5)
        if kind == 0:
            del inside[key]
        elif kind == 1:
            other, other_key = rng.choice(there)
            with contextlib.suppress(KeyError, IndexError):
                inside[key] = copy.deepcopy(other[other_key])
        elif kind == 2 and isinstance(inside, list):
            inside.insert(key, copy.deepcopy(inside[key]))
        else:
            inside[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(document).encode()


def opened(path: Path) -> Emulator | str:
    """Return the session of a file, or why it is refused."""
    try:
        return Emulator.from_export(path)
    except SessionFileError as error:
        return str(error)


def test_a_damaged_file_is_refused_with_one_sentence_or_shown(exported: bytes, tmp_path: Path) -> None:
    path, rng, shown = tmp_path / "run.json", random.Random(SEED), 0
    for number in range(TIMES):
        text = mutated(exported, rng)
        path.write_bytes(text)
        found = opened(path)
        if isinstance(found, str):
            assert found.startswith(f"{path} ")
            assert len(found.splitlines()) == 1
            continue
        try:
            look(found)
            found.export(path, overwrite=True)
            Emulator.from_export(path)
        except Exception as error:
            (tmp_path / "crash.json").write_bytes(text)
            raise AssertionError(f"mutation {number} of seed {SEED} was taken, and then a view crashed") from error
        shown += 1
    assert 0 < shown < TIMES


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda session: session["jobs"][3].update(queued_at=2**70), "at jobs[3]: queued_at must be a number from 0"),
        (lambda session: session["jobs"][0].update(status="queued"), "at jobs[0]: the job is queued, but its started_"),
        (lambda session: session["jobs"][1].update(query="{"), "at jobs[1]: its query is not JSON (Input data was tr"),
        (lambda session: session["events"][2].pop("kind"), "at events[2]: Object missing required field 'kind'"),
        (
            lambda session: session["runtimes"][0]["schemas"][1].update(posted_at=None),
            "at runtimes[0].schemas[1].posted",
        ),
        (lambda session: session["jobs"].append(session["jobs"][0]), "it has two jobs 'foundry_job_"),
        (lambda session: session["logs"].update(x="printed"), "at logs: it has the output of job 'x', but not the job"),
        (lambda session: session.update(events=None), "at events: Expected 'array', got 'null'"),
    ],
)
def test_it_says_where_and_what(exported: bytes, tmp_path: Path, change: Callable[[Any], object], said: str) -> None:
    session = json.loads(exported)
    change(session)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(session))
    assert f"{path} is damaged: {said}" in str(opened(path))


def test_it_says_at_which_byte_it_is_no_text(exported: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(exported.replace(b"why not", b"why \xff", 1))
    assert "can't decode byte 0xff in position" in str(opened(path))
