"""`cmemu serve`: an emulator without a notebook."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import warnings
from typing import TYPE_CHECKING

from cmemu_nb.arguments import add_seed, add_settings, given_settings
from cmemu_nb.cli.parser import Commands, Parser, add_command, does
from cmemu_nb.cli.stderr_writer import StderrWriter
from cmemu_nb.cli.ui import address, open_browser
from cmemu_nb.emulator import Emulator
from cmemu_nb.errors import WARNINGS, JournalError, SettingError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from cmemu_nb.lifecycle.events import Event

FAULTS = frozenset(
    {"executor_restarted", "internal_error", "journal_failed", "listener_failed", "live_file_failed", "log"}
)


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `serve`."""
    parser = parsers["serve"] = add_command(
        commands,
        "serve",
        "Run an emulator without a notebook, until SIGTERM or Ctrl-C.",
        "  cmemu serve --port 4000 --print-token\n  cmemu serve --ui\n  cmemu serve --tls --journal lifecycle.db\n"
        "  cmemu serve --seed seed.yaml",
    )
    add_start_options(parser)
    does(parser, _serve)


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a start: the settings, the seed file, and what is printed after the start."""
    add_settings(parser.add_argument_group("settings of the emulator"), notebook=False)
    add_seed(parser)
    parser.add_argument(
        "--print-token", action="store_true", help="Print the bearer token even if stdout is not a terminal."
    )
    parser.add_argument(
        "--ui",
        action="store_true",
        help="Print the address of the dashboard, with the token if that is printed too, and open it in a browser.",
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="Print the HTTPS address of the platform routes, which are always served, and the path of the "
        "certificate authority that clients must trust.",
    )


def _serve(parser: Parser, options: argparse.Namespace) -> int:
    signals = Signals()
    with started(parser, options):
        signals.wait()
    return 0


@contextlib.contextmanager
def started(parser: Parser, options: argparse.Namespace) -> Iterator[Emulator]:
    """Start an emulator with the options' settings, print its address, and stop it at the end of the block."""
    with running(parser, options) as emulator:
        print(f"The emulator is at {emulator.url}", flush=True)
        if emulator.proxy_url is not None:
            print(f"Through the hub, for requests with a token: {emulator.proxy_url}", flush=True)
        shown_token = emulator.token if options.print_token or sys.stdout.isatty() else ""
        if shown_token:
            print(f"Bearer token: {emulator.token}", flush=True)
        if options.ui:
            print(f"The dashboard is at {address(emulator.url, shown_token)}", flush=True)
            open_browser(emulator.url, emulator.token)
        if options.tls:
            print(f"The platform routes are at {emulator.platform_url}", flush=True)
            print(f"Certificate authority: {emulator.certificates.authority_path}", flush=True)
        yield emulator


@contextlib.contextmanager
def running(parser: Parser, options: argparse.Namespace) -> Iterator[Emulator]:
    """Start an emulator with the options' settings, and stop it at the end of the block. Faults go to stderr."""
    try:
        settings = {**given_settings(options), "home": "thread"}
        emulator = Emulator.from_seed(options.seed, **settings) if options.seed else Emulator(**settings)
    except (SettingError, JournalError) as error:
        parser.error(str(error))
    with faults_reported(emulator) as stderr, _with_warnings_on(parser, emulator, stderr):
        yield emulator


@contextlib.contextmanager
def _with_warnings_on(parser: Parser, emulator: Emulator, stderr: StderrWriter) -> Iterator[None]:
    try:
        with warnings.catch_warnings(record=True) as warned:
            for kind in WARNINGS:
                warnings.simplefilter("always", kind)
            emulator.start()
    except (SettingError, JournalError) as error:
        parser.error(str(error))
    with emulator:
        for warning in warned:
            stderr.add(f"Warning: {warning.message}")
        yield


class Signals:
    """Catches SIGINT and SIGTERM from its creation on."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.settimeout(0)
        # A wakeup descriptor ends the wait on Windows too, and needs no lock that the interrupted code may hold.
        signal.set_wakeup_fd(self._writer.fileno())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)

    def wait(self) -> None:
        """Wait for the first signal. It may have arrived before this call."""
        self._reader.recv(1)

    def then(self, callback: Callable[[], None]) -> None:
        """Wait for the first signal, then call `callback`."""
        self.wait()
        callback()


@contextlib.contextmanager
def faults_reported(emulator: Emulator) -> Iterator[StderrWriter]:
    """Write the emulator's own faults to stderr as they happen: without a notebook, its events are not displayed."""
    stderr = StderrWriter()

    def on_event(event: Event) -> None:
        if event.kind in FAULTS:
            stderr.add(f"{event.kind}: {event.detail}")

    emulator.lifecycle.events.subscribe(on_event)
    try:
        yield stderr
    finally:
        stderr.end()
