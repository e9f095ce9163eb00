"""Whatever a cell does, the emulator in its kernel answers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from kernels.driver import running_cell, wait_until

if TYPE_CHECKING:
    from kernels.notebooks import Notebook

pytestmark = pytest.mark.kernels

POST = (
    "import requests\n"
    "url = emu.url + '/contour-backend-multiplexer/api/module-group-multiplexer/compute-modules/jobs/execute'\n"
    "body = {'deployedAppRid': 'ri.foundry.main.deployed-app.test', 'queryType': 'echo', 'query': [7]}\n"
    "headers = {'Authorization': f'Bearer {emu.token}'}\n"
)


def test_requests_in_a_plain_cell(notebook: Notebook) -> None:
    assert notebook.kernel.run(f"{POST}print(requests.post(url, json=body, headers=headers, timeout=10).text)") == "[7]"


def test_a_keep_alive_session_in_a_plain_cell(notebook: Notebook) -> None:
    code = f"{POST}with requests.Session() as s:\n    for _ in range(20):\n"
    code += "        print(s.post(url, json=body, headers=headers, timeout=10).text)"
    assert notebook.kernel.run(code).split() == ["[7]"] * 20


def test_requests_in_the_very_cell_that_starts_the_emulator(notebook: Notebook) -> None:
    code = f"import requests, cmemu_nb\nother = cmemu_nb.Emulator(port=0, home={notebook.home!r}).start()\n"
    code += "print(requests.get(other.url + '/_emulate/health', timeout=10).json())\nother.stop()"
    assert notebook.kernel.run(code).startswith("{'status': 'ok'")


def test_a_subprocess_that_the_cell_waits_for(notebook: Notebook) -> None:
    program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1] + '/_emulate/health').read())"
    code = f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', {program!r}, emu.url],"
    assert "ok" in notebook.kernel.run(f"{code} capture_output=True, timeout=20).stdout)")


def test_sync_and_awaited_calls(notebook: Notebook) -> None:
    assert (
        notebook.kernel.run("print(emu.call('echo', {'a': 1}), await emu.acall('echo', {'b': 2}))")
        == "{'a': 1} {'b': 2}"
    )


def test_a_sync_call_after_an_await_in_the_same_cell(notebook: Notebook) -> None:
    code = "import asyncio, requests\nawait asyncio.sleep(0.2)\nprint(emu.call('echo', 5))\n"
    assert notebook.kernel.run(code) == "5"


def test_many_awaited_calls_at_once(notebook: Notebook) -> None:
    code = "import asyncio\nprint(sum(await asyncio.gather(*(emu.acall('echo', i) for i in range(100)))))"
    assert notebook.kernel.run(code) == "4950"


def test_run_all_with_sync_calls_loses_no_cell(notebook: Notebook) -> None:
    cells = ["emu.call('echo', 1)", "print('a')", "await emu.acall('echo', 2)", "print('b')"]
    cells += [f"{POST}requests.post(url, json=body, headers=headers, timeout=10).status_code", "print('c')"]
    sent = [notebook.kernel.send(code) for code in cells * 3]
    assert [notebook.kernel.finish(cell).status for cell in sent] == ["ok"] * len(sent)


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "while True: sum(range(1000))",
        "import asyncio\nwhile True: await asyncio.sleep(0.01)",
        "import asyncio, time\nawait asyncio.sleep(0.3)\ntime.sleep(60)",
        "import subprocess; subprocess.run(['sleep', '60'])",
        "!echo asleep; sleep 60",
        "emu.call('never')",
        "await emu.acall('never')",
        "import threading; threading.Event().wait(60)",
    ],
    ids=["sleep", "computation", "await", "await then sleep", "subprocess", "shell", "call", "acall", "lock"],
)
def test_outside_clients_are_served_while_a_cell_runs_and_after_it_is_interrupted(
    notebook: Notebook, code: str
) -> None:
    kernel = notebook.kernel
    # While `!` forks, an interrupt is lost in IPython's own hook: "Exception ignored in HistoryManager._stop_thread".
    with running_cell(kernel, code, says="asleep" if "asleep" in code else "begun") as cell:
        assert [notebook.execute(query=i) for i in range(5)] == list(range(5))
    kernel.interrupt()
    assert kernel.finish(cell).status in ("error", "ok")
    assert notebook.execute(query="after") == "after"
    assert kernel.run("print(emu.call('echo', 'alive'))") == "alive"


def test_outside_clients_are_served_while_a_cell_asks_for_input(notebook: Notebook) -> None:
    with running_cell(notebook.kernel, "answer = input('?')") as cell:
        wait_until(lambda: cell.asked_input, "the question")
        assert [notebook.execute(query=i) for i in range(5)] == list(range(5))
    notebook.kernel.answer("yes")
    notebook.kernel.finish(cell)
    assert notebook.kernel.run("print(answer)") == "yes"


def test_an_interrupted_request_leaves_no_ghost_job(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run("nobody = emu.open_runtime('nobody', deployed_app_rid='ri.nobody')")
    code = f"{POST}body['deployedAppRid'] = 'ri.nobody'\nrequests.post(url, json=body, headers=headers, timeout=60)"
    with running_cell(kernel, code) as cell:
        notebook.wait_for_job("queued", "nobody")
    kernel.interrupt()
    kernel.finish(cell)
    notebook.wait_for_job("failed", "nobody")
    state = "[(j.status.value, j.error_message) for j in emu.lifecycle.jobs('nobody')]"
    assert kernel.run(f"print({state})") == "[('failed', 'the client disconnected before a runtime took the job')]"
    kernel.run("nobody.delete()")


def test_an_interrupted_call_cancels_its_job_or_leaves_it_as_is_wanted(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run("nobody = emu.open_runtime('nobody', deployed_app_rid='ri.nobody')")
    for options, statuses in (("", "['failed']"), (", interrupt='leave'", "['failed', 'queued']")):
        with running_cell(kernel, f"emu.call('later', 1, 'ri.nobody'{options})") as cell:
            notebook.wait_for_job("queued", "nobody")
        kernel.interrupt()
        assert "KeyboardInterrupt" in (kernel.finish(cell).error or "")
        assert kernel.run("print([j.status.value for j in emu.lifecycle.jobs('nobody')])") == statuses
    kernel.run("nobody.delete()")


def test_nothing_of_the_emulator_s_troubles_shows_up_in_a_cell(notebook: Notebook) -> None:
    kernel = notebook.kernel
    cell = kernel.finish(kernel.send("print('quiet')"))
    address = urlsplit(notebook.url)
    for nonsense in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"\x16\x03\x01\x02\x00"):
        with socket.create_connection((address.hostname or "", address.port or 0)) as client:
            client.sendall(nonsense)
            client.shutdown(socket.SHUT_WR)
            client.recv(1000)
    assert notebook.execute() == 1
    kernel.run("pass")
    assert cell.text == "quiet\n"
    assert notebook.events("internal_error", "listener_failed") == []


# The last one, because the debugger keeps tracing its kernel: an interrupt in a traced function may hang there.
def test_outside_clients_are_served_while_a_cell_stands_at_a_breakpoint(notebook: Notebook) -> None:
    kernel, code = notebook.kernel, "a = 1\nb = 2\nc = 3"
    kernel.debug("initialize", {"clientID": "test", "adapterID": "", "pathFormat": "path", "linesStartAt1": True})
    kernel.debug("attach")
    path = kernel.debug("dumpCell", {"code": code})["body"]["sourcePath"]
    kernel.debug("setBreakpoints", {"breakpoints": [{"line": 2}], "source": {"path": path}, "sourceModified": False})
    kernel.debug("configurationDone")
    cell = kernel.send(code)
    wait_until(lambda: any(event.get("event") == "stopped" for event in kernel.debug_events), "the breakpoint")
    thread = next(event["body"]["threadId"] for event in kernel.debug_events if event.get("event") == "stopped")
    assert [notebook.execute(query=i) for i in range(5)] == list(range(5))
    assert cell.status is None
    kernel.debug("continue", {"threadId": thread})
    kernel.finish(cell)
    kernel.debug("disconnect", {"restart": False, "terminateDebuggee": False})
    assert kernel.run("print(a + b + c)") == "6"
