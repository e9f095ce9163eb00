"""The environments and programs that the tests need, made when they are missing.

Only the standard library, because `tests/run` needs this before there is any environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
PROGRAMS_OF_LONG_RUN = {"default-jdk-headless": ("javac",)}
NODE_PACKAGES = (
    "@palantir/compute-module@0.2.7",
    "@osdk/oauth@1.13.0",
    "@osdk/client@2.22.0",  # newer ones need packages that the registry does not have
    "@osdk/foundry.functions@2.57.0",
    "@osdk/foundry.ontologies@2.57.0",
    "@osdk/client.unstable@2.57.0",
    "conjure-lite@0.4.4",  # the version that @osdk/client.unstable has
    "typescript@5.9.3",
)
COMMAND_LINES = ("foundry-cli==0.29.1", "keyrings.alt==5.0.2")
PLTR_CLI = "pltr-cli==0.16.0"
# What Binder's images have before requirements.txt is installed, of repo2docker's own lock file.
BINDER_BASE = (
    "ipykernel==7.0.1",
    "ipython==9.6.0",
    "ipywidgets==8.1.7",
    "jupyter-server==2.17.0",
    "jupyterlab==4.4.9",
    "notebook==7.4.7",
    "tornado==6.5.2",
    "traitlets==5.14.3",
)


class InstallError(Exception):
    """Something that the tests need could not be installed; the message has all that the installer said."""


def suite_python(interpreter: str = sys.executable) -> Path:
    """Return the interpreter of the environment that runs lint, types and tests, made with this or another Python."""
    python = _environment("tests", ["-e", f"{ROOT}[dask,lab,test]"], interpreter)
    # With it each process that imports jsonschema, such as a server of notebooks, first compiles grammars for a second
    # and more, which only two formats need: https://github.com/python-jsonschema/jsonschema/issues/1428
    if any(python.parent.parent.glob("lib/python*/site-packages/rfc3987_syntax")):
        _run([str(python), "-m", "pip", "uninstall", "--yes", "rfc3987-syntax"])
    return python


def other_python() -> str | None:
    """Return the newest Python on this machine, or the oldest if the newest runs this; None if there is no other.

    Only those count that cmemu_nb supports, and one of each minor version.
    """
    versions = _pythons()
    others = sorted(version for version in versions if version[:2] != sys.version_info[:2])
    if not others:
        return None
    return versions[others[-1] if others[-1] > sys.version_info[:2] else others[0]]


def _pythons() -> dict[tuple[int, ...], str]:
    """Return the interpreters of this machine that cmemu_nb supports, by version."""
    names = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = [*filter(None, names), *map(str, pyenv.glob("3.*/bin/python"))]
    versions = {_version(each): each for each in found}
    return {version: interpreter for version, interpreter in versions.items() if version}


def _version(interpreter: str) -> tuple[int, ...]:
    """Return an interpreter's version, or nothing if it can't make environments or is older than 3.11."""
    code = "import ensurepip, sys, venv; print(*sys.version_info[:3])"
    done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, env=clean_environ(), check=False)
    version = tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()
    return version if version >= (3, 11) else ()


def kernel_python(version: str) -> Path:
    """Return the interpreter of an environment with that ipykernel (`"7.4"`), the package and clients to try."""
    return _environment(
        f"kernel-{version}", ["-e", str(ROOT), f"ipykernel=={version}.*", "nest-asyncio==1.6.0", "requests"]
    )


def build_python() -> Path:
    """Return the interpreter of an environment that builds the package with what it declares to be built with."""
    return _environment("build", ["build>=1.3", *_declared()["build-system"]["requires"]])


def bare_python() -> Path:
    """Return the interpreter of an environment with what the package declares to need, without it, and with pytest."""
    return _environment("bare", [*_declared()["project"]["dependencies"], "pytest>=9"])


@functools.cache
def binder_python() -> Path:
    """Return the interpreter of an environment as Binder builds it from `binder/`.

    It is of the Python that runtime.txt names, or of this one where the machine has no such.
    """
    wanted = (ROOT / "binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    fitting = [each for version, each in sorted(_pythons().items()) if wanted == ".".join(map(str, version[:2]))]
    requirements = ["-r", str(ROOT / "binder" / "requirements.txt")]
    return _environment("binder", requirements, fitting[-1] if fitting else sys.executable, base=[*BINDER_BASE])


def command_lines() -> dict[str, list[str]]:
    """Return what runs each command line for Foundry of other authors, by its package.

    foundry-cli began as a copy of pltr-cli and has its module's name, so pltr-cli is in a folder of its own; it needs a
    part of what foundry-cli needs.
    """
    python = _environment("command-lines", [*COMMAND_LINES])
    folder = python.parent.parent / "pltr-cli"
    with _locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            install = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-deps"]
            _run([*install, "--target", f"{folder}.part", PLTR_CLI])
            Path(f"{folder}.part").rename(folder)
    runs = "from pltr.cli import app; app(prog_name='pltr')"
    first = f"import sys; sys.path.insert(0, {str(folder)!r}); "
    return {
        "foundry-cli": [str(python), "-c", runs],
        "pltr-cli": [str(python), "-c", first + runs],
    }


def node_modules() -> Path:
    """Return the folder whose `node_modules` has the official packages for TypeScript."""
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


def install_programs(*, long: bool) -> None:
    """Install the programs that are missing, also those of the long run if this is one, if this machine lets us."""
    missing = [package for package in (*PROGRAMS, *(PROGRAMS_OF_LONG_RUN if long else ())) if _find(package) is None]
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
    return next((Path(path) for path in map(shutil.which, (PROGRAMS | PROGRAMS_OF_LONG_RUN)[package]) if path), None)


def _advice(packages: Sequence[str]) -> str:
    return f"Install what is missing and run again; on Debian or Ubuntu, as root: apt-get install {' '.join(packages)}"


def _environment(
    name: str, requirements: list[str], interpreter: str = sys.executable, *, base: Sequence[str] = ()
) -> Path:
    """Make an environment, or find it made; `base` is what is installed before, and not held to."""
    version = ".".join(map(str, _version(interpreter)))
    home = CACHE / "environments" / f"python{version}-{name}"
    python, complete, key = home / "bin" / "python", home / "complete", _key([*base, *requirements], interpreter)
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.parent / f"{home.name}.lock"):
        if not (python.exists() and complete.is_file() and complete.read_text() == key):
            _run([interpreter, "-m", "venv", "--clear", str(home)])
            pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
            for each in filter(None, (base, requirements)):
                _run([*pip, *each])
            complete.write_text(key)
    return python


def _declared() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _key(requirements: list[str], interpreter: str) -> str:
    """Return a digest of all that an environment depends on; the linters' settings are not part of it."""
    declared = _declared()
    code = "import json, sys; print(json.dumps([sys.version, sys.base_prefix]))"
    about = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, env=clean_environ(), check=True)
    texts = [Path(each).read_text() for option, each in pairwise(requirements) if option == "-r"]
    parts = [declared["project"], declared["build-system"], requirements, json.loads(about.stdout), *texts]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clean_environ() -> dict[str, str]:
    """Return this process's environment without what would make another interpreter differ from a person's.

    PYTHONPATH and PYTHONHOME lead it to foreign modules, CI hides the progress bars that people see, and with
    PYTHONDONTWRITEBYTECODE each of the hundreds of processes of a test run would compile the package for itself.
    """
    foreign = {"PYTHONPATH", "PYTHONHOME", "CI", "PYTHONDONTWRITEBYTECODE"}
    return {name: value for name, value in os.environ.items() if name not in foreign}


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,  # "-e ." in a requirements file is relative to it
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
