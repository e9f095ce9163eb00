"""A function in a cell that is served: its definition, and what became of its jobs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from cmemu_nb.executors.counted_function import CountedFunction
from cmemu_nb.wire.function_schemas import schema_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cmemu_nb.executors.sdk.adapter import Definition


class ServedFunction(CountedFunction):
    """A function that is served on a runtime; `version` counts its definitions.

    `running` jobs run; the functions of `abandoned` ones still run although their jobs were ended from outside.
    """

    def __init__(self, runtime_id: str, definition: Definition) -> None:
        super().__init__(runtime_id, definition.name)
        self.definition = definition
        self.version = 1
        self.running = 0
        self.abandoned = 0
        self.echo: Callable[[str], object] | None = None

    @property
    def signature(self) -> str:
        """The function's parameters and result in Python's syntax."""
        return self.definition.signature

    @property
    def schema_in_words(self) -> str:
        """The posted schema in words."""
        return schema_in_words(self.definition.schema)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring; "" without one."""
        return (inspect.getdoc(self.definition.function) or "").partition("\n")[0]

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The defaults of the function's inputs, as JSON values by name."""
        return self.definition.defaults

    def replace(self, definition: Definition) -> None:
        """Serve a new version; running jobs keep the version that they started with."""
        self.definition = definition
        self.version += 1
