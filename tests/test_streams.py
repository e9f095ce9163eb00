"""The items of a stream, one by one: split wherever the network splits them, and ended as the job ends."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, Api, eventually
from hypothesis import given, settings
from hypothesis import strategies as st

from cmemu_nb.errors import FunctionError, JobFailed, NotFound, ResultError
from cmemu_nb.item_reader import ItemReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from client import Runtime

    from cmemu_nb import Emulator
    from cmemu_nb.item_stream import ItemStream

json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner | st.integers(), max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(items=st.lists(json_values, max_size=6), data=st.data())
def test_items_are_the_same_wherever_the_bytes_are_split(items: list[Any], data: st.DataObject) -> None:
    body = b"".join(json.dumps(item, ensure_ascii=False).encode() for item in items)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    reader = ItemReader(streaming=True)
    found = [
        value
        for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)
        for value in reader.feed(body[start:end])
    ]
    assert found + reader.end() == items


@pytest.mark.parametrize("body", [b"1", b'"a"1', b'-1"a"', b"NaN"])
def test_bare_numbers_in_a_stream_are_an_error_at_once(body: bytes) -> None:
    with pytest.raises(ResultError, match="bare numbers"):
        ItemReader(streaming=True).feed(body)


def read_all(body: bytes) -> list[Any]:
    reader = ItemReader(streaming=True)
    return reader.feed(body) + reader.end()


@pytest.mark.parametrize("body", [b'"a', b"{]", b"\xff", b'"a"x'])
def test_what_is_no_json_is_an_error(body: bytes) -> None:
    with pytest.raises(ResultError):
        read_all(body)


# Over the wire


@pytest.fixture
def runtime(emu: Emulator) -> Runtime:
    return Api(emu.url, emu.token).open("r", RID)


@pytest.fixture
def chunks(runtime: Runtime, wire: Callable[..., Any]) -> Callable[[ItemStream], Any]:
    """Take the job of a stream and return the connection that its result is sent by, chunk by chunk."""

    def begin(items: ItemStream) -> Any:
        assert runtime.take_id() == items.job_id
        connection = wire()
        headers = {"Module-Auth-Token": runtime.headers["Module-Auth-Token"], "Transfer-Encoding": "chunked"}
        connection.request("POST", f"{runtime.path}/results/{items.job_id}", headers)
        return connection

    return begin


def test_each_item_is_there_as_soon_as_its_chunk_is(emu: Emulator, chunks: Callable[..., Any]) -> None:
    items = emu.stream("f")
    connection = chunks(items)
    for number in range(3):
        connection.send_chunk(b'{"n":')
        connection.send_chunk(b"%d}" % number)
        assert next(items) == {"n": number}
    connection.send_chunk(b"")
    assert list(items) == []


@pytest.mark.usefixtures("runtime")
def test_a_stream_that_breaks_off_gives_what_came_and_then_fails(emu: Emulator, chunks: Callable[..., Any]) -> None:
    items = emu.stream("f")
    connection = chunks(items)
    connection.send_chunk(b'"first"')
    assert next(items) == "first"
    connection.close()
    with pytest.raises(JobFailed, match="the result stream broke off after 7 bytes"):
        next(items)


def test_what_nobody_can_split_ends_the_stream_with_that_error_and_is_no_fault(
    emu: Emulator, chunks: Callable[..., Any]
) -> None:
    items = emu.stream("f")
    connection = chunks(items)
    connection.send_chunk(b'{"n": 1}')
    assert next(items) == {"n": 1}
    connection.send_chunk(b'1{"n": 2}')
    with pytest.raises(ResultError, match="bare numbers"):
        next(items)
    connection.send_chunk(b"")
    assert connection.answer().status == 204


def test_a_result_that_is_no_stream_is_one_item(emu: Emulator, runtime: Runtime) -> None:
    for result, items in ((b"[1, 2]", [[1, 2]]), (b"5", [5]), (b"", []), (b'{"exception": "x", "n": 1}', None)):
        stream = emu.stream("f")
        runtime.post_result(runtime.take_id(), result)
        assert list(stream) == (items if items is not None else [json.loads(result)])


def test_an_error_object_is_raised_and_a_failed_job_too(emu: Emulator, runtime: Runtime) -> None:
    stream = emu.stream("f")
    runtime.post_result(runtime.take_id(), b'{"exception": "it failed"}')
    with pytest.raises(FunctionError, match="it failed"):
        list(stream)
    stream = emu.stream("f")
    emu.job(stream.job_id).fail("by hand")
    with pytest.raises(JobFailed, match="by hand"):
        list(stream)


def test_an_unknown_app_is_told_before_anything_is_iterated(emu: Emulator) -> None:
    with pytest.raises(NotFound):
        emu.stream("f")


def test_a_stream_is_iterated_in_async_code_on_any_loop(emu: Emulator, chunks: Callable[..., Any]) -> None:
    items = emu.stream("f")
    connection = chunks(items)

    async def read() -> list[Any]:
        return [item async for item in items]

    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.extend(asyncio.run(read())))
    reader.start()
    connection.send_chunk(b'"a""b"')
    connection.send_chunk(b"")
    reader.join()
    assert found == ["a", "b"]


def test_a_stream_that_is_closed_leaves_the_job_and_no_connection(emu: Emulator, chunks: Callable[..., Any]) -> None:
    items = emu.stream("f")
    connection = chunks(items)
    connection.send_chunk(b'"a"')
    assert next(items) == "a"
    items.close()
    assert list(items) == []
    assert emu.job(items.job_id).status == "running"
    connection.send_chunk(b"")
    eventually(emu.job(items.job_id).done, "the job is done")
