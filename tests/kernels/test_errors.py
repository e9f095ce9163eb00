"""What a mistake looks like in a notebook: the error's name, its sentence and the user's own line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from kernels.driver import wait_until
from kernels.notebooks import open_notebook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernels.driver import Cell
    from kernels.notebooks import Notebook

pytestmark = pytest.mark.kernels

FUNCTIONS = """
import threading, time

def helper(x):
    return 1 / x

@emu.function
def boom(context, event):
    print("before")
    return helper(event["x"])

@emu.function
def chained(context, event):
    try:
        helper(0)
    except ZeroDivisionError as error:
        raise ValueError("not this one") from error

@emu.function
def grouped(context, event):
    raise ExceptionGroup("many", [ValueError("a"), KeyError("b")])

@emu.function
def nested(context, event):
    return emu.call("missing")

@emu.function
def leave(context, event):
    raise SystemExit(3)

@emu.function
def hang(context, event):
    threading.Event().wait(30)
"""
SERVED = "'boom', 'chained', 'grouped', 'hang', 'leave', 'nested'"
ANYTHING = "validate=False sends anything."
CALLS = ("emu.call('hang')", "emu.map('hang', [{}, {}])", "emu.submit('hang').result()", "%cmemu call hang")
WAITS = ("for item in emu.stream('hang'): pass", "await emu.acall('hang')")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with open_notebook("7.4", "kernel", tmp_path_factory.mktemp("kernel")) as opened:
        opened.kernel.run(FUNCTIONS)
        yield opened


def failed(notebook: Notebook, code: str) -> str:
    """Run a cell that fails and return its traceback as people read it."""
    return shown(notebook.kernel.end_of(code))


def shown(cell: Cell) -> str:
    assert cell.status == "error", cell.text
    # Which cell it was is of no interest, and of rulers one letter is enough.
    text = re.sub(r"Cell In\[\d+\]", "Cell In[N]", cell.traceback)
    return re.sub(r"-{70,}", "-", re.sub(r"  +(?=Traceback)", " ", text))


def test_a_mistake_is_its_name_its_sentence_and_the_own_line(notebook: Notebook) -> None:
    said = failed(notebook, "emu.call('bom', {'x': 1})")
    assert said.splitlines() == [
        "-",
        "NotFound Traceback (most recent call last)",
        "Cell In[N], line 1",
        "----> 1 emu.call('bom', {'x': 1})",
        "",
        f"NotFound: No function 'bom' is served. Did you mean 'boom'? Known functions: {SERVED}. {ANYTHING}",
    ]
    whole = notebook.kernel.finish(notebook.kernel.send("%tb")).traceback
    assert "cmemu_nb/calls/calls.py" in whole
    assert "_check_name" in whole


@pytest.mark.parametrize(
    "code",
    [
        "await emu.acall('bom')",
        "emu.job('none')",
        "emu.map('boom', [{'x': 1}], concurrency=0)",
        "@emu.function\nasync def waits(context, event): pass",
        "emu.open_runtime('')",
        "emu.launch('no-such-program')",
        "job = emu.submit('leave')\njob.result()",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    emu.runtime('bom')",
    ],
)
def test_no_frame_of_ours_is_shown_whatever_was_called(notebook: Notebook, code: str) -> None:
    said = failed(notebook, code)
    assert "Cell In[N]" in said
    assert "File " not in said


def test_every_frame_of_the_users_own_is_shown(notebook: Notebook) -> None:
    notebook.kernel.run("def inner():\n    return emu.call('bom')\ndef outer():\n    return inner()")
    said = failed(notebook, "outer()")
    assert re.findall(r"^(?:-+> \d+ +|Cell In\[N\], line \d+(?:, in )?)(\S*)", said, re.MULTILINE) == [
        *("", "outer()"),
        *("outer()", "return"),
        *("inner()", "return"),
    ]
    assert "File " not in said


def test_a_cause_and_a_group_stay_readable(notebook: Notebook) -> None:
    said = failed(notebook, "try:\n    emu.call('bom')\nexcept Exception as e:\n    raise ValueError('x') from e")
    assert said.index("NotFound: No function") < said.index("direct cause") < said.index("ValueError: x")
    group = "import asyncio\nasync with asyncio.TaskGroup() as group:\n    group.create_task(emu.acall('bom'))"
    cell = notebook.kernel.send(group)  # IPython prints groups, and sends no error
    wait_until(lambda: "NotFound: No function 'bom'" in cell.text, "the group's errors")


def test_what_a_cell_of_functions_raises_is_shown_with_its_line(notebook: Notebook) -> None:
    said = failed(notebook, "%%cmemu_functions\ndef late(context, event): pass\n1 / 0")
    assert "----> 3 1 / 0" in said
    assert "File " not in said


@pytest.mark.parametrize("code", [*CALLS, *WAITS])
def test_an_interrupt_is_shown_with_the_own_line(notebook: Notebook, code: str) -> None:
    kernel = notebook.kernel
    cell = kernel.send(f"print('begun', flush=True)\n{code}")
    wait_until(lambda: "begun" in cell.text, "the cell's beginning")
    notebook.wait_for_job("running", "notebook")
    kernel.interrupt()
    said = shown(kernel.finish(cell))
    assert re.search(r"^(KeyboardInterrupt|CancelledError) Traceback", said, re.MULTILINE)
    assert "----> 2 " in said
    assert "File " not in said
    kernel.run("emu.cancel()")


def test_a_function_s_error_begins_with_its_own_cell(notebook: Notebook) -> None:
    said = failed(notebook, "job = emu.submit('boom', {'x': 0})\njob.result()")
    assert re.sub(r"\n *[~^]+(?=\n)", "", said.partition("\n\n")[2]) == (
        "FunctionError: ZeroDivisionError: division by zero\n\n"
        "Traceback (most recent call last):\n"
        "  Cell In[N], line 9, in boom\n"
        '    return helper(event["x"])\n'
        "  Cell In[N], line 4, in helper\n"
        "    return 1 / x\n"
        "ZeroDivisionError: division by zero"
    )


def test_the_posted_bytes_are_the_sdk_s_and_the_log_is_the_function_s(notebook: Notebook) -> None:
    code = "import json\njob = emu.submit('boom', {'x': 0})\nprint(json.dumps([job.raw().decode(), job.logs]))"
    posted, logs = json.loads(notebook.kernel.run(code))
    text = json.loads(posted)["exception"]
    assert text.startswith('division by zero: Traceback (most recent call last):\n  File "')
    assert "compute_modules/client/internal_query_client.py" in text
    assert text.endswith("ZeroDivisionError: division by zero\n")
    assert logs == "before\n"


def test_a_function_s_causes_groups_and_nested_calls_are_shown_without_callers(notebook: Notebook) -> None:
    said = {name: failed(notebook, f"emu.call('{name}', {{'x': 0}})") for name in ("chained", "grouped", "nested")}
    assert "FunctionError: ValueError: not this one\n" in said["chained"]
    assert said["chained"].index("ZeroDivisionError: division") < said["chained"].index("direct cause")
    assert "FunctionError: ExceptionGroup: many (2 sub-exceptions)\n" in said["grouped"]
    assert "| KeyError: 'b'\n" in said["grouped"]
    assert "  Cell In[N], line 24, in nested\n" in said["nested"]
    assert all("File " not in each for each in said.values()), said


def test_the_log_of_a_function_that_exits_shows_its_own_lines(notebook: Notebook) -> None:
    code = "job = emu.submit('leave')\ntry: job.result()\nexcept Exception: pass\nprint(job.logs)"
    logs = re.sub(r"In\[\d+\]", "In[N]", notebook.kernel.run(code))
    assert logs.splitlines()[:2] == ["Traceback (most recent call last):", "  Cell In[N], line 28, in leave"]
    assert "File " not in logs


VALUES = """
from dataclasses import dataclass
from typing import Optional
import numpy as np, pandas as pd

@dataclass
class Inner:
    n: int

@dataclass
class Numbers:
    x: int
    y: int = 1

@dataclass
class Outer:
    inner: Optional[Inner] = None

@emu.function
def add(context, event: Numbers) -> int:
    return event.x + event.y

@emu.function
def count(context, event):
    return {"a": np.int64(3)}
"""


def test_what_people_return_and_send_is_taken_or_named_with_the_cure(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(VALUES)
    said = failed(notebook, "emu.call('count')")
    assert "----> 1 emu.call('count')" in said
    assert "FunctionError: result['a'] is numpy.int64, which can't be encoded as JSON: return int(...)." in said
    assert "json/encoder" not in said
    calls = "emu.call(add, {'x': 40}), emu.call('add', {'x': np.int64(40)}), emu.call(add, x=1, y=2)"
    assert kernel.run(f"print({calls})") == "41 41 3"
    kernel.run("frame = pd.DataFrame({'x': [1, 2], 'y': [np.nan, 5]})")
    assert kernel.run("print(emu.map(add, frame, progress=False).value.tolist())") == "[2, 7]"
    said = failed(notebook, "emu.map(add, pd.DataFrame({'x': [1, np.nan]}))")
    named = "Row 1 of the map: The query can't be sent as JSON: 'x' is missing (nan) and must be integer. Fill it"
    assert said.splitlines()[-1].startswith(f"InvalidRequest: {named}")
    assert "File " not in said
    cell = kernel.finish(kernel.send("@emu.function\ndef outer(context, event: Outer) -> str:\n    return repr(event)"))
    assert re.search(
        r"\.py:1: DefinitionWarning: outer is served, but 'event\.inner' is annotated as Optional\[Inner\]", cell.text
    )
    said = failed(notebook, "@emu.function('add')\ndef other(context, event): pass")
    assert said.splitlines()[-1].startswith("FunctionRefused: The decorator takes a function, not 'add' of type str")
    kernel.run("for name in ('add', 'count', 'outer'): emu.functions.remove(name)")
