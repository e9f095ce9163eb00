"""Calls without an app, while a launched module has not said yet which functions it has."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from cells import ADD, make
from client import eventually

from cmemu_nb.calls import startup, wait_line
from cmemu_nb.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmemu_nb import Emulator

# Posts its schemas as soon as a file is there, polls once and waits for its end. An official SDK takes longer.
MODULE = """
import json, os, pathlib, ssl, sys, time, urllib.request
print("loading weights", flush=True)
file = pathlib.Path(sys.argv[1])
while not file.exists(): time.sleep(0.01)
context = ssl.create_default_context(cafile=os.environ["DEFAULT_CA_PATH"])
token = {"Module-Auth-Token": pathlib.Path(os.environ["MODULE_AUTH_TOKEN"]).read_text()}
def send(name, body=None):
    request = urllib.request.Request(os.environ[name], body, {**token, "Content-Type": "application/json"})
    urllib.request.urlopen(request, context=context).close()
text = {"type": "single", "single": {"dataType": {"type": "string", "string": {}}}}
schemas = json.dumps([{"functionName": "shout", "inputs": [], "output": text}]).encode()
steps = [lambda: send("POST_SCHEMA_URI", schemas),
         lambda: send("GET_JOB_URI")]
for step in steps if sys.argv[2] == "schemas" else reversed(steps): step()
time.sleep(600)
"""


@pytest.fixture
def emu(serve_functions: Callable[..., Any]) -> Iterator[Emulator]:
    """An emulator whose notebook has an app of its own."""
    with serve_functions() as emulator:
        emulator.function(make(ADD))
        yield emulator
        for module in emulator.modules:
            module.stop()


@pytest.mark.parametrize("first", ["schemas", "poll"])
def test_a_call_waits_until_a_module_that_starts_has_said_what_it_has(
    emu: Emulator, tmp_path: Path, first: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The official SDK of Python posts its schemas first, that of TypeScript polls first."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(wait_line, "PATIENCE_SECONDS", 0.1)
    ready = tmp_path / "ready"
    module = emu.launch(["python", "-c", MODULE, str(ready), first], "app")
    eventually(lambda: "loading" in module.logs.text, "it has begun")
    assert emu.call("add", {"x": 1}) == 3  # which is known already
    why = "No deployed app is known to have 'shout' yet: the module 'app' is starting and has not posted its schemas; "
    why += "the last line that it wrote is 'loading weights'."
    with pytest.raises(NotFound) as late:
        emu.call("shout", timeout=0.1)
    assert str(late.value).startswith(f"{why} The call has waited for 0.1 s.")
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(emu.submit, "shout"), pool.submit(lambda: asyncio.run(emu.asubmit("shout")))]
        said = ""
        while why not in said:
            said += capsys.readouterr().err
            assert not any(each.done() for each in waiting)
        ready.touch()
        assert [each.result(30).record.runtime_id for each in waiting] == ["app", "app"]
    with pytest.raises(NotFound, match=r"No function 'shuot' is served. Did you mean 'shout'\? .*'add', 'shout'"):
        emu.call("shuot")


def test_nobody_waits_for_a_module_that_has_ended_or_that_polls_without_schemas(
    emu: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = tmp_path / "ready"
    ready.touch()
    monkeypatch.setattr(startup, "MAX_SCHEMA_SECONDS", 600.0)
    monkeypatch.setattr(startup, "AFTER_POLL_SECONDS", 0.2)
    program = MODULE.replace("for step in steps if", "steps[1](); time.sleep(600)\nfor step in steps if")
    module = emu.launch(["python", "-c", program, str(ready), "poll"], "app").wait_until_responsive()
    with pytest.raises(NotFound, match="No function 'shout' is served"):
        emu.call("shout")
    module.stop()
    with pytest.raises(NotFound, match="No function 'shout' is served"):
        emu.call("shout")
