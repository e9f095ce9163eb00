"""One replica of a launched program: its process, its output, and its end. On the emulator's loop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cmemu_nb.executors.modules.logs import read_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cmemu_nb.eventloop.loop import EmulatorLoop
    from cmemu_nb.executors.modules.logs import LogLine
    from cmemu_nb.lifecycle.session import Replica

GUARD = str(Path(__file__).parent / "nanny.py")
MOST_AT_ONCE = 65_536
LONGEST_LINE = 1_000_000


class ReplicaProcess:
    """A program in a process group of its own, which kernel interrupts do not reach and which no kernel outlives.

    `on_line(line)` is called with each line that it writes, as `masked(text)` returns it, which hides its secrets;
    `on_exit(self)` when it has ended.
    """

    def __init__(
        self,
        loop: EmulatorLoop,
        replica: Replica,
        command: list[str],
        environment: Mapping[str, str],
        cwd: str | None,
        masked: Callable[[str], str],
        on_line: Callable[[LogLine], None],
        on_exit: Callable[[ReplicaProcess], None],
    ) -> None:
        self.replica = replica
        self.exit_code: int | None = None
        self._loop = loop
        self._on_line = on_line
        self._on_exit = on_exit
        self.pid: int | None = None
        """The program's process id; None until it has begun."""
        self._masked = masked
        self._rest = b""
        self._overlong = False
        leash, self._leash = os.pipe()
        self._output, output = os.pipe()
        self._ended, ended = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - what the user typed
                [sys.executable, "-ISE", GUARD, str(ended), *command],
                stdin=leash,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=environment,
                pass_fds=(ended,),
                start_new_session=True,
            )
        except BaseException:
            for descriptor in (self._leash, self._output, self._ended):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (leash, output, ended):
                os.close(descriptor)
        os.set_blocking(self._output, False)
        loop.add_reader(self._output, self._read_output)
        loop.add_reader(self._ended, self._hear_guard)

    @property
    def state(self) -> str:
        """One of starting, started (it was heard of), responsive (it has polled for jobs), stopping, exited(code)."""
        if self.exit_code is not None:
            return f"exited({self.exit_code})"
        if self.replica.revoked:
            return "stopping"
        if self.replica.polls:
            return "responsive"
        return "started" if self.replica.heard else "starting"

    def stop(self) -> None:
        """End the program and all that it started; it has three seconds to do so by itself."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    def __repr__(self) -> str:
        return f"<ReplicaProcess {self.replica.replica_id!r}: pid {self.pid}, {self.state}>"

    def _read_output(self) -> None:
        try:
            piece = os.read(self._output, MOST_AT_ONCE)
        except BlockingIOError:
            return
        if not piece:
            self._loop.remove_reader(self._output)
            return
        self._take(piece)

    def _take(self, piece: bytes) -> None:
        """Take lines apart. Of one that is too long the beginning counts: a secret might be cut by another division."""
        *lines, rest = (self._rest + piece).split(b"\n")
        if self._overlong and lines:
            del lines[0]
            self._overlong = False
        if len(rest) > LONGEST_LINE:
            lines.append(rest)
            self._overlong = True
        self._rest = b"" if self._overlong else rest
        for line in lines:
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        # A program that prints its environment or its headers would leave its secrets in a saved notebook.
        self._on_line(read_line(self.replica.replica_id, line, self._masked))

    def _hear_guard(self) -> None:
        """Read the program's process id, and after that the end, when the guard has ended."""
        told = os.read(self._ended, MOST_AT_ONCE)
        if told:
            self.pid = int(told)
        else:
            self._exited()

    def _exited(self) -> None:
        """Clean up: the guard has closed its end, so it is gone, and the program with it."""
        self._loop.remove_reader(self._ended)
        code = self._process.wait()
        if code < 0 and self.pid is not None:  # the guard was killed, and could not end the program's group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.exit_code = code if code >= 0 else 128 - code  # as shells say it
        self._read_the_rest()
        self.stop()
        for descriptor in (self._output, self._ended):
            os.close(descriptor)
        self._on_exit(self)

    def _read_the_rest(self) -> None:
        self._loop.remove_reader(self._output)
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._output, MOST_AT_ONCE):
                self._take(piece)
        if self._rest:
            self._tell(self._rest)
