"""The items of a stream, one by one: split wherever the network splits them, and ended as the job ends."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from client import RID, Api, closed, eventually
from hypothesis import given, settings
from hypothesis import strategies as st

from cmemu_nb import Emulator
from cmemu_nb.errors import FunctionError, JobFailed, NotFound, ResultError, ResultWarning
from cmemu_nb.wire.item_reader import FirstHeld, ItemReader
from cmemu_nb.wire.results import item_value

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client import Runtime

    from cmemu_nb.calls.streams import ItemStream

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
        for value in reader.split(body[start:end])
    ]
    assert [json.loads(text) for text in found + reader.split_end()] == items


@pytest.mark.parametrize("body", [b"1", b'"a"1', b'-1"a"', b"NaN"])
def test_bare_numbers_in_a_stream_are_an_error_at_once(body: bytes) -> None:
    with pytest.raises(ResultError, match="bare numbers"):
        ItemReader(streaming=True).split(body)


def read_all(body: bytes) -> list[Any]:
    reader = ItemReader(streaming=True)
    return [item_value(text) for text in reader.split(body) + reader.split_end()]


@pytest.mark.parametrize("body", [b'"a', b"{]", b"\xff", b'"a"x'])
def test_what_is_no_json_is_an_error(body: bytes) -> None:
    with pytest.raises(ResultError):
        read_all(body)


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_what_comes_in_small_pieces_is_read_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    item = json.dumps([{"text": 'a "quoted" \\ ö', "deep": [[[[[1, 2]]]]], "flat": list(range(9))}] * 200).encode()
    read = count_what_is_parsed(monkeypatch)
    reader = ItemReader(streaming=True)
    found = [text for at in range(0, 3 * len(item), size) for text in reader.split((item * 3)[at : at + size])]
    values = [item_value(text) for text in found + reader.split_end()]
    assert sum(characters for characters, _ in read) <= 2 * len(item * 3)
    assert values == [json.loads(item)] * 3


def count_what_is_parsed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Note how many characters are given to Python's JSON decoder, and on which thread."""
    read: list[tuple[int, int]] = []
    decode = json.JSONDecoder.raw_decode

    def counting(decoder: json.JSONDecoder, text: str, idx: int = 0) -> Any:
        read.append((len(text) - idx, threading.get_ident()))
        return decode(decoder, text, idx)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counting)
    return read


@pytest.mark.parametrize("body", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000])
def test_what_is_nested_too_deeply_is_a_clear_error(body: bytes) -> None:
    with pytest.raises(ResultError, match="nested too deeply"):
        read_all(body)


def test_an_error_object_is_held_back_to_the_end_however_many_pieces_it_comes_in() -> None:
    text = b'{"error": "it failed", "reason": "no reason"}'
    for at_once in (1, 7, len(text)):
        reader, first = ItemReader(streaming=True), FirstHeld()
        pieces = [text[start : start + at_once] for start in range(0, len(text), at_once)]
        assert [item for piece in pieces for item in first.add(reader.split(piece))] == []
        assert first.error() == {"error": "it failed", "reason": "no reason"}
        assert first.add([b"1"]) == [text, b"1"]


def read_text(*pieces: bytes) -> list[Any]:
    reader = ItemReader(streaming=False, plain_text=True)
    texts = [text for piece in pieces for text in reader.split(piece)]
    return [item_value(text) for text in texts + reader.split_end()]


@pytest.mark.parametrize(
    ("pieces", "items"),
    [
        ((b"Hello, ", b"w\xc3", b"\xb6rld", b' {"n": 1}'), ["Hello, ", "w", "örld", ' {"n": 1}']),
        ((b" tr", b"y this"), ["try this"]),
        ((b"nul",), ["nul"]),
        ((b"12 ", b"apples"), ["12 apples"]),
        ((b"Infinite ", b"loop"), ["Infinite loop"]),
        ((b"true", b'"a"'), [True, "a"]),
        ((b"1 ", b"2"), [1, 2]),
        ((), []),
    ],
)
def test_plain_text_is_passed_on_as_it_arrives_and_json_stays_json(pieces: tuple[bytes, ...], items: list[Any]) -> None:
    assert read_text(*pieces) == items


@pytest.mark.parametrize("body", [b'{"a": ', b'"a', b'"a" and text', b"text \xff", b"text \xc3", b"[" * 100_000])
def test_what_begins_as_json_or_is_not_utf8_is_no_plain_text(body: bytes) -> None:
    with pytest.raises(ResultError):
        read_text(body)


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


def test_plain_text_arrives_piece_by_piece_and_a_call_shows_it_in_its_error(
    emu: Emulator, chunks: Callable[..., Any]
) -> None:
    items = emu.stream("f")
    connection = chunks(items)
    for text in ("Hello, ", "wörld"):
        connection.send_chunk(text.encode())
        assert next(items) == text
    connection.send_chunk(b"")
    assert list(items) == []
    with pytest.raises(ResultError, match=r"is not JSON \(.*\): 'Hello, wörld'\. job\.raw\(\) gives its bytes"):
        emu.job(items.job_id).result()


def test_nan_in_a_stream_is_given_with_a_warning(emu: Emulator, runtime: Runtime) -> None:
    items = emu.stream("f")
    runtime.post_result(runtime.take_id(), b'{"n": 1}{"n": NaN}')
    assert next(items) == {"n": 1}
    with pytest.warns(ResultWarning, match="The result contains NaN"):
        assert math.isnan(next(items)["n"])


def test_a_result_in_chunks_is_a_list_of_any_length_also_after_a_restart_and_in_an_export(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    given = {"journal": str(tmp_path / "lifecycle.db")}
    item, error = b'{"n": 1}', b'{"error": "failed"}'
    results = [iter([]), iter([item]), iter([item, item]), item, b"[1]", iter([error])]
    values = [[], [{"n": 1}], [{"n": 1}, {"n": 1}], {"n": 1}, [1]]
    with serve(**given) as emu:
        runtime = Api(emu.url, emu.token).open("r", RID)
        ids = [emu.submit("f").id for _ in results]
        for job_id, result in zip(ids, results, strict=True):
            assert runtime.take_id() == job_id
            runtime.post_result(job_id, result)
        *jobs, failed = [emu.job(job_id) for job_id in ids]
        assert [job.result() for job in jobs] == values
        with pytest.raises(FunctionError, match="failed"):
            failed.result()
        emu.export(tmp_path / "run.json")
    with serve(**given) as emu:
        assert [emu.job(job_id).result() for job_id in ids[:-1]] == values
    exported = Emulator.from_export(tmp_path / "run.json")
    assert [exported.job(job_id).result() for job_id in ids[:-1]] == values
    document = json.loads((tmp_path / "run.json").read_text())
    assert [job.pop("streamed") for job in document["jobs"]] == [True, True, True, False, False, True]
    (tmp_path / "older.json").write_text(json.dumps(document))
    older = Emulator.from_export(tmp_path / "older.json")
    assert older.job(ids[3]).result() == older.job(ids[1]).result() == {"n": 1}


def test_bare_numbers_in_chunks_are_an_error_and_no_wrong_number(emu: Emulator, runtime: Runtime) -> None:
    job = emu.submit("f")
    runtime.post_result(runtime.take_id(), iter([b"1", b"2", b"3"]))
    for read in (job.result, lambda: list(job.stream())):
        with pytest.raises(ResultError, match="1 2 3 is 123 on the wire"):
            read()


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


def rows(count: int) -> list[dict[str, Any]]:
    return [{"n": number, "text": "a" * 20, "values": [1, 2, 3]} for number in range(count)]


def test_a_large_stream_is_read_once_and_never_on_the_loop(
    emu: Emulator, chunks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = rows(120_000)
    body = json.dumps(sent).encode()
    assert len(body) > 7_600_000
    items = emu.stream("f")
    connection = chunks(items)
    for at in range(0, len(body), 100_000):
        connection.send_chunk(body[at : at + 100_000])
    connection.send_chunk(b"")
    read = count_what_is_parsed(monkeypatch)
    assert list(items) == [sent]
    assert sum(characters for characters, _ in read) <= 2 * len(body)
    assert all(characters < 100_000 for characters, thread in read if thread != threading.get_ident())


def test_a_large_value_of_the_public_api_is_read_beside_the_loop(
    emu: Emulator, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps([rows(120_000), "\ud800"]).encode()  # msgspec does not read half of a surrogate pair
    runtime.post_schemas([{"functionName": "f", "output": {"type": "long", "long": {}}}])
    on_loop = asyncio.run_coroutine_threadsafe(_thread(), emu.home.loop).result()
    for path in ("streamingExecute", "execute"):
        read = count_what_is_parsed(monkeypatch)
        with ThreadPoolExecutor(1) as pool:
            url = f"{emu.url}/api/v2/functions/queries/f/{path}?preview=true"
            answer = pool.submit(
                requests.post,
                url,
                json={"parameters": {}},
                headers={"Authorization": f"Bearer {emu.token}"},
                timeout=60,
            )
            runtime.post_result(runtime.take(wait=30)["jobId"], body)
        assert body in closed(answer.result()).content
        assert all(characters < 100_000 for characters, thread in read if thread == on_loop)
        monkeypatch.undo()


async def _thread() -> int:
    return threading.get_ident()


def test_chunks_of_two_bytes_cost_no_more_than_their_bytes(emu: Emulator, chunks: Callable[..., Any]) -> None:
    items = emu.stream("f")
    connection = chunks(items)
    body = json.dumps(rows(1000)).encode()
    for at in range(0, 2_000, 2):  # each in a packet of its own
        connection.send_chunk(body[at : at + 2])
    connection.send(b"".join(b"2\r\n%b\r\n" % body[at : at + 2] for at in range(2_000, len(body) - 2, 2)))
    eventually(lambda: len(received(emu, items)) >= len(body) - 3, "nearly all of it has come")
    assert sys.getsizeof(received(emu, items)) < 2 * len(body)
    connection.send_chunk(body[len(received(emu, items)) :])
    connection.send_chunk(b"")
    assert list(items) == [rows(1000)]


def received(emu: Emulator, items: ItemStream) -> bytearray:
    stream = emu.lifecycle.stream(items.job_id)
    return stream.body if stream else bytearray()
