"""A dozen threads define, call, remove, reset, start and stop at once, interrupted and short of threads.

Nothing hangs, no result is wrong, every job ends, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cells import make
from client import eventually

from cmemu_nb import Emulator
from cmemu_nb.errors import CmemuError, StopWarning
from cmemu_nb.eventloop import home

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.calls.handles import JobHandle
    from cmemu_nb.lifecycle.events import Event

SEED = int(os.environ.get("SEED", "20261130"))
SECONDS = 180.0 if os.environ.get("CMEMU_LONG") else 4.0
PATIENCE = 60.0
THREADS = 11  # and the main thread, the only one that can be interrupted
OFTEN = 0.05  # how often an act that ends many others does what it is called
NAMES = ("one", "two", "three")
SOURCE = "def {name}(context, event):\n    return event['n']"
# The first is one that the SDK can't read, the second more than floats hold. Either ends its own job only.
ODD = ('{"n": ' + "9" * 5000 + "}", '{"n": 1e400}')
LOGGERS = ("asyncio", "concurrent", "tornado")  # what they say is about tasks, futures and connections left behind
FAULTS = ("internal_error", "listener_failed", "executor_restarted")
NO_THREAD = "can't start new thread"

pytestmark = [
    pytest.mark.timeout(SECONDS + 3 * PATIENCE),
    pytest.mark.once,
    # What an interrupt hits in the moment before it begins; they are counted.
    pytest.mark.filterwarnings("always:coroutine .* was never awaited:RuntimeWarning"),
    # Whatever has taken a port meanwhile.
    pytest.mark.filterwarnings("ignore:.*is in use:UserWarning"),
]


class Chaos:
    """What the threads do to one emulator; `wrong` has every result that is wrong, and every error of another's."""

    def __init__(self, emu: Emulator, seed: int) -> None:
        self.emu = emu
        self.wrong: list[str] = []
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.jobs: list[JobHandle] = []
        self.interrupts = 0
        self._chance = random.Random(seed)
        self._end = 0.0
        self.acts: list[Callable[[random.Random], object]] = [
            *[self.call, self.call, self.call, self.submit, self.submit, self.odd, self.define, self.define],
            *[self.remove, self.reset, self.start, self.start, self.stop, self.many, self.stream],
        ]

    # What they do

    def call(self, chance: random.Random) -> None:
        self._check(sent := chance.randrange(10**9), self.emu.call(chance.choice(NAMES), {"n": sent}, timeout=5))

    def stream(self, chance: random.Random) -> None:
        sent = chance.randrange(10**9)
        self._check([sent], list(self.emu.stream(chance.choice(NAMES), {"n": sent}, validate=False)))

    def many(self, chance: random.Random) -> None:
        sent = [chance.randrange(10**9) for _ in range(3)]
        rows = self.emu.map(chance.choice(NAMES), [{"n": each} for each in sent], progress=False)
        for number, outcome, value in zip(sent, rows.outcome, rows.value, strict=True):
            self._check(number, value if outcome == "ok" else number)

    def _check(self, sent: object, got: object) -> None:
        if got != sent:
            self.wrong.append(f"sent {sent}, got {got!r}")

    def submit(self, chance: random.Random) -> None:
        self.jobs.append(self.emu.submit(chance.choice(NAMES), {"n": 1}))

    def odd(self, chance: random.Random) -> None:
        self.jobs.append(self.emu.submit(chance.choice(NAMES), msgspec.Raw(chance.choice(ODD).encode())))

    def define(self, chance: random.Random) -> None:
        self.emu.function(make(SOURCE.format(name=chance.choice(NAMES))))

    def remove(self, chance: random.Random) -> None:
        self.emu.functions.remove(chance.choice(NAMES))

    def reset(self, chance: random.Random) -> None:
        how = chance.random()
        if how < OFTEN:
            self.emu.reset()
        elif how < 2 * OFTEN:
            self.emu.runtime("notebook").reset()

    def start(self, _: random.Random) -> None:
        self.emu.start()

    def stop(self, chance: random.Random) -> None:
        if chance.random() < OFTEN:
            self.emu.stop()

    # What happens to them

    def slow(self, _: Event) -> None:
        """Let the emulator's loop, and a stop that waits for it, take some time now and then."""
        if self._chance.random() < 0.002:
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Interrupt the main thread, again and again."""
        main, chance = threading.main_thread().ident or 0, random.Random(self._chance.random())
        while time.monotonic() < self._end and not self.wrong:
            time.sleep(chance.uniform(0, 0.2))
            self.interrupts += 1
            signal.pthread_kill(main, signal.SIGINT)

    def run(self) -> None:
        """Let all of them run; a thread that does not come back in time fails the test with every thread's stack."""
        self._end = time.monotonic() + SECONDS
        threads = [threading.Thread(target=self._act, args=(each,), daemon=True) for each in range(THREADS)]
        interrupting = threading.Thread(target=self.interrupt, daemon=True)
        with self._some_threads_fail():
            for thread in (*threads, interrupting):
                thread.start()
            while interrupting.is_alive():
                with contextlib.suppress(KeyboardInterrupt):
                    self._act(THREADS)
                    interrupting.join()
            for thread in threads:
                thread.join(max(0.0, self._end + PATIENCE - time.monotonic()))
        assert not [each for each in threads if each.is_alive()], f"hangs:\n{stacks()}"

    def _act(self, number: int) -> None:
        chance = random.Random(self._chance.random() + number)
        while time.monotonic() < self._end and not self.wrong:
            act = chance.choice(self.acts)
            name = act.__name__
            try:
                act(chance)
                self.done[name] += 1
            except CmemuError as refusal:  # what meets a stop, a reset or a removal, in our own words
                self.refused[f"{name}: {type(refusal).__name__}"] += 1
            except KeyboardInterrupt:
                self.refused["interrupted"] += 1
            except StopWarning as warning:
                self.wrong.append(f"{name}: {warning}")
            except BaseException as error:  # noqa: BLE001
                if NO_THREAD not in str(error):
                    self.wrong.append(f"{name}: {traceback.format_exc()}")

    @contextlib.contextmanager
    def _some_threads_fail(self) -> Any:
        """Give the emulator no thread now and then, as a system does that has none left."""
        start, chance = threading.Thread.start, random.Random(self._chance.random())

        def start_or_fail(thread: threading.Thread) -> None:
            if thread.name.startswith("cmemu") and chance.random() < 0.03:
                raise RuntimeError(NO_THREAD)
            start(thread)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_or_fail)
            yield


def stacks() -> str:
    names = {each.ident: each.name for each in threading.enumerate()}
    frames: dict[int, Any] = sys._current_frames()  # noqa: SLF001 - there is no other way to see other threads
    return "\n".join(f"-- {names.get(number)}\n{''.join(traceback.format_stack(frames[number]))}" for number in frames)


def ended(job: JobHandle) -> bool:
    record = job.find()
    return record is None or record.finished  # None: thrown away by a reset


def serve_all(emu: Emulator) -> None:
    """Start, call every function, wait until every job ends, and stop.

    Done before all else it also imports what is needed: interrupted in the middle of an import, Python itself may keep
    a lock of the whole process for ever.
    """
    with emu:
        for name in NAMES:
            emu.function(make(SOURCE.format(name=name)))
        assert [emu.call(name, {"n": 7}, timeout=30) for name in NAMES] == [7, 7, 7]
        assert [list(emu.stream(name, {"n": 7})) for name in NAMES] == [[7], [7], [7]]
        assert list(emu.map("one", [{"n": 7}], progress=False).value) == [7]
        eventually(lambda: not emu.lifecycle.unfinished(), "every job ends")


def do_everything() -> Chaos:
    """Let all threads run, and check that all jobs have ended and that the emulator still serves."""
    chaos = Chaos(Emulator(port=0, tls_port=0, progress=False), seed=SEED)
    chaos.emu.lifecycle.events.subscribe(chaos.slow)
    serve_all(chaos.emu)
    chaos.run()
    assert chaos.wrong == []
    assert {act.__name__ for act in chaos.acts} <= set(chaos.done)
    serve_all(chaos.emu)
    assert all(map(ended, chaos.jobs))
    assert chaos.emu.lifecycle.unfinished() == []
    faults = [each for each in chaos.emu.lifecycle.events.recent() if each.kind in FAULTS]
    assert [each.detail for each in faults] == []
    return chaos


def test_a_dozen_threads_do_everything_at_once(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a thread of its own, and as a guest of the loop that runs here when the main thread starts the emulator."""
    loop = asyncio.new_event_loop()

    def kernel_loop() -> asyncio.AbstractEventLoop | None:
        return loop if threading.current_thread() is threading.main_thread() else None

    async def in_a_cell() -> Chaos:
        chaos = do_everything()
        await asyncio.sleep(0.01)  # as a kernel's loop turns after the cell
        return chaos

    monkeypatch.setattr(home, "_kernel_loop", kernel_loop)
    try:
        with caplog.at_level(logging.ERROR):
            chaos = loop.run_until_complete(in_a_cell())
    finally:
        loop.close()
    assert [each.getMessage() for each in caplog.records if each.name.startswith(LOGGERS)] == []
    unawaited = [str(each.message) for each in recwarn if "never awaited" in str(each.message)]
    assert len(unawaited) <= chaos.refused["interrupted"], unawaited
