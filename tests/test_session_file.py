"""`emu.export` and `Emulator.from_export`: a session as a file, to be looked at later and elsewhere."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from client import RID, Api

from cmemu_nb import Emulator
from cmemu_nb.dashboard.activity import figures
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.dashboard.job_detail import job_part
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.dashboard.summary import summary
from cmemu_nb.errors import ExportWarning, FunctionError, JobFailed, NotRunning, SessionFileError
from cmemu_nb.lifecycle.snapshot import SavedDataset, SavedStream
from cmemu_nb.storage.session_file import replacing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("arrow_pipe")
BODIES = [b"", b"42", b'{"exception":"no"}', b"\xff\x00", "ü\u2028\U0001f600".encode()]


def test_files_that_are_written_into_one_folder_at_a_time_are_each_whole(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with replacing(first, overwrite=False) as one, replacing(second, overwrite=False) as other:
        one.write(b"first")
        other.write(b"second")
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")
    assert sorted(tmp_path.iterdir()) == [first, second]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


@pytest.fixture
def emu(serve: Callable[..., Any]) -> Any:
    """An emulator in which much has happened."""
    with serve(keep_jobs=9) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("ü/r", RID, displayName="<My App>")
        api.open("other", RID, branch="dev")
        runtime.post_schemas([{"functionName": "f", "inputs": [], "x": 10**30}])
        jobs = [api.submit("f", {"n": n}) for n in range(10)]
        for job_id, body in zip(jobs, [b"gone", *BODIES], strict=False):
            assert runtime.take_id() == job_id
            runtime.post_result(job_id, body, Content_Type="text/x")
        runtime.fail(runtime.take_id(), "why not")
        runtime.take()
        emulator.lifecycle.log(jobs[7]).write("printed \ud800\n")
        yield emulator


def frames(emulator: Emulator) -> dict[str, pd.DataFrame]:
    names = ("runtimes", "jobs", "schemas", "deployed_apps")
    return {name: getattr(emulator, name) for name in names} | {"events": emulator.event_frame(all=True)}


def test_the_frames_of_a_file_are_those_of_the_session(emu: Emulator, path: Path) -> None:
    again = Emulator.from_export(emu.export(path))
    read = frames(again)
    # Unfinished jobs count up to the moment of the export, in the session up to now.
    expected, finished = frames(emu), emu.jobs["completed_at"].notna()
    for name, frame in read.items():
        other = expected[name]
        if name == "jobs":
            frame, other = frame[finished], other[finished]  # noqa: PLW2901 - only these stand still
        pd.testing.assert_frame_equal(frame, other)
    assert list(again.jobs["status"]) == list(emu.jobs["status"])
    assert dict(again.lifecycle.logs()) == dict.fromkeys(emu.lifecycle.logs(), "printed ?\n")


WRITE = """
from cmemu_nb.lifecycle.datasets import TransactionType
emu.datasets["in"] = [{"id": 1, "name": "one"}, {"id": 2, "name": None}]
emu.datasets["in"].append([{"id": 3, "name": "three"}])
rid = emu.datasets["in"].rid
opened = emu.change(lambda state: state.open_transaction(rid, TransactionType.UPDATE)).rid
emu.change(lambda state: [state.put_file(rid, opened, path, path.encode() * 10) for path in ("", "a", "b/ü")[1:]])
emu.streams.create("events", {"sensor": "STRING", "price": "DECIMAL"}, partitions=2, keys=["sensor"])
emu.streams["events"].publish([{"sensor": each, "price": f"0.{'1' * 30}"} for each in "abcabc"])
emu.change(lambda state: state.create_subscriber(emu.streams["events"].rid, "master", "me", {}, (1, 0)))
"""


def test_datasets_and_streams_are_in_the_file_and_read_only(serve: Callable[..., Any], path: Path) -> None:
    with serve(keep_records=5) as emu:
        exec(WRITE, {"emu": emu})
        again = Emulator.from_export(emu.export(path))
        assert SavedDataset.of(again.datasets["in"].history) == SavedDataset.of(emu.datasets["in"].history)
        logs = [each.lifecycle.data_stream(emu.streams["events"].rid) for each in (emu, again)]
        assert SavedStream.of(logs[1]) == SavedStream.of(logs[0])
        assert again.lifecycle.subscribers() == emu.lifecycle.subscribers()
        assert again.lifecycle.data_bytes == emu.lifecycle.data_bytes
        pd.testing.assert_frame_equal(again.datasets["in"].frame(), emu.datasets["in"].frame())
        pd.testing.assert_frame_equal(again.streams["events"].frame(), emu.streams["events"].frame())
        assert again.streams["events"].end_offsets == emu.streams["events"].end_offsets
        with pytest.raises(NotRunning, match="read-only"):
            again.datasets["in"] = [{"id": 1}]


def test_what_does_not_fit_is_left_out_and_named_by_both(serve: Callable[..., Any], path: Path) -> None:
    with serve() as emu:
        emu.streams["events"] = [{"x": 1}]
        emu.datasets["large"] = pd.DataFrame({"x": range(100_000)})
        emu.datasets["small"] = [{"x": 1}]
        said = r"run.json does not have the dataset 'large' \([0-9,]+ bytes\). Export it with a larger max_data_bytes"
        with pytest.warns(ExportWarning, match=said):
            emu.export(path, max_data_bytes=50_000)
        with pytest.warns(ExportWarning, match=said):
            again = Emulator.from_export(path)
        assert [*again.datasets, *again.streams] == ["small", "events"]
        with pytest.warns(
            ExportWarning, match="the dataset 'large' .*, the dataset 'small' .* and the stream 'events'"
        ):
            emu.export(path, overwrite=True, max_data_bytes=0)


def test_times_of_unfinished_jobs_stand_still(emu: Emulator, path: Path) -> None:
    again = Emulator.from_export(emu.export(path))
    first, second = again.jobs, again.jobs
    pd.testing.assert_frame_equal(first, second)
    assert again.jobs["run_time"][again.jobs["status"] == "running"].gt(pd.Timedelta(0)).all()
    assert again.jobs["queue_time"].gt(pd.Timedelta(0)).all()


def test_results_can_be_read_and_nothing_can_be_run(emu: Emulator, path: Path) -> None:
    again = Emulator.from_export(emu.export(path))
    jobs = again.lifecycle.jobs()
    assert [again.job(job.job_id).raw() for job in jobs[:5]] == BODIES
    assert again.job(jobs[1].job_id).result() == 42
    with pytest.raises(FunctionError, match="no"):
        again.job(jobs[2].job_id).result()
    with pytest.raises(JobFailed, match="why not"):
        again.job(jobs[5].job_id).result()
    for attempt in (again.start, again.job(jobs[-1].job_id).result, lambda: again.submit("f"), again.reset):
        with pytest.raises(NotRunning, match=r"read from .*run\.json and is read-only"):
            attempt()
    assert repr(again) == (
        "<Emulator, read from a file: 2 runtimes, 9 jobs (2 queued, 1 running, 4 ok, 1 function error, 1 failed)>"
    )


def test_timeline_latency_and_dashboard_work_on_it(emu: Emulator, path: Path) -> None:
    again = Emulator.from_export(emu.export(path))
    for chart, other in ((again.timeline(), emu.timeline()), (again.latency(), emu.latency())):
        assert chart._repr_mimebundle_().keys() == other._repr_mimebundle_().keys()
        assert f"{chart!r}".splitlines()[0].split()[:3] == f"{other!r}".splitlines()[0].split()[:3]
    now = again.looked_at()
    assert "is read-only" in flow_part(again, figures([], now, now), now)["hint"]
    assert [row["name"] for row in runtimes_part(again, now)["rows"]] == ["ü/r", "other"]
    for job in again.lifecycle.jobs():
        assert job_part(again, job.job_id, now)["function"] == "f"
    assert "9 jobs" in repr(again)
    assert "3 running" not in summary(again)
    assert "succeeded" in summary(again)


def test_a_file_has_no_whole_token_and_is_for_its_owner(emu: Emulator, path: Path) -> None:
    emu.env("other")
    text = emu.export(path).read_text("utf-8")
    tokens = [emu.token, *(runtime.module_auth_token for runtime in emu.lifecycle.runtimes())]
    tokens += [replica.token for replica in emu.lifecycle.replicas("other")]
    assert [token for token in tokens if token in text] == []
    assert f"…{tokens[1][-4:]}" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_stopped_emulator_and_a_file_can_be_exported_again(path: Path) -> None:
    with Emulator(port=0, home="thread") as emulator:
        emulator.open_runtime("r", RID)
        emulator.submit("f")
    emulator.export(path)
    other = path.with_name("again.json")
    Emulator.from_export(path).export(other)
    assert json.loads(other.read_text("utf-8")) == json.loads(path.read_text("utf-8"))


def test_a_file_that_exists_is_replaced_only_on_demand(emu: Emulator, path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(SessionFileError, match=r"exists and was left as it is.*overwrite=True"):
        emu.export(path)
    assert path.read_text() == "mine"
    emu.export(path, overwrite=True)
    assert Emulator.from_export(path).lifecycle.count() == emu.lifecycle.count()
    assert [each.name for each in path.parent.iterdir()] == ["run.json"]


def test_a_path_that_cant_be_written_is_one_sentence(emu: Emulator, tmp_path: Path) -> None:
    with pytest.raises(SessionFileError, match="can't be written: No such file"):
        emu.export(tmp_path / "missing" / "run.json")


def test_files_that_are_no_session_are_refused(emu: Emulator, path: Path) -> None:
    emu.export(path)
    good = json.loads(path.read_text("utf-8"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"format": "other"}, "is not an exported session"),
        ({"version": 2}, r"newer cmemu_nb \(its version is 2"),
        ({"jobs": [{}]}, "is damaged"),
        ({"runtimes": []}, "but not the runtime"),
        ({"events": None}, "is damaged"),
        ({"logs": {"x": 1}}, "is damaged"),
        ({"exported_at": "now"}, "is damaged"),
    ]
    for change, said in cases:
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(SessionFileError, match=said):
            Emulator.from_export(path)
    for text in ("", "[]", "{", "\ud800".encode(errors="surrogatepass")):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SessionFileError, match=r"is damaged|is not an exported"):
            Emulator.from_export(path)
    with pytest.raises(SessionFileError, match="No such file"):
        Emulator.from_export(path.with_name("none.json"))
