"""The start cell and the stop cell, interrupted at any moment: either the emulator has its name, or there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import moments
import pytest
from environments import kernel_python
from kernels.driver import Kernel, cell_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernels

BEFORE = """
%load_ext cmemu_nb
import asyncio, contextlib, os, signal, socket, sys, threading, urllib.request, warnings
from cmemu_nb.display.names import emulators
warnings.simplefilter("ignore")  # interrupted before it begins, a coroutine is never awaited
shell = get_ipython()

def start(): shell.run_line_magic("cmemu", "start --port 0" + OPTIONS)
def stop(): shell.run_line_magic("cmemu", "stop")

def quietly(act):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        act()

def held():
    threads = [each.name for each in threading.enumerate() if each.name.startswith("cmemu")]
    files = sorted(os.readlink(f"/proc/self/fd/{each}").split(":")[0] for each in os.listdir("/proc/self/fd")
                   if os.path.exists(f"/proc/self/fd/{each}"))
    callbacks = [len(shell.events.callbacks[each]) for each in ("pre_run_cell", "post_run_cell")]
    return threads, [each for each in files if each in ("socket", "pipe", "anon_inode")], callbacks

def check_all_or_nothing(before):
    running = {name: each for name, each in emulators().items() if each.running}
    assert len(running) <= 1, running
    for name, each in running.items():
        assert urllib.request.urlopen(each.url + "/_emulate/health", timeout=10).status == 200
        shell.run_line_magic("cmemu", f"stop --name {name}")
    assert held() == before, (held(), before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

def exposed(act):
    files = set()
    def look(frame, *_):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            files.add(os.path.basename(frame.f_code.co_filename))
        return look
    sys.settrace(look)
    try: act()
    finally: sys.settrace(None)
    return files

def spread(count, most=60):
    return sorted({*range(10), *range(count - 40, count), *range(0, count, max(1, count // most))})
"""
START = """
start(); stop()
before, moments = held(), moments_of(start)
stop()
for number in spread(moments):
    quietly(lambda: interrupted_at(number, start))
    check_all_or_nothing(before)
print("moments", moments)
"""
STOP = """
start()
moments = moments_of(stop)
for number in spread(moments):
    start()
    quietly(lambda: interrupted_at(number, stop))
    check_all_or_nothing(before)
start()
print("works", urllib.request.urlopen(emu.url + "/_emulate/health").status)
"""
# A dozen threads never stop calling while the emulator starts and stops. Of tasks, coroutines and sockets that are left
# behind Python complains in its logs and its hook.
CALLS = """
import gc, logging, time
from cmemu_nb.errors import CmemuError
complaints, done = [], False

class Complaints(logging.Handler):
    def emit(self, record): complaints.append(record.getMessage())

def call_until_done(number):
    calls = [lambda: emu.call("double", {"n": 1}, timeout=5), lambda: emu.submit("double", {}),
             lambda: emu.map("double", [{}] * 3), lambda: list(emu.stream("double")),
             lambda: emu.change(lambda lifecycle: None), lambda: asyncio.run(emu.acall("double", {}))]
    while not done:
        number += 1
        try:
            calls[number % len(calls)]()
        except CmemuError:
            pass
        except BaseException as error:
            complaints.append(repr(error))

def descriptors():  # ipykernel has others, for each thread that prints
    files = [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{each}")]
    return sum(each.startswith(("pipe:", "anon_inode:[eventpoll]")) for each in files)

@emu.function
def double(context, event): return 2

handler = Complaints(logging.ERROR)
logging.getLogger().addHandler(handler)
before, sys.unraisablehook = sys.unraisablehook, lambda args: complaints.append(repr(args.exc_value))
threads = [threading.Thread(target=call_until_done, args=(each,)) for each in range(12)]
with warnings.catch_warnings(action="error"):
    for each in threads: each.start()
    for each in range(10):
        time.sleep(0.01 * each)
        emu.stop(); emu.start()
    done = True
    for each in threads: each.join(20)
    emu.stop()
    gc.collect()
sys.unraisablehook = before
logging.getLogger().removeHandler(handler)
emu.start()
print([each.name for each in threads if each.is_alive()], complaints, emu.call("double", {}))
"""
# Another thread stops the emulator while a cell keeps the kernel's loop busy for longer than that thread waits for it.
STOP_ELSEWHERE = """
stopping = threading.Thread(target=emu.stop)
stopping.start()
end = time.monotonic() + 1.5
while time.monotonic() < end: sum(range(1000))
stopping.join()
"""
# The kernel's loop hears of sockets that have the numbers of the emulator's descriptors.
AFTERWARDS = """
loop, pairs = asyncio.get_running_loop(), [socket.socketpair() for _ in range(20)]
for pair in pairs: pair[0].setblocking(False)
heard = asyncio.gather(*(loop.sock_recv(pair[0], 1) for pair in pairs))
await asyncio.sleep(0)
for pair in pairs: pair[1].send(b"!")
heard = await asyncio.wait_for(heard, 10)
for each in sum(pairs, ()): each.close()
print(len(heard), descriptors() == before, emu.start().call("double", {}), await emu.acall("double", {}))
"""
ORPHAN = """
from cmemu_nb import Emulator
stop()
Emulator(port=0).start() and None
"""


@pytest.fixture(params=["", " --thread"], ids=["kernel", "thread"])
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kernel]:
    opened = Kernel(kernel_python("7.4"), tmp_path)
    try:
        opened.run(cell_of(moments))
        opened.run(f"OPTIONS = {request.param!r}{BEFORE}")
        yield opened
    finally:
        opened.close()


def test_calls_that_meet_a_stop_leave_nothing_behind(kernel: Kernel) -> None:
    kernel.run("start()")
    assert kernel.run(CALLS, 90).splitlines()[-1] == "[] [] 2"
    kernel.run("emu.stop()\nbefore = descriptors()\nemu.start() and None")
    kernel.run(STOP_ELSEWHERE, 30)
    assert kernel.run(AFTERWARDS) == "20 True 2 2"


def test_start_and_stop_cells_can_be_interrupted_at_any_moment(kernel: Kernel) -> None:
    assert "moments" in kernel.run(START, 90)
    # An interrupt while ipykernel flushes its streams could make it take its output thread for dead.
    kernel.run("stop()\nfiles = exposed(start)\nstop()")
    assert kernel.run("print('magics.py' in files, 'iostream.py' in files)") == "True False"
    assert "works 200" in kernel.run(STOP, 90)
    # What was interrupted before its variable had it is found by the magics, too.
    kernel.run(ORPHAN)
    assert kernel.run("print([name for name, each in emulators().items() if each.running])").startswith("['emu_")
    name = "next(name for name, each in emulators().items() if each.running)"
    assert "is stopped" in kernel.run(f'shell.run_line_magic("cmemu", "stop --name " + {name})')
