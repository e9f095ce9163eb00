"""Replacing replicas of a launched module without an interruption, as the platform does for an upgrade [foundry].

New replicas are started beside the old ones, on standby. When all of them are responsive, they get the jobs; the old
ones get no more, finish those that they hold, and are ended. If the new ones do not become responsive, they are ended,
and the old ones continue. It is used on the emulator's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.errors import LaunchFailed
from cmemu_nb.lifecycle.lifecycle import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.modules.modules import Launch, LaunchedModule
    from cmemu_nb.executors.modules.process import ReplicaProcess

MAX_LAST_LINES = 20


class Handover:
    """One replacement of replicas by new ones of a launch.

    `purpose` is the beginning of the sentence that says that it failed, and `old()` returns the replicas to be
    replaced. `broken_off` says why it was ended from outside, "" if it was not.
    """

    def __init__(
        self,
        engine: Engine,
        module: LaunchedModule,
        launch: Launch,
        purpose: str,
        old: Callable[[], list[ReplicaProcess]],
    ) -> None:
        self.launch = launch
        self.new: list[ReplicaProcess] = []
        self._engine = engine
        self._module = module
        self._purpose = purpose
        self._old = old
        self.broken_off = ""

    def replaces(self, process: ReplicaProcess) -> bool:
        """Return whether a replica is the only one that is replaced."""
        return self._old() == [process]

    def break_off(self, reason: str) -> None:
        """End it without a result at the next event, unless the new replicas have taken over."""
        self.broken_off = reason

    async def run(self, count: int, timeout: float, detail: str) -> None:  # noqa: ASYNC109
        """Start the new replicas and switch to them; `detail` says why, for the event.

        Raises `LaunchFailed` and leaves the old ones as they are if the new ones do not become responsive in time.
        """
        try:
            for _ in range(count):
                self.new.append(self._module.add_replica(self.launch, standby=True))
            await until(self._engine.lifecycle, self._is_settled, timeout)
            self._check(timeout)
            self._module.switch(self.launch, self.new, self._old(), detail)
        except BaseException:
            for process in self.new:
                self._module.discard(process)
            raise

    def _is_settled(self) -> bool:
        return (
            bool(self.broken_off)
            or any(map(_has_failed, self.new))
            or all(each.has_been_responsive for each in self.new)
        )

    def _check(self, timeout: float) -> None:
        if why := self._why_not(timeout):
            continues = "" if self.broken_off else " The old replicas continue."
            raise LaunchFailed(f"{self._purpose}: {why}{continues}{self._last_lines()}")

    def _why_not(self, timeout: float) -> str:
        """Return the sentence that says why the new replicas can't take over; "" if they can."""
        if self.broken_off:
            return f"{self.broken_off}."
        command, (verb, target) = self.launch.shown, self.launch.readiness
        for process in self.new:
            if process.exit_code is not None:
                return f"{command} ended before it {verb}ed {target}, with exit code {process.exit_code}."
            if _has_failed(process):
                return f"{command} raised an exception while it was imported, so it {verb}s without any function."
        if not all(process.has_been_responsive for process in self.new):
            states = ", ".join(process.state for process in self.new)
            unready = f" A readiness probe failed: {self._module.unready}." if self._module.unready else ""
            return f"{command} did not {verb} {target} within {timeout:g} s: {states}.{unready}"
        return ""

    def _last_lines(self) -> str:
        ids = {process.replica.replica_id for process in self.new}
        lines = [str(line) for line in self._module.logs if line.replica_id in ids][-MAX_LAST_LINES:]
        return "\n".join([" The last lines of the new ones:", *lines]) if lines else " The new ones wrote nothing."


def _has_failed(process: ReplicaProcess) -> bool:
    """Return whether a replica on standby has exited, or has raised while it was imported and has no function."""
    if process.exit_code is not None:
        return True
    if process.replica.schemas != {}:
        return False
    process.read_available_output()
    return bool(process.import_error)
