"""The functions of launched modules: those whose schemas the modules' runtimes have."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cmemu_nb.errors import NotFound
from cmemu_nb.executors.counted_function import CountedFunction
from cmemu_nb.wire.function_schemas import schema_in_words
from cmemu_nb.wire.json_values import read_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.modules.modules import Modules
    from cmemu_nb.lifecycle.records import Job


class ModuleFunction(CountedFunction):
    """A function of a launched module. Its jobs are counted as long as its runtime exists."""

    abandoned = 0
    """A replica that is ended ends its functions, too."""

    def __init__(self, engine: Engine, modules: Modules, runtime_id: str, name: str) -> None:
        super().__init__(runtime_id, name)
        self._engine = engine
        self._modules = modules

    @property
    def running(self) -> int:
        """How many of its jobs run."""
        held = (
            self._engine.lifecycle.find_job(job_id)
            for module in self._modules.of(self.runtime_id)
            for process in module.replicas
            for job_id in list(process.replica.held)
        )
        return sum(1 for job in held if job is not None and job.query_type == self.name)

    @property
    def schema_in_words(self) -> str:
        """The posted schema in words; "" for one of another dialect than the official SDKs'."""
        with contextlib.suppress(NotFound, ValueError, RecursionError):
            schema = self._engine.lifecycle.find_schema(self.runtime_id, self.name)
            return "" if schema is None else schema_in_words(read_exactly(schema.schema_payload))
        return ""


class ModuleFunctions:
    """The functions of the modules that an emulator has launched; it may be read in any thread."""

    def __init__(self, engine: Engine, modules: Modules) -> None:
        self._engine = engine
        self._modules = modules
        self._functions: dict[str, dict[str, ModuleFunction]] = {}

    def __iter__(self) -> Iterator[ModuleFunction]:
        for runtime_id in dict.fromkeys(module.runtime_id for module in self._modules):
            with contextlib.suppress(NotFound):  # the runtime was deleted meanwhile
                for schema in self._engine.lifecycle.schemas(runtime_id):
                    yield self._function(runtime_id, schema.function_name)

    def find(self, runtime_id: str, name: str) -> ModuleFunction | None:
        """Return a function of a runtime for which a module was launched, None if it has none of that name."""
        with contextlib.suppress(NotFound):
            if self._modules.of(runtime_id) and self._engine.lifecycle.find_schema(runtime_id, name) is not None:
                return self._function(runtime_id, name)
        return None

    def _function(self, runtime_id: str, name: str) -> ModuleFunction:
        new = ModuleFunction(self._engine, self._modules, runtime_id, name)
        return self._functions.setdefault(runtime_id, {}).setdefault(name, new)

    def count(self, job: Job) -> None:
        """Count a job that has ended."""
        if (function := self.find(job.runtime_id, job.query_type)) is not None:
            function.count(job)

    def forget(self, runtime_id: str) -> None:
        """Forget the functions of a runtime that was deleted."""
        self._functions.pop(runtime_id, None)
