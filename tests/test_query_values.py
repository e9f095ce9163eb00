"""Queries of what people have at hand: the function gets it back as its declared type, or the field is named."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import subprocess
import sys
import types
import typing
import uuid
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pandas as pd
import pydantic
import pytest
from compute_modules.function_registry.function_payload_converter import convert_payload
from compute_modules.function_registry.types import Double, Long

from cmemu_nb.errors import InvalidRequest, NotFound
from cmemu_nb.executors.sdk.adapter import define
from cmemu_nb.wire.queries import QueryEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb import Emulator


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Model(pydantic.BaseModel):
    a: int
    b: str = "model"


@attrs.define
class Attrs:
    a: int


@dataclasses.dataclass
class Mine:
    a: object
    b: object = "mine"


class Only(pydantic.BaseModel, extra="allow"):
    """A model with just the fields that it is given."""


Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024 - as they come from DataFrame.itertuples
# Made by calls, because the SDK can't read annotations that are strings, as they are in this file.
Inner = dataclasses.make_dataclass("Inner", [("a", int), ("b", str, "default")])
LIST_OF_INNER, MAP_OF_INNER = types.GenericAlias(list, (Inner,)), types.GenericAlias(dict, (str, Inner))
Tag = typing.TypedDict("Tag", {"key": str})  # noqa: UP013


def function_of(kind: Any, *default: Any) -> Any:
    def f(_: Any, event: Any) -> Any: ...

    f.__annotations__ = {"event": dataclasses.make_dataclass("Event", [("x", kind, *default)])}
    return define(f)


def arrives(kind: Any, value: Any, *default: Any) -> Any:
    """Return what the SDK gives a function for a value of a field `x` of this type."""
    definition = function_of(kind, *default)
    text = QueryEncoder("f", lambda: definition.full_schema, check=True).encode({"x": value})
    return convert_payload(json.loads(text), definition.class_node).x


UTC_2 = dt.timezone(dt.timedelta(hours=2))
DAY, MOMENT = dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001 - the SDK has no zones
FIRST_MOMENT = dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5)))
MIDNIGHT = dt.datetime(2026, 1, 2)  # noqa: DTZ001
ARRIVES: list[tuple[Any, Any, Any]] = [
    (int, np.int64(3), 3),
    (int, np.float64(3.0), 3),
    (int, decimal.Decimal(3), 3),
    (int, Level.LOW, 1),
    (Long, np.uint8(200), 200),
    (float, np.float32(0.5), 0.5),
    (Double, decimal.Decimal("0.1"), 0.1),
    (float, np.longdouble(2.5), 2.5),
    (bool, np.True_, True),
    (str, np.str_("x"), "x"),
    (str, uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (str, Color.RED, "red"),
    (str, PurePosixPath("/x"), "/x"),
    (str, dt.time(1, 2), "01:02:00"),
    (bytes, "é".encode(), "é".encode()),
    (bytes, bytearray(b"x"), b"x"),
    (bytes, np.bytes_(b"x"), b"x"),
    (decimal.Decimal, decimal.Decimal("1.10"), decimal.Decimal("1.10")),
    (decimal.Decimal, np.int64(2), decimal.Decimal(2)),
    (dt.date, DAY, DAY),
    (dt.date, pd.Timestamp("2026-01-02"), DAY),
    (dt.date, np.datetime64("2026-01-02"), DAY),
    (dt.datetime, MOMENT, MOMENT),
    (dt.datetime, MOMENT.replace(tzinfo=UTC_2), MOMENT - dt.timedelta(hours=2)),
    (dt.datetime, pd.Timestamp("2026-01-02T03:04:05.000006"), MOMENT),
    (dt.datetime, pd.Timestamp("2026-01-02T03:04:05.000006", tz=UTC_2), MOMENT - dt.timedelta(hours=2)),
    (dt.datetime, np.datetime64("2026-01-02T03:04:05.000006000", "ns"), MOMENT),
    (dt.datetime, DAY, MIDNIGHT),
    (dt.datetime, dt.datetime(1, 1, 1), dt.datetime(1, 1, 1)),  # noqa: DTZ001
    (typing.Optional[int], np.int8(3), 3),  # noqa: UP045 - as people write it
    (typing.Optional[int], np.nan, None),  # noqa: UP045
    (int | None, pd.NA, None),
    (list[int], np.arange(3), [0, 1, 2]),
    (list[int], np.array([1.0, 2.0]), [1, 2]),
    (list[float], np.array([1.5, 2]), [1.5, 2.0]),
    (list[list[int]], np.array([[1], [2]]), [[1], [2]]),
    (list[dt.datetime], np.array(["2026-01-02"], "datetime64[ns]"), [MIDNIGHT]),
    (list[dt.datetime], pd.Series(pd.to_datetime(["2026-01-02"])), [MIDNIGHT]),
    (list[int], pd.Index([1, 2]), [1, 2]),
    (list[str], pd.Categorical(["a", "b"]), ["a", "b"]),
    (list[int | None], pd.array([1, None]), [1, None]),
    (list[float | None], np.array([1, np.nan]), [1.0, None]),
    (list[int], range(2), [0, 1]),
    (list[int], collections.deque([1]), [1]),
    (list[str], {"a": 1}.keys(), ["a"]),
    (set[int], {3}, {3}),
    (set[str], frozenset({"a"}), {"a"}),
    (dict[str, float], pd.Series({"a": 1.5}), {"a": 1.5}),
    (dict[str, list[float]], pd.DataFrame({"a": [1.0, 2.0]}), {"a": [1.0, 2.0]}),
    (dict[dt.date, int], {DAY: np.int64(1)}, {DAY: 1}),
    (dict[int, str], {np.int64(1): "a"}, {1: "a"}),
    (dict[str, int], types.MappingProxyType({"a": 1}), {"a": 1}),
    (Inner, Mine(np.int64(1)), Inner(1, "mine")),
    (Inner, Model(a=1), Inner(1, "model")),
    (Inner, Attrs(1), Inner(1)),
    (Inner, Pair(1, "pair"), Inner(1, "pair")),
    (Inner, pd.Series({"a": 1, "b": "row"}), Inner(1, "row")),
    (Inner, {"a": 1, "b": np.nan}, Inner(1)),
    (LIST_OF_INNER, pd.DataFrame({"a": [1, 2], "b": ["x", None]}), [Inner(1, "x"), Inner(2)]),
    (Tag, {"key": np.str_("k")}, {"key": "k"}),
]


@pytest.mark.parametrize(("kind", "value", "wanted"), ARRIVES, ids=[str(index) for index in range(len(ARRIVES))])
def test_the_function_gets_it_back_as_its_declared_type(kind: Any, value: Any, wanted: Any) -> None:
    arrived = arrives(kind, value)
    assert arrived == wanted
    assert type(arrived) is type(wanted)


MISSING = [np.nan, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT", "ns"), np.ma.masked]


@pytest.mark.parametrize("missing", MISSING, ids=str)
def test_what_is_missing_is_left_out_or_null_or_refused_as_the_schema_says(missing: Any) -> None:
    assert arrives(int, missing, 7) == 7
    assert arrives(int | None, missing, 7) == 7
    assert arrives(int | None, missing) is None
    with pytest.raises(InvalidRequest, match=r"'x' is missing .* and must be integer\. Fill it \(fillna\)"):
        arrives(int, missing)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (int, 3.0, r"'x': expected integer, given a number \(3\.0\)"),
        (int, np.float64(3.5), r"'x': expected integer, given a number \(3\.5\)"),
        (int, decimal.Decimal("3.5"), r"'x': expected integer, given a number \(3\.5\)"),
        (float, float("inf"), r"'x' is inf, which JSON has no number for\. Send a finite number"),
        (float, decimal.Decimal("NaN"), r"'x' is NaN, which JSON has no number for"),
        (float, dt.timedelta(1), r"'x' is datetime\.timedelta .*\. Send its \.total_seconds\(\)\."),
        (float, np.timedelta64(1, "s"), r"'x' is numpy\.timedelta64 .*\. Send a number of seconds\."),
        (float, 1j, r"'x' is complex \(1j\)\. Use plain JSON values"),
        (str, object(), r"'x' is object .*\. Use plain JSON values"),
        (str, pd.Period("2026"), r"'x' is pandas\.Period .*\. Send str"),
        (bytes, b"\xff", r"'x' is bytes that are not UTF-8 .*\. Send base64"),
        (dt.date, MOMENT, r"'x' is datetime\.datetime\(2026, 1, 2, 3.* must be a date\. Send its \.date\(\)"),
        (dt.datetime, pd.Timestamp(1), r"'x' is 1970.*001, and timestamps have microseconds\. Send its \.floor"),
        (
            dt.datetime,
            np.datetime64(1, "ns"),
            r"'x' is 1970.*001, and timestamps have microseconds\. Send its \.astype",
        ),
        (dt.datetime, FIRST_MOMENT, r"'x' is 0001-01-01 00:00:00\+05:00, which is outside the years 1 to 9999 in UTC"),
        (dt.datetime, np.datetime64("20000-01-01", "D"), r"'x' is 20000-01-01, which is no year from 1 to 9999"),
        (list[int], [1, np.nan], r"'x\[1\]' is missing \(nan\) and must be integer"),
        (list[int], (each for each in [1]), r"'x' is generator .*\. Send list"),
        (dict[str, int], {(1, 2): 3}, r"'x' has the key \(1, 2\), a tuple\. Use text"),
        (dict[str, int], {float("nan"): 3}, r"'x' has the key nan"),
        (dict[str, int], {"a": np.nan}, r"\"x\['a'\]\" is missing"),
        (dict[dt.date, int], {DAY: 1, "2026-01-02": 2}, r"'x' has two keys that are '2026-01-02' in JSON"),
        (LIST_OF_INNER, [{"a": 1}, {"a": np.nan}], r"'x\[1\]\.a' is missing"),
        (
            LIST_OF_INNER,
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            r"'x' is a DataFrame with two columns 'a'\. Rename",
        ),
    ],
)
def test_what_can_not_be_sent_is_named_with_its_field_and_the_cure(kind: Any, value: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        arrives(kind, value)


@pytest.mark.parametrize("default", [[], [{}]], ids=["required", "with a default"])
def test_a_required_field_of_a_nested_object_must_be_there(default: list[Any]) -> None:
    field = [dataclasses.field(default_factory=lambda: Inner(0))] if default else []
    assert arrives(Inner, {"a": 1}, *field) == Inner(1)
    for kind, value, path in [
        (Inner, {"b": "x"}, "x.a"),
        (LIST_OF_INNER, [{"a": 1}, {}], r"x\[1\].a"),
        (MAP_OF_INNER, {"k": {}}, r"x\['k'\].a"),
        (Tag, {}, "x.key"),
    ]:
        with pytest.raises(InvalidRequest, match=f"{path}['\"] is missing: expected"):
            arrives(kind, value)


def test_what_the_sdk_does_not_convert_is_not_looked_for() -> None:
    assert arrives(Inner | None, {}) == {}


def test_a_circular_query_is_refused() -> None:
    ring: dict[str, Any] = {}
    ring["ring"] = ring
    with pytest.raises(InvalidRequest, match="the query contains itself, or is nested too deeply"):
        QueryEncoder("f", lambda: None, check=False).encode(ring)


# Through the emulator


def serve_add(emu: Emulator) -> Any:
    def add(_: Any, event: Any) -> Any:
        return event.x + event.y

    add.__annotations__ = {"event": dataclasses.make_dataclass("Numbers", [("x", int), ("y", int, 1)]), "return": int}
    return emu.function(add)


@pytest.fixture
def emu(serve_functions: Callable[..., Any]) -> Iterator[Emulator]:
    with serve_functions() as emulator:
        yield emulator


def test_a_function_is_called_by_name_or_itself_with_an_object_or_keywords(emu: Emulator) -> None:
    add = serve_add(emu)
    assert emu.call(add, {"x": 40}) == 41
    assert emu.call("add", {"x": np.int64(40)}) == 41
    assert emu.call("add", x=1, y=2) == emu.call(add, x=1, y=2) == 3
    assert emu.call(add, Only.model_validate({"x": 1})) == 2
    assert emu.submit(add, x=1).result() == 2
    assert emu.submit("add", x=np.int64(1)).result() == 2
    assert list(emu.stream(add, x=1)) == [2]
    assert list(emu.map(add, [{"x": 1}, {"x": 2}]).value) == [2, 3]
    assert emu.runtime("notebook").enqueue(add, x=1).result() == 2

    async def main() -> list[Any]:
        job = await emu.asubmit(add, x=1)
        frame = await emu.amap(add, [{"x": 1}])
        return [await emu.acall(add, x=1), await job, *frame.value]

    assert asyncio.run(main()) == [2, 2, 2]


def test_a_function_that_is_not_the_served_one_is_refused(emu: Emulator) -> None:
    old = serve_add(emu)
    new = serve_add(emu)
    assert emu.call(new, x=1) == 2
    with pytest.raises(NotFound, match=r"add that was given is not the one that is served, <add v2 .*or give 'add' to"):
        emu.call(old, x=1)
    with pytest.raises(NotFound, match=r"No function 'len' is served\."):
        emu.call(len, x=1)
    with pytest.raises(InvalidRequest, match="can't be called: give a function that is served, or its name"):
        emu.call(lambda: 1)


def test_a_function_is_called_where_it_is_served_itself(emu: Emulator) -> None:
    add: Any = lambda *_: "mine"  # noqa: E731 - without annotations
    add.__name__ = "add"
    mine = emu.open_runtime("mine", deployed_app_rid="ri.mine").function(add)
    theirs = serve_add(emu)
    assert emu.call(mine) == "mine"
    assert emu.call(theirs, x=1) == 2


def test_a_query_is_given_once(emu: Emulator) -> None:
    add = serve_add(emu)
    with pytest.raises(
        InvalidRequest, match=r"query of add was given twice: .* the keywords y\. Give all of its fields"
    ):
        emu.call(add, {"x": 1}, y=2)
    with pytest.raises(InvalidRequest, match=r"'z' is unknown\. Known fields: 'x', 'y'"):
        emu.call(add, x=1, z=2)


def test_a_field_that_is_called_like_a_parameter_is_given_in_an_object(emu: Emulator) -> None:
    def wait(_: Any, event: Any) -> Any:
        return [event.timeout, event.branch]

    fields = [("timeout", int, 1), ("branch", str, "b")]
    wait.__annotations__ = {"event": dataclasses.make_dataclass("Wait", fields)}
    emu.function(wait)
    assert emu.call(wait) == [1, "b"]
    assert emu.call(wait, {"timeout": 5}, timeout=30) == [5, "b"]
    assert emu.call(wait, {}, timeout=30) == [1, "b"]
    for keywords in ({"timeout": 5}, {"branch": "master"}):
        with pytest.raises(InvalidRequest, match=r"is a parameter of the call and a field of wait, so it is not clear"):
            emu.call(wait, **keywords)

    def search(_: Any, event: Any) -> Any:
        return [event.query, event.limit]

    search.__annotations__ = {"event": dataclasses.make_dataclass("Search", [("query", str), ("limit", int, 1)])}
    emu.function(search)
    assert emu.call(search, {"query": "text"}) == ["text", 1]
    said = r"^query is a parameter of the call and a field of search.*\{'query': "
    with pytest.raises(InvalidRequest, match=said):
        emu.call(search, query="text")
    with pytest.raises(InvalidRequest, match=said):
        emu.call(search, query="text", limit=2)


def test_a_map_over_a_frame_leaves_out_what_is_missing(emu: Emulator) -> None:
    add = serve_add(emu)
    frame = pd.DataFrame({"x": [1, 2, 3], "y": [1, np.nan, 3]}, index=["a", "b", "c"])
    mapped = emu.map(add, frame)
    assert list(mapped.value) == [2, 3, 6]
    assert [json.loads(emu.job(each).record.query) for each in mapped.job_id] == [
        {"x": 1, "y": 1},
        {"x": 2},
        {"x": 3, "y": 3},
    ]
    frame.loc["b", "x"] = np.nan
    with pytest.raises(
        InvalidRequest,
        match=r"^Row 1 \('b'\) of the map: .*'x' is missing \(nan\) and must be integer.*fillna.* No row was submitted",
    ):
        emu.map(add, frame)
    with pytest.raises(InvalidRequest, match=r"^Row 1 of the map: .*'x' is missing"):
        emu.map(add, frame.to_dict("records"))
    with pytest.raises(InvalidRequest, match=r"map\(\) was given a DataFrame with two columns 'x'\. Rename one"):
        emu.map(add, frame.set_axis(["x", "x"], axis=1))


def test_a_map_takes_what_a_frame_has(emu: Emulator) -> None:
    def show(_: Any, event: Any) -> Any:
        return {each.name: getattr(event, each.name) for each in dataclasses.fields(event)}

    fields = [("at", dt.datetime, None), ("day", dt.date, DAY), ("name", str, "-"), ("flag", bool, False)]
    show.__annotations__ = {"event": dataclasses.make_dataclass("Row", fields)}
    emu.function(show)
    frame = pd.DataFrame(
        {
            "at": pd.to_datetime(["2026-01-02T03:04:05", "NaT"], utc=True),
            "day": pd.to_datetime(["2026-02-03", "NaT"]),
            "name": pd.Categorical(["a", None]),
            "flag": pd.array([True, None]),
        }
    )
    mapped = emu.map(show, frame)
    assert list(mapped.value) == [
        {"at": "2026-01-02T03:04:05Z", "day": "2026-02-03", "name": "a", "flag": True},
        {"day": "2026-01-02", "name": "-", "flag": False, "at": None},
    ]
    assert list(emu.map(show, [Only.model_validate({"name": name}) for name in "bc"]).name) == ["b", "c"]


def test_a_function_without_a_schema_gets_plain_values(emu: Emulator) -> None:
    def echo(_: Any, event: Any) -> Any:
        return event

    echo.__annotations__ = {}
    emu.function(echo)
    query = {"n": np.nan, "t": pd.Timestamp("2026-01-02"), "d": DAY, "x": [np.int64(1), np.array([2.5])], "b": b"x"}
    assert emu.call(echo, query) == {
        "n": None,
        "t": "2026-01-02T00:00:00Z",
        "d": "2026-01-02",
        "x": [1, [2.5]],
        "b": "x",
    }
    assert emu.call(echo, pd.DataFrame({"a": [1]})) == [{"a": 1}]
    assert emu.call(echo, pd.Series({"a": 1, "b": np.nan})) == {"a": 1.0, "b": None}
    assert emu.call(echo, {1, 2}) == [1, 2]


def test_neither_an_import_nor_a_plain_call_imports_numpy_or_pandas() -> None:
    program = """
import sys
from cmemu_nb import Emulator

with Emulator(port=0, tls_port=0) as emu:
    @emu.function
    def add(context, event):
        return event["x"] + 1
    assert emu.call(add, {"x": 1}) == emu.call("add", x=1) == 2
    import datetime, decimal
    assert emu.submit("add", {"x": 1, "at": datetime.date(2026, 1, 1), "much": decimal.Decimal("1")}).result() == 2
    print(sorted({"numpy", "pandas", "pydantic"} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


def test_a_plain_query_is_encoded_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmemu_nb.wire.query_values", None)
    encoder = QueryEncoder("f", lambda: {"inputs": []}, check=True)
    assert encoder.encode({"x": [1, 2.5, None, "é"], "big": 10**30}) == (
        b'{"x": [1, 2.5, null, "\\u00e9"], "big": 1000000000000000000000000000000}'
    )
