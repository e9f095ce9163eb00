"""The environments and programs that the tests need, made when they are missing.

Only the standard library, because `tests/run` needs this before there is any environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
KERNELS = ("6.30", "7.3", "7.4")
PROGRAMS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "nodejs": ("node", "nodejs"),
    "curl": ("curl",),
    "npm": ("npm",),
}
NODE_PACKAGES = ("@palantir/compute-module@0.2.7",)


class InstallError(Exception):
    """Something that the tests need could not be installed; the message has all that the installer said."""


def suite_python() -> Path:
    """Return the interpreter of the environment that runs lint, types and tests."""
    return _environment("tests", ["-e", f"{ROOT}[lab,test]"])


def kernel_python(version: str) -> Path:
    """Return the interpreter of an environment with that ipykernel (`"7.4"`), the package and clients to try."""
    return _environment(
        f"kernel-{version}", ["-e", str(ROOT), f"ipykernel=={version}.*", "nest-asyncio==1.6.0", "requests"]
    )


def node_modules() -> Path:
    """Return the folder whose `node_modules` has the official TypeScript SDK."""
    home = CACHE / "environments" / f"node-{hashlib.sha256(repr(NODE_PACKAGES).encode()).hexdigest()[:12]}"
    complete = home / "complete"
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.parent / f"{home.name}.lock"):
        if not complete.is_file():
            home.mkdir(exist_ok=True)
            _run([str(program("npm")), "install", "--no-fund", "--no-audit", "--prefix", str(home), *NODE_PACKAGES])
            complete.touch()
    return home


def program(package: str) -> Path:
    """Return the path of the program that a Debian package brings, under whichever name it has here."""
    found = _find(package)
    if found is None:
        raise InstallError(f"The tests need {package}, and it is not on the PATH. {_advice([package])}")
    return found


def install_programs() -> None:
    """Install the programs that are missing, if this machine lets us."""
    missing = [package for package in PROGRAMS if _find(package) is None]
    if importlib.util.find_spec("ensurepip") is None:
        missing.append("python3-venv")
    if not missing:
        return
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if shutil.which("apt-get") is None or not all(map(shutil.which, as_root[:1])):
        raise InstallError(f"Not on this machine: {', '.join(missing)}. {_advice(missing)}")
    apt = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    try:
        _run([*apt, "update"])
        _run([*apt, "install", "-y", "--no-install-recommends", *missing])
    except InstallError as error:
        raise InstallError(f"{error}\n{_advice(missing)}") from None


def _find(package: str) -> Path | None:
    return next((Path(path) for path in map(shutil.which, PROGRAMS[package]) if path), None)


def _advice(packages: Sequence[str]) -> str:
    return f"Install what is missing and run again; on Debian or Ubuntu, as root: apt-get install {' '.join(packages)}"


def _environment(name: str, requirements: list[str]) -> Path:
    home = CACHE / "environments" / f"python{platform.python_version()}-{name}"
    python, complete, key = home / "bin" / "python", home / "complete", _key(requirements)
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.parent / f"{home.name}.lock"):
        if not (python.exists() and complete.is_file() and complete.read_text() == key):
            _run([sys.executable, "-m", "venv", "--clear", str(home)])
            pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
            _run([*pip, *requirements])
            complete.write_text(key)
    return python


def _key(requirements: list[str]) -> str:
    """Return a digest of all that an environment depends on; the linters' settings are not part of it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [declared["project"], declared["build-system"], requirements, sys.version, sys.base_prefix]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clean_environ() -> dict[str, str]:
    """Return this process's environment without what would make another interpreter differ from a person's.

    PYTHONPATH and PYTHONHOME lead it to foreign modules, and CI hides the progress bars that people see.
    """
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "CI"}}


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise InstallError(f"{shlex.join(command)} failed with exit code {done.returncode}:\n{done.stdout}")
