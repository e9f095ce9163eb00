"""Datasets in the notebook: a frame becomes one and comes back, files of three formats are read, all within a limit."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import math
import random
import re
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import fastavro
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import serving

from cmemu_nb.dashboard.resource import Resource
from cmemu_nb.errors import ApiError, CmemuError, InvalidRequest, PayloadTooLarge, UnknownData
from cmemu_nb.foundry.dataset_writes import upload
from cmemu_nb.lifecycle.datasets import TransactionType

if TYPE_CHECKING:
    from pathlib import Path

    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

pytestmark = pytest.mark.usefixtures("arrow_pipe")
BIG = 2**60 + 1
BERLIN = pd.DatetimeTZDtype("us", "Europe/Berlin")
COLUMNS: dict[str, Any] = {
    "id": pd.array([1, None, BIG], "Int64"),
    "price": [Decimal("1.50"), None, Decimal("123456.78")],
    "at": pd.Series([dt.datetime(2021, 6, 1, 12, 0, 0, 123456, dt.UTC), None, None]).astype(BERLIN),
    "day": [dt.date(2020, 2, 29), None, dt.date(1, 1, 1)],
    "raw": [b"\x00\xff", None, b""],
    "tags": [["a", None], None, []],
    "point": [{"x": BIG, "y": {"z": "ü"}}, None, {"x": None, "y": None}],
    "kind": pd.Categorical(["a", "b", None]),
    "text": ["ü\n", None, ""],
    "share": [1.5, math.inf, -0.0],
    "flag": pd.array([True, None, False], "boolean"),
    "small": np.array([1, 2, 255], "uint8"),
}
SCHEMA = {
    "id": "LONG",
    "price": "DECIMAL(38, 2)",
    "at": "TIMESTAMP",
    "day": "DATE",
    "raw": "BINARY",
    "tags": "ARRAY<STRING>",
    "point": "STRUCT<x: LONG, y: STRUCT<z: STRING>>",
    "kind": "STRING",
    "text": "STRING",
    "share": "DOUBLE",
    "flag": "BOOLEAN",
    "small": "SHORT",
}


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with None for what is missing."""
    missing = frame.map(lambda value: not isinstance(value, list | dict) and pd.isna(value))
    return frame.astype(object).mask(missing, None).to_dict("records")  # type: ignore[return-value]


def test_a_frame_comes_back_with_its_types_and_its_nulls(emu: Emulator) -> None:
    frame = pd.DataFrame(COLUMNS)
    emu.datasets["in"] = frame
    dataset = emu.datasets["in"]
    back = dataset.frame()
    assert rows(back) == rows(frame)
    assert back[["at", "id", "flag"]].dtypes.to_list() == [BERLIN, pd.Int64Dtype(), pd.BooleanDtype()]
    assert dataset.schema == SCHEMA
    assert dataset.rid.startswith("ri.foundry.main.dataset.")
    assert repr(dataset).startswith("<Dataset 'in': 3 rows, 12 columns, 1 file with ")


def test_an_arrow_table_and_rows_come_back_with_maps_and_integers_that_have_nulls(emu: Emulator) -> None:
    table = pa.table({"m": pa.array([[("a", BIG), ("b", None)], None], pa.map_(pa.string(), pa.int64()))})
    emu.datasets["m"] = table
    assert emu.datasets["m"].schema == {"m": "MAP<STRING, LONG>"}
    assert emu.datasets["m"].table().equals(table)
    assert emu.datasets["m"].frame()["m"].to_list() == [[("a", BIG), ("b", None)], None]
    emu.datasets["rows"] = [{"a": 1}, {"b": [1, None]}]
    assert rows(emu.datasets["rows"].frame()) == [{"a": 1, "b": None}, {"a": None, "b": [1, None]}]
    emu.datasets["rows"] = []
    assert emu.datasets["rows"].frame().empty


def test_appended_rows_keep_the_types_of_the_columns_and_may_add_some(emu: Emulator) -> None:
    emu.datasets["in"] = pd.DataFrame(COLUMNS)
    emu.datasets["in"].append([{"id": 4, "price": 2, "new": "x"}])
    back = emu.datasets["in"].frame()
    assert back["id"].to_list() == [1, pd.NA, BIG, 4]
    assert (back["price"].to_list()[-1], back["at"].dtype, rows(back)[-1]["new"]) == (Decimal(2), BERLIN, "x")
    assert emu.datasets["in"].schema == {**SCHEMA, "new": "STRING"}
    with pytest.raises(InvalidRequest, match="The rows can't be appended: the column 'id' does not fit the schema"):
        emu.datasets["in"].append([{"id": "four"}])


def test_rows_are_appended_to_files_without_a_schema_with_the_types_of_the_files(emu: Emulator) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"total": pa.array([Decimal("22.50")], pa.decimal128(4, 2))}), sink)
    parquet, csv = emu.datasets.create("parquet"), emu.datasets.create("csv")
    emu.change(lambda state: upload(state, parquet.history, "a", sink.getvalue()))
    emu.change(lambda state: upload(state, csv.history, "a.csv", b"total\n3.25\n"))
    assert parquet.schema == csv.schema == {}, "a module that uploads files need not put a schema"
    parquet.append([{"total": Decimal("1.1"), "new": 1}])
    csv.append([{"total": 1}])
    assert rows(parquet.frame()) == [{"total": Decimal("22.50"), "new": None}, {"total": Decimal("1.10"), "new": 1}]
    assert csv.frame()["total"].to_list() == [3.25, 1.0]


def test_a_decimal_of_python_leaves_room_for_larger_ones(emu: Emulator) -> None:
    emu.datasets["in"] = [{"price": Decimal("4.50")}]
    emu.datasets["in"].append([{"price": Decimal("12345.5")}])
    assert emu.datasets["in"].frame()["price"].to_list() == [Decimal("4.50"), Decimal("12345.50")]
    emu.datasets["exact"] = pa.table({"price": pa.array([Decimal("4.50")], pa.decimal128(3, 2))})
    assert emu.datasets["exact"].schema == {"price": "DECIMAL(3, 2)"}


def avro_file() -> bytes:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}
    members = [{"name": "x", "type": "int"}]
    schema = {
        "type": "record",
        "name": "Row",
        "fields": [
            {"name": "id", "type": ["null", "long"]},
            {"name": "price", "type": ["null", decimal]},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}},
            {"name": "tags", "type": {"type": "array", "items": ["null", "string"]}},
            {"name": "counts", "type": {"type": "map", "values": "long"}},
            {"name": "point", "type": ["null", {"type": "record", "name": "Point", "fields": members}]},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        ],
    }
    common = {"at": dt.datetime(2021, 1, 1, tzinfo=dt.UTC), "day": dt.date(2021, 1, 1), "kind": "B"}
    first = {"id": BIG, "price": Decimal("1.50"), "tags": ["a", None], "counts": {"k": 1}, "point": {"x": 1}}
    second: dict[str, Any] = {"id": None, "price": None, "tags": [], "counts": {}, "point": None}
    sink = io.BytesIO()
    fastavro.writer(sink, schema, [common | first, common | second])
    return sink.getvalue()


def test_files_of_three_formats_are_read(emu: Emulator, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('id,name,at,day\n1,"",2021-01-01T12:00:00Z,2021-01-01\n2,,,\n')
    emu.datasets["csv"] = tmp_path / "rows.csv"
    assert emu.datasets["csv"].schema == {"id": "LONG", "name": "STRING", "at": "TIMESTAMP", "day": "DATE"}
    noon = pd.Timestamp("2021-01-01T12:00:00Z")
    first = {"id": 1, "name": "", "at": noon, "day": dt.date(2021, 1, 1)}
    assert rows(emu.datasets["csv"].frame()) == [first, {"id": 2, "name": None, "at": None, "day": None}]
    assert emu.datasets["csv"].files.index.to_list() == ["rows.csv"]

    (tmp_path / "rows.avro").write_bytes(avro_file())
    emu.datasets["avro"] = str(tmp_path / "rows.avro")
    assert emu.datasets["avro"].schema == {
        "id": "LONG",
        "price": "DECIMAL(8, 2)",
        "at": "TIMESTAMP",
        "day": "DATE",
        "tags": "ARRAY<STRING>",
        "counts": "MAP<STRING, LONG>",
        "point": "STRUCT<x: INTEGER>",
        "kind": "STRING",
    }
    first = rows(emu.datasets["avro"].frame())[0]
    assert (first["id"], first["price"], first["day"]) == (BIG, Decimal("1.50"), dt.date(2021, 1, 1))
    assert (first["tags"], first["counts"], first["point"]) == (["a", None], [("k", 1)], {"x": 1})

    pd.DataFrame(COLUMNS).to_parquet(tmp_path / "rows.parquet")
    emu.datasets["parquet"] = tmp_path / "rows.parquet"
    assert rows(emu.datasets["parquet"].frame()) == rows(pd.DataFrame(COLUMNS))


def test_the_mapping_lists_finds_and_deletes_datasets(emu: Emulator) -> None:
    assert repr(emu.datasets) == "<Datasets: none. Try: emu.datasets['in'] = a DataFrame>"
    emu.datasets["in"] = [{"a": 1}]
    out = emu.datasets.create("out")
    assert (list(emu.datasets), len(emu.datasets), "in" in emu.datasets, out.rid in emu.datasets) == (
        ["in", "out"],
        2,
        True,
        True,
    )
    assert emu.datasets[out.rid].name == "out"
    assert emu.datasets.get("inn") is None
    with pytest.raises(KeyError) as unknown:
        emu.datasets["inn"]
    expected = "There is no dataset 'inn'. Did you mean 'in'? Known datasets: 'in', 'out'."
    assert (type(unknown.value), str(unknown.value)) == (UnknownData, expected)
    with pytest.raises(ApiError, match="There is a dataset 'out' already"):
        emu.datasets.create("out")
    rid = "ri.foundry.main.dataset.of-the-platform"
    assert emu.datasets.create("fixed", rid).rid == rid
    emu.datasets["fixed"] = [{"a": 1}]  # keeps it
    assert emu.datasets[rid].name == "fixed"
    for name, again, message in (("other", rid, "There is a dataset"), ("other", "no RID", "is no RID")):
        with pytest.raises(CmemuError, match=message):
            emu.datasets.create(name, again)
    del emu.datasets["fixed"]
    shown = emu.datasets._repr_mimebundle_()["text/html"] + out._repr_mimebundle_()["text/html"]
    assert "2 datasets" in shown
    assert ">none<" in shown
    del emu.datasets["out"]
    assert (repr(out), list(emu.datasets)) == (f"<Dataset {out.rid}: deleted>", ["in"])
    assert "deleted" in out._repr_mimebundle_()["text/html"]


def test_a_damaged_file_is_read_or_named_in_an_error(emu: Emulator) -> None:
    rng = random.Random(21)
    emu.datasets.create("damaged")
    rid = emu.datasets["damaged"].rid
    good = pa.table({"n": list(range(50)), "text": ["x" * 5] * 50, "list": [[1, 2]] * 50})
    plain, packed = io.BytesIO(), io.BytesIO()
    pq.write_table(good, plain)
    pq.write_table(good, packed, compression="zstd")
    files = [plain.getvalue(), packed.getvalue(), avro_file(), b"n,text\n1,x\n"]
    errors = []
    for _ in range(60):
        body = bytearray(rng.choice(files))
        for _ in range(3):
            body[rng.randrange(len(body))] = rng.randrange(256)
        emu.change(partial(replace_file, rid=rid, body=bytes(body)))
        assert "'damaged'" in repr(emu.datasets["damaged"])
        with contextlib.suppress(CmemuError):
            emu.datasets["damaged"].frame()
            continue
        with pytest.raises(ApiError) as failed:
            emu.datasets["damaged"].frame()
        errors.append(str(failed.value))
        assert Resource(emu).part([rid, "master"])["name"] == "damaged"
    assert len(errors) >= 10
    expected = "The (file 'the-file'|dataset 'damaged') can't be read as a table: ."
    assert [error for error in errors if not re.match(expected, error)] == []


def replace_file(lifecycle: Lifecycle, rid: str, body: bytes) -> None:
    opened = lifecycle.open_transaction(rid, TransactionType.SNAPSHOT).rid
    lifecycle.put_file(rid, opened, "the-file", body)
    lifecycle.commit_transaction(rid, opened)


def test_the_overview_says_what_a_dataset_has_without_reading_it(emu: Emulator, tmp_path: Path) -> None:
    emu.datasets["rows"] = [{"a": 1}, {"a": 2}]
    emu.datasets["rows"].append([{"a": 3}])
    rid = emu.datasets["rows"].rid
    emu.change(lambda state: state.create_branch(rid, "mine"))
    opened = emu.change(lambda state: state.open_transaction(rid, TransactionType.APPEND, "mine")).rid
    (tmp_path / "rows.csv").write_text("a\n1\n")
    emu.datasets["text"] = tmp_path / "rows.csv"
    emu.datasets["damaged"] = [{"a": 1}]
    damaged = emu.datasets["damaged"].rid
    transaction = emu.change(lambda state: state.open_transaction(damaged, TransactionType.APPEND)).rid
    emu.change(lambda state: state.put_file(damaged, transaction, "x.parquet", b"PAR1 is its beginning"))
    emu.change(lambda state: state.commit_transaction(damaged, transaction))
    emu.datasets.create("empty")
    emu.change(lambda state: state.delete_branch(emu.datasets["empty"].rid, "master"))
    frame = emu.datasets.overview
    assert frame["rows"].to_list() == [3, pd.NA, pd.NA, 0]
    expected = {"schema": "a LONG", "files": 2, "branches": "master, mine", "transactions": 3, "rid": rid}
    assert frame.loc["rows"].to_dict().items() >= {**expected, "open_transactions": opened}.items()
    assert frame["committed_at"].notna().to_list() == [True, True, True, False]
    shown, size = repr(emu.datasets["rows"]), f"{frame['bytes']['rows']:,}"
    assert shown == f"<Dataset 'rows': 3 rows, 1 column, 2 files with {size} bytes, 3 transactions, 1 open; {rid}>"
    assert opened in emu.datasets["rows"]._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "A dataset can't be made of 3. Give a DataFrame, an Arrow table, a list of dicts, or the path of"),
        ("no.csv", "The file 'no.csv' can't be read: No such file or directory."),
        ([{"a": 1}, {"a": "x"}], "The data can't become a table: Could not convert 'x'"),
        ([1], "The data can't become a table: "),
        (pd.DataFrame({"d": pd.to_timedelta([1])}), "The column 'd' is of Arrow's type duration.* no dataset of Foun"),
    ],
)
def test_data_that_is_no_table_is_refused_and_leaves_no_dataset(emu: Emulator, data: object, message: str) -> None:
    with pytest.raises(CmemuError, match=message):
        emu.datasets["in"] = data
    assert not emu.datasets


def test_an_open_transaction_is_not_seen_until_it_is_committed_and_can_be_aborted(emu: Emulator) -> None:
    emu.datasets["in"] = [{"a": 1}]
    dataset = emu.datasets["in"]
    opened = emu.change(lambda lifecycle: lifecycle.open_transaction(dataset.rid, TransactionType.SNAPSHOT))
    emu.change(lambda lifecycle: lifecycle.put_file(dataset.rid, opened.rid, "b.csv", b"a\n2\n"))
    assert rows(dataset.frame()) == [{"a": 1}]
    assert "2 transactions, 1 open" in repr(dataset)
    with pytest.raises(ApiError, match="has an open transaction already"):
        emu.datasets["in"] = [{"a": 3}]
    dataset.abort()
    assert dataset.transactions["status"].to_list() == ["COMMITTED", "ABORTED"]
    with pytest.raises(InvalidRequest, match="The branch 'master' of the dataset 'in' has no open transaction"):
        dataset.abort()
    emu.datasets["in"] = [{"a": 3}]
    assert rows(dataset.frame()) == [{"a": 3}]


def test_the_datasets_have_a_limit_and_old_files_make_room() -> None:
    with serving(max_data_bytes=300_000) as emu:
        for number in range(5):  # together they have more
            emu.datasets["in"] = pd.DataFrame({"a": np.full(10_000, number)}).assign(
                b=np.random.default_rng(number).random(10_000)
            )
        assert emu.datasets["in"].frame()["a"].unique().tolist() == [4]
        assert emu.lifecycle.data_bytes <= 300_000
        with pytest.raises(PayloadTooLarge, match="max_data_bytes allows 300,000"):
            emu.datasets["large"] = pd.DataFrame({"a": np.random.default_rng(0).random(50_000)})
        assert list(emu.datasets) == ["in"]
        emu.reset()
        assert not emu.datasets


def test_without_pyarrow_an_error_says_what_to_install(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        ApiError, match=r"needs pyarrow, which is not installed here. Type: pip install 'cmemu_nb\[data\]'"
    ):
        emu.datasets["in"] = [{"a": 1}]
