"""A journal that was damaged, cut off or deleted in part is noticed at the start, or everything is there all the same.

`tests/run --long` flips 200 bits of each file.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, Api
from journaled import make_older, process
from msgspec.structs import replace

from cmemu_nb.errors import JournalError
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.records import JobStatus
from cmemu_nb.storage.journal_file import JournalFile
from cmemu_nb.storage.journal_salvage import salvage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.once

FLIPS = 200 if os.environ.get("CMEMU_LONG") else 40
NAME = "lifecycle.db"
Picture = tuple[Any, ...]
# A dataset with a file of several pieces in the journal, another one, and a transaction that is open; and a stream.
DATA = """
from cmemu_nb.lifecycle.datasets import TransactionType
rid = emu.datasets.create("in").rid
def write(state):
    first = state.open_transaction(rid, TransactionType.SNAPSHOT).rid
    state.put_file(rid, first, "large", bytes(range(256)) * 200)
    state.put_file(rid, first, "small", b"small")
    state.commit_transaction(rid, first)
    state.put_file(rid, state.open_transaction(rid, TransactionType.UPDATE).rid, "open", b"open")
emu.change(write)
events = emu.streams.create("events", {"n": "LONG", "text": "STRING"}, partitions=2)
for number in range(20):
    events.publish([{"n": number, "text": "z" * 200}, {"n": -number, "text": None}])
"""


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of a journal after kill -9, and after a stop."""
    folders = {how: tmp_path_factory.mktemp(how) for how in ("killed", "stopped")}
    for how, folder in folders.items():
        with process(folder / NAME) as emulator:
            api = Api(emulator.url, emulator.token)
            runtime = api.open("r", RID, displayName="App")
            api.open("other", "ri.other")
            runtime.post_schemas([{"functionName": "f"}, {"functionName": "g"}])
            emulator.run(DATA)
            for number in range(30):
                api.submit("f", "x" * number * 50)
                if number < 20:
                    runtime.post_result(runtime.take_id(), b"y" * number * 300)
            emulator.kill() if how == "killed" else emulator.stop()
    assert (folders["killed"] / f"{NAME}-wal").stat().st_size > 50_000
    assert not (folders["stopped"] / f"{NAME}-wal").exists()
    return folders


@pytest.fixture
def copies(journals: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return the function that makes a fresh copy of one of the journals."""
    numbers = iter(range(10**6))

    def copy(how: str) -> Path:
        folder = tmp_path / str(next(numbers))
        shutil.copytree(journals[how], folder)
        return folder / NAME

    return copy


def opened(path: Path) -> Picture:
    """Return all that an emulator finds in a journal."""
    file = JournalFile(path, "normal")
    try:
        state = Lifecycle()
        state.restore(file.load())
        replicas = [each.token for runtime in state.runtimes() for each in state.replicas(runtime.runtime_id)]
        identity = {name: value for name, value in file.identity().items() if name != "owner"}
        rest = state.schemas(), state.deployed_apps(), replicas, identity
        return state.runtimes(), state.jobs(), *rest, data_of(state)
    finally:
        file.close()


def data_of(state: Lifecycle) -> Picture:
    """Return the parts of the dataset, and the records of the stream; nothing of one that does not exist."""
    history, log = state.find_dataset("in"), state.find_data_stream("events")
    dataset = history and [history.dataset, history.branches, history.transactions, history.files]
    return dataset, log and [log.stream, log.ends, log.published, log.records()]


def contents(path: Path) -> dict[str, bytes]:
    found = {str(each): each.read_bytes() for each in path.parent.rglob("*") if each.is_file()}
    return {name: content for name, content in found.items() if not name.endswith(("-shm", "/lock"))}


def noticed(path: Path, whole: Picture) -> bool:
    """Return whether the damage was noticed; if not, everything that was acknowledged must be there."""
    before = contents(path)
    try:
        found = opened(path)
    except JournalError:
        assert contents(path) == before
        return True
    assert found == whole
    return False


@pytest.mark.parametrize(
    ("how", "name"), [("stopped", NAME), ("killed", NAME), ("killed", f"{NAME}-wal"), ("killed", f"{NAME}-files/mark")]
)
def test_a_bit_that_flips_is_noticed_or_changes_nothing(copies: Callable[[str], Path], how: str, name: str) -> None:
    rng = random.Random(f"{how} {name}")
    whole, found = opened(copies(how)), 0
    for _ in range(FLIPS):
        path = copies(how)
        file = path.parent / name
        content = bytearray(file.read_bytes())
        bit = rng.randrange(len(content) * 8)
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        found += noticed(path, whole)
        shutil.rmtree(path.parent)
    # The rest is in what nobody reads, such as pages of which the log has newer ones.
    assert found > FLIPS / 4 or (how, name) == ("killed", NAME)


def test_every_bit_of_the_head_counts(copies: Callable[[str], Path]) -> None:
    whole = opened(copies("stopped"))
    for bit in range(16 * 8, 100 * 8, 1 if FLIPS == 200 else 5):
        path = copies("stopped")
        content = bytearray(path.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        noticed(path, whole)
        shutil.rmtree(path.parent)


@pytest.mark.parametrize(("how", "name"), [("stopped", NAME), ("killed", NAME), ("killed", f"{NAME}-wal")])
def test_a_file_that_is_cut_off_is_noticed_or_lacks_nothing(copies: Callable[[str], Path], how: str, name: str) -> None:
    rng = random.Random(f"{how} {name}")
    whole = opened(copies(how))
    for number in range(FLIPS // 4):
        path = copies(how)
        file = path.parent / name
        size = file.stat().st_size
        os.truncate(file, 0 if number == 0 else rng.randrange(size))
        assert noticed(path, whole) or (name == NAME and how == "killed")
        shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([f"{NAME}-wal"], "lacks the last .* that were acknowledged: its log .*-wal is missing"),
        ([f"{NAME}-wal", f"{NAME}-shm", f"{NAME}-files"], "its emulator was not stopped, and .*mark is missing"),
        ([f"{NAME}-files"], "its emulator was not stopped, and .*mark is missing"),
        ([NAME], "is missing, but a part of it, .*-wal, is still there"),
        ([NAME, f"{NAME}-wal"], "is missing, but a part of it, .*mark, is still there"),
        ([f"{NAME}-shm"], None),
    ],
    ids=lambda value: "+".join(each.removeprefix(NAME) or "file" for each in value) if isinstance(value, list) else "",
)
def test_a_part_that_is_missing_is_an_error_that_says_so(
    copies: Callable[[str], Path], names: list[str], match: str | None
) -> None:
    whole = opened(copies("killed"))
    path = copies("killed")
    for name in names:
        part = path.with_name(name)
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)
    if match is None:
        assert opened(path) == whole
    else:
        with pytest.raises(JournalError, match=match):
            opened(path)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_a_journal_of_an_earlier_version_goes_on_and_has_checksums_from_then_on(
    copies: Callable[[str], Path], version: int
) -> None:
    whole, path = opened(copies("stopped")), copies("stopped")
    make_older(path, version)
    salvage(path, path.with_name("new.db"))
    # It had no datasets and streams. Before version 5 it did not write down which results were streams, and before
    # version 4 no durations.
    runtimes, jobs, *rest, _ = whole
    lost: dict[str, Any] = {} if version == 5 else {"streamed": False}
    lost |= {} if version >= 4 else {"queue_clock": None, "run_clock": None}
    older = (runtimes, [replace(job, **lost) for job in jobs], *rest, (None, None))
    assert opened(path.with_name("new.db")) == older
    assert opened(path) == opened(path) == older
    assert any(job.queue_clock for job in jobs)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"y" * 900, b"y" * 899 + b"x"))
    with pytest.raises(JournalError, match="a row of states is not what was written"):
        opened(path)


def test_an_older_copy_of_the_log_or_the_file_is_noticed(tmp_path: Path) -> None:
    path, older = tmp_path / NAME, tmp_path / "older"
    with process(path) as emulator:
        emulator.run("emu.open_runtime('first')")
        shutil.copytree(tmp_path, older)
        emulator.run("emu.open_runtime('second')")
        emulator.kill()
    shutil.copy(older / f"{NAME}-wal", tmp_path)
    with pytest.raises(JournalError, match="lacks the last change"):
        opened(path)


def test_a_copy_of_a_stopped_journal_is_whole_by_itself(copies: Callable[[str], Path], tmp_path: Path) -> None:
    path = copies("stopped")
    shutil.copy(path, tmp_path / "copy.db")
    assert opened(tmp_path / "copy.db") == opened(path)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM jobs WHERE sequence = 5",
        "UPDATE jobs SET query = x'00' WHERE sequence = 5",
        "DELETE FROM states",
        "UPDATE runtimes SET evicted = x''",
        "UPDATE identity SET value = 'x' WHERE name = 'token'",
        "UPDATE chain SET in_use = 0, number = 10000",
        "CREATE TRIGGER mine AFTER INSERT ON jobs BEGIN DELETE FROM jobs; END",
    ],
)
def test_what_another_program_wrote_is_noticed(copies: Callable[[str], Path], statement: str) -> None:
    path = copies("killed")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(JournalError, match="is damaged"):
        opened(path)


# Checking and saving


def cmemu(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cmemu_nb", "journal", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_check_says_whether_a_journal_is_whole(copies: Callable[[str], Path], tmp_path: Path) -> None:
    for how in ("stopped", "killed"):
        path = copies(how)
        before = contents(path)
        done = cmemu("check", path)
        said = f"The journal {path} is complete and undamaged: 2 runtimes, 30 jobs, 1 dataset and 1 stream.\n"
        assert (done.returncode, done.stdout) == (0, said)
        assert contents(path) == before
    path.with_name(f"{NAME}-wal").unlink()
    done = cmemu("check", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cmemu journal: The journal {path} lacks the last " in done.stderr
    assert f"'cmemu journal salvage {path}' writes its undamaged part to a new file" in done.stderr
    missing = cmemu("check", tmp_path / "none.db")
    assert missing.stderr.endswith("none.db can't be read: the file does not exist.\n")


@pytest.mark.parametrize("action", ["check", "salvage"])
@pytest.mark.parametrize("part", [f"{NAME}-wal", f"{NAME}-files/mark"])
def test_a_folder_in_the_place_of_a_part_of_a_journal_is_named_in_one_sentence(
    copies: Callable[[str], Path], action: str, part: str
) -> None:
    path = copies("killed")
    there = path.parent / part
    there.unlink()
    there.mkdir()
    done = cmemu(action, path)
    if done.returncode:  # salvaging needs no mark
        assert re.fullmatch(r"cmemu journal: The journal \S+ can't be read: [^\n]+\.\n", done.stderr), done.stderr


def test_a_name_that_no_file_can_have_is_refused_in_one_sentence(copies: Callable[[str], Path]) -> None:
    for arguments in (("check", "x" * 300), ("salvage", copies("killed"), "--into", "x" * 300)):
        done = cmemu(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "File name too long" in done.stderr


def test_salvage_saves_what_was_acknowledged_before_the_log_was_cut_off(copies: Callable[[str], Path]) -> None:
    whole, path = opened(copies("killed")), copies("killed")
    log = path.with_name(f"{NAME}-wal")
    os.truncate(log, log.stat().st_size * 3 // 4)
    before = contents(path)
    done = cmemu("salvage", path)
    new = path.with_name(f"{NAME}.salvaged")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"were saved to {new}." in done.stdout
    assert done.stdout.endswith(f"To start with it: --journal {new}\n")
    assert cmemu("salvage", path).stderr.endswith("left as it is. Choose another file with --into.\n")
    new = new.rename(path.parent.parent / "moved.db")
    assert contents(path) == before
    found = opened(new)
    assert {each.runtime_id for each in found[0]} == {each.runtime_id for each in whole[0]}
    assert 10 < len(found[1]) < 30
    queries = {job.job_id: job.query for job in whole[1]}
    assert [job for job in found[1] if job.query != queries[job.job_id]] == []
    assert found[5] == whole[5]


@pytest.mark.parametrize("seed", range(FLIPS // 4))
def test_salvage_keeps_nothing_that_was_changed(copies: Callable[[str], Path], seed: int) -> None:
    """What is saved of a file with damaged pages is as it was, and a job whose state is lost is not queued again."""
    rng, path, everything = random.Random(seed), copies("stopped"), opened(copies("stopped"))
    whole = {job.job_id: job for job in everything[1]}
    content = bytearray(path.read_bytes())
    for _ in range(4):
        # The first pages have the definitions of the tables, without which nothing can be read.
        place = rng.randrange(4096 * 12, len(content) - 100)
        content[place : place + 100] = rng.randbytes(100)
    path.write_bytes(content)
    new = path.with_name("new.db")
    saved, lost = salvage(path, new)
    _, jobs, *_, data = opened(new)
    assert len(jobs) == saved["jobs"]
    for job in jobs:
        assert job.query == whole[job.job_id].query
        if job.status == JobStatus.FAILED:
            assert "the journal was damaged" in (job.error_message or "")
        else:
            assert job == whole[job.job_id]
    assert len(jobs) >= 20
    assert data == everything[-1] or lost
    (dataset, log), (whole_dataset, whole_log) = data, everything[-1]
    if dataset:
        assert dataset[:1] == whole_dataset[:1]
        for rid, files in dataset[3].items():
            assert files.items() <= whole_dataset[3][rid].items()
    if log:
        assert log[:3] == whole_log[:3]
        assert log[3] == whole_log[3][len(whole_log[3]) - len(log[3]) :]
