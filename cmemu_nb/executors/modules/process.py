"""The process of one replica of a launched program. It is used on the emulator's loop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cmemu_nb.executors.modules import nanny
from cmemu_nb.executors.modules.import_errors import MAX_STARTUP_LINES, import_error
from cmemu_nb.executors.modules.logs import read_line
from cmemu_nb.executors.modules.workers import Workers
from cmemu_nb.lifecycle.records import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cmemu_nb.eventloop.loop import EmulatorLoop
    from cmemu_nb.executors.modules.logs import LogLine
    from cmemu_nb.executors.modules.modules import Launch
    from cmemu_nb.lifecycle.session import Replica

MAX_READ = 65_536
MAX_LINE = 1_000_000


class ReplicaProcess:
    """A program in a process group of its own: interrupts of the kernel do not reach it, and it ends with the kernel.

    `number` is that of the replica in its module. `on_line(line)` is called with each line that it writes, after
    `masked(text)` has hidden its secrets, and `on_exit(self, code)`, which sets `exit_code`, when it has ended.
    `awaited` is what its first poll waits for, such as "port 8000", else "".
    """

    awaited = ""

    def __init__(
        self,
        loop: EmulatorLoop,
        replica: Replica,
        number: int,
        launch: Launch,
        environment: Mapping[str, str],
        masked: Callable[[str], str],
        on_line: Callable[[LogLine], None],
        on_exit: Callable[[ReplicaProcess, int], None],
    ) -> None:
        self.replica = replica
        self.number = number
        self.decommissioned = False
        """Whether it gets no more jobs, and is ended when it has none."""
        self.exit_code: int | None = None
        self.dead = ""
        """Why it was ended: what its liveness probe has shown; else ""."""
        self.backs_off = False
        """Whether the program has exited and another process is to take its place."""
        self._loop = loop
        self._mode = launch.configuration.mode
        self._on_line = on_line
        self._on_exit = on_exit
        self.pid: int | None = None
        """The program's process id; None until it has started."""
        self._workers = Workers()
        self._masked = masked
        self._unfinished_line = b""
        self._skips_line = False
        self._startup_lines: deque[LogLine] = deque(maxlen=MAX_STARTUP_LINES)
        self._job_id: str | None = None
        self._closed = False
        stdin, self._nanny_stdin = os.pipe()
        self._output, output = os.pipe()
        self._nanny_news, nanny_news = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user typed the command
                [sys.executable, "-ISE", nanny.__file__, str(nanny_news), *launch.command],
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd=launch.cwd,
                env=environment,
                pass_fds=(nanny_news,),
                start_new_session=True,
            )
        except BaseException:
            for descriptor in (self._nanny_stdin, self._output, self._nanny_news):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (stdin, output, nanny_news):
                os.close(descriptor)
        os.set_blocking(self._output, False)
        loop.add_reader(self._output, self._read_output)
        loop.add_reader(self._nanny_news, self._on_nanny_news)

    @property
    def state(self) -> str:
        """Starting, started, standby, responsive, unresponsive, decommissioned, stopping, backing off or exited(code).

        It is started when it has sent a request, and responsive when it has polled and its readiness probe succeeds;
        then it is on standby if it gets no jobs yet. It is unresponsive when that probe fails again, and backs off when
        it has exited and is to be started again. A program in pipeline mode need not poll, so it is responsive while it
        runs. A server module is "waiting for port 8000" until it listens.
        """
        if self.backs_off:
            return "backing off"
        if self.exit_code is not None:
            return f"exited({self.exit_code})"
        return self._state_while_it_runs()

    def _state_while_it_runs(self) -> str:
        if self.replica.revoked:
            return "stopping"
        if self.decommissioned:
            return "decommissioned"
        if self.replica.ready is False:
            return "unresponsive"
        if self.replica.ready and (self.replica.polls or self._mode == Mode.PIPELINE):
            return "standby" if self.replica.standby else "responsive"
        if self.awaited:
            return f"waiting for {self.awaited}"
        return "started" if self.replica.heard else "starting"

    @property
    def has_been_responsive(self) -> bool:
        """Whether it has polled, and its readiness probe has succeeded."""
        return self.replica.polls > 0 and self.replica.ready is not None

    @property
    def import_error(self) -> str:
        """The last lines of the traceback of an exception that the program raised while it was imported, else ""."""
        return import_error(self._startup_lines.copy())

    def read_available_output(self) -> None:
        """Read what the program has written until now, at most a megabyte: it may write without end."""
        if self._closed:
            return
        with contextlib.suppress(BlockingIOError):
            for _ in range(MAX_LINE // MAX_READ):
                if not (piece := os.read(self._output, MAX_READ)):
                    break
                self._split(piece)

    def begin_job(self, job_id: str) -> None:
        """Note that the replica has received a job: what it writes until the job ends belongs to this job.

        That is known only of a replica that runs one job at a time.
        """
        self.read_available_output()
        self._job_id = job_id if self.replica.max_concurrent_tasks == 1 else None

    def end_job(self, job_id: str) -> None:
        """Note that a job has ended; what the program wrote before it posted the result still belongs to the job."""
        if self._job_id == job_id:
            self.read_available_output()
            self._job_id = None

    def note_workers(self, job_id: str) -> None:
        """Note which worker processes the program has, for a job that starts."""
        if self.pid is not None:
            self._workers.note(self.pid, job_id, self.replica.held)

    def lost_workers(self, job_id: str) -> list[int]:
        """Return the process ids of the workers that have ended since a job started, while the program runs."""
        return [] if self.pid is None or self.exit_code is not None else self._workers.lost(self.pid, job_id)

    def stop(self) -> None:
        """End the program and the processes that it started; SIGTERM gives them three seconds to end by themselves."""
        if self._nanny_stdin >= 0:
            os.close(self._nanny_stdin)
            self._nanny_stdin = -1

    def __repr__(self) -> str:
        return f"<ReplicaProcess {self.replica.replica_id!r}: pid {self.pid}, {self.state}>"

    def _read_output(self) -> None:
        try:
            piece = os.read(self._output, MAX_READ)
        except BlockingIOError:
            return
        if not piece:
            self._loop.remove_reader(self._output)
            return
        self._split(piece)

    def _split(self, piece: bytes) -> None:
        """Split output into lines. An overlong line is cut after its beginning: other cuts could divide a secret."""
        *lines, rest = (self._unfinished_line + piece).split(b"\n")
        if self._skips_line and lines:
            del lines[0]
            self._skips_line = False
        if len(rest) > MAX_LINE:
            lines.append(rest)
            self._skips_line = True
        self._unfinished_line = b"" if self._skips_line else rest
        for line in lines:
            self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        # A program may print its environment or its headers; unmasked, a saved notebook would contain the secrets.
        read = read_line(self.replica.replica_id, line, self._masked)
        if read.job_id is None and self._job_id is not None:
            read = replace(read, job_id=self._job_id)
        if not self.replica.polls:
            self._startup_lines.append(read)
        self._on_line(read)

    def _on_nanny_news(self) -> None:
        """Read the program's process id, and later the end of the pipe, when the nanny has ended."""
        pid = os.read(self._nanny_news, MAX_READ)
        if pid:
            self.pid = int(pid)
        else:
            self._clean_up()

    def _clean_up(self) -> None:
        """Read the exit code and the last output, close everything, and report the end: the nanny has ended."""
        self._loop.remove_reader(self._nanny_news)
        code = self._process.wait()
        if code < 0 and self.pid is not None:  # the nanny was killed, and could not end the program's group
            nanny.signal_group(self.pid, signal.SIGKILL)
        self._read_last_output()
        self.stop()
        self._closed = True
        for descriptor in (self._output, self._nanny_news):
            os.close(descriptor)
        self._on_exit(self, nanny.exit_code(code))

    def _read_last_output(self) -> None:
        self._loop.remove_reader(self._output)
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._output, MAX_READ):
                self._split(piece)
        if self._unfinished_line:
            self._pass_on(self._unfinished_line)
