"""Programs as people write them, run by `emu.launch` and by `cmemu run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_processes import run_here, serving
from conftest import end_programs

from cmemu_nb.errors import FunctionError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb import Emulator

pytestmark = pytest.mark.once

PROGRAMS = Path(__file__).parent / "programs"
MISSING = "ModuleNotFoundError: No module named 'no_such_package'"
RAISED = (
    "Unknown query type: the module 'crashed_import' raised an exception while it was imported, before it had defined "
    "'predict'. The end of its traceback:\n"
)


@pytest.fixture
def emu(serve: Callable[..., Any]) -> Iterator[Emulator]:
    with serve() as emulator:
        yield emulator
        end_programs(emulator)


def call(url: str, token: str, *words: str) -> tuple[int, str, str]:
    done = run_here(*words, "--url", url, "--token", token)
    return done.returncode, done.stdout, done.stderr


def test_a_shell_program_is_launched(emu: Emulator) -> None:
    module = emu.launch("./shell_module.sh", cwd=str(PROGRAMS)).wait_until_responsive()
    job = emu.submit("shout", {"word": "hey"})
    assert (job.result(), job.logs) == ("HEY", "call 1: shout\n")
    assert emu.call("count") == 2
    assert [line.job_id for line in module.logs if line.message == "call 1: shout"] == [job.id]


def test_a_shell_program_is_run_by_the_command_line() -> None:
    with serving("--token", "t", "--cwd", str(PROGRAMS), "--", "./shell_module.sh", command="run") as server:
        assert server.output.readline() == "./shell_module.sh polls for jobs, as the runtime 'shell_module'.\n"
        assert call(server.url, "t", "call", "shout", '{"word": "hey"}') == (0, '"HEY"\n', "")
        assert "call 1: shout\n" in server.end()[1]
    assert server.process.returncode == 0


def test_a_crashed_import_is_explained_to_callers_in_every_process(emu: Emulator) -> None:
    emu.launch(f"python {PROGRAMS / 'crashed_import.py'}").wait_until_responsive()
    assert emu.call("ready") == "ready"
    unknown = "No function 'predict' is served. Known functions: 'ready'. {} sends anything."
    why = (
        " The module 'crashed_import' raised an exception while it was imported, before it had defined the function. "
        "The end of its traceback:\n"
    )
    with pytest.raises(NotFound) as refused:
        emu.call("predict", {"x": 1})
    assert str(refused.value).startswith(unknown.format("validate=False") + why)
    assert str(refused.value).endswith(MISSING)
    code, _, errors = call(emu.url, str(emu.token), "call", "predict", '{"x": 1}')
    assert code == 5
    assert errors.startswith(f"cmemu call: {unknown.format('--no-validate')}{why}")
    assert errors.endswith(f"{MISSING}\n")
    assert MISSING in emu.runtime("crashed_import")._repr_mimebundle_()["text/plain"]
    assert [event.runtime_id for event in emu.lifecycle.events.recent() if event.kind == "import_error_set"] == [
        "crashed_import"
    ]
    job = emu.submit("predict", {"x": 1})
    with pytest.raises(FunctionError) as raised:
        job.result()
    assert str(raised.value).startswith(RAISED)
    assert str(raised.value).endswith(MISSING)
    for options in (("--no-validate",), ("--no-validate", "--stream")):
        code, output, errors = call(emu.url, str(emu.token), "call", "predict", '{"x": 1}', *options)
        assert (code, output) == (1, "")
        assert errors.startswith(f"cmemu call: {RAISED}")
        assert errors.endswith(f"{MISSING}\n")
    # The result itself is what the module has posted.
    assert job.raw() == b'{"error": "Unknown query type"}'
    shown = call(emu.url, str(emu.token), "jobs", job.id)[1]
    assert RAISED.splitlines()[0] in shown
    assert MISSING in shown
