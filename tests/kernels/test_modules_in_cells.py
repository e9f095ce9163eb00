"""Programs with the official SDKs, launched from a notebook's cells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from client import alive
from environments import node_modules
from kernels.driver import running_cell, wait_until
from kernels.notebooks import IN_ONE_KERNEL, open_notebook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernels.notebooks import Notebook

pytestmark = pytest.mark.kernels

PROGRAMS = Path(__file__).parents[1] / "programs"
WHERE = [("7.4", "kernel"), ("6.30", "kernel"), ("7.4", "thread")]
PYTHON_CELL = """%%compute_module greeter --replicas 2
import os
from compute_modules.annotations import function

@function
def greet(context, event) -> str:
    return "hello " + event["name"]

@function
def pid(context, event) -> int:
    return os.getpid()
"""
NODE_CELL = """%%compute_module counter --language node
import { ComputeModule } from "@palantir/compute-module";
new ComputeModule({}).register("addOne", async ({ value }) => value + 1);
"""


@pytest.fixture(scope="module", params=WHERE, ids="-".join)
def notebook(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    folder: Path = tmp_path_factory.mktemp("notebook")
    (folder / "node_modules").symlink_to(node_modules() / "node_modules")
    version, home = request.param
    with open_notebook(version, home, folder) as notebook:
        yield notebook


def run_cell(notebook: Notebook, code: str) -> str:
    """Run a cell that a magic begins, and return what it shows."""
    cell = notebook.kernel.finish(notebook.kernel.send(code))
    assert cell.status == "ok", cell.error
    return cell.text


def test_a_python_cell_is_a_module_and_running_it_again_serves_the_new_text(notebook: Notebook) -> None:
    notebook.kernel.run("@emu.function\ndef here(context, event): return 1")  # so that two apps are bound
    shown = run_cell(notebook, PYTHON_CELL)
    assert "greeter" in shown
    assert "replicas" in shown
    assert notebook.kernel.run("print(emu.call('greet', {'name': 'Ada'}))") == "hello Ada"
    run_cell(notebook, PYTHON_CELL.replace("hello", "good evening"))
    assert notebook.kernel.run("print(emu.call('greet', {'name': 'Ada'}))") == "good evening Ada"


@IN_ONE_KERNEL
def test_a_node_cell_is_a_module(notebook: Notebook) -> None:
    run_cell(notebook, NODE_CELL)
    app = "ri.foundry.main.deployed-app.counter"
    assert notebook.kernel.run(f"print(emu.call('addOne', {{'value': 41}}, {app!r}, validate=False))") == "42"


def test_an_interrupt_of_a_cell_does_not_reach_the_module(notebook: Notebook) -> None:
    run_cell(notebook, PYTHON_CELL)
    before = notebook.kernel.run("emu.modules.of('greeter')[0].wait_until_responsive(); print(emu.call('pid'))")
    with running_cell(notebook.kernel, "import time; time.sleep(60)") as cell:
        pass
    notebook.kernel.interrupt()
    assert "KeyboardInterrupt" in (notebook.kernel.finish(cell).error or "")
    assert alive(int(before))
    assert notebook.kernel.run("print(emu.modules.of('greeter')[0].states)") == "['responsive', 'responsive']"


@IN_ONE_KERNEL
def test_a_program_is_launched_and_its_environment_shown_by_magics(notebook: Notebook) -> None:
    (notebook.kernel.folder / "shout.py").write_text(
        "from compute_modules.annotations import function\n"
        "@function\ndef shout(context, event) -> str:\n    return event['text'].upper()\n"
    )
    assert "shout" in run_cell(notebook, "%cmemu launch --max-concurrent-tasks 2 -- python shout.py")
    assert notebook.kernel.run("print(emu.call('shout', {'text': 'hey'}))") == "HEY"
    lines = run_cell(notebook, "%cmemu env shout").splitlines()
    assert [line for line in lines if not line.startswith("export ")] == []
    assert run_cell(notebook, "%cmemu env shout --docker image").startswith("docker run --rm --network host -v ")


@IN_ONE_KERNEL
def test_pipelines_shell_programs_and_crashed_imports_are_launched_from_cells(notebook: Notebook) -> None:
    (notebook.kernel.folder / "source.jsonl").write_text('{"price": 2, "count": 3}\n')
    pipeline = (
        f"%cmemu launch --mode pipeline --no-restart -- python {PROGRAMS / 'pipeline.py'} source.jsonl target.jsonl"
    )
    shown = run_cell(notebook, pipeline)
    assert "Module" in shown
    assert "pipeline" in shown
    assert notebook.kernel.run("print(emu.modules['pipeline'].wait_until_ended(30))") == "0"
    assert '"total": 6' in (notebook.kernel.folder / "target.jsonl").read_text()
    assert "shell_module" in run_cell(notebook, f"%cmemu launch -- {PROGRAMS / 'shell_module.sh'}")
    app = "ri.foundry.main.deployed-app.shell_module"
    assert notebook.kernel.run(f"print(emu.call('shout', {{'word': 'hey'}}, {app!r}))") == "HEY"
    program = (PROGRAMS / "crashed_import.py").read_text()
    notebook.kernel.run("from cmemu_nb.executors.modules import modules; modules.SETTLE_SECONDS = 30.0")
    run_cell(notebook, f"%%compute_module crashed\n{program}")
    app = "ri.foundry.main.deployed-app.crashed"
    assert notebook.kernel.run(f"print(emu.call('ready', None, {app!r}))") == "ready"
    said = notebook.kernel.run(f"try:\n    emu.call('predict', None, {app!r})\nexcept Exception as error: print(error)")
    assert "The module 'crashed' raised an exception while it was imported" in said
    assert said.endswith("ModuleNotFoundError: No module named 'no_such_package'")


def what_it_says(notebook: Notebook, code: str, said: str) -> str:
    """Run a cell that fails until it has `said` that; the kernel drops, unseen, what comes right behind another one."""
    cell = notebook.kernel.send(code)

    def spoken() -> bool:
        nonlocal cell
        if cell.status == "aborted":
            cell = notebook.kernel.send(code)
        return said in cell.text

    wait_until(spoken, said)
    return cell.text


@IN_ONE_KERNEL
def test_what_can_not_be_launched_is_one_clear_sentence(notebook: Notebook) -> None:
    (notebook.kernel.folder / "crashed.py").write_text("import compute_modules.annotations\nimport no_such_package\n")
    notebook.kernel.run("from cmemu_nb.executors.modules import modules; modules.SETTLE_SECONDS = 30.0")
    for code, said in (
        ("%cmemu launch -- python crashed.py", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("%%compute_module broken\nimport sys; sys.exit('no luck')", "exit code 1. Its last lines:\nno luck"),
        ("%cmemu launch -- no-such-program", "There is no program 'no-such-program' on the PATH"),
        ("%%compute_module x --language cobol\n1", "choose from"),
        ("%cmemu launch", "launch() needs a command, such as 'python app.py', or an image"),
    ):
        assert "Traceback" not in what_it_says(notebook, code, said)


@pytest.mark.parametrize(("version", "home"), [("7.4", "kernel"), ("7.4", "thread")])
@pytest.mark.parametrize("end", ["shutdown", "kill"])
def test_modules_end_with_their_kernel_however_that_ends(version: str, home: str, end: str, tmp_path: Path) -> None:
    with open_notebook(version, home, tmp_path) as notebook:
        run_cell(notebook, PYTHON_CELL)
        pid = int(notebook.kernel.run("print(emu.call('pid'))"))
        programs = notebook.kernel.run("print(*(each.pid for each in emu.modules.of('greeter')[0].replicas))").split()
        assert alive(pid)
        if end == "kill":
            os.kill(int(notebook.kernel.run("import os; print(os.getpid())")), 9)
    wait_until(lambda: not any(map(alive, [pid, *map(int, programs)])), "the programs end")


@IN_ONE_KERNEL
def test_a_module_with_the_java_sdk_is_launched_in_a_cell_and_leaves_no_port_behind(notebook: Notebook) -> None:
    kernel = notebook.kernel
    program = Path(__file__).parents[1] / "programs" / "java_speaking_module.py"
    kernel.run(
        "import shlex, socket, sys\n"
        f"script = 'exec ' + shlex.join([sys.executable, {str(program)!r}, 'new'])\n"
        "module = emu.launch(['sh', '-c', script], 'java', environment={'FIXED_PORT': '9'}).wait_until_responsive()\n"
        "ports = [emu.modules._forwarders._own[each.replica].port for each in module.replicas]\n"
        "def listening(): return [port for port in ports if not socket.socket().connect_ex(('127.0.0.1', port))]\n"
    )
    assert kernel.run("print(emu.runtime('java').enqueue('hello', 'Ada').result(timeout=30))") == "hello Ada"
    assert kernel.run("print(listening() == ports)") == "True"
    assert kernel.run("module.stop(); print(listening())") == "[]"
