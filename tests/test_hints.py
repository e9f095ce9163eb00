"""Hints of what to type name the variable that holds the emulator, and work as they are typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from shells import plain_shell

import cmemu_nb
from cmemu_nb import Emulator
from cmemu_nb.dashboard.activity import figures
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.errors import HomeError, NotFound, NotRunning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from IPython.core.interactiveshell import InteractiveShell

Run = Callable[[str], Any]
PACKAGE = Path(cmemu_nb.__file__).parent
# These tell what the variable is called when nothing is said.
ABOUT_THE_NAME = re.compile(r"whose variable is not called 'emu'|if it is not 'emu'")
EMU = re.compile(r"\bemu\.|@emu\b|'emu'")
NAMES_EMU = re.compile(r"\bemu\b")
DOUBLE = '@lab.function\ndef double(context, event): return 2 * event["x"]'
SHOP = """%%compute_module shop --name lab
from compute_modules.annotations import function

@function
def price(context, event) -> int:
    return 3
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    with plain_shell(tmp_path_factory.mktemp("ipython")) as shell:
        shell.run_line_magic("load_ext", "cmemu_nb")
        yield shell
        shell.run_line_magic("unload_ext", "cmemu_nb")


@pytest.fixture
def run(shell: InteractiveShell) -> Run:
    """Run a cell, which must not fail, and return its value."""

    def run_cell(code: str) -> Any:
        done = shell.run_cell(code)
        assert done.success, code
        return done.result

    return run_cell


@pytest.fixture
def lab(run: Run, shell: InteractiveShell) -> Iterator[Emulator]:
    run("%cmemu start --name lab --port 0 --tls-port 0")
    lab: Emulator = shell.user_ns["lab"]
    yield lab
    lab.start()
    lab.reset()
    run("%cmemu stop --name lab")


def text_of(shown: Any) -> str:
    return str(shown._repr_mimebundle_()["text/plain"])


def steps(shown: Any) -> list[str]:
    """Return what a card says can be typed next, each by itself, without what it says of it."""
    lines = text_of(shown).partition("\n  next ")[2].splitlines()
    found = [step for line in lines for step in re.split(r"   (?!\()", line)]
    return [re.sub(r"   \(.*\)$", "", step).strip() for step in found if step.strip()]


# In words


def hints_in(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the texts of a file that are no documentation."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in nodes if isinstance(node, owners) and node.body]
    documentation = {id(each.value) for each in first if isinstance(each, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield f"{path.name}:{node.lineno}", node.value


def test_no_hint_takes_the_variable_s_name_for_granted() -> None:
    hints = [hint for path in PACKAGE.rglob("*.py") for hint in hints_in(path)]
    assert [hint for hint in hints if EMU.search(hint[1]) and not ABOUT_THE_NAME.search(hint[1])] == []
    scripts = [path.read_text("utf-8") for path in (PACKAGE / "dashboard" / "static").glob("*.js")]
    assert [found for script in scripts for found in re.findall(r"[^.]\bemu\.\w+.*|@emu\b.*", script)] == []


def test_what_an_emulator_says_names_its_variable(lab: Emulator, capsys: pytest.CaptureFixture[str], run: Run) -> None:
    assert lab.name == "lab"
    said = [text_of(lab), lab.timeline().text, repr(lab.functions), text_of(lab.functions), repr(lab.faults)]
    said += [text_of(lab.faults), repr(lab.modules), text_of(lab.modules)]
    for command in ("runtimes", "jobs", "apps"):
        capsys.readouterr()
        run(f"%cmemu {command} --name lab")
        said.append(capsys.readouterr().out)
    with pytest.raises(NotFound) as none_bound:
        lab.call("double", {"x": 1})
    with pytest.raises(HomeError) as no_notebook:
        lab.dashboard()
    said += [str(none_bound.value), str(no_notebook.value)]
    runtime = lab.open_runtime("r")
    said += [text_of(runtime), text_of(runtime.enqueue("f")), lab.latency().text, runtime.enqueue("f").diagnosis]
    lab.stop()
    with pytest.raises(NotRunning) as stopped:
        lab.call("double")
    said += [str(stopped.value), repr(lab), flow_part(lab, figures([], 0, 0), 0)["hint"]]
    for text in said:
        assert re.search(r"\blab\b", text), text
        assert not NAMES_EMU.search(text.replace(" emu and ", "")), text
    assert "%cmemu start --name lab" in said[-1]


def test_an_emulator_of_no_variable_is_called_emu() -> None:
    assert Emulator(port=0).name == "emu"


def test_a_variable_that_a_cell_binds_is_named(run: Run) -> None:
    run("from cmemu_nb import Emulator\nbench = Emulator(port=0, tls_port=0, home='thread').start()")
    try:
        assert "bench.call(" in text_of(run("bench"))
    finally:
        run("bench.stop()")


# As typed


def test_the_steps_of_the_emulator_s_card_work_as_typed(lab: Emulator, run: Run) -> None:
    serve, call, open_runtime, *views = steps(lab)
    assert serve == '@lab.function above a function serves it: def double(context, event): return 2 * event["x"]'
    run(DOUBLE)
    assert run(call) == 42
    run(open_runtime)
    for view in views:
        if "dashboard" not in view:  # which is for notebooks
            run(view)
    job = lab.submit("double", {"x": 1}, "ri.foundry.main.deployed-app.notebook")
    assert job.result() == 2
    assert [run(step) for step in steps(job)] == [2, b"2"]


def test_the_steps_of_jobs_and_runtimes_work_as_typed(lab: Emulator, run: Run) -> None:
    runtime = lab.open_runtime('a "quoted" name')
    get, curl, enqueue = steps(runtime)
    run(get)
    waiting = run(enqueue)
    assert waiting.status == "queued"
    run(curl.replace("!curl", "!curl -sS"))
    result, cancel = steps(waiting)
    assert result.endswith(".result()")
    run(cancel)
    assert waiting.done()
    (events,) = steps(waiting)
    assert len(run(events))


def test_a_launched_module_is_found_by_its_name_and_its_steps_work_as_typed(lab: Emulator, run: Run) -> None:
    assert repr(lab.modules) == 'No program was launched. Try: lab.launch("python app.py")'
    launched = run(SHOP)
    assert steps(launched)[0] == 'module = lab.modules["shop"]'
    for step in steps(launched)[:3]:
        run(step)
    assert run('lab.modules["shop"] is module')
    assert lab.call("price", {}, "ri.foundry.main.deployed-app.shop") == 3
    assert [module.runtime_id for module in lab.modules] == ["shop"]
    assert "shop" in lab.modules
    assert repr(lab.modules) == repr(launched)
    page = lab.modules._repr_mimebundle_()["text/html"]
    assert all(text in page for text in ("shop", "running", "responsive", "lab.modules[&quot;shop&quot;]"))
    with pytest.raises(
        NotFound, match=r"No program was launched for runtime 'shp'\. Did you mean 'shop'\? Known modules: 'shop'"
    ):
        lab.modules["shp"]
    run(steps(launched)[-1])
    assert not launched.running
