"""JSON from outside: what is read, and how a refusal reads."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.wire.json_input import Fields, decode

DEEP = 100_000
WHAT = "Doing it"
fuzz = settings(max_examples=100, derandomize=True, deadline=None, database=None)


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"", object, "the body is empty, it must be JSON"),
        (b" \n", object, "the body is empty, it must be JSON"),
        (b'{"a": ', object, "it ends too early"),
        (b"{'a': 1}", object, r"malformed JSON.*\(byte 1\)"),
        (b"[1] 2", object, "malformed JSON, trailing characters"),
        (b"nan", object, "malformed JSON"),
        (b"[1]", dict[str, object], "it must be a JSON object, not an array"),
        (b'"x"', dict[str, object], "it must be a JSON object, not a string"),
        (b"null", dict[str, object], "it must be a JSON object, not null"),
        (b'{"a": "\xff"}', object, r"byte 7 is not UTF-8\. Send JSON as UTF-8\."),
        (b"\xff\xfe{\x00}\x00", object, "byte 0 is not UTF-8"),
        (b'"\\ud800"', object, r"a \\uD800-\\uDFFF escape stands alone"),
        (b'"\\ud83d\\ude00', object, "it ends too early"),
        (b'"C:\\\\ud800', object, "it ends too early"),
        (b"[" * DEEP + b"]" * DEEP, object, "nested too deeply"),
        (b'{"a":' * DEEP, dict[str, msgspec.Raw], "nested too deeply"),
    ],
)
def test_what_can_not_be_read_is_refused_in_one_sentence_that_says_why(body: bytes, kind: type[Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{WHAT} can't be read: .*{says}") as refused:
        decode(body, kind, WHAT)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


@fuzz
@given(st.binary(max_size=40) | st.text('[]{}":,\\ud8c1e-. ', max_size=30).map(str.encode))
@example(b"\xef\xbb\xbf{}")
@example(b"1e999999999")
def test_any_bytes_are_either_read_or_refused(body: bytes) -> None:
    for kind in (object, dict[str, msgspec.Raw], msgspec.Raw):
        try:
            value = decode(body, kind, WHAT)
        except InvalidRequest:
            continue
        json.loads(bytes(value) if isinstance(value, msgspec.Raw) else body)


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ('"x"', "x"),
        ('" x\\t"', "x"),
        ('"\\u00fc/\\ud83d\\ude00"', "ü/😀"),
        ('""', None),
        ('" \\n"', None),
        ("null", None),
    ],
)
def test_a_text_is_trimmed_and_nothing_if_blank_or_null(member: str, text: str | None) -> None:
    fields = Fields(f'{{"id": {member}}}'.encode(), WHAT)
    assert fields.text("id") == text
    assert fields.text("other") is None


@pytest.mark.parametrize(
    ("member", "called"),
    [
        ("5", "a number"),
        ("1.5", "a number"),
        ("123456789012345678901234567890", "a number"),
        ("true", "true or false"),
        ("{}", "an object"),
        ("[]", "an array"),
    ],
)
def test_a_text_of_another_type_is_refused_by_its_name_and_type(member: str, called: str) -> None:
    fields = Fields(f'{{"id": {member}}}'.encode(), WHAT)
    for read in (fields.text, fields.required_text):
        with pytest.raises(InvalidRequest, match=f"^{WHAT}: 'id' must be a string, it is {called}.$"):
            read("id")


@pytest.mark.parametrize("body", ["{}", '{"id": null}', '{"id": ""}', '{"id": "  "}', '{"ID": "x"}'])
def test_a_required_text_must_be_there_and_not_blank(body: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{WHAT}: 'id' is missing or blank. Give it as a non-blank string.$"):
        Fields(body.encode(), WHAT).required_text("id")


@pytest.mark.parametrize("query", ["null", "1e400", '{"b": 1,"a":\t2}', "123456789012345678901234567890", '"\\u00fc"'])
def test_a_raw_member_is_the_very_text_that_was_sent(query: str) -> None:
    fields = Fields(f'{{"query":  {query} , "x": 1}}'.encode(), WHAT)
    assert fields.raw("query", b"{}") == query.encode()
    assert fields.raw("absent", b"{}") == b"{}"


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b'{"a"}', b"\xff", b"{" * DEEP])
def test_fields_of_what_is_no_json_object_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=f"^{WHAT} can't be read"):
        Fields(body, WHAT)
