"""Tables of random types come back from the notebook's frames, from its tables and through the official client SDK."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
from test_client_sdk import sdk

from cmemu_nb.foundry.arrow_types import arrow_schema, fields_of
from cmemu_nb.foundry.field_schemas import read_fields

if TYPE_CHECKING:
    from cmemu_nb import Emulator

pytestmark = pytest.mark.usefixtures("sdk_connections")
TABLES = 300 if os.environ.get("CMEMU_LONG") else 8
MOST_NESTED = 3
Value = Callable[[Random], Any]


def integers(bits: int) -> Value:
    return lambda random: random.randint(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def chosen(*values: Any) -> Value:
    return lambda random: random.choice(values)


def moment(zone: dt.tzinfo | None) -> Value:
    return lambda random: dt.datetime(random.randint(1700, 2200), 1, 2, 3, 4, 5, 123000, tzinfo=zone)


SIMPLE: list[tuple[pa.DataType, Value]] = [
    *((getattr(pa, f"int{bits}")(), integers(bits)) for bits in (8, 16, 32, 64)),
    *((kind, chosen(0.5, -1.25, 1e10)) for kind in (pa.float32(), pa.float64())),
    *((kind, chosen("", "a", 'ü\n"', "NA")) for kind in (pa.string(), pa.large_string())),
    (pa.binary(), chosen(b"", b"\x00\xff")),
    (pa.bool_(), lambda random: random.random() < 0.5),
    (pa.date32(), chosen(dt.date(1, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31))),
    *((pa.timestamp(unit, "Europe/Berlin"), moment(dt.UTC)) for unit in ("ms", "us", "ns")),
    (pa.timestamp("us", "UTC"), moment(dt.UTC)),
    (pa.timestamp("us"), moment(None)),
    (pa.decimal128(38, 10), chosen(Decimal("12345678901234567890.0123456789"), Decimal("-0.5"))),
]


def column(random: Random, depth: int = 0) -> tuple[pa.DataType, Value]:
    """Return a type, and what makes values of it or None."""
    kind = random.choice(["simple", "simple", "list", "map", "struct"]) if depth < MOST_NESTED else "simple"
    if kind == "simple":
        made, value = random.choice(SIMPLE)
    elif kind == "list":
        item, inner = column(random, depth + 1)
        made, value = pa.list_(item), lambda random: [inner(random) for _ in range(random.randint(0, 3))]
    elif kind == "map":
        item, inner = column(random, depth + 1)
        made = pa.map_(pa.string(), item)
        value = lambda random: [(key, inner(random)) for key in random.sample("abc", random.randint(0, 3))]  # noqa: E731
    else:
        members = {name: column(random, depth + 1) for name in ("x", "y")[: random.randint(1, 2)]}
        made = pa.struct([(name, member) for name, (member, _) in members.items()])
        value = lambda random: {name: inner(random) for name, (_, inner) in members.items()}  # noqa: E731
    return made, lambda random: None if random.random() < 0.25 else value(random)


def random_table(random: Random) -> pa.Table:
    columns = {f"c{number}": column(random) for number in range(random.randint(1, 4))}
    rows = random.randint(0, 5)
    return pa.table(
        {name: pa.array([value(random) for _ in range(rows)], kind) for name, (kind, value) in columns.items()}
    )


def same(found: Any, wanted: Any) -> bool:
    if wanted is None or isinstance(wanted, list | dict):
        return found is pd.NA or found is None or bool(pd.isna(found)) if wanted is None else found == wanted
    return bool(found == (pd.Timestamp(wanted) if isinstance(wanted, dt.datetime) else wanted))


def test_tables_of_any_types_come_back_everywhere(emu: Emulator) -> None:
    for seed in range(TABLES):
        check_table(emu, random_table(Random(seed)))


def check_table(emu: Emulator, table: pa.Table) -> None:
    emu.datasets["any"] = table
    dataset, rows = emu.datasets["any"], table.to_pylist()
    assert dataset.table().to_pylist() == rows
    client = sdk(emu).datasets.Dataset
    for _ in range(2):
        assert client.read_table(dataset.rid, format="ARROW").to_pyarrow().equals(dataset.table())
        emu.application.context.tables._kept.clear()  # noqa: SLF001 - the second time the file is decoded
    frame = dataset.frame()
    for name in table.column_names:
        pairs = zip(frame[name].to_list(), table.column(name).to_pylist(), strict=True)
        assert all(same(found, wanted) for found, wanted in pairs), name
    schema = client.get_schema(dataset.rid).schema_.model_dump_json(by_alias=True, exclude_none=True)
    fields = read_fields(schema.partition(":")[2][:-1].encode())
    assert [str(field) for field in fields_of(arrow_schema(fields))] == list(dataset.schema.values())
    dataset.append(table)
    assert dataset.table().to_pylist() == rows * 2
