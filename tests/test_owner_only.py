"""Files that only their owner can read: nothing is written through what somebody has planted, or where others look."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, Api, error_code

from cmemu_nb import Emulator
from cmemu_nb.errors import ExportRefused, JournalError, NotPrivate, SessionFileError
from cmemu_nb.storage import live_file, owner_only, session_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.once

MINE = "what I have written"
NAME = "lifecycle.db"
ANOTHER = 65_534
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that must never be written."""
    path = tmp_path / "elsewhere" / "victim"
    path.parent.mkdir()
    path.write_text(MINE)
    return path


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "place" / NAME
    path.parent.mkdir()
    return path


def emulator_of(journal: Path) -> Emulator:
    return Emulator(port=0, home="thread", journal=str(journal))


def use(journal: Path) -> None:
    with emulator_of(journal) as emulator:
        emulator.open_runtime("r")
        emulator.env("r")


def kept(*paths: Path) -> list[tuple[int, ...]]:
    """Return what must not change of files."""
    found = [path.lstat() for path in paths]
    return [(each.st_mode, each.st_ino, each.st_uid, each.st_size, each.st_mtime_ns) for each in found]


# The folder beside a journal


def plant(how: str, folder: Path, elsewhere: Path) -> None:
    if how == "link":
        elsewhere.chmod(0o700)
        folder.symlink_to(elsewhere)
    elif how == "dangling":
        folder.symlink_to(elsewhere / "missing")
    elif how == "file":
        folder.touch(0o600)
    else:
        folder.mkdir()
        folder.chmod(int(how, 8) if how.isdigit() else 0o700)
    if how == "other":
        os.chown(folder, ANOTHER, ANOTHER)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("link", "FOLDER is a symbolic link, which is not followed. Move it away, or choose another place."),
        ("dangling", "FOLDER is a symbolic link, which is not followed. Move it away, or choose another place."),
        ("file", "FOLDER is not a folder. Move it away, or choose another place."),
        ("0777", "FOLDER has the rights 0777, but must be open to its owner only. Type: chmod 700 FOLDER, or choose"),
        ("0750", "FOLDER has the rights 0750, but must be open to its owner only. Type: chmod 700 FOLDER, or choose"),
        pytest.param(
            "other", f"FOLDER belongs to another user (number {ANOTHER}). Choose another place.", marks=ROOT_ONLY
        ),
    ],
)
def test_a_folder_beside_a_journal_that_is_not_private_is_not_used(
    journal: Path, victim: Path, how: str, said: str
) -> None:
    folder = journal.with_name(f"{NAME}-files")
    plant(how, folder, victim.parent)
    before = kept(folder, victim)
    with pytest.raises(JournalError) as refused:
        emulator_of(journal).start()
    assert f"The journal {journal} can't be used: {said.replace('FOLDER', str(folder))}" in str(refused.value)
    assert kept(folder, victim) == before
    assert sorted(journal.parent.iterdir()) == [folder]
    assert sorted(victim.parent.iterdir()) == [victim]
    if how.isdigit():  # what was to be typed
        folder.chmod(0o700)
        use(journal)


@pytest.mark.parametrize("name", ["lock", "mark", f"../{NAME}-wal", f"../{NAME}-shm", f"../{NAME}-journal"])
@pytest.mark.parametrize("how", ["link", "dangling", "hard link"])
def test_nothing_is_written_through_what_is_planted_beside_a_journal(
    journal: Path, victim: Path, name: str, how: str
) -> None:
    use(journal)
    planted = Path(os.path.normpath(journal.with_name(f"{NAME}-files") / name))
    planted.unlink(missing_ok=True)
    if how == "hard link":
        planted.hardlink_to(victim)
    else:
        planted.symlink_to(victim if how == "link" else victim.with_name("missing"))
    what = "a hard link: the file has" if how == "hard link" else "a symbolic link, which is not followed"
    with pytest.raises(JournalError) as refused:
        emulator_of(journal).start()
    assert f"The journal {journal} can't be used: {planted} is {what}" in str(refused.value)
    assert str(refused.value).endswith("Move it away, or choose another place.")
    assert (victim.read_text(), [each.name for each in victim.parent.iterdir()]) == (MINE, [victim.name])
    planted.unlink()
    use(journal)


@pytest.mark.parametrize("how", ["symlink_to", "hardlink_to"])
def test_a_link_in_the_place_of_a_token_or_a_certificate_is_replaced(journal: Path, victim: Path, how: str) -> None:
    use(journal)
    with emulator_of(journal) as emulator:
        folder = emulator.files.path
        for name in ("ca.pem", "token-x"):
            (folder / name).unlink(missing_ok=True)
            getattr(folder / name, how)(victim)
            assert emulator.files.write(name, b"new").read_bytes() == b"new"
            assert not (folder / name).is_symlink()
        (folder / "module-m").symlink_to(victim.parent)
        with pytest.raises(NotPrivate, match="module-m is a symbolic link, which is not followed"):
            emulator.files.folder("module-m")
        assert not any(each.name.startswith(".") for each in folder.iterdir())
    assert (victim.read_text(), [each.name for each in victim.parent.iterdir()]) == (MINE, [victim.name])


@ROOT_ONLY
def test_a_journal_of_another_user_and_a_link_of_one_are_not_used(journal: Path) -> None:
    use(journal)
    os.chown(journal, ANOTHER, ANOTHER)
    with pytest.raises(JournalError, match=rf"{NAME} belongs to another user \(number {ANOTHER}\)"):
        emulator_of(journal).start()
    os.chown(journal, 0, 0)
    link = journal.with_name("link.db")
    link.symlink_to(journal)
    use(link)
    os.chown(link, ANOTHER, ANOTHER, follow_symlinks=False)
    with pytest.raises(JournalError, match=r"link.db can't be used: it is a symbolic link of another user"):
        emulator_of(link).start()


def test_a_folder_that_is_opened_to_others_meanwhile_gets_no_token(serve: Callable[..., Any]) -> None:
    with serve() as emulator:
        emulator.open_runtime("r")
        folder = emulator.files.path
        before = sorted(folder.iterdir())
        folder.chmod(0o755)
        with pytest.raises(NotPrivate, match=f"^{folder} has the rights 0755.* Type: chmod 700 {folder}"):
            emulator.env("r")
        with pytest.raises(NotPrivate):
            emulator.launch([sys.executable, "-c", ""], "r")
        answer = Api(emulator.url, emulator.token).contour(
            "POST", "/_emulate/foundry/compute-modules/runtimes/r/replicas", json={}
        )
        assert (answer.status_code, error_code(answer)) == (503, "not_private")
        assert emulator.lifecycle.replicas("r") == []
        assert sorted(folder.iterdir()) == before
        folder.chmod(0o700)
        assert Path(emulator.env("r")["MODULE_AUTH_TOKEN"]).exists()
        folder.rename(folder.with_name("moved"))
        with pytest.raises(NotPrivate, match=f"^{folder} was deleted"):
            emulator.env("r")
        folder.with_name("moved").rename(folder)


def test_a_folder_that_is_swapped_between_the_check_and_the_writing_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "private"
    owner_only.make_folder(folder)
    check = owner_only.check_folder

    def check_and_swap(path: Path) -> os.stat_result:
        found = check(path)
        path.rename(tmp_path / "moved")
        path.mkdir(0o700)
        return found

    monkeypatch.setattr(owner_only, "check_folder", check_and_swap)
    with pytest.raises(NotPrivate, match="was replaced by another folder"):
        owner_only.write_in(folder, "token", b"secret")
    assert list(folder.iterdir()) == []


def test_folders_that_a_link_of_one_s_own_leads_to_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "data")
    use(tmp_path / "work" / NAME)
    with emulator_of(tmp_path / "work" / NAME) as emulator:
        emulator.export(tmp_path / "work" / "run.json")
        assert Emulator.from_export(tmp_path / "data" / "run.json").lifecycle.runtime("r").runtime_id == "r"


# Exports

EXPORTS = """
    import sys
    from pathlib import Path
    from cmemu_nb import Emulator
    from cmemu_nb.errors import SessionFileError
    folder, name, source = map(Path, sys.argv[1:])
    emu = Emulator.from_export(source)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(10):
        emu.export(folder / f"{name}-{number}.json")
        emu.export(folder / "one.json", overwrite=True)
    try:
        emu.export(folder / "first.json")
        print("first")
    except SessionFileError as error:
        print(error)
"""


def test_processes_and_threads_that_export_into_one_folder_at_once_each_write_a_whole_file(
    emu: Emulator, tmp_path: Path
) -> None:
    """Ten files of its own each, one that all replace, and one that must be new: only the first gets that."""
    emu.open_runtime("r", RID).enqueue("f", "x" * 100_000)
    source, folder = emu.export(tmp_path / "source.json"), tmp_path / "folder"
    folder.mkdir()
    command = [sys.executable, "-c", textwrap.dedent(EXPORTS), str(folder)]
    processes = [
        subprocess.Popen([*command, name, str(source)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("a", "b", "c")
    ]

    def export(number: int) -> str:
        emu.export(folder / f"thread-{number}.json")
        emu.export(folder / "one.json", overwrite=True)
        try:
            emu.export(folder / "first.json")
        except SessionFileError as error:
            return str(error)
        return "first"

    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    with ThreadPoolExecutor(4) as pool:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = list(pool.map(export, range(8)))
    for process in processes:
        said.append(process.communicate()[0].strip())
        assert process.returncode == 0
    taken = f"{folder / 'first.json'} exists and was left as it is. --force (overwrite=True) replaces it."
    assert sorted(said) == sorted(["first", *[taken] * 10])
    whole = source.read_bytes()
    names = {f"{name}-{number}.json" for name, number in itertools.product("abc", range(10))}
    names |= {"one.json", "first.json", *(f"thread-{number}.json" for number in range(8))}
    assert {each.name for each in folder.iterdir()} == names
    for each in folder.iterdir():
        assert len(session_file.read(each).state.jobs) == 1
        assert each.stat().st_size == pytest.approx(len(whole), rel=0.01)


@pytest.fixture
def serving_one(tmp_path: Path) -> Iterator[Emulator]:
    """An emulator with a function whose source is in a file, so that it can be exported."""
    source, namespace = tmp_path / "source.py", dict[str, Any]()
    source.write_text("def two(context, event):\n    return 2\n")
    exec(compile(source.read_text(), str(source), "exec"), namespace)
    with Emulator(port=0, home="thread") as emulator:
        emulator.function(namespace["two"])
        yield emulator


@pytest.mark.parametrize("how", ["link", "dangling", "pipe"])
def test_an_export_is_written_through_no_link_and_into_no_pipe(serving_one: Emulator, victim: Path, how: str) -> None:
    path = victim.with_name("run")
    if how == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(victim if how == "link" else victim.with_name("missing"))
    before = kept(path)
    what = "not a regular file" if how == "pipe" else "a symbolic link, which is not followed"
    exports: list[tuple[Any, type[Exception]]] = [(serving_one.export, SessionFileError)]
    exports += [(serving_one.functions.export, ExportRefused)]
    for export, error in exports:
        with pytest.raises(error, match="run exists and was left as it is"):
            export(path)
        with pytest.raises(error, match=f"run is {what}, and was left as it is. Give the path of a file"):
            export(path, overwrite=True)
    assert kept(path) == before
    assert victim.read_text() == MINE
    assert {each.name for each in victim.parent.iterdir()} == {"run", "victim"}


def test_an_export_over_a_file_replaces_that_name_only_and_keeps_the_rights_of_a_module(
    serving_one: Emulator, victim: Path
) -> None:
    before = os.umask(0o022)
    try:
        path = victim.with_name("module.py")
        serving_one.functions.export(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        path.chmod(0o775)
        serving_one.functions.export(path, overwrite=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o775
        path.unlink()
        path.hardlink_to(victim)
        path.chmod(0o666)
        serving_one.export(path, overwrite=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert victim.read_text() == MINE


def test_without_hard_links_an_export_is_whole_and_replaces_nothing(
    emu: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    path = emu.export(tmp_path / "run.json")
    assert session_file.read(path).state.jobs == []
    with pytest.raises(SessionFileError, match="exists and was left as it is"):
        emu.export(path)
    assert list(tmp_path.iterdir()) == [path]


# The files of emulators that run


def test_a_runtime_directory_into_which_everybody_may_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runtime"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
    with Emulator(port=0, home="thread") as emulator:
        (event,) = [each for each in emulator.lifecycle.events.recent() if each.kind == "live_file_failed"]
        assert event.detail is not None
        assert f"{folder} has the rights 0777, so every user could replace files in it" in event.detail
        assert f"Type: chmod o-w {folder}" in event.detail
        assert list(folder.iterdir()) == []
    folder.chmod(0o775)  # as in the images of Jupyter, where a group may write
    with Emulator(port=0, home="thread"):
        assert len(list(folder.iterdir())) == 1


def test_a_planted_live_file_is_neither_followed_nor_believed(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runtime"
    folder.mkdir(0o700)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
    for name in (f".cmemu-{os.getpid()}.json", f"cmemu-{os.getpid()}.json", "cmemu-1.json"):
        (folder / name).symlink_to(victim)
    os.mkfifo(folder / "cmemu-2.json")
    with Emulator(port=0, home="thread"):
        path = folder / f"cmemu-{os.getpid()}-2.json"
        assert live_file.read(path) is not None
        assert live_file.read(folder / "cmemu-1.json") is None
        assert live_file.read(folder / "cmemu-2.json") is None
        if os.getuid() == 0:
            os.chown(path, ANOTHER, ANOTHER)
            assert live_file.read(path) is None
            os.chown(path, 0, 0)
    assert victim.read_text() == MINE
