"""Datasets and streams in a journal: they come back as they were, and large files hold nobody up."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from client import Api, eventually
from foundry_sdk import Config, FoundryClient, UserTokenAuth
from journaled import process

from cmemu_nb import Emulator
from cmemu_nb.errors import JournalBehind, WireError
from cmemu_nb.lifecycle.datasets import TransactionType
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.storage.journal import SPARE_BYTES, Journal
from cmemu_nb.storage.journal_file import JournalFile
from cmemu_nb.wire.paths import DATASETS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("arrow_pipe")
MANY_BYTES = bytes(range(256)) * 4096 * 12
SHOW = """
datasets = {each.rid: emu.lifecycle.dataset(each.rid) for each in emu.lifecycle.datasets()}
logs = [emu.lifecycle.data_stream(each.rid, each.branch) for each in emu.lifecycle.data_streams()]
answer = repr([
    [(name, each.branches, each.transactions, each.files, each.schemas, each.size) for name, each in datasets.items()],
    [(each.stream, each.ends, each.published, each.records(), each.size) for each in logs],
    emu.lifecycle.subscribers(), emu.lifecycle.data_bytes,
])
"""
WRITE = """
import pandas as pd
from cmemu_nb.lifecycle.datasets import TransactionType
emu.datasets["in"] = pd.DataFrame({"id": [1, 2], "name": ["one", None]})
emu.datasets["in"].append([{"id": 3}])
emu.datasets["large"] = pd.DataFrame({"x": range(300_000)})
def write(state):
    rid = emu.datasets["in"].rid
    state.create_branch(rid, "dev", state.dataset(rid).branches["master"].committed_rid)
    for branch, kind in (("dev", TransactionType.DELETE), ("master", TransactionType.UPDATE)):
        opened = state.open_transaction(rid, kind, branch).rid
        if branch == "dev":
            path = next(iter(state.dataset(rid).view(state.dataset(rid).branches["dev"].committed_rid)))
            state.delete_file(rid, opened, path)
            state.commit_transaction(rid, opened)
        else:
            state.put_file(rid, opened, "empty", b"")
            state.put_file(rid, opened, "ü/file", b"open")
emu.change(write)
events = emu.streams.create("events", {"sensor": "STRING", "at": "TIMESTAMP"}, partitions=3, keys=["sensor"])
for number in range(30):
    events.publish({"sensor": f"s{number % 5}", "at": number})
emu.streams.create("events", {"sensor": "STRING"}, branch="dev")
emu.change(lambda state: state.create_subscriber(events.rid, "master", "me", {"type": "earliest"}, (0, 0, 0)))
emu.change(lambda state: state.move_subscriber(events.rid, "master", "me", (1, 2, 0)))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lifecycle.db"


def client_of(url: str, token: str) -> FoundryClient:
    return FoundryClient(auth=UserTokenAuth(token), hostname=url.removeprefix("http://"), config=Config(scheme="http"))


@pytest.mark.usefixtures("sdk_connections")
def test_datasets_and_streams_are_there_again_after_kill_9_and_go_on(path: Path) -> None:
    with process(path, keep_records=20) as first:
        first.run(WRITE)
        before = first.run(SHOW)
        first.kill()
    with process(path, keep_records=20) as second:
        assert second.run(SHOW) == before
        rids = second.run("answer = [emu.datasets['in'].rid, emu.streams['events'].rid]")
        client = client_of(second.url, second.token)
        before_publishing = sum(client.streams.Dataset.Stream.get_end_offsets(rids[1], "master").values())
        assert before_publishing == 30
        read = client.streams.Dataset.Stream.Subscriber.get_read_position(rids[1], "master", "me", preview=True)
        assert dict(read) == {"0": 1, "1": 2, "2": 0}
        assert client.datasets.Dataset.read_table(rids[0], format="ARROW").to_pandas()["id"].to_list() == [1, 2, 3]
        second.run("answer = emu.streams['events'].publish([{'sensor': 's1', 'at': 5}] * 4)")
        assert second.run("answer = sum(emu.streams['events'].end_offsets.values())") == 34
        assert second.run("answer = len(emu.datasets['large'].frame())") == 300_000
        assert second.run("answer = emu.datasets['in'].frame()['id'].to_list()") == [1, 2, 3]
        second.run("[opened] = emu.datasets['in'].history.open_transactions()")
        second.run("emu.change(lambda state: state.commit_transaction(emu.datasets['in'].rid, opened.rid))")
        assert {*second.run("answer = [*emu.datasets['in'].files.index]")} >= {"empty", "ü/file"}
        second.run("emu.reset()")
        second.kill()
    with contextlib.closing(JournalFile(path, "normal")) as file:
        saved = file.load()
    assert (saved.datasets, saved.streams, saved.subscribers) == ([], [], [])


def test_a_journal_that_is_attached_later_gets_all_datasets_and_streams(path: Path) -> None:
    with Emulator(port=0, home="thread") as emu:
        emu.datasets["in"] = [{"x": 1}]
        emu.streams["events"] = [{"y": 2}]
        emu.stop()
        emu.start(journal=str(path))
    with Emulator(port=0, home="thread", journal=str(path)) as again:
        assert again.datasets["in"].frame()["x"].to_list() == [1]
        assert again.streams["events"].records == [{"y": 2}]


# Large files, and the space of those that are deleted


@contextlib.asynccontextmanager
async def journaled(path: Path) -> AsyncIterator[tuple[Lifecycle, JournalFile, Journal]]:
    state, file = Lifecycle(), JournalFile(path, "normal")
    state.restore(file.load())
    journal = Journal(file, state, asyncio.get_running_loop())
    try:
        yield state, file, journal
    finally:
        journal.close()
        file.close()


def pieces(file: JournalFile) -> int:
    count: int = file.connection.execute("SELECT count(*) FROM contents").fetchone()[0]
    return count


async def empty(file: JournalFile) -> None:
    async with asyncio.timeout(30):
        while pieces(file):  # noqa: ASYNC110 - the journal has no event for it
            await asyncio.sleep(0.01)


async def uploaded(state: Lifecycle, journal: Journal) -> tuple[str, str]:
    async with journal.contents([MANY_BYTES, b"small"]):
        places = upload(state, MANY_BYTES)
    await journal.written()
    return places


def upload(state: Lifecycle, body: bytes) -> tuple[str, str]:
    rid = state.create_dataset("in").rid
    opened = state.open_transaction(rid, TransactionType.UPDATE).rid
    state.put_file(rid, opened, "large", body)
    return rid, opened


def test_other_changes_are_written_between_the_pieces_of_a_large_file(path: Path) -> None:
    async def main() -> None:
        async with journaled(path) as (state, file, journal):
            state.open_session("r")
            writing, between = asyncio.create_task(uploaded(state, journal)), 0
            while not writing.done():
                state.submit("r", "f", b"{}")
                await journal.written()
                between += 1
                await asyncio.sleep(0)
            assert between >= 3
            rid, opened = await writing
            assert pieces(file) == 12  # its bytes were not written again
            before = file.log_bytes
            for _ in range(20):
                state.submit("r", "f", b"{}")
                await journal.written()
            assert file.log_bytes - before < len(MANY_BYTES) / 10  # nor are they because a job arrived
            state.commit_transaction(rid, opened)
        async with journaled(path) as (state, file, _):
            [history] = [state.dataset(each.rid) for each in state.datasets()]
            assert history.view(opened)["large"].body == MANY_BYTES
            state.delete_dataset(rid)
            await empty(file)

    asyncio.run(main())


def test_the_space_of_files_that_nobody_has_any_more_is_freed(path: Path) -> None:
    async def main() -> None:
        async with journaled(path) as (state, file, journal):
            async with journal.contents([MANY_BYTES]):
                rid, opened = upload(state, b"another body: that one was refused")
                await journal.written()
                assert pieces(file) == 13
            await journal.written()
            state.put_file(rid, opened, "large", b"replaced")
            await journal.written()
            state.abort_transaction(rid, opened)
            await journal.written()
            await empty(file)
            # A process that is killed while it writes leaves pieces, which the next start removes.
            with file.transaction() as rows:
                rows.put("contents", file.new_content() << 20, b"left")
            assert pieces(file) == 1
        async with journaled(path) as (_, file, _):
            await empty(file)

    asyncio.run(main())


def test_a_large_file_for_which_there_is_no_room_is_refused_and_changes_nothing(path: Path) -> None:
    async def main() -> None:
        async with journaled(path) as (state, file, journal):
            (count,) = file.connection.execute("PRAGMA page_count").fetchone()
            file.connection.execute(f"PRAGMA max_page_count = {count + 1000}")
            with pytest.raises(
                JournalBehind, match=r"Nothing was done.* full.*Make room on the disk, .* send them again"
            ):
                await uploaded(state, journal)
            assert state.datasets() == []
            await empty(file)
            state.open_session("r")
            await journal.written()
            assert not journal.behind

    asyncio.run(main())


def test_large_files_do_not_fill_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with journaled(path) as (state, file, journal):
            usage = shutil.disk_usage(path.parent)._replace(free=SPARE_BYTES + len(MANY_BYTES) - 1)
            monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
            with pytest.raises(
                JournalBehind, match=r"Nothing was done.* bytes free, of which 33,554,432 are kept for other"
            ):
                await uploaded(state, journal)
            assert (pieces(file), state.datasets()) == (0, [])
            upload(state, b"small")
            await journal.written()

    asyncio.run(main())


@pytest.mark.parametrize(
    "make",
    [
        lambda emu: emu.datasets.create("a\ud800"),
        lambda emu: emu.streams.create("a", {"a\ud800": "STRING"}),
        lambda emu: emu.streams.create("a", {"fields": [field_with(object())]}),
        lambda emu: emu.streams.create("a", {"fields": [field_with("\ud800")]}),
        lambda emu: emu.streams.create("a", {"x": "LONG"}, branch="a\ud800"),
        lambda emu: emu.streams.create("a", {"x": "LONG"}, rid="a\ud800"),
        lambda emu: emu.change(lambda state: state.create_branch(emu.datasets["in"].rid, "a\ud800")),
        lambda emu: emu.change(lambda state: upload_text(state, emu.datasets["in"].rid, "a\ud800")),
        lambda emu: emu.change(lambda state: state.create_dataset("a", "a\ud800")),
    ],
)
def test_what_json_can_t_hold_is_refused_and_blocks_nobody(journaling: Emulator, make: Callable[[Any], object]) -> None:
    with pytest.raises(WireError, match=r"must be text|can't be written as JSON"):
        make(journaling)
    journaling.datasets["in"] = [{"x": 1}]


def field_with(metadata: object) -> dict[str, Any]:
    schema = {"dataType": {"type": "string"}, "nullable": True, "customMetadata": {"a": metadata}}
    return {"name": "x", "schema": schema}


def upload_text(state: Lifecycle, rid: str, path: str) -> None:
    opened = state.open_transaction(rid, TransactionType.UPDATE).rid
    try:
        state.put_file(rid, opened, path, b"x")
    finally:
        state.abort_transaction(rid, opened)


@pytest.fixture(scope="module")
def journaling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(port=0, home="thread", journal=str(tmp_path_factory.mktemp("journal") / "lifecycle.db")) as emu:
        emu.datasets["in"] = [{"x": 0}]
        yield emu


def test_a_large_upload_by_http_is_in_the_journal_when_it_is_answered_and_a_refused_one_is_not(path: Path) -> None:
    def send(api: Api, file: str, branch: str) -> Any:
        return api.contour(
            "POST", f"{DATASETS}/{rid}/files/{file}/upload?branchName={branch}", data=MANY_BYTES[: 2 * 1024**2 + 1]
        )

    with Emulator(port=0, home="thread", journal=str(path)) as emu:
        rid, api = emu.datasets.create("in").rid, Api(emu.url, emu.token)
        assert send(api, "a", "master").status_code == 200
        assert send(api, "b", "none").json()["errorName"] == "BranchNotFound"
        eventually(lambda: count(path) == 3, "only the pieces of the first upload are kept")


def count(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        found: int = connection.execute("SELECT count(*) FROM contents").fetchone()[0]
        return found
