"""What the dashboard's tabs of functions, runtimes and events compute."""

from __future__ import annotations

import json
from dataclasses import field, make_dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from cells import make
from kernels.driver import wait_until

from cmemu_nb import Emulator
from cmemu_nb.dashboard.functions import FunctionList, form_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.dashboard.panels import Part

pytestmark = [pytest.mark.once, pytest.mark.long_lived]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(port=0, home="thread") as emulator:
        yield emulator


# Functions


Order = make_dataclass(
    "Order",
    [
        ("item", str),
        ("price", Decimal, Decimal("1.10")),
        ("amount", int, 2**60),
        ("note", str | None, None),
        ("tags", list[str], field(default_factory=list)),
        ("made", list[str], field(default_factory=lambda: ["by the user's code"])),
    ],
)
ORDER = '''
def order(context, event: Order) -> str:
    """Take an order.

    The rest of the docstring.
    """
    return event.item
'''
WORK = """
def work(context, event) -> int:
    if event["x"] == 3:
        raise ValueError("no 3")
    return 1
"""


def card(functions: FunctionList, name: str) -> Part:
    found: Part
    [found] = [row for row in functions.cards()["rows"] if row["name"] == name]
    return found


def history(functions: FunctionList, runtime_id: str, name: str) -> Any:
    return functions.histories().get(json.dumps([runtime_id, name]))


def test_a_card_has_the_signature_with_defaults_the_docstring_and_the_version(emulator: Emulator) -> None:
    order = make(ORDER, Order=Order)
    emulator.function(order)
    functions = FunctionList(emulator)
    first = card(functions, "order")
    assert first["words"] == (
        'item: string, price: decimal = "1.10", amount: integer = 1152921504606846976, note: optional string = null, '
        "tags: list of string = [], made: list of string (may be left out) -> string"
    )
    assert (first["summary"], first["version"]) == ("Take an order.", "")
    emulator.function(order)
    assert card(functions, "order")["version"] == "v2"
    schema = emulator.lifecycle.find_schema("notebook", "order")
    values = '{"price": "1.10", "amount": 1152921504606846976, "note": null, "tags": []}'
    assert form_part(emulator, schema)["defaults"] == values


def test_the_history_of_a_function_in_a_cell_has_its_last_runs_and_its_last_error(emulator: Emulator) -> None:
    emulator.function(make(WORK))
    functions = FunctionList(emulator)
    assert history(functions, "notebook", "work") is None
    jobs = [emulator.submit("work", {"x": x}) for x in range(5)]
    wait_until(lambda: emulator.functions["work"].calls == len(jobs), "the end of the jobs")
    shown = history(functions, "notebook", "work")
    assert (shown["o"], shown["e"], shown["f"]) == (4, 1, 0)
    assert sorted(shown["letters"]) == ["e", "o", "o", "o", "o"]
    assert "z" in shown["heights"]
    assert len(shown["heights"]) == 5
    assert shown["error"] == [jobs[3].id, "ValueError: no 3"]
    assert history(functions, "notebook", "work") is shown


def test_jobs_that_another_program_runs_are_counted_once_each(emulator: Emulator) -> None:
    runtime = emulator.open_runtime("elsewhere")
    emulator.change(lambda state: state.post_schemas("elsewhere", [("far", b'{"inputs": []}')]))
    before = runtime.enqueue("far", {}).id
    emulator.change(lambda state: state.fail(before, "it was\nlost"))
    functions = FunctionList(emulator)
    after = runtime.enqueue("far", {}).id
    functions.update([before, after])
    emulator.change(lambda state: state.take("elsewhere"))
    emulator.change(lambda state: state.finish("elsewhere", after, b"7"))
    functions.update([after])
    functions.update([before, after])
    shown = history(functions, "elsewhere", "far")
    assert (shown["o"], shown["e"], shown["f"], shown["letters"]) == (1, 0, 1, "fo")
    assert shown["error"] == [before, "it was"]
    assert shown == history(FunctionList(emulator), "elsewhere", "far")
