"""The upgrades of a launched module, and the replacement of replicas that have lived long enough.

There is one at a time, on the emulator's loop. On the platform each replica is replaced before it is a day old
[foundry].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.errors import CmemuError, InvalidRequest
from cmemu_nb.executors.modules.handover import Handover
from cmemu_nb.lifecycle.records import Mode

if TYPE_CHECKING:
    import asyncio

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.modules.modules import Launch, LaunchedModule
    from cmemu_nb.executors.modules.process import ReplicaProcess

REPLACE_SECONDS = 60.0
"""How long the replacement of a replica may take to become responsive."""
RETRY_SECONDS = 60.0
"""After how long it is tried again to replace a replica whose replacement failed."""
BUSY_SECONDS = 1.0
"""After how long it is tried again while another replica is being replaced."""


class Replacements:
    """Replaces the replicas of one module."""

    def __init__(self, engine: Engine, module: LaunchedModule) -> None:
        self._engine = engine
        self._module = module
        self._current: Handover | None = None
        self._lives: dict[ReplicaProcess, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def command(self) -> str:
        """The command of the replicas that are started to take the place of others; "" if there are none."""
        return "" if self._current is None else self._current.launch.shown

    def break_off(self, reason: str) -> None:
        """End an upgrade or a replacement that is under way: the module is ended, which ends all replicas."""
        if self._current is not None:
            self._current.break_off(reason)
        for task in self._tasks:
            task.cancel()

    def on_exit(self, process: ReplicaProcess) -> None:
        """Replace a replica no more whose program has exited."""
        self.end_life(process)
        if self._current is not None and self._current.replaces(process):
            self._current.break_off("it has exited meanwhile")

    # Upgrades

    def check(self, launch: Launch) -> None:
        """Raise `InvalidRequest` if replicas of a launch can't be started beside those of the module."""
        module = self._module
        if self._current is not None and self._current.launch is not module.launched:
            raise InvalidRequest(
                f"{module.command} is being upgraded to {self.command} already. Wait until that is done, or end it: "
                f"{module.expression}.restart()."
            )
        if Mode.PIPELINE in (module.mode, launch.configuration.mode):
            raise InvalidRequest(
                "A program in pipeline mode takes no jobs that a new one could take over. Restart it, or launch "
                f"another one: {module.expression}.restart()."
            )
        shared = module.launched.ports & launch.ports
        if shared:
            raise InvalidRequest(
                f"The new program needs port {min(shared)} while the old one still listens on it. Give the new one "
                f"another port in its configuration; or restart it, which interrupts it: {module.expression}.restart()."
            )

    async def upgrade(self, launch: Launch, timeout: float) -> None:  # noqa: ASYNC109
        """Replace all replicas by those of a launch. Raises `LaunchFailed`, and leaves them as they are, if that fails.

        A replacement that is under way is broken off.
        """
        module, before = self._module, self._module.command
        change = f"from {before} to {launch.shown}"
        handover = Handover(
            self._engine, module, launch, f"{before} was not upgraded to {launch.shown}", lambda: module.in_service
        )
        if self._current is not None:
            self._current.break_off("an upgrade began")
        self._engine.lifecycle.note("upgrade_began", module.runtime_id, detail=change)
        count, scaling = launch.configuration.replicas, launch.configuration.scaling
        if scaling is not None:
            count = min(max(scaling.first, len(module.in_service)), scaling.max)
        await self._run(handover, count, timeout, f"the module was upgraded {change}")

    async def _run(self, handover: Handover, count: int, timeout: float, detail: str) -> None:  # noqa: ASYNC109
        self._current = handover
        try:
            await handover.run(count, timeout, detail)
        except (CmemuError, OSError) as error:
            # A replacement that an upgrade has made needless is no failure.
            if handover.launch is not self._module.launched or not handover.broken_off:
                self._engine.lifecycle.note("switch_failed", self._module.runtime_id, detail=str(error))
            raise
        finally:
            if self._current is handover:
                self._current = None

    # Lifetimes

    def begin_life(self, process: ReplicaProcess, seconds: float | None) -> None:
        """Replace a replica after so many seconds; None for never."""
        self.end_life(process)
        if seconds is not None:
            self._lives[process] = self._engine.home.loop.call_later(seconds, self._on_end_of_life, process)

    def end_life(self, process: ReplicaProcess) -> None:
        """Forget a replica that is ended."""
        if (timer := self._lives.pop(process, None)) is not None:
            timer.cancel()

    def _on_end_of_life(self, process: ReplicaProcess) -> None:
        del self._lives[process]
        if process not in self._module.in_service:
            return
        if self._current is not None:
            self.begin_life(process, BUSY_SECONDS)
            return
        task = self._engine.home.loop.create_task(self._replace(process))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, process: ReplicaProcess) -> None:
        module, launch = self._module, self._module.launched
        why = (
            f"replica {process.replica.replica_id} has lived for {launch.configuration.max_lifetime:g} s (max_lifetime)"
        )

        def old() -> list[ReplicaProcess]:
            return [process] if process in module.in_service else []

        handover = Handover(self._engine, module, launch, f"{why} and was not replaced", old)
        try:
            await self._run(handover, 1, REPLACE_SECONDS, f"{why} and is replaced")
        except (CmemuError, OSError):
            self.begin_life(process, RETRY_SECONDS)
