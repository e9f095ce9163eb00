"""The seed file: an emulator that begins with sessions, bindings, bearer tokens and settings, on real files."""

from __future__ import annotations

import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from cells import make
from client import MODULE_HEADER, RUNTIMES, Api, Runtime, error_code, eventually
from conftest import waiting_of
from foundry_sdk import Config, FoundryClient, UserTokenAuth
from journaled import make_older
from msgspec.structs import replace
from test_docs import ROOT, fenced
from test_magics import only_shell, run, shell

from cmemu_nb import Emulator
from cmemu_nb.dashboard.job_detail import job_part
from cmemu_nb.display.cards import show_emulator, show_job
from cmemu_nb.errors import NotFound, SeedError, SettingError
from cmemu_nb.lifecycle.records import NOTEBOOK_APP
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

__all__ = ["only_shell", "run", "shell"]  # fixtures
APP = "ri.foundry.main.deployed-app.my-app"
OTHER_APP = "ri.foundry.main.deployed-app.other"
MODULE_TOKEN = "foundry_module_auth_of-the-seed"
ODD_TOKEN = "a token of, our own/" + "x" * 60
ALICE = "the-bearer-token-of-alice"
SEED = f"""
foundry:
  compute_modules:
    runtimes:
      - runtime_id: my-runtime
        module_auth_token: {MODULE_TOKEN}
      - runtime_id: odd
        module_auth_token: {ODD_TOKEN!r}
      - runtime_id: bare
    deployed_apps:
      - deployed_app_rid: {APP}
        runtime_id: my-runtime
        display_name: My App
      - deployed_app_rid: {APP}
        runtime_id: my-runtime
        branch: dev
      - deployed_app_rid: {OTHER_APP}
        runtime_id: unlisted
      - deployed_app_rid: {OTHER_APP}
        runtime_id: my-runtime
        branch: off
        active: false
tokens:
  {ALICE}: {{login: alice}}
settings:
  port: 0
  home: thread
  keep_jobs: 7
""".replace("branch: off", "branch: 'off'")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "seed.yaml"
    path.write_text(SEED, "utf-8")
    return path


def runtime(emulator: Emulator, runtime_id: str, token: str) -> Runtime:
    """Return a runtime as a program knows it that nobody has told more than its id and its token."""
    uri = f"{emulator.url}{RUNTIMES}/{runtime_id}"
    session = {"runtimeId": runtime_id, "moduleAuthToken": token}
    uris = {"getJobUri": f"{uri}/job", "postResultUri": f"{uri}/results", "postSchemaUri": f"{uri}/schemas"}
    return Runtime(Api(emulator.url, ALICE), {**session, **uris})


def mine(emulator: Emulator) -> Runtime:
    return runtime(emulator, "my-runtime", MODULE_TOKEN)


def poll(emulator: Emulator, token: str) -> Any:
    """Poll the platform routes."""
    return Api(emulator.url, "").send("GET", f"{PLATFORM}/job", headers={MODULE_HEADER: token})


def bindings(emulator: Emulator) -> set[tuple[str, str, str]]:
    return {(each.deployed_app_rid, each.branch, each.runtime_id) for each in emulator.lifecycle.deployed_apps()}


SEEDED = {(APP, "master", "my-runtime"), (APP, "dev", "my-runtime"), (OTHER_APP, "master", "unlisted")}


def told(emulator: Emulator) -> str:
    events = emulator.lifecycle.events.recent(all=True)
    return "\n".join(f"{each.kind} {each.runtime_id} {each.job_id} {each.detail}" for each in events)


# What it does


def test_sessions_bindings_and_bearer_tokens_of_the_file_are_real(path: Path) -> None:
    emulator = Emulator.from_seed(path)
    assert not emulator.running
    with emulator:
        assert [each.runtime_id for each in emulator.lifecycle.runtimes()] == ["my-runtime", "odd", "bare", "unlisted"]
        assert bindings(emulator) == SEEDED
        api = Api(emulator.url, ALICE)
        job_id = api.submit("f", {"x": 1}, APP, deployedAppBranch="dev")
        assert mine(emulator).take()["query"] == {"x": 1}
        mine(emulator).post_result(job_id, b"42")
        assert api.result(job_id).content == b"42"
        assert Api(emulator.url, emulator.token).submit("f", None, OTHER_APP)
        assert emulator.lifecycle.deployed_apps()[0].display_name == "My App"
        tokens = {each.runtime_id: each.module_auth_token for each in emulator.lifecycle.runtimes()}
        assert tokens["bare"].startswith("foundry_module_auth_")
        assert tokens["bare"] != tokens["unlisted"]


def test_a_wrong_token_is_refused_on_a_seeded_runtime(path: Path) -> None:
    with Emulator.from_seed(path, refusal_seconds=0) as emulator:
        for token in (MODULE_TOKEN[:-1], ODD_TOKEN):
            assert runtime(emulator, "my-runtime", token).poll().status_code == 401
        assert poll(emulator, MODULE_TOKEN[:-1]).status_code == 401
        assert error_code(Api(emulator.url, ALICE + "x").contour("GET", RUNTIMES)) == "invalid_bearer_token"
        assert error_code(Api(emulator.url, MODULE_TOKEN).contour("GET", RUNTIMES)) == "invalid_bearer_token"


def test_a_token_of_any_form_works_everywhere(path: Path) -> None:
    with Emulator.from_seed(path) as emulator:
        odd = runtime(emulator, "odd", ODD_TOKEN)
        job_id = odd.submit("f")
        assert poll(emulator, ODD_TOKEN).json()["computeModuleJobV1"]["jobId"] == job_id
        headers = {MODULE_HEADER: ODD_TOKEN}
        assert odd.api.send("POST", f"{PLATFORM}/results/{job_id}", data=b"1", headers=headers).status_code == 204


def test_an_inactive_app_is_bound_to_nothing_and_an_event_says_so(path: Path) -> None:
    with Emulator.from_seed(path) as emulator:
        assert Api(emulator.url, ALICE).execute("f", None, OTHER_APP, deployedAppBranch="off").status_code == 404
        assert f"inactive, so bound to no runtime: {OTHER_APP} on branch 'off'\n" in told(emulator)


def test_settings_of_the_file_are_set_and_those_that_are_given_win(path: Path) -> None:
    assert Emulator.from_seed(path).settings.keep_jobs == 7
    emulator = Emulator.from_seed(path, keep_jobs=8, tokens="further-token", token="first-token")
    assert emulator.settings.keep_jobs == 8
    with emulator:
        for token in ("further-token", "first-token", ALICE):
            assert Api(emulator.url, token).contour("GET", RUNTIMES).status_code == 200


def test_a_given_setting_is_checked_as_ever_and_makes_a_host_of_the_file_possible(path: Path) -> None:
    path.write_text("settings: {host: 0.0.0.0}\n")
    assert Emulator.from_seed(path, allow_remote=True).settings.host == "0.0.0.0"
    assert Emulator.from_seed(path, host="127.0.0.1").settings.host == "127.0.0.1"
    with pytest.raises(SettingError, match="no setting 'prot'"):
        Emulator.from_seed(path, host="127.0.0.1", prot=1)


def test_the_start_shows_the_file(path: Path) -> None:
    with Emulator.from_seed(path) as emulator:
        assert str(path) in show_emulator(emulator)["text/plain"]


# Who asked


def test_a_job_carries_the_login_of_its_bearer_token_to_the_platform_routes_only(path: Path) -> None:
    with Emulator.from_seed(path) as emulator:
        alice, nobody = Api(emulator.url, ALICE), Api(emulator.url, emulator.token)
        answers = []
        for api in (alice, nobody):
            job_id = api.submit("f", {"x": 1}, APP)
            answers.append(poll(emulator, MODULE_TOKEN).json()["computeModuleJobV1"])
            assert set(mine(emulator).job(job_id)) == set(emulator.job(job_id).record.wire())
            assert "userId" not in str(mine(emulator).inspect(job_id))
        assert [answer.get("userId") for answer in answers] == ["alice", None]
        assert "userId" not in answers[1]
        direct = alice.contour("POST", f"{RUNTIMES}/my-runtime/jobs", json={"queryType": "f"}).json()["jobId"]
        assert emulator.job(direct).record.user_id == "alice"
        assert set(mine(emulator).take()) == {"jobId", "queryType", "query"}
        assert "asked for by  alice" in show_job(emulator.job(direct))["text/plain"]
        assert ["user", "alice"] in job_part(emulator, direct, 0)["facts"]


PROGRAM = """
from compute_modules.annotations import function
from compute_modules.context import QueryContext

@function
def untyped(context, event):
    return context["userId"]

@function
def typed(context: QueryContext, event) -> str:
    return context.userId
"""


def test_the_official_sdk_finds_the_login_in_the_context(path: Path, tmp_path: Path) -> None:
    program = tmp_path / "who.py"
    program.write_text(PROGRAM)
    with Emulator.from_seed(path) as emulator:
        emulator.launch([sys.executable, str(program)], "my-runtime").wait_until_responsive()
        alice, nobody = Api(emulator.url, ALICE), Api(emulator.url, emulator.token)
        asked = [api.execute(name, {}, APP).json() for api in (alice, nobody) for name in ("untyped", "typed")]
        assert asked == ["alice", "alice", "", ""]


@pytest.mark.usefixtures("sdk_connections")
def test_a_function_in_a_cell_finds_the_login_of_each_kind_of_caller(path: Path) -> None:
    with Emulator.from_seed(path) as emulator:
        emulator.function(make("def who(context, event) -> str:\n    return context['userId']"))
        assert Api(emulator.url, ALICE).execute("who", {}, NOTEBOOK_APP).json() == "alice"
        host = urlsplit(emulator.url).netloc
        client = FoundryClient(auth=UserTokenAuth(ALICE), hostname=host, config=Config(scheme="http"))
        assert client.functions.Query.execute("com.notebook.computemodules.who", parameters={}).value == "alice"
        assert emulator.call("who") == ""


def test_a_job_that_is_handed_out_twice_says_both_times_who_asked(path: Path) -> None:
    with Emulator.from_seed(path) as emulator, emulator.faults(duplicate_dispatch=1.0):
        Api(emulator.url, ALICE).submit("f", None, APP)
        assert [poll(emulator, MODULE_TOKEN).json()["computeModuleJobV1"]["userId"] for _ in range(2)] == ["alice"] * 2


def test_an_exported_session_keeps_who_asked(path: Path, tmp_path: Path) -> None:
    with Emulator.from_seed(path) as emulator:
        job_id = Api(emulator.url, ALICE).submit("f", None, APP)
        again = Emulator.from_export(emulator.export(tmp_path / "run.json"))
        assert again.job(job_id).record == emulator.job(job_id).record
        assert ODD_TOKEN not in (tmp_path / "run.json").read_text()


# Resets


def reset_by_hand(emulator: Emulator) -> None:
    emulator.reset()


def reset_by_http(emulator: Emulator) -> None:
    assert Api(emulator.url, ALICE).contour("DELETE", RUNTIMES).status_code == 204


@pytest.mark.parametrize("reset", [reset_by_hand, reset_by_http])
def test_a_reset_goes_back_to_the_seed(path: Path, reset: Callable[[Emulator], None]) -> None:
    with Emulator.from_seed(path) as emulator:
        api = Api(emulator.url, ALICE)
        api.open("my-runtime")
        api.open("another", OTHER_APP)
        api.contour("DELETE", f"{RUNTIMES}/odd")
        api.submit("f", None, OTHER_APP)
        reset(emulator)
        assert [each.runtime_id for each in emulator.lifecycle.runtimes()] == ["my-runtime", "odd", "bare", "unlisted"]
        assert bindings(emulator) == SEEDED
        assert emulator.lifecycle.jobs() == []
        job_id = api.submit("f", None, APP)
        assert mine(emulator).take_id() == job_id


def test_a_poll_that_is_held_during_a_reset_gets_the_next_job(
    path: Path, background_pool: Callable[..., Future[Any]]
) -> None:
    with Emulator.from_seed(path) as emulator:
        assert poll(emulator, MODULE_TOKEN).status_code == 204
        held = background_pool(poll, emulator, MODULE_TOKEN)
        eventually(lambda: waiting_of(emulator)._polls, "the poll waits")  # noqa: SLF001
        emulator.reset()
        job_id = Api(emulator.url, ALICE).submit("f", None, APP)
        assert held.result(20).json()["computeModuleJobV1"]["jobId"] == job_id
        restart = Api(emulator.url, "").send("POST", f"{PLATFORM}/restart", headers={MODULE_HEADER: MODULE_TOKEN})
        assert restart.json() == [job_id]


@pytest.fixture
def background_pool() -> Any:
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def test_a_result_for_a_job_that_went_with_a_reset_is_late_and_no_error(path: Path) -> None:
    with Emulator.from_seed(path, refusal_seconds=0) as emulator:
        Api(emulator.url, ALICE).submit("f", None, APP)
        job_id = mine(emulator).take_id()
        emulator.reset()
        for known, status in ((job_id, 204), ("foundry_job_" + "0" * 32, 404)):
            uri = f"{PLATFORM}/results/{known}"
            assert (
                Api(emulator.url, "").send("POST", uri, data=b"1", headers=mine(emulator).headers).status_code == status
            )
        assert "late_result my-runtime" in told(emulator)


def test_opening_a_seeded_runtime_makes_a_new_token_as_ever(path: Path) -> None:
    with Emulator.from_seed(path) as emulator:
        opened = Api(emulator.url, ALICE).open("my-runtime")
        assert opened.session["moduleAuthToken"] != MODULE_TOKEN
        assert mine(emulator).poll().status_code == 401
        assert opened.poll().status_code == 204
        assert bindings(emulator) == {(OTHER_APP, "master", "unlisted")}


def test_the_reset_of_one_session_keeps_all_of_its_bindings(path: Path) -> None:
    with Emulator.from_seed(path) as emulator:
        handle = emulator.runtime("my-runtime").reset()
        assert handle.token != MODULE_TOKEN
        assert bindings(emulator) == SEEDED
        assert [each.display_name for each in emulator.lifecycle.deployed_apps() if each.branch == "master"] == [
            None,
            "My App",
        ]
        # The newest binding is the one that was.
        assert emulator.lifecycle.resolve_app(APP).branch == "master"


# With a journal


def test_the_seed_adds_to_a_journal_only_what_that_does_not_have(path: Path, tmp_path: Path) -> None:
    journal = str(tmp_path / "lifecycle.db")
    with Emulator.from_seed(path, journal=journal) as emulator:
        api = Api(emulator.url, ALICE)
        job_id = api.submit("f", {"x": 1}, APP)
        opened = api.open("odd", OTHER_APP)
        api.contour("DELETE", f"{RUNTIMES}/bare")
        record = emulator.job(job_id).record
    with Emulator.from_seed(path, journal=journal) as emulator:
        assert emulator.job(job_id).record == replace(record, queue_clock=None)  # it runs in one process only
        assert record.user_id == "alice"
        assert mine(emulator).take_id() == job_id
        assert runtime(emulator, "odd", opened.session["moduleAuthToken"]).poll().status_code == 204
        assert bindings(emulator) == {*SEEDED, (OTHER_APP, "master", "odd")} - {(OTHER_APP, "master", "unlisted")}
        assert emulator.runtime("bare").token
        assert "kept as they were: 'my-runtime', 'odd', 'unlisted'" in told(emulator)
        emulator.reset()
        assert bindings(emulator) == SEEDED
    with Emulator(journal=journal, port=0, home="thread") as emulator:
        assert bindings(emulator) == SEEDED
        assert mine(emulator).poll().status_code == 204
        runtime(emulator, ODD_TOKEN.replace("/", "%2F").replace(" ", "%20"), "x").poll()
        assert "request_refused …xxxx" in told(emulator)
        assert ODD_TOKEN not in told(emulator)


def test_a_token_that_another_runtime_of_the_journal_has_is_refused(path: Path, tmp_path: Path) -> None:
    journal = str(tmp_path / "lifecycle.db")
    with Emulator.from_seed(path, journal=journal):
        pass
    path.write_text(SEED.replace("runtime_id: odd", "runtime_id: renamed"), "utf-8")
    with pytest.raises(
        SeedError, match="'renamed' has the module_auth_token of runtime 'odd' in the journal"
    ) as refused:
        Emulator.from_seed(path, journal=journal).start()
    assert ODD_TOKEN not in str(refused.value)
    with Emulator(journal=journal, port=0, home="thread") as emulator:
        assert emulator.runtime("odd").token == ODD_TOKEN


def test_a_journal_of_the_version_before_there_were_logins_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "lifecycle.db"
    with Emulator(journal=str(journal), port=0, home="thread") as emulator:
        emulator.open_runtime("r", APP)
        job = emulator.submit("f", {"x": 1})
        record = job.record
    make_older(journal, 1)
    for _ in range(2):
        with Emulator(journal=str(journal), port=0, home="thread") as emulator:
            assert emulator.job(job.id).record == replace(record, queue_clock=None)  # it runs in one process only
            emulator.submit("f")


# Tokens are hidden


def test_a_seeded_token_is_in_no_event(path: Path) -> None:
    with Emulator.from_seed(path, refusal_seconds=0) as emulator:
        for token in (ODD_TOKEN, MODULE_TOKEN, ALICE):
            emulator.lifecycle.note("log", token, None, f"a library said {token}.")
            runtime(emulator, token.replace("/", "%2F").replace(" ", "%20"), "x").poll()
        said = told(emulator)
        assert [token for token in (ODD_TOKEN, MODULE_TOKEN, ALICE) if f"a library said {token}" in said] == []
        assert "a library said …xxxx." in said
        assert [line for line in said.splitlines() if "request_refused" in line and ALICE in line] == []
        assert ODD_TOKEN not in repr((emulator.seed, emulator.lifecycle.runtimes(), emulator.settings))
        assert ALICE not in repr(emulator.seed)


# What is refused

RUNTIMES_OF = "foundry: {{compute_modules: {{runtimes: {}}}}}\n"
APPS_OF = "foundry: {{compute_modules: {{deployed_apps: {}}}}}\n"
REFUSED = [
    (
        "foundry:\n  compute_modules:\n    runtimes:\n      - runtime: r\n",
        "line 4: unknown key 'runtime' in runtimes[0]. Did you mean 'runtime_id'? The keys are runtime_id, ",
    ),
    ("port: 4000\n", "line 1: unknown key 'port' in the file; the keys are foundry, tokens, settings."),
    (
        "foundry: {modules: {}}\n",
        "line 1: unknown key '…' in foundry; the keys are compute_modules, datasets, streams.",
    ),
    ("1: 2\n", "line 1: unknown key in the file; the keys are"),
    ("? [a]\n: 2\n", "line 1: unknown key in the file; the keys are"),
    ("- a\n- b\n", "line 1: the file must be a mapping of foundry, tokens, settings, not a list."),
    ("words\n", "line 1: the file must be a mapping of foundry, tokens, settings, not text."),
    (
        "tokens:\n  a: {login: x}\ntokens:\n  b: {login: x}\n",
        "line 3: the file has the key 'tokens' that line 1 has already.",
    ),
    (RUNTIMES_OF.format("{a: b}"), "line 1: runtimes must be a list, each begun with '- ', not a mapping."),
    (
        RUNTIMES_OF.format("[r]"),
        "runtimes[0] must be a mapping of runtime_id, module_auth_token, configuration, not text.",
    ),
    (RUNTIMES_OF.format("[{module_auth_token: x}]"), "runtimes[0] needs a runtime_id."),
    (RUNTIMES_OF.format("[{runtime_id: ' '}]"), "runtimes[0] needs a runtime_id."),
    (RUNTIMES_OF.format("[{runtime_id: 7}]"), "runtimes[0].runtime_id must be text, not a number; put it in quotes."),
    (RUNTIMES_OF.format("[{runtime_id: 2026-01-01}]"), "runtime_id must be text, not a date; put it in quotes."),
    (RUNTIMES_OF.format("[{runtime_id: [r]}]"), "runtimes[0].runtime_id must be text, not a list."),
    (RUNTIMES_OF.format("[{runtime_id: ..}]"), "line 1: Opening a runtime session: '..' can't be a runtime id."),
    (RUNTIMES_OF.format('[{runtime_id: "\\ud800"}]'), "runtimes[0].runtime_id must be text that JSON can hold."),
    (
        "foundry:\n compute_modules:\n  runtimes:\n  - runtime_id: r\n  - {runtime_id: r}\n",
        "line 5: runtimes[1] has the runtime_id 'r' that line 4 has already.",
    ),
    (APPS_OF.format("[{runtime_id: r}]"), "deployed_apps[0] needs a deployed_app_rid."),
    (APPS_OF.format("[{deployed_app_rid: ri.a}]"), "deployed_apps[0] needs a runtime_id."),
    (
        APPS_OF.format("[{deployed_app_rid: ri.a, runtime_id: r, active: 1}]"),
        "active must be true or false, not a number.",
    ),
    (
        APPS_OF.format("[{deployed_app_rid: ri.a, runtime_id: r, branch: on}]"),
        "branch must be text, not true or false; put",
    ),
    (
        APPS_OF.format(
            "[{deployed_app_rid: ri.a, runtime_id: r}, {deployed_app_rid: ri.a, runtime_id: s, active: no}]"
        ),
        "deployed_apps[1] has the deployed_app_rid 'ri.a' on branch 'master' that line 1 has already.",
    ),
    ("tokens: [a]\n", "line 1: tokens must be a mapping of bearer tokens, each with its login, not a list."),
    ("tokens: {a: {}}\n", "line 1: tokens[0] needs a login."),
    ("tokens: {a: alice}\n", "line 1: tokens[0] must be a mapping of login, not text."),
    ("tokens: {1: {login: alice}}\n", "line 1: a bearer token must be text, not a number; put it in quotes."),
    (
        "settings: {prot: 1}\n",
        "line 1: unknown key 'prot' in settings. Did you mean 'port'? The keys are access_token_seconds, allow_remote,",
    ),
    ("settings:\n  keep_jobs: 1\n  port: many\n", "line 3: settings.port: A setting was refused: "),
    ("settings: {port: 99999999}\n", "line 1: settings.port: A setting was refused: "),
    ("settings: {host: 0.0.0.0}\n", "line 1: settings.host: Listening on 0.0.0.0 would let other machines connect."),
    ("settings: {host: 0.0.0.0, allow_remote: perhaps}\n", "line 1: settings.allow_remote: A setting was refused: "),
    ("settings: {execute_timeout: .inf}\n", "line 1: settings.execute_timeout: execute_timeout must be a number of"),
    ("settings: {token: 1}\n", "line 1: settings.token: A setting was refused: token and client_secret must be"),
    ("settings: {token: ''}\n", "line 1: settings.token: An empty token would let every client in"),
    ("settings: {port: !!python/object:os.system {}}\n", "line 1: settings.port is not a value that is valid"),
    ("settings: {port: 2026-99-99}\n", "line 1: settings.port is not a value that is valid here."),
    ("a: [\n", "line 2: this is not YAML ("),
    ("a: b: c\n", "line 1: this is not YAML ("),
    ("\tport: 1\n", "line 1: this is not YAML ("),
    ("a: 1\n---\nb: 2\n", "line 2: this is not YAML ("),
    ('a: "\\U99999999"\n', "seed.yaml: this is not YAML: it has characters that YAML does not allow."),
    ("a: \x00\n", "seed.yaml: this is not YAML: it has characters that YAML does not allow."),
    ("a: &x 1\nb: *x\n", "line 2: aliases (*name) are not allowed: write it out."),
    ("a: &x [*x]\n", "line 1: aliases (*name) are not allowed: write it out."),
    ("foundry: " + "[" * 10_000 + "\n", "line 1: this is nested too deeply."),
    ("", "seed.yaml is empty. Give it one of foundry, tokens, settings; %cmemu help seed has one."),
    ("# nothing\n", "seed.yaml is empty."),
    ("x" * 1_000_001, "seed.yaml has more than 1,000,000 bytes, too many for one."),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_what_is_wrong_is_told_in_a_sentence_with_its_line(path: Path, text: str, message: str) -> None:
    path.write_bytes(text.encode())
    with pytest.raises(SeedError) as refused:
        Emulator.from_seed(path)
    said = str(refused.value)
    assert message in said
    assert "\n" not in said
    assert said.endswith(".")


def test_a_file_that_can_t_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SeedError, match=r"none.yaml can't be read: No such file or directory. Check the path."):
        Emulator.from_seed(tmp_path / "none.yaml")
    with pytest.raises(SeedError, match="can't be read: Is a directory"):
        Emulator.from_seed(tmp_path)
    with pytest.raises(SeedError, match="can't be read: embedded null byte"):
        Emulator.from_seed("\0")
    (tmp_path / "latin.yaml").write_bytes("tokens:\n  # für\n".encode("latin-1"))
    with pytest.raises(SeedError, match=r"latin.yaml, line 2: this is not UTF-8. Save the file as UTF-8."):
        Emulator.from_seed(tmp_path / "latin.yaml")


SECRET = "secret-0123456789"
LEAKS = [
    f"tokens:\n{SECRET}: {{login: alice}}\n",
    f"{SECRET}: 1\n",
    f"tokens:\n  {SECRET}: {{login: a}}\n  {SECRET}: {{login: b}}\n",
    f"tokens:\n  ' {SECRET}': {{login: a}}\n",
    f"tokens:\n  {SECRET}: [1]\n",
    f"tokens:\n  {SECRET}: {{{SECRET}: 1}}\n",
    f"tokens:\n  {SECRET}: {{login: a}}\n  *{SECRET} : {{login: b}}\n",
    f"tokens:\n  {SECRET}: {{login: a}}: b\n",
    f"tokens:\n  !{SECRET}!x {SECRET}: {{login: b}}\n",
    f"tokens:\n  &{SECRET} a: {{login: a}}\n  &{SECRET} b: {{login: b}}\n",
    f"tokens: '{SECRET}\n",
    f"settings: {{token: ' {SECRET}'}}\n",
    f"settings: {{tokens: [{SECRET}, 1]}}\n",
    f"settings: {{tokens: {SECRET}ü}}\n",
    RUNTIMES_OF.format(f"[{{runtime_id: r, module_auth_token: '{SECRET}ü'}}]"),
    RUNTIMES_OF.format(f"[{{runtime_id: r, module_auth_token: [{SECRET}]}}]"),
    RUNTIMES_OF.format(f"[{{runtime_id: r, {SECRET}: x}}]"),
    RUNTIMES_OF.format(
        f"[{{runtime_id: r, module_auth_token: {SECRET}}}, {{runtime_id: s, module_auth_token: {SECRET}}}]"
    ),
    f"settings: {{token: {SECRET}, host: 0.0.0.0}}\n",
]


@pytest.mark.parametrize("text", LEAKS)
def test_no_message_and_no_traceback_with_local_variables_shows_a_token(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    given = {} if "settings" in text else {"token": f"given-{SECRET}"}
    with pytest.raises(SettingError) as refused:
        Emulator.from_seed(path, **given)
    check_traceback(refused.value)


def check_traceback(error: BaseException) -> None:
    """Look at the frames of the package as `%xmode Verbose` shows them."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown.stack[:] = [frame for frame in shown.stack if "/cmemu_nb/" in frame.filename]
    assert shown.stack
    assert SECRET not in "".join(shown.format())


def test_given_tokens_that_are_no_texts_are_shown_nowhere(path: Path) -> None:
    for given in ({"token": SECRET.encode()}, {"tokens": [SECRET, SECRET.encode()]}):
        with pytest.raises(SettingError, match="token and client_secret must be strings") as refused:
            Emulator.from_seed(path, **given)
        check_traceback(refused.value)


def test_yaml_is_imported_by_those_only_who_have_a_seed_file() -> None:
    program = "import sys; from cmemu_nb import Emulator; assert 'yaml' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_empty_section_is_as_good_as_none(path: Path) -> None:
    path.write_text("foundry:\n  compute_modules:\n    runtimes:\n    deployed_apps:\ntokens:\nsettings:\n  port:\n")
    emulator = Emulator.from_seed(path)
    assert emulator.settings.port == 4000
    assert emulator.seed is not None
    assert (emulator.seed.runtimes, emulator.seed.apps, emulator.seed.logins) == ([], [], {})


# In a notebook


def test_the_magic_starts_with_a_seed_file(path: Path, run: Callable[[str], tuple[Any, str]], shell: Any) -> None:
    run("%config CMEmu.keep_jobs = 3")
    run("%config CMEmu.max_queued = 5")
    said = run(f"%cmemu start --seed {str(path)!r} --keep-events 9")[1]
    emulator = shell.user_ns["emu"]
    assert emulator.url in said
    settings = emulator.settings
    assert (settings.keep_jobs, settings.max_queued, settings.keep_events) == (7, 5, 9)
    assert mine(emulator).poll().status_code == 204
    assert "is already running" not in run(f"%cmemu start --seed {str(path)!r} --keep-events 9")[1]
    assert "only a start can set its keep_events." in run(f"%cmemu start --seed {str(path)!r} --keep-events 10")[1]
    path.write_text(SEED.replace("keep_jobs: 7", "keep_jobs: 6").replace("bare", "new"), "utf-8")
    said = run(f"%cmemu start --seed {str(path)!r}")[1]
    assert "only a start can set its keep_jobs and seed." in said
    assert "That starts a different emulator" in said
    assert shell.user_ns["emu"] is emulator
    assert "The runtimes of the seed file were opened again." in run("%cmemu reset")[1]
    path.write_text("a: b: c\n")
    run("%cmemu stop")
    assert f"UsageError: %cmemu start: {path}, line 1: this is not YAML" in run(f"%cmemu start --seed {path}")[1]


def test_stop_says_how_to_go_on_with_seed_and_journal(
    path: Path, tmp_path: Path, run: Callable[[str], tuple[Any, str]], shell: Any
) -> None:
    run(f"%cmemu start --seed {path} --journal {tmp_path / 'j.db'}")
    said = run("%cmemu stop")[1]
    line = next(line for line in said.splitlines() if line.startswith("%cmemu start --journal"))
    run("del emu")
    run(line.removesuffix(" does so in another kernel, too."))
    assert shell.user_ns["emu"].runtime("my-runtime").token == MODULE_TOKEN


# The document


def test_the_example_of_the_document_is_what_it_says(path: Path) -> None:
    (example,) = fenced(ROOT / "cmemu_nb" / "docs" / "seed.md", "yaml")
    path.write_text(example, "utf-8")
    with Emulator.from_seed(path, port=0, tls_port=0, home="thread") as emulator:
        ids = [each.runtime_id for each in emulator.lifecycle.runtimes()]
        assert ids == ["my-runtime", "second-runtime"]
        assert {rid for rid, _, _ in bindings(emulator)} == {APP}
        with pytest.raises(NotFound):
            emulator.lifecycle.resolve_app(OTHER_APP)
        assert emulator.settings.execute_timeout == 5.0
