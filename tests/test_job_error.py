"""What the dashboard says first about an error: its type, its whole message and the frame of the user's own code."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmemu_nb.dashboard.job_error import error_of
from cmemu_nb.lifecycle.lifecycle import Lifecycle

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.once


def shown(posted: str) -> dict[str, str]:
    lifecycle = Lifecycle()
    lifecycle.open_session("r")
    lifecycle.submit("r", "f", b"{}")
    taken = lifecycle.take("r")
    assert taken is not None
    error = error_of(lifecycle.finish("r", taken.job_id, json.dumps({"exception": posted}).encode()))
    assert error is not None
    return error


def posted_by(call: Callable[[], object]) -> str:
    """Return what the official Python SDK posts for a call that raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return f"{error}: {traceback.format_exc()}"
    raise AssertionError("it did not raise")


def read_it() -> object:
    return json.loads("{broken")


def raise_it() -> None:
    raise ValueError("first\n\nsecond: third")


def chain_it() -> None:
    try:
        read_it()
    except ValueError as error:
        raise RuntimeError from error


def test_the_frame_is_the_user_s_own_and_not_that_of_a_library() -> None:
    error = shown(posted_by(read_it))
    assert error["type"] == "json.decoder.JSONDecodeError"
    assert error["message"].startswith("Expecting property name")
    assert error["frame"].startswith(f'File "{Path(__file__)}", line ')
    assert error["frame"].split("\n")[1:] == ['  return json.loads("{broken")']  # without Python's line of ^^^^
    assert "raw_decode" in error["trace"]


def test_a_message_of_several_lines_is_whole() -> None:
    error = shown(posted_by(raise_it))
    assert (error["type"], error["message"]) == ("ValueError", "first\n\nsecond: third")


def test_of_a_chain_the_last_exception_is_shown() -> None:
    error = shown(posted_by(chain_it))
    assert (error["type"], error["message"]) == ("RuntimeError", "")
    assert ", in chain_it\n  raise RuntimeError from error" in error["frame"]


JAVA = """java.lang.IllegalStateException: no stock
\tat java.base/java.util.Optional.orElseThrow(Optional.java:403)
\tat com.example.Shop.sell(Shop.java:17)
\tat com.example.Shop.main(Shop.java:9)"""
NODE = """TypeError: Cannot read properties of undefined (reading 'x')
    at node:internal/process/task_queues:95:5
    at sell (/home/jo/shop.js:3:11)"""


@pytest.mark.parametrize(
    ("posted", "kind", "message", "frame"),
    [
        (JAVA, "java.lang.IllegalStateException", "no stock", "at com.example.Shop.sell(Shop.java:17)"),
        (NODE, "TypeError", "Cannot read properties of undefined (reading 'x')", "at sell (/home/jo/shop.js:3:11)"),
        ("KeyError: 'x'", "KeyError", "'x'", ""),
        ("Note: it is late", "function error", "Note: it is late", ""),
        ("\x1b[31mred\u202e", "function error", "␛[31mred[U+202E]", ""),
    ],
)
def test_errors_of_other_languages_and_plain_texts_are_shown_too(
    posted: str, kind: str, message: str, frame: str
) -> None:
    error = shown(posted)
    assert (error["type"], error["message"], error["frame"]) == (kind, message, frame)


@pytest.mark.parametrize(("cancelled", "kind"), [(True, "cancelled"), (False, "failed")])
def test_a_failed_job_says_its_reason(cancelled: bool, kind: str) -> None:  # noqa: FBT001
    lifecycle = Lifecycle()
    lifecycle.open_session("r")
    job_id = lifecycle.submit("r", "f", b"{}").job_id
    if cancelled:
        lifecycle.cancel([job_id], "by me")
    else:
        lifecycle.fail(job_id, "by me")
    assert error_of(lifecycle.job(job_id)) == {"type": kind, "message": "by me", "frame": "", "trace": ""}
