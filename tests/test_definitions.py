"""What can't be a compute module's function is refused when it is defined, with the reason and what to do."""

import collections.abc
import dataclasses
import datetime  # noqa: ICN001 - as functions write it
import decimal
import enum
import json
import pathlib
import re
import typing
import uuid

import numpy as np
import pandas as pd
import pydantic
import pytest
from compute_modules.context import QueryContext
from compute_modules.function_registry.function_payload_converter import convert_payload
from compute_modules.function_registry.function_schema_parser import parse_function_schema
from compute_modules.function_registry.types import Long

from cmemu_nb import Emulator
from cmemu_nb.errors import DefinitionWarning, FunctionRefused
from cmemu_nb.executors.sdk.adapter import define

NAMES = {**vars(collections.abc), **vars(typing), "datetime": datetime, "decimal": decimal, "uuid": uuid}
NAMES["pathlib"] = pathlib


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


@dataclasses.dataclass
class Inner:
    a: int
    b: str = "b"


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int


@dataclasses.dataclass
class KeywordOnly:
    a: int
    b: int = dataclasses.field(default=2, kw_only=True)


@dataclasses.dataclass
class NoParameter:
    a: int
    b: int = dataclasses.field(default=2, init=False)


@dataclasses.dataclass
class WithClassVar:
    a: int
    b: typing.ClassVar[int] = 1


@dataclasses.dataclass
class WithInitVar:
    a: dataclasses.InitVar[int]


@dataclasses.dataclass
class WithMarker:
    a: int
    _: dataclasses.KW_ONLY
    b: int = 2


@dataclasses.dataclass
class Chain:
    a: int
    next: typing.Optional["Chain"] = None


@dataclasses.dataclass
class Noted:
    a: typing.Annotated[int, "a note"]


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Model(pydantic.BaseModel):
    a: int


class Row(typing.NamedTuple):
    a: int


class Dated(typing.TypedDict):
    on: datetime.date


UserId = typing.NewType("UserId", str)
CLASSES: tuple[typing.Any, ...] = (
    Item,
    Stamped,
    HoldsList,
    HoldsTuples,
    Nothing,
    Plain,
    Untyped,
    Greedy,
    Tag,
    QueryContext,
    Long,
)
CLASSES += (Inner, Frozen, KeywordOnly, NoParameter, WithClassVar, WithInitVar, WithMarker, Chain, Noted)
CLASSES += (Color, Level, Model, Row, Dated, UserId, np.ndarray, np.int64, pd.DataFrame, pd.Timestamp)
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
        (
            "def f(context, event) -> uuid.UUID",
            r"its result is annotated as uuid\.UUID, .*must match init args",
            r"Use str\.",
        ),
        ("def f(context: dict, event)", "SDK refuses it .context can only be typed", "QueryContext, or not at all"),
        (
            "def f(context, event: 'Item')",
            "'event' is annotated as 'Item'.*NameError: name 'Item' is not defined",
            "Write types, not strings",
        ),
        ("def f(context, event: Untyped)", "should have init args type annotations", "Make it a dataclass"),
        ("def f(context, event: Greedy)", "SDK refuses it .*kwargs", "Make it a dataclass"),
        ("def f(context, event: list[int])", "expected a class", "a dataclass or a TypedDict"),
        ("def f(context, event: Item | None)", "expected a class", "a dataclass or a TypedDict"),
        ("def f(context, event) -> dict", "dict type hints must have type parameters", r"dict\[str, int\]"),
        ("def f(context, event) -> int | str", "Only unions with two types", "Optional"),
        (
            "def f(context, event) -> Generator[int, None, None]",
            "expected a class",
            r"Use Iterable\[int\], which is a stream",
        ),
    ],
)
def test_what_the_sdk_refuses_is_refused_with_its_reason_and_a_fix(head: str, reason: str, fix: str) -> None:
    with pytest.raises(FunctionRefused, match=rf"^f can't be served: .*{reason}.*{fix}"):
        define(make(head))


@pytest.mark.parametrize(
    ("head", "reason", "fix"),
    [
        ("def f(context, event: dict)", "'event' is annotated as dict, and .* would end as an error", "without an ann"),
        ("def f(context, event: dict) -> dict", "its result is annotated as dict", r"dict\[str, int\]"),
        ("def f(context, event: str)", "'event' is annotated as str", "without an annotation"),
        ("def f(context, event: int)", "'event' is annotated as int", "without an annotation"),
        ("def f(context, event: Any)", "'event' is annotated as Any", "without an annotation"),
        ("def f(context, event: datetime.date)", "'event' is annotated as date", "without an annotation"),
        (
            "def f(context, event: HoldsList)",
            r"'event\.x' is annotated as list",
            r"Use list\[\.\.\.\] with the type of its items",
        ),
        (
            "def f(context, event: HoldsTuples)",
            r"'event\.inner' is annotated as tuple",
            "a dataclass with a field for each",
        ),
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


# Fields: what the SDK itself does with each, and what is said of it


def with_field(hint: str) -> typing.Any:
    kind = dataclasses.make_dataclass("Event", [("x", eval(hint, NAMES))])
    function = lambda context, event: None  # noqa: ARG005, E731
    function.__name__, function.__annotations__ = "f", {"event": kind}
    return function


def given_by_the_sdk(function: typing.Any, value: object) -> typing.Any:
    """Return what the SDK makes of a field's value."""
    return convert_payload({"x": value}, parse_function_schema(function, "f", [], {}).class_node).x  # type: ignore[arg-type]


ADAM = {"a": 1}


@pytest.mark.parametrize(
    ("hint", "value", "given"),
    [
        ("Inner", ADAM, Inner(1)),
        ("Plain", {"flag": True}, None),
        ("Frozen", ADAM, Frozen(1)),
        ("list[Inner]", [ADAM], [Inner(1)]),
        ("Iterable[Inner]", [ADAM], [Inner(1)]),
        ("dict[str, Inner]", {"k": ADAM}, {"k": Inner(1)}),
        ("set[Frozen]", [ADAM], {Frozen(1)}),
        ("dict[datetime.date, list[int]]", {"2026-01-02": [1]}, {datetime.date(2026, 1, 2): [1]}),
        ("Tag", {"key": "k"}, {"key": "k"}),
        ("Dated", {"on": "2026-01-02"}, {"on": datetime.date(2026, 1, 2)}),
        ("Optional[int]", 1, 1),
        ("float | None", 1.5, 1.5),
        ("Optional[Tag]", {"key": "k"}, {"key": "k"}),
        ("Optional[list[str]]", ["a"], ["a"]),
        ("Optional[dict[str, int]]", {"a": 1}, {"a": 1}),
        ("Optional[Long]", 1, 1),
    ],
)
def test_what_arrives_as_its_type_is_taken_without_a_word(hint: str, value: object, given: object) -> None:
    function = with_field(hint)
    assert define(function).warnings == ()
    assert given is None or given_by_the_sdk(function, value) == given


@pytest.mark.parametrize(
    ("hint", "value", "what", "cure"),
    [
        (
            "Optional[Inner]",
            ADAM,
            "a dict",
            r"annotate it as Inner with the default None.*; or write Inner\(\*\*event\.x\)",
        ),
        ("Inner | None", ADAM, "a dict", r"annotate it as Inner with the default None"),
        ("Optional[Plain]", {"flag": True}, "a dict", r"Plain\(\*\*event\.x\)"),
        ("Optional[datetime.date]", "2026-01-02", "text", r"write datetime\.date\.fromisoformat\(event\.x\)"),
        ("Optional[datetime.datetime]", "2026-01-02T00:00:00Z", "text", r"write datetime\.datetime\.fromisoformat"),
        ("Optional[decimal.Decimal]", "1.1", "text", r"write decimal\.Decimal\(event\.x\)"),
        ("Optional[bytes]", "x", "text", r"write event\.x\.encode\(\)"),
        ("Optional[set[int]]", [1], "a list", r"write set\(event\.x\)"),
        ("Optional[list[Inner]]", [ADAM], "the JSON value", r"annotate it as list\[.*Inner\] with the default None"),
        ("Optional[dict[int, str]]", {"1": "a"}, "the JSON value", "with the default None"),
        ("Optional[Dated]", {"on": "2026-01-02"}, "a dict", "with the default None"),
        ("list[Optional[Inner]]", [ADAM], "a dict", r"Write Inner\(\*\*each\) in the function"),
        (
            "dict[str, Optional[datetime.date]]",
            {"a": "2026-01-02"},
            "text",
            r"Write datetime\.date\.fromisoformat\(each\)",
        ),
    ],
)
def test_what_is_handed_over_as_it_came_is_warned_of_with_the_field_and_a_fix(
    hint: str, value: object, what: str, cure: str
) -> None:
    function = with_field(hint)
    assert given_by_the_sdk(function, value) == value
    (warning,) = define(function).warnings
    assert re.match(rf"'event\.x' is annotated as Optional\[.*\], and .*: the function gets {what}\. ", warning)
    assert re.search(cure, warning, re.IGNORECASE)


def test_with_a_default_and_without_optional_the_sdk_converts() -> None:
    kind = dataclasses.make_dataclass("Event", [("x", Inner, None)])
    function = with_field("int")
    function.__annotations__ = {"event": kind}
    assert define(function).warnings == ()
    assert given_by_the_sdk(function, ADAM) == Inner(1)
    definition = define(function)
    assert convert_payload({}, definition.class_node) == kind()


@pytest.mark.parametrize(
    ("hint", "cure"),
    [
        ("Literal['a', 'b']", "Use str, and check the value in the function"),
        ("int | str", r"Use Optional\[\.\.\.\], or fields of their own"),
        ("list[int | str | None]", r"Use Optional\[\.\.\.\], or fields of their own"),
        ("tuple[int, str]", r"Use list\[\.\.\.\], or a dataclass with a field for each"),
        ("frozenset[int]", r"Use set\[int\]"),
        ("Sequence[int]", r"Use list\[int\]"),
        ("Mapping[str, int]", r"Use dict\[str, int\]"),
        ("UserId", r"Use str\."),
        ("Final[int]", r"Use int\."),
        ("TypeVar('T')", "the SDK knows no generic classes"),
        ("List", r"Use list\[\.\.\.\]"),
        ("dict", r"such as dict\[str, int\]"),
        ("Row", "Make it a dataclass"),
        ("Model", r"Make Model a dataclass, or leave its event without an annotation and write Model\(\*\*\.\.\.\)"),
        ("uuid.UUID", r"Use str, and uuid\.UUID\(event\.x\) in the function"),
        ("'Inner'", "Write types, not strings"),
        ("list['Inner']", "Write types, not strings"),
        ("Chain", r"'event\.x\.next' is annotated as 'Chain'.*no types that contain themselves"),
        ("KeywordOnly", r"event\.x\.b is a keyword-only field of KeywordOnly: drop kw_only"),
        ("NoParameter", r"event\.x\.b is not a parameter of NoParameter: drop init=False"),
        ("WithClassVar", r"'event\.x\.b' is annotated as .*ClassVar.*Write it without an annotation"),
        ("WithInitVar", r"'event\.x\.a' is annotated as .*InitVar.*Make it a field"),
        ("WithMarker", r"'event\.x\._' is annotated as KW_ONLY.*Leave it out"),
        ("Noted", r"event\.x\.a is Annotated: write int"),
        ("DataFrame", r"Use list\[\.\.\.\] of a dataclass that is a row, and pandas\.DataFrame\(event\.x\)"),
    ],
)
def test_a_field_that_the_sdk_refuses_is_named_with_a_fix(hint: str, cure: str) -> None:
    function = with_field(hint)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the SDK raises
        parse_function_schema(function, "f", [], {})
    with pytest.raises(
        FunctionRefused, match=r"^f can't be served: 'event\.x.* the official SDK refuses it"
    ) as refused:
        define(function)
    assert re.search(cure, str(refused.value))


@pytest.mark.parametrize(
    ("hint", "value", "cure"),
    [
        ("Any", 1, "Write its type, or let the function receive the dict: leave its event without an annotation"),
        ("list[Any]", [1], "Write its type"),
        ("Color", "red", r"Use str, and Color\(event\.x\) in the function"),
        ("Level", 1, r"Use int, and Level\(event\.x\) in the function"),
        ("tuple", [1], "a dataclass with a field for each"),
        ("list", [1], r"such as list\[int\]"),
        ("set", [1], r"such as set\[int\]"),
        ("datetime.time", "01:00", r"Use str, and datetime\.time\.fromisoformat\(event\.x\)"),
        ("datetime.timedelta", 1, r"Use float for the seconds, and datetime\.timedelta\(seconds=event\.x\)"),
        ("pathlib.Path", "/x", r"Use str, and pathlib\.Path\(event\.x\)"),
        ("int64", 1, r"Use int\."),
        ("ndarray", [1], r"Use list\[float\], and numpy\.array\(event\.x\)"),
        ("Timestamp", "2026-01-02", r"Use datetime\.datetime, and pandas\.Timestamp\(event\.x\)"),
        ("set[Inner]", [ADAM], r"Use list\[Inner\]\. @dataclass\(frozen=True\) makes it hashable"),
        ("set[list[int]]", [[1]], r"a set of list\[int\], which is not hashable.*Use list\[list\[int\]\]"),
        ("dict[str, set[Tag]]", {"k": [{"key": "k"}]}, r"a set of Tag, which is not hashable"),
    ],
)
def test_a_field_that_the_sdk_takes_and_loses_or_breaks_on_is_refused_with_a_fix(
    hint: str, value: object, cure: str
) -> None:
    function = with_field(hint)
    try:
        given = given_by_the_sdk(function, value)
    except Exception:  # noqa: BLE001 - every job ends as an error
        given = None
    assert given != value
    with pytest.raises(FunctionRefused, match=rf"^f can't be served: 'event\.x' is annotated as .*{cure}"):
        define(function)


@pytest.mark.parametrize(
    ("hint", "cure"),
    [
        ("Any", "Write its type"),
        ("object", "Write its type"),
        ("dict[str, Any]", "Write its type"),
        ("list", r"such as list\[int\]"),
        ("tuple", "a dataclass with a field for each"),
        ("Level", r"Use int\."),
        ("Timestamp", r"Use datetime\.datetime\."),
    ],
)
def test_a_result_of_no_type_that_the_sdk_knows_is_warned_of(hint: str, cure: str) -> None:
    definition = define(make(f"def f(context, event) -> {hint}"))
    assert '"anonymousCustomType": {"fields": {}}' in json.dumps(definition.schema["output"])
    (warning,) = definition.warnings
    assert re.match(
        rf"its result is annotated as .*, which is none of the types .* struct without fields\. .*{cure}", warning
    )


@pytest.mark.parametrize("hint", ["None", "int", "Stamped", "dict[str, list[Tag]]", "Iterable[int]", "Optional[Long]"])
def test_a_result_of_a_known_type_is_not_warned_of(hint: str) -> None:
    assert define(make(f"def f(context, event) -> {hint}")).warnings == ()


def test_the_warning_is_given_at_the_definition_and_the_function_served(emu: Emulator) -> None:
    function = with_field("Optional[Inner]")
    with pytest.warns(
        DefinitionWarning, match=r"^f is served, but 'event\.x' is annotated as Optional\[Inner\]"
    ) as caught:
        emu.function(function)
    assert caught[0].filename == __file__
    assert emu.call("f", {"x": {"a": 1}}) is None
    emu.reset()


@pytest.mark.parametrize(
    ("name", "advice"),
    [("add_2", "for instance to 'add2'"), ("_total", "for instance to 'total'"), ("größe", "letters from A to Z")],
)
def test_a_name_that_allows_no_api_name_is_warned_of(name: str, advice: str) -> None:
    function = make("def f(context, event) -> int")
    function.__name__ = name
    [warning] = define(function).warnings
    assert warning.startswith("no API name can be made from its name, since an API name consists of letters and digits")
    assert advice in warning
    function.__name__ = "price_per_unit"
    assert define(function).warnings == ()


@pytest.mark.parametrize("wrong", ["name", 3, {"streaming": True}])
def test_the_decorator_takes_no_name(emu: Emulator, wrong: typing.Any) -> None:
    with pytest.raises(FunctionRefused, match=r"takes a function, not .* of type (str|int|dict): .* above def\.$"):
        emu.function(wrong)
    with pytest.raises(FunctionRefused, match=r"takes a function, not"):
        emu.open_runtime("r").function(wrong)
