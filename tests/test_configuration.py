"""The configuration of a module: the same keys as keywords, in files, in seed files and in requests."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cli_processes import run, serving
from client import eventually
from test_magics import Run, only_shell, shell
from test_magics import run as magic

from cmemu_nb import Emulator
from cmemu_nb.errors import InvalidClient, InvalidRequest, LaunchFailed, SeedError
from cmemu_nb.lifecycle.configuration import Configuration
from cmemu_nb.storage import configuration_file

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["magic", "only_shell", "shell"]  # fixtures
PASSWORD, SECRET, BUILD = "the-password-of-the-crm", "the-secret-of-the-client", "the-token-of-the-build"
CONFIGURATION: dict[str, Any] = {
    "sources": {"Crm": {"password": PASSWORD}},
    "source_configurations": {
        "Crm": {"secrets": {"password": PASSWORD}, "sourceConfiguration": {"url": "https://crm"}}
    },
    "aliases": {"orders": {"rid": "ri.foundry.main.dataset.orders", "branch": "develop"}},
    "client": {"id": "orders-app", "secret": SECRET},
    "build2_token": BUILD,
    "environment": {"LOG_LEVEL": "DEBUG"},
    "replicas": 2,
    "max_concurrent_tasks": 3,
}
IN_WORDS = (
    "sources Crm; aliases orders; client orders-app; build2_token …uild; environment LOG_LEVEL; replicas 2; "
    "max_concurrent_tasks 3"
)
YAML = f"""
# A comment, as people write them.
sources:
  Crm: {{password: {PASSWORD}}}
source_configurations:
  Crm:
    secrets: {{password: {PASSWORD}}}
    sourceConfiguration: {{url: "https://crm"}}
aliases:
  orders: {{rid: ri.foundry.main.dataset.orders, branch: develop}}
client: {{id: orders-app, secret: {SECRET}}}
build2_token: {BUILD}
environment: {{LOG_LEVEL: DEBUG}}
replicas: 2
max_concurrent_tasks: 3
"""
SEED = """
foundry:
  compute_modules:
    runtimes:
      - runtime_id: app
        configuration:
"""
PRINTS = """
import json, os, time
files = ("SOURCE_CREDENTIALS", "SOURCE_CONFIGURATIONS_PATH", "RESOURCE_ALIAS_MAP")
given = {name: json.load(open(os.environ[name])) for name in files if name in os.environ}
given["BUILD2_TOKEN"] = open(os.environ["BUILD2_TOKEN"]).read() if "BUILD2_TOKEN" in os.environ else None
plain = ("CLIENT_ID", "CLIENT_SECRET", "LOG_LEVEL", "MAX_CONCURRENT_TASKS")
given |= {name: os.environ.get(name) for name in plain}
open(os.environ.get("OUT", os.devnull), "a").write(json.dumps(given) + "\\n")
print("written", flush=True)
time.sleep(600)
"""
GIVEN = {
    "SOURCE_CREDENTIALS": CONFIGURATION["sources"],
    "SOURCE_CONFIGURATIONS_PATH": CONFIGURATION["source_configurations"],
    "RESOURCE_ALIAS_MAP": CONFIGURATION["aliases"],
    "BUILD2_TOKEN": BUILD,
    "CLIENT_ID": "orders-app",
    "CLIENT_SECRET": SECRET,
    "LOG_LEVEL": "DEBUG",
    "MAX_CONCURRENT_TASKS": "3",
}


def written(path: Path, count: int) -> list[dict[str, Any]]:
    """Return what the replicas of a program that `PRINTS` were given."""
    eventually(lambda: path.exists() and path.read_text().count("\n") == count, f"{count} replicas have written", 30)
    return [json.loads(line) for line in path.read_text().splitlines()]


def seed_file(folder: Path, text: str = YAML) -> Path:
    path = folder / "seed.yaml"
    path.write_text(SEED + "\n".join(f"          {line}" for line in text.splitlines()) + "\n")
    return path


def test_a_program_gets_the_same_from_keywords_a_runtime_a_file_and_a_seed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", PRINTS]
    environment = {**CONFIGURATION["environment"], "OUT": str(out)}
    with Emulator.from_seed(seed_file(tmp_path), port=0, home="thread") as emulator:
        assert repr(emulator.lifecycle.configuration("app")) == f"<Configuration: {IN_WORDS}>"
        emulator.launch(command, "by-keywords", **{**CONFIGURATION, "environment": environment})
        assert written(out, 2) == [GIVEN] * 2
        # A launch takes over what its runtime is configured with, and its own keys take precedence.
        out.unlink()
        module = emulator.launch(command, "app", environment=environment, replicas=1)
        assert written(out, 1) == [GIVEN]
        out.unlink()
        emulator.configure("app", aliases={"orders": {"rid": "ri.others"}}, replicas=3, client=CONFIGURATION["client"])
        module.restart()
        client = {"CLIENT_ID": "orders-app", "CLIENT_SECRET": SECRET}
        aliases = {"orders": {"rid": "ri.others", "branch": None}}
        others = {"BUILD2_TOKEN": None, "LOG_LEVEL": "DEBUG", "MAX_CONCURRENT_TASKS": "1"}
        assert written(out, 1) == [{"RESOURCE_ALIAS_MAP": aliases, **client, **others}]
        (configured,) = [each for each in emulator.lifecycle.events.recent() if each.kind == "runtime_configured"][1:]
        assert (configured.runtime_id, configured.detail) == ("app", "aliases orders; client orders-app; replicas 3")
        emulator.runtime("app").reset()
        assert emulator.lifecycle.configuration("app").replicas == 3, "a reset keeps it"
        emulator.reset()
        assert emulator.lifecycle.configuration("app").replicas == 2, "the seed is applied again"
        emulator.runtime("app").delete()
        assert emulator.lifecycle.configuration("app") == Configuration()
        # A runtime can be configured before its first launch, and a launch that fails does not change that.
        emulator.configure("later", environment=environment)
        with pytest.raises(LaunchFailed):
            emulator.launch("false", "later")
        out.unlink()
        emulator.launch(command, "later")
        assert [each["LOG_LEVEL"] for each in written(out, 1)] == ["DEBUG"]
        emulator.configure("never", replicas=2)
        emulator.reset()
        assert not any(map(emulator.lifecycle.is_configured, ("later", "never")))


@pytest.mark.parametrize("text", [YAML, json.dumps(CONFIGURATION, indent="\t")], ids=["yaml", "json"])
def test_a_file_has_the_keys_of_the_keywords(tmp_path: Path, text: str) -> None:
    path = tmp_path / "module.config"
    path.write_text(text)
    given = configuration_file.read(path)
    assert given == CONFIGURATION
    assert PASSWORD not in repr(given)
    assert SECRET not in repr(given)
    assert Configuration().changed(given) == Configuration().changed(CONFIGURATION)


INVALID: list[tuple[str, str]] = [
    (
        "sorces: {}",
        "line 1: unknown key 'sorces' in the file. Did you mean 'sources'? The keys are sources, source_configurations",
    ),
    ("replicas: 1\nsources: [Crm]", "line 2: sources of a module's configuration must be an object of sources by name"),
    ("sources: {Crm: secret}", "line 1: sources.Crm of a module's configuration must be an object of credentials"),
    ("sources: {Crm: {pin: 1234}}", "sources.Crm.pin of a module's configuration must be a string (in YAML, put it in"),
    ("aliases: {a: 1}", "aliases.a of a module's configuration must be the name or RID of a dataset or stream, or an"),
    ("aliases: {a: ''}", "aliases.a of a module's configuration is empty."),
    ("aliases: {a: {branch: b}}", "aliases.a of a module's configuration needs rid."),
    ("aliases: {a: {rid: r, brnch: b}}", "has no key 'brnch'. Did you mean 'branch'? Its keys are rid, branch."),
    ("client: {id: app}", "client of a module's configuration needs id and secret."),
    ("client: {id: app, secret: ''}", "client.secret of a module's configuration is empty."),
    (
        "environment: {KEY=secret: c}",
        "has a name that no environment variable can have: it begins with 'KEY'. Give an object, such as",
    ),
    ("environment: {LOG: a, on: b}", "line 1: environment of a module's configuration has a key that is no name."),
    ('aliases: {"\\ud800": {rid: 1}}', "line 1: aliases of a module's configuration has a key that is no name."),
    ("sources: {Crm: {12: a}}", "line 1: sources.Crm of a module's configuration has a key that is no name."),
    (
        "source_configurations: {Crm: {httpConnectionConfig: {}, serverCertificates: [secret]}}",
        "source_configurations.Crm.serverCertificates of a module's configuration must be an object of certificates",
    ),
    (
        "source_configurations: {Crm: {serverCertificates: {ca: 1}}}",
        "source_configurations.Crm.serverCertificates.ca of a module's configuration must be a string",
    ),
    (
        f"server: {{openapi: a.json, timeout: 1{'0' * 400}}}",
        "server.timeout of a module's configuration must be a number of seconds greater than 0",
    ),
    ("replicas: 0", "replicas of a module's configuration must be from 1 to 10,000, not 0."),
    ("replicas: two", "replicas of a module's configuration must be a whole number from 1 to 10,000, not a string."),
    ("max_concurrent_tasks: true", "must be a whole number from 1 to 10,000, not true or false."),
    (
        "source_configurations: {Crm: {since: 2026-01-01}}",
        "source_configurations.Crm of a module's configuration can't",
    ),
    ("- sources", "line 1: the file must be a mapping of sources, source_configurations, aliases"),
    ("sources: {", "this is not YAML"),
]


@pytest.mark.parametrize(("text", "said"), INVALID)
def test_what_is_not_valid_is_one_sentence_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "module.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        configuration_file.read(path)
    assert str(refused.value).startswith(f"{path}, line ")
    assert said in str(refused.value)
    assert "secret]" not in str(refused.value)
    assert "=secret" not in str(refused.value)


def test_other_files_and_keywords_that_are_not_valid_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"The configuration file .*none\.yaml can't be read: No such file"):
        configuration_file.read(tmp_path / "none.yaml")
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"cleint": {}}')
    with pytest.raises(
        InvalidRequest, match=r"wrong\.json: .* has no key 'cleint'\. Did you mean 'client'\? The keys are"
    ):
        configuration_file.read(wrong)
    with pytest.raises(SeedError, match=r"line 7: replicas of a module's configuration must be from 1 to 10,000"):
        Emulator.from_seed(seed_file(tmp_path, "replicas: 0"))
    with Emulator(port=0, home="thread") as emulator:
        for give in (emulator.configure, emulator.env, lambda at, **keys: emulator.launch("true", at, **keys)):
            with pytest.raises(
                InvalidRequest, match=r"no key 'client_id'\. Did you mean 'client'\? The keys are sources,"
            ):
                give("notebook", client_id="app")
            with pytest.raises(
                InvalidRequest, match=r"no key 'env'\. Did you mean 'environment'\? The keys are sources,"
            ):
                give("notebook", env={})


def test_secrets_are_masked_wherever_they_are_shown(tmp_path: Path) -> None:
    with Emulator(port=0, home="thread") as emulator:
        emulator.open_runtime("app")
        shown = [repr(emulator.configure("app", **CONFIGURATION)), repr(emulator.env("app"))]
        card = emulator.runtime("app")._repr_mimebundle_()
        assert f"configured       with {IN_WORDS}" in card["text/plain"]
        shown += card.values()
        assert shown[0] == f"<Configuration: {IN_WORDS}>"
        code = (
            "import json, os, time; print(json.load(open(os.environ['SOURCE_CREDENTIALS'])));"
            "print(open('/proc/self/environ').read(), open('/proc/self/cmdline').read(), flush=True); time.sleep(600)"
        )
        printed = emulator.launch([sys.executable, "-c", code], "app", environment={})
        eventually(lambda: len(printed.logs) == 4, "both replicas have printed")
        assert f"configured  with {IN_WORDS.replace('environment LOG_LEVEL; ', '')}" in str(printed._repr_mimebundle_())
        emulator.export(tmp_path / "run.json")
        shown += [printed.logs.text, emulator.events.to_string(), (tmp_path / "run.json").read_text()]
        shown += [emulator.runtimes.to_string(), repr(vars(emulator.lifecycle.configuration("app"))["client"])]
        for text in shown:
            for secret in (PASSWORD, SECRET, BUILD):
                assert secret not in text


def test_the_client_of_a_module_gets_access_tokens(emu: Emulator) -> None:
    url = f"{emu.platform_url}/multipass/api/oauth2/token"

    def token(secret: str) -> requests.Response:
        form = {"grant_type": "client_credentials", "client_id": "orders-app", "client_secret": secret}
        return requests.post(url, data=form, verify=str(emu.certificates.authority_path), timeout=30)

    assert token(SECRET).status_code == InvalidClient.status
    emu.open_runtime("app")
    emu.env("app", client=CONFIGURATION["client"])
    access = token(SECRET).json()["access_token"]
    assert requests.get(f"{emu.url}/_emulate/export", headers={"Authorization": f"Bearer {access}"}, timeout=30).ok
    emu.env("app", client={"id": "orders-app", "secret": "another-secret"})
    assert [token(each).status_code for each in (SECRET, "another-secret")] == [InvalidClient.status, 200]


def test_variables_of_the_environment_may_be_those_that_the_emulator_sets(emu: Emulator) -> None:
    emu.open_runtime("app")
    names = [*emu.env("app"), "PATH"]
    assert {"GET_JOB_URI", "SCRATCH_TOKEN", "FOUNDRY_URL", "MAX_CONCURRENT_TASKS"} < {*names}
    given = {name: f"mine-{name}" for name in names}
    assert emu.env("app", environment=given) == given
    code = "import os; print(os.environ['GET_JOB_URI'], os.environ['PYTHONUNBUFFERED'], flush=True)"
    changed = {"GET_JOB_URI": "mine", "PYTHONUNBUFFERED": "2"}
    job = emu.runtime("app").enqueue("kept")
    # Spaces around the runtime's id do not matter: its session is not reset.
    module = emu.launch([sys.executable, "-c", code], " app ", mode="pipeline", environment=changed)
    assert (module.wait_until_ended(30), module.logs.text) == (0, "mine 2")
    assert emu.job(job.id).status == "queued"


@pytest.mark.once
def test_a_module_without_an_sdk_reads_files_and_variables(emu: Emulator, tmp_path: Path) -> None:
    program = str(Path(__file__).parent / "programs" / "customers.sh")
    given = {
        "sources": CONFIGURATION["sources"],
        "aliases": CONFIGURATION["aliases"],
        "client": "orders-app",
        "level": "DEBUG",
    }
    module = emu.launch(program, **{**CONFIGURATION, "replicas": 1}).wait_until_responsive()
    assert emu.call("connect", validate=False) == given
    module.stop()
    config = tmp_path / "module.yaml"
    config.write_text(YAML)
    with serving("--config", str(config), "--", program, command="run", runtime_folder=tmp_path) as server:
        assert any(line.startswith("Call it") for line in iter(server.output.readline, ""))
        done = run("call", "connect", "{}", "--no-validate", JUPYTER_RUNTIME_DIR=str(tmp_path))
        assert json.loads(done.stdout) == given


@pytest.mark.once
def test_the_command_line_takes_the_file(tmp_path: Path) -> None:
    config, out = tmp_path / "module.yaml", tmp_path / "out"
    config.write_text(YAML)
    words = ["--config", str(config), "--env", f"OUT={out}", "--replicas", "1", "--runtime", "app"]
    with serving(*words, "--", "python", "-c", PRINTS, command="run", runtime_folder=tmp_path):
        assert written(out, 1) == [GIVEN]
        done = run("env", "app", "--config", str(config), "--json", JUPYTER_RUNTIME_DIR=str(tmp_path))
        assert done.stderr == ""
        given = json.loads(done.stdout)
        assert (given["CLIENT_SECRET"], given["MAX_CONCURRENT_TASKS"]) == (SECRET, "3")
        assert json.loads(Path(given["SOURCE_CREDENTIALS"]).read_text()) == CONFIGURATION["sources"]
    config.write_text("sorces: {}")
    done = run("run", "--config", str(config), "--", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown key 'sorces' in the file. Did you mean 'sources'? The keys are sources," in done.stderr


def test_the_magics_take_the_file(magic: Run, shell: InteractiveShell, tmp_path: Path) -> None:
    config = tmp_path / "module.yaml"
    config.write_text(YAML.replace("replicas: 2", "replicas: 1"))
    magic("%cmemu start --port 0 --thread")
    emulator = shell.user_ns["emu"]
    emulator.open_runtime("app")
    _, lines = magic(f"%cmemu env app --config {shlex.quote(str(config))}")
    assert f"export CLIENT_SECRET={SECRET}" in lines
