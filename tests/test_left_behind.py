"""What a process that is killed leaves behind: the next one that starts removes it, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from cmemu_nb.storage.private_files import PREFIX

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

PROCESS = """
    import sys, time
    from cmemu_nb import Emulator
    emu = Emulator(port=0, home="thread").start()
    emu.open_runtime("r")
    emu.env("r")
    emu.files.folder("module-r").joinpath("app.py").write_text("secret = 1")
    emu.files.folder("module-r").joinpath("node_modules").symlink_to("{kept}")
    print(emu.files.path, emu.certificates.authority_path, flush=True)
    sys.stdin.read()
"""


class Places:
    """A temporary directory and Jupyter's runtime directory, for processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.temporary, self.runtime, self.kept = folder / "tmp", folder / "runtime", folder / "kept"
        for each in (self.temporary, self.runtime, self.kept):
            each.mkdir()
        (self.kept / "file").touch()

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "TMPDIR": str(self.temporary), "JUPYTER_RUNTIME_DIR": str(self.runtime)}
        command = [sys.executable, "-c", textwrap.dedent(PROCESS.format(kept=self.kept))]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline()
        return process

    def found(self) -> set[Path]:
        return {*self.temporary.iterdir(), *self.runtime.iterdir()}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_the_next_start_removes_what_a_killed_process_has_left(places: Places) -> None:
    with places.start() as killed:
        left = places.found()
        assert len(left) == 2
        killed.kill()
    assert places.found() == left
    with places.start() as other:
        living = places.found()
        assert len(living) == 2
        assert living.isdisjoint(left)
        with places.start() as third:
            assert living < places.found()
            third.communicate()
        assert places.found() == living
        other.communicate()
    assert places.found() == set()
    assert (places.kept / "file").exists()


def test_nothing_else_is_removed(places: Places) -> None:
    files = places.temporary
    (files / f"{PREFIX}link").symlink_to(places.kept)
    (files / f"{PREFIX}file").touch()
    for name, rights in (("open", 0o755), ("other", 0o700)):
        (files / f"{PREFIX}{name}").mkdir(mode=rights)
        (files / f"{PREFIX}{name}" / "mine").touch()
    trap = files / f"{PREFIX}trap"
    trap.mkdir(mode=0o700)
    (trap / "lock").symlink_to(places.kept / "file")
    (places.runtime / "cmemu-link.json").symlink_to(places.kept / "file")
    (places.runtime / f"cmemu-{os.getpid()}.json").touch()  # as while it is being written
    (places.runtime / "kernel-1.json").write_text("{}")
    before = places.found()
    with places.start() as process:
        assert before < places.found()
        process.communicate()
    assert places.found() == before
    assert (places.kept / "file").exists()
    # An empty one and a file that was being written are of processes that were killed in that moment.
    (files / f"{PREFIX}empty").mkdir(mode=0o700)
    (places.runtime / ".cmemu-4194304.json").write_text("{")
    with places.start() as process:
        process.communicate()
    assert places.found() == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")
def test_another_user_s_are_left_alone(places: Places) -> None:
    with places.start() as killed:
        left = places.found()
        killed.send_signal(signal.SIGKILL)
    for path in left:
        os.chown(path, 65534, 65534)
    with places.start() as process:
        process.communicate()
    assert places.found() == left
