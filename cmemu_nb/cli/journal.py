"""`cmemu journal`: check a journal, and salvage the intact records of a damaged one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from cmemu_nb.cli.parser import Commands, Parser, add_command, does
from cmemu_nb.phrases import listed, plural

if TYPE_CHECKING:
    import argparse
    from collections import Counter

MORE = """\
'check' tests whether the journal is complete and undamaged, and changes nothing. 'salvage' writes the intact records of
a damaged or incomplete journal to a new file (--into, or else FILE.salvaged) and does not change FILE."""


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `journal`."""
    parser = parsers["journal"] = add_command(
        commands,
        "journal",
        "Check a journal, or salvage the intact records of a damaged one.",
        "  cmemu journal check lifecycle.db\n  cmemu journal salvage lifecycle.db --into whole.db",
        MORE,
    )
    parser.add_argument("action", choices=["check", "salvage"], help="What to do.")
    parser.add_argument("file", metavar="FILE", type=Path, help="The journal.")
    parser.add_argument("--into", metavar="NEW", type=Path, help="The new file of 'salvage'.")
    does(parser, _run)


def _run(parser: Parser, options: argparse.Namespace) -> int:
    if options.action == "check" and options.into is not None:
        parser.error("--into is for 'salvage'")
    # SQLite is imported only by the commands that need it.
    from cmemu_nb.storage.journal_check import failure  # noqa: PLC0415

    try:
        message = _checked(options.file) if options.action == "check" else _salvaged(options)
    except OSError as error:
        where = error.filename or options.file
        raise failure(
            options.file,
            f"can't be read: {where}: {error.strerror or error}. Make this path a file that you can read, or move it "
            "away.",
        ) from None
    print(message)
    return 0


def _salvaged(options: argparse.Namespace) -> str:
    from cmemu_nb.storage.journal_salvage import salvage  # noqa: PLC0415

    new = options.into or options.file.with_name(f"{options.file.name}.salvaged")
    saved, lost = salvage(options.file, new)
    also = f" Not saved: {'; '.join(lost)}." if lost else ""
    return f"{_described(saved)} were saved to {new}.{also} To start with it: --journal {new}"


def _checked(path: Path) -> str:
    import sqlite3  # noqa: PLC0415

    from cmemu_nb.storage.journal_check import check, failure, look  # noqa: PLC0415
    from cmemu_nb.storage.journal_salvage import count  # noqa: PLC0415

    if not path.is_file():
        raise failure(path, "can't be read: the file does not exist.")
    try:
        check(path)
        with contextlib.closing(look(path)) as connection:
            return f"The journal {path} is complete and undamaged: {_described(count(connection))}."
    except sqlite3.OperationalError as error:
        raise failure(path, f"can't be read: {error}.") from None


def _described(counted: Counter[str]) -> str:
    data = [plural(counted[f"{noun}s"], noun) for noun in ("dataset", "stream") if counted[f"{noun}s"]]
    return listed([plural(counted["runtimes"], "runtime"), plural(counted["jobs"], "job"), *data])
