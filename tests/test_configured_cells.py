"""Functions in cells that are configured as a module is, with the official SDK's own readers."""

from __future__ import annotations

import json
import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cli_processes import run, serving
from client import eventually
from compute_modules import startup
from compute_modules.auth import retrieve_pipeline_token
from compute_modules.sources import get_source_config, get_source_secret
from compute_modules.sources_v2 import get_source
from test_magics import Run, only_shell, shell
from test_magics import run as magic

from cmemu_nb import Emulator
from cmemu_nb.errors import FunctionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["magic", "only_shell", "shell"]  # fixtures
PASSWORD, SECRET, BUILD = "the-password-of-the-crm", "the-secret-of-the-client", "the-token-of-the-build"
CONFIGURATION: dict[str, Any] = {
    "sources": {"Crm": {"password": PASSWORD}},
    "source_configurations": {
        "Crm": {"sourceConfiguration": {"plan": "small"}, "httpConnectionConfig": {"url": "https://crm.example"}},
        "Mail": {"secrets": {"user": "the-user-of-the-mail"}},
    },
    "aliases": {"orders": {"rid": "ri.foundry.main.dataset.orders"}},
    "client": {"id": "orders-app", "secret": SECRET},
    "build2_token": BUILD,
    "environment": {"LOG_LEVEL": "DEBUG"},
}
CONNECTED = {
    "password": PASSWORD,
    "the same": "True",
    "plan": "small",
    "url": "",
    "orders": "ri.foundry.main.dataset.orders",
    "client": "orders-app",
    "level": "DEBUG",
    "user": "alice",
}
CUSTOMERS = str(Path(__file__).parent / "programs" / "sdk" / "customers.py")
startup.DISABLE_STARTUP = True  # a program that was run with %run would start to poll when this process ends
pytestmark = pytest.mark.filterwarnings("ignore:get_source:DeprecationWarning")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    before = dict(os.environ)
    with Emulator(port=0, home="thread") as emulator:
        yield emulator
    now = {**before, "PYTEST_CURRENT_TEST": os.environ["PYTEST_CURRENT_TEST"]}
    assert dict(os.environ) == now, "the environment of the process is as it was"


def print_secret(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    print(f"it is {context['sources']['Crm']['password']}")  # noqa: T201


def secret_of(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    return [context["sources"].get("Crm"), context.get("CLIENT_ID"), context["source_configs"]]


def shown_configuration(context, event) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001, ARG001
    return repr(context["source_configs"])


def raising(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    raise ValueError("on purpose")


def check_customers(emulator: Emulator, app: str) -> None:
    app = f"ri.foundry.main.deployed-app.{app}"
    assert emulator.call("connect", None, app) == {**CONNECTED, "url": emulator.platform_url}
    assert [emulator.call(name, None, app) for name in ("fetch", "call_back")] == ["ok", "200"]


def test_a_program_finds_its_configuration_in_a_cell_launched_and_with_cmemu_run(
    shell: InteractiveShell, magic: Run, tmp_path: Path
) -> None:
    before = dict(os.environ)
    path = tmp_path / "module.yaml"
    seed = tmp_path / "seed.yaml"
    seed.write_text("tokens: {the-token-of-alice: {login: alice}}\nsettings: {token: the-token-of-alice}\n")
    magic(f"%cmemu start --port 0 --thread --seed {seed}")
    emulator = shell.user_ns["emu"]
    connection = {"httpConnectionConfig": {"url": emulator.platform_url}, "sourceConfiguration": {"plan": "small"}}
    path.write_text(yaml.safe_dump({**CONFIGURATION, "source_configurations": {"Crm": connection}}))
    _, printed = magic(f"%cmemu configure {path}")
    assert printed == (
        "The runtime 'notebook' is configured: sources Crm; aliases orders; client orders-app; build2_token …uild; "
        "environment LOG_LEVEL.\n"
    )
    magic(f"%run {CUSTOMERS}")
    check_customers(emulator, "notebook")
    module, printed = magic(f"%cmemu launch --config {path} -- python {CUSTOMERS}")
    module.wait_until_responsive()
    check_customers(emulator, "customers")
    _, printed = magic(f"%cmemu configure {path} --runtime customer")
    assert printed.endswith(
        "\nThe runtime is not open yet: a program that is launched for it will find this configuration. "
        "Did you mean 'customers'?\n"
    )
    magic(f"%cmemu configure {path} --runtime customers")
    assert emulator.lifecycle.configuration("customers") == emulator.lifecycle.configuration("notebook")
    emulator.stop()
    assert {**os.environ, "PYTEST_CURRENT_TEST": ""} == {**before, "PYTEST_CURRENT_TEST": ""}
    with serving("--config", str(path), "--", "python", CUSTOMERS, command="run", runtime_folder=tmp_path) as server:
        assert any(line.startswith("Call it") for line in iter(server.output.readline, ""))
        done = run("call", "connect", "{}", JUPYTER_RUNTIME_DIR=str(tmp_path))
        assert {**json.loads(done.stdout), "url": ""} == {**CONNECTED, "user": ""}


def test_a_new_configuration_takes_effect_at_once(emulator: Emulator) -> None:
    emulator.functions.serve([(raising, False)])
    with pytest.raises(FunctionError) as before:
        emulator.call(raising)
    emulator.configure("notebook", **CONFIGURATION)
    with pytest.raises(FunctionError) as after:
        emulator.call(raising)
    assert str(after.value) == str(before.value), "a traceback has the SDK's frames and the function's"
    assert get_source("Crm").get_secret("password") == PASSWORD
    trusted = ssl.create_default_context(cafile=get_source("Crm").server_certificates_bundle_path)
    assert len(trusted.get_ca_certs()) > 100, "its connection trusts public authorities"
    assert get_source("Mail").get_secret("user") == "the-user-of-the-mail"
    assert [get_source_secret("Crm", "password"), get_source_config("Crm")] == [PASSWORD, {"plan": "small"}]
    assert retrieve_pipeline_token() == BUILD
    emulator.functions.serve([(shown_configuration, False)])
    assert emulator.call("shown_configuration") == repr({"Crm": {"plan": "small"}, "Mail": None})
    # The SDK keeps what it has read, and would never read it again. Spaces around a runtime's id do not matter.
    emulator.configure(" notebook ", sources={"Crm": {"password": "another-password"}})
    assert get_source("Crm").get_secret("password") == "another-password"
    assert get_source_secret("Crm", "password") == "another-password"
    emulator.functions.serve([(print_secret, False)])
    job = emulator.submit("print_secret")
    job.result()
    assert job.logs == "it is …word\n"
    with pytest.raises(ValueError, match="Source Mail not found"):
        get_source("Mail")
    assert "LOG_LEVEL" not in os.environ
    emulator.stop()
    assert "SOURCE_CREDENTIALS" not in os.environ
    assert not list(emulator.files.path.glob("*-cells"))
    emulator.start()
    assert get_source("Crm").get_secret("password") == "another-password", "a start sets it again"
    emulator.reset()
    assert "SOURCE_CREDENTIALS" not in os.environ


def test_the_functions_of_each_runtime_have_its_own_context(emulator: Emulator) -> None:
    emulator.functions.serve([(secret_of, False)])
    assert emulator.call("secret_of") == [None, None, {}]
    emulator.configure("notebook", sources={"Crm": {"password": PASSWORD}}, client=CONFIGURATION["client"])
    other, notebook = (f"ri.foundry.main.deployed-app.{name}" for name in ("other", "notebook"))
    emulator.open_runtime("other", other)
    emulator.functions.serve([(secret_of, False)], "other")
    assert emulator.call("secret_of", None, notebook) == [{"password": PASSWORD}, "orders-app", {"Crm": None}]
    assert emulator.call("secret_of", None, other) == [None, None, {}]
    emulator.configure("other", sources={"Crm": {"password": "of-the-other"}})
    assert emulator.call("secret_of", None, other) == [{"password": "of-the-other"}, None, {"Crm": None}]
    assert emulator.call("secret_of", None, notebook) == [{"password": PASSWORD}, "orders-app", {"Crm": None}]
    assert get_source("Crm").get_secret("password") == "of-the-other", "what was configured last"


def test_launched_programs_do_not_inherit_it(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    emulator.configure("notebook", **CONFIGURATION)
    assert os.environ["LOG_LEVEL"] == "DEBUG"
    assert os.environ["NO_PROXY"].startswith("intranet.example,localhost,")
    code = "import os, time; print(os.environ.get('CLIENT_ID'), os.environ['LOG_LEVEL'], flush=True); time.sleep(600)"
    module = emulator.launch([sys.executable, "-c", code], "app")
    assert emulator.lifecycle.is_configured("notebook")
    eventually(lambda: module.logs.text == "None WARNING", "it has printed", 30)
    path = os.environ["PATH"]
    emulator.configure("notebook", environment={"PATH": "/nowhere", "LOG_LEVEL": "DEBUG"})
    shell = emulator.launch(["sh", "-c", 'echo "$PATH"'], "shell", mode="pipeline")
    assert (shell.wait_until_ended(30), shell.logs.text.partition(":")[2]) == (0, path)
    os.environ["LOG_LEVEL"] = "ERROR"
    emulator.configure("notebook")
    assert os.environ["LOG_LEVEL"] == "ERROR", "a variable that the user has set meanwhile stays"
    os.environ["LOG_LEVEL"] = "WARNING"
    emulator.configure("notebook", **CONFIGURATION)
    emulator.reset()
    assert "CLIENT_SECRET" not in os.environ, "a reset removes it although no session was opened"


def test_a_seed_configures_cells(tmp_path: Path) -> None:
    path = tmp_path / "seed.yaml"
    runtime = f"{{runtime_id: notebook, configuration: {{sources: {{Crm: {{password: {PASSWORD}}}}}}}}}"
    path.write_text(f"foundry: {{compute_modules: {{runtimes: [{runtime}]}}}}\n")
    with Emulator.from_seed(path, port=0, home="thread") as emulator:
        assert get_source("Crm").get_secret("password") == PASSWORD
        emulator.functions.serve([(secret_of, False)])
        assert emulator.call("secret_of")[0] == {"password": PASSWORD}
        emulator.reset()
        assert get_source("Crm").get_secret("password") == PASSWORD
    assert "SOURCE_CREDENTIALS" not in os.environ
