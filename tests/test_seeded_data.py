"""Datasets and streams with which an emulator starts: `Emulator(datasets=..., streams=...)` and the seed file."""

from __future__ import annotations

import datetime as dt
import io
import sys
from typing import TYPE_CHECKING, Any

import fastavro
import pandas as pd
import pytest
from test_magics import only_shell, run, shell

from cmemu_nb import Emulator
from cmemu_nb.errors import SeedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["only_shell", "run", "shell"]  # fixtures of the tests of the magics

pytestmark = pytest.mark.usefixtures("arrow_pipe")
RID = "ri.foundry.main.dataset.of-the-platform"
SEED = f"""
foundry:
  compute_modules:
    runtimes:
      - runtime_id: pipeline
        configuration: {{mode: pipeline, aliases: {{in: csv, out: out, events: events}}}}
  datasets:
    csv: {{path: data/in.csv, rid: {RID}}}
    parquet: data/in.parquet
    avro: {{path: data/in.avro}}
    rows: [{{id: 1, day: 2026-01-31}}, {{id: 2, day: null}}]
    out:
  streams:
    events:
      schema: {{sensor: STRING, at: TIMESTAMP}}
      records: [{{sensor: a, at: 1}}]
      partitions: 2
      keys: [sensor]
    inferred: [{{n: 1}}, {{n: 2}}]
    of-file: {{path: data/in.csv}}
    empty: {{schema: {{n: LONG}}}}
settings: {{port: 0, home: thread}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "in.csv").write_text("id,name\n1,one\n2,\n", "utf-8")
    pd.DataFrame({"id": [1, 2]}).to_parquet(folder / "in.parquet")
    avro, schema = io.BytesIO(), {"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}
    fastavro.writer(avro, schema, [{"id": 7}])
    (folder / "in.avro").write_bytes(avro.getvalue())
    path = tmp_path / "seed.yaml"
    path.write_text(SEED, "utf-8")
    return path


def check(emu: Emulator) -> None:
    """Compare the data with what the file says."""
    assert [*emu.datasets] == ["csv", "parquet", "avro", "rows", "out"]
    assert emu.datasets["csv"].rid == RID
    assert [emu.datasets[name].frame()["id"].to_list() for name in ("csv", "parquet", "avro", "rows")] == [
        *([1, 2], [1, 2], [7], [1, 2])
    ]
    assert emu.datasets["csv"].schema == {"id": "LONG", "name": "STRING"}
    assert emu.datasets["rows"].frame()["day"][0] == dt.date(2026, 1, 31)
    assert emu.datasets["out"].files.empty
    assert [*emu.streams] == ["events", "inferred", "of-file", "empty"]
    assert emu.streams["events"].schema == {"sensor": "STRING", "at": "TIMESTAMP"}
    assert emu.streams["events"].partitions == 2
    assert emu.streams["inferred"].records == [{"n": 1}, {"n": 2}]
    assert emu.streams["of-file"].records == [{"id": 1, "name": "one"}, {"id": 2, "name": None}]
    assert len(emu.streams["empty"]) == 0


def test_the_data_of_a_seed_file_are_there_and_come_back_with_a_reset(path: Path) -> None:
    with Emulator.from_seed(path) as emu:
        check(emu)
        assert emu.lifecycle.configuration("pipeline").aliases["in"]["rid"] == RID
        [told] = [each.detail for each in emu.lifecycle.events.recent() if each.kind == "seed_applied"]
        assert told == f"1 runtime, 0 deployed apps, 5 datasets, 4 streams of {path}"
        emu.datasets["csv"] = [{"other": 1}]
        emu.streams["events"].publish([{"sensor": "b", "at": 2}])
        del emu.datasets["avro"]
        emu.datasets["mine"] = [{"x": 1}]
        emu.reset()
        check(emu)


def test_the_data_given_in_python_are_there_and_come_back_with_a_reset(path: Path) -> None:
    frame = pd.DataFrame({"id": [1, 2], "price": [1.5, None]})
    datasets: dict[str, Any] = {"in": frame, "file": path.parent / "data" / "in.csv", "out": None}
    streams = {"events": frame, "typed": {"schema": {"n": "BYTE"}, "records": [{"n": 1}], "rid": RID}}
    with Emulator(port=0, home="thread", datasets=datasets, streams=streams) as emu:
        for _ in range(2):
            pd.testing.assert_frame_equal(emu.datasets["in"].frame(), frame)
            pd.testing.assert_frame_equal(emu.streams["events"].frame(), frame)
            assert emu.datasets["file"].frame()["id"].to_list() == [1, 2]
            assert emu.datasets["out"].files.empty
            assert (emu.streams["typed"].schema, emu.streams["typed"].rid) == ({"n": "BYTE"}, RID)
            emu.datasets["in"].append([{"id": 3}])
            emu.streams["typed"].publish({"n": 2})
            emu.reset()
        assert "seed" not in repr(emu)


def test_a_journal_keeps_what_became_of_the_data(path: Path, tmp_path: Path) -> None:
    journal = str(tmp_path / "lifecycle.db")
    with Emulator.from_seed(path, journal=journal) as emu:
        emu.datasets["csv"].append([{"id": 3, "name": "three"}])
        emu.streams["inferred"].publish({"n": 3})
        del emu.datasets["avro"]
    with Emulator.from_seed(path, journal=journal) as again:
        assert again.datasets["csv"].frame()["id"].to_list() == [1, 2, 3]
        assert len(again.streams["inferred"]) == 3
        assert "avro" in again.datasets  # as a runtime that was deleted, it is made again
        [told] = [each.detail for each in again.lifecycle.events.recent() if each.kind == "seed_applied"]
        assert "kept as they were: 'pipeline', 'csv', 'parquet', 'rows', 'out', 'events', 'inferred', 'of-file'" in str(
            told
        )


REFUSED = [
    ("datasets: {a: {path: none.csv}}", "line 1: datasets.a: The file '", "none.csv' can't be read: No such file or d"),
    (
        "datasets: {a: {paht: x}}",
        "line 1: unknown key 'paht' in datasets.a. Did you mean 'path'? The keys are path, rows,",
    ),
    ("datasets: {a: 7}", "line 1: datasets.a: A dataset can't be made of 7. Give a DataFrame"),
    ("datasets: {a: {rows: [{x: 1}], path: x.csv}}", "datasets.a: it has both a path and rows. Give one of them."),
    ("datasets: {a: {path: [x]}}", "datasets.a: path must be text, not ['x']."),
    ("datasets: {a: {rid: x}}", "datasets.a: 'x' is no RID."),
    ("datasets: {a/b: {}}", "datasets.a/b: 'a/b' can't be the name of a dataset"),
    ("datasets: [a]", "line 1: datasets must be a mapping of names, each with its data, not a list."),
    ("datasets: {1: {}}", "line 1: a name of datasets must be text, not a number; put it in quotes."),
    ("datasets: {a: {}}, streams: {a: [{x: 1}]}", "line 1: streams has the name 'a' that line 1 has already."),
    ("streams: {a: }", "line 1: streams.a: a stream needs a schema, records, or both."),
    ("streams: {a: {schema: {x: TEXT}}}", "streams.a: The field 'x' of the stream's schema: There is no type 'TEXT'."),
    ("streams: {a: {schema: {x: LONG}, records: [{y: 1}]}}", "streams.a: Record 0 does not match the schema"),
    ("streams: {a: {schema: {x: LONG}, keys: x}}", "streams.a: keys must be a list of names of fields, not 'x'."),
    ("streams: {a: {schema: {x: LONG}, partitions: 0}}", "streams.a: A stream has from 1 to 100 partitions, not 0."),
    ("streams: {a: {schema: {x: LONG}, partitions: two}}", "streams.a: partitions must be a number, not 'two'."),
    ("streams: {a: {records: [{x: 1}], keys: [y]}}", "streams.a: The schema has no field 'y', which is to be a key."),
    ("streams: {a: {records: [1]}}", "streams.a: "),
    ("streams: {a: {path: none.parquet}}", "streams.a: The file '"),
]


@pytest.mark.parametrize(
    ("text", "messages"), [(text, said) for text, *said in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_what_is_wrong_is_one_sentence_with_its_line(path: Path, text: str, messages: list[str]) -> None:
    path.write_text(f"foundry: {{{text}}}\n", "utf-8")
    with pytest.raises(SeedError) as refused:
        Emulator.from_seed(path)
    said = str(refused.value)
    assert all(message in said for message in messages), said
    assert "\n" not in said
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"datasets": {"in": {"paht": "x"}}},
            r"datasets\['in'\]: unknown key 'paht'. Did you mean 'path'\? The keys are",
        ),
        ({"datasets": {"in": "none.csv"}}, r"datasets\['in'\]: The file 'none.csv' can't be read: No such file"),
        ({"streams": {"in": 7}}, r"streams\['in'\]: int can't be published"),
        ({"datasets": {"x": None}, "streams": {"x": [{"a": 1}]}}, "A dataset and a stream can't both be named 'x'"),
    ],
)
def test_what_is_wrong_in_python_is_one_sentence(given: Any, message: str) -> None:
    with pytest.raises(SeedError, match=message):
        Emulator(**given)


def test_without_pyarrow_the_message_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SeedError, match=r"seed.yaml, line 8: datasets.csv: .*pip install 'cmemu_nb\[data\]'"):
        Emulator.from_seed(path)


def test_the_magic_starts_with_the_data_and_says_that_they_are_there_again(
    path: Path, run: Callable[[str], tuple[Any, str]], shell: Any
) -> None:
    run(f"%cmemu start --seed {path}")
    check(shell.user_ns["emu"])
    assert "already running" not in run(f"%cmemu start --seed {path}")[1]  # it is the same seed
    shell.user_ns["emu"].datasets["mine"] = [{"x": 1}]
    assert "The datasets and streams of the start are there again." in run("%cmemu reset")[1]
    check(shell.user_ns["emu"])
    run("%cmemu stop")
