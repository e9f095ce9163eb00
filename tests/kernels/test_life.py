"""Starting, starting again, reloading, restarting, forking, stopping."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from client import free_port
from environments import kernel_python
from kernels.driver import Kernel, wait_until
from kernels.notebooks import APP, IN_BOTH_HOMES, open_notebook, start_executor

import cmemu_nb

if TYPE_CHECKING:
    from kernels.notebooks import Notebook

pytestmark = pytest.mark.kernels


def port_of(notebook: Notebook) -> int:
    return urlsplit(notebook.url).port or 0


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_running_the_start_cell_again_gives_the_same_emulator(notebook: Notebook) -> None:
    notebook.kernel.run("before = emu")
    said = notebook.start_again(port=1)
    assert "The emulator is already running; only a start can set its port." in said
    assert notebook.kernel.run("print(emu is before, emu.url)") == f"True {notebook.url}"
    assert notebook.execute() == 1


def test_the_token_is_not_in_what_the_start_cell_shows(notebook: Notebook) -> None:
    cell = notebook.kernel.finish(notebook.kernel.send("%cmemu start\nemu"))
    shown = cell.text + "".join(cell.html)
    assert notebook.url in shown
    assert "emu.token" in shown
    assert notebook.token not in shown


def test_reload_ext_keeps_the_emulator_and_brings_the_magic_back(notebook: Notebook) -> None:
    notebook.kernel.run("before = emu\n%reload_ext cmemu_nb")
    assert notebook.kernel.run("print(emu is before)\n%cmemu url") == f"True\n{notebook.url}"
    assert notebook.execute() == 1


@IN_BOTH_HOMES
def test_autoreload_of_every_module_keeps_the_emulator(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run("%load_ext autoreload\n%autoreload 2\nbefore = emu")
    for file in Path(cmemu_nb.__file__).parent.rglob("*.py"):
        if file.name != "__init__.py":
            file.touch()
    kernel.run("pass")
    assert notebook.execute() == 1
    assert kernel.run("print(emu is before, emu.call('echo', 3), len(emu.jobs) > 0)") == "True 3 True"
    assert notebook.start_again() != ""
    assert kernel.run("print(emu is before)") == "True"
    kernel.run("%autoreload 0")
    assert notebook.events("internal_error", "listener_failed") == []


# The child writes as soon as it runs code of its own. What listens is what Linux says.
FORK = """
import cmemu_nb, os, pathlib, signal, time, warnings
warnings.simplefilter('ignore', DeprecationWarning)
other = cmemu_nb.Emulator(port=PORT, tls_port=0).start()
there, begun = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(begun, b'!')
    time.sleep(60)
    os._exit(0)
os.read(there, 1)
sockets = [line.split() for line in pathlib.Path('/proc/net/tcp').read_text().splitlines()[1:]]
listening = {f'socket:[{each[9]}]' for each in sockets if each[3] == '0A' and each[1].endswith(f':{other.port:04X}')}
held = {os.readlink(f'/proc/{pid}/fd/{each}') for each in os.listdir(f'/proc/{pid}/fd')}
port = other.port
other.stop()
again = cmemu_nb.Emulator(port=port, tls_port=0).start()
print(bool(listening), listening & held, again.port == port)
again.stop()
os.kill(pid, signal.SIGKILL)
_ = os.waitpid(pid, 0), os.close(there), os.close(begun)
"""


def test_a_forked_child_does_not_hold_the_port(notebook: Notebook) -> None:
    assert notebook.kernel.run(FORK.replace("PORT", str(free_port()))) == "True set() True"
    assert notebook.execute() == 1


def test_a_forked_child_is_told_that_it_can_t_use_the_emulator(notebook: Notebook) -> None:
    code = "import os\nr, w = os.pipe()\npid = os.fork()\nif pid == 0:\n    try:\n        emu.call('echo', 1)\n"
    code += "    except Exception as error:\n        os.write(w, str(error).encode())\n    os._exit(0)\n"
    code += "_ = os.waitpid(pid, 0)\nprint(os.read(r, 1000).decode())"
    said = notebook.kernel.run(f"import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n{code}")
    assert "Send requests to its URL" in said


def test_a_sync_call_in_an_event_callback_works_and_recommends_await(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(
        "seen = []\ndef on(event):\n    if event.kind == 'job_succeeded' and not seen:\n        seen.append(1)\n"
        "        seen.append(emu.call('echo', 'nested'))\nend = emu.on_event(on)"
    )
    assert kernel.run("print(emu.call('echo', 'outer'))") == "outer"
    wait_until(lambda: kernel.run("print(seen)") == "[1, 'nested']", "the nested call")
    assert notebook.execute() == 1
    assert "await emu.acall" in notebook.events("nested_call")[0]
    kernel.run("end()")
    assert notebook.events("listener_failed", "internal_error") == []


def test_an_awaited_call_in_an_event_callback_works(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(
        "got = []\nasync def on(event):\n    if event.kind == 'job_succeeded' and not got:\n        got.append(1)\n"
        "        got.append(await emu.acall('echo', 'awaited'))\nend = emu.on_event(on)\nemu.call('echo', 1)"
    )
    wait_until(lambda: kernel.run("print(got)") == "[1, 'awaited']", "the awaited call")
    kernel.run("end()")


def test_the_emulator_can_t_be_stopped_from_its_own_callback(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(
        "said = []\ndef on(event):\n    if event.kind == 'job_succeeded' and not said:\n        said.append(1)\n"
        "        try:\n            emu.stop()\n"
        "        except Exception as error:\n            said.append(str(error))\n"
        "end = emu.on_event(on)\nemu.call('echo', 1)"
    )
    wait_until(lambda: "stop it in a cell" in kernel.run("print(said)"), "the refusal")
    kernel.run("end()")
    assert notebook.execute() == 1


@pytest.mark.parametrize("patch", ["nest_asyncio", "nest_asyncio2"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("version", ["7.4", "6.30"])
def test_a_user_who_patched_asyncio(version: str, patch: str, when: str, tmp_path: Path) -> None:
    apply = f"import {patch}; {patch}.apply()"
    with open_notebook(version, "kernel", tmp_path, before=apply if when == "before" else "pass") as notebook:
        if when == "after":
            notebook.kernel.run(apply)
        assert [notebook.execute(query=i) for i in range(5)] == list(range(5))
        code = "import asyncio\nprint(emu.call('echo', 1), await emu.acall('echo', 2),"
        code += " asyncio.get_event_loop().run_until_complete(emu.acall('echo', 3)))"
        assert notebook.kernel.run(code) == "1 2 3"
        code = "seen = []\ndef on(event):\n    if event.kind == 'job_succeeded' and not seen:\n        seen.append(1)\n"
        code += "        seen.append(emu.call('echo', 'nested'))\nend = emu.on_event(on)\nemu.call('echo', 1)"
        notebook.kernel.run(code)
        wait_until(lambda: notebook.kernel.run("print(seen)") == "[1, 'nested']", "the nested call")
        assert [notebook.execute(query=i) for i in range(5)] == list(range(5))


def test_asyncio_is_not_patched_before_a_sync_call_on_the_emulator_s_loop_and_unloading_leaves_no_trace(
    fresh: Notebook,
) -> None:
    patched = "import asyncio; print(asyncio.Task is asyncio.tasks._PyTask, hasattr(asyncio, '_nest_patched'))"
    fresh.kernel.run("emu.call('echo', 1); await emu.acall('echo', 2)")
    assert fresh.kernel.run(patched) == "False False"
    kernel, port = fresh.kernel, port_of(fresh)
    kernel.run("%unload_ext cmemu_nb")
    assert not answers(port)
    code = (
        "import threading\nip = get_ipython()\nprint('emu' in globals(), 'cmemu' in ip.magics_manager.magics['line'],"
    )
    code += " [t.name for t in threading.enumerate() if 'cmemu' in t.name],"
    code += " [c for e in ip.events.callbacks.values() for c in e if 'cmemu' in c.__module__],"
    code += " [m for m in ip.Completer.custom_matchers if 'cmemu' in str(m)],"
    code += " [c for c in ip.configurables if 'CMEmu' in type(c).__name__])"
    assert kernel.run(code) == "False False [] [] [] []"


def test_a_restarted_kernel_starts_on_the_same_port(fresh: Notebook) -> None:
    port = port_of(fresh)
    fresh.kernel.restart()
    assert not answers(port)
    assert str(port) in fresh.start_again(port=port)
    found = json.loads(
        fresh.kernel.run(
            f"import json\nrt = emu.open_runtime('outside', deployed_app_rid={APP!r})\n"
            "print(json.dumps([emu.port, emu.token, rt.get_job_uri[:-4], rt.token]))"
        )
    )
    assert found[0] == port
    fresh.token = found[1]
    with start_executor(found[2], found[3]):
        assert fresh.execute(query="restarted") == "restarted"


def test_an_emulator_is_found_and_started_again_however_it_was_stopped_and_started(tmp_path: Path) -> None:
    # Of its own, since any other start on this machine cleans up as well.
    temporary = f"import tempfile; tempfile.tempdir = {str(tmp_path)!r}"
    with open_notebook("7.4", "kernel", tmp_path, before=temporary) as notebook:
        kernel = notebook.kernel
        kernel.run("before = emu\n@emu.function\ndef twice(context, event):\n    return [event, event]")
        kernel.run("%cmemu stop\nemu.start()")
        assert notebook.url in kernel.run("%cmemu status")
        assert "with its token, jobs and functions" in kernel.run("%cmemu stop\n%cmemu start")
        assert kernel.run("print(emu is before, emu.token, emu.call('twice', 1))") == f"True {notebook.token} [1, 1]"
        kernel.run("from cmemu_nb import Emulator\ndel before\nemu = Emulator(port=0).start()")
        wait_until(lambda: not answers(port_of(notebook)), "the end of the first emulator")
        assert kernel.run("del emu\n%cmemu start\nprint(len(emu.jobs))").splitlines()[-1] == "0"
        code = "async with Emulator(port=0) as other:\n    print(other.home.kind, other.running)\nprint(other.running)"
        assert kernel.run(code) == "kernel True\nFalse"
        left = Path(kernel.run("print(emu.files.path)"))
        kernel.restart(kill=True)
        assert left.exists()
        kernel.run(temporary)
        notebook.start_again()
        assert not left.exists()


def test_loading_starts_nothing(tmp_path: Path) -> None:
    kernel = Kernel(kernel_python("7.4"), tmp_path)
    try:
        kernel.run("%load_ext cmemu_nb")
        code = "import threading, sys\nprint([t.name for t in threading.enumerate() if 'cmemu' in t.name],"
        code += " 'emu' in globals(), 'pandas' in sys.modules, 'ipywidgets' in sys.modules)"
        assert kernel.run(code) == "[] False False False"
    finally:
        kernel.close()


def test_a_running_emulator_does_not_hold_up_the_kernel_s_end(tmp_path: Path) -> None:
    with open_notebook("7.4", "kernel", tmp_path) as notebook:
        assert notebook.kernel.close() == 0
