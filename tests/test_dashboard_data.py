"""What the dashboard says of datasets and streams, and when it reads their files."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmemu_nb import Emulator
from cmemu_nb.dashboard import data
from cmemu_nb.dashboard.data import MAX_ROWS, DataList
from cmemu_nb.dashboard.resource import MAX_COLUMNS, MAX_FIELDS, MAX_SHOWN, TOO_LARGE, Resource
from cmemu_nb.foundry import previews
from cmemu_nb.foundry.summaries import dataset_summary
from cmemu_nb.lifecycle.datasets import Reader, TransactionType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("arrow_pipe")]


@pytest.fixture(scope="module")
def only_emulator() -> Iterator[Emulator]:
    with Emulator(port=0, home="thread") as emulator:
        yield emulator


@pytest.fixture
def emu(only_emulator: Emulator) -> Iterator[Emulator]:
    yield only_emulator
    only_emulator.reset()


def part_of(emulator: Emulator, name: str, branch: str = "master") -> dict[str, Any]:
    found = emulator.datasets.get(name) or emulator.streams[name]
    return Resource(emulator).part([found.rid, branch])


def put(emulator: Emulator, name: str, path: str, body: bytes) -> None:
    """Commit a file as a program would."""
    rid = emulator.datasets[name].rid
    transaction = emulator.change(lambda state: state.open_transaction(rid, TransactionType.APPEND)).rid
    emulator.change(lambda state: state.put_file(rid, transaction, path, body))
    emulator.change(lambda state: state.commit_transaction(rid, transaction))


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def test_files_are_read_once_for_each_commit_and_lines_made_once_for_each_change(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, made = Mock(wraps=previews.newest_rows), Mock(wraps=dataset_summary)
    monkeypatch.setattr(previews, "newest_rows", reads)
    monkeypatch.setattr(data, "dataset_summary", made)
    emu.datasets["in"] = [{"n": 1}]
    emu.datasets.create("other")
    rid = emu.datasets["in"].rid
    part, lines = Resource(emu), DataList(emu.lifecycle)
    for _ in range(3):
        first = part.part([rid, "master"])
        listed = lines.part()
    assert (reads.call_count, made.call_count) == (1, 2)
    assert first["preview"]["rows"] == [["1"]]
    transaction = emu.change(lambda state: state.open_transaction(rid, TransactionType.APPEND)).rid
    emu.change(lambda state: state.put_file(rid, transaction, "x.csv", b"n\n2\n"))
    opened = part.part([rid, "master"])
    assert (reads.call_count, opened["open"][:40]) == (1, "A transaction of type APPEND is open sin")
    assert opened["preview"] == first["preview"]
    assert lines.part()["datasets"][1] is listed["datasets"][1]
    assert made.call_count == 3
    emu.change(lambda state: state.commit_transaction(rid, transaction))
    emu.datasets["in"].append([{"n": 3}])
    assert part.part([rid, "master"])["preview"]["note"] != ""
    assert reads.call_count == 2


def test_the_newest_rows_come_from_the_last_files_and_groups(emu: Emulator) -> None:
    emu.datasets["in"] = [{"n": n} for n in range(5)]
    for n in range(5, 30):
        emu.datasets["in"].append([{"n": n}])
    preview = part_of(emu, "in")["preview"]
    assert [row[0] for row in preview["rows"]] == [str(n) for n in range(29, 9, -1)]
    assert preview["note"] == "The last 20 rows of 30, the newest first."
    emu.datasets.create("groups")
    put(emu, "groups", "x.parquet", parquet(pa.table({"n": range(100)}), row_group_size=7))
    put(emu, "groups", "_SUCCESS", b"")
    preview = part_of(emu, "groups")["preview"]
    assert [row[0] for row in preview["rows"]] == [str(n) for n in range(99, 79, -1)]
    assert preview["columns"] == [{"name": "n", "type": "LONG", "number": True}]
    emu.datasets["empty"] = pd.DataFrame({"n": pd.Series([], dtype="int64")})
    assert part_of(emu, "empty")["preview"]["note"] == "There are no rows."


def test_what_is_too_large_or_damaged_is_said_and_not_read(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(previews, "MAX_GROUP_CELLS", 100)
    emu.datasets["many"] = [{"n": n} for n in range(101)]
    preview = part_of(emu, "many")["preview"]
    assert (preview["rows"][0], preview["newest"]) == (["0"], False)
    assert preview["note"] == "The first 20 rows of 101; the file is too large for a preview of the last ones."
    monkeypatch.setitem(previews.MAX_BYTES, Reader.CSV, 10)
    (tmp_path / "a.csv").write_text("a\n" + "1\n" * 10)
    emu.datasets["csv"] = tmp_path / "a.csv"
    assert "it has 22 bytes, too many for a preview" in part_of(emu, "csv")["preview"]["note"]
    emu.datasets.create("damaged")
    put(emu, "damaged", "<b>", b"PAR1 is its beginning")
    assert part_of(emu, "damaged")["preview"]["note"].startswith("The file '<b>' can't be read as a table: ")
    emu.datasets["cells"] = [{"text": "x" * 2_000_000, "nested": [1], "long": "y" * 500}]
    assert part_of(emu, "cells")["preview"]["rows"] == [[TOO_LARGE, "[1]", f"{'y' * 80}…"]]
    emu.datasets["wide"] = pd.DataFrame({f"c{number}": [1] for number in range(MAX_FIELDS + 5)})
    wide = part_of(emu, "wide")
    assert len(wide["preview"]["columns"]) == len(wide["preview"]["rows"][0]) == MAX_COLUMNS
    assert wide["preview"]["note"] == "All rows, without 185 further columns."
    assert (len(wide["fields"]["shown"]), wide["fields"]["more"]) == (MAX_FIELDS, "5")


def test_without_pyarrow_the_preview_says_what_to_install(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    emu.datasets["in"] = [{"n": 1}]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    part = part_of(emu, "in")
    assert "Type: pip install 'cmemu_nb[data]'" in part["preview"]["note"]
    assert part["fields"]["shown"] == [["n", "LONG"]]
    assert DataList(emu.lifecycle).part()["datasets"][0]["files"] == "1"


def test_times_that_python_does_not_know_and_bytes_are_shown(emu: Emulator) -> None:
    far = pa.array([2**62], pa.timestamp("us"))
    emu.datasets["in"] = pa.table({"far": far, "raw": [b"\x00\xff"], "null": pa.nulls(1)})
    rows = part_of(emu, "in")["preview"]["rows"]
    assert rows[0][1:] == ["b'\\x00\\xff'", None]
    assert rows[0][0]
    emu.datasets.create("twice")
    put(emu, "twice", "x.parquet", parquet(pa.table([[1], [2]], names=["a", "a"])))
    note = "Each file can be read, but all of them together can't be read as a table: Can't unify schema"
    assert part_of(emu, "twice")["preview"]["note"].startswith(note)


def test_a_stream_shows_its_newest_records_and_where_they_are(emu: Emulator) -> None:
    emu.streams.create("events", {"n": "LONG", "text": "STRING"}, partitions=2)
    handle = emu.streams["events"]
    assert part_of(emu, "events")["preview"]["note"] == ""
    handle.publish([{"n": n} for n in range(MAX_SHOWN + 5)])
    handle.publish({"n": -1, "text": "x" * 200_000})
    preview = part_of(emu, "events")["preview"]
    assert preview["rows"][0] == ["1: 12", TOO_LARGE, TOO_LARGE]
    assert preview["rows"][1] == ["0: 12", "24", None]
    assert len(preview["rows"]) == MAX_SHOWN
    assert preview["note"] == "The last 20 records of 26, the newest first."
    part = Resource(emu)
    before = part.part([handle.rid, "master"])
    assert part.part([handle.rid, "master"]) is before
    handle.reset()
    assert part.part([handle.rid, "master"])["preview"]["rows"] == []
    assert "removed" in part.part([handle.rid, "no-branch"])


def test_a_dataset_without_the_branch_and_a_deleted_one_are_shown(emu: Emulator) -> None:
    emu.datasets.create("in")
    rid = emu.datasets["in"].rid
    emu.change(lambda state: state.create_branch(rid, "mine"))
    emu.change(lambda state: state.delete_branch(rid, "master"))
    assert DataList(emu.lifecycle).part()["datasets"][0]["branch"] == "mine"
    assert part_of(emu, "in")["preview"]["note"] == "Nothing is committed on this branch."
    del emu.datasets["in"]
    assert Resource(emu).part([rid, "master"])["removed"] == "This was deleted."
    assert Resource(emu).part([]) == {}


def test_of_very_many_the_newest_are_listed(emu: Emulator) -> None:
    for number in range(MAX_ROWS + 3):
        emu.datasets.create(f"d{number}")
    listed = DataList(emu.lifecycle).part()
    assert (len(listed["datasets"]), listed["every_dataset"]) == (MAX_ROWS, MAX_ROWS + 3)
    assert listed["datasets"][-1]["name"] == f"d{MAX_ROWS + 2}"
