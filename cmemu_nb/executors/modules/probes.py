"""The probes of a replica of a launched program: whether it is ready to get jobs, and whether it still works [foundry].

The documentation, https://www.palantir.com/docs/foundry/compute-modules/probes, says what a probe does and what follows
from its failure, not how often it is run and how many failures count. These are Kubernetes's defaults here. Everything
is used on the emulator's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from cmemu_nb.clients.http import HttpClient
from cmemu_nb.errors import NotRunning
from cmemu_nb.executors.modules import nanny
from cmemu_nb.executors.servers.server import ADDRESSES
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.modules.modules import Launch
    from cmemu_nb.executors.modules.process import ReplicaProcess
    from cmemu_nb.lifecycle.configuration import Probe

FIRST_SECONDS = 1.0
"""How long it takes at most from one run of a readiness probe to the next until it has succeeded once [ours]."""
SUCCESSES = range(200, 400)
MAX_OUTPUT = 500
MAX_BODY = 1_000_000


class Probes:
    """The probes of one replica, from its start to `end()`; `on_dead(reason)` is called when it has to be restarted.

    `before_command` are the words by which a command runs in the replica's container. `unready` is why the readiness
    probe failed last, "" if it succeeded or was not run yet.
    """

    def __init__(
        self,
        engine: Engine,
        process: ReplicaProcess,
        launch: Launch,
        environment: Mapping[str, str],
        on_dead: Callable[[str], None],
        before_command: Sequence[str] = (),
    ) -> None:
        self.unready = ""
        self._engine = engine
        self._replica = process.replica
        self._launch = launch
        self._environment = environment
        self._on_dead = on_dead
        self._before_command = before_command
        self._tasks: list[asyncio.Task[None]] = []
        configuration = launch.configuration
        if configuration.readiness_probe is not None:
            self._begin(self._watch_readiness(configuration.readiness_probe))
        if configuration.liveness_probe is not None:
            self._begin(self._watch_liveness(configuration.liveness_probe))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(self._engine.home.loop.create_task(work))

    def end(self) -> None:
        """Run no probe any more."""
        for task in self._tasks:
            task.cancel()

    async def _watch_readiness(self, probe: Probe) -> None:
        failures = 0
        while True:
            self.unready = await self._failure(probe)
            failures = failures + 1 if self.unready else 0
            if not failures:
                self._set_ready("its readiness probe succeeded", ready=True)
            elif failures >= probe.failures and self._replica.ready:
                times = plural(failures, "time")
                self._set_ready(f"its readiness probe failed {times}: {self.unready}", ready=False)
            await asyncio.sleep(probe.period if self._replica.ready is not None else min(FIRST_SECONDS, probe.period))

    def _set_ready(self, why: str, *, ready: bool) -> None:
        if not self._replica.revoked:
            self._engine.lifecycle.set_ready(self._replica, why, ready=ready)

    async def _watch_liveness(self, probe: Probe) -> None:
        failures = 0
        while True:
            await asyncio.sleep(probe.period)
            failure = await self._failure(probe)
            failures = failures + 1 if failure else 0
            if failures >= probe.failures:
                self._on_dead(f"its liveness probe failed {plural(failures, 'time')}: {failure}")
                return

    async def _failure(self, probe: Probe) -> str:
        """Return why a probe fails; "" if it succeeds."""
        try:
            async with asyncio.timeout(probe.timeout):
                return await (self._run(probe) if probe.command else self._get(probe))
        except TimeoutError:
            return f"{probe.in_words} took longer than {probe.timeout:g} s"
        except (NotRunning, OSError) as error:
            return f"{probe.in_words}: {error}"

    async def _get(self, probe: Probe) -> str:
        for address in ADDRESSES[:-1]:
            with contextlib.suppress(NotRunning):
                return await self._get_from(address, probe)
        return await self._get_from(ADDRESSES[-1], probe)

    async def _get_from(self, address: str, probe: Probe) -> str:
        host = f"[{address}]" if ":" in address else address
        client = HttpClient(f"http://{host}:{probe.port}", "The program", MAX_BODY)
        headers = {"Host": f"localhost:{probe.port}", "Connection": "close", **probe.headers}
        try:
            reply = await client.request("GET", probe.path, headers)
        finally:
            client.end()
        return "" if reply.status in SUCCESSES else f"{probe.in_words} answered {reply.status}"

    async def _run(self, probe: Probe) -> str:
        with tempfile.TemporaryFile() as output:
            code = await _exit_code(
                [*self._before_command, *probe.command],
                self._launch.cwd,
                self._environment,
                output.fileno(),
                self._engine.home.loop,
            )
            output.seek(0)
            wrote = output.read(MAX_OUTPUT).decode(errors="replace").strip()
        shown = self._engine.lifecycle.events.masked.with_more(self._replica.token, self._replica.scratch_token)(wrote)
        return "" if code == 0 else f"{probe.in_words} exited with code {code}{f': {shown}' if shown else ''}"


async def _exit_code(
    command: list[str],
    cwd: str | None,
    environment: Mapping[str, str],
    output: int,
    loop: asyncio.AbstractEventLoop,
) -> int:
    """Run a command and return its exit code. Cancellation ends it at once, and so does the end of this process."""
    stdin, nanny_stdin = os.pipe()
    news, nanny_news = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: ASYNC220, S603 - the user typed the command; its start does not wait
            [sys.executable, "-ISE", nanny.__file__, str(nanny_news), *command],
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=environment,
            pass_fds=(nanny_news,),
            start_new_session=True,
        )
    except BaseException:
        os.close(nanny_stdin)
        os.close(news)
        raise
    finally:
        os.close(stdin)
        os.close(nanny_news)
    pid, ended = 0, loop.create_future()

    def on_news() -> None:
        nonlocal pid
        if text := os.read(news, 100):
            pid = int(text)
        else:
            loop.remove_reader(news)
            if not ended.done():
                ended.set_result(None)

    loop.add_reader(news, on_news)
    try:
        await ended
    finally:
        loop.remove_reader(news)
        if not ended.done() or ended.cancelled():
            # The nanny ends at once when its program does; before it has started one, Linux ends both.
            nanny.signal_group(pid, signal.SIGKILL) if pid else process.kill()
        code = process.wait()
        os.close(nanny_stdin)
        os.close(news)
    return nanny.exit_code(code)
