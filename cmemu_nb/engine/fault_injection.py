"""`emu.faults`: sets faults of the platform, ends them, and lists those that are on."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from cmemu_nb.engine.fault_arguments import (
    check_that_any,
    read_chances,
    read_delay,
    read_function,
    read_runtime,
    read_seed,
)
from cmemu_nb.engine.parts import Part
from cmemu_nb.server.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from cmemu_nb.calls.handles import RuntimeHandle
    from cmemu_nb.engine.engine import Engine

SEEDS = 1_000_000


class FaultInjection(Part):
    """The faults that are on: call it to set some, iterate over them; `off()` and `emu.stop()` end all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        engine.parts.append(self)
        self._on: tuple[Faults, ...] = ()

    def __call__(  # noqa: PLR0913 - each is a fault of its own
        self,
        runtime: RuntimeHandle | str | None = None,
        function: str | None = None,
        *,
        delay: float | tuple[float, float] | Callable[[Random], float] | None = None,
        error_rate: float | None = None,
        drop_result: float | None = None,
        truncate_result: float | None = None,
        duplicate_dispatch: float | None = None,
        reject_poll: float | None = None,
        disconnect: float | None = None,
        seed: int | None = None,
    ) -> Faults:
        """Make the platform misbehave towards executors, until `off()` or the end of a `with` block.

        `runtime`, an id or a handle, limits it to this runtime; `function` to the jobs of this function. All faults but
        `delay` are probabilities from 0, never, to 1, always. Each one is something that a platform could do:

        - `delay`: the network is slow. Each answer to a poll that carries a job, and each answer to a result of a
          running job, is delayed by this many seconds, by a uniformly distributed time in `(low, high)`, or by what a
          function of a `random.Random` returns, which is called on the emulator's loop. The result itself is stored
          before its answer is delayed.
        - `error_rate`: a service behind the platform is down. Posted results, schemas and restart notifications are
          answered with 500 `injected_fault` and have no effect. With a `function`, only results are.
        - `drop_result`: the platform loses a result that it accepted. The result is answered with 204 and discarded:
          its job runs until its lease ends, its replica restarts, or someone fails the job.
        - `truncate_result`: a connection inside the platform breaks. A result is answered with 204, and only its
          beginning is stored, never all of it; an empty result is not changed.
        - `duplicate_dispatch`: the platform delivers at least once. A dispatched job is dispatched again to the next
          poll of the runtime, by any replica and however many jobs it holds, unless the job has ended by then.
        - `reject_poll`: the platform is overloaded. A poll is answered with 503 `injected_fault`.
        - `disconnect`: a proxy is restarted. The connection is closed without an answer, either at a poll that would
          receive a job, which returns to its queue, or after a result was stored.

        These apply to results in chunks, too: such a result is refused, dropped or truncated at its end, and none of
        its chunks reaches a waiting client. Each fault that occurs is one event `fault_injected`; setting and ending
        them are events `faults_changed`. The same `seed` makes the same faults occur if the same jobs are submitted
        in the same order, however their executors race; by default it is random, and the repr and the event show it.
        Several sets of faults may be on: each decides independently, the first that occurs counts, and delays add up.
        Polls that wait when faults are set are answered with 204, so that the faults apply to the polls after them.

        Raises `InvalidRequest` for invalid arguments, `NotFound` for an unknown runtime, and for a function that no
        posted schema names.

        >>> with emu.faults(function="add", error_rate=0.5, seed=1) as faults:
        ...     emu.call("add", {"x": 1})
        2
        >>> faults
        <Faults off: error_rate=0.5 on function 'add', seed=1; struck: error_rate ...>
        """
        lifecycle = self._engine.lifecycle
        chances = read_chances(
            {
                "error_rate": error_rate,
                "drop_result": drop_result,
                "truncate_result": truncate_result,
                "duplicate_dispatch": duplicate_dispatch,
                "reject_poll": reject_poll,
                "disconnect": disconnect,
            }
        )
        check_that_any(delay, chances, function)
        runtime_id = read_runtime(lifecycle, runtime)
        faults = Faults(
            lifecycle,
            self._off,
            chances,
            None if delay is None else read_delay(delay),
            runtime_id=runtime_id,
            function=read_function(lifecycle, runtime_id, function),
            seed=secrets.randbelow(SEEDS) if seed is None else read_seed(seed),
        )
        self._engine.change(lambda _: self._begin(faults))
        return faults

    def off(self) -> None:
        """End all faults; do nothing if none are on."""
        for faults in self:
            self._off(faults)

    def _off(self, faults: Faults) -> None:
        if faults.on:
            self._engine.change(lambda _: self._end(faults))

    # On the emulator's loop

    async def stopping(self, reason: str) -> None:  # noqa: ARG002 - no job ends with a fault
        """End all faults."""
        for faults in self:
            self._end(faults)

    def _begin(self, faults: Faults) -> None:
        faults.begin()
        if not self._on:
            self._engine.end_polls()
        self._set((*self._on, faults))
        self._note("on", faults)

    def _end(self, faults: Faults) -> None:
        if faults.on:
            faults.end()
            self._set(tuple(each for each in self._on if each is not faults))
            self._note("off", faults)

    def _set(self, faults: tuple[Faults, ...]) -> None:
        self._on = self._engine.application.context.faults = faults

    def _note(self, state: str, faults: Faults) -> None:
        self._engine.lifecycle.note("faults_changed", faults.runtime_id, detail=f"{state}: {faults.description}")

    # Inspection

    def __iter__(self) -> Iterator[Faults]:
        return iter(self._on)

    def __len__(self) -> int:
        return len(self._on)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or self.nothing

    @property
    def nothing(self) -> str:
        """The text to show when no faults are on."""
        return f"No faults are on. Try: {self._engine.name}.faults(error_rate=0.2)"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_faults  # noqa: PLC0415 - only notebooks use it

        return show_faults(self)
