"""Pipelines: launched programs that take no jobs and end with their exit codes."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from cells import ADD, make
from cli_processes import run, run_here
from client import RUNTIMES

from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.errors import InvalidRequest, JobFailed, LaunchFailed
from cmemu_nb.executors.modules import modules, restarts

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cmemu_nb import Emulator

PROGRAMS = Path(__file__).parent / "programs"
PIPELINE = str(PROGRAMS / "pipeline.py")
ROWS = [{"name": "pen", "price": 2, "count": 3}, {"name": "ink", "price": 5, "count": 1}]
APP = "ri.foundry.main.deployed-app.pipeline"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return path


def totals(path: Path) -> list[int]:
    return [json.loads(line)["total"] for line in path.read_text().splitlines()]


def test_a_pipeline_ends_with_its_exit_code(emu: Emulator, source: Path, tmp_path: Path) -> None:
    module = emu.launch(
        ["python", PIPELINE, str(source), str(tmp_path / "out")],
        mode="pipeline",
        build2_token="a-build-token",
        aliases={"orders": {"rid": "ri.foundry.main.dataset.1"}},
    )
    assert module.wait_until_ended(30) == 0
    assert totals(tmp_path / "out") == [6, 5]
    assert module.states == ["exited(0)"]
    assert module.wait_until_responsive() is module  # it was
    assert module.logs.text == "pipeline of ['orders'] with a build token\ndone"


def test_a_program_calls_a_function_with_plain_requests_and_knows_only_the_platform_s_url(
    serve: Callable[..., AbstractContextManager[Emulator]],
) -> None:
    with serve() as emulator:
        emulator.function(make(ADD))
        command = ["python", str(PROGRAMS / "plain_requests.py"), "add", '{"x": 40, "y": 2}']
        module = emulator.launch(command, mode="pipeline", client={"id": "an-app", "secret": "the-secret-of-the-app"})
        assert (module.wait_until_ended(30), module.logs.text) == (0, "42")
        emulator.reset()


def test_a_pipeline_is_responsive_while_it_runs_and_shown_as_a_pipeline(
    emu: Emulator, source: Path, tmp_path: Path
) -> None:
    command = ["python", PIPELINE, str(source), str(tmp_path / "out"), "600"]
    module = emu.launch(command, mode="pipeline").wait_until_responsive()
    assert repr(module) == f"<Module 'pipeline': {shlex.join(command)} (pipeline): responsive>"
    assert "mode        pipeline" in str(module._repr_mimebundle_()["text/plain"])
    assert emu.runtimes.loc["pipeline", "mode"] == "pipeline"
    assert not emu.runtimes.loc["pipeline", "connected"]
    assert "pipeline</" in emu.runtimes._repr_html_()  # type: ignore[operator]
    assert repr(emu.runtime("pipeline")) == "<Runtime 'pipeline': pipeline>"
    (row,) = runtimes_part(emu, time.time_ns())["rows"]
    (replica,) = module.replicas
    [line] = row["lines"]
    assert (row["state"], row["replicas"]) == ("pipeline", "1")
    assert (line["name"], line["state"]) == (replica.replica.replica_id, "responsive")
    answer = requests.get(f"{emu.url}{RUNTIMES}", headers={"Authorization": f"Bearer {emu.token!s}"}, timeout=30)
    assert [each["mode"] for each in answer.json()["runtimes"]] == ["pipeline"]
    shown = run_here("runtimes", "--url", emu.url, "--token", str(emu.token)).stdout
    assert shown.splitlines()[-1].split()[:3] == ["pipeline", "pipeline", "never"]
    with pytest.raises(LaunchFailed, match=r"did not end within 0.1 s: responsive\. Its last lines:"):
        module.wait_until_ended(0.1)
    module.stop()
    assert module.states == ["exited(143)"]


def test_a_call_to_a_pipeline_fails_at_once_with_the_reason(emu: Emulator, source: Path, tmp_path: Path) -> None:
    early = emu.open_runtime("pipeline", APP).enqueue("early")
    emu.launch(["python", PIPELINE, str(source), str(tmp_path / "out")], "pipeline", mode="pipeline")
    reason = (
        "'add' can't be called: the module 'pipeline' was launched in pipeline mode, so it takes no jobs. Launch it in "
        "function mode, which is the default, to call its functions."
    )
    with pytest.raises(JobFailed) as failed:
        emu.call("add", {"x": 1}, APP)
    assert str(failed.value) == reason
    done = run_here("call", "add", "--url", emu.url, "--token", str(emu.token))
    assert (done.returncode, done.stderr) == (3, f"cmemu call: {reason}\n")
    assert "'early' is queued, and the module 'pipeline' was launched in pipeline mode" in early.diagnosis
    # Another executor may still serve functions on the same runtime.
    taken = emu.change(lambda state: state.take("pipeline"))
    assert taken is not None
    assert taken.job_id == early.id
    job = emu.submit("add", {"x": 1}, APP)
    emu.change(lambda _: None)
    assert job.status == "queued"


def test_a_pipeline_that_fails_at_once_is_an_error_with_its_last_lines(
    emu: Emulator, source: Path, tmp_path: Path
) -> None:
    source.write_text('{"count": 1}\n')
    with pytest.raises(
        LaunchFailed, match=r"ended at once, with exit code 3\. Its last lines:\n.*\nrow 1 has no price$"
    ):
        emu.launch(["python", PIPELINE, str(source), str(tmp_path / "out")], mode="pipeline")
    assert emu.modules.nothing in repr(emu.modules)


def test_a_pipeline_that_fails_later_is_started_again_a_few_times(
    emu: Emulator, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.write_text('{"count": 1}\n')
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 0.005)
    module = emu.launch(["python", PIPELINE, str(source), str(tmp_path / "out")], mode="pipeline")
    assert module.wait_until_ended(30) == 3
    assert module.logs.text.count("row 1 has no price") == 1 + restarts.MAX_RESTARTS
    with pytest.raises(LaunchFailed, match="ended, with exit code 3"):
        module.wait_until_responsive()
    source.write_text("")
    module.restart()
    assert module.wait_until_ended(30) == 0


def test_a_mode_that_does_not_exist_is_refused_with_the_modes(emu: Emulator) -> None:
    with pytest.raises(InvalidRequest, match=r"There is no mode 'pipelin'\. Did you mean 'pipeline'\?"):
        emu.launch(["python", PIPELINE], mode="pipelin")


@pytest.mark.once
def test_cmemu_run_ends_with_the_exit_code_of_a_pipeline(source: Path, tmp_path: Path) -> None:
    words = ("run", "--port", "0", "--mode", "pipeline", "--", "python", PIPELINE, str(source), str(tmp_path / "out"))
    done = run(*words)
    assert (done.returncode, totals(tmp_path / "out")) == (0, [6, 5])
    command = shlex.join(words[6:])
    assert done.stdout.splitlines()[1:] in ([], [f"{command} runs in pipeline mode, as the runtime 'pipeline'."])
    assert done.stderr.splitlines() == [
        "pipeline of [] without a build token",
        "done",
        f"cmemu run: {command} ended with exit code 0.",
    ]
    source.write_text("{}\n")
    done = run(*words)
    assert done.returncode == 3
    # On a slow machine the launch has succeeded before the program fails, and the message is another one.
    assert "with exit code 3." in done.stderr
    assert "row 1 has no price" in done.stderr
