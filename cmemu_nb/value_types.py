"""Which kind of value something is, by the names of its classes: nothing is imported to find out."""

from __future__ import annotations


def kinds_of(value: object) -> list[str]:
    """Return the names of a value's classes, its own first, each as its package and name: `pandas.DataFrame`."""
    return [_short(kind) for kind in type(value).__mro__]


def name_of_type(value: object) -> str:
    """Return the name of a value's class as people write it: `numpy.int64`, `set`, `Item`."""
    kind = type(value)
    short, package = _short(kind), kind.__module__.partition(".")[0]
    if package in ("builtins", "__main__"):
        return kind.__qualname__
    return short if package in _SHORTENED else f"{kind.__module__}.{kind.__qualname__}"


_SHORTENED = frozenset({"numpy", "pandas", "pathlib", "pydantic", "polars", "pyarrow"})


def _short(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
