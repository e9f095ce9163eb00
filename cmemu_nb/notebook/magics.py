"""The magics: `%cmemu` with a command for every view and every action, and the cell magics."""

from __future__ import annotations

import contextlib
import keyword
import shlex
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import Markdown, display
from msgspec.structs import replace
from traitlets import Unicode

from cmemu_nb.arguments import given_configuration, given_settings
from cmemu_nb.calls.handles import JobHandle
from cmemu_nb.display.names import emulators, forget, started_by_magics
from cmemu_nb.emulator import Emulator
from cmemu_nb.engine.fault_arguments import FAULTS
from cmemu_nb.errors import WARNINGS, CmemuError, NotFound, known
from cmemu_nb.eventloop.loop import defer_interrupts
from cmemu_nb.eventloop.shell import echo_here
from cmemu_nb.executors.cells.functions import is_folder
from cmemu_nb.executors.sdk.adapter import take_over
from cmemu_nb.lifecycle.records import NOTEBOOK, Job
from cmemu_nb.notebook import topics
from cmemu_nb.notebook.cell_magics import (
    cell_sources,
    launch_cell,
    print_still_served,
    run_cell,
    syntax_error,
    with_streaming,
)
from cmemu_nb.notebook.commands import COMMANDS, Arguments, describe, parse, parse_cell_line, parse_module_line
from cmemu_nb.notebook.completion import make_matcher
from cmemu_nb.notebook.programs import Programs, print_served
from cmemu_nb.notebook.registry import Names
from cmemu_nb.phrases import closest, listed, plural
from cmemu_nb.settings import Settings
from cmemu_nb.tracebacks import shortened

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import pandas as pd
    from IPython.core.interactiveshell import InteractiveShell

    from cmemu_nb.check.findings import Report
    from cmemu_nb.dashboard.widget import Dashboard
    from cmemu_nb.display.charts import Chart
    from cmemu_nb.engine.fault_injection import FaultInjection
    from cmemu_nb.executors.cells.functions import Functions
    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.lifecycle.snapshot import Seed
    from cmemu_nb.server.faults import Faults


WILL_BE_ANOTHER = "That starts a different emulator: run the cells that define functions again, too."


@magics_class
class CMEmu(Settings, Magics):
    """The magics, and the default settings of `%cmemu start`: `%config CMEmu` lists them."""

    name = Unicode("emu", help="Name of the variable that `%cmemu start` puts the emulator into.").tag(config=True)

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell, **keywords: Any) -> None:
        super().__init__(shell, **keywords)
        self.names = Names(shell)
        self.programs = Programs()
        self._as_configured: dict[str, Any] = {}

    @no_var_expand
    @line_magic
    def cmemu(self, line: str) -> Any:
        """Run a command; `%cmemu help` lists all commands."""
        command, arguments = parse(line, self.shell.user_ns)
        try:
            return getattr(self, f"_{command.replace('-', '_')}")(arguments)
        except CmemuError as error:
            raise UsageError(f"%cmemu {command}: {error}") from None

    cmemu.__doc__ = describe()

    @no_var_expand
    @cell_magic
    def cmemu_functions(self, line: str, cell: str) -> None:
        """Serve the functions that the cell defines: `%%cmemu_functions [RUNTIME] [--echo]`.

        Functions named `_...` are not served. Either all others are served or none: if the cell fails, the earlier
        versions are still served. Generators stream their results.
        """
        given = parse_cell_line(line)
        emulator = self._emulator(given)
        try:
            functions = run_cell(self.shell, cell)
            echo = echo_here() if given.echo else None
            # Functions with a decorator of their own are served already.
            decorated = [each for each in map(emulator.functions.find, functions) if each is not None]
            others = [each for each in functions if emulator.functions.find(each) is None]
            served = decorated + emulator.functions.serve(with_streaming(others), given.runtime, echo=echo)
        except SyntaxError as error:
            raise syntax_error(error, emulator, cell) from None
        except CmemuError as error:
            raise UsageError(f"%%cmemu_functions: {error}") from None
        except BaseException as error:
            shortened(error)  # the cell itself raised it
            raise
        self.programs.take()
        print_served(served)

    @no_var_expand
    @cell_magic
    def compute_module(self, line: str, cell: str) -> LaunchedModule:
        """Launch the cell as a module with an official SDK: `%%compute_module NAME [--language python|node]`.

        Running the cell again replaces the module. Further options: `--mode pipeline`, `--replicas`,
        `--max-concurrent-tasks`, `--config FILE`.
        """
        given = parse_module_line(line)
        try:
            return launch_cell(self._emulator(given), given, cell)
        except CmemuError as error:
            raise UsageError(f"%%compute_module: {error}") from None

    # Starting and stopping

    def _start(self, given: Arguments) -> None:
        # An interrupt either ends the start, so that there is no emulator, or is delayed until the variable holds it.
        # Displaying is covered, too: an interrupt while ipykernel flushes its streams can make CPython 3.11 take the
        # kernel's output thread for dead (https://github.com/python/cpython/issues/89437).
        with defer_interrupts(lambda: True):
            display(self._started(given))

    def _started(self, given: Arguments) -> Emulator:
        name = given.name or self.name
        wanted = given_settings(given)
        seed = _read_seed(given.seed, wanted) if given.seed else None
        if seed is not None:
            wanted = seed.settings
        emulator = self._known(name)
        self._check_name_free(name, emulator)
        if emulator is not None and emulator.running:
            self._print_already_running(emulator, wanted, seed)
        elif emulator is not None and _can_continue(emulator, wanted, seed):
            _start_again(emulator, {**self._newly_configured(), **wanted})
        else:
            if emulator is not None:
                print("This is a different emulator: run the cells that define functions again.")  # noqa: T201
            emulator = self._create(wanted, seed)
            _start_and_print_warnings(emulator)
            started_by_magics().add(emulator)
        self._as_configured = self._configured()
        emulators()[name] = emulator
        self.shell.push({name: emulator})
        return emulator

    def _known(self, name: str) -> Emulator | None:
        """Return the emulator of a name, running or stopped, except one read from a file, which can't be started."""
        self.names.note()
        holder = self.shell.user_ns.get(name)
        emulator = emulators().get(name)
        if emulator is None and isinstance(holder, Emulator) and not holder.read_from:
            return holder
        return emulator

    def _create(self, wanted: dict[str, Any], seed: Seed | None) -> Emulator:
        settings = {**self._configured(), **wanted}
        return Emulator(**settings) if seed is None else Emulator.of_seed(replace(seed, settings=settings))

    def _print_already_running(self, running: Emulator, wanted: dict[str, Any], seed: Seed | None) -> None:
        others = running.other_settings(wanted)
        if seed is not None and not seed.plants_the_same(running.seed):
            others.append("seed")
        if others:
            what = "Its token, jobs and functions stay." if _can_continue(running, wanted, seed) else WILL_BE_ANOTHER
            print(  # noqa: T201
                f"The emulator is already running; only a start can set its {listed(others)}. Type %cmemu stop, then "
                f"run this again. {what}"
            )

    def _check_name_free(self, name: str, emulator: Emulator | None) -> None:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(f"%cmemu start: {name!r} can't be a variable's name.")
        holder = self.shell.user_ns.get(name)
        if holder is None or (isinstance(holder, Emulator) and not holder.read_from):
            return
        what = "an emulator that was read from a file" if isinstance(holder, Emulator) else type(holder).__name__
        runs = (
            f" The emulator of that name is running at {emulator.url}."
            if emulator is not None and emulator.running
            else ""
        )
        raise UsageError(
            f"%cmemu start: the variable {name!r} holds something else ({what}).{runs} Type: del {name}, then run "
            "this again, or choose another variable with --name."
        )

    def _configured(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in Settings.class_trait_names(config=True)}

    def _newly_configured(self) -> dict[str, Any]:
        """Return the settings that `%config` has changed since the last start."""
        before = self._as_configured
        return {name: value for name, value in self._configured().items() if value != before.get(name, value)}

    def _stop(self, given: Arguments) -> None:
        try:
            emulator = self._emulator(given)
        except UsageError as error:
            print(error)  # noqa: T201 - no error, because the emulator is stopped as requested
            return
        emulator.stop()
        forget(emulator)
        name = given.name or self.name
        held = self.shell.user_ns.get(name) is emulator
        stays = f"; its records stay readable: {name}.jobs, {name}.events" if held else ""
        print(f"The emulator at {emulator.url} is stopped{stays}.")  # noqa: T201
        if held:
            print(f"{_start_line(name, self.name)} starts it again with these records.")  # noqa: T201
        if emulator.settings.journal is not None:
            seed = f" --seed {shlex.quote(emulator.seed.path)}" if emulator.seed and emulator.seed.path else ""
            line = f"%cmemu start --journal {shlex.quote(emulator.settings.journal)}{seed}"
            print(f"{line} does so in another kernel, too.")  # noqa: T201

    def _status(self, given: Arguments) -> None:
        display(self._emulator(given))

    def _url(self, given: Arguments) -> None:
        print(self._emulator(given).url)  # noqa: T201

    def _reset(self, given: Arguments) -> None:
        emulator = self._emulator(given)
        if given.runtime is None:
            emulator.reset()
            seed = emulator.seed
            again = " The runtimes of the seed file were opened again." if seed and seed.runtimes else ""
            again += " The datasets and streams of the start are there again." if seed and seed.has_data else ""
            print(f"Every runtime was deleted, with its jobs, schemas and bindings.{again}")  # noqa: T201
            return
        emulator.runtime(given.runtime).reset()
        print(f"Runtime {given.runtime!r} has a new session, with the same bindings.")  # noqa: T201

    # Views

    def _dashboard(self, given: Arguments) -> Dashboard:
        return self._emulator(given).dashboard()

    def _timeline(self, given: Arguments) -> Chart:
        return self._emulator(given).timeline(given.limit)

    def _latency(self, given: Arguments) -> Chart:
        return self._emulator(given).latency()

    def _runtimes(self, given: Arguments) -> pd.DataFrame:
        emulator = self._emulator(given)
        hint = f"No runtimes yet. Type: rt = {emulator.name}.open_runtime('my-runtime')"
        return self._view(emulator.runtimes, hint)

    def _jobs(self, given: Arguments) -> pd.DataFrame:
        emulator = self._emulator(given)
        self._check_filters(emulator, given)
        frame = every = emulator.jobs
        for column, wanted in (("status", given.status), ("runtime_id", given.runtime), ("query_type", given.function)):
            if wanted is not None:
                frame = frame[frame[column] == wanted]
        if given.limit is not None:
            frame = frame.tail(given.limit)
        if len(every):
            return self._view(frame, f"None of the {plural(len(every), 'job')} matches.")
        return self._view(frame, f"No jobs yet. Type: job = {emulator.name}.submit('my_function', {{'x': 1}})")

    def _check_filters(self, emulator: Emulator, given: Arguments) -> None:
        state = emulator.lifecycle
        if given.runtime is not None:
            state.runtime(given.runtime)
        if given.function is not None and not state.has_function(given.function):
            names = {each.function_name for each in state.schemas()} | {job.query_type for job in state.jobs()}
            unknown = f"There is no function '{given.function}'.{closest(given.function, names)}"
            raise NotFound(f"{unknown} {known(names, 'functions')}")

    def _schemas(self, given: Arguments) -> pd.DataFrame:
        return self._view(self._emulator(given).schemas, "No schemas yet: a runtime posts them to its post_schema_uri.")

    def _apps(self, given: Arguments) -> pd.DataFrame:
        emulator = self._emulator(given)
        hint = f"No bindings yet. Type: {emulator.name}.open_runtime('my-runtime', deployed_app_rid='ri...')"
        return self._view(emulator.deployed_apps, hint)

    def _datasets(self, given: Arguments) -> pd.DataFrame:
        emulator = self._emulator(given)
        hint = f"No datasets yet. Type: {emulator.name}.datasets['in'] = a DataFrame"
        return self._view(emulator.datasets.overview, hint)

    def _streams(self, given: Arguments) -> pd.DataFrame:
        emulator = self._emulator(given)
        hint = f"No streams yet. Type: {emulator.name}.streams['events'] = a DataFrame"
        return self._view(emulator.streams.overview, hint)

    def _functions(self, given: Arguments) -> Functions:
        return self._emulator(given).functions

    def _events(self, given: Arguments) -> pd.DataFrame:
        frame = self._emulator(given).event_frame(all=given.all)
        return self._view(frame.tail(given.limit) if given.limit else frame, "Nothing has happened yet.")

    def _view(self, frame: pd.DataFrame, hint: str) -> pd.DataFrame:
        if frame.empty:
            print(hint)  # noqa: T201
        return frame

    # Actions

    def _submit(self, given: Arguments) -> JobHandle:
        return self._emulator(given).submit(given.function, given.query, given.app, given.branch)

    def _call(self, given: Arguments) -> Any:
        emulator = self._emulator(given)
        options = {"timeout": given.timeout, "validate": not given.no_validate, "echo": given.echo}
        options["progress"] = False if given.no_progress else None
        return emulator.call(given.function, given.query, given.app, given.branch, **options)

    def _logs(self, given: Arguments) -> None:
        print(self._emulator(given).job(self._meant(given.job)).logs or "The function has printed nothing.")  # noqa: T201

    def _export(self, given: Arguments) -> None:
        path = self._emulator(given).export(given.path, overwrite=given.force, max_data_bytes=given.max_data_bytes)
        print(f"Wrote the session to {path}. Emulator.from_export({str(path)!r}) reads it.")  # noqa: T201

    def _export_module(self, given: Arguments) -> None:
        emulator, cells = self._emulator(given), cell_sources(self.shell)
        if is_folder(given.path):
            print(emulator.functions.export_project(given.path, cells, overwrite=given.force))  # noqa: T201
            return
        path = emulator.functions.export(given.path, cells, overwrite=given.force)
        print(f"Wrote {plural(len(emulator.functions.in_cells), 'function')} to {path}.")  # noqa: T201

    def _check(self, given: Arguments) -> Report:
        return self._emulator(given).check(given.path, cell_sources(self.shell))

    def _launch(self, given: Arguments) -> LaunchedModule:
        restart = not given.no_restart
        configuration = given_configuration(given)
        options = {"cwd": given.cwd, "restart": restart, "image": given.image, **configuration}
        return self._emulator(given).launch(given.words, given.runtime, **options)

    def _configure(self, given: Arguments) -> None:
        emulator = self._emulator(given)
        configured = emulator.configure(given.runtime, **given_configuration(given))
        print(f"The runtime {given.runtime!r} is configured: {configured.in_words}.")  # noqa: T201
        if given.runtime != NOTEBOOK and not emulator.lifecycle.has_runtime(given.runtime):
            similar = closest(given.runtime, (each.runtime_id for each in emulator.lifecycle.runtimes()))
            later = f"a program that is launched for it will find this configuration.{similar}"
            print(f"The runtime is not open yet: {later}")  # noqa: T201

    def _env(self, given: Arguments) -> None:
        environment = self._emulator(given).env(given.runtime, **given_configuration(given))
        print(environment.docker_line(given.docker) if given.docker else environment.export_lines)  # noqa: T201

    def _cancel(self, given: Arguments) -> None:
        count = self._emulator(given).cancel(self._meant(given.jobs), " ".join(given.reason) or "by %cmemu cancel")
        nothing = "There is nothing to cancel: no such job is queued or running."
        print(f"Cancelled {count} {'job' if count == 1 else 'jobs'}." if count else nothing)  # noqa: T201

    def _fail(self, given: Arguments) -> None:
        job = self._emulator(given).job(self._meant(given.job))
        job.fail(" ".join(given.reason) or "failed by hand")
        display(job)

    def _meant(self, name: str) -> str | JobHandle | Job:
        """Return the job that the variable of this name holds, or else the name itself."""
        value = self.shell.user_ns.get(name)
        return value if isinstance(value, JobHandle | Job) else name

    def _faults(self, given: Arguments) -> FaultInjection | Faults:
        emulator = self._emulator(given)
        options = {name: getattr(given, name) for name in ("runtime", "function", *FAULTS, "seed")}
        options = {name: value for name, value in options.items() if value is not None}
        if given.off and options:
            raise UsageError(f"%cmemu faults: --off ends all faults; omit {', '.join(options)}.")
        if given.off:
            emulator.faults.off()
        return emulator.faults(**options) if options else emulator.faults

    def _help(self, given: Arguments) -> None:
        if given.topic is None:
            print(describe())  # noqa: T201
        elif given.topic in COMMANDS:
            print(describe(given.topic))  # noqa: T201
        else:
            display(Markdown(topics.read(given.topic)))

    def _emulator(self, given: argparse.Namespace) -> Emulator:
        self.names.note()
        name = given.name or self.name
        found = emulators().get(name)
        if found is None or not found.running:
            running = ", ".join(sorted(key for key, each in emulators().items() if each.running))
            more = f" Running: {running} (choose with --name)." if running else ""
            raise UsageError(f"No emulator is running as {name!r}. Type: {_start_line(name, self.name)}.{more}")
        return found


def _read_seed(path: str, settings: dict[str, Any]) -> Seed:
    from cmemu_nb.data.seeds import read_seed  # noqa: PLC0415 - YAML is imported only for a seed file

    return read_seed(path, settings)


def _start_line(name: str, usual: str) -> str:
    return "%cmemu start" if name == usual else f"%cmemu start --name {name}"


def _can_continue(emulator: Emulator, wanted: dict[str, Any], seed: Seed | None) -> bool:
    """Return whether an emulator can be started with these settings and this seed, and keep its records."""
    same_seed = seed is None or seed.plants_the_same(emulator.seed)
    return same_seed and emulator.can_have_journal(wanted.get("journal"))


def _start_again(emulator: Emulator, settings: dict[str, Any]) -> None:
    before = emulator.started_at
    _start_and_print_warnings(emulator, settings)
    if before:
        print("The emulator was started again with its token, jobs and functions. %cmemu reset deletes its runtimes.")  # noqa: T201


def _start_and_print_warnings(emulator: Emulator, settings: dict[str, Any] | None = None) -> None:
    """Start an emulator and print its warnings, without the source line that Python would add."""
    with warnings.catch_warnings(record=True) as caught:
        for kind in WARNINGS:
            warnings.simplefilter("always", kind)
        emulator.start(**settings or {})
    for warning in caught:
        print(f"Warning: {warning.message}", file=sys.stderr)  # noqa: T201


def load(shell: InteractiveShell) -> None:
    """Register the magics and their completion. Starts nothing."""
    if _registered(shell):
        return
    shell.register_magics(CMEmu)
    shell.Completer.custom_matchers.append(make_matcher())
    # Kept with the magics, where neither a reload nor %autoreload wipes it.
    magics = shell.magics_manager.registry["CMEmu"]
    programs = magics.programs
    magics.undo = [
        take_over(programs.serve),
        *(
            _listen(shell, event, listener)
            for event, listener in (
                ("pre_run_cell", programs.before_cell),
                ("post_run_cell", programs.after_cell),
                ("post_run_cell", print_still_served),
                ("post_run_cell", magics.names.note),
            )
        ),
    ]


def _listen(shell: InteractiveShell, event: str, listener: Callable[..., None]) -> Callable[[], None]:
    """Call a listener at an event of the shell, and return the function that ends that."""
    shell.events.register(event, listener)
    return partial(shell.events.unregister, event, listener)


def unload(shell: InteractiveShell) -> None:
    """Remove the magics, their completion and their settings, and stop the emulators that they started."""
    shell.magics_manager.magics["line"].pop("cmemu", None)
    for name in ("cmemu_functions", "compute_module"):
        shell.magics_manager.magics["cell"].pop(name, None)
    magics = shell.magics_manager.registry.pop("CMEmu", None)
    for undo in getattr(magics, "undo", []):
        undo()
    shell.configurables[:] = [each for each in shell.configurables if type(each).__name__ != "CMEmu"]
    matchers = shell.Completer.custom_matchers
    matchers[:] = [each for each in matchers if getattr(each, "matcher_identifier", "") != "cmemu"]
    if not _reloading():
        _stop_all(shell)


def _stop_all(shell: InteractiveShell) -> None:
    """Stop the emulators that the magics started, and those that no variable holds."""
    for name, emulator in list(emulators().items()):
        held = shell.user_ns.get(name) is emulator
        if held and emulator not in started_by_magics():
            continue
        emulator.stop()
        if held:
            del shell.user_ns[name]
    emulators().clear()


def _registered(shell: InteractiveShell) -> bool:
    return "cmemu" in shell.magics_manager.magics["line"]


def _reloading() -> bool:
    """Return whether the unloading is part of `%reload_ext`, which keeps the emulators."""
    with contextlib.suppress(ValueError):
        frame = sys._getframe(1)  # noqa: SLF001
        while frame is not None:
            if frame.f_code.co_name == "reload_extension":
                return True
            frame = frame.f_back  # type: ignore[assignment]
    return False
