"""Start and stop do all of their work or none: interrupted at any moment, or when any part of them fails."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import pydoc
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from leaks import Leaks
from moments import interrupted_at, moments_of

from cmemu_nb import Emulator
from cmemu_nb.engine.log_filter import LOGGERS
from cmemu_nb.errors import CmemuError, HomeError, StopWarning
from cmemu_nb.storage.private_files import PrivateFiles, remove_left_directories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


def answers(emu: Emulator) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", emu.port), timeout=10) as connection:
        connection.sendall(b"GET /_emulate/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        return connection.recv(12).endswith(b" 200")
    return False


def listeners(emu: Emulator) -> int:
    return len(emu.lifecycle.events._subscribers)  # noqa: SLF001 - nothing shows it from outside


def check_stopped(emu: Emulator, leaks: Leaks, listening: int) -> None:
    """Check that nothing of an emulator is left in this process."""
    assert not emu.running
    assert leaks.left() == []
    assert listeners(emu) == listening, list(emu.lifecycle.events._subscribers.values())  # noqa: SLF001
    filters = [each for name in LOGGERS for each in sys.modules["logging"].getLogger(name).filters]
    assert not [each for each in filters if getattr(each, "_lifecycle", None) is emu.lifecycle]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def check_serves_and_stops(emu: Emulator) -> None:
    assert answers(emu)
    emu.stop()
    assert not emu.running
    assert not answers(emu)


@pytest.fixture
def emu(tmp_path: Path) -> Iterator[Emulator]:
    """A stopped emulator with a journal and a function, which has been started before."""
    emulator = Emulator(port=0, home="thread", journal=str(tmp_path / "journal"), job_timeout=60)
    with emulator:

        @emulator.function
        def double(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
            return 2

    yield emulator
    emulator.stop()


def spread(count: int) -> list[int]:
    """Return every moment, or as many of them as a short run has time for, spread evenly, with both ends."""
    most = count if os.environ.get("CMEMU_LONG") else 150
    return sorted({*range(10), *range(count - 25, count), *range(0, count, max(1, count // most))})


def test_a_start_can_be_interrupted_at_any_moment(emu: Emulator) -> None:
    leaks, listening = Leaks(None), listeners(emu)
    moments = moments_of(emu.start)
    emu.stop()
    assert moments > 500
    for number in spread(moments):
        interrupted_at(number, emu.start)
        if emu.running:  # it was as good as done
            check_serves_and_stops(emu)
        check_stopped(emu, leaks, listening)
    with emu:
        assert emu.call("double") == 2


def test_a_stop_can_be_interrupted_at_any_moment(emu: Emulator) -> None:
    leaks, listening = Leaks(None), listeners(emu)
    emu.start()
    moments = moments_of(emu.stop)
    for number in spread(moments):
        emu.start()
        interrupted_at(number, emu.stop)
        if emu.running:
            assert number < 100  # before the interrupts are deferred
            check_serves_and_stops(emu)
        check_stopped(emu, leaks, listening)
    with emu:
        assert emu.call("double") == 2


# Parts that fail


def no_certificate(*_: object) -> None:
    raise OSError(errno.EACCES, "Permission denied", "/unwritable")


def no_part(*_: object, **__: object) -> None:
    raise RuntimeError("this part fails")


BREAKS = {
    "certificates": ("cmemu_nb.engine.identity.Certificates", no_certificate),
    "home": ("cmemu_nb.eventloop.home.start_thread", no_part),
    "log": ("cmemu_nb.engine.engine.OwnLog", no_part),
    "leases": ("cmemu_nb.engine.engine.Leases", no_part),
    "application": ("cmemu_nb.engine.engine.Application", no_part),
    "eviction": ("cmemu_nb.engine.engine.Eviction", no_part),
    "server": ("cmemu_nb.engine.engine.GuardedServer.add_sockets", no_part),
    "functions": ("cmemu_nb.executors.cells.functions.Functions.started", no_part),
    "cells": ("cmemu_nb.engine.engine.watch_cells", no_part),
    "journal": ("cmemu_nb.storage.journal.Journal.__init__", no_part),
}


@pytest.mark.parametrize("part", BREAKS)
def test_a_start_of_which_one_part_fails_leaves_nothing_and_the_next_one_works(
    emu: Emulator, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vars(emu._engine.identity).pop("certificates", None)  # noqa: SLF001
    leaks, listening, started_at = Leaks(None), listeners(emu), emu.started_at
    with monkeypatch.context() as patch:
        patch.setattr(*BREAKS[part])
        with pytest.raises((RuntimeError, HomeError), match=r"this part fails|can't be started: .*Permission denied"):
            emu.start(execute_timeout=7)
        check_stopped(emu, leaks, listening)
        assert emu.started_at == started_at
        assert emu.settings.execute_timeout != 7
    with emu:
        assert emu.call("double") == 2


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open only so many files more."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_start_without_file_descriptors_fails_in_our_own_words_and_leaves_nothing(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmemu_nb.engine.engine.RESUME_SECONDS", 0.5)
    leaks, listening = Leaks(None), listeners(emu)
    failed = 0
    for count in range(60):
        try:
            with descriptors_left(count):
                emu.start()
                emu.stop()
        except CmemuError as error:
            assert str(error).startswith(("The emulator can't", "The journal", "Listening on"))  # noqa: PT017
            failed += 1
        else:
            break
        check_stopped(emu, leaks, listening)
    assert failed >= 8
    emu.start()
    check_serves_and_stops(emu)


def test_private_files_that_can_t_be_deleted_now_are_not_locked_any_more_and_the_next_start_deletes_them() -> None:
    files = PrivateFiles()
    files.write("token", b"x")
    with descriptors_left(0):
        files.close()
    assert files.path.exists()
    remove_left_directories()
    assert not files.path.exists()


def test_a_warning_that_is_an_error_leaves_no_port_taken(emu: Emulator) -> None:
    leaks, listening = Leaks(None), listeners(emu)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(UserWarning, match="in use"):
            emu.start(tls_port=taken.getsockname()[1])
        assert not emu.running
    check_stopped(emu, leaks, listening)
    with emu:
        assert emu.call("double") == 2


@pytest.mark.parametrize(
    "part",
    [
        "storage.live_file.LiveFile.close",
        "engine.fault_injection.FaultInjection.stopping",
        "executors.cells.executor.NotebookExecutor.end",
        "executors.modules.modules.Modules.stopping",
        "executors.cluster.clusters.Clusters.stopping",
        "clients.contour.ContourClient.close",
        "server.connection_limits.GuardedServer.stop",
        "lifecycle.retention.Eviction.close",
        "lifecycle.leases.Leases.close",
        "storage.journal.Journal.close",
    ],
)
def test_a_part_that_fails_to_end_is_reported_and_all_others_end(
    emu: Emulator, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    end: Callable[..., object] = pydoc.locate(f"cmemu_nb.{part}")  # type: ignore[assignment]

    def end_and_fail(*arguments: object) -> None:
        if not inspect.iscoroutinefunction(end):
            end(*arguments)
        no_part()

    before = set(threading.enumerate())
    assert len(emu.modules) == len(list(emu.clusters)) == 0  # as parts, they are made by their first use
    with monkeypatch.context() as patch:
        patch.setattr(f"cmemu_nb.{part}", end_and_fail)
        emu.start()
        with pytest.warns(StopWarning, match="is stopped, but parts of it failed to stop: .*this part fails"):
            emu.stop()
    assert not emu.running
    assert not answers(emu)
    assert not [each for each in threading.enumerate() if each.name.startswith("cmemu") and each not in before]
    assert "this part fails" in str(emu.lifecycle.events.recent()[-1].detail)
    with emu:
        assert emu.call("double") == 2


def test_a_listener_that_stops_the_emulator_while_it_starts_hangs_nothing(emu: Emulator) -> None:
    raised: list[str] = []

    def stop(event: Any) -> None:
        if event.kind == "emulator_started":
            try:
                emu.stop()
            except HomeError as error:
                raised.append(str(error))

    unsubscribe = emu.lifecycle.events.subscribe(stop)
    with emu:
        assert emu.call("double") == 2
    unsubscribe()
    assert "can't be stopped from one of its own event callbacks" in raised[0]
