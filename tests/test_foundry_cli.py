"""The command-line client `foundry-cli`, unmodified, inspects a deployed app and calls its function."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from client import RID, Api
from conftest import serving
from environments import clean_environ, foundry_cli
from test_official_sdks import PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.long_lived]


def run(folder: Path, *commands: list[str]) -> list[int]:
    """Run commands in one process; return their exit codes."""
    environ = {"PYTHONPATH": str(foundry_cli()), "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "COLUMNS": "500"}
    program = [sys.executable, str(PROGRAMS / "foundry_cli_commands.py")]
    lines = "".join(f"{json.dumps(command)}\n" for command in commands)
    done = subprocess.run(
        program,
        input=lines,
        env={**clean_environ(), **environ},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes: list[int] = json.loads(done.stdout.splitlines()[-1])
    return codes


def test_it_inspects_a_deployed_app_and_calls_its_function(tmp_path: Path) -> None:
    with serving() as emulator:

        def add(context, event):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, ARG001 - as the SDK wants it
            return event["x"] + event["y"]

        emulator.function(add)
        runtime = Api(emulator.url, emulator.token).open("my-runtime", RID)
        app, common = "ri.foundry.main.deployed-app.notebook", ["--profile", "p", "--format", "json"]
        login = ["--profile", "p", "--auth-type", "token", "--host", emulator.url, "--token", emulator.token, "--force"]
        call = ["compute", "execute", app, "--query-type", "add", "--query", '{"x": 20, "y": 22}', "--apply", *common]
        codes = run(
            tmp_path,
            ["configure", "configure", *login],
            ["compute", "info", RID, *common, "--output", "info.json"],
            ["compute", "info", "ri.none", *common],
            [*call, "--output", "called.json"],
        )
        assert codes == [0, 0, 1, 0]
        (shown,) = json.loads((tmp_path / "info.json").read_text())
        status, config = shown["status"], shown["config"]
        assert (status["computeModuleId"], status["currentReplicaSet"]["totalReplicas"]) == (runtime.runtime_id, 1)
        assert config["deployedAppRid"] == RID
        assert json.loads((tmp_path / "called.json").read_text()) == [{"result": 42}]
        emulator.reset()
