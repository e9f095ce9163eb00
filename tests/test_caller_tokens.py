"""The caller's token in the envelope of a job, where the setting says so, and nowhere else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from cells import make
from client import RUNTIMES, Api, Runtime, eventually
from conftest import end_programs
from foundry_sdk import Config, FoundryClient, UserTokenAuth
from test_oauth import token_of

from cmemu_nb.display.cards import show_job
from cmemu_nb.lifecycle.records import NOTEBOOK_APP
from cmemu_nb.tokens import last_four
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from cmemu_nb import Emulator

    Serve = Callable[..., AbstractContextManager[Emulator]]

PROGRAM = Path(__file__).parent / "programs" / "caller_module.py"
APP, OTHER_APP = (f"ri.foundry.main.deployed-app.{name}" for name in ("trusted", "other"))
CALLER = "the-token-of-the-caller-0123456789"
IN_A_CELL = """
def tokens(context, event) -> list[str]:
    print("the context:", context)
    return [digest(context["authHeader"]), digest(context["tempCredsAuthToken"])]
"""
MEMBERS = {"jobId", "queryType", "query"}
TOKENS = {"authHeader", "temporaryCredentialsAuthToken"}

pytestmark = pytest.mark.usefixtures("sdk_connections")


@pytest.fixture
def emu(serve: Serve, tmp_path: Path) -> Iterator[Emulator]:
    trusted = ["trusted", "notebook"]
    with serve(tokens=CALLER, caller_token_runtimes=trusted, journal=str(tmp_path / "lifecycle.db")) as emulator:
        yield emulator
        end_programs(emulator)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digests(token: str) -> list[str]:
    return [digest(f"Bearer {token}"), digest(token)]


def call_by_sdk(emu: Emulator, token: str) -> Any:
    host = urlsplit(emu.url).netloc
    client = FoundryClient(auth=UserTokenAuth(token), hostname=host, config=Config(scheme="http"))
    return client.functions.Query.execute("com.trusted.computemodules.on_behalf", parameters={}).value


def test_functions_act_with_the_token_of_their_caller_and_nothing_that_is_shown_or_kept_has_it(
    emu: Emulator, tmp_path: Path
) -> None:
    module = emu.launch(f"python {PROGRAM}", "trusted").wait_until_responsive()
    emu.function(make(IN_A_CELL, digest=digest))
    tokens = [CALLER, token_of(emu), str(emu.token)]
    for token in tokens:
        api = Api(emu.url, token)
        assert api.execute("on_behalf", {}, APP).json() == [*digests(token), "200"]
        assert call_by_sdk(emu, token) == [*digests(token), "200"]
        assert api.execute("tokens", {}, NOTEBOOK_APP).json() == digests(token)
        direct = api.contour("POST", f"{RUNTIMES}/trusted/jobs", json={"queryType": "on_behalf"}).json()["jobId"]
        assert emu.job(direct).result() == [*digests(token), "200"]
    assert emu.call("tokens") == digests(str(emu.token))
    eventually(lambda: module.logs.text.count("the context:") == 9, "the module has printed each context")
    jobs = [emu.job(job_id) for job_id in emu.lifecycle.job_ids()]
    shown = [module.logs.text, *(job.logs for job in jobs), *(show_job(job)["text/plain"] for job in jobs)]
    shown += [frame.to_csv() for frame in (emu.jobs, emu.events, emu.runtimes)]
    shown += [emu.export(tmp_path / "run.json").read_text(), repr(emu.settings.trait_values())]
    assert "".join(shown).count(f"Bearer {last_four(CALLER)}") > 3
    for token in tokens:
        assert not [text for text in shown if token in text]
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("lifecycle.db*") if path.is_file())
    assert not [token for token in tokens[:2] if token.encode() in kept]


def test_a_token_goes_to_the_runtimes_of_the_setting_only_and_not_into_the_published_envelope(emu: Emulator) -> None:
    api = Api(emu.url, CALLER)
    trusted, other = api.open("trusted", APP), api.open("other", OTHER_APP)
    for rid in (APP, APP, OTHER_APP):
        api.submit("f", {}, rid)
    assert set(trusted.take()) == set(take(emu, other)) == MEMBERS
    assert set(take(emu, trusted)) == {*MEMBERS, *TOKENS}


def take(emu: Emulator, runtime: Runtime) -> Any:
    """Take a job by the platform routes."""
    return Api(emu.url, "").send("GET", f"{PLATFORM}/job", headers=runtime.headers).json()["computeModuleJobV1"]


def test_the_token_is_kept_until_its_job_ends(emu: Emulator) -> None:
    api = Api(emu.url, CALLER)
    runtime = api.open("trusted", APP)
    kept = emu.application.context.caller_tokens
    submitted = [runtime.submit(), *(api.submit("f", {}, APP) for _ in range(3))]
    without, *jobs = [emu.job(job_id).record for job_id in submitted]
    assert kept.members(without) == {}
    assert [set(kept.members(job)) for job in jobs] == [TOKENS] * 3
    with emu.faults(duplicate_dispatch=1.0):
        runtime.take()
        runtime.take()
        assert take(emu, runtime)["authHeader"] == take(emu, runtime)["authHeader"] == f"Bearer {CALLER}"
    runtime.post_result(jobs[0].job_id, b"1")
    runtime.fail(jobs[1].job_id, "enough")
    assert [set(kept.members(job)) for job in jobs] == [set(), set(), TOKENS]
    api.open("trusted")
    assert kept.members(jobs[2]) == {}


def test_without_the_setting_no_job_has_a_token(serve: Serve) -> None:
    with serve() as emulator:
        emulator.function(make(IN_A_CELL, digest=digest))
        assert emulator.call("tokens") == [digest("")] * 2
        emulator.reset()
