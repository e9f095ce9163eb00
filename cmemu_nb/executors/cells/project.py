"""The folder of a project that was exported: written, and written again without losing what was changed by hand."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmemu_nb.errors import ExportRefused
from cmemu_nb.export.project_files import CHECK, INSTALL, TEST, build_command, image_name
from cmemu_nb.phrases import plural
from cmemu_nb.storage.owner_only import replacing

if TYPE_CHECKING:
    from pathlib import Path

RECORD = ".cmemu-export.json"
PROGRAM = "app.py"


@dataclass
class Project:
    """A project that was written: its folder, and the paths in it; `kept` are those that had been changed by hand.

    `copied` are modules and data files that `app.py` uses and that no package brings; `notes` say what to look after.
    """

    folder: Path
    functions: int = 0
    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        own = [each for each in self.written if each not in self.copied]
        lines = [f"Wrote {plural(self.functions, 'function')} to the project {self.folder}: {', '.join(own)}."]
        if self.copied:
            lines.append(f"Copied what no package brings: {', '.join(self.copied)}.")
        if self.kept:
            kept = ", ".join(self.kept)
            lines.append(f"Kept what was changed by hand: {kept}. --force (overwrite=True) replaces it.")
        lines += [f"Note: {each}" for each in self.notes]
        commands = [f"cd {shlex.quote(str(self.folder))}", INSTALL, TEST, CHECK]
        commands.append(build_command(image_name(self.folder.resolve().name)))
        return "\n".join([*lines, "Next, in a terminal:", *(f"  {each}" for each in commands)])


def write_project(folder: Path, files: dict[str, bytes], *, overwrite: bool) -> tuple[list[str], list[str]]:
    """Write files into a folder, by their paths in it; return the paths that were written, and those that were kept.

    A file that is not as an earlier export wrote it was changed by hand: it is kept, unless `overwrite` is set. If that
    is app.py, nothing is written and `ExportRefused` is raised.
    """
    if folder.exists() and not folder.is_dir():
        raise ExportRefused(f"{folder} is a file. Give a folder, or the path of a file that ends in .py.")
    before = _recorded(folder)
    kept = [path for path, text in files.items() if not overwrite and _by_hand(folder / path, text, before.get(path))]
    if PROGRAM in kept:
        raise ExportRefused(
            f"{folder / PROGRAM} was not written by an export, or was changed since, and was left as it is, like the "
            "rest of the folder. Give another folder; --force (overwrite=True) replaces all files of the project."
        )
    written = [path for path in files if path not in kept]
    record = before | {path: _digest(files[path]) for path in written}
    for path in written:
        _write(folder / path, files[path])
    _write(folder / RECORD, json.dumps(record, indent=2).encode() + b"\n")
    return written, kept


def _recorded(folder: Path) -> dict[str, str]:
    """Return the digests of the files that earlier exports wrote, by path."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _by_hand(path: Path, text: bytes, digest: str | None) -> bool:
    try:
        now = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError:  # such as a folder, which writing it will report
        return True
    return now != text and _digest(now) != digest


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _write(path: Path, text: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportRefused(f"{path.parent} can't be made: {error.strerror}. Choose another folder.") from None
    with replacing(path, ExportRefused, overwrite=True, rights=None) as file:
        file.write(text)
