"""Faults of the platform that are injected on purpose: the decision when they strike, and the handle for users.

This module knows no sockets: `server/fault_points.py` asks it, and lets the faults strike the requests.
"""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import TYPE_CHECKING, Self

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.lifecycle.events import ENDS_JOB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from cmemu_nb.engine.fault_arguments import Delay
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.records import Job

MAX_ENDED = 10_000


class _Call:
    """One call of a function: its number, and how often each fault was asked whether it strikes the call."""

    __slots__ = ("asked", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked: Counter[tuple[object, ...]] = Counter()


class Faults:
    """Injected faults, which are on until `off()` or the end of the `with` block.

    `struck` counts how often each fault has struck. Whether a fault strikes depends on the `seed`, the runtime, the
    function, the number of the call since the faults were set, and the attempt, but never on the order of requests.
    `chances` are probabilities from 0 to 1, by name; `delay` is in seconds. `runtime_id` and `function` are None if the
    faults concern every runtime or function, and `on` says whether they still strike.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        end: Callable[[Faults], None],
        chances: Mapping[str, float],
        delay: Delay | None,
        *,
        runtime_id: str | None,
        function: str | None,
        seed: int,
    ) -> None:
        self.chances = chances
        self.delay = delay
        self.runtime_id = runtime_id
        self.function = function
        self.seed = seed
        self.on = False
        self.struck: Counter[str] = Counter()
        self._lifecycle = lifecycle
        self._end = end
        self._calls: dict[str, _Call] = {}
        # The results of ended calls may still be unanswered, so the most recently ended calls are kept.
        self._ended: deque[str] = deque()
        self._submitted: Counter[tuple[str, str]] = Counter()
        self._asked: Counter[tuple[object, ...]] = Counter()
        self._to_repeat: list[Job] = []

    # On and off

    def off(self) -> None:
        """Turn these faults off. It does nothing if they are off already."""
        self._end(self)

    def begin(self) -> None:
        """Turn the faults on and count calls from now on, unfinished ones first. Call it on the emulator's loop."""
        self.on = True
        for job in self._lifecycle.jobs(self.runtime_id):
            if not job.finished:
                self._call(job)
        self._unsubscribe = self._lifecycle.events.subscribe(self._on_event)

    def end(self) -> None:
        """Stop following events. Call it on the emulator's loop."""
        self.on = False
        self._unsubscribe()

    def _on_event(self, event: Event) -> None:
        job = self._lifecycle.find_job(event.job_id or "") if event.kind == "job_queued" else None
        if job is not None:
            self._call(job)
        elif event.kind in ENDS_JOB and event.job_id in self._calls:
            self._ended.append(event.job_id)
            if len(self._ended) > MAX_ENDED:
                self._calls.pop(self._ended.popleft(), None)

    def _call(self, job: Job) -> _Call:
        """Return the call that a job is, and count it if it is new."""
        call = self._calls.get(job.job_id)
        if call is None:
            called = job.runtime_id, job.query_type
            self._submitted[called] += 1
            call = self._calls[job.job_id] = _Call(self._submitted[called])
        return call

    # Decisions

    def strikes(self, fault: str, job: Job, moment: str = "") -> Random | None:
        """Return a `Random` for further choices if a fault strikes a job this time; None if it does not."""
        if fault not in self.chances or not self._concerns(job):
            return None
        return self._struck(fault, self._random_of(job, fault, moment))

    def strikes_request(self, fault: str, runtime_id: str) -> bool:
        """Return whether a fault strikes, this time, a request of a runtime that concerns no job."""
        if fault not in self.chances or self.function is not None or self.runtime_id not in (None, runtime_id):
            return False
        return self._struck(fault, self._random(self._asked, fault, runtime_id)) is not None

    def seconds(self, job: Job, moment: str) -> float:
        """Return by how many seconds an answer about a job is delayed."""
        if self.delay is None or not self._concerns(job):
            return 0.0
        try:
            return self.delay.seconds(self._random_of(job, "delay", moment))
        except InvalidRequest as error:
            self._note("delay", f"nothing was delayed: {error}", job.runtime_id, job.job_id)
            return 0.0

    def _concerns(self, job: Job) -> bool:
        return self.runtime_id in (None, job.runtime_id) and self.function in (None, job.query_type)

    def _struck(self, fault: str, random: Random) -> Random | None:
        return random if random.random() < self.chances[fault] else None

    def _random_of(self, job: Job, fault: str, moment: str) -> Random:
        call = self._call(job)
        return self._random(call.asked, fault, moment, job.runtime_id, job.query_type, call.number)

    def _random(self, asked: Counter[tuple[object, ...]], *about: object) -> Random:
        asked[about] += 1
        return Random(repr((self.seed, *about, asked[about])))  # noqa: S311 - it must be reproducible

    # Duplicate deliveries

    def repeat(self, job: Job) -> None:
        """Hand out a job again that has been handed out."""
        self._to_repeat.append(job)

    def to_repeat(self, runtime_id: str) -> Job | None:
        """Return the next job of a runtime to hand out again, if its state has not changed since it was handed out."""
        for job in [each for each in self._to_repeat if each.runtime_id == runtime_id]:
            self._to_repeat.remove(job)
            if self._lifecycle.find_job(job.job_id) is job:
                return job
        return None

    # Recording

    def tell(self, fault: str, what: str, runtime_id: str, job_id: str | None = None) -> None:
        """Count that a fault has struck, and add an event that says what it did."""
        self.struck[fault] += 1
        self._note(fault, what, runtime_id, job_id)

    def _note(self, fault: str, what: str, runtime_id: str, job_id: str | None) -> None:
        self._lifecycle.note("fault_injected", runtime_id, job_id, f"{fault}: {what}")

    # Descriptions

    @property
    def words(self) -> dict[str, str]:
        """The chance or the delay of each fault as text, by the fault's name."""
        chances = {name: f"{chance:g}" for name, chance in self.chances.items()}
        return chances if self.delay is None else {"delay": self.delay.words, **chances}

    @property
    def where(self) -> str:
        """The runtime and function that the faults strike."""
        parts = [
            f"{noun} {name!r}" for noun, name in (("runtime", self.runtime_id), ("function", self.function)) if name
        ]
        return ", ".join(parts) or "every runtime"

    @property
    def description(self) -> str:
        """The faults, the runtime and function that they strike, and the seed."""
        words = ", ".join(f"{name}={word}" for name, word in self.words.items())
        return f"{words} on {self.where}, seed={self.seed}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.off()

    def __repr__(self) -> str:
        struck = ", ".join(f"{name} {self.struck[name]}" for name in self.words)
        return f"<Faults {'on' if self.on else 'off'}: {self.description}; struck: {struck}>"
