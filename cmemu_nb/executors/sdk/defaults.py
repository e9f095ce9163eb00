"""The defaults of a function's inputs, which its schema does not have: it only says that they may be left out."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.wire.function_schemas import inputs_of
from cmemu_nb.wire.query_values import plain_query

if TYPE_CHECKING:
    from collections.abc import Mapping

# The types whose call, as the default factory of a dataclass's field, runs no code of the user's.
FACTORIES = (list, dict, set, str, int, float, bool)


def defaults_of(event: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of an event's class, as JSON values by name, for the inputs of its function's schema.

    A default that no query can hold is left out, and so is one that a function of the user's would make.
    """
    found: dict[str, Any] = {}
    values = _values(event) if inspect.isclass(event) and not issubclass(event, dict) else {}
    for name in inputs_of(schema) or ():
        if name in values:
            with contextlib.suppress(InvalidRequest):
                query: Any = plain_query({name: values[name]}, schema)
                found |= query
    return found


def _values(event: type) -> dict[str, Any]:
    parameters = inspect.signature(event).parameters.values()
    values = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    for name, field in getattr(event, "__dataclass_fields__", {}).items():
        if name in values and callable(factory := field.default_factory):
            del values[name]
            if factory in FACTORIES:
                values[name] = factory()
    return values
