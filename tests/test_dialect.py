"""Schemas in words, and queries checked against them: proved with the official SDK's own parser and conversion."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import field, make_dataclass
from datetime import date, datetime
from decimal import Decimal
from types import GenericAlias
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import pytest
from compute_modules.function_registry.function_payload_converter import convert_payload
from compute_modules.function_registry.function_schema_parser import parse_function_schema
from compute_modules.function_registry.types import Byte, Double, Long, Short
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.phrases import closest
from cmemu_nb.wire.function_schemas import schema_in_words
from cmemu_nb.wire.query_check import check_query

if TYPE_CHECKING:
    from compute_modules.function_registry.types import ParseFunctionSchemaResult

MAX_CHARACTERS = 301
fuzz = settings(
    max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def parse(payload: Any, returns: Any = str) -> ParseFunctionSchemaResult:
    def f(context: Any, event: Any) -> Any: ...

    f.__annotations__ = {"event": payload, "return": returns}
    return parse_function_schema(f, "f", [], {})


def parse_field(hint: Any) -> ParseFunctionSchemaResult:
    return parse(make_dataclass("Payload", [("x", hint)]))


def refusal(schema: object, query: object) -> str | None:
    try:
        check_query("f", schema, query)
    except InvalidRequest as error:
        return str(error)
    return None


def converts(parsed: ParseFunctionSchemaResult, query: object) -> bool:
    """Tell whether the SDK converts what comes out of the wire."""
    assert parsed.class_node is not None
    try:
        convert_payload(json.loads(json.dumps(query)), parsed.class_node)
    except Exception:  # noqa: BLE001 - whatever the conversion raises is a function error
        return False
    return True


def schema_of(*inputs: tuple[str, object], required: bool = True) -> dict[str, object]:
    return {
        "inputs": [{"name": name, "required": required, "dataType": kind} for name, kind in inputs],
        "output": {"type": "single", "single": {"dataType": scalar("string")}},
        "ontologyProvenance": None,
    }


def scalar(name: str) -> dict[str, Any]:
    return {"type": name, name: {}}


def list_of(kind: object) -> dict[str, Any]:
    return {"type": "list", "list": {"elementsType": kind}}


def struct(**fields: object) -> dict[str, Any]:
    return {"type": "anonymousCustomType", "anonymousCustomType": {"fields": fields}}


# Every type of the table


class Values(NamedTuple):
    """Values of a type: those that fit, those on which the SDK raises, and those that only we refuse."""

    words: str
    good: list[Any]
    raises: list[Any]
    stricter: list[Any]


class Item(TypedDict):
    name: str
    price: float


WHOLE = Values("integer", [0, -1, 2**31, 2**70], ["", "1.5", [], {}], [None, True, 1.0, 1.5, "1"])
REAL = Values("float", [0, 1.5, -2], ["", "x", [], {}, 10**400], [None, True, "1.5", "nan"])


def unconverted(words: str, values: Values) -> Values:
    """Return values for a `NewType` of the SDK, which hands anything through."""
    return Values(words, values.good, [], values.raises + values.stricter)


TYPES: dict[Any, Values] = {
    int: WHOLE,
    Long: unconverted("long", WHOLE),
    Short: unconverted("short", WHOLE),
    Byte: unconverted("byte", WHOLE),
    float: REAL,
    Double: unconverted("double", REAL),
    Decimal: Values("decimal", ["1.50", "-1e9", "NaN", "Infinity", 1, 1.5], ["", "x", "1,5", {}], [None, True, "sNaN"]),
    str: Values("string", ["", "é", "1"], [], [None, True, 1, 1.5, [], {}]),
    bool: Values("boolean", [True, False], [], [None, 0, 1, "", "true", [], {}]),
    bytes: Values("binary", ["", "aé"], [1, [], {}, "\ud800"], [None]),
    date: Values("date", ["2024-02-29"], ["", "2023-02-29", "29.2.2024", 1, [], "2024-01-01T00:00:00Z"], [None]),
    datetime: Values(
        "timestamp",
        ["2024-02-29T23:59:59Z", "2024-02-29T23:59:59.5Z", "2024-02-29T23:59:59.123456Z"],
        ["", "2024-02-29", "2024-02-29T23:59:59", "2024-02-29T23:59:59+00:00", "2024-02-29T23:59:59.123456789Z", 1],
        [None],
    ),
    list[int]: Values(
        "list of integer", [[], [1], (1, 2)], [1, True, ["x"], [[]]], [None, "", "12", {}, [None], [1.5]]
    ),
    set[date]: Values("set of date", [[], ["2024-01-01"] * 2], [1, ["x"], [1]], [None, "", {}, [None]]),
    set[Decimal]: Values("set of decimal", [["1", 1, 2.5]], [["sNaN"]], [[None]]),
    dict[str, int]: Values(
        "map of string to integer", [{}, {"a": 1}, {1: 1}], [1, [], {"a": "x"}], [None, {"a": None}]
    ),
    dict[int, str]: Values("map of integer to string", [{"1": "a"}, {1: "a"}], [{"x": "a"}, {1.5: ""}, {None: ""}], []),
    dict[float, str]: Values("map of float to string", [{"1.5": ""}, {1.5: ""}, {1: ""}], [{"x": ""}, {True: ""}], []),
    dict[date, str]: Values("map of date to string", [{"2024-01-01": ""}], [{"x": ""}, {1: ""}], []),
    dict[datetime, str]: Values("map of timestamp to string", [{"2024-01-01T00:00:00Z": ""}], [{"2024-01-01": ""}], []),
    dict[Decimal, str]: Values("map of decimal to string", [{"1.5": ""}, {2: ""}], [{"x": ""}, {"sNaN": ""}], []),
    dict[bytes, str]: Values("map of binary to string", [{"a": ""}], [{"\ud800": ""}], []),
    dict[bool, str]: Values("map of boolean to string", [{"true": ""}, {False: ""}], [], [{"true": 1}]),
    int | None: Values("optional integer", [None, 1], [], ["x", True]),
    Item: Values(
        "struct {name: string, price: float}",
        [{"name": "a", "price": 1}],
        [1, [], "", {"name": "a", "price": "x"}],
        [None, {"name": None, "price": 1}, {"name": "a", "price": 1, "more": 1}],
    ),
}


@pytest.mark.parametrize("hint", TYPES, ids=str)
def test_each_type_takes_what_the_sdk_converts_and_refuses_the_rest(hint: Any) -> None:
    parsed, values = parse_field(hint), TYPES[hint]
    assert schema_in_words(parsed.function_schema) == f"x: {values.words} -> string"
    for value in values.good:
        assert (value, refusal(parsed.function_schema, {"x": value})) == (value, None)
        assert (value, converts(parsed, {"x": value})) == (value, True)
    for value in values.raises + values.stricter:
        assert (value, refusal(parsed.function_schema, {"x": value})) != (value, None)
    assert [value for value in values.raises if converts(parsed, {"x": value})] == []
    assert [value for value in values.stricter if not converts(parsed, {"x": value})] == []


# Any schema and any query

SCALARS = [hint for hint in TYPES if isinstance(hint, type) and hint is not Item and not hasattr(hint, "__origin__")]
SCALARS += [Long, Short, Byte, Double]


def or_none(hint: Any) -> Any:
    return hint | None


def structs(hints: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    # A schema does not say which nested fields have defaults, and what is missing is let pass: so all have one here.
    # They are hashed by identity, because a set of what can't be hashed never converts.
    return st.lists(hints, max_size=3).map(
        lambda each: make_dataclass(
            "S", [(f"f{n}", hint, field(default=None)) for n, hint in enumerate(each)], eq=False
        )
    )


def containers(hints: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    scalars = st.sampled_from(SCALARS)
    return st.one_of(
        hints.map(lambda hint: GenericAlias(list, (hint,))),
        st.one_of(scalars, scalars.map(or_none), structs(hints)).map(lambda hint: GenericAlias(set, (hint,))),
        st.tuples(scalars, hints).map(lambda pair: GenericAlias(dict, pair)),
        hints.map(or_none),
        structs(hints),
    )


HINTS = st.recursive(st.sampled_from(SCALARS), containers, max_leaves=6)
PAYLOADS = st.lists(st.tuples(HINTS, st.booleans()), max_size=4).map(
    lambda each: make_dataclass(
        "Payload",
        [
            (f"f{n}", hint) if required else (f"f{n}", hint, field(default=None))
            for n, (hint, required) in enumerate(sorted(each, key=lambda pair: not pair[1]))
        ],
    )
)
TEXTS = st.text(max_size=4) | st.sampled_from(
    [
        text
        for values in TYPES.values()
        for text in values.good + values.raises + values.stricter
        if isinstance(text, str)
    ]
)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([10**400, -(2**63)])
KEYS = TEXTS | NUMBERS | st.none() | st.booleans() | st.sampled_from(["f0", "f1", "f2"])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


def values_of(kind: Any, any_value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of a schema's type, in which `any_value` may stand at any place."""
    name, inside = kind["type"], kind[kind["type"]]
    right: st.SearchStrategy[Any]
    match name:
        case "list" | "set":
            right = st.lists(values_of(inside["elementsType"], any_value), max_size=3)
        case "map":
            keys = [key for hint in TYPES if parsed_type(hint) == inside["keysType"] for key in TYPES[hint].good]
            right = st.dictionaries(st.sampled_from(keys), values_of(inside["valuesType"], any_value), max_size=2)
        case "optionalType":
            right = st.none() | values_of(inside["wrappedType"], any_value)
        case "anonymousCustomType":
            fields = {key: values_of(each, any_value) for key, each in inside["fields"].items()}
            right = st.fixed_dictionaries({}, optional=fields)
        case _:
            right = st.sampled_from([v for hint in TYPES if parsed_type(hint) == kind for v in TYPES[hint].good])
    return st.one_of(right, right, right, any_value)


def parsed_type(hint: Any) -> Any:
    if hint not in PARSED:
        PARSED[hint] = parse_field(hint).function_schema["inputs"][0]["dataType"]
    return PARSED[hint]


PARSED: dict[Any, Any] = {}


def draw_query(data: st.DataObject, parsed: ParseFunctionSchemaResult, any_value: st.SearchStrategy[Any]) -> Any:
    inputs = parsed.function_schema["inputs"]
    required = {each["name"]: values_of(each["dataType"], any_value) for each in inputs if each["required"]}
    others = {each["name"]: values_of(each["dataType"], any_value) for each in inputs if not each["required"]}
    return data.draw(st.fixed_dictionaries(required, optional=others))


@pytest.mark.once
@fuzz
@given(PAYLOADS, st.data())
def test_whatever_passes_the_check_is_converted_by_the_sdk(payload: Any, data: st.DataObject) -> None:
    parsed = parse(payload)
    query = draw_query(data, parsed, JSON) if data.draw(st.integers(0, 5)) else data.draw(JSON)
    assume(query is not None)
    assume(parsed.function_schema["inputs"])
    before = deepcopy(query)
    assert refusal(parsed.function_schema, query) or converts(parsed, query)
    assert query == before


@pytest.mark.once
@fuzz
@given(PAYLOADS, st.data())
def test_whatever_has_the_schemas_types_passes_the_check_and_is_converted(payload: Any, data: st.DataObject) -> None:
    parsed = parse(payload)
    query = draw_query(data, parsed, st.nothing())
    assert refusal(parsed.function_schema, query) is None
    assert converts(parsed, query)


CONTAINERS_PARTS = ["fields", "elementsType", "keysType", "valuesType", "wrappedType"]
SCHEMA_PARTS = ["inputs", "name", "dataType", "required", "output", "single", "type"]
TYPE_NAMES = ["list", "set", "map", "optionalType", "anonymousCustomType", "string", "integer", "date"]
WORDS_OF_THE_DIALECT = st.sampled_from([*SCHEMA_PARTS, *CONTAINERS_PARTS, *TYPE_NAMES])
BROKEN = st.recursive(
    JSON | WORDS_OF_THE_DIALECT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS_OF_THE_DIALECT, inner, max_size=6),
    max_leaves=12,
)


@pytest.mark.once
@fuzz
@given(BROKEN, BROKEN, JSON)
def test_nothing_that_is_posted_as_a_schema_is_an_error(schema: Any, kind: Any, value: Any) -> None:
    named = {"type": "list", "list": kind} if not isinstance(kind, dict) else {"type": "map", **kind}
    for each in (schema, schema_of(("x", kind)), schema_of(("x", named)), schema_of(("x", list_of(kind)))):
        assert len(schema_in_words(each)) <= MAX_CHARACTERS
        refusal(each, {"x": value})
        refusal(each, value)


# In words


def test_fields_that_may_be_left_out_and_values_that_may_be_null_read_differently() -> None:
    inner = make_dataclass("Inner", [("a", int), ("b", datetime)])
    fields: list[Any] = [("x", int), ("y", list[str] | None), ("limit", int, field(default=3))]
    payload = make_dataclass("Payload", [*fields, ("z", int | None, field(default=None))])
    assert schema_in_words(parse(payload, dict[str, inner]).function_schema) == (  # type: ignore[valid-type]
        "x: integer, y: optional list of string, limit: integer (may be left out), "
        "z: optional integer (may be left out) -> map of string to struct {a: integer, b: timestamp}"
    )


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (schema_of(), "anything -> string"),
        ({"inputs": []}, "anything -> anything"),
        (schema_of(("x", scalar("geopoint"))), "x: geopoint -> string"),
        (schema_of(("x", {"type": "ontologyEdit", "ontologyEdit": {}})), "x: ontologyEdit -> string"),
        (schema_of(("a, b: <c>\n", scalar("d e"))), "'a, b: <c>\\n': 'd e' -> string"),
        (schema_of(("x", list_of(3)), ("y", {"type": "list"})), "x: list of anything, y: list of anything -> string"),
        (schema_of(("x", struct())), "x: struct {} -> string"),
        ({"type": "object", "properties": {"x": {"type": "integer"}}}, ""),
        ({"inputs": [{"name": "x"}]}, ""),
        (None, ""),
    ],
)
def test_any_payload_has_words_or_none(schema: object, words: str) -> None:
    assert schema_in_words(schema) == words


@pytest.mark.once
def test_words_are_short_however_large_and_deep_a_schema_is() -> None:
    deep: object = scalar("string")
    for _ in range(100_000):
        deep = struct(a=deep, b=deep)
    wide = [(f"field{n}", scalar("string")) for n in range(50_000)]
    for schema in (schema_of(("x", deep)), schema_of(*wide), schema_of(("x" * 1_000_000, scalar("y" * 1_000_000)))):
        assert len(schema_in_words(schema)) == MAX_CHARACTERS
        assert schema_in_words(schema).endswith("…")


# What a refusal says

ORDER = schema_of(
    ("items", list_of(struct(name=scalar("string"), price=scalar("double")))),
    ("counts", {"type": "map", "map": {"keysType": scalar("integer"), "valuesType": scalar("integer")}}),
    ("note", {"type": "optionalType", "optionalType": {"wrappedType": scalar("string")}}),
)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"items": [{}, {"price": "1"}], "counts": {}}, "'items[1].price': expected double, given a string ('1')"),
        ({"items": [1], "counts": {}}, "'items[0]': expected struct {name: string, price: double}, given a number (1)"),
        ({"items": [], "counts": None}, "'counts': expected map of integer to integer, given null"),
        ({"items": [], "counts": {"a": 1}}, "the key 'a' of 'counts': expected integer"),
        ({"items": [], "counts": {"1": True}}, "\"counts['1']\": expected integer, given true or false (True)"),
        ({"items": [], "counts": {}, "note": (1, 2)}, "'note': expected string, given an array ((1, 2))"),
        ({"counts": {}}, "'items' is missing: expected list of struct {name: string, price: double}"),
        (None, "'items' is missing: expected list of struct {name: string, price: double}; 'counts' is missing"),
        ([], "it must be a JSON object, not an array ([]). Known fields: 'counts', 'items', 'note'"),
        (
            {"Item": [], "items": [], "counts": {}},
            "'Item' is unknown. Did you mean 'items'? Known fields: 'counts', 'items', 'note'",
        ),
        (
            {"items": [{"prise": 1}], "counts": {}},
            "'items[0].prise' is unknown. Did you mean 'price'? Known fields: 'name', 'price'",
        ),
    ],
)
def test_a_refusal_names_the_function_the_place_what_is_expected_and_what_is_given(query: object, problem: str) -> None:
    message = refusal(ORDER, query) or ""
    assert message.startswith(f"The query does not match f: {problem}")
    assert message.endswith(". validate=False sends anything.")


def test_a_refusal_tells_the_first_five_problems_and_how_many_more_there_are() -> None:
    message = refusal(schema_of(("x", list_of(scalar("integer")))), {"x": ["a", 1, "b", "c", "d", "e", "f", "g"]}) or ""
    assert [f"'x[{n}]'" in message for n in range(8)] == [True, False, True, True, True, True, False, False]
    assert message.endswith("; and 2 more. validate=False sends anything.")


def test_an_input_that_does_not_say_whether_it_is_required_is_required() -> None:
    schema = {"inputs": [{"name": "x", "dataType": scalar("integer")}]}
    assert "'x' is missing: expected integer" in (refusal(schema, {}) or "")


def test_a_key_that_json_has_no_text_for_is_refused_where_it_is_converted() -> None:
    kind = {"type": "map", "map": {"keysType": scalar("date"), "valuesType": scalar("string")}}
    message = refusal(schema_of(("x", kind)), {"x": {date(2024, 1, 1): ""}}) or ""
    assert "the key datetime.date(2024, 1, 1) of 'x': expected date" in message


def test_a_field_of_a_struct_without_fields_is_unknown() -> None:
    assert "'x.a' is unknown. It has no fields. " in (refusal(schema_of(("x", struct())), {"x": {"a": 1}}) or "")


@pytest.mark.parametrize(
    ("schema", "query"),
    [
        (schema_of(), [1]),
        ({"type": "object", "required": ["x"]}, {}),
        (None, 1),
        (schema_of(("x", scalar("integer")), required=False), None),
        (schema_of(("x", {"type": "optionalType", "optionalType": {"wrappedType": scalar("date")}})), {}),
        (schema_of(("x", struct(a=scalar("integer")))), {"x": {}}),
        (schema_of(("x", scalar("geopoint"))), {"x": object()}),
        (schema_of(("x", scalar("ontologyEdit"))), {"x": None}),
        (schema_of(("x", {"type": "anonymousCustomType"})), {"x": {"a": 1}}),
        (schema_of(("x", list_of({"type": []}))), {"x": [1, None]}),
    ],
)
def test_what_a_schema_does_not_say_is_let_pass(schema: object, query: object) -> None:
    assert refusal(schema, query) is None


def test_values_that_json_can_not_encode_are_refused_or_let_pass_but_never_another_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    kind: object = scalar("integer")
    for _ in range(100_000):
        kind = list_of(kind)
    for value in (endless, {"a": endless}, 10**5000, {10**5000: 1}, {(1, 2): 3}, object(), b"", float("nan"), {1, 2}):
        for each in (*map(parsed_type, TYPES), kind, struct(a=scalar("integer"))):
            refusal(schema_of(("x", each)), {"x": value})
            refusal(schema_of(("x", each)), value)


@pytest.mark.once
def test_a_refusal_is_short_however_large_the_query_and_the_schema_are() -> None:
    wide = schema_of(*((f"field{n}" * 100, scalar("integer")) for n in range(2000)), required=False)
    numbers = schema_of(("x", list_of(scalar("integer"))))
    for schema, query in (
        (wide, {f"fjeld{n}" * 100: 1 for n in range(2000)}),
        (numbers, {"x": ["a" * 1000] * 100_000}),
        (numbers, {"x": [[["a" * 1000] * 1000] * 1000]}),
    ):
        assert len(refusal(schema, query) or "") in range(100, 2500)
    assert refusal(numbers, {"x": list(range(200_000))}) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ad", " Did you mean 'add'?"),
        ("ADD", " Did you mean 'add'?"),
        ("straSSe", " Did you mean 'Straße'?"),
        ("multiply", ""),
        ("", ""),
        ("a" * 1_000_000, ""),
    ],
)
def test_the_closest_name_is_found_whatever_its_case(name: str, said: str) -> None:
    assert closest(name, iter(["add", "Straße", "x" * 1_000_000])) == said
    assert closest(name, []) == ""


def test_a_string_in_a_schema_of_the_typescript_sdk_takes_anything() -> None:
    schema = schema_of(("x", scalar("string")), ("n", scalar("integer")))
    del schema["ontologyProvenance"]
    assert refusal(schema, {"x": [1], "n": 1}) is None
    assert "expected integer" in (refusal(schema, {"x": 1, "n": "1"}) or "")


def test_an_object_without_fields_in_a_schema_of_the_typescript_sdk_is_any_object() -> None:
    schema = schema_of(("x", struct()), ("y", struct(n=scalar("integer"), z=struct())))
    del schema["ontologyProvenance"]
    assert refusal(schema, {"x": {"a": [1], "b": {}}, "y": {"n": 1, "z": {"c": None}}}) is None
    assert "'x': expected struct {}, given an array ([1])" in (
        refusal(schema, {"x": [1], "y": {"n": 1, "z": {}}}) or ""
    )
    assert "'y.m' is unknown" in (refusal(schema, {"x": {}, "y": {"n": 1, "m": 2, "z": {}}}) or "")
