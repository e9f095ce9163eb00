"""Launching real compute modules: programs that run against the platform routes as they do in production."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, cast

from cmemu_nb.errors import NotFound, NotRunning
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cmemu_nb.calls.handles import RuntimeHandle
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.executors.modules.environment import ModuleEnvironment
    from cmemu_nb.executors.modules.modules import LaunchedModule, Modules


class Launching:
    """What an emulator can launch."""

    def _emulator(self) -> Emulator:
        return cast("Emulator", self)

    def launch(
        self,
        command: str | Sequence[str],
        runtime: RuntimeHandle | str | None = None,
        *,
        replicas: int = 1,
        max_concurrent_tasks: int = 1,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        **extras: Any,
    ) -> LaunchedModule:
        """Launch a program, such as `"python app.py"` with an official SDK, as a runtime's module.

        Each of the `replicas` is a process with a token of its own, which is handed at most `max_concurrent_tasks`
        unfinished jobs at a time. Without `runtime` it is one named after the program's file, bound to an app of
        that name; an unknown id is opened so too. `python` is the kernel's own interpreter. The further options are
        those of a deployed module's configuration: `sources`, `source_configurations`, `aliases`, `client_id`,
        `client_secret`, `build2_token`. Raises `LaunchFailed` for a program that ends at once, or that there is not,
        `InvalidRequest` for an option that can't be; then no runtime is left behind that was not there before.

        >>> module = emu.launch("python app.py", replicas=2).wait_until_responsive()
        >>> module
        <Module 'app': python app.py: responsive, responsive>
        >>> emu.call("add", {"x": 40}, "ri.foundry.main.deployed-app.app")
        41
        >>> module.stop()
        """
        from cmemu_nb.executors.modules.environment import hide_secrets, read_extras  # noqa: PLC0415 - who launches nothing needs none
        from cmemu_nb.executors.modules.modules import Launch, read_command, runtime_name  # noqa: PLC0415

        hide_secrets(extras)
        words = read_command(command)
        launch = Launch(words, replicas, max_concurrent_tasks, env or {}, cwd, read_extras(extras))
        with self.launchable_runtime(runtime or runtime_name(words)) as runtime_id:
            return self.modules.launch(runtime_id, launch)

    @contextlib.contextmanager
    def launchable_runtime(self, runtime: RuntimeHandle | str) -> Iterator[str]:
        """Give a runtime's id; one that is not there is opened, bound to an app of its name, unless the block fails."""
        runtime_id = runtime if isinstance(runtime, str) else runtime.id
        emulator = self._emulator()
        if emulator.lifecycle.has_runtime(runtime_id):
            yield runtime_id
            return
        rid = f"ri.foundry.main.deployed-app.{runtime_id}"
        bound = {(app.deployed_app_rid, app.branch): app for app in emulator.lifecycle.deployed_apps()}
        emulator.open_runtime(runtime_id, rid)
        try:
            yield runtime_id
        except BaseException:
            # A runtime that nobody polls for would take every call of the app, and of an emulator without another app.
            with contextlib.suppress(NotRunning, NotFound):
                emulator.change(lambda lifecycle: lifecycle.undo_session(runtime_id, bound.get((rid, DEFAULT_BRANCH))))
            raise

    @functools.cached_property
    def modules(self) -> Modules:
        """The programs that were launched."""
        from cmemu_nb.executors.modules.modules import Modules  # noqa: PLC0415

        return Modules(self._emulator())

    async def end_modules(self, reason: str) -> None:
        """End every program that was launched; without one this imports nothing."""
        if "modules" in vars(self):
            await self.modules.stop_all(reason)

    def env(self, runtime: RuntimeHandle | str, max_concurrent_tasks: int = 1, **extras: Any) -> ModuleEnvironment:
        """Return the environment of one more replica of a runtime's module, for a program that you start yourself.

        Each call makes a replica with a token of its own, which is handed at most `max_concurrent_tasks` unfinished
        jobs at a time. Tokens and certificates are files in a private directory. It is a dict; `export_lines` is
        for a terminal, `docker_line(image)` for a container on the host's network. `extras` as in `launch()`. Raises
        `NotFound` for an unknown runtime.

        >>> emu.env("notebook")["MAX_CONCURRENT_TASKS"]
        '1'
        """
        from cmemu_nb.executors.modules.environment import add_replica, hide_secrets, read_extras  # noqa: PLC0415

        hide_secrets(extras)
        runtime_id = runtime if isinstance(runtime, str) else runtime.id
        emulator, read = self._emulator(), read_extras(extras)
        return emulator.change(lambda _: add_replica(emulator, runtime_id, max_concurrent_tasks, read))[1]

    def _environment(self, runtime_id: str, max_concurrent_tasks: int) -> ModuleEnvironment:
        from cmemu_nb.executors.modules.environment import add_replica  # noqa: PLC0415

        return add_replica(self._emulator(), runtime_id, max_concurrent_tasks)[1]
