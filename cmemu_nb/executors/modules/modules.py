"""Launched modules: programs of real compute modules, run as processes, with their replicas and logs."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmemu_nb.engine.parts import Part
from cmemu_nb.errors import CmemuError, InvalidRequest, LaunchFailed, NotFound, known
from cmemu_nb.executors.modules.autoscaling import AutoScaling
from cmemu_nb.executors.modules.environment import add_replica
from cmemu_nb.executors.modules.forwarders import Forwarders
from cmemu_nb.executors.modules.functions import ModuleFunctions
from cmemu_nb.executors.modules.images import container_command, for_container, image_runtime, inside, needed_engine
from cmemu_nb.executors.modules.logs import LogLine, ModuleLogs, repeats_result, stream_error
from cmemu_nb.executors.modules.probes import Probes
from cmemu_nb.executors.modules.process import ReplicaProcess
from cmemu_nb.executors.modules.replacements import Replacements
from cmemu_nb.executors.modules.restarts import MAX_RESTARTS, WINDOW_SECONDS, Restarts
from cmemu_nb.executors.opened_runtime import opened_runtime
from cmemu_nb.executors.process_environment import HERE
from cmemu_nb.executors.replicas import record_exit, record_start
from cmemu_nb.lifecycle.configuration import Configuration, hide_secrets
from cmemu_nb.lifecycle.events import ENDS_RUN, ENDS_SESSION, FINISHES_JOB
from cmemu_nb.lifecycle.lifecycle import BROKEN_OFF, until
from cmemu_nb.lifecycle.records import JobStatus, Mode, takes_no_jobs
from cmemu_nb.phrases import closest, quoted
from cmemu_nb.wire.labels import checked_runtime_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.servers.executor import ServerExecutor
    from cmemu_nb.executors.servers.server import Server
    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.lifecycle.records import Job
    from cmemu_nb.lifecycle.session import Replica

SETTLE_SECONDS = 1.0
STOP_SECONDS = 6.0
PORT_CHECKS = 20
PORT_SECONDS = 0.05
MAX_LAST_LINES = 20
PYTHONS = ("python", "python3")
UNKNOWN_QUERY_TYPE = b'{"error": "Unknown query type"}'
"""The result that the Python SDK posts for a function that it does not know [foundry]."""
# Variables that would make programs behave differently than in production. Jupyter's kernels set those of colours
# (`ZMQInteractiveShell.init_environment`), and Python 3.13 would colour the tracebacks in the log.
NOT_INHERITED = ("NODE_ENV", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR")


@dataclass(frozen=True)
class Launch:
    """The options that a program is launched with, first and at each restart.

    `given` are the keys of the module's configuration that this launch sets; the others are those of its runtime. With
    an `image`, the command is that of Docker or podman, and `arguments` are those of the image's program.
    """

    command: list[str]
    cwd: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    configuration: Configuration = field(default_factory=Configuration)
    server: Server | None = None
    restart: bool = True
    image: str | None = None
    arguments: Sequence[str] = ()

    def running(self, command: str | Sequence[str], image: str | None) -> Launch:
        """Return it with another program, or with an image, whose program gets the command as its arguments."""
        if image is None:
            return replace(self, command=read_command(command))
        arguments = split_command(command)
        return replace(self, command=[needed_engine(image), "run", image, *arguments], image=image, arguments=arguments)

    def on(self, engine: Engine, runtime_id: str) -> Launch:
        """Return it with the configuration that it has on a runtime now."""
        configuration = engine.lifecycle.configuration_with(runtime_id, self.given)
        _check_scaling(configuration)
        _check_probes(configuration)
        launch = replace(self, configuration=configuration, server=_server(configuration, self.cwd))
        _check_lifetime(launch)
        return launch

    @property
    def shown(self) -> str:
        """The command as it is typed in a terminal."""
        program, *arguments = self.command
        return shlex.join([PYTHONS[0] if program == sys.executable else program, *arguments])

    @property
    def readiness(self) -> tuple[str, str]:
        """What shows that the program is ready, as a verb and its object: it polls for jobs, or it answers at a URL."""
        return ("poll", "for jobs") if self.server is None else ("answer", f"at {self.server.url}")

    @property
    def ports(self) -> set[int]:
        """The ports that the program needs: that of its server, and those of its probes."""
        configuration = self.configuration
        probes = filter(None, (configuration.readiness_probe, configuration.liveness_probe))
        ports = {probe.port for probe in probes if probe.port}
        return ports if self.server is None else {*ports, self.server.port}

    @property
    def path(self) -> str:
        """The program's PATH: the directory of its Python interpreter, by default the current one, comes first."""
        program = Path(self.command[0])
        is_python = program.is_absolute() and program.name.startswith("python")
        interpreter = program if is_python else Path(sys.executable)
        return os.pathsep.join([str(interpreter.parent), HERE.inherited().get("PATH", os.defpath)])

    @property
    def may_be_java(self) -> bool:
        """Whether the program may be one in Java that polls: any but Python and Node, because a script may start it."""
        polls = self.configuration.mode == Mode.FUNCTION and self.server is None
        return polls and not Path(self.command[0]).name.startswith(("python", "node"))


class LaunchedModule:
    """A program that was launched as a runtime's module: its state, and methods to restart and stop it.

    `runtime_id` is its runtime, `replicas` are its processes, `logs` the newest 10,000 lines that they wrote.
    """

    def __init__(self, engine: Engine, forwarders: Forwarders, runtime_id: str, launch: Launch) -> None:
        self.runtime_id = runtime_id
        self.logs = ModuleLogs()
        self.replicas: list[ReplicaProcess] = []
        self._executors: dict[ReplicaProcess, ServerExecutor] = {}
        self._probes: dict[ReplicaProcess, Probes] = {}
        self._engine = engine
        self._forwarders = forwarders
        self._launch = launch
        self._stopped = True
        self._started_at = 0
        self._launched = False
        self._scaling: AutoScaling | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._replacements = Replacements(engine, self)
        self._restarts = Restarts(lambda: engine.home.loop, self._restart_replica)

    @property
    def command(self) -> str:
        """The command as it is typed in a terminal."""
        return self._launch.shown

    @property
    def mode(self) -> Mode:
        """The execution mode: `function`, or `pipeline` for a program that need not poll and takes no jobs."""
        return self._launch.configuration.mode

    @property
    def configuration(self) -> Configuration:
        """What it was configured with at its last start, by its launch and its runtime; its repr has no secrets."""
        return self._launch.configuration

    @property
    def running(self) -> bool:
        """Whether any replica runs."""
        return any(replica.exit_code is None for replica in self.replicas)

    @property
    def in_service(self) -> list[ReplicaProcess]:
        """The replicas that are neither on standby nor being decommissioned, including those that have exited."""
        return [each for each in list(self.replicas) if not (each.decommissioned or each.replica.standby)]

    @property
    def launched(self) -> Launch:
        """The options that its replicas were launched with."""
        return self._launch

    @property
    def upgrading_to(self) -> str:
        """The command of the replicas that are started to take the place of others; "" if there are none."""
        return self._replacements.command

    @property
    def scaled_to_zero(self) -> bool:
        """Whether its scaling has left it without any replica, until a job is queued."""
        return self._scaling is not None and not self.in_service

    @property
    def active(self) -> bool:
        """Whether any replica runs or is to be started, now or for the next job."""
        return self.running or self.backing_off or self.scaled_to_zero

    @property
    def backing_off(self) -> bool:
        """Whether any replica has exited and is to be started again."""
        return self._restarts.pending

    @property
    def next_restart(self) -> str:
        """The clause that says when a replica is started again; "" if none is to be."""
        for process in list(self.replicas):
            number = process.number
            seconds = self._restarts.seconds_left(number)
            if seconds is not None and process.exit_code is not None:
                return f"replica {number} exited ({process.exit_code}) and starts again in {math.ceil(seconds)} s"
        return ""

    @property
    def ended(self) -> bool:
        """Whether the program has ended by itself, in every replica, and none of them is to be started again."""
        return bool(self.in_service) and not self._stopped and not self.running and not self.backing_off

    @property
    def exit_code(self) -> int:
        """The exit code of the replica that failed first, 0 if none did."""
        return next((replica.exit_code for replica in self.replicas if replica.exit_code), 0)

    @property
    def import_error(self) -> str:
        """The last lines of the traceback with which the program's import ended if it serves no function, else ""."""
        errors = (process.import_error for process in self.replicas)
        return next(filter(None, errors), "") if self._without_functions() else ""

    @property
    def states(self) -> list[str]:
        """The replicas' states: starting, started, (un)responsive, decommissioned, stopping, backing off, exited(N)."""
        return [replica.state for replica in list(self.replicas)]

    @property
    def unready(self) -> str:
        """Why the readiness probe of a replica failed last; "" if none did."""
        return next((each.unready for each in list(self._probes.values()) if each.unready), "")

    @property
    def readiness(self) -> tuple[str, str]:
        """What shows that the program is ready, as a verb and its object: it polls for jobs, or it answers at a URL."""
        return self._launch.readiness

    @property
    def expression(self) -> str:
        """The expression that returns this handle, such as `emu.modules["shop"]`."""
        return f"{self._engine.name}.modules[{json.dumps(self.runtime_id)}]"

    def wait_until_responsive(self, timeout: float = 30.0) -> LaunchedModule:
        """Wait until every replica polls for jobs, and return the module; `timeout` is in seconds.

        A replica in pipeline mode is responsive while it runs, and has been if it has ended with exit code 0. A server
        module takes jobs as soon as it listens on its port. Raises `LaunchFailed` with the last lines of output when a
        replica exits or the time has passed, and with those of the traceback when the program raised an exception
        while it was imported and polls without any function.
        """
        self._engine.home.run(self._wait_until_responsive(timeout))
        return self

    def wait_until_ended(self, timeout: float | None = None) -> int:
        """Wait until every replica has ended by itself, as a pipeline does, and return the module's exit code.

        A replica that is to be started again has not ended. `timeout` is in seconds; without it, the wait has no limit.
        Raises `LaunchFailed` with the last lines of output when the time has passed.
        """
        self._engine.home.run(self._wait_until_ended(timeout))
        return self.exit_code

    def restart(self) -> None:
        """End every replica and launch it again with a new token; the jobs that the replicas hold fail."""
        self._engine.home.run(self.start_again("the module was restarted"))

    def upgrade(
        self,
        command: str | Sequence[str] | None = None,
        *,
        cwd: str | None = None,
        image: str | None = None,
        timeout: float = 30.0,
        **configuration: Any,
    ) -> LaunchedModule:
        """Replace the program by another one without an interruption, as an upgrade on the platform does.

        New replicas are started beside the old ones. When all of them poll for jobs, they get the jobs, the functions'
        schemas become theirs, and this returns the module. The old ones get no more jobs, finish those that they hold,
        and are then ended. Queued jobs stay queued.

        The default `command` is the present one, for a program that was edited; `cwd`, `image` and the keys of the
        configuration are as for `launch()`, and those that are not given stay. `timeout` is in seconds. Raises
        `LaunchFailed` with the last lines of the new program's output if a new replica exits, raises an exception while
        it is imported, or does not poll in time; then the old ones continue. Raises `InvalidRequest` for a program in
        pipeline mode, which takes no jobs, for a module that was stopped, and while another upgrade is under way.

        >>> module = emu.launch("python app.py").wait_until_responsive()
        >>> module.upgrade("python app.py --verbose")
        <Module 'app': python app.py --verbose: ...>
        """
        hide_secrets(configuration)
        launch = self._launch
        if command is not None or image is not None:
            launch = launch.running(launch.arguments if command is None else command, image or launch.image)
        launch = replace(launch, cwd=cwd or launch.cwd, given={**launch.given, **configuration})
        self._engine.home.run(self._upgrade(launch, timeout))
        return self

    def stop(self) -> None:
        """End every replica; the jobs that the replicas hold fail, queued jobs stay queued."""
        self._engine.home.run(self.end("the module was stopped"))

    # On the emulator's loop

    async def start(self) -> None:
        """Launch the replicas."""
        self._stopped = False
        self._started_at = self._engine.lifecycle.now()
        self._launch = self._launch.on(self._engine, self.runtime_id)
        await self._until_port_is_free()
        self._engine.lifecycle.set_mode(self.runtime_id, self.mode)
        configuration = self._launch.configuration
        scaling = configuration.scaling
        for _ in range(configuration.replicas if scaling is None else scaling.first):
            self.add_replica(self._launch)
        if scaling is not None:
            self._scaling = AutoScaling(self._engine, self, scaling, configuration.max_concurrent_tasks)

    def add_replica(self, launch: Launch | None = None, *, standby: bool = False) -> ReplicaProcess:
        """Start one more replica, with the smallest number that is free; by default, of the module's own launch."""
        taken = {process.number for process in self.replicas}
        number = next(number for number in itertools.count(1) if number not in taken)
        process = self._start_replica(number, launch or self._launch, standby=standby)
        self.replicas.append(process)
        return process

    async def _upgrade(self, launch: Launch, timeout: float) -> None:  # noqa: ASYNC109
        if self._stopped or not self._launched:
            raise InvalidRequest(
                f"{self.command} was stopped, so it can't be upgraded. Launch the new program instead."
            )
        launch = launch.on(self._engine, self.runtime_id)
        self._replacements.check(launch)
        _check(launch)
        began_at = self._engine.lifecycle.now()
        await self._replacements.upgrade(launch, timeout)
        self._started_at = began_at

    def switch(self, launch: Launch, new: Sequence[ReplicaProcess], old: Sequence[ReplicaProcess], detail: str) -> None:
        """Give the jobs to the new replicas, which are on standby, in place of the old ones, and decommission these."""
        for process in old:
            process.decommissioned = True
        taking, replaced = ([each.replica for each in processes] for processes in (new, old))
        names = [", ".join(each.replica_id for each in replicas) for replicas in (taking, replaced)]
        change = f"{names[0]} in place of {names[1] or 'none'}: {detail}"
        try:
            self._engine.lifecycle.switch_replicas(taking, replaced, change)
        except BaseException:  # the journal can't take the schemas, for instance
            for process in old:
                process.decommissioned = False
            raise
        if launch is not self._launch:
            self._launch = launch
            self._change_scaling(len(old), detail)
        for process in old:
            self.decommission(process, detail)

    def _change_scaling(self, before: int, why: str) -> None:
        """Scale the replicas of a new launch as its configuration says; there were `before`."""
        configuration = self._launch.configuration
        if configuration.scaling is None:
            self._end_scaling(why)
            return
        if self._scaling is not None:
            self._scaling.end()
        tasks = configuration.max_concurrent_tasks
        self._scaling = AutoScaling(self._engine, self, configuration.scaling, tasks, before, why)

    def discard(self, process: ReplicaProcess) -> None:
        """End a replica that does not take the place of others after all."""
        if process in self.replicas and not self._stopped:
            self.decommission(process, "it was started to replace others and did not")

    def decommission(self, process: ReplicaProcess, reason: str) -> None:
        """Give a replica no more jobs, and end it as soon as it has finished those that it holds."""
        process.decommissioned = True
        process.backs_off = False
        self._replacements.end_life(process)
        self._restarts.cancel_one(process.number)
        self._engine.lifecycle.drain_replica(process.replica)
        task = self._engine.home.loop.create_task(self._end_drained(process, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_drained(self, process: ReplicaProcess, reason: str) -> None:
        state = self._engine.lifecycle
        await until(state, lambda: process.exit_code is not None or not process.replica.held, None)
        if process.exit_code is None:
            self._end_process(process, reason)
            await until(state, lambda: process.exit_code is not None, None)
        self.replicas.remove(process)

    def _end_process(self, process: ReplicaProcess, reason: str) -> None:
        self._end_executor(process)
        self._engine.lifecycle.remove_replica(process.replica, reason)
        process.stop()

    async def _until_port_is_free(self) -> None:
        """Wait for the end of processes that were killed at a restart; `LaunchFailed` if others use the server's port.

        The jobs of this module would be sent to that program.
        """
        for _ in range(PORT_CHECKS):
            if self._launch.server is None or not self._launch.server.in_use():
                return
            await asyncio.sleep(PORT_SECONDS)
        _check_port(self._launch.server)

    def _start_replica(self, number: int, launch: Launch, *, standby: bool = False) -> ReplicaProcess:
        engine = self._engine
        replica, given = add_replica(engine, self.runtime_id, launch.configuration, launched=True, standby=standby)
        try:
            forwarder = self._forwarders.open(replica, fixed=launch.may_be_java)
            process = self._start_process(replica, number, launch, {**forwarder, **given})
        except OSError as error:
            engine.lifecycle.remove_replica(replica, "its program could not be started")
            engine.identity.replica_files.delete(replica)
            self._forwarders.close(replica)
            raise LaunchFailed(
                f"{launch.shown} can't be started: {error.strerror}. Give it a smaller environment, or end other "
                "programs."
            ) from None
        record_start(engine.lifecycle, replica, launch.shown)
        self._replacements.begin_life(process, launch.configuration.max_lifetime)
        if warning := self._forwarders.warning(fixed=launch.may_be_java):
            self._warn(process, warning)
        return process

    def _start_process(self, replica: Replica, number: int, launch: Launch, given: Mapping[str, str]) -> ReplicaProcess:
        engine = self._engine
        environment = {name: value for name, value in HERE.inherited().items() if name not in NOT_INHERITED}
        before_probe: list[str] = []
        if launch.image is not None:
            before_probe = inside(launch.command[0], replica.replica_id)
            given, shared = for_container(given, engine.identity.files.path)
            program = launch.command[0]
            run = container_command(program, launch.image, launch.arguments, replica.replica_id, given, shared)
            launch = replace(launch, command=run)
        environment |= {"PATH": launch.path, "PYTHONUNBUFFERED": "1", **given}
        process = ReplicaProcess(
            engine.home.loop,
            replica,
            number,
            launch,
            environment,
            engine.lifecycle.events.masked.with_more(replica.token, replica.scratch_token),
            self._on_line,
            self._on_exit,
        )
        if launch.configuration.readiness_probe or launch.configuration.liveness_probe:
            self._probes[process] = Probes(
                engine, process, launch, environment, lambda why: self._end_dead(process, why), before_probe
            )
        if launch.server is not None:
            self._serve(launch.server, process)
        return process

    def _serve(self, server: Server, process: ReplicaProcess) -> None:
        from cmemu_nb.executors.servers.executor import ServerExecutor  # noqa: PLC0415 - for server modules only

        process.awaited = f"port {server.port}"
        self._executors[process] = ServerExecutor(self._engine, server, process.replica)

    def _end_dead(self, process: ReplicaProcess, why: str) -> None:
        """End a replica whose liveness probe has failed; it is started again as any that exits."""
        process.dead = why
        self._warn(process, f"Replica {process.number} is ended, because {why}.")
        process.stop()

    def _warn(self, process: ReplicaProcess, text: str) -> None:
        self.logs.append(LogLine(time.time_ns(), process.replica.replica_id, text, "WARNING", by_emulator=True))

    def _on_line(self, line: LogLine) -> None:
        self.logs.append(line)
        if line.job_id and not repeats_result(line):
            error = stream_error(line.message)
            self._engine.lifecycle.log(line.job_id).write(f"{line.level}: {error}\n" if error else f"{line}\n")
            self._explain_stream(line.job_id, error.partition("\n")[0])

    def _explain_stream(self, job_id: str, reason: str) -> None:
        """Keep the reason of a stream that is being broken off, or add it to the job that has failed by that."""
        state = self._engine.lifecycle
        job = state.find_job(job_id) if reason else None
        if job is None:
            return
        if not job.finished:  # the line may come before the beginning of the stream
            state.log(job_id).explain_stream(reason)
        elif (job.error_message or "").startswith(BROKEN_OFF) and reason not in (job.error_message or ""):
            state.add_reason(job_id, reason)

    def _on_exit(self, process: ReplicaProcess, code: int) -> None:
        self._forwarders.close(process.replica)
        self._end_executor(process)
        self._replacements.on_exit(process)
        # Before the exit code is set: other threads must not see a program that has ended and is not to start again.
        reason, consequence = _exit(process, code), self._schedule_restart(process, code)
        process.exit_code = code
        if consequence:
            self._warn(process, f"Replica {process.number} exited ({code}){consequence}.")
        record_exit(self._engine.lifecycle, process.replica, reason, consequence)

    def _schedule_restart(self, process: ReplicaProcess, code: int) -> str:
        """Start a replica that has exited again after a delay; return the clause that says what happens, if any."""
        succeeded = self.mode == Mode.PIPELINE and code == 0
        in_service = process in self.in_service
        if succeeded or self._stopped or not (self._launched and self._launch.restart and in_service):
            return ""
        delay = self._restarts.schedule(process.number)
        if delay is None:
            return f" and is not started again, after {MAX_RESTARTS} restarts in {WINDOW_SECONDS / 60:g} minutes"
        process.backs_off = True
        return f" and starts again in {delay:g} s"

    def _restart_replica(self, number: int) -> None:
        index = next(index for index, each in enumerate(self.replicas) if each.number == number)
        process = self.replicas[index]
        try:
            _check_port(self._launch.server)
            self.replicas[index] = self._start_replica(number, self._launch)
        except (CmemuError, OSError) as error:
            process.backs_off = False
            self._warn(process, f"Replica {number} could not be started again: {error}")
            self._engine.lifecycle.note("replica_exited", self.runtime_id, detail=f"not started again: {error}")

    def _end_executor(self, process: ReplicaProcess) -> None:
        for parts in (self._executors, self._probes):
            if (part := parts.pop(process, None)) is not None:
                part.end()

    async def end(self, reason: str) -> None:
        """End the replicas and wait until their processes have exited."""
        self._stopped = True
        self._restarts.cancel()
        self._end_scaling(reason)
        self._replacements.break_off(reason)
        for task in self._tasks:
            task.cancel()
        for process in self.replicas:
            process.backs_off = False
            self._replacements.end_life(process)
            self._end_process(process, reason)
        await until(self._engine.lifecycle, lambda: not self.running, STOP_SECONDS)

    def _end_scaling(self, reason: str) -> None:
        if self._scaling is None:
            return
        self._scaling.end()
        self._scaling = None
        if self._engine.lifecycle.has_runtime(self.runtime_id):
            self._engine.lifecycle.set_scale(self.runtime_id, None, f"not scaled any more: {reason}")

    async def start_again(self, reason: str) -> None:
        """End the replicas and launch them again."""
        await self.end(reason)
        self.replicas.clear()
        await self.start()

    async def settle(self) -> None:
        """Wait up to one second for the first request of every replica; `LaunchFailed` if one exits or has raised.

        A pipeline may also end with exit code 0 in this second.
        """
        await until(
            self._engine.lifecycle,
            lambda: self._any_failed() or all(map(self._has_settled, self.in_service)),
            SETTLE_SECONDS,
        )
        self._check_exits(" at once")
        self._check_import()
        self._launched = True

    async def _wait_until_responsive(self, timeout: float) -> None:  # noqa: ASYNC109
        responsive = await until(
            self._engine.lifecycle,
            lambda: self._any_failed() or all(map(self._was_responsive, self.in_service)),
            timeout,
        )
        self._check_exits()
        self._check_import()
        if not responsive:
            verb, target = self.readiness
            states = ", ".join(self.states)
            warning = self._forwarders.warning(fixed=self._launch.may_be_java)
            unready = f" The readiness probe failed: {self.unready}." if self.unready else ""
            raise LaunchFailed(
                f"{self.command} did not {verb} {target} within {timeout:g} s: {states}.{unready}{self._other_port()} "
                f"{f'{warning} ' if warning else ''}{self._last_lines()}"
            )

    def _other_port(self) -> str:
        """Return a sentence about the port in the OpenAPI document if the launch names another one, else ""."""
        server = self._launch.server
        if server is None or server.port == server.documented_port:
            return ""
        return f" Its OpenAPI document names port {server.documented_port}; the launch names port {server.port}."

    async def _wait_until_ended(self, timeout: float | None) -> None:  # noqa: ASYNC109
        if not await until(self._engine.lifecycle, lambda: not self.active, timeout):
            states = ", ".join(self.states)
            raise LaunchFailed(f"{self.command} did not end within {timeout:g} s: {states}. {self._last_lines()}")

    def _has_settled(self, process: ReplicaProcess) -> bool:
        """Return whether a replica has polled, or sent another request without having raised while it was imported.

        The schemas of a server module are posted by the emulator, so its first poll is awaited.
        """
        if self._has_succeeded(process):
            return True
        heard = process.replica.heard and not process.awaited
        return process.replica.polls > 0 or (heard and not process.import_error)

    def _was_responsive(self, process: ReplicaProcess) -> bool:
        return process.state == "responsive" or self._has_succeeded(process)

    def _has_succeeded(self, process: ReplicaProcess) -> bool:
        return self.mode == Mode.PIPELINE and process.exit_code == 0

    def _has_failed(self, process: ReplicaProcess) -> bool:
        """Return whether a replica has exited, unless it was responsive before and is to be started again."""
        if process.exit_code is None or self._has_succeeded(process):
            return False
        return not (process.backs_off and (process.replica.polls or self.mode == Mode.PIPELINE))

    def _any_failed(self) -> bool:
        return any(map(self._has_failed, self.in_service))

    def _check_exits(self, when: str = "") -> None:
        for process in self.in_service:
            if self._has_failed(process) and not self._stopped:
                verb, target = self.readiness
                never_ready = self.mode == Mode.FUNCTION and not process.replica.polls
                when = when or (f" before it {verb}ed {target}" if never_ready else "")
                raise LaunchFailed(
                    f"{self.command} ended{when}, with exit code {process.exit_code}. {self._last_lines()}",
                    process.exit_code,
                )

    def _check_import(self) -> None:
        error = self.import_error
        if error:
            raise LaunchFailed(
                f"{self.command} raised an exception while it was imported, so it polls for jobs without any function. "
                f"The end of its traceback:\n{error}"
            )

    def _without_functions(self) -> bool:
        """Return whether the program has posted schemas, as the official SDKs do, but not that of any function."""
        state = self._engine.lifecycle
        if self._stopped or (state.runtime(self.runtime_id).last_schema_post_at or 0) < self._started_at:
            return False
        return all(each.posted_at < self._started_at for each in state.schemas(self.runtime_id))

    def _last_lines(self) -> str:
        tail = self.logs.tail(MAX_LAST_LINES)
        return f"Its last lines:\n{tail}" if tail else "It wrote nothing."

    def __repr__(self) -> str:
        mode = f" ({self.mode})" if self.mode == Mode.PIPELINE else ""
        return f"<Module {self.runtime_id!r}: {self.command}{mode}: {', '.join(self.states) or self._without_replicas}>"

    @property
    def _without_replicas(self) -> str:
        return "scaled to 0 replicas" if self.scaled_to_zero else "not launched"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_module  # noqa: PLC0415 - only a notebook wants it

        return show_module(self)


class Modules(Part):
    """The programs that an emulator has launched: iterable, and accessible by runtime id. They end with their runtime.

    >>> emu.modules
    No program was launched. Try: emu.launch("python app.py")
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._engine.parts.append(self)
        self._modules: list[LaunchedModule] = []
        self.functions = ModuleFunctions(engine, self)
        self._forwarders = Forwarders(engine, self._pid)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribe: Callable[[], None] | None = None

    def launch(
        self,
        command: str | Sequence[str],
        runtime_id: str | None,
        cwd: str | None,
        configuration: Mapping[str, Any],
        *,
        restart: bool,
        image: str | None = None,
    ) -> LaunchedModule:
        """Launch a program or an image for a runtime, as `Emulator.launch` describes it."""
        launch = Launch([], cwd, configuration, restart=restart).running(command, image)
        name = runtime_name(launch.command) if image is None else image_runtime(image)
        runtime_id = checked_runtime_id(runtime_id or name)
        launch = launch.on(self._engine, runtime_id)
        with opened_runtime(self._engine, runtime_id) as opened:
            _check(launch)
            module = LaunchedModule(self._engine, self._forwarders, opened, launch)
            self._engine.home.run(self._start(module))
        return module

    async def _start(self, module: LaunchedModule) -> None:
        self._unsubscribe = self._unsubscribe or self._engine.lifecycle.events.subscribe(self._on_event)
        self._modules.append(module)
        try:
            await module.start()
            await module.settle()
        except BaseException:
            # It stays listed until its processes have ended: a user who interrupts this can still see and stop them.
            await module.end("the module could not be launched")
            if module in self._modules:
                self._modules.remove(module)
            raise

    def of(self, runtime_id: str) -> list[LaunchedModule]:
        """Return a runtime's modules."""
        return [module for module in self._modules if module.runtime_id == runtime_id]

    def __iter__(self) -> Iterator[LaunchedModule]:
        return iter(list(self._modules))

    def __len__(self) -> int:
        return len(self._modules)

    def __contains__(self, runtime_id: object) -> bool:
        return any(module.runtime_id == runtime_id for module in self)

    def __getitem__(self, runtime_id: str) -> LaunchedModule:
        """Return a runtime's module, the newest if it has several; `NotFound` lists the runtimes that have one."""
        found = self.of(runtime_id)
        if not found:
            names = {module.runtime_id for module in self}
            raise NotFound(
                f"No program was launched for runtime {runtime_id!r}.{closest(str(runtime_id), names)} "
                f"{known(names, 'modules')}"
            )
        return found[-1]

    @property
    def nothing(self) -> str:
        """The message to show when no program was launched."""
        return f'No program was launched. Try: {self._engine.name}.launch("python app.py")'

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or self.nothing

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_modules  # noqa: PLC0415 - only a notebook wants it

        return show_modules(self)

    def any_running(self) -> bool:
        """Return whether any replica of any module runs or is to be started again."""
        return any(module.active for module in self._modules) or bool(self._tasks)

    def stop(self, runtime_id: str) -> None:
        """End a runtime's modules."""
        for module in self.of(runtime_id):
            self._modules.remove(module)
            module.stop()

    async def stopping(self, reason: str) -> None:
        """End every program, including those that are being ended or restarted."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        modules, self._modules = self._modules, []
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        ended = await asyncio.gather(*(module.end(reason) for module in modules), return_exceptions=True)
        await self._forwarders.close_all()
        for error in filter(None, ended):
            raise error

    def _on_event(self, event: Event) -> None:
        """Follow the jobs and the sessions of the runtimes that have modules."""
        if event.job_id is not None:
            self._on_event_of_job(event.kind, event.runtime_id or "", event.job_id)
        elif event.kind in ("schemas_posted", "replicas_switched"):
            self._note_import_error(event.runtime_id or "")
        elif event.kind in ENDS_SESSION:
            self._on_end_of_session(event)

    def _note_import_error(self, runtime_id: str) -> None:
        """Record whether a program raised while it was imported: it has written its traceback before its schemas."""
        processes = [each for module in self.of(runtime_id) for each in module.in_service]
        for process in processes:
            process.read_available_output()
        if processes:
            errors = (process.import_error for process in processes)
            self._engine.lifecycle.set_import_error(runtime_id, next(filter(None, errors), ""))

    def _on_event_of_job(self, kind: str, runtime_id: str, job_id: str) -> None:
        job = self._engine.lifecycle.find_job(job_id)
        if kind == "job_started" and job is not None:
            self._note_start(job)
        if kind in ENDS_RUN:
            for process in self._processes(runtime_id):
                process.end_job(job_id)
        if kind in FINISHES_JOB and job is not None:
            self.functions.count(job)
            self._explain_unknown(job)
        if kind == "job_queued" and self._engine.lifecycle.runtime(runtime_id).polling == Mode.PIPELINE:
            self._engine.home.loop.call_soon(self._refuse, job_id)

    def _on_end_of_session(self, event: Event) -> None:
        """Restart a runtime's modules after a reset, which revokes their tokens, and end them after its deletion."""
        runtime_id = event.runtime_id or ""
        if event.kind == "session_deleted":
            self.functions.forget(runtime_id)
        for module in self.of(runtime_id):
            if event.kind == "session_reset" and module.active:
                change = self._start_again(module, "the runtime session was reset")
            else:
                self._modules.remove(module)
                change = module.end("the runtime session was deleted")
            task = self._engine.home.loop.create_task(change)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _start_again(self, module: LaunchedModule, reason: str) -> None:
        """Launch a module again; an error, such as a configuration that is no longer valid, becomes an event."""
        try:
            await module.start_again(reason)
        except CmemuError as error:
            detail = f"{module.command} was not started again: {error}"
            self._engine.lifecycle.note("log", module.runtime_id, detail=detail)

    def _refuse(self, job_id: str) -> None:
        """Fail a job that was queued for a pipeline, which takes no jobs, and that no other executor has taken."""
        state = self._engine.lifecycle
        job = state.find_job(job_id)
        if job is not None and job.status == JobStatus.QUEUED:
            state.fail(job.job_id, f"{quoted(job.query_type)} can't be called: {takes_no_jobs(job.runtime_id)}")

    def _explain_unknown(self, job: Job) -> None:
        """Explain why a replica does not know a function, if its program raised an exception while it was imported."""
        if job.result != UNKNOWN_QUERY_TYPE:
            return
        process = self.process_of(job)
        if process is not None and process.import_error:
            self._engine.lifecycle.log(job.job_id).explain(
                f"Unknown query type: the module {quoted(job.runtime_id)} raised an exception while it was imported, "
                f"before it had defined {quoted(job.query_type)}. The end of its traceback:\n{process.import_error}"
            )

    def _note_start(self, job: Job) -> None:
        process = self.process_of(job)
        if process is not None:
            process.begin_job(job.job_id)
            if not process.awaited:
                process.note_workers(job.job_id)

    def process_of(self, job: Job) -> ReplicaProcess | None:
        """Return the process of the replica that took a job; None if it was not launched here."""
        processes = self._processes(job.runtime_id)
        return next((each for each in processes if each.replica.replica_id == job.replica_id), None)

    def _processes(self, runtime_id: str) -> list[ReplicaProcess]:
        return [process for module in self.of(runtime_id) for process in module.replicas]

    def _pid(self, replica: Replica) -> int | None:
        """Return the process id of the program that runs as a replica; None if it has none yet."""
        processes = self._processes(replica.runtime_id)
        return next((each.pid for each in processes if each.replica is replica), None)


def _exit(process: ReplicaProcess, code: int) -> str:
    """Return the clause that says how a replica has ended."""
    return f"exited with code {code} ({process.dead})" if process.dead else f"exited with code {code}"


def read_command(command: str | Sequence[str]) -> list[str]:
    """Return the arguments of a command line or a list; `python` is replaced by the current interpreter."""
    arguments = split_command(command)
    if not arguments:
        raise InvalidRequest("launch() needs a command, such as 'python app.py', or an image.")
    if arguments[0] in PYTHONS:
        arguments[0] = sys.executable
    return arguments


def split_command(command: str | Sequence[str]) -> list[str]:
    """Return the arguments of a command line or a list, as they are."""
    try:
        arguments = shlex.split(command) if isinstance(command, str) else [str(each) for each in command]
    except ValueError as error:
        raise InvalidRequest(f"The command can't be split into arguments: {error}. Close each quotation.") from None
    if any("\0" in each for each in arguments):
        raise InvalidRequest("The command has a null character, which no argument of a program can have.")
    return arguments


def runtime_name(arguments: list[str]) -> str:
    """Return the runtime id that a command suggests: `app` for `python app.py`."""
    files = [each for each in arguments[1:] if not each.startswith("-")]
    return Path(files[0] if files else "").stem or Path(arguments[0]).stem or "module"


def _check(launch: Launch) -> None:
    cwd = launch.cwd or "."
    if not Path(cwd).is_dir():
        raise LaunchFailed(f"The directory {cwd!r} does not exist. Give an existing one as cwd.")
    _check_program(launch, cwd)
    _check_port(launch.server)


def _check_port(server: Server | None) -> None:
    if server is not None and server.in_use():
        raise LaunchFailed(
            f"Another program listens on port {server.port} already, perhaps an earlier launch. End it, or launch this "
            f"one {_with_other_port(server.port)}."
        )


def _server(configuration: Configuration, cwd: str | None) -> Server | None:
    """Return the server that a configuration describes, None if it describes none."""
    if configuration.server is None:
        return None
    from cmemu_nb.executors.servers.server import read_server  # noqa: PLC0415 - for server modules only

    server = read_server(configuration.server, cwd)
    if configuration.mode == Mode.PIPELINE:
        raise InvalidRequest("A program in pipeline mode takes no jobs, so it can't be a server module, too.")
    if configuration.replicas > 1:
        raise InvalidRequest(
            f"A server module has one replica here, because each further one would need port {server.port}, too. "
            "max_concurrent_tasks sends it several jobs at a time. For a second one, launch another runtime "
            f"{_with_other_port(server.port)}."
        )
    return server


def _check_scaling(configuration: Configuration) -> None:
    scaling = configuration.scaling
    if scaling is None:
        return
    if configuration.mode == Mode.PIPELINE:
        raise InvalidRequest("A program in pipeline mode takes no jobs, so it can't be scaled by them.")
    if configuration.replicas != 1:
        raise InvalidRequest(
            f"The configuration has both replicas={configuration.replicas} and a scaling, which decides on the number "
            "of replicas. Leave out one of them: min and max of the scaling are the smallest and largest number."
        )
    if configuration.server is not None and scaling.max > 1:
        raise InvalidRequest(
            "A server module has one replica here, because each further one would need its port, too. Give its scaling "
            "max=1."
        )


def _check_probes(configuration: Configuration) -> None:
    probes = filter(None, (configuration.readiness_probe, configuration.liveness_probe))
    port = next((probe.port for probe in probes if probe.port), None)
    replicas = configuration.scaling.max if configuration.scaling else configuration.replicas
    if port is not None and replicas > 1:
        raise InvalidRequest(
            f"A program with an HTTP probe has one replica here, because each further one would need port {port}, too. "
            "Give it one replica, or a probe with a command."
        )


def _check_lifetime(launch: Launch) -> None:
    configuration = launch.configuration
    if configuration.max_lifetime is not None and (configuration.mode == Mode.PIPELINE or launch.ports):
        why = "takes no jobs" if configuration.mode == Mode.PIPELINE else f"needs port {min(launch.ports)}"
        raise InvalidRequest(
            "max_lifetime replaces a replica by another one, which is started beside it. This program "
            f"{why}, so no other one can take its place. Leave max_lifetime out."
        )


def _with_other_port(port: int) -> str:
    return f"with another port, if the program can listen on one: server={{'port': {port + 1}, ...}}"


def _check_program(launch: Launch, cwd: str) -> None:
    """Raise `LaunchFailed` if the program is not found where the process will look for it: from `cwd`, or on PATH."""
    program = launch.command[0]
    path = launch.configuration.environment.get("PATH", launch.path)
    # os.path.join keeps the "./" of "./start.sh", by which shutil.which knows a path from a name to find on PATH.
    file = os.path.join(cwd, program)  # noqa: PTH118
    if shutil.which(file if os.sep in program else program, path=path) is not None:
        return
    if os.sep not in program:
        beside = f" The directory has a file of that name: './{program}' runs it." if Path(file).is_file() else ""
        raise LaunchFailed(f"There is no program {program!r} on the PATH. Install it, or give its whole path.{beside}")
    if Path(file).is_file():
        raise LaunchFailed(
            f"The file {program!r} is not executable. Make it so: chmod +x {shlex.quote(str(Path(file)))}"
        )
    raise LaunchFailed(
        f"There is no program {program!r} in {os.fspath(Path(cwd).absolute())!r}. A relative path starts at cwd, which "
        "is the current directory by default."
    )
