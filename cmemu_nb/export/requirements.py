"""What a module imports: packages, with the versions of this kernel, and modules that belong to no package."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import ExportRefused
from cmemu_nb.export.data_files import named_files
from cmemu_nb.export.sources import parsed

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

SDK = "compute_modules"
MAX_MODULE_BYTES = 100_000_000
SDK_EXTRAS = ("scratch", "sources")
EMULATOR = "cmemu_nb"
# As IPython writes `%pip install ...`, `!pip install ...` and `%%bash` lines.
_PIP = re.compile(r"pip[\w.]{0,12}(?:', '| )install ([^\n')]*)")
NOT_COPIED = {"__pycache__", "tests", "test", "node_modules"}


@dataclass
class Requirements:
    """`lines` are those of requirements.txt; `local` has the files of modules without a package, or their folders.

    `data` has the files that the module or one of these names, by the relative paths that they name.
    """

    lines: list[str] = field(default_factory=list)
    local: list[Path] = field(default_factory=list)
    data: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_requirements(text: str, cells: Iterable[str] = ()) -> Requirements:
    """Return what the module with this text needs; nothing is imported.

    The modules that are not installed as a package, or from a folder that may change (`pip install -e`), are to be
    copied: pip finds them nowhere else. Packages that these import are requirements, too. `cells` are the notebook's:
    a package that they install, and that nothing imports, is noted.
    """
    search = _Search()
    search.read(text, "app.py", Path())
    search.note_installed(cells)
    search.found.lines.sort(key=str.lower)
    return search.found


class _Search:
    def __init__(self) -> None:
        self.found = Requirements()
        self._seen: set[str] = set()

    @cached_property
    def _packages(self) -> dict[str, list[str]]:
        return {module: sorted(set(names)) for module, names in metadata.packages_distributions().items()}

    def read(self, text: str, file: str, *folders: Path) -> None:
        """Find what a text needs, and what the local modules that it imports need; it names files in the folders."""
        for folder in folders:
            data, notes = named_files(text, folder)
            self.found.data |= data
            self.found.notes += [each for each in notes if each not in self.found.notes]
        names = list(imported_names(text))
        for name in names:
            root = name.partition(".")[0]
            if root in sys.stdlib_module_names or root in (EMULATOR, "__main__"):
                continue
            packages = [each for each in self._packages.get(root, []) if not _read_source(each).get("editable")]
            if packages:
                self._require(name, packages, names)
            elif root not in self._seen:
                self._seen.add(root)
                self._copy(root, file)

    def _require(self, name: str, packages: list[str], names: list[str]) -> None:
        for package in packages if len(packages) == 1 else _owners(name, packages):
            if package not in self._seen:
                self._seen.add(package)
                self._add(package, [each for each in SDK_EXTRAS if any(n.startswith(f"{SDK}.{each}") for n in names)])

    def _add(self, package: str, extras: list[str]) -> None:
        version, source = metadata.version(package), _read_source(package).get("url", "")
        if source.startswith("file:"):
            self.found.notes.append(
                f"{package} {version} was installed here from {source}. If pip can't find this version elsewhere, "
                f"publish it, or copy its source into the project and remove its line of requirements.txt."
            )
        elif source:
            self.found.lines.append(f"{package} @ {source}")
            return
        public = version.partition("+")[0]
        if public != version:
            self.found.notes.append(f"{package} is {version} here; requirements.txt has {public}, which pip can find.")
        with_extras = f"[{','.join(extras)}]" if extras and package == "foundry-compute-modules" else ""
        self.found.lines.append(f"{package}{with_extras}=={public}")

    def _copy(self, root: str, file: str) -> None:
        path = local_path(root)
        if path is None:
            if file == "app.py":
                self.found.notes.append(
                    f"app.py imports {root}, which is not installed here: add it to requirements.txt."
                )
            return
        self.found.local.append(path)
        for each in sorted(files_of(path)):
            if each.suffix == ".py":
                # A module alone may name files beside it; a package's own files are copied with it.
                folders = (Path(), path.parent) if each == path else ()
                self.read(each.read_text("utf-8", errors="replace"), each.name, *folders)

    def note_installed(self, cells: Iterable[str]) -> None:
        """Note the packages that cells install, `%pip install openpyxl`, and that are not required yet."""
        lines = {_normal(each.partition("=")[0].partition("[")[0].partition(" ")[0]) for each in self.found.lines}
        for name in dict.fromkeys(installed_names(cells)):
            if _normal(name) in lines:
                continue
            try:
                version = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
            self.found.notes.append(
                f"The notebook installs {name}, which app.py does not import. If a function needs it all the same, add "
                f"to requirements.txt: {name}=={version}"
            )


def installed_names(cells: Iterable[str]) -> Iterator[str]:
    """Yield the names of the packages that cells install with pip, as a magic or a shell command."""
    for cell in cells:
        for words in _PIP.findall(cell):
            for word in words.split():
                if found := re.match(r"['\"]?([A-Za-z0-9][\w.-]*)", word):
                    yield found[1]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_names(text: str) -> Iterator[str]:
    """Yield the full names that a text imports, without relative imports; nothing if it is not Python."""
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{each.name}" for each in node.names)


def files_of(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the files in a folder, without hidden ones, caches and tests."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for each in path.iterdir():
            if each.name not in NOT_COPIED and not each.name.startswith("."):
                yield from files_of(each)


def files_in(folder: Path, needed: Requirements, own: Container[str]) -> dict[str, bytes]:
    """Return the files that must be copied into a project's folder, by their paths in it, without those already there.

    Raises `ExportRefused` if the project has a file of its own with such a path, which a module needs.
    """
    modules = {each.relative_to(path.parent).as_posix(): each for path in needed.local for each in files_of(path)}
    for inside, file in modules.items():
        if inside in own or inside.startswith("tests/"):
            own_name = "tests/" if "/" in inside else inside
            raise ExportRefused(
                f"The functions use {file}, and the project has its own {own_name}. Rename the module, and import it "
                "under its new name."
            )
        if file.stat().st_size > MAX_MODULE_BYTES:
            needed.notes.append(f"{file} is large and was not copied. Copy it to {inside}, or read a dataset instead.")
    data = {inside: file for inside, file in needed.data.items() if inside not in own}
    return {
        inside: file.read_bytes()
        for inside, file in (data | modules).items()
        if file.resolve() != (folder / inside).resolve() and file.stat().st_size <= MAX_MODULE_BYTES
    }


def local_path(root: str) -> Path | None:
    """Return the file of a top-level module, or the folder of a package; None if there is none."""
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    origin = folders[0] if folders else spec.origin
    path = Path(origin) if origin else None
    return path if path is not None and path.exists() else None


def _owners(name: str, packages: list[str]) -> list[str]:
    """Return those of the packages of a namespace that have the module, all if none has it."""
    path = name.replace(".", "/")
    while "/" in path:
        inside = re.compile(rf"{re.escape(path)}(/|\.py$|\.\w+\.so$)")
        owners = [each for each in packages if any(inside.match(str(f)) for f in metadata.files(each) or ())]
        if owners:
            return owners
        path = path.rpartition("/")[0]
    return packages


def _read_source(package: str) -> dict[str, Any]:
    """Return where a package was installed from: `url` for pip, and whether it is `editable`; {} for an index."""
    distribution = metadata.distribution(package)
    given = distribution.read_text("direct_url.json")
    # conda records the folder in which a package was built for it.
    if not given or (distribution.read_text("INSTALLER") or "").strip() == "conda":
        return {}
    found = json.loads(given)
    control = found.get("vcs_info")
    url = f"{control['vcs']}+{found['url']}@{control['commit_id']}" if control else found["url"]
    return {"url": url, "editable": found.get("dir_info", {}).get("editable", False)}
