"""Every schema format that a runtime may post, and every refusal with its position."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.wire.schema_parser import parse_schemas

DEEP = 100_000
fuzz = settings(max_examples=100, derandomize=True, deadline=None, database=None)

ACCEPTED = {
    # The page's three formats
    '[{"functionName": "f", "schema": {"type": "object"}}]': [("f", '{"type": "object"}')],
    '{"functions": [{"functionName": "f", "schema": {}}]}': [("f", "{}")],
    '{"f": {"type": "object"}, "g": {}}': [("f", '{"type": "object"}'), ("g", "{}")],
    # The other container, and one bare named object
    '{"schemas": [{"name": "f", "schema": {}}]}': [("f", "{}")],
    '{"functionName": "f", "schema": {}}': [("f", "{}")],
    # Where the name stands; the first that counts wins
    '[{"function_name": "f", "schema": 1}]': [("f", "1")],
    '[{"name": "f", "schema": 1}]': [("f", "1")],
    '[{"name": "c", "function_name": "b", "functionName": "a", "schema": 1}]': [("a", "1")],
    '[{"functionName": " ", "function_name": null, "name": "f", "schema": 1}]': [("f", "1")],
    # Where the payload stands; without one the whole object is it
    '[{"name": "f", "schemaPayload": {"x": 1}}]': [("f", '{"x": 1}')],
    '[{"name": "f", "schema": 1, "schemaPayload": 2}]': [("f", "1")],
    '[{"name": "f", "schema": null}]': [("f", "null")],
    '[{"functionName": "f",  "inputs": [ ], "output": {}}]': [
        ("f", '{"functionName": "f",  "inputs": [ ], "output": {}}')
    ],
    '{"functionName": "f", "inputs": []}': [("f", '{"functionName": "f", "inputs": []}')],
    # Nothing, several, nested, again
    "[]": [],
    "{}": [],
    '{"functions": []}': [],
    '[{"name": "f", "schema": 1}, [{"name": "g", "schema": 2}, [[]]], {"name": "f", "schema": 3}]': [
        ("f", "1"),
        ("g", "2"),
        ("f", "3"),
    ],
    '{"schemas": [[{"name": "f", "schema": 1}]]}': [("f", "1")],
    # A container only counts as one with an array in it, a name only as a non-blank string
    '{"functions": {"type": "object"}}': [("functions", '{"type": "object"}')],
    '{"functions": 1, "schemas": [{"name": "f", "schema": 2}]}': [("f", "2")],
    '{"schemas": null}': [("schemas", "null")],
    '{"name": "", "x": 1}': [("name", '""'), ("x", "1")],
    '{"name": 5, "functionName": {}}': [("name", "5"), ("functionName", "{}")],
    '{"schema": {}}': [("schema", "{}")],
    # Odd names
    '[{"name": "\\u00fc/<script>\\n", "schema": 1}]': [("ü/<script>\n", "1")],
    '{"\\ud83d\\ude00": 1}': [("😀", "1")],
}

REFUSED = {
    "": "body is empty",
    "  ": "body is empty",
    "5": "send a JSON array or object, not a number",
    "null": "not null",
    "true": "not true",
    "false": "not false",
    '"f"': "not a string",
    "[": "it ends too early",
    '{"f": }': "malformed",
    "[01]": "malformed",
    "[NaN]": "malformed",
    "[{}] x": "malformed",
    "{'f': 1}": "malformed",
    '["\\ud800"]': "stands alone",
    "[1]": r"at \[0\] is a number, not an object",
    '[{"name": "f"}, null]': r"at \[1\] is null, not an object",
    '[{"name": "f"}, [[], ["g"]]]': r"at \[1\]\[1\]\[0\] is a string, not an object",
    '[{"name": "f"}, {}]': r"at \[1\] has no name: put the function's name under 'functionName'",
    '[{"name": " ", "schema": {}}]': r"at \[0\] has no name",
    '[{"name": ["f"]}]': r"at \[0\] has no name",
    '[{"f": {}}]': r"at \[0\] has no name",
    '{"functions": [true]}': r"at functions\[0\] is true, not an object",
    '{"schemas": [{"name": "f"}, [{}]]}': r"at schemas\[1\]\[0\] has no name",
    '{"f": {}, " ": {}}': "at key 2 is blank",
}


@pytest.mark.parametrize(("body", "entries"), ACCEPTED.items())
def test_a_schema_is_read_from_every_format(body: str, entries: list[tuple[str, str]]) -> None:
    assert parse_schemas(body.encode()) == [(name, payload.encode()) for name, payload in entries]


@pytest.mark.parametrize(("body", "why"), REFUSED.items())
def test_a_bad_entry_refuses_the_whole_post_and_says_where_and_why(body: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^The schemas .*{why}"):
        parse_schemas(body.encode())


@pytest.mark.parametrize(
    "payload", ['{"b":1,  "a":\t1.0}', "1e400", "123456789012345678901234567890", '"\\u00fc\\/ü"', "[ 1 ,2 ]"]
)
@pytest.mark.parametrize(
    "template", ['[{"name": "f", "schema":%s}]', '{"f": %s}', '{"functions":[{"name":"f","schema":%s }]}']
)
def test_a_payload_passes_through_byte_for_byte(template: str, payload: str) -> None:
    assert parse_schemas((template % payload).encode()) == [("f", payload.encode())]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEEP + b"]" * DEEP,
        b"[" * DEEP,
        b'{"f":' * DEEP + b"1" + b"}" * DEEP,
        b'{"functions":' * DEEP,
        b'[{"name":"f","schema":' + b"[" * DEEP + b"]" * DEEP + b"}]",
    ],
)
def test_json_nested_a_hundred_thousand_deep_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        parse_schemas(body)


@pytest.mark.parametrize("depth", [1, 2, 20])
def test_nested_arrays_flatten(depth: int) -> None:
    assert parse_schemas(b"[" * depth + b'{"name": "f", "schema": 1}' + b"]" * depth) == [("f", b"1")]


@pytest.mark.parametrize("depth", [25, 200, 900])
def test_arrays_nested_beyond_reason_are_refused(depth: int) -> None:
    with pytest.raises(InvalidRequest, match="nested"):
        parse_schemas(b"[" * depth + b'{"name": "f", "schema": 1}' + b"]" * depth)


@pytest.mark.parametrize(("body", "byte"), [(b'{"\xff": 1}', 2), (b"\xfe[]", 0), (b'[{"name": "\xc3("}]', 11)])
def test_bytes_that_are_no_utf8_are_refused_with_their_position(body: bytes, byte: int) -> None:
    with pytest.raises(InvalidRequest, match=f"byte {byte} is not UTF-8"):
        parse_schemas(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["functionName", "name", "schema", "functions", "f", " "]), inner, max_size=4)
    ),
    max_leaves=12,
)


def assert_parses_or_is_refused(body: bytes) -> None:
    try:
        entries = parse_schemas(body)
    except InvalidRequest:
        return
    for name, payload in entries:
        assert name.strip()
        assert payload in body
        json.loads(payload)


@fuzz
@given(st.binary(max_size=60) | st.text('[]{}":,\\ufn1e ', max_size=30).map(str.encode))
@example(b"\xef\xbb\xbf{}")
@example(b"[\x0b]")
def test_any_bytes_are_either_read_or_refused(body: bytes) -> None:
    assert_parses_or_is_refused(body)


@fuzz
@given(json_values, st.booleans())
def test_any_json_is_either_read_or_refused(value: object, ascii_only: bool) -> None:  # noqa: FBT001
    assert_parses_or_is_refused(json.dumps(value, ensure_ascii=ascii_only).encode())


@fuzz
@given(json_values, st.data())
def test_json_cut_off_anywhere_is_either_read_or_refused(value: object, data: st.DataObject) -> None:
    body = json.dumps([{"name": "f", "schema": value}]).encode()
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    with pytest.raises(InvalidRequest):
        parse_schemas(cut)


@fuzz
@given(st.dictionaries(st.text(min_size=1).filter(str.strip), json_values, max_size=4))
def test_names_and_payloads_come_back_as_they_were_posted(schemas: dict[str, object]) -> None:
    body = json.dumps([{"functionName": name, "schema": schema} for name, schema in schemas.items()])
    assert {name: json.loads(payload) for name, payload in parse_schemas(body.encode())} == schemas
