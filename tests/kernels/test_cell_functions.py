"""Functions in cells, as a user types them."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from environments import kernel_python
from kernels.driver import Kernel, running_cell, wait_until
from kernels.notebooks import CONTOUR, IN_BOTH_HOMES, IN_ONE_KERNEL, open_notebook

import cmemu_nb
from cmemu_nb.lifecycle.records import NOTEBOOK_APP

if TYPE_CHECKING:
    from kernels.notebooks import Notebook

pytestmark = pytest.mark.kernels

APP_PY = """
from dataclasses import dataclass
from compute_modules.annotations import function

@dataclass
class AppPayload:
    x: int
    name: str

@function
def app_add(context, event: AppPayload) -> int:
    return event.x + len(event.name)

@function(streaming=True)
def app_count(context, event):
    for n in range(event["n"]):
        yield {"n": n}
"""
HANGING = """
import threading
gate = threading.Event()

@emu.function
def hang(context, event):
    print('hanging', flush=True)
    gate.wait()
    return 'late'
"""
LEFT = "\ndef left():\n    import asyncio, threading\n    async def count(): return len(asyncio.all_tasks())\n"
LEFT += "    return emu.home.run(count()), len(threading.enumerate())\n"


def attempt(notebook: Notebook, code: str) -> str:
    """Run a cell that may fail; returns all that it showed, its error included."""
    kernel, cell = notebook.kernel, notebook.kernel.send(code)
    wait_until(lambda: cell.status is not None, "the end of a cell")
    kernel.run("pass")
    return f"{cell.text}{cell.error or ''}"


def call_from_outside(notebook: Notebook, name: str) -> Any:
    """Call a function of the notebook from another process than the kernel's, while a cell may be running."""
    body = json.dumps({"deployedAppRid": NOTEBOOK_APP, "queryType": name, "query": {}}).encode()
    request = urllib.request.Request(f"{notebook.url}{CONTOUR}/compute-modules/jobs/execute", data=body, method="POST")
    request.add_header("Authorization", f"Bearer {notebook.token}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read() or b"null")


def next_cell(notebook: Notebook) -> int:
    """Return the number of the cell after this one."""
    return int(notebook.kernel.run("print(len(In))"))


# Defining and calling


def test_a_function_in_one_cell_is_called_in_the_next(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run("@emu.function\ndef add(context, event):\n    return event['x'] + event['y']")
    assert kernel.run("print(emu.call('add', {'x': 1, 'y': 2}))") == "3"
    assert kernel.run("print(await emu.acall('add', {'x': 1, 'y': 2}), add({}, {'x': 1, 'y': 1}))") == "3 2"
    assert "42" in attempt(notebook, '%cmemu call add \'{"x": 20, "y": 22}\'')


def test_a_function_is_defined_and_called_in_one_cell(notebook: Notebook) -> None:
    code = "@emu.function\ndef double(context, event):\n    return 2 * event['x']\n"
    code += "print(emu.call('double', {'x': 4}), await emu.acall('double', {'x': 5}))"
    assert notebook.kernel.run(code) == "8 10"


@IN_ONE_KERNEL
def test_a_function_of_a_chosen_runtime(notebook: Notebook) -> None:
    code = "mine = emu.open_runtime('mine', deployed_app_rid='ri.mine')\n@mine.function\n"
    code += "def here(context, event):\n    return 'mine'\n"
    assert notebook.kernel.run(f"{code}print(emu.call('here'), mine.enqueue('here').result())") == "mine mine"


@IN_ONE_KERNEL
def test_a_typed_event_and_a_stream(notebook: Notebook) -> None:
    code = "from dataclasses import dataclass\n@dataclass\nclass Sum:\n    x: int\n    y: int = 2\n"
    code += "@emu.function\ndef typed(context, event: Sum) -> int:\n    return event.x + event.y\n"
    code += "@emu.function(streaming=True)\ndef words(context, event):\n    yield from ['a', 'b']\n"
    assert notebook.kernel.run(f"{code}print(emu.call('typed', {{'x': 1}}), emu.call('words'))") == "3 ['a', 'b']"


@pytest.mark.parametrize("call", ["%cmemu call slow", "await emu.submit('slow')"])
def test_a_cell_that_waits_says_why_in_one_output_which_is_empty_in_the_end(
    notebook: Notebook, tmp_path: Path, call: str
) -> None:
    kernel, going = notebook.kernel, tmp_path / "going"
    code = "import time\nfrom cmemu_nb.calls import wait_line\n"
    code += "wait_line.PATIENCE_SECONDS = wait_line.UPDATE_SECONDS = 0.2\n"
    code += f"from pathlib import Path\n@emu.function\ndef slow(context, event):\n    going = Path({str(going)!r})\n"
    kernel.run(f"{code}    while not going.exists(): time.sleep(0.01)\n    return 'done'")
    cell = kernel.send(call)
    wait_until(lambda: len(cell.updates) > 1, "an update of what it shows")
    going.touch()
    kernel.finish(cell)
    wait_until(lambda: "'done'" in cell.text, "the result")
    assert (cell.updates[-1], cell.text.count("No result for"), cell.status) == ("", 1, "ok")
    why = "s. 'slow' has been running for "
    assert all(why in each for each in (cell.text, cell.html[0], *cell.updates[:-1]))
    kernel.run("wait_line.PATIENCE_SECONDS, wait_line.UPDATE_SECONDS = 2.0, 1.0")


# Errors


@IN_ONE_KERNEL
def test_an_error_points_at_the_cell_s_own_line(notebook: Notebook) -> None:
    number = next_cell(notebook)
    notebook.kernel.run("# a comment\n@emu.function\ndef fails(context, event):\n    return event['x'] / 0")
    said = attempt(notebook, "emu.call('fails', {'x': 1})")
    assert "FunctionError: ZeroDivisionError: division by zero" in said
    assert f"Cell In[{number}], line 4, in fails\n    return event['x'] / 0" in said
    assert "/tmp/ipykernel" not in said.replace("\\", "/")


@IN_ONE_KERNEL
def test_an_error_points_at_the_line_of_a_cell_with_a_magic(notebook: Notebook) -> None:
    number = next_cell(notebook)
    notebook.kernel.run("%%cmemu_functions\n\ndef fails_too(context, event):\n    return event['x'] / 0\n#")
    said = attempt(notebook, "emu.call('fails_too', {'x': 1})")
    assert f"Cell In[{number}], line 4, in fails_too\n    return event['x'] / 0" in said


# Running a cell again


@IN_ONE_KERNEL
def test_running_the_cell_again_serves_the_change(notebook: Notebook) -> None:
    cell = "@emu.function\ndef changed(context, event):\n    return {}\nprint(emu.call('changed'))"
    assert notebook.kernel.run(cell.format("'one'")) == "one"
    assert notebook.kernel.run(cell.format("'two'")) == "two"
    assert notebook.kernel.run("print(emu.functions['changed'])").startswith("<changed v2 on 'notebook'")


def test_a_cell_with_a_syntax_error_keeps_the_last_good_version_and_says_so(notebook: Notebook) -> None:
    notebook.kernel.run("@emu.function\ndef solid(context, event):\n    return 1")
    for broken in ("@emu.function\ndef solid(context, event):\n    return (", "def solid(context, event)\n    pass"):
        said = attempt(notebook, broken)
        assert "SyntaxError" in said
        assert "Still served: solid v1." in said
    assert notebook.kernel.run("print(emu.call('solid'))") == "1"


def test_a_magic_cell_with_a_syntax_error_keeps_the_last_good_versions_and_says_so(notebook: Notebook) -> None:
    notebook.kernel.run("%%cmemu_functions\ndef firm(context, event):\n    return 1\n")
    said = attempt(notebook, "%%cmemu_functions\ndef firm(context, event):\n    return (\n")
    assert "UsageError: %%cmemu_functions: syntax error in line 3" in said
    assert "Still served: firm v1." in said
    assert notebook.kernel.run("print(emu.call('firm'))") == "1"


@IN_ONE_KERNEL
def test_a_refused_signature_keeps_the_last_good_version_and_says_so(notebook: Notebook) -> None:
    notebook.kernel.run("@emu.function\ndef picky(context, event):\n    return 1")
    for cell in (
        "@emu.function\ndef picky(context, event: dict): ...",
        "%%cmemu_functions\nasync def picky(c, e): ...",
    ):
        said = attempt(notebook, cell)
        assert "picky can't be served" in said
        assert "picky v1 is still served." in said
    assert notebook.kernel.run("print(emu.call('picky'))") == "1"


@IN_ONE_KERNEL
def test_a_magic_cell_that_raises_in_the_middle_keeps_everything(notebook: Notebook) -> None:
    notebook.kernel.run("%%cmemu_functions\ndef kept(context, event):\n    return 1\n#")
    said = attempt(notebook, "%%cmemu_functions\ndef kept(context, event):\n    return 2\n1 / 0\ndef more(c, e): ...")
    assert "ZeroDivisionError" in said
    assert notebook.kernel.run("print(emu.call('kept'), 'more' in emu.functions)") == "1 False"


# %%cmemu_functions


def test_a_magic_cell_serves_its_functions_but_not_its_helpers(notebook: Notebook) -> None:
    cell = "%%cmemu_functions\nimport math\nclass Box:\n    pass\ndef _helper(x):\n    return math.floor(x)\n"
    cell += "def use(context, event):\n    return _helper(event['x'])\ndef flow(context, event):\n    yield 'a'\n"
    said = attempt(notebook, cell)
    assert "Served: use v1, flow v1." in said
    code = "print(emu.call('use', {'x': 1.5}), emu.call('flow'), math.pi > 3, Box.__name__, '_helper' in emu.functions)"
    assert notebook.kernel.run(code) == "1 ['a'] True Box False"


@IN_ONE_KERNEL
def test_a_magic_cell_for_a_chosen_runtime(notebook: Notebook) -> None:
    notebook.kernel.run("other = emu.open_runtime('other', deployed_app_rid='ri.other')")
    attempt(notebook, "%%cmemu_functions other\ndef elsewhere(context, event):\n    return 'other'\n")
    assert notebook.kernel.run("print(emu.call('elsewhere'), emu.functions['elsewhere'].runtime_id)") == "other other"


@IN_ONE_KERNEL
def test_a_magic_cell_for_an_unknown_runtime_is_one_clear_sentence(notebook: Notebook) -> None:
    said = attempt(notebook, "%%cmemu_functions nowhere\ndef lost(context, event):\n    return 1\n")
    assert "UsageError: %%cmemu_functions: There is no runtime 'nowhere'." in said
    assert "Known runtimes: " in said
    assert "Traceback" not in said
    assert notebook.kernel.run("print('lost' in emu.functions)") == "False"


@IN_ONE_KERNEL
def test_of_a_magic_cell_all_is_served_or_nothing(notebook: Notebook) -> None:
    said = attempt(notebook, "%%cmemu_functions\ndef good(context, event): ...\ndef bad(context, event: str): ...\n")
    assert "UsageError: %%cmemu_functions: bad can't be served" in said
    assert notebook.kernel.run("print('good' in emu.functions, 'bad' in emu.functions)") == "False False"


@IN_ONE_KERNEL
def test_a_magic_cell_that_deletes_a_function_again_serves_the_others(notebook: Notebook) -> None:
    cell = "%%cmemu_functions\ndef fleeting(context, event): ...\ndel fleeting\ndef remaining(context, event): ...\n"
    assert "Served: remaining v1." in attempt(notebook, cell)


@IN_ONE_KERNEL
def test_a_magic_cell_keeps_what_a_function_s_own_decorator_says(notebook: Notebook) -> None:
    notebook.kernel.run(
        "import functools\ndef wrapping(function):\n    @functools.wraps(function)\n"
        "    def wrapper(*arguments):\n        return function(*arguments)\n    return wrapper"
    )
    cell = "%%cmemu_functions\n@emu.function(streaming=True)\n@wrapping\ndef flowing(context, event):\n    yield 'a'\n"
    assert "Served: flowing v1." in attempt(notebook, cell)
    assert notebook.kernel.run("print(emu.call('flowing'))") == "['a']"


@IN_ONE_KERNEL
def test_the_line_of_a_magic_cell_that_can_t_be_read_is_one_clear_sentence(notebook: Notebook) -> None:
    said = attempt(notebook, '%%cmemu_functions "notebook\ndef unread(context, event): ...\n')
    assert "UsageError: %%cmemu_functions: the line can't be parsed (No closing quotation). Close the quotes." in said


# What functions print


TALK = (
    "import logging, sys, threading\nbarrier = threading.Barrier({0})\n@emu.function\ndef talk(context, event):\n"
    "    barrier.wait(10)\n    for n in range(20):\n        print(event['who'], n)\n"
    "        logging.getLogger('mine').warning('%s warns', event['who'])\n"
    "        print(event['who'], 'errs', file=sys.stderr)\n    barrier.wait(10)\n    return event['who']\n"
)


def test_what_four_functions_print_at_once_is_in_their_logs_and_in_no_cell(notebook: Notebook) -> None:
    notebook.kernel.run("import logging; logging.basicConfig(format='%(message)s', force=True)")
    code = "jobs = [emu.submit('talk', {'who': who}) for who in 'abcd']\nprint('in the cell')\n"
    code += "print([job.result() for job in jobs])"
    assert notebook.kernel.run(TALK.format(4) + code) == "in the cell\n['a', 'b', 'c', 'd']"
    wanted = ["".join(f"{who} {n}\n{who} warns\n{who} errs\n" for n in range(20)) for who in "abcd"]
    assert json.loads(notebook.kernel.run("import json; print(json.dumps([job.logs for job in jobs]))")) == wanted


def test_a_function_that_outlasts_its_cell_prints_into_its_log_and_into_no_other_cell(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(
        "import threading\nended = threading.Event()\n@emu.function\ndef chatter(context, event):\n    lines = 0\n"
        "    while not ended.wait(0.001):\n        print('chatter')\n        lines += 1\n    return lines\n"
        "job = emu.submit('chatter')"
    )
    assert {kernel.run("print('mine')") for _ in range(30)} == {"mine"}
    lines = kernel.run("ended.set(); print(job.result() == job.logs.count('chatter'), len(job.logs) > 100)")
    assert lines == "True True"


def test_capture_does_not_get_what_a_function_prints(notebook: Notebook) -> None:
    notebook.kernel.run(TALK.format(1))
    attempt(notebook, "%%capture captured\nprint('mine')\njob = emu.submit('talk', {'who': 'a'})\njob.result()")
    assert (
        notebook.kernel.run("print(repr(captured.stdout), captured.stderr, job.logs.count('a 1'))") == r"'mine\n'  11"
    )


def test_what_the_threads_of_a_function_print_is_in_its_log(notebook: Notebook) -> None:
    code = (
        "import threading\nfrom concurrent.futures import ThreadPoolExecutor\n@emu.function\n"
        "def parental(context, event):\n    def child():\n        print('child')\n"
        "        inner = threading.Thread(target=print, args=['grandchild'])\n        inner.start()\n"
        "        inner.join()\n    with ThreadPoolExecutor(1) as pool:\n        pool.submit(child).result()\n"
        "start = threading.Thread.start\njob = emu.submit('parental')\njob.result()\n"
    )
    assert notebook.kernel.run(f"{code}print(repr(job.logs))") == r"'child\ngrandchild\n'"
    wait_until(lambda: notebook.kernel.run("print(threading.Thread.start is start)") == "True", "nothing left behind")
    assert notebook.kernel.run("emu.call('parental', echo=True)").startswith("child\ngrandchild")


SLOW = (
    "import threading\ngo = threading.Event()\n@emu.function\ndef slow(context, event):\n    print('first')\n"
    "    go.wait(20)\n    print('second')\n    return 'done'\n@emu.function\ndef release(context, event): go.set()"
)


@pytest.mark.parametrize(
    "call",
    ["%cmemu call slow --echo", "print(emu.call('slow', echo=True))", "print(await emu.acall('slow', echo=True))"],
)
def test_an_echo_appears_under_its_cell_while_the_function_runs(notebook: Notebook, call: str) -> None:
    notebook.kernel.run(SLOW)
    with running_cell(notebook.kernel, call, says="first") as cell:
        assert "second" not in cell.text
    call_from_outside(notebook, "release")
    notebook.kernel.finish(cell)
    wait_until(lambda: "done" in cell.text, "its result")
    assert cell.text.split()[:4] == ["begun", "first", "second", "done"] or cell.text.split()[-1] == "'done'"


def test_a_magic_cell_echoes_what_its_functions_print_under_itself(notebook: Notebook) -> None:
    notebook.kernel.run(SLOW)
    defining = notebook.kernel.send(
        "%%cmemu_functions --echo\ndef chatty(c, e):\n    print('hello')\n    go.wait(20)\n"
    )
    notebook.kernel.finish(defining)
    with running_cell(notebook.kernel, "emu.call('chatty')") as calling:
        wait_until(lambda: "hello" in defining.text, "the echo")
    call_from_outside(notebook, "release")
    notebook.kernel.finish(calling)
    notebook.kernel.run("pass")
    assert "hello" not in calling.text


# Functions that never return


@IN_BOTH_HOMES
def test_a_function_that_never_returns_is_failed_by_hand_and_the_executor_goes_on(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(
        f"{HANGING}\n@emu.function\ndef quick(context, event): return 1\njobs = [emu.submit('hang') for _ in range(4)]"
    )
    wait_until(lambda: kernel.run("print(emu.functions['hang'].running)") == "4", "all slots are taken")
    kernel.run("waiting = emu.submit('quick')")
    assert "running for" in attempt(notebook, "jobs[0]")
    assert kernel.run("print([str(job.status) for job in jobs] == ['running'] * 4, waiting.status)") == "True queued"
    for number in range(4):
        ident = kernel.run(f"print(jobs[{number}].id)")
        assert "failed" in attempt(notebook, f"%cmemu fail {ident} it hangs")
    assert kernel.run("print(waiting.result(10), jobs[0].record.error_message)") == "1 it hangs"
    cell = kernel.finish(kernel.send("emu.functions"))
    wait_until(lambda: cell.html, "the listing")
    assert "0 (+ 4 abandoned)" in "".join(cell.html)
    kernel.run("gate.set()")
    wait_until(lambda: kernel.run("print(emu.functions['hang'].abandoned)") == "0", "the threads end")


@pytest.mark.parametrize(
    "wait",
    [
        "emu.call('stuck')",
        "await emu.acall('stuck')",
        "emu.map('stuck', [{}] * 100)",
        "await emu.amap('stuck', [{}] * 100)",
        "emu.submit('stuck').result()",
    ],
)
def test_interrupting_a_cell_that_waits_for_a_function_leaves_kernel_and_executor_alive(
    notebook: Notebook, wait: str
) -> None:
    kernel = notebook.kernel
    kernel.run(HANGING.replace("hang(", "stuck("))
    with running_cell(kernel, wait) as cell:
        notebook.wait_for_job("running", "notebook")
    kernel.interrupt()
    # asyncio's name for it in a cell that awaits is CancelledError.
    assert (kernel.finish(cell).error or "").startswith(("KeyboardInterrupt", "CancelledError"))
    kernel.run("gate.set()\nwhile emu.functions['stuck'].running: pass")
    assert kernel.run("print(emu.call('stuck'))") == "late"


def test_an_interrupt_that_does_not_wake_the_waiting_thread_is_noticed_all_the_same(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(HANGING.replace("hang(", "asleep("))
    # Delivered to another thread it leaves the waiting one asleep, as one does that comes just before it falls asleep.
    other = "threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()"
    kernel.run(f"import signal\ndef interrupt():\n    {other}\n")
    code = "while not emu.functions['asleep'].running: pass\ninterrupt()"
    kernel.run(f"threading.Thread(target=exec, args=({code!r}, globals())).start()")
    assert "KeyboardInterrupt" in attempt(notebook, "emu.call('asleep')")
    kernel.run("gate.set()")


# Functions that ask

ASKING = """
import builtins, contextlib, getpass, pdb, sys, threading
from getpass import getpass as getpass_of_before
before = builtins.input, getpass.getpass, pdb.Pdb.set_trace

def in_a_thread():
    seen = []
    def ask():
        try: input()
        except EOFError as error: seen.append(str(error))
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return seen[0]

KINDS = {
    "input": lambda: input("who? "),
    "getpass": lambda: getpass.getpass(),
    "getpass imported before": lambda: getpass_of_before(),
    "pdb": lambda: pdb.set_trace(),
    "a thread of the function": in_a_thread,
    "stdin": lambda: sys.stdin.read() + sys.stdin.readline(),
    "breakpoint": lambda: breakpoint(),
}

@emu.function
def asks(context, event):
    try: return KINDS[event["how"]]()
    except EOFError as error: return str(error)
"""


def test_a_function_that_asks_raises_a_sentence_and_the_browser_is_not_asked(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(ASKING)
    cell = kernel.send("answers = {how: emu.call('asks', {'how': how}, timeout=20) for how in KINDS}\nprint(answers)")
    kernel.finish(cell)
    kernel.run("pass")
    assert not cell.asked_input
    assert cell.error is None
    answers = json.loads(kernel.run("import json; print(json.dumps(answers))"))
    assert {how for how, said in answers.items() if "in a function has no user to ask" in (said or "")} >= {
        *("input", "getpass", "getpass imported before", "pdb", "a thread of the function"),
    }
    assert answers["stdin"] == ""
    same = "(builtins.input, getpass.getpass, pdb.Pdb.set_trace) == before"
    wait_until(lambda: kernel.run(f"print({same})") == "True", "everything is as it was")


def test_a_cell_asks_while_a_function_runs(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(HANGING.replace("hang(", "beside("))
    kernel.run("job = emu.submit('beside')\nwhile not emu.functions['beside'].running: pass")
    cell = kernel.send("print('hello', input('who? '))")
    wait_until(lambda: cell.asked_input, "the question")
    kernel.answer("you")
    kernel.finish(cell)
    assert "hello you" in cell.text
    kernel.run("gate.set(); job.result()")


# The SDK's own annotations


@IN_ONE_KERNEL
def test_the_sdk_s_own_decorator_serves(notebook: Notebook) -> None:
    assert notebook.kernel.run(f"{APP_PY}\nprint(emu.call('app_add', {{'x': 1, 'name': 'ab'}}))") == "3"
    code = "print(emu.call('app_count', {'n': 2}), app_add({}, AppPayload(1, 'a')))"
    assert notebook.kernel.run(code) == "[{'n': 0}, {'n': 1}] 2"


@IN_ONE_KERNEL
def test_a_magic_cell_of_the_sdk_s_functions_serves_each_once(notebook: Notebook) -> None:
    said = attempt(notebook, "%%cmemu_functions\n" + APP_PY.replace("app_", "magic_"))
    assert "Served: magic_add v1, magic_count v1." in said
    assert notebook.kernel.run("print(emu.call('magic_count', {'n': 1}))") == "[{'n': 0}]"


# Maps


@IN_BOTH_HOMES
def test_a_map_of_a_thousand_jobs_leaves_no_thread_and_no_task_behind(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run("@emu.function\ndef square(context, event):\n    return event['x'] ** 2\n" + LEFT)
    kernel.run("before = (emu.map('square', [{'x': 1}] * 20, progress=False), left())[1]")
    shown = attempt(notebook, "frame = emu.map('square', [{'x': x} for x in range(1000)])")
    assert "IntProgress" in shown
    assert kernel.run("print(list(frame.value) == [x ** 2 for x in range(1000)], set(frame.outcome))").startswith(
        "True"
    )
    wait_until(lambda: kernel.run("print(left() <= before, left(), before)").startswith("True"), "tasks and threads")


@IN_ONE_KERNEL
def test_a_map_shows_no_progress_where_nobody_wants_it(notebook: Notebook) -> None:
    notebook.kernel.run("@emu.function\ndef same(context, event):\n    return event['x']")
    call = "emu.map('same', [{{'x': 1}}, {{'x': 2}}]{})"
    assert "IntProgress" in attempt(notebook, call.format(""))
    assert "IntProgress" not in attempt(notebook, call.format(", progress=False"))
    code = f"import os; os.environ['CI'] = 'true'; {call.format('')}; del os.environ['CI']"
    assert "IntProgress" not in attempt(notebook, code)
    assert "IntProgress" in attempt(notebook, "await " + call.format("").replace(".map", ".amap"))


@IN_BOTH_HOMES
def test_running_the_defining_cell_again_in_the_middle_of_a_thousand_jobs_loses_none(notebook: Notebook) -> None:
    kernel = notebook.kernel
    cell = "@emu.function\ndef busy(context, event):\n    time.sleep(0.001)\n    return [{}, event['x']]"
    kernel.run(f"import asyncio, time\n{cell.format(1)}")
    kernel.run("mapped = asyncio.ensure_future(emu.amap('busy', [{'x': x} for x in range(1000)], progress=False))")
    for version in range(2, 6):
        kernel.run(cell.format(version))
    kernel.run("frame = await mapped")
    assert kernel.run("print([x for _, x in frame.value] == list(range(1000)), set(frame.outcome))").startswith("True")
    assert int(kernel.run("print(len({version for version, _ in frame.value}))")) > 1


@IN_BOTH_HOMES
def test_a_map_whose_runtime_is_deleted_meanwhile_says_so_in_one_sentence(notebook: Notebook) -> None:
    notebook.kernel.run(
        "import time\nshort = emu.open_runtime('short', deployed_app_rid='ri.short')\n@short.function\n"
        "def ended(context, event):\n    if event['x'] == 50: short.delete()\n"
    )
    said = attempt(notebook, "emu.map('ended', [{'x': x} for x in range(100)], 'ri.short')")
    assert "NotFound: No active compute-module runtime is bound to 'ri.short'." in said
    assert "ExceptionGroup" not in said


# Magics


@IN_ONE_KERNEL
def test_the_magics_of_functions(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run(
        "@emu.function\ndef noted(context, event):\n    print('a note')\n    return 1\njob = emu.submit('noted')"
    )
    kernel.run("job.result()")
    assert "noted v1" in attempt(notebook, "%cmemu functions")
    assert attempt(notebook, f"%cmemu logs {kernel.run('print(job.id)')}").strip() == "a note"


@IN_ONE_KERNEL
def test_exporting_a_module(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run("for each in list(emu.functions): emu.functions.remove(each.name, each.runtime_id)")
    kernel.run("import math\n@emu.function\ndef floor(context, event):\n    return math.floor(event['x'])")
    assert "Wrote 1 function to" in attempt(notebook, "%cmemu export-module exported.py")
    text = (kernel.folder / "exported.py").read_text()
    assert "import math" in text
    assert "@function\ndef floor(context, event):" in text
    assert "exists and was left as it is. --force" in attempt(notebook, "%cmemu export-module exported.py")
    assert "Wrote" in attempt(notebook, "%cmemu export-module exported.py --force")
    kernel.run("state = open('/dev/null')\n@emu.function\ndef stateful(context, event):\n    return state.read()")
    said = attempt(notebook, "%cmemu export-module exported.py --force")
    assert "stateful uses 'state'" in said
    assert (kernel.folder / "exported.py").read_text() == text


@IN_ONE_KERNEL
def test_reloading_and_autoreload_keep_functions_served(notebook: Notebook) -> None:
    kernel = notebook.kernel
    kernel.run("@emu.function\ndef lasting(context, event):\n    print('still')\n    return 1")
    kernel.run("%reload_ext cmemu_nb")
    assert kernel.run("print(emu.call('lasting'))") == "1"
    kernel.run("%load_ext autoreload\n%autoreload 2")
    for file in Path(cmemu_nb.__file__).parent.rglob("*.py"):
        if file.name != "__init__.py":
            file.touch()
    kernel.run("pass")
    assert kernel.run("job = emu.submit('lasting'); print(job.result(), repr(job.logs))") == r"1 'still\n'"
    kernel.run("@emu.function\ndef lasting(context, event):\n    return 2")
    assert kernel.run("print(emu.call('lasting'), emu.functions['lasting'].version)") == "2 2"
    kernel.run("%autoreload 0")


# Without an emulator, and the kernel's end


def test_without_an_emulator_the_sdk_s_decorator_says_what_to_type_and_unloading_gives_it_back(tmp_path: Path) -> None:
    kernel = Kernel(kernel_python("7.4"), tmp_path)
    try:
        kernel.run("%load_ext cmemu_nb")
        cell = kernel.finish(kernel.send(APP_PY))
        assert "no emulator is running. Type %cmemu start, and run this again." in (cell.error or "")
        kernel.run("%cmemu start --port 0")
        kernel.run(APP_PY)
        kernel.run("%unload_ext cmemu_nb")
        code = "from compute_modules.function_registry import function_registry as registry\n"
        code += "import compute_modules.startup\nprint(list(registry.REGISTERED_FUNCTIONS), "
        code += "compute_modules.startup.DISABLE_STARTUP, registry.add_function.__module__)"
        assert kernel.run(APP_PY + code) == (
            "['app_add', 'app_count'] False compute_modules.function_registry.function_registry"
        )
        kernel.run("%load_ext cmemu_nb")
    finally:
        assert kernel.close() == 0


@pytest.mark.parametrize(("version", "home"), [("7.4", "kernel"), ("6.30", "kernel"), ("7.4", "thread")])
def test_the_kernel_ends_promptly_while_functions_run(version: str, home: str, tmp_path: Path) -> None:
    with open_notebook(version, home, tmp_path) as notebook:
        notebook.kernel.run(f"{APP_PY}{HANGING}\n[emu.submit('hang') for _ in range(9)]")
        notebook.kernel.run("while emu.functions['hang'].running < 4: pass")
        # Negative if it had to be killed.
        assert notebook.kernel.close() == 0
        assert "Traceback" not in notebook.kernel.stderr()
