"""`cmemu check`, `%cmemu check` and `emu.check()`: a program, a Dockerfile, a folder or an image against the rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmemu_nb.check.dockerfile import check_dockerfile
from cmemu_nb.check.findings import CONTAINERS, FUNCTIONS, Finding, Report, Severity
from cmemu_nb.check.functions import check_functions, compare_with_served, import_functions
from cmemu_nb.check.image import check_image, inspect_image
from cmemu_nb.check.program import Program, check_program, read_program
from cmemu_nb.check.requirements import FILE, check_imports, check_requirements
from cmemu_nb.check.secrets import find_secrets
from cmemu_nb.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_FILE_BYTES = 100_000_000
MAX_FILES = 10_000
MAX_TEXT = 2_000_000
# Texts that often hold secrets, and that COPY takes into the image.
SETTINGS = (".env", ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg")
IGNORED = {".git", ".venv", "venv", "node_modules", "__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".ruff_cache"}


def check_program_alone(path: Path, served: Mapping[str, Any]) -> Report:
    """Check a program that is not part of a project yet, so that it has no requirements."""
    return _Check(path.parent, served, requirements=False).file(path)


def check(target: str | Path, served: Mapping[str, Any] | None = None) -> Report:
    """Check a Python program, a Dockerfile, a folder, or an image by its name.

    Programs are imported in a process of their own, to see their functions. `served` are the schemas of the functions
    that an emulator serves, by name; those of the program are compared with them. Raises `NotFound` if there is no
    such file, folder or image.
    """
    path = Path(target).expanduser()
    if path.is_dir():
        return _Check(path, served or {}).folder()
    if path.is_file():
        return _Check(path.parent, served or {}).file(path)
    name = str(target)
    return Report([name], check_image(name, inspect_image(name)))


class _Check:
    """A check of files in one folder; `requirements`: also whether the image gets what a program imports."""

    def __init__(self, folder: Path, served: Mapping[str, Any], *, requirements: bool = True) -> None:
        self.root = folder
        self.requirements = requirements
        self.served = served
        self.checked: list[str] = []
        self.findings: list[Finding] = []

    def file(self, path: Path) -> Report:
        if path.suffix == ".py":
            self._program(path)
        elif "dockerfile" in path.name.lower() or "containerfile" in path.name.lower():
            self._add(path, check_dockerfile(self._name(path), self._read(path)))
        elif path.suffix == ".txt" and "requirements" in path.name:
            self._add(path, check_requirements(self._name(path), self._read(path)))
        else:
            raise InvalidRequest(
                f"{path} can't be checked: it is no Python program, Dockerfile, requirements.txt or folder. "
                "Type: cmemu check app.py, or cmemu check FOLDER."
            )
        return Report(self.checked, self.findings)

    def folder(self) -> Report:
        """Check what is in the folder; folders inside it are searched for secrets and large files only."""
        files = [path for path in sorted(self.root.iterdir()) if path.is_file()]
        programs = [path for path in files if path.suffix == ".py" and not path.name.startswith("test_")]
        modules = [path for path in programs if "compute_modules" in self._read(path)]
        for path in modules:
            self._program(path)
        for path in files:
            if path.name.lower().startswith(("dockerfile", "containerfile")):
                self._add(path, check_dockerfile(self._name(path), self._read(path)))
            elif path.name == FILE:
                self._add(path, check_requirements(self._name(path), self._read(path)))
        self._missing(files, modules)
        self._contents(modules)
        return Report(self.checked or [str(self.root)], self.findings)

    def _missing(self, files: list[Path], modules: list[Path]) -> None:
        name = str(self.root)
        if not modules and not any(path.suffix in (".mjs", ".js", ".ts", ".jar") for path in files):
            message = "No program in this folder imports the official SDK."
            fix = "Give the folder that has app.py, or write one: %cmemu export-module app.py"
            self.findings.append(Finding(name, 0, Severity.WARNING, "program", message, fix, FUNCTIONS))
        if not any(path.name.lower().startswith(("dockerfile", "containerfile")) for path in files):
            message, fix = "There is no Dockerfile.", "Write one: %cmemu export-module DIR/ writes a whole project."
            self.findings.append(Finding(name, 0, Severity.WARNING, "dockerfile", message, fix, CONTAINERS))

    def _contents(self, modules: list[Path]) -> None:
        for number, path in enumerate(_walk(self.root)):
            if number >= MAX_FILES:
                break
            size = path.stat().st_size
            if size > MAX_FILE_BYTES:
                message = f"The file has {size / 1e6:,.0f} MB; COPY makes the image larger, and its start slower."
                fix = f"Read it from a dataset, or type in .dockerignore: {self._name(path)}"
                self.findings.append(Finding(self._name(path), 0, Severity.WARNING, "size", message, fix, CONTAINERS))
            elif path not in modules and (path.suffix in SETTINGS or path.name == ".env"):
                self.findings.extend(find_secrets(self._name(path), self._read(path), quoted=False))

    def _program(self, path: Path) -> None:
        text, name = self._read(path), self._name(path)
        program = read_program(name, text)
        if isinstance(program, Finding):
            self._add(path, [program])
            return
        self._add(path, check_program(program, text))
        requirements = path.parent / FILE
        local = {each.stem for each in path.parent.iterdir() if each.suffix == ".py" or each.is_dir()}
        needed = self._read(requirements) if requirements.is_file() else None
        if self.requirements and not (path.parent / "pyproject.toml").is_file():
            self.findings.extend(check_imports(program, needed, local))
        if program.uses_sdk:
            self._functions(program, path)

    def _functions(self, program: Program, path: Path) -> None:
        functions = import_functions(program.path, path)
        if isinstance(functions, Finding):
            self.findings.append(functions)
            return
        self.findings.extend(check_functions(program.path, functions))
        self.findings.extend(compare_with_served(program.path, functions, self.served))

    def _add(self, path: Path, findings: Iterator[Finding] | list[Finding]) -> None:
        self.checked.append(self._name(path))
        self.findings.extend(findings)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root)) if path != self.root else str(path)

    def _read(self, path: Path) -> str:
        with path.open("rb") as file:
            return file.read(MAX_TEXT).decode("utf-8", errors="replace")


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in IGNORED or path.is_symlink():
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file():
            yield path
