"""Values that the official SDK can't encode as JSON: where they are in a result, and what to return instead.

For nearly all of them the SDK's error is only "Circular reference detected". [foundry: its encoder]
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

from compute_modules.function_registry.datetime_conversion_util import DatetimeConversionUtil

from cmemu_nb.phrases import abbreviated
from cmemu_nb.wire.value_types import kinds_of, name_of_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What to return instead of a value of a class or of its subclasses.
_REPLACEMENTS = {
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
_OTHER_REPLACEMENT = "a dict of its fields, or make its class a dataclass"
_STREAMED_REPLACEMENT = "a dict of its fields"
_KEYS = (str, int, float, type(None))


def unencodable(value: object, path: str = "result", *, streamed: bool = False) -> str | None:
    """Describe the first value in a result that can't be encoded: its place, its type and what helps; None if all can.

    `streamed` is for an item of a stream, where the SDK encodes fewer types. `path` is the value's name in the message.
    """
    try:
        return _Search(streamed=streamed).find(value, path)
    except RecursionError:
        return f"{path} is nested too deeply to be encoded as JSON: return a flatter value."


class _Search:
    """Checks the parts of a value in the order in which the SDK's encoder reaches them."""

    def __init__(self, *, streamed: bool) -> None:
        self._streamed = streamed
        self._verb = "yield" if streamed else "return"
        self._enclosing: dict[int, str] = {}  # the path of each container around the value, by its id()

    def find(self, value: object, path: str) -> str | None:
        """Return the first problem in a value, or None."""
        if isinstance(value, int):
            return self._problem_of_integer(value, path)
        if self._is_plain(value):
            return None
        if id(value) in self._enclosing:
            return self._describe(
                path, f"is {self._enclosing[id(value)]} itself", "a value that doesn't contain itself"
            )
        if (parts := self._parts(value, path)) is not None:
            return self._first_problem(parts, value, path)
        what = f"the class {value.__qualname__}" if isinstance(value, type) else name_of_type(value)
        return self._describe(path, f"is {what}", self._replacement(value))

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
            yield each, f"{path}[{abbreviated(key)}]"

    def _first_problem(self, parts: Iterable[tuple[object, str]], value: object, path: str) -> str | None:
        self._enclosing[id(value)] = path
        try:
            for part, part_path in parts:
                if problem := self.find(part, part_path):
                    return problem
        except _BadKey as bad:
            what = (
                f"has the key {abbreviated(bad.key)}, a {name_of_type(bad.key)}, and the keys of a JSON object are text"
            )
            return f"{bad.path} {what}: {self._verb} it with str(...) as the key."
        finally:
            del self._enclosing[id(value)]
        return None

    def _problem_of_integer(self, value: int, path: str) -> str | None:
        try:
            int.__repr__(value)
        except ValueError:  # Python limits the digits to sys.get_int_max_str_digits(), 4300 by default
            return self._describe(path, "is an integer with too many digits for Python to write", "hex(...)")
        return None

    def _replacement(self, value: object) -> str:
        if isinstance(value, type):
            return "an object of it"
        if dataclasses.is_dataclass(value):
            return "dataclasses.asdict(...)"
        known = (replacement for kind in kinds_of(value) if (replacement := _REPLACEMENTS.get(kind)))
        return next(known, _STREAMED_REPLACEMENT if self._streamed else _OTHER_REPLACEMENT)

    def _describe(self, path: str, what: str, replacement: str) -> str:
        return f"{path} {what}, which can't be encoded as JSON: {self._verb} {replacement}."


class _BadKey(Exception):
    def __init__(self, path: str, key: object) -> None:
        self.path = path
        self.key = key


def _is_encodable_time(value: dt.date) -> bool:
    try:
        return not isinstance(value, dt.datetime) or bool(DatetimeConversionUtil.datetime_to_string(value))
    except Exception:  # noqa: BLE001 - a pandas Timestamp raises errors of pandas
        return False


class Items:
    """The items of a stream. It remembers the last one that was taken."""

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
        """Why the last item that was taken can't be encoded, None if it can be."""
        return unencodable(self._last, f"items[{self._taken - 1}]", streamed=True) if self._taken else None


def explain_problem(problem: str, posted: str) -> str:
    """Return the description of a problem, followed by the error that the SDK posts for it."""
    sdk_error = posted.partition(": Traceback (most recent call last)")[0]
    return f"{problem} The official SDK's own error, here as on the platform, is {sdk_error!r}."


def warn_of_stream(result: object) -> str | None:
    """Return a warning if the SDK splits a streaming function's result into items that were probably not meant."""
    kinds = kinds_of(result)
    for kind, becomes, fix in _UNEXPECTED_ITEMS:
        if kind in kinds:
            return f"The streaming function returned a {name_of_type(result)}, so {becomes}: {fix}."
    return None


_UNEXPECTED_ITEMS = (
    ("builtins.str", "each of its characters is an item", "yield the text, or return it in a list"),
    ("builtins.bytes", "each of its bytes is an item, as a number", "yield text"),
    ("pandas.DataFrame", "the names of its columns are the items", "return its .to_dict('records')"),
    ("pydantic.BaseModel", "each of its fields is an item", "yield its .model_dump(mode='json')"),
)
