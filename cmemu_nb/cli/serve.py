"""`cmemu serve`: the emulator without a notebook."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import warnings
from typing import TYPE_CHECKING

from cmemu_nb.arguments import add_settings, given_settings
from cmemu_nb.cli.parser import Commands, Parser, add_command, does
from cmemu_nb.cli.stderr_writer import Report
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
        "Run the emulator without a notebook, until SIGTERM or Ctrl-C.",
        "  cmemu serve --port 4000 --print-token\n  cmemu serve --tls --journal lifecycle.db\n"
        "  cmemu serve --seed seed.yaml",
    )
    add_beginning(parser)
    does(parser, _serve)


def add_beginning(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what an emulator begins with, and what is printed when it has started."""
    add_settings(parser.add_argument_group("settings of the emulator"), notebook=False)
    parser.add_argument("--seed", metavar="FILE", help="A YAML file with the sessions and settings to begin with.")
    parser.add_argument(
        "--print-token", action="store_true", help="Print the bearer token also when the output is no terminal."
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="Print the HTTPS address of the platform routes, which are always served, and the file to trust it with.",
    )


def _serve(parser: Parser, options: argparse.Namespace) -> int:
    signals = Signals()
    with started(parser, options):
        signals.wait()
    return 0


@contextlib.contextmanager
def started(parser: Parser, options: argparse.Namespace) -> Iterator[Emulator]:
    """Start an emulator with the options' settings, say where it is, and stop it in the end."""
    try:
        settings = {**given_settings(options), "home": "thread"}
        emulator = Emulator.from_seed(options.seed, **settings) if options.seed else Emulator(**settings)
    except (SettingError, JournalError) as error:
        parser.error(str(error))
    with faults_reported(emulator) as report, _running(parser, emulator, report):
        print(f"The emulator is at {emulator.url}", flush=True)
        if emulator.proxy_url is not None:
            print(f"Behind the hub, for a browser and with a token: {emulator.proxy_url}", flush=True)
        if options.print_token or sys.stdout.isatty():
            print(f"Bearer token: {emulator.token}", flush=True)
        if options.tls:
            print(f"The platform routes are at {emulator.platform_url}", flush=True)
            print(f"Certificate authority: {emulator.certificates.authority_path}", flush=True)
        yield emulator


@contextlib.contextmanager
def _running(parser: Parser, emulator: Emulator, report: Report) -> Iterator[None]:
    try:
        with warnings.catch_warnings(record=True) as warned:
            for kind in WARNINGS:
                warnings.simplefilter("always", kind)
            emulator.start()
    except (SettingError, JournalError) as error:
        parser.error(str(error))
    with emulator:
        for warning in warned:
            report.add(f"Warning: {warning.message}")
        yield


class Signals:
    """Takes SIGINT and SIGTERM from now on."""

    def __init__(self) -> None:
        self._heard, self._bell = socket.socketpair()
        self._bell.settimeout(0)
        # A descriptor wakes the wait on Windows too, and takes no lock that the interrupted code may hold.
        signal.set_wakeup_fd(self._bell.fileno())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)

    def wait(self) -> None:
        """Wait for the first signal, which may have come already."""
        self._heard.recv(1)

    def then(self, tell: Callable[[], None]) -> None:
        """Wait for the first signal, and tell."""
        self.wait()
        tell()


@contextlib.contextmanager
def faults_reported(emulator: Emulator) -> Iterator[Report]:
    """Write the emulator's own faults to stderr as they happen: without a notebook nobody looks at its events."""
    report = Report()

    def hear(event: Event) -> None:
        if event.kind in FAULTS:
            report.add(f"{event.kind}: {event.detail}")

    emulator.lifecycle.events.subscribe(hear)
    try:
        yield report
    finally:
        report.end()
