"""What a result says: how its job ended, and its value in Python."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmemu_nb.errors import ResultError
from cmemu_nb.lifecycle.records import Job, JobSource, JobStatus, Outcome
from cmemu_nb.wire.results import constant_in, function_error, parse_result

DEEP = 100_000
MB = 1_000_000
fuzz = settings(max_examples=150, derandomize=True, deadline=None, database=None)


def job(status: JobStatus, result: bytes | None = None) -> Job:
    return Job("job", 1, "rt", "add", b"{}", JobSource.RUNTIME_DIRECT, 0, status=status, result=result)


def error_of_size(size: int) -> bytes:
    return b'{"error": "' + b"x" * (size - 13) + b'"}'


# Outcome


@pytest.mark.parametrize(
    ("status", "result", "ended"),
    [
        (JobStatus.QUEUED, None, None),
        (JobStatus.RUNNING, None, None),
        (JobStatus.FAILED, None, Outcome.FAILED),
        (JobStatus.SUCCEEDED, b"", Outcome.OK),
        (JobStatus.SUCCEEDED, b"\xff", Outcome.OK),
        (JobStatus.SUCCEEDED, b'{"output": 1}', Outcome.OK),
        (JobStatus.SUCCEEDED, b'{"exception": "boom"}', Outcome.FUNCTION_ERROR),
    ],
)
def test_a_job_ends_ok_with_a_function_error_or_failed(
    status: JobStatus, result: bytes | None, ended: Outcome | None
) -> None:
    assert job(status, result).outcome == ended


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (b'{"exception": "boom"}', {"exception": "boom"}),
        (b'{"error": "Unknown query type"}', {"error": "Unknown query type"}),
        (b'{"error": "x", "reason": ""}', {"error": "x", "reason": ""}),
        (b'{"reason":"","error":"x"}', {"error": "x", "reason": ""}),
        (b' \r\n\t{ \n"error"\t: "x" } \n', {"error": "x"}),
        (b'{"\\u0065rr\\u006fr": "x"}', {"error": "x"}),
        ('{"error": "ü"}'.encode(), {"error": "ü"}),
        (b'{"exception": "\\ud800"}', {"exception": "\ud800"}),
        (b'{"error": 1, "error": "the last one counts"}', {"error": "the last one counts"}),
        (error_of_size(MB), {"error": "x" * (MB - 13)}),
    ],
)
def test_an_object_of_the_sdks_error_keys_and_strings_is_a_function_error(
    result: bytes, fields: dict[str, str]
) -> None:
    assert function_error(result) == fields


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"{}",
        b"null",
        b'"error"',
        b'["error"]',
        b'[{"error": "x"}]',
        b'{"Error": "x"}',
        b'{"errors": "x"}',
        b'{"reason": "x"}',
        b'{"exception": "x", "reason": "y"}',
        b'{"exception": "x", "error": "y"}',
        b'{"error": "x", "reason": "y", "more": "z"}',
        b'{"error": null}',
        b'{"error": 1}',
        b'{"error": {"error": "x"}}',
        b'{"error": "x", "reason": ["y"]}',
        b'{"error": "the first one does not count", "error": 1}',
        b'{"error": "x"',
        b'{"error": "x"}{"error": "y"}',
        b'{"error": "\xff"}',
        b'{"error": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"error": "x"}',
        b"{'error': 'x'}",
        b'{"error":' * DEEP,
        error_of_size(MB + 1),
    ],
)
def test_anything_else_is_an_ordinary_result(result: bytes) -> None:
    assert function_error(result) is None


error_like = st.dictionaries(
    st.sampled_from(["exception", "error", "reason", "output"]), st.text(max_size=5) | st.none(), max_size=3
)


@fuzz
@given(error_like, st.booleans(), st.sampled_from([None, 0, 2]))
def test_a_function_error_is_found_however_the_object_is_written(
    fields: dict[str, Any],
    ascii_only: bool,  # noqa: FBT001
    indent: int | None,
) -> None:
    keys_fit = set(fields) in ({"exception"}, {"error"}, {"error", "reason"})
    expected = fields if keys_fit and None not in fields.values() else None
    assert function_error(json.dumps(fields, ensure_ascii=ascii_only, indent=indent).encode()) == expected


# Values


@pytest.mark.parametrize(
    ("result", "value", "streamed"),
    [
        (b"", None, []),
        (b" \n", None, []),
        (b"null", None, [None]),
        (b"true", True, [True]),
        (b'"12"', "12", ["12"]),
        (b'{"a": [1, 2.5]}\n', {"a": [1, 2.5]}, [{"a": [1, 2.5]}]),
        (b"[1, 2]", [1, 2], [[1, 2]]),
        (b"[]", [], [[]]),
        (b'{"a": 1}{"a": 2}', [{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
        (b'"a""b"', ["a", "b"], ["a", "b"]),
        (b"nulltruefalse", [None, True, False], [None, True, False]),
        (b"[1][2]\n[3] ", [[1], [2], [3]], [[1], [2], [3]]),
        (b'{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}, None),
        (b'{"n": [Infinity, -Infinity, 1e400]}', {"n": [math.inf, -math.inf, math.inf]}, None),
        ('"ü\\u00fc"'.encode(), "üü", ["üü"]),
    ],
)
def test_a_result_is_nothing_one_value_or_several_and_of_a_streaming_function_always_a_list(
    result: bytes, value: object, streamed: list[object] | None
) -> None:
    assert parse_result(result) == value
    assert parse_result(result, streaming=True) == ([value] if streamed is None else streamed)


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (b"Hello, world\n", r"'Hello, world\n'"),
        (b"a" * 101, f"'{'a' * 100}…'"),
        (b'{"a": 1} oops', """'{"a": 1} oops'"""),
        (b"\xff\x00", "'\ufffd\\x00'"),
    ],
)
def test_the_error_for_a_result_that_is_not_json_shows_its_beginning(result: bytes, shown: str) -> None:
    with pytest.raises(ResultError) as raised:
        parse_result(result)
    assert str(raised.value).endswith(f"): {shown}. job.raw() gives its bytes.")


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        (b"NaN", "NaN"),
        (b'{"NaN": [1, "Infinity", -Infinity]}', "Infinity"),
        (b'{"a\\"": NaN}{"b": Infinity}', "NaN"),
        (b'{"NaN": ["Infinity", "\\"NaN", 1e400, null]}', ""),
        (b'"N"' * 100_000 + b'"NaN"', ""),
    ],
)
def test_a_constant_that_json_does_not_have_is_found_outside_of_strings(text: bytes, constant: str) -> None:
    assert constant_in(text) == constant


def test_nan_is_a_value() -> None:
    assert math.isnan(parse_result(b"NaN"))
    assert math.isnan(parse_result(b'{"x": NaN}', streaming=True)[0]["x"])


@pytest.mark.parametrize(("result", "value"), [(b"123", 123), (b"-1.5e3", -1500.0), (b"0", 0), (b"1 2 3", [1, 2, 3])])
def test_numbers_of_a_function_that_does_not_stream_are_certain(result: bytes, value: object) -> None:
    assert parse_result(result) == value


@pytest.mark.parametrize("result", [b"123", b"12.5", b"-1-2", b'{"a": 1}23', b'23"a"', b'"a"12[3]', b"00"])
def test_a_stream_of_bare_numbers_is_an_error_that_points_to_the_bytes(result: bytes) -> None:
    with pytest.raises(ResultError, match=r"1 2 3 is 123 on the wire\. job\.raw\(\) gives its bytes"):
        parse_result(result, streaming=True)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("result", "why"),
    [
        (b"hello", "line 1 column 1"),
        (b'{"a": ', "line 1 column"),
        (b'{"a": 1} oops', "column 10"),
        (b'{"a": 1},{"a": 2}', "column 9"),
        (b'"a\nb"', "control character"),
        (b'["\xff"]', "byte 2 is not UTF-8"),
        (b"[" * DEEP + b"]" * DEEP, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_an_error_that_says_why_and_points_to_the_bytes(
    result: bytes,
    why: str,
    streaming: bool,  # noqa: FBT001
) -> None:
    with pytest.raises(ResultError, match=rf"{why}.*job\.raw\(\) gives its bytes"):
        parse_result(result, streaming=streaming)


numbers = st.integers() | st.floats(allow_nan=False)
no_numbers = st.none() | st.booleans() | st.text(max_size=5)
inside = st.recursive(
    no_numbers | numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
items = no_numbers | st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3)
spaces = st.sampled_from(["", " ", "\n", "\r\n\t"])


@fuzz
@given(st.lists(items, max_size=6), spaces, st.booleans())
def test_a_stream_of_anything_but_bare_numbers_comes_back_as_it_was_sent(
    sent: list[Any],
    space: str,
    ascii_only: bool,  # noqa: FBT001
) -> None:
    wire = space.join(json.dumps(item, ensure_ascii=ascii_only) for item in sent).encode()
    assert parse_result(wire, streaming=True) == sent
    assert parse_result(wire) == (None if not sent else sent[0] if len(sent) == 1 else sent)


@fuzz
@given(st.lists(items, max_size=3), numbers, st.lists(items | numbers, max_size=3))
def test_one_bare_number_anywhere_makes_a_stream_doubtful(before: list[Any], number: float, after: list[Any]) -> None:
    wire = "".join(map(json.dumps, [*before, number, *after])).encode()
    with pytest.raises(ResultError):
        parse_result(wire, streaming=True)


@fuzz
@given(inside)
def test_one_value_comes_back_as_it_was_sent(value: object) -> None:
    assert parse_result(json.dumps(value).encode()) == value


@fuzz
@given(st.binary(max_size=40) | st.text('[]{}":,\\0123eE+-. ntrueNaIfiy', max_size=30).map(str.encode))
@example(b"\xef\xbb\xbf1")
@example(b"1.5.5")
@example(b"-")
def test_any_bytes_are_either_read_or_refused(result: bytes) -> None:
    assert job(JobStatus.SUCCEEDED, result).outcome in {Outcome.OK, Outcome.FUNCTION_ERROR}
    for streaming in (False, True):
        try:
            value = parse_result(result, streaming=streaming)
        except ResultError:
            continue
        assert isinstance(value, list) or not streaming
