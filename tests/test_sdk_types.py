"""What a function in a cell gets and posts is what the exported module gets and posts, run by the official SDK."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from client import eventually
from shells import plain_shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmemu_nb import Emulator

pytestmark = pytest.mark.long_lived
MODULE_APP = "ri.foundry.main.deployed-app.exported"
CELL = """
import datetime
import decimal
from dataclasses import dataclass
from typing import Iterable, Optional, TypedDict

from compute_modules.context import QueryContext
from compute_modules.function_registry.types import Byte, Double, Long, Short

GREETING = "hello"


@dataclass
class Part:
    name: str
    price: decimal.Decimal


class Tag(TypedDict):
    key: str
    on: datetime.date


class Plain:
    flag: bool
    number: int

    def __init__(self, flag: bool, number: int) -> None:
        self.flag = flag
        self.number = number

    def __repr__(self) -> str:
        return f"Plain({self.flag!r}, {self.number!r})"


@dataclass
class Everything:
    a_bool: bool
    a_bytes: bytes
    a_date: datetime.date
    a_datetime: datetime.datetime
    a_decimal: decimal.Decimal
    a_float: float
    an_int: int
    a_str: str
    a_byte: Byte
    a_short: Short
    a_long: Long
    a_double: Double
    a_list: list[datetime.date]
    a_set: set[int]
    a_dict: dict[str, decimal.Decimal]
    by_date: dict[datetime.date, int]
    an_optional: Optional[int]
    a_part: Part
    parts: list[Part]
    a_tag: Tag
    a_plain: Plain
    left_out: int = 7


@dataclass
class Report:
    when: datetime.datetime
    day: datetime.date
    lines: list[str]
    nothing: Optional[str]


def _describe(value) -> str:
    return f"{type(value).__name__}: {value!r}"


@emu.function
def arrive(context: QueryContext, event: Everything) -> dict[str, str]:
    return {name: _describe(value) for name, value in sorted(vars(event).items())}

@emu.function
def arrive_plain(context, event: Plain) -> str:
    return _describe(event)

@emu.function
def arrive_tag(context, event: Tag) -> str:
    return _describe(event)

@emu.function
def arrive_untyped(context, event) -> str:
    return GREETING + " " + _describe(event)

@emu.function
def report(context, event) -> Report:
    when = datetime.datetime(2026, 1, 2, 3, 4, 5, 600000, datetime.timezone.utc)
    return Report(when, datetime.date(2026, 1, 2), ["a"], None)

@emu.function
def things(context, event):
    return {"bytes": b"x", "set": {1}, "decimal": decimal.Decimal("1.10")}[event["kind"]]

@emu.function
def numbers(context, event) -> list[float]:
    return [1, 1.5, -0.0, 1e300, float("nan"), float("inf")]

@emu.function
def text(context, event) -> str:
    return "\\u00e9\\u4e2d\\U0001f600" + event["text"]

@emu.function
def fail(context, event):
    raise ValueError("it \\u00e9 failed")

@emu.function(streaming=True)
def stream(context, event) -> Iterable[dict[str, int]]:
    for n in range(event["n"]):
        yield {"n": n}

@emu.function(streaming=True)
def stream_of_list(context, event) -> list[str]:
    return ["a", "b"]

@emu.function(streaming=True)
def stream_that_raises(context, event) -> Iterable[str]:
    raise ValueError("before the first")
    yield "never"

@emu.function(streaming=True)
def no_stream(context, event) -> dict[str, int]:
    return {"a": 1}
"""
EVERYTHING: dict[str, Any] = {
    "a_bool": True,
    "a_bytes": "héllo",
    "a_date": "2026-11-24",
    "a_datetime": "2026-11-24T01:02:03.000004Z",
    "a_decimal": "1.100",
    "a_float": 1.5,
    "an_int": 2**40,
    "a_str": "ü",
    "a_byte": 1,
    "a_short": 2,
    "a_long": 3,
    "a_double": 4.5,
    "a_list": ["2026-01-01"],
    "a_set": [3, 3, 4],
    "a_dict": {"x": "0.10"},
    "by_date": {"2026-01-01": 1},
    "an_optional": None,
    "a_part": {"name": "bolt", "price": "9.99"},
    "parts": [{"name": "nut", "price": "1"}],
    "a_tag": {"key": "k", "on": "2026-02-03"},
    "a_plain": {"flag": False, "number": 0},
}
CALLS: list[tuple[str, Any]] = [
    ("arrive", EVERYTHING),
    ("arrive", {**EVERYTHING, "left_out": 8, "an_optional": 5}),
    ("arrive_plain", {"flag": True, "number": 1}),
    ("arrive_tag", {"key": "k", "on": "2026-02-03"}),
    ("arrive_untyped", {"a": [1, 2.5, None, {"b": True}], "big": 10**30}),
    ("arrive_untyped", [1, "two"]),
    ("report", {}),
    ("numbers", {}),
    ("text", {"text": '"\\\n'}),
    ("stream", {"n": 3}),
    ("stream", {"n": 0}),
    ("stream_of_list", {}),
    ("no_stream", {}),
]
FAILING: list[tuple[str, Any]] = [
    ("arrive", {"a_bool": True}),
    ("arrive", {**EVERYTHING, "a_decimal": "no number"}),
    ("arrive", {**EVERYTHING, "a_date": "24.11.2026"}),
    ("arrive", {**EVERYTHING, "a_datetime": "2026-11-24"}),
    ("arrive", {**EVERYTHING, "a_bytes": 5}),
    ("arrive", "no object"),
    ("things", {"kind": "bytes"}),
    ("things", {"kind": "set"}),
    ("things", {"kind": "decimal"}),
    ("things", {}),
    ("fail", {}),
    ("nobody", {}),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with the functions of the cell, and the module that was exported from it as a process."""
    folder: Path = tmp_path_factory.mktemp("export")
    with plain_shell(folder / "ipython") as shell:
        shell.run_line_magic("load_ext", "cmemu_nb")
        try:
            shell.run_line_magic("cmemu", "start --port 0 --thread")
            assert shell.run_cell(CELL, store_history=True).success
            emulator: Emulator = shell.user_ns["emu"]
            shell.run_line_magic("cmemu", f"export-module {folder / 'app.py'}")
            emulator.open_runtime("exported", deployed_app_rid=MODULE_APP)
            with exported(folder / "app.py", {**os.environ, **emulator.env("exported", 4)}):
                eventually(lambda: "exported" in emulator.schemas.index, "the module has posted its schemas")
                yield emulator
        finally:
            shell.run_line_magic("unload_ext", "cmemu_nb")


@contextmanager
def exported(program: Path, environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, str(program)], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        yield
        os.killpg(process.pid, 9)


def raw(emulator: Emulator, query_type: str, query: Any, app: str | None = None) -> bytes:
    return emulator.submit(query_type, query, app).raw(timeout=30)


def notebook_and_module(emulator: Emulator, query_type: str, query: Any) -> tuple[bytes, bytes]:
    return raw(emulator, query_type, query, "ri.foundry.main.deployed-app.notebook"), raw(
        emulator, query_type, query, MODULE_APP
    )


def test_both_post_the_same_schemas(both: Emulator) -> None:
    schemas = {(each.runtime_id, each.function_name): each.schema_payload for each in both.lifecycle.schemas()}
    names = {name for _, name in schemas}
    assert len(names) > 10
    assert [name for name in names if schemas["notebook", name] != schemas["exported", name]] == []


@pytest.mark.parametrize(("query_type", "query"), CALLS)
def test_what_arrives_and_what_is_posted_is_the_same(both: Emulator, query_type: str, query: Any) -> None:
    notebook, module = notebook_and_module(both, query_type, query)
    assert notebook == module
    assert b"exception" not in notebook


def test_every_type_arrives_as_what_it_is(both: Emulator) -> None:
    arrived = both.call("arrive", EVERYTHING, "ri.foundry.main.deployed-app.notebook")
    assert arrived["a_bytes"] == "bytes: b'h\\xc3\\xa9llo'"
    assert arrived["a_date"] == "date: datetime.date(2026, 11, 24)"
    assert arrived["a_decimal"] == "Decimal: Decimal('1.100')"
    assert arrived["a_set"] == "set: {3, 4}"
    assert arrived["by_date"] == "dict: {datetime.date(2026, 1, 1): 1}"
    assert arrived["parts"] == "list: [Part(name='nut', price=Decimal('1'))]"
    assert arrived["left_out"] == "int: 7"


@pytest.mark.parametrize(("query_type", "query"), FAILING)
def test_failures_are_the_same_but_for_the_names_of_files_and_lines(
    both: Emulator, query_type: str, query: Any
) -> None:
    notebook, module = notebook_and_module(both, query_type, query)
    assert b"exception" in notebook or b"error" in notebook
    assert without_places(notebook) == without_places(module)
    if "arrive" in query_type or query_type == "nobody":
        assert notebook == module


def without_places(result: bytes) -> bytes:
    """Leave out where the function's own file is: a cell here, app.py there."""
    return re.sub(rb'File \\"[^"]*(?:app\.py|/\d+\.py|<ipython-input[^"]*)\\", line \d+', b"File", result)


def test_a_stream_that_raises_fails_in_both(both: Emulator) -> None:
    jobs = [both.submit("stream_that_raises", {}, app) for app in (MODULE_APP, "ri.foundry.main.deployed-app.notebook")]
    for job in jobs:
        eventually(job.done, "it has ended")
    assert {job.status for job in jobs} == {"failed"}
    assert all((job.record.error_message or "").startswith("the result stream broke off after 0 bytes") for job in jobs)
