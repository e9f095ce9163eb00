"""The recognition of kinds of values by the names of their classes, without importing any library."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


def kinds_of(value: object) -> list[str]:
    """Return the names of a value's class and its base classes, as package and name, such as `pandas.DataFrame`."""
    return [_short(kind) for kind in type(value).__mro__]


def name_of_type(value: object) -> str:
    """Return the name of a value's class as people write it, such as `numpy.int64`, `set` or `Item`."""
    kind = type(value)
    short, package = _short(kind), kind.__module__.partition(".")[0]
    if package in ("builtins", "__main__"):
        return kind.__qualname__
    return short if package in _SHORTENED else f"{kind.__module__}.{kind.__qualname__}"


_SHORTENED = frozenset({"numpy", "pandas", "pathlib", "pydantic", "polars", "pyarrow"})


def _short(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def fields_of_object(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, a pydantic model, an attrs object or a named tuple; None for other values."""
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return value._asdict() if hasattr(value, "_asdict") else None
    if (names := getattr(type(value), "model_fields", None)) is not None:
        return {**{name: getattr(value, name) for name in names}, **(value.model_extra or {})}
    attributes = getattr(type(value), "__attrs_attrs__", None)
    return None if attributes is None else {each.name: getattr(value, each.name) for each in attributes}


def is_missing(value: Any) -> bool:
    """Return whether a value is a missing value: NaN, pandas' NaT and NA, numpy's NaT and masked."""
    kind = type(value).__name__
    if isinstance(value, float) or kind in _OTHER_FLOATS:
        return math.isnan(value)
    return kind in _MISSING or (kind in _NUMPY_TIMES and str(value) == "NaT")


_OTHER_FLOATS = frozenset({"float16", "float32", "longdouble"})
_NUMPY_TIMES = frozenset({"datetime64", "timedelta64"})
_MISSING = frozenset({"NaTType", "NAType", "MaskedConstant"})


def duplicate_column(frame: Any) -> str | None:
    """Describe a DataFrame in which two columns have the same name, which can't be an object; None otherwise."""
    if frame.columns.is_unique:
        return None
    return f"a DataFrame with two columns {frame.columns[frame.columns.duplicated()][0]!r}"
