"""Files that only their owner can read: this is the only module of the package that opens files for writing.

A new file is created under a name that did not exist (O_EXCL), and no symbolic link is followed (O_NOFOLLOW): nothing
is written through a file or link that another user has planted. A private folder belongs to this user and has the
rights 0700. It is opened before a file in it, so that it can't be replaced in between.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cmemu_nb.errors import NotPrivate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.errors import CmemuError

FOLDER_RIGHTS = 0o700
FILE_RIGHTS = 0o600
WRITABLE_BY_ALL = 0o002
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# Without O_NONBLOCK, opening a named pipe would wait for its other end.
_OPEN = NO_LINK | getattr(os, "O_NONBLOCK", 0)
_ANEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK
_CHOOSE = "or choose another place"
_LINK = "a symbolic link, which is not followed"


def made_anew(path: str, flags: int) -> int:
    """Create a file that must not exist, for its owner only: an opener for `open()`."""
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | NO_LINK, FILE_RIGHTS)


def without_following(path: str, flags: int) -> int:
    """Open a file, but not through a symbolic link: an opener for `open()`."""
    return os.open(path, flags | _OPEN)


def is_ours(found: os.stat_result) -> bool:
    """Return whether a file belongs to this user."""
    return sys.platform == "win32" or found.st_uid == os.geteuid()


# Folders


def make_folder(path: Path) -> None:
    """Create a private folder if it is missing. Raises `NotPrivate` for a folder that others can use."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=FOLDER_RIGHTS)
    check_folder(path)


def check_folder(path: Path) -> os.stat_result:
    """Return the status of a private folder. Raises `NotPrivate` for any other folder."""
    found = _found(path)
    if not stat.S_ISDIR(found.st_mode):
        what = _LINK if stat.S_ISLNK(found.st_mode) else "not a folder"
        raise NotPrivate(f"{path} is {what}. Move it away, {_CHOOSE}.")
    _check_owner(path, found)
    rights = stat.S_IMODE(found.st_mode) & 0o777
    if rights != FOLDER_RIGHTS and sys.platform != "win32":
        raise NotPrivate(
            f"{path} has the rights {rights:04o}, but must be open to its owner only. "
            f"Type: chmod 700 {path}, {_CHOOSE}."
        )
    return found


def check_shared_folder(path: Path) -> None:
    """Raise `NotPrivate` for a folder in which every user may replace this user's files."""
    mode = path.stat().st_mode
    if mode & WRITABLE_BY_ALL and not mode & stat.S_ISVTX and sys.platform != "win32":
        raise NotPrivate(
            f"{path} has the rights {stat.S_IMODE(mode):04o}, so every user could replace files in it. "
            f"Type: chmod o-w {path}, {_CHOOSE}."
        )


def _found(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except FileNotFoundError:
        raise NotPrivate(f"{path} was deleted. Make a new Emulator, which gets another folder.") from None


def _check_owner(path: Path, found: os.stat_result) -> None:
    if not is_ours(found):
        raise NotPrivate(f"{path} belongs to another user (number {found.st_uid}). Choose another place.")


def _kind(found: os.stat_result) -> str:
    return _LINK if stat.S_ISLNK(found.st_mode) else "not a regular file"


@contextlib.contextmanager
def _entered(folder: Path) -> Iterator[int | None]:
    """Open a private folder for calls that take a `dir_fd`; None on systems without it."""
    found = check_folder(folder)
    if sys.platform == "win32":
        yield None
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | NO_LINK)
    try:
        if not os.path.samestat(found, os.fstat(opened)):
            raise NotPrivate(f"{folder} was replaced by another folder. Try again, {_CHOOSE}.")
        yield opened
    finally:
        os.close(opened)


# Files


def open_in(folder: Path, name: str, flags: int) -> int:
    """Open a file of a private folder, or create it if the flags say so, and return its descriptor.

    Raises `NotPrivate` for a folder that is not private, and for a file that is a symbolic link, belongs to another
    user, is not a regular file, or is a hard link, so that a file elsewhere would be written.
    """
    path = folder / name
    with _entered(folder) as at:
        try:
            opened = os.open(path if at is None else name, flags | _OPEN, FILE_RIGHTS, dir_fd=at)
        except FileExistsError:
            raise
        except OSError:
            check_file(path)
            raise
    try:
        _check_found(path, os.fstat(opened))
    except BaseException:
        os.close(opened)
        raise
    return opened


def write_in(folder: Path, name: str, content: bytes) -> Path:
    """Write a file of a private folder, replacing a file of the same name, and return its path."""
    path, part = folder / name, _temporary()
    with _entered(folder) as at:
        here = folder if at is None else Path()
        try:
            with os.fdopen(os.open(here / part, _ANEW, FILE_RIGHTS, dir_fd=at), "wb") as file:
                file.write(content)
            os.replace(here / part, here / name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(here / part, dir_fd=at)
            raise
    return path


def check_file(path: Path, *, by_any_name: bool = False) -> None:
    """Raise `NotPrivate` for an existing file that `open_in` would refuse; `by_any_name` allows hard links."""
    with contextlib.suppress(FileNotFoundError):
        _check_found(path, path.lstat(), by_any_name=by_any_name)


def _check_found(path: Path, found: os.stat_result, *, by_any_name: bool = False) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotPrivate(f"{path} is {_kind(found)}. Move it away, {_CHOOSE}.")
    _check_owner(path, found)
    if found.st_nlink > 1 and not by_any_name:
        raise NotPrivate(
            f"{path} is a hard link: the file has another name too, and would change there. Move it away, {_CHOOSE}."
        )


def read(path: Path) -> bytes | None:
    """Return the content of a regular file; None if there is no file. Raises `NotPrivate` for a symbolic link."""
    try:
        with open(path, "rb", opener=without_following) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.read()
    except FileNotFoundError:
        return None
    except OSError:
        if not path.is_symlink():
            raise
    raise NotPrivate(f"{path} is {_kind(path.lstat())}. Move it away, {_CHOOSE}.")


@contextlib.contextmanager
def replacing(
    path: Path, refuse: type[CmemuError], *, overwrite: bool, rights: int | None = FILE_RIGHTS
) -> Iterator[BinaryIO]:
    """Open a file that gets its path when it is completely written; after an error nothing of it is left.

    Several processes may do this at the same time, even for the same path: each has a temporary name of its own. The
    last one that finishes wins; without `overwrite`, the first. With `rights` of None, the file gets the rights of the
    file that it replaces, or the default rights of this process. Raises `refuse` with the reason if the path exists or
    can't be written.
    """
    try:
        before = _replaceable(path, refuse, overwrite=overwrite)
        part = path.with_name(_temporary())
    except ValueError as error:
        raise refuse(f"{str(path)!r} can't be written: {error}. Choose another path.") from None
    try:
        with os.fdopen(os.open(part, _ANEW, 0o666 if rights is None else rights), "wb") as file:
            yield file
        if rights is None and before is not None:
            part.chmod(stat.S_IMODE(before.st_mode))
        part.replace(path) if overwrite else _name(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise _taken(path, refuse) from None
        if not isinstance(error, OSError | ValueError):
            raise
        raise refuse(f"{path} can't be written: {getattr(error, 'strerror', error)}. Choose another path.") from None


def _replaceable(path: Path, refuse: type[CmemuError], *, overwrite: bool) -> os.stat_result | None:
    try:
        found = path.lstat()
    except OSError:  # there is no file, or opening it will report what is wrong
        return None
    if not overwrite:
        raise _taken(path, refuse)
    if not stat.S_ISREG(found.st_mode):
        raise refuse(
            f"{path} is {_kind(found)}, and was left as it is. Give the path of a file, or one that does not exist."
        )
    return found


def _taken(path: Path, refuse: type[CmemuError]) -> CmemuError:
    return refuse(f"{path} exists and was left as it is. --force (overwrite=True) replaces it.")


def _name(part: Path, path: Path) -> None:
    """Give a finished file its name, which must not exist yet."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # on a file system without hard links: reserve the name, and then replace the empty file
        os.close(os.open(path, _ANEW, FILE_RIGHTS))
        part.replace(path)
    else:
        part.unlink()


def _temporary() -> str:
    return f".cmemu-{secrets.token_hex(8)}"
