"""Whole programs for the official Python SDK, as their authors wrote them: run with `%run`, pasted, and launched."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_processes import run, serving
from kernels.driver import Kernel, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernels, pytest.mark.once]

PROGRAMS = Path(__file__).parent.parent / "programs" / "sdk"
SHIPMENT = {"parcels": [{"weight_kg": 2.5}, {"weight_kg": 1, "country": "FR"}], "express": True}
SERVED = {
    "parcels": ["postage", "countries", "job"],
    "chatter": ["tokens", "count_words"],
    "rates": ["exchange", "check"],
    "greeter": ["greet"],
}
CALLS: dict[str, list[tuple[str, Any, Any, str]]] = {
    "parcels": [
        ("postage", SHIPMENT, "31.200", "INFO: pricing 2 parcels (express=True)\n"),
        ("countries", {}, ["DE", "FR"], ""),
    ],
    "chatter": [
        ("tokens", {"text": "a bb ccc"}, ["a", "bb", "ccc"], ""),
        ("tokens", {"text": "a bb ccc", "max_tokens": 1}, ["a"], ""),
        ("count_words", {"text": "a bb"}, {"words": 2, "longest": "bb"}, "chatter says 2 words\n"),
    ],
    "rates": [("exchange", {"amount": 4, "currency": "USD"}, 5.0, ""), ("check", {"amount": "x"}, "1 errors", "")],
    "greeter": [("greet", {"name": "Ada"}, "hello Ada", "")],
}
HEALTH = (
    "health can't be served: the SDK calls it with a context and an event, and that fails (too many positional "
    "arguments). Define it as def name(context, event): ... The official SDK registers it, so the program continues."
)
CURRENCIES = (
    "currencies can't be served: it is a generator, which only a streaming function can be. Give its decorator "
    "streaming=True, or return a list. The official SDK registers it, so the program continues."
)
WARNINGS = {"rates": [HEALTH, CURRENCIES]}
CALL = "job = emu.submit({!r}, {!r}, {!r}); import json; print(json.dumps([job.result(), job.logs]))"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    kernel = Kernel(Path(sys.executable), tmp_path_factory.mktemp("kernel"))
    try:
        kernel.run("%load_ext cmemu_nb\n%cmemu start --port 0")
        yield kernel
    finally:
        kernel.close()


def text_of(name: str) -> str:
    return (PROGRAMS / f"{name}.py").read_text()


def check_calls(kernel: Kernel, name: str, app: str) -> None:
    for function, query, value, logged in CALLS[name]:
        found, said = json.loads(kernel.run(CALL.format(function, query, f"ri.foundry.main.deployed-app.{app}")))
        assert found == value
        if app == "notebook":
            assert said == logged


@pytest.mark.parametrize("name", SERVED)
def test_a_program_is_run_and_pasted_and_launched_as_it_is(kernel: Kernel, name: str) -> None:
    arguments = kernel.run("import sys; print(sys.argv)")
    for version, code in enumerate((f"%run {PROGRAMS / name}.py", text_of(name)), 1):
        cell = kernel.end_of(code)
        assert (cell.status, cell.error) == ("ok", None)
        served = ", ".join(f"{each} v{version}" for each in SERVED[name])
        assert [line for line in cell.text.splitlines() if line.startswith("Served")] == [f"Served: {served}."]
        assert re.findall("DefinitionWarning: (.*)", cell.text) == WARNINGS.get(name, [])
        assert "compute_modules" not in cell.text  # nothing points into the SDK
        check_calls(kernel, name, "notebook")
    assert kernel.run("import sys; print(sys.argv)") == arguments
    program = str(PROGRAMS / f"{name}.py")
    kernel.run(f"emu.launch(['python', {program!r}]).wait_until_responsive()")
    check_calls(kernel, name, name)


def test_a_program_reads_its_command_line(kernel: Kernel, tmp_path: Path) -> None:
    program, words = str(PROGRAMS / "greeter.py"), ["--greeting", "good evening"]
    kernel.run(f"%run {program} --greeting 'good evening'")
    call = "print(emu.call('greet', {{'name': 'Ada'}}, 'ri.foundry.main.deployed-app.{}'))"
    assert kernel.run(call.format("notebook")) == "good evening Ada"
    refused = f"- greet: it was run from the file {program}, which is a module already. Deploy that file, or paste its"
    assert refused in kernel.end_of("%cmemu export-module app.py").text
    kernel.run(f"emu.launch({['python', program, *words]}, 'with-words').wait_until_responsive()")
    assert kernel.run(call.format("with-words")) == "good evening Ada"
    with serving("--", "python", program, *words, command="run", runtime_folder=tmp_path) as server:
        wait_until(lambda: server.output.readline().startswith("Call it"), "it can be called")
        done = run("call", "greet", '{"name": "Ada"}', JUPYTER_RUNTIME_DIR=str(tmp_path))
        assert (done.stdout, done.stderr) == ('"good evening Ada"\n', "")


def test_what_the_sdk_refuses_ends_the_program_there(kernel: Kernel) -> None:
    for version, code in enumerate((f"%run {PROGRAMS / 'refused.py'}", text_of("refused")), 1):
        cell = kernel.end_of(code)
        assert (cell.error or "").startswith("FunctionRefused: second can't be served: 'event' is annotated as dict")
        assert cell.text == f"Served: first v{version}.\n"
    assert (
        kernel.run("print([name in emu.functions for name in ('first', 'second', 'third')])") == "[True, False, False]"
    )


def test_what_was_served_is_printed_once_and_only_for_the_sdk_s_own_decorator(kernel: Kernel) -> None:
    code = "from compute_modules.annotations import function\n@function\ndef once(context, event): return 1\n"
    assert kernel.end_of(f"%%cmemu_functions\n{code}").text == "Served: once v1.\n"
    assert kernel.end_of(code.replace("@function", "@emu.function")).text == ""
    cell = kernel.end_of(f"{code}1 / 0")
    assert (cell.text, cell.error) == ("Served: once v3.\n", "ZeroDivisionError: division by zero")
    kernel.run("from compute_modules import add_function\ndef late(context, event): return 1")
    kernel.run("%reload_ext cmemu_nb")
    assert kernel.end_of("add_function(late)").text == "Served: late v1.\n"
