"""The command line: `cmemu serve` and `cmemu lab`; `python -m cmemu_nb` is the same."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

from cmemu_nb.emulator import Emulator
from cmemu_nb.errors import WARNINGS, JournalError, SettingError
from cmemu_nb.lab import start_lab
from cmemu_nb.settings import Settings
from cmemu_nb.tokens import Token
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmemu_nb.events import Event

FAULTS = frozenset({"internal_error", "journal_failed", "listener_failed", "log"})
OPTIONS: dict[str, dict[str, Any]] = {
    "port": {"flag": "--port", "type": int, "metavar": "N"},
    "host": {"flag": "--host", "metavar": "ADDRESS"},
    "token": {"flag": "--token", "type": Token, "metavar": "TEXT"},
    "client_id": {"flag": "--client-id", "metavar": "TEXT"},
    "client_secret": {"flag": "--client-secret", "type": Token, "metavar": "TEXT"},
    "local_hostnames": {"flag": "--local-hostname", "action": "append", "metavar": "NAME"},
    "execute_timeout": {"flag": "--execute-timeout", "type": float, "metavar": "SECONDS"},
    "max_body_bytes": {"flag": "--max-body-bytes", "type": int, "metavar": "N"},
    "max_connections": {"flag": "--max-connections", "type": int, "metavar": "N"},
    "max_waiting": {"flag": "--max-waiting", "type": int, "metavar": "N"},
    "slow_client_seconds": {"flag": "--slow-client-seconds", "type": float, "metavar": "SECONDS"},
    "idle_seconds": {"flag": "--idle-seconds", "type": float, "metavar": "SECONDS"},
    "keep_jobs": {"flag": "--keep-jobs", "type": int, "metavar": "N"},
    "keep_bytes": {"flag": "--keep-bytes", "type": int, "metavar": "N"},
    "max_queued": {"flag": "--max-queued", "type": int, "metavar": "N"},
    "journal": {"flag": "--journal", "metavar": "FILE"},
    "journal_sync": {"flag": "--journal-sync", "choices": ("normal", "full")},
    "allow_remote": {"flag": "--allow-remote", "action": "store_true"},
    "hide_tokens": {"flag": "--hide-tokens", "action": "store_true"},
}
"""The settings that `serve` takes; their help texts and defaults are those of `Settings`."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one sentence, and where to look, instead of the whole usage."""
        sentence = message if message.endswith(".") else f"{message}."
        self.exit(2, f"{self.prog}: {sentence} See '{self.prog} --help'.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 when it was used wrongly or can't be done."""
    parser, serve_parser = _parsers()
    options, rest = parser.parse_known_args(argv)
    if options.command == "lab":
        return start_lab(rest)
    if rest:
        (serve_parser if options.command else parser).error(f"unknown arguments: {' '.join(rest)}")
    if options.command == "serve":
        return _serve(serve_parser, options)
    parser.print_help()
    return 0


def _parsers() -> tuple[_Parser, _Parser]:
    parser = _Parser(prog="cmemu", description="An emulator of the compute-module runtime lifecycle.")
    parser.add_argument("--version", action="version", version=f"cmemu_nb {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    serve = commands.add_parser(
        "serve",
        help="run the emulator without a notebook",
        description="Run the emulator without a notebook, until SIGTERM or Ctrl-C.",
        allow_abbrev=False,
    )
    _add_serve_options(serve)
    commands.add_parser(
        "lab",
        help="open JupyterLab on the first tutorial",
        description="Open JupyterLab on the first tutorial, or on NOTEBOOK; the other arguments are for 'jupyter lab'.",
        usage="cmemu lab [-h] [NOTEBOOK] [ARGUMENT ...]",
        allow_abbrev=False,
    )
    return parser, serve


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    traits = Settings.class_traits()
    for name, option in OPTIONS.items():
        keywords = {key: value for key, value in option.items() if key != "flag"}
        text = traits[name].help
        if traits[name].default_value and "action" not in option:
            text += f" Default: {traits[name].default_value}."
        parser.add_argument(option["flag"], dest=name, default=argparse.SUPPRESS, help=text, **keywords)
    parser.add_argument(
        "--print-token", action="store_true", help="Print the bearer token also when the output is no terminal."
    )


def _serve(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    signals = _Signals()
    settings = {name: value for name, value in vars(options).items() if name in OPTIONS}
    try:
        emulator = Emulator(**settings, home="thread")
        report_faults(emulator)
        with warnings.catch_warnings(record=True) as warned:
            for kind in WARNINGS:
                warnings.simplefilter("always", kind)
            emulator.start()
    except (SettingError, JournalError) as error:
        parser.error(str(error))
    with emulator:
        for warning in warned:
            _complain(f"Warning: {warning.message}")
        print(f"The emulator is at {emulator.url}", flush=True)
        if options.print_token or sys.stdout.isatty():
            print(f"Bearer token: {emulator.token}", flush=True)
        signals.wait()
    return 0


class _Signals:
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


def report_faults(emulator: Emulator) -> None:
    """Write the emulator's own faults to stderr as they happen: without a notebook nobody looks at its events."""

    def report(event: Event) -> None:
        if event.kind in FAULTS:
            _complain(f"{event.kind}: {event.detail}")

    emulator.lifecycle.events.subscribe(report)


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
