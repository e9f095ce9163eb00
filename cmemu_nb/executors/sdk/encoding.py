"""What the official SDK can't encode as JSON: where it is in a result, and what to return instead.

For nearly all of it the SDK says only "Circular reference detected". [foundry: its encoder]
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

from compute_modules.function_registry.datetime_conversion_util import DatetimeConversionUtil

from cmemu_nb.phrases import shown
from cmemu_nb.wire.value_types import kinds_of, name_of_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What helps with values of a class, or of one derived from it.
_CURES = {
    "numpy.integer": "int(...)",
    "numpy.floating": "float(...)",
    "numpy.bool": "bool(...)",
    "numpy.bool_": "bool(...)",
    "numpy.ndarray": "its .tolist()",
    "numpy.datetime64": "str(...)",
    "numpy.timedelta64": "str(...)",
    "numpy.bytes_": "its .decode()",
    "pandas.DataFrame": "its .to_dict('records')",
    "pandas.Series": "its .tolist()",
    "pandas.Index": "its .tolist()",
    "pandas.NAType": "None",
    "pandas.NaTType": "None",
    "pandas.Timestamp": "its .tz_localize('UTC')",
    "polars.DataFrame": "its .to_dicts()",
    "polars.Series": "its .to_list()",
    "pyarrow.Table": "its .to_pylist()",
    "torch.Tensor": "its .tolist()",
    "pydantic.BaseModel": "its .model_dump(mode='json')",
    "decimal.Decimal": "str(...) or float(...)",
    "datetime.date": "its .isoformat()",
    "datetime.time": "its .isoformat()",
    "datetime.timedelta": "its .total_seconds()",
    "enum.Enum": "its .value",
    "uuid.UUID": "str(...)",
    "pathlib.PurePath": "str(...)",
    "fractions.Fraction": "str(...) or float(...)",
    "builtins.BaseException": "str(...)",
    "builtins.bytes": "its .decode(), or base64.b64encode(...).decode() if it is no text",
    "builtins.bytearray": "its .decode(), or base64.b64encode(...).decode() if it is no text",
    "builtins.complex": "a list of its .real and .imag",
    "builtins.set": "list(...)",
    "builtins.frozenset": "list(...)",
    "builtins.range": "list(...)",
    "builtins.generator": "list(...), or give the function's decorator streaming=True",
    "builtins.dict_keys": "list(...)",
    "builtins.dict_values": "list(...)",
    "builtins.dict_items": "dict(...)",
    "builtins.map": "list(...)",
    "builtins.filter": "list(...)",
    "builtins.zip": "list(...)",
    "builtins.mappingproxy": "dict(...)",
    "collections.UserDict": "dict(...)",
    "collections.deque": "list(...)",
}
_OTHER_CURE = "a dict of its fields, or make its class a dataclass"
_STREAMED_CURE = "a dict of its fields"
_KEYS = (str, int, float, type(None))


def unencodable(value: object, path: str = "result", *, streamed: bool = False) -> str | None:
    """Say where a result holds what can't be encoded first, what it is and what helps; None if all of it can be.

    An item of a stream is `streamed`: the SDK encodes fewer types there. `path` is what to call the value.
    """
    try:
        return _Search(streamed=streamed).find(value, path)
    except RecursionError:
        return f"{path} is nested too deeply to be encoded as JSON: return a flatter value."


class _Search:
    """Looks at a value as the SDK's encoder does, in the same order."""

    def __init__(self, *, streamed: bool) -> None:
        self._streamed = streamed
        self._verb = "yield" if streamed else "return"
        self._around: dict[int, str] = {}

    def find(self, value: object, path: str) -> str | None:
        """Return the first problem in a value, or None."""
        if isinstance(value, int):
            return self._problem_of_integer(value, path)
        if self._is_plain(value):
            return None
        if id(value) in self._around:
            return self._say(path, f"is {self._around[id(value)]} itself", "what does not contain itself")
        if (parts := self._parts(value, path)) is not None:
            return self._first(parts, value, path)
        what = f"the class {value.__qualname__}" if isinstance(value, type) else name_of_type(value)
        return self._say(path, f"is {what}", self._cure(value))

    def _is_plain(self, value: object) -> bool:
        if value is None or isinstance(value, str | float):
            return True
        return isinstance(value, dt.date) and not self._streamed and _is_encodable_time(value)

    def _parts(self, value: object, path: str) -> Iterable[tuple[object, str]] | None:
        match value:
            case dict():
                return self._members(value, path)
            case list() | tuple():
                return ((each, f"{path}[{position}]") for position, each in enumerate(value))
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type) and not self._streamed:
                return ((getattr(value, each.name), f"{path}.{each.name}") for each in dataclasses.fields(value))
        return None

    def _members(self, value: dict[Any, object], path: str) -> Iterator[tuple[object, str]]:
        for key, each in value.items():
            if not isinstance(key, _KEYS):
                raise _BadKey(path, key)
            yield each, f"{path}[{shown(key)}]"

    def _first(self, parts: Iterable[tuple[object, str]], value: object, path: str) -> str | None:
        self._around[id(value)] = path
        try:
            for part, where in parts:
                if problem := self.find(part, where):
                    return problem
        except _BadKey as bad:
            named = f"has the key {shown(bad.key)}, a {name_of_type(bad.key)}, and the keys of a JSON object are text"
            return f"{bad.path} {named}: {self._verb} it with str(...) as the key."
        finally:
            del self._around[id(value)]
        return None

    def _problem_of_integer(self, value: int, path: str) -> str | None:
        try:
            int.__repr__(value)
        except ValueError:  # Python's limit, of 4300 digits if nobody has changed it
            return self._say(path, "is an integer with too many digits for Python to write", "hex(...)")
        return None

    def _cure(self, value: object) -> str:
        if isinstance(value, type):
            return "an object of it"
        if dataclasses.is_dataclass(value):
            return "dataclasses.asdict(...)"
        known = (cure for kind in kinds_of(value) if (cure := _CURES.get(kind)))
        return next(known, _STREAMED_CURE if self._streamed else _OTHER_CURE)

    def _say(self, path: str, what: str, cure: str) -> str:
        return f"{path} {what}, which can't be encoded as JSON: {self._verb} {cure}."


class _BadKey(Exception):
    def __init__(self, path: str, key: object) -> None:
        self.path = path
        self.key = key


def _is_encodable_time(value: dt.date) -> bool:
    try:
        return not isinstance(value, dt.datetime) or bool(DatetimeConversionUtil.datetime_to_string(value))
    except Exception:  # noqa: BLE001 - pandas has errors of its own
        return False


class Items:
    """The items of a stream, which remember the last one that was taken."""

    def __init__(self, items: Iterable[object]) -> None:
        self._items = items
        self._taken = 0
        self._last: object = None

    def __iter__(self) -> Iterator[object]:
        for item in self._items:
            self._taken, self._last = self._taken + 1, item
            yield item

    @property
    def problem(self) -> str | None:
        """What is wrong with the last item that was taken."""
        return unencodable(self._last, f"items[{self._taken - 1}]", streamed=True) if self._taken else None


def explained(problem: str, posted: str) -> str:
    """Return a problem with the words that the SDK posts for it."""
    said = posted.partition(": Traceback (most recent call last)")[0]
    return f"{problem} The official SDK's own error, here as on the platform, is {said!r}."


def surprising_stream(result: object) -> str | None:
    """Say what a streaming function's result becomes when the SDK takes it apart, if hardly anybody wants that."""
    kinds = kinds_of(result)
    for kind, becomes, cure in _SURPRISES:
        if kind in kinds:
            return f"The streaming function returned a {name_of_type(result)}, so {becomes}: {cure}."
    return None


_SURPRISES = (
    ("builtins.str", "each of its characters is an item", "yield the text, or return it in a list"),
    ("builtins.bytes", "each of its bytes is an item, as a number", "yield text"),
    ("pandas.DataFrame", "the names of its columns are the items", "return its .to_dict('records')"),
    ("pydantic.BaseModel", "each of its fields is an item", "yield its .model_dump(mode='json')"),
)
