"""`cmemu mcp`, used by the client of the official package over stdio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import environments
import pytest
from cells import ADD, make
from cli_processes import run_here
from client import Api, eventually
from conftest import serving
from mcp import Client, types
from mcp.client.stdio import StdioServerParameters, stdio_client

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle.events import Event

pytestmark = [pytest.mark.once, pytest.mark.long_lived]
SECONDS = 60
GATE = threading.Event()
VIEWS = ["list_runtimes", "list_functions", "list_jobs", "show_job", "list_events", "cancel_jobs", "fail_job", "call"]


class Agent:
    """A client of `cmemu mcp` whose loop runs in a thread of its own, so that many tests share one process."""

    def __init__(self, *options: str, mode: str = "auto", **environment: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._end = asyncio.Event()
        self.messages: list[object] = []
        started: asyncio.Future[Client] = self._loop.create_future()
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "cmemu_nb", "mcp", *options], env={**os.environ, **environment}
        )
        self._life = asyncio.run_coroutine_threadsafe(self._live(command, mode, started), self._loop)
        self.client = self.wait(asyncio.wait_for(started, SECONDS))

    async def _live(self, command: StdioServerParameters, mode: Any, started: asyncio.Future[Client]) -> None:
        async def receive(message: object) -> None:
            self.messages.append(message)

        try:
            async with Client(stdio_client(command), mode=mode, message_handler=receive, cache=None) as client:
                started.set_result(client)
                await self._end.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    def tools(self) -> dict[str, types.Tool]:
        return {each.name: each for each in self.wait(self.client.list_tools()).tools}

    def answer(self, tool: str, **arguments: Any) -> tuple[str, bool]:
        result = self.wait(self.client.call_tool(tool, arguments))
        (content,) = result.content
        return content.text, result.is_error

    def use(self, tool: str, **arguments: Any) -> Any:
        text, failed = self.answer(tool, **arguments)
        assert not failed, text
        return json.loads(text)

    def fail(self, tool: str, **arguments: Any) -> str:
        text, failed = self.answer(tool, **arguments)
        assert failed, text
        return text

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._life.result(SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()


@pytest.fixture(scope="module")
def emu() -> Iterator[Emulator]:
    with serving(max_concurrent_tasks=8) as emulator:
        emulator.function(make(ADD))
        emulator.function(make("def boom(context, event):\n    print('before')\n    raise ValueError('no luck')"))
        emulator.function(make("def wait(context, event) -> str:\n    gate.wait(60)\n    return 'done'", gate=GATE))
        emulator.function(make("def long(context, event) -> str:\n    return 'x' * 30_000 + 'end'"))
        secrets = [emulator.token, emulator.lifecycle.runtime("notebook").module_auth_token]
        emulator.function(make("def leak(context, event) -> str:\n    return ' '.join(secrets)", secrets=secrets))
        yield emulator
        GATE.set()
        emulator.reset()


@pytest.fixture(scope="module")
def agent(emu: Emulator) -> Iterator[Agent]:
    with contextlib.closing(Agent(CMEMU_URL=emu.url, CMEMU_TOKEN=emu.token)) as agent:
        yield agent


def test_each_function_is_a_tool_with_the_schema_of_its_input(agent: Agent) -> None:
    tools = agent.tools()
    assert [*tools][: len(VIEWS)] == VIEWS
    assert {*tools} - {*VIEWS} == {"call_add", "call_boom", "call_wait", "call_long", "call_leak"}
    add = tools["call_add"]
    assert add.description == (
        "Call the function 'add' of the runtime 'notebook': x: integer, y: integer (may be left out) -> integer"
    )
    assert add.input_schema == {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
    }


def test_a_call_returns_the_result_and_the_job(agent: Agent, emu: Emulator) -> None:
    called = agent.use("call_add", x=1, y=2)
    assert called["result"] == 3
    assert emu.job(called["job_id"]).outcome == "ok"
    assert agent.use("call", function="add", query={"x": 40})["result"] == 42
    by_app = agent.use("call", function="add", query={"x": 1}, app="ri.foundry.main.deployed-app.notebook")
    assert emu.job(by_app["job_id"]).record.deployed_app_rid == "ri.foundry.main.deployed-app.notebook"


def test_an_error_says_what_the_agent_can_do(agent: Agent) -> None:
    said = "The query does not match add: 'x': expected integer, given a string ('1'). no_validate=true sends anything."
    assert agent.fail("call_add", x="1") == said
    raised = agent.fail("call_boom")
    assert 'File "<cell>", line 3, in boom\nValueError: no luck\nThe job\'s id is ' in raised
    assert agent.fail("call_ad").startswith("There is no tool 'call_ad'. Known tools: 'call', 'call_add', ")
    wrong = "The arguments of list_jobs are wrong: last: 0 is less than the minimum of 1."
    assert agent.fail("list_jobs", last=0) == wrong


def test_the_records_are_shown_without_tokens_and_bounded(agent: Agent, emu: Emulator) -> None:
    (runtime,) = agent.use("list_runtimes")
    assert (runtime["runtime_id"], runtime["mode"], runtime["connected"]) == ("notebook", "function", True)
    assert "module_auth_token" not in runtime
    functions = {each["function_name"]: each["schema"] for each in agent.use("list_functions")}
    assert functions["add"] == "x: integer, y: integer (may be left out) -> integer"

    job_id = agent.use("call_leak")["job_id"]
    shown = [agent.answer(*each)[0] for each in (("call_leak",), ("list_jobs",), ("list_runtimes",))]
    shown.append(agent.answer("show_job", job=job_id[-6:])[0])
    for secret in (emu.token, emu.lifecycle.runtime("notebook").module_auth_token):
        assert not [text for text in shown if secret in text]
        assert f"…{secret[-4:]}" in shown[0]

    text, _ = agent.answer("call_long")
    assert len(text) < 20_100
    assert text.endswith(" more characters were left out.")
    failed = re.findall("foundry_job_[0-9a-f]+", agent.fail("call_boom"))[0]
    assert agent.use("show_job", job=failed[-8:])["log"].startswith("before\n")
    events = agent.use("list_events", job=failed[-8:])
    assert [each["kind"] for each in events] == ["job_queued", "job_started", "job_succeeded"]
    assert agent.use("list_events", last=1, runtime="notebook")[0]["sequence"] == events[-1]["sequence"]

    agent.answer("call_long")
    newest = agent.use("list_jobs", last=1)
    assert [(each["query_type"], each["state"], len(each["result"])) for each in newest] == [("long", "ok", 301)]


def test_jobs_are_diagnosed_cancelled_and_failed(agent: Agent, emu: Emulator) -> None:
    assert "was not done within 0 s. 'wait' " in agent.fail("call", function="wait", timeout=0)
    running = emu.lifecycle.jobs()[-1].job_id
    eventually(lambda: agent.use("show_job", job=running)["status"] == "running", "it runs")
    shown = agent.use("show_job", job=running)
    assert "'wait' has been running for " in shown["diagnosis"]
    assert shown["queued_at"].endswith(" UTC")
    said = agent.answer("fail_job", job=running, reason="try the callers")
    assert said == (f"Job '{running}' has failed: try the callers", False)
    assert emu.job(running).record.error_message == "try the callers"

    agent.fail("call", function="wait", timeout=0)
    assert agent.use("cancel_jobs", jobs="wait", reason="too slow") == {"cancelled": 1}
    assert [each["result"] for each in agent.use("list_jobs", status="failed", last=1)] == ["cancelled: too slow"]
    assert "it has failed already" in agent.fail("fail_job", job=running, reason="again")


def test_a_call_that_the_agent_gives_up_is_cancelled(agent: Agent, emu: Emulator) -> None:
    queued, given_up = threading.Event(), threading.Event()

    def hold_up(event: Event) -> None:
        if event.kind == "job_queued":
            queued.set()
            given_up.wait(20)  # the answer, which has the job's id, is sent afterwards

    async def give_up() -> None:
        calling = asyncio.create_task(agent.client.call_tool("call_wait", {}))
        await asyncio.to_thread(queued.wait, 20)
        calling.cancel()
        await asyncio.sleep(0.3)  # mostly enough for the server to know before it has the job's id
        given_up.set()

    end = emu.change(lambda lifecycle: lifecycle.events.subscribe(hold_up))
    agent.wait(give_up())
    emu.change(lambda _: end())
    job = emu.lifecycle.jobs()[-1]
    eventually(lambda: emu.job(job.job_id).record.error_message == "cancelled: by the agent", "it is cancelled")


def test_clients_of_either_protocol_hear_that_the_functions_have_changed(agent: Agent, emu: Emulator) -> None:
    async def change() -> None:
        async with agent.client.listen(tools_list_changed=True) as changes:
            await agent.client.list_tools()
            await asyncio.to_thread(emu.function, make("def new(context, event) -> str:\n    return 'new'"))
            await anext(changes)

    with contextlib.closing(Agent(mode="legacy", CMEMU_URL=emu.url, CMEMU_TOKEN=emu.token)) as older:
        assert "call_new" not in older.tools()
        agent.wait(change())
        assert agent.use("call_new")["result"] == "new"
        eventually(lambda: "ToolListChanged" in repr(older.messages), "the older client has heard it")
        assert "call_new" in older.tools()


def test_functions_of_one_name_have_tools_of_their_own(agent: Agent, emu: Emulator) -> None:
    names = ["odd name/ü", "x" * 80]
    for runtime_id in ("one", "two"):
        Api(emu.url, emu.token).open(runtime_id).post_schemas({name: {} for name in names})
    tools = agent.tools()
    found = {each.name for each in tools.values() if "of the runtime 'one'" in str(each.description)}
    assert len(found) == 2
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in tools)
    emu.change(lambda lifecycle: [lifecycle.delete_session(runtime_id) for runtime_id in ("one", "two")])


def test_what_programs_post_and_print_leaves_every_other_tool_as_it_is(agent: Agent, emu: Emulator) -> None:
    emu.function(make("def half(context, event):\n    print('half \\udcff')\n    raise ValueError('\\udcff')"))
    assert "ValueError: \\udcff" in agent.fail("call_half")
    assert agent.use("show_job", job=emu.lifecycle.jobs()[-1].job_id)["log"] == "half \\udcff\n"

    struct = {"fields": {"a": {"type": "string"}}, "required": 5}
    kind = {"type": "anonymousCustomType", "anonymousCustomType": struct}
    odd = {"functionName": "odd", "inputs": [{"name": "x", "dataType": kind}]}
    one, two = (Api(emu.url, emu.token).open(runtime_id) for runtime_id in ("one", "two"))
    one.post_schemas([odd, {"functionName": "same"}])
    two.post_schemas([{"functionName": "same"}])
    names = [each for each in agent.tools() if each.startswith("call_same_")]
    assert "call_odd" in agent.tools()
    one.post_schemas([{"functionName": names[0].removeprefix("call_")}])
    listed = [each.name for each in agent.wait(agent.client.list_tools()).tools]
    assert len({*listed}) == len(listed)
    assert {*names} < {*listed}
    emu.change(lambda lifecycle: [lifecycle.delete_session(runtime_id) for runtime_id in ("one", "two")])


APP = """
import os
from dataclasses import dataclass
from compute_modules.annotations import function

@dataclass
class Input:
    x: int

@function
def NAME(context, event: Input) -> str:
    print("RAN with", event.x, open(os.environ["MODULE_AUTH_TOKEN"]).read(), flush=True)
    return os.environ["GREETING"] * event.x
"""


def test_without_an_emulator_it_starts_one_where_the_agent_tries_what_it_wrote(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    launch = {"command": "python app.py", "cwd": str(tmp_path), "configuration": {"environment": {"GREETING": "hi"}}}
    with contextlib.closing(Agent(JUPYTER_RUNTIME_DIR=str(tmp_path), CMEMU_URL="", CMEMU_TOKEN="")) as agent:
        assert {*agent.tools()} == {*VIEWS, "launch", "stop_module", "show_module_log"}
        app.write_text(f"raise ValueError('not finished')\n{APP}")
        assert "ValueError: not finished" in agent.fail("launch", **launch)
        app.write_text(f"{APP}\nraise ValueError('half finished')")
        assert "ValueError: half finished" in agent.use("launch", **launch)["log"]

        app.write_text(APP.replace("NAME", "greet"))
        launched = agent.use("launch", **launch)
        assert (launched["runtime_id"], launched["replicas"]) == ("app", ["responsive"])
        assert launched["functions"] == {"greet": "x: integer -> string"}
        assert agent.use("call_greet", x=2)["result"] == "hihi"
        log = agent.answer("show_module_log", runtime="app")[0]
        assert "RAN with 2 …" in log

        app.write_text(APP.replace("NAME", "welcome"))
        agent.use("launch", **launch)
        assert [name for name in agent.tools() if name.startswith("call_")] == ["call_welcome"]
        assert agent.use("stop_module", runtime="app") == {"stopped": 1}
        assert "call_welcome" not in agent.tools()
        assert "No program was launched for runtime 'other'." in agent.fail("show_module_log", runtime="other")
        assert "configuration: " in agent.fail("launch", command="x", configuration={"colour": 1})

        (file,) = tmp_path.glob("cmemu-*.json")
    assert not file.exists()


def test_without_the_extra_the_command_says_what_to_install() -> None:
    python = environments.kernel_python("7.4")
    done = subprocess.run([python, "-m", "cmemu_nb", "mcp"], capture_output=True, text=True, check=False, timeout=60)
    said = "cmemu mcp: the package mcp is not installed. Type: pip install 'cmemu_nb[mcp]'. See 'cmemu mcp --help'.\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_options_that_exclude_each_other() -> None:
    assert "--start starts an emulator, so it excludes --url" in run_here("mcp", "--start", "--url", "http://x").stderr
    assert "--seed needs --start" in run_here("mcp", "--seed", "seed.yaml").stderr
