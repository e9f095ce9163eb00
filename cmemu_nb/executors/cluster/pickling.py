"""Functions pickled for other machines; functions that can't be pickled are refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cloudpickle

from cmemu_nb.errors import FunctionRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.executors.sdk.adapter import Definition


def pickled(definitions: Iterable[Definition], configured: dict[str, Any] | None = None) -> bytes:
    """Return functions and everything that they use, by name, as bytes that a worker can load.

    With them is what their context has of the configuration of their runtime. Raises `FunctionRefused`, which names
    every function that can't be shipped and the variables that prevent it.
    """
    functions = {each.name: each for each in definitions}
    try:
        whole: bytes = cloudpickle.dumps((functions, configured))
    except Exception:  # noqa: BLE001 - pickling runs code of the objects, which may raise any error
        problems = [problem for each in functions.values() if (problem := _problem(each))]
        raise FunctionRefused(f"{' '.join(problems)} Open such things inside the function.") from None
    return whole


def _problem(definition: Definition) -> str | None:
    try:
        cloudpickle.dumps(definition)
    except Exception as error:  # noqa: BLE001
        return f"{definition.name} can't be shipped to other machines ({error}){_variables_of_problem(definition)}."
    return None


def _variables_of_problem(definition: Definition) -> str:
    """Return a phrase that names the variables of a function that can't be pickled."""
    function = definition.function
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    used = {name: function.__globals__[name] for name in names if name in getattr(function, "__globals__", {})}
    cells = getattr(function, "__closure__", None) or ()
    used |= dict(zip(getattr(function.__code__, "co_freevars", ()), (_content(cell) for cell in cells), strict=False))
    return "".join(f", because of its variable {name!r}" for name, value in used.items() if not _is_picklable(value))


def _content(cell: object) -> object:
    try:
        return cell.cell_contents  # type: ignore[attr-defined]
    except ValueError:  # the cell is empty
        return None


def _is_picklable(value: object) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001
        return False
    return True
