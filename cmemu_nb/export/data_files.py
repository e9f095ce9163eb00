"""The data files that a module names, which it would not find in its image."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from cmemu_nb.export.sources import parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NAME = 250
MAX_BYTES = 10_000_000
OF_IMAGES = ("/bin/", "/dev/", "/etc/", "/proc/", "/usr/")


def named_files(text: str, folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the files in a folder that a module names in its text, by their relative paths, and notes on the others.

    The others can't be copied to the same relative path, so the module would not find them: files elsewhere, folders
    and large files.
    """
    files: dict[str, Path] = {}
    notes: list[str] = []
    for name in dict.fromkeys(_texts(text)):
        path = folder / name
        if not _exists(path) or Path(name) == Path() or name.startswith(OF_IMAGES):
            continue
        if path.is_dir():
            if not Path(name).is_absolute():
                notes.append(
                    f"The functions name the folder {name!r}. If they read files in it, copy it into the project."
                )
        elif Path(name).is_absolute() or ".." in Path(name).parts:
            notes.append(
                f"The functions name the file {name!r}, which the image does not have. Copy it, and name it "
                "relative to app.py; or read a dataset."
            )
        elif path.stat().st_size > MAX_BYTES:
            notes.append(f"The file {name!r} is large and was not copied. Copy it into the project, or read a dataset.")
        elif not any(part.startswith(".") for part in Path(name).parts):
            files[Path(name).as_posix()] = path
    return files, notes


def _texts(text: str) -> Iterator[str]:
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) <= MAX_NAME:
            yield node.value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # it is no path
        return False
