"""Command lines for Foundry of other authors call functions and read what there is: pltr-cli and foundry-cli."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import environments
import pytest
from cells import ADD, make
from conftest import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmemu_nb import Emulator

    Command = Callable[..., str]

pytestmark = [pytest.mark.once, pytest.mark.long_lived, pytest.mark.usefixtures("arrow_pipe")]
RID = "ri.foundry.main.deployed-app.notebook"
ADD_NAME = "com.notebook.computemodules.add"
QUERY = json.dumps({"x": 40, "y": 2})


@pytest.fixture(scope="module")
def emu() -> Iterator[Emulator]:
    with serving() as emulator:
        emulator.function(make(ADD))
        yield emulator
        emulator.reset()


def run(package: str, emu: Emulator, home: Path, *arguments: str) -> str:
    authority = str(emu.certificates.authority_path)
    environment = {
        **os.environ,
        **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(home)),
        **dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), authority),
        "PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    command = [*environments.command_lines()[package], *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def configured(package: str, emu: Emulator, home: Path) -> Command:
    command = functools.partial(run, package, emu, home)
    where = ["--host", str(emu.platform_url), "--token", emu.token]
    command("configure", "configure", "--profile", "cmemu", "--auth-type", "token", *where)
    return command


def answer(text: str) -> Any:
    return json.loads(text)


def test_pltr_verifies_the_token_calls_functions_and_uploads_files_of_datasets(emu: Emulator, tmp_path: Path) -> None:
    pltr = configured("pltr-cli", emu, tmp_path)
    assert "Authentication successful!" in pltr("verify")
    called = pltr("functions", "query", "execute", ADD_NAME, "--parameters", QUERY, "--format", "json")
    assert answer(called) == {"value": 42}
    ontology, *_ = answer(pltr("ontology", "list", "--format", "json"))
    called = pltr("ontology", "query-execute", ontology["rid"], ADD_NAME, "--parameters", QUERY, "--format", "json")
    assert answer(called) == {"result": "value=42"}
    dataset = emu.datasets.create("orders")
    assert answer(pltr("dataset", "get", dataset.rid, "--format", "json"))["name"] == "orders"
    (tmp_path / "orders.csv").write_text("id\n7\n")
    assert "File uploaded successfully" in pltr("dataset", "files", "upload", str(tmp_path / "orders.csv"), dataset.rid)
    assert dataset.frame()["id"].to_list() == [7]


def test_foundry_cli_executes_a_compute_module_s_function_and_reads_its_status(emu: Emulator, tmp_path: Path) -> None:
    pltr = configured("foundry-cli", emu, tmp_path)
    assert "Authentication successful!" in pltr("verify")
    described = answer(pltr("functions", "query", "get", ADD_NAME, "--format", "json"))
    assert {name: each["required"] for name, each in described["parameters"].items()} == {"x": True, "y": False}
    executed = pltr("compute", "execute", RID, "--query-type", "add", "--query", QUERY, "--apply", "--format", "json")
    assert answer(executed) == [{"result": 42}]
    (info,) = answer(pltr("compute", "info", RID, "--branch", "master", "--format", "json"))
    assert info["deployedAppRid"] == RID
    assert info["status"]["currentReplicaSet"]["state"] == "ACTIVE"
