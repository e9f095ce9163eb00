"""What can't be a compute module's function is refused when it is defined, with the reason and what to do."""

import collections.abc
import dataclasses
import datetime  # noqa: ICN001 - as functions write it
import decimal
import typing
import uuid

import pytest
from compute_modules.context import QueryContext
from compute_modules.function_registry.types import Long

from cmemu_nb.errors import FunctionRefused
from cmemu_nb.executors.functions import define

NAMES = {**vars(collections.abc), **vars(typing), "datetime": datetime, "decimal": decimal, "uuid": uuid}


@dataclasses.dataclass
class Item:
    name: str
    price: decimal.Decimal
    due: datetime.date | None = None


@dataclasses.dataclass
class Stamped:
    at: datetime.datetime
    items: list[str]


@dataclasses.dataclass
class HoldsList:
    x: list  # type: ignore[type-arg]


@dataclasses.dataclass
class HoldsTuples:
    inner: dict[str, list[tuple]]  # type: ignore[type-arg]


@dataclasses.dataclass
class Nothing:
    pass


class Plain:
    flag: bool

    def __init__(self, flag: bool) -> None:  # noqa: FBT001 - the SDK's own way
        self.flag = flag


class Untyped:
    flag: bool

    def __init__(self, flag):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        self.flag = flag


class Greedy:
    flag: bool

    def __init__(self, flag: bool, **kwargs: int) -> None:  # noqa: ARG002, FBT001
        self.flag = flag


class Tag(typing.TypedDict):
    key: str


CLASSES = (Item, Stamped, HoldsList, HoldsTuples, Nothing, Plain, Untyped, Greedy, Tag, QueryContext, Long)
NAMES |= {kind.__name__: kind for kind in CLASSES}


def make(head: str) -> typing.Any:
    namespace = dict(NAMES)
    exec(head if ":" in head.rpartition(")")[2] else f"{head}: ...", namespace)
    return namespace["f"]


@pytest.mark.parametrize(
    "head",
    [
        "def f(context, event)",
        "def f(context: QueryContext, event: Item) -> str",
        "def f(context, event: Tag) -> list[Tag]",
        "def f(context, event: Plain) -> dict[str, int]",
        "def f(context, event: Nothing) -> None",
        "def f(context, event: Item) -> Stamped",
        "def f(context, event) -> datetime.date",
        "def f(context, event) -> Optional[datetime.datetime]",
        "def f(context, event) -> list[Long]",
        "def f(context, event) -> dict[int, list[float]]",
        "def f(context, event) -> Any",
        "def f(context, event, more=3)",
        "def f(*arguments)",
    ],
)
def test_what_the_sdk_can_run_is_taken(head: str) -> None:
    assert define(make(head)).name == "f"


@pytest.mark.parametrize(
    ("head", "reason", "fix"),
    [
        ("def f(context, event) -> uuid.UUID", "must match init args", "Make it a dataclass"),
        ("def f(context: dict, event)", "SDK refuses it .context can only be typed", "QueryContext, or not at all"),
        ("def f(context, event: 'Item')", "NameError: name 'Item' is not defined", "write types, not strings"),
        ("def f(context, event: Untyped)", "should have init args type annotations", "Make it a dataclass"),
        ("def f(context, event: Greedy)", "SDK refuses it .*kwargs", "Make it a dataclass"),
        ("def f(context, event: list[int])", "expected a class", "a dataclass or a TypedDict"),
        ("def f(context, event: Item | None)", "expected a class", "a dataclass or a TypedDict"),
        ("def f(context, event) -> dict", "dict type hints must have type parameters", r"dict\[str, int\]"),
        ("def f(context, event) -> int | str", "Only unions with two types", "Optional"),
        ("def f(context, event) -> Generator[int, None, None]", "expected a class", r"a stream is Iterable\[\.\.\.\]"),
    ],
)
def test_what_the_sdk_refuses_is_refused_with_its_reason_and_a_fix(head: str, reason: str, fix: str) -> None:
    with pytest.raises(FunctionRefused, match=rf"^f can't be served: .*{reason}.*{fix}"):
        define(make(head))


@pytest.mark.parametrize(
    ("head", "reason", "fix"),
    [
        ("def f(context, event: dict)", "'event' is annotated as dict", "without annotation"),
        ("def f(context, event: str)", "'event' is annotated as str", "without annotation"),
        ("def f(context, event: int)", "'event' is annotated as int", "without annotation"),
        ("def f(context, event: Any)", "'event' is annotated as Any", "without annotation"),
        ("def f(context, event: datetime.date)", "'event' is annotated as date", "without annotation"),
        ("def f(context, event: HoldsList)", r"'event\.x' is annotated as list", r"one of bool, int, .*list\[\.\.\.\]"),
        ("def f(context, event: HoldsTuples)", r"'event\.inner' is annotated as tuple", "one of bool, int"),
        ("def f(ctx: QueryContext, event: Item)", "takes the first annotated parameter", "first parameter 'context'"),
        ("def f(context, event, more: int = 3)", "here 'more'", "annotate no others"),
        ("def f(event)", "too many positional arguments", r"def name\(context, event\)"),
        (
            "def f(context, event, *, key)",
            r"missing a required (?:keyword-only )?argument: 'key'",
            r"def name\(context, event\)",
        ),
        ("async def f(context, event)", "never await it", r"asyncio\.run"),
        ("async def f(context, event): yield 1", "never await it", r"asyncio\.run"),
        ("def f(context, event): yield 1", "it is a generator", "streaming=True"),
        ("def f(context, event) -> decimal.Decimal", "Decimal", "str or a float"),
        ("def f(context, event) -> bytes", "bytes", "str"),
        ("def f(context, event) -> set[int]", "set", r"list\[\.\.\.\]"),
        ("def f(context, event) -> list[Optional[bytes]]", "bytes", "str"),
        ("def f(context, event) -> dict[str, set[int]]", "set", r"list\[\.\.\.\]"),
        ("def f(context, event) -> Item", "Decimal", "str or a float"),
        ("def f(context, event) -> Plain", "Plain", "dict"),
        ("def f(context, event) -> dict[datetime.date, int]", "keys of type date", "str keys"),
    ],
)
def test_what_the_sdk_takes_and_breaks_is_refused_too(head: str, reason: str, fix: str) -> None:
    with pytest.raises(FunctionRefused, match=rf"^f can't be served: .*{reason}.*{fix}"):
        define(make(head))


@pytest.mark.parametrize("item", ["datetime.date", "Stamped", "bytes", "decimal.Decimal"])
def test_the_items_of_a_stream_must_be_plain_json(item: str) -> None:
    with pytest.raises(FunctionRefused, match="in a stream as JSON"):
        define(make(f"def f(context, event) -> Iterable[{item}]: yield 1"), streaming=True)


@pytest.mark.parametrize("returns", ["Iterable[int]", "list[str]", "set[int]", "dict[str, int]", "Iterable[Tag]"])
def test_a_stream_of_plain_json_is_taken(returns: str) -> None:
    assert define(make(f"def f(context, event) -> {returns}: yield 1"), streaming=True).streaming


@pytest.mark.parametrize("function", [lambda *_: 1, 3, None, "f"])
def test_what_has_no_name_is_refused(function: object) -> None:
    with pytest.raises(FunctionRefused, match=r"Define it with def\."):
        define(function)
