"""The functions in cells, and in one list with them those of launched modules: `emu.functions`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from cmemu_nb.display.names import magic_line
from cmemu_nb.engine.parts import Part
from cmemu_nb.errors import (
    DefinitionWarning,
    ExportRefused,
    FunctionRefused,
    InvalidRequest,
    NotFound,
    NotRunning,
    not_served,
)
from cmemu_nb.eventloop.home import STOPPED_MEANWHILE
from cmemu_nb.eventloop.shell import cell_is_running
from cmemu_nb.executors.cells.configured import ConfiguredCells
from cmemu_nb.lifecycle.records import NOTEBOOK
from cmemu_nb.phrases import plural
from cmemu_nb.storage.owner_only import replacing
from cmemu_nb.tokens import last_four
from cmemu_nb.tracebacks import warn_user
from cmemu_nb.wire.json_values import read_exactly
from cmemu_nb.wire.masking import MIN_MASKED
from cmemu_nb.wire.value_types import name_of_type

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.cells.executor import NotebookExecutor
    from cmemu_nb.executors.cells.project import Project
    from cmemu_nb.executors.cells.served import ServedFunction
    from cmemu_nb.executors.cluster.clusters import Clusters
    from cmemu_nb.executors.counted_function import CountedFunction
    from cmemu_nb.executors.modules.functions import ModuleFunction, ModuleFunctions
    from cmemu_nb.executors.sdk.adapter import Definition
    from cmemu_nb.export.project_files import ExportedFunction
    from cmemu_nb.lifecycle.events import Event

F = TypeVar("F", bound="CountedFunction")
# What a caller names: a function itself, or its name.
Function: TypeAlias = str | Callable[..., Any]


def is_folder(path: str | Path) -> bool:
    """Return whether a path names a folder: it ends in "/", or there is a folder."""
    return str(path).endswith(("/", os.sep)) or Path(path).expanduser().is_dir()


class Functions(Part):
    """The functions in cells and those of launched modules: iterable, accessible by name, and displayed as a table.

    >>> emu.functions["add"]
    <add v1 on 'notebook', calls: 0>
    >>> emu.functions.remove("add")
    >>> "add" in emu.functions
    False
    """

    def __init__(
        self,
        engine: Engine,
        clusters: Callable[[], Clusters | None],
        of_modules: Callable[[], ModuleFunctions | None],
    ) -> None:
        self._engine = engine
        self._clusters = clusters
        self._of_modules = of_modules
        self._engine.parts.append(self)
        self._executors: dict[str, NotebookExecutor] = {}
        self._paused = True
        self._configured = ConfiguredCells(engine)
        # From now on, because a seed file configures runtimes before the parts are started.
        engine.lifecycle.events.subscribe(self._on_event)
        self._change_lock: asyncio.Lock

    def serve(
        self,
        functions: Iterable[tuple[Callable[..., Any], bool]],
        runtime_id: str | None = None,
        *,
        edits: Sequence[Any] = (),
        echo: Callable[[str], object] | None = None,
    ) -> list[ServedFunction]:
        """Serve all of the given functions on a runtime, or none of them; each comes with whether it streams.

        A name that is served already gets a new version. The default runtime is `notebook`. What the functions print
        is also passed to `echo`. Raises `FunctionRefused` with the SDK's reason, `NotFound` if another runtime than
        `notebook` is given and not open, and `NotRunning`.
        """
        from cmemu_nb.executors.sdk.adapter import define  # noqa: PLC0415 - the SDK takes a while to import

        runtime_id = runtime_id or NOTEBOOK
        self._check_runtime(runtime_id)
        definitions: list[Definition] = []
        for function, streaming in functions:
            try:
                definitions.append(define(function, streaming=streaming, edits=edits))
            except FunctionRefused as refused:
                raise FunctionRefused(f"{refused}{self._still_served(runtime_id, function)}") from None
        served = self.serve_defined(runtime_id, definitions, echo)
        for definition in definitions:
            for warning in definition.warnings:
                warn_user(DefinitionWarning(f"{definition.name} is served, but {warning}"))
        return served

    def serve_defined(
        self, runtime_id: str, definitions: list[Definition], echo: Callable[[str], object] | None = None
    ) -> list[ServedFunction]:
        """Serve functions that the SDK has read, here and on the clusters that serve them."""
        if (clusters := self._clusters()) is not None:
            clusters.check(runtime_id, definitions)
        still_running = self._engine.home.run(self._serve(runtime_id, definitions, echo))
        self._ship(runtime_id, definitions)
        _print_still_running(self._engine.name, still_running)
        served = self._executors[runtime_id].functions
        # Another thread may have removed some of them meanwhile, or stopped serving all.
        return [served[definition.name] for definition in definitions if definition.name in list(served)]

    def _ship(self, runtime_id: str, definitions: list[Definition]) -> None:
        if (clusters := self._clusters()) is not None:
            clusters.ship(runtime_id, definitions)

    def decorate(
        self,
        function: Callable[..., Any] | None,
        runtime_id: str | None,
        *,
        streaming: bool,
        edits: Sequence[Any] | None,
    ) -> Any:
        """Serve a function and return it; without a function, return the decorator that serves one."""
        if function is not None and not callable(function):
            raise FunctionRefused(
                f"The decorator takes a function, not {function!r} of type {name_of_type(function)}: a function is "
                "called by the name that it is defined with. Write the decorator without a name above def."
            )

        def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
            self.serve([(function, streaming)], runtime_id, edits=edits or ())
            return function

        return decorator if function is None else decorator(function)

    async def _serve(
        self, runtime_id: str, definitions: list[Definition], echo: Callable[[str], object] | None
    ) -> dict[str, int]:
        from cmemu_nb.executors.cells.executor import NotebookExecutor  # noqa: PLC0415

        async with self._changing():
            executor = self._executors.get(runtime_id)
            if executor is None or not executor.working:
                # Recorded before it begins, so that it is stopped with the others.
                executor = self._executors[runtime_id] = NotebookExecutor(self._engine, runtime_id, self._configured)
                await executor.begin()
                if self._engine.lifecycle.is_configured(runtime_id):
                    self._configured.set(runtime_id)
            return await executor.serve(definitions, echo)

    async def _remove(self, runtime_id: str, name: str) -> None:
        async with self._changing():
            self._find(name, runtime_id)  # another thread may have removed it meanwhile
            await self._executors[runtime_id].remove(name)

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Allow one change of the served functions at a time: concurrent ones could make two executors for a runtime.

        Raises `NotRunning` while the emulator is being stopped or started.
        """
        self._check_not_paused()
        async with self._change_lock:
            self._check_not_paused()
            yield

    def _check_not_paused(self) -> None:
        if self._paused:
            raise NotRunning(STOPPED_MEANWHILE)

    def _check_runtime(self, runtime_id: str) -> None:
        """Refuse an unknown runtime, except the notebook's own, which is opened when it is needed."""
        if runtime_id == NOTEBOOK or not self._engine.running:
            return
        try:
            self._engine.lifecycle.runtime(runtime_id)
        except NotFound as error:
            raise NotFound(f"{error} {self._engine.name}.open_runtime({runtime_id!r}) opens it.") from None

    def _still_served(self, runtime_id: str, function: object) -> str:
        executor = self._executors.get(runtime_id)
        served = executor.functions.get(getattr(function, "__name__", "")) if executor else None
        return f" {served.name} v{served.version} is still served." if served else ""

    def remove(self, name: str, runtime_id: str | None = None) -> None:
        """Stop serving a function in a cell, and delete its schema; `NotFound` lists the functions in cells."""
        served = self._find(name, runtime_id)
        self._engine.home.run(self._remove(served.runtime_id, name))
        self._ship(served.runtime_id, [])

    def export(self, path: str | Path, cells: Sequence[str] = (), *, overwrite: bool = False) -> Path:
        """Write the served functions and everything that they need as a module for the official SDK; return its path.

        A path that ends in "/", or that is a folder, gets a whole project, as `export_project` writes it. `cells` are
        the notebook's cells as plain Python, oldest first; `%cmemu export-module` passes them. Raises `ExportRefused`,
        which names everything that can't be written faithfully, also if the file exists and `overwrite` is not set.
        """
        if is_folder(path):
            return self.export_project(path, cells, overwrite=overwrite).folder
        path = Path(path).expanduser()
        if not path.suffix and not os.path.lexists(path):
            raise ExportRefused(
                f"{path} is neither a folder nor the name of a Python file. Give {path}/ for a whole project, or "
                f"{path}.py for the module alone."
            )
        text = self._module(cells)
        with replacing(path, ExportRefused, overwrite=overwrite, rights=None) as file:
            file.write(text.encode())
        return path

    def export_project(self, folder: str | Path, cells: Sequence[str] = (), *, overwrite: bool = False) -> Project:
        """Write a project with the served functions into a folder, and return what was written.

        It has the module, `app.py`; `requirements.txt`, with the versions of this kernel; a Dockerfile that `emu.check`
        finds right; tests, with calls that succeeded here; a README with the commands; and the modules that no package
        brings. Files that were changed by hand are kept, unless `overwrite` is set. Raises `ExportRefused`, as
        `export` does, and then writes nothing.
        """
        from cmemu_nb.executors.cells.project import Project, write_project  # noqa: PLC0415
        from cmemu_nb.export.project_files import image_name, project_files  # noqa: PLC0415
        from cmemu_nb.export.requirements import files_in, find_requirements  # noqa: PLC0415
        from cmemu_nb.export.variation import varying_functions  # noqa: PLC0415

        folder, lifecycle = Path(folder).expanduser(), self._engine.lifecycle
        text = self._module(cells)
        needed, varying = find_requirements(text, cells), varying_functions(text)
        functions = [self._exported(each, varies=each.name in varying) for each in self.in_cells]
        configurations = {each.runtime_id: lifecycle.configuration(each.runtime_id) for each in self.in_cells}
        name = image_name(folder.resolve().name)
        texts = project_files(name, text, needed.lines, functions, list(configurations.values()))
        copied = files_in(folder, needed, texts)
        files = {path: each.encode() for path, each in texts.items()} | copied
        written, kept = write_project(folder, files, overwrite=overwrite)
        taken = [each for each in copied if each in written]
        return Project(folder, len(functions), written, kept, taken, needed.notes)

    def _module(self, cells: Sequence[str]) -> str:
        from cmemu_nb.export.writer import export_module  # noqa: PLC0415

        if not self.in_cells:
            raise ExportRefused(f"There is nothing to export. {self.nothing}")
        text = export_module(((each.definition.function, each.definition.streaming) for each in self.in_cells), cells)
        self._refuse_tokens(text)
        return text

    def _exported(self, served: ServedFunction, *, varies: bool) -> ExportedFunction:
        """Return what a project says of a function, with examples that have no token."""
        from cmemu_nb.export.examples import find_examples  # noqa: PLC0415
        from cmemu_nb.export.project_files import ExportedFunction  # noqa: PLC0415

        lifecycle, runtime_id = self._engine.lifecycle, served.runtime_id
        posted = lifecycle.find_schema(runtime_id, served.name) if lifecycle.has_runtime(runtime_id) else None
        jobs = [each for each in lifecycle.jobs(runtime_id) if each.query_type == served.name] if posted else []
        examples = find_examples(jobs, served.definition.full_schema, posted.posted_at if posted else 0)
        secret = self._tokens()
        shown = [each for each in examples if not any(token in repr(each) for token in secret)]
        return ExportedFunction(served.name, served.summary, served.definition.schema, shown, varies)

    def _tokens(self) -> list[str]:
        """Return what no file of an export may contain."""
        identity = self._engine.identity
        tokens = [runtime.module_auth_token for runtime in self._engine.lifecycle.runtimes()]
        configured = [each for runtime in {each.runtime_id for each in self} for each in self._secrets_of(runtime)]
        every = (*identity.bearer_tokens, identity.client_secret, *tokens, *configured)
        return [each for each in every if len(each) >= MIN_MASKED]

    def _refuse_tokens(self, text: str) -> None:
        for token in self._tokens():
            if token in text:
                raise ExportRefused(
                    f"The module would hold a whole token of this emulator ({last_four(token)}). "
                    "Read it from an environment variable inside the function."
                )

    def _secrets_of(self, runtime_id: str) -> list[str]:
        return self._engine.lifecycle.configuration(runtime_id).secrets

    async def started(self) -> None:
        """Serve again the functions that were served before the emulator was stopped."""
        self._configured.resume()
        self._change_lock = asyncio.Lock()  # a new one for each loop, since a lock belongs to one loop
        for executor in list(self._executors.values()):
            if executor.functions:
                await executor.begin()
        self._paused = False

    async def stopping(self, reason: str) -> None:
        """End the executors until the emulator is started again."""
        self._paused = True
        with contextlib.ExitStack() as each_even_if_one_fails:
            for executor in self._executors.values():
                each_even_if_one_fails.callback(executor.end, f"{reason} while the function ran")
            each_even_if_one_fails.callback(self._configured.pause)

    def _on_event(self, event: Event) -> None:
        """Let cells find what their runtime is configured with, until it is deleted."""
        runtime_id = event.runtime_id or ""
        if event.kind == "runtime_configured" and self._engine.running:
            configured = self._engine.lifecycle.is_configured(runtime_id)
            self._engine.identity.accept(runtime_id, self._engine.lifecycle.configuration(runtime_id))
            if not configured:
                self._configured.remove(runtime_id)
            elif runtime_id == NOTEBOOK or runtime_id in self._executors:
                self._configured.set(runtime_id)
        elif event.kind in ("session_opened", "session_reset"):
            self._configured.follow(runtime_id)
        elif event.kind == "session_deleted":
            self._configured.remove(runtime_id)

    def pause(self, runtime_id: str) -> None:
        """Leave a runtime's jobs to other executors, for instance to a cluster."""
        if runtime_id in self._executors:
            self._executors[runtime_id].pause()

    def resume(self, runtime_id: str) -> None:
        """Take a runtime's jobs again."""
        if runtime_id in self._executors:
            self._executors[runtime_id].resume()

    # Lookup

    def executor(self, runtime_id: str) -> NotebookExecutor | None:
        """Return the executor that serves a runtime's functions, None if there is none."""
        executor = self._executors.get(runtime_id)
        return executor if executor is not None and executor.working else None

    @property
    def executors(self) -> list[NotebookExecutor]:
        """The executors that serve functions of this process, one for each runtime."""
        return [each for each in list(self._executors.values()) if each.working]

    def were_on(self, runtime_id: str) -> bool:
        """Return whether functions of this process are or were served on a runtime."""
        return runtime_id in self._executors

    def definitions(self, runtime_id: str) -> list[Definition]:
        """Return the current definitions of a runtime's functions."""
        executor = self._executors.get(runtime_id)
        return [served.definition for served in executor.functions.values()] if executor else []

    def definition_of(self, function: Callable[..., Any] | str) -> Definition:
        """Return a function's definition: the one that is served, on the notebook's own runtime first, or a new one.

        The function is given itself or by its name.
        """
        from cmemu_nb.executors.sdk.adapter import define  # noqa: PLC0415 - the SDK takes a while to import

        if isinstance(function, str):
            own = {each.name: each for each in self.definitions(NOTEBOOK)}
            return own.get(function) or self._find(function, None).definition
        served = self.find(function)
        return served.definition if served else define(function, streaming=inspect.isgeneratorfunction(function))

    def context(self, runtime_id: str) -> dict[str, Any] | None:
        """Return what the context of a runtime's functions has of its configuration; None while there is none."""
        return self._configured.context(runtime_id)

    def streams(self, runtime_id: str, name: str) -> bool:
        """Return whether a function of this name is served on a runtime and streams."""
        executor = self._executors.get(runtime_id)
        served = executor.functions.get(name) if executor else None
        return served is not None and served.definition.streaming

    def find(self, function: Callable[..., Any]) -> ServedFunction | None:
        """Return the served function whose Python function is this one, None if there is none."""
        same = (function, inspect.unwrap(function))  # the SDK's decorator wraps it
        return next((each for each in self.in_cells if each.definition.function in same), None)

    def name_of(self, function: Function) -> tuple[str, str | None]:
        """Return a function's name, and the runtime that it is served on, None if only its name is known.

        Raises `NotFound` if another function is served under its name, `InvalidRequest` if it has no name.
        """
        if isinstance(function, str):
            return function, None
        if (served := self.find(function)) is not None:
            return served.name, served.runtime_id
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            raise InvalidRequest(f"{function!r} can't be called: give a function that is served, or its name as text.")
        others = [each for each in self.in_cells if each.name == name]
        if others:
            raise NotFound(
                f"The {name} that was given is not the one that is served, {others[0]!r}. Serve it with "
                f"@{self._engine.name}.function, or give {name!r} to call the one that is served."
            )
        return name, None

    def schema_of(self, runtime_id: str, name: str) -> Any:
        """Return the schema of a function that a runtime has posted, as JSON values; None if it has posted none.

        For a function that is served here, each struct also lists the fields that it needs as `required`, which the
        SDK does not post.
        """
        posted = self._engine.lifecycle.find_schema(runtime_id, name)
        if posted is None:
            return None
        executor = self._executors.get(runtime_id)
        served = executor.functions.get(name) if executor else None
        if served is not None and served.definition.payload == posted.schema_payload:
            return served.definition.full_schema
        return read_exactly(posted.schema_payload)

    def find_on(self, runtime_id: str, name: str) -> ServedFunction | ModuleFunction | None:
        """Return the function of this name in a cell or in a launched module that a runtime has, None without one."""
        executor, of_modules = self._executors.get(runtime_id), self._of_modules()
        served = executor.functions.get(name) if executor else None
        return served or (of_modules.find(runtime_id, name) if of_modules is not None else None)

    @property
    def in_cells(self) -> list[ServedFunction]:
        """The functions in cells, without those of launched modules."""
        return [each for executor in list(self._executors.values()) for each in list(executor.functions.values())]

    def __iter__(self) -> Iterator[ServedFunction | ModuleFunction]:
        in_cells = self.in_cells
        yield from in_cells
        if (of_modules := self._of_modules()) is not None:
            names = {(each.runtime_id, each.name) for each in in_cells}
            yield from (each for each in of_modules if (each.runtime_id, each.name) not in names)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return any(each.name == name for each in self)

    def __getitem__(self, name: str) -> ServedFunction | ModuleFunction:
        return _only(list(self), name, "", f"find_on({{runtime}}, {name!r})")

    def _find(self, name: str, runtime_id: str | None) -> ServedFunction:
        """Return a function in a cell."""
        candidates = [each for each in self.in_cells if runtime_id in (None, each.runtime_id)]
        where = f" on runtime '{runtime_id}'" if runtime_id else " in a cell"
        return _only(candidates, name, where, "runtime_id={runtime}")

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or self.nothing

    @property
    def nothing(self) -> str:
        """The message to show when no functions are served."""
        return none_served(self._engine.name)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from cmemu_nb.display.cards import show_functions  # noqa: PLC0415 - only a notebook wants it

        return show_functions(self)


def _only(candidates: Sequence[F], name: str, where: str, choice: str) -> F:
    """Return the function of a name; `NotFound` lists the names, or the runtimes if several have such a function.

    `choice` says how to choose a `{runtime}`.
    """
    found = [each for each in candidates if each.name == name]
    if not found:
        raise NotFound(not_served(name, {each.name for each in candidates}, where))
    if len(found) > 1:
        choices = " or ".join(choice.format(runtime=repr(each.runtime_id)) for each in found)
        raise NotFound(f"'{name}' is served on {len(found)} runtimes: say which one, {choices}.")
    return found[0]


def none_served(emu: str, where: str = "") -> str:
    """Return the message that no functions are served; `emu` is the emulator's name, `where` such as " on ..."."""
    return f"No functions are served{where}. Write @{emu}.function above one."


def _print_still_running(emu: str, jobs: dict[str, int]) -> None:
    """Print that jobs of earlier versions still run, and how to end them."""
    for name, count in jobs.items():
        run, them = ("runs", "it") if count == 1 else ("run", "them")
        cancel = magic_line(emu, f"cancel {name}") if cell_is_running() else f'{emu}.cancel("{name}")'
        print(f"{plural(count, 'job')} of {name}'s earlier version still {run}. {cancel} ends {them}.")  # noqa: T201
