"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from shells import plain_shell

from cmemu_nb import Emulator
from cmemu_nb.notebook import topics
from cmemu_nb.testing import MAX_NAME, file_name

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.once

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
QUICKLY = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest")

LEAVES_MUCH = """
import asyncio
import signal
import threading
from dataclasses import dataclass

import pytest

LET_GO = threading.Event()
HEARD = []
NOTEBOOK = "ri.foundry.main.deployed-app.notebook"
EVENTS = ["session_opened", "app_bound"]

@dataclass
class Number:
    x: int

@pytest.fixture(scope="session")
def cmemu_settings():
    data = {"datasets": {"seeded": [{"n": 1}]}, "streams": {"seeded-events": [{"n": 1}]}}
    return {"execute_timeout": 7.0, "tokens": ["a-second-token"], **data}

def urls(cmemu):
    return [cmemu.url, cmemu.platform_url]

def check_empty(cmemu):
    assert (cmemu.settings.execute_timeout, cmemu.settings.tokens) == (7.0, ["a-second-token"])
    assert not cmemu.lifecycle.runtimes() + cmemu.lifecycle.jobs() + cmemu.lifecycle.deployed_apps()
    assert not cmemu.lifecycle.schemas() + cmemu.lifecycle.events.recent(all=True)
    assert (list(cmemu.datasets), list(cmemu.streams)) == (["seeded"], ["seeded-events"])
    assert cmemu.datasets["seeded"].table().to_pylist() == cmemu.streams["seeded-events"].records == [{"n": 1}]
    assert not len(cmemu.functions) + len(cmemu.faults) and not cmemu.modules.any_running()

def test_leaves_much(cmemu, cmemu_runtime):
    check_empty_but_for_the_runtime = [event.kind for event in cmemu.lifecycle.events.recent()]
    assert check_empty_but_for_the_runtime == EVENTS
    assert cmemu_runtime.deployed_apps == ["ri.foundry.main.deployed-app.test (master)"]

    @cmemu.function
    def stuck(context, event: Number) -> int:
        print("began")
        LET_GO.wait()
        return event.x

    cmemu.on_event(HEARD.append)
    running = cmemu.submit("stuck", {"x": 1}, NOTEBOOK)
    while not running.logs:
        pass
    cmemu_runtime.enqueue("stuck", {"x": 1})
    cmemu.faults(error_rate=1)
    cmemu.datasets.create("out")
    cmemu.datasets["seeded"].append([{"n": 2}])
    cmemu.streams["events"] = [{"n": 1}]
    del cmemu.streams["seeded-events"]
    cmemu.settings.execute_timeout = 1.0
    cmemu.settings.tokens.append("x")

def test_sees_nothing_of_it(cmemu):
    check_empty(cmemu)
    threads = [each for each in threading.enumerate() if each.name == "cmemu-job-stuck"]
    HEARD.clear()
    LET_GO.set()
    for thread in threads:
        thread.join()
    cmemu.change(lambda lifecycle: None)
    check_empty(cmemu)
    assert threads and not HEARD

def test_stops_it(cmemu):
    cmemu.open_runtime("r")
    cmemu.stop()

def test_runs_again(cmemu):
    check_empty(cmemu)
    test_serves_and_calls(cmemu)

def test_serves_and_calls(cmemu):
    @cmemu.function
    def double(context, event: Number) -> int:
        return event.x * 2

    async def call():
        return await cmemu.acall("double", {"x": 4})

    assert cmemu.call("double", {"x": 2}) == 4
    assert asyncio.run(call()) == 8

@pytest.mark.anyio
async def test_in_async_code(cmemu, anyio_backend_name):
    @cmemu.function
    def double(context, event: Number) -> int:
        return event.x * 2

    assert await cmemu.acall("double", {"x": 4}) == 8
    assert await (await cmemu.asubmit("double", {"x": 5})) == 10

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
FAILS = """
import pytest

URLS = []

@pytest.fixture
def bad_setup(cmemu):
    cmemu.open_runtime("in-setup")
    raise RuntimeError("setup is broken")

@pytest.fixture
def bad_teardown(cmemu):
    yield
    cmemu.open_runtime("in-teardown")
    raise RuntimeError("teardown is broken")

@pytest.mark.parametrize("name", ["a/b", "a:b", "../" * 200, "ü\\n", "ok"])
def test_call(cmemu, name):
    cmemu.open_runtime("in-call")
    assert name == "ok"

def test_setup(bad_setup):
    pass

def test_teardown(bad_teardown):
    pass

@pytest.mark.xfail
def test_that_is_known_to_fail(cmemu):
    assert 0

def test_that_uses_none():
    assert 0
"""
LAUNCHES = """
import os
import threading
import time
import _thread

import pytest

ENDED = []

def test_fails(cmemu, cmemu_launch):
    module = cmemu_launch("python module.py", replicas=2, environment={"GREETING": "hello"})
    assert module.states == ["responsive"] * 2
    ENDED.extend(module.replicas)
    assert cmemu.call("greet") == "no greeting"

def test_replicas_are_gone(cmemu):
    assert [each.exit_code is None for each in ENDED] == [False, False]
    assert not cmemu.lifecycle.events.recent()

def test_that_ends(cmemu_launch):
    cmemu_launch(["python", "-c", "print('so long'); raise SystemExit(3)"], "ends")

def test_interrupts_a_launch(cmemu):
    cmemu.on_event(lambda event: event.kind == "replica_started" and _thread.interrupt_main())
    with pytest.raises(KeyboardInterrupt):
        cmemu.launch(["python", "-c", "import time; time.sleep(60)"], "sleeper")

def test_nothing_is_left_of_it(cmemu):
    assert not cmemu.lifecycle.events.recent()
    assert not cmemu.modules.any_running()
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as children:
        assert children.read() == ""
"""
MODULE = """
import os
from compute_modules.annotations import function

@function
def greet(context, event) -> str:
    print(os.environ["GREETING"], "from the program")
    return os.environ["GREETING"]
"""
GETS_STUCK = """
import threading

import pytest
from cmemu_nb import testing

LET_GO = threading.Event()
testing.STUCK_SECONDS = 0.5

@pytest.fixture(scope="session", autouse=True)
def let_go(_cmemu_of_the_session):
    yield
    LET_GO.set()

def test_that_blocks_it(cmemu):
    began = threading.Event()
    cmemu.open_runtime("r")
    cmemu.on_event(lambda event: began.set() or LET_GO.wait())
    threading.Thread(target=cmemu.open_runtime, args=["s"], daemon=True).start()
    began.wait()
    assert 0

def test_that_cannot_use_it(cmemu):
    pass
"""
USES_NOTHING = """
import sys

def test_nothing_heavy_is_imported():
    assert not {"tornado", "pandas", "IPython", "msgspec", "traitlets", "compute_modules"} & set(sys.modules)
    assert {name for name in sys.modules if name.startswith("cmemu_nb")} <= ALLOWED
"""
PLUGIN = {"cmemu_nb", "cmemu_nb.version", "cmemu_nb.pytest_plugin"}


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run pytest on a file of tests, with the plugin of this very project."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(pytester.path / "runtime"))

    def run(tests: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=tests)
        return pytester.runpytest_subprocess(*QUICKLY, *arguments)

    return run


def test_no_test_sees_what_another_has_left_behind(run: Callable[..., pytest.RunResult]) -> None:
    result = run(LEAVES_MUCH, "-W", "error", "--import-mode=importlib")
    result.assert_outcomes(passed=6)
    assert "warning" not in result.stdout.str()


def test_the_session_of_a_failed_test_is_exported_by_any_worker(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    result = run(FAILS, "-W", "error", "--cmemu-export-on-failure", "out/deep", "-n", "2")
    result.assert_outcomes(passed=2, failed=5, errors=2, xfailed=1)
    folder = pytester.path / "out" / "deep"
    said = re.findall(r"^(/.*\.json)$", result.stdout.str(), re.MULTILINE)
    assert sorted(said) == sorted(map(str, folder.iterdir()))
    assert {re.findall(r"-(gw\d)-", path)[-1] for path in said} == {"gw0", "gw1"}
    opened = {path: Emulator.from_export(path).lifecycle.runtimes()[0].runtime_id for path in said}
    assert sorted(opened.values()) == ["in-call"] * 4 + ["in-setup", "in-teardown"]
    for path, runtime_id in opened.items():
        assert runtime_id.removeprefix("in-") in path
    assert result.stdout.str().count("cmemu: exported session") == len(said)


def test_an_export_that_cannot_be_written_hides_nothing(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    pytester.makeini("[pytest]\ncmemu_export_on_failure = test_it.py")
    result = run(FAILS, "-k", "test_call and ok or test_setup")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*RuntimeError: setup is broken",
            "*exported session*",
            "It could not be written: FileExistsError: *test_it.py'",
        ]
    )


def test_a_callback_that_does_not_return_hides_nothing(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    result = run(GETS_STUCK, "--cmemu-export-on-failure", "out")
    result.assert_outcomes(failed=1, errors=2)
    result.stdout.fnmatch_lines(["*HomeError: The emulator can't be emptied: a callback of on_event() does not*"])
    path = next((pytester.path / "out").glob("*blocks_it-[!t]*.json"))
    assert [each.runtime_id for each in Emulator.from_export(path).lifecycle.runtimes()] == ["r", "s"]


def test_a_program_is_launched_stopped_and_heard(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(module=MODULE)
    result = run(LAUNCHES, "-W", "error")
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: assert 'hello' == 'no greeting'",
            "*cmemu: output of runtime module*",
            "*hello from the program*",
            "*LaunchFailed: *ended*with exit code 3. Its last lines:",
            "*so long",
        ]
    )


def test_who_uses_no_fixture_imports_nothing_of_it(run: Callable[..., pytest.RunResult]) -> None:
    run(USES_NOTHING.replace("ALLOWED", repr(PLUGIN))).assert_outcomes(passed=1)
    run(USES_NOTHING.replace("ALLOWED", "set()"), "-p", "no:cmemu").assert_outcomes(passed=1)


def test_options_and_fixtures_explain_themselves(pytester: pytest.Pytester) -> None:
    said = pytester.runpytest_inprocess(*QUICKLY, "--help").stdout.str()
    assert "--cmemu-export-on-failure=DIR" in said
    assert "cmemu_export_on_failure (string)" in said
    said = pytester.runpytest_inprocess(*QUICKLY, "--fixtures").stdout.str()
    for name in ("cmemu_settings [session scope]", "cmemu", "cmemu_runtime", "cmemu_launch"):
        assert re.search(rf"^{re.escape(name)} -- .*\n +(?!no docstring)\w", said, re.MULTILINE), name


def test_file_names_are_short_safe_and_no_other_tests() -> None:
    ids = ["t.py::test[a/b]", "t.py::test[a:b]", "t.py::test[\ud800]", "../" * 500, "", "t.py::test[ü\n]", "CON"]
    names = [file_name(each, phase, worker) for each in ids for phase in ("call", "setup") for worker in ("", "gw1")]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[\w=][\w.=-]*", name, re.ASCII)
        assert len(name) < MAX_NAME + 40


def documented(name: str) -> str:
    """Return the file of that name which the document shows, without the line that names it."""
    text = topics.read("testing")
    found = re.search(rf"^```python\n# {name}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def test_the_documented_example_runs(run: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    programs = {name: documented(f"{name}.py") for name in ("app", "conftest", "pipeline", "test_pipeline")}
    pytester.makepyfile(**programs)
    result = run(documented("test_app.py"), "test_it.py", "test_pipeline.py", "-W", "error", "--import-mode=prepend")
    result.assert_outcomes(passed=5)
    assert result.stderr.str() == ""


def test_the_documented_module_is_what_an_export_writes(tmp_path: Path) -> None:
    _, head, numbers, add = re.split(r"\n\n\n|\n(?=from dataclasses)", documented("app.py").strip())
    cells = [f"{head.splitlines()[0]}\n{numbers}", add.replace("@function", "@emu.function")]
    with plain_shell(tmp_path) as shell, Emulator(port=0, home="thread") as emu:
        shell.user_ns["emu"] = emu
        for cell in cells:
            shell.run_cell(cell, store_history=True)
        written = emu.functions.export(tmp_path / "app.py", cells).read_text("utf-8")
    assert written == documented("app.py")


def test_the_documented_job_keeps_what_is_exported() -> None:
    found = re.search(r"^```yaml\n(.*?)^```", topics.read("testing"), re.MULTILINE | re.DOTALL)
    assert found
    steps = yaml.safe_load(found[1])["jobs"]["test"]["steps"]
    runs = [step["run"] for step in steps if "run" in step]
    assert runs[-1] == f"pytest --cmemu-export-on-failure {steps[-1]['with']['path']}"
