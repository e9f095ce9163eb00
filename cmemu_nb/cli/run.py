"""`cmemu run`: the emulator with a program as its module, until Ctrl-C."""

from __future__ import annotations

import json
import queue
import shlex
import threading
from typing import TYPE_CHECKING, Any

from cmemu_nb.arguments import add_launch, given_configuration
from cmemu_nb.cli.parser import FAILED, LATE, Commands, Parser, add_command, does
from cmemu_nb.cli.serve import Signals, add_start_options, started
from cmemu_nb.cli.stderr_writer import StderrWriter
from cmemu_nb.display.text import visible
from cmemu_nb.errors import InvalidRequest, LaunchFailed
from cmemu_nb.executors.modules.images import HOST, SHARES_NETWORK
from cmemu_nb.lifecycle.records import Mode
from cmemu_nb.storage import live_file
from cmemu_nb.wire.function_schemas import inputs_of, schema_in_words
from cmemu_nb.wire.json_values import read_exactly

if TYPE_CHECKING:
    import argparse

    from cmemu_nb.emulator import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.lifecycle.events import Event

ENDS = ("replica_exited", "session_deleted")
MAX_LINES = 100_000
SIGNALLED, POLLS, CHECK = "signalled", "polls", "check"


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `run`."""
    parser = parsers["run"] = add_command(
        commands,
        "run",
        "Run the emulator with a program as its compute module, until SIGTERM or Ctrl-C.",
        "  cmemu run -- python app.py\n  cmemu run --replicas 2 --env LOG_LEVEL=DEBUG --port 4100 -- node app.mjs\n"
        "  cmemu run --mode pipeline -- python pipeline.py\n"
        "  cmemu run --openapi openapi.json -- python server.py\n  cmemu run --image orders:0.1.0",
        "'python' means the interpreter that runs cmemu. The program's output is written to stderr.",
        usage="cmemu run [OPTION ...] -- PROGRAM [ARGUMENT ...]\n"
        "       cmemu run [OPTION ...] --image IMAGE [-- ARGUMENT ...]",
    )
    add_launch(parser)
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Set an environment variable of the program. May be repeated.",
    )
    parser.add_argument(
        "--ready-timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="How long the program may take until it polls for jobs, or its server answers. Default: 30.",
    )
    add_start_options(parser)
    does(parser, _run)


def _run(parser: Parser, options: argparse.Namespace) -> int:
    if not options.program and options.image is None:
        parser.error("the program is missing: cmemu run -- python app.py")
    if options.image is not None and not SHARES_NETWORK:
        options.local_hostnames = [*(getattr(options, "local_hostnames", None) or ()), HOST]
    configuration = given_configuration(options)
    configuration["environment"] = {**configuration.get("environment", {}), **_environment(options.env)}
    signals = Signals()
    with started(parser, options) as emulator:
        program = Program(parser, options, emulator, configuration)
        threading.Thread(target=signals.then, args=(lambda: program.notify(SIGNALLED),), daemon=True).start()
        return program.run()


def _environment(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise InvalidRequest(f"--env takes NAME=VALUE, not {name!r}.")
    return {name: value for name, _, value in pairs}


class Program:
    """A program that runs as a module. A queue brings what happens to the main thread.

    Its output goes through a `StderrWriter`, so that a stderr that is not read does not block it.
    """

    def __init__(
        self, parser: Parser, options: argparse.Namespace, emulator: Emulator, configuration: dict[str, Any]
    ) -> None:
        self._parser, self._options, self._emulator, self._configuration = parser, options, emulator, configuration
        self._module: LaunchedModule | None = None
        self._notices: queue.SimpleQueue[Exception | str] = queue.SimpleQueue()
        self._stderr = StderrWriter(MAX_LINES)
        self._launching = threading.Thread(target=self._launch)

    def notify(self, what: Exception | str) -> None:
        """Tell the main thread what has happened; may be called from any thread."""
        self._notices.put(what)

    def run(self) -> int:
        """Launch the program, and report its state until it ends or a signal arrives; returns the exit code."""
        unsubscribe = self._emulator.lifecycle.events.subscribe(self._on_event)
        self._launching.start()
        try:
            return self._handle_notices()
        finally:
            unsubscribe()
            self._emulator.stop()  # this ends a launch that is under way, too
            self._launching.join()
            self._stderr.end()

    def _on_event(self, event: Event) -> None:
        if event.kind in ENDS:
            self.notify(CHECK)

    def _launch(self) -> None:
        options = self._options
        try:
            module = self._module = self._emulator.launch(
                options.program or (),
                options.runtime,
                cwd=options.cwd,
                restart=not options.no_restart,
                image=options.image,
                **self._configuration,
            )
            self._emulator.change(lambda _: module.logs.follow(lambda line: self._stderr.add(str(line))))
            module.wait_until_responsive(options.ready_timeout)
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            self.notify(error)
        else:
            self.notify(POLLS)

    def _handle_notices(self) -> int:
        while True:
            what = self._notices.get()
            if what == SIGNALLED:
                return 0
            if isinstance(what, Exception):
                return self._fail(what)
            code = self._check()
            if code is not None:
                return code
            if what == POLLS and self._module is not None:
                self._print_how_to_call(self._module)

    def _fail(self, error: Exception) -> int:
        module = self._module
        if module is not None and (module.ended or (isinstance(error, LaunchFailed) and error.exit_code is not None)):
            return self._end(module)
        if isinstance(error, LaunchFailed) and error.exit_code:  # it has ended before launch() returned
            self._stderr.add(f"{self._parser.prog}: {error}")
            return error.exit_code
        if module is None or module.import_error or not isinstance(error, LaunchFailed):
            raise error
        verb, target = module.readiness
        question = " Is it a module with an official SDK?" if verb == "poll" else ""
        self._stderr.add(
            f"{self._parser.prog}: {module.command} did not {verb} {target} within {self._options.ready_timeout:g} s: "
            f"{', '.join(module.states)}.{question} --ready-timeout waits longer."
        )
        return LATE

    def _check(self) -> int | None:
        """Return the exit code if the program has ended and is not restarted; None if it runs."""
        module = self._module
        if module is None:
            return None
        if module.ended:
            return self._end(module)
        if module not in self._emulator.modules.of(module.runtime_id):
            self._stderr.add(
                f"{self._parser.prog}: the runtime '{module.runtime_id}' was deleted, so {module.command} was ended."
            )
            return FAILED
        return None

    def _end(self, module: LaunchedModule) -> int:
        self._launching.join()
        self._stderr.add(f"{self._parser.prog}: {module.command} ended with exit code {module.exit_code}.")
        was_ready = module.mode == Mode.PIPELINE or any(process.replica.polls for process in module.replicas)
        return module.exit_code if was_ready else module.exit_code or FAILED

    def _print_how_to_call(self, module: LaunchedModule) -> None:
        if module.mode == Mode.PIPELINE:
            print(f"{module.command} runs in pipeline mode, as the runtime '{module.runtime_id}'.", flush=True)
            return
        schemas = self._emulator.lifecycle.schemas(module.runtime_id)
        shown = {each.function_name: read_exactly(each.schema_payload) for each in schemas}
        verb, target = module.readiness
        print(f"{module.command} {verb}s {target}, as the runtime '{module.runtime_id}'.", flush=True)
        for name, schema in shown.items():
            print(visible(f"  {name}: {schema_in_words(schema)}"), flush=True)
        call = _example(*next(iter(shown.items()), ("FUNCTION", None)))
        others = len(list(live_file.folder().glob(live_file.PATTERN))) > 1
        where = f" --url {self._emulator.url}" if others else ""
        print(visible(f"Call it from another terminal: {call}{where}"), flush=True)


def _example(name: str, schema: object) -> str:
    """Return a command line that calls a function, with `...` in place of the values."""
    fields = ", ".join(f"{json.dumps(each, ensure_ascii=False)}: ..." for each in inputs_of(schema) or ())
    query = "{" + fields + "}" if fields else "{}"
    return f"cmemu call {shlex.quote(name)} {shlex.quote(query)}"
