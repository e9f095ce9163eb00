"""What is published: the built wheel and sdist, and the wheel as it is when somebody has installed it.

They are built of a copy of the project without its caches. The wheel is installed, `--no-deps`, into an environment of
its own that sees another with just the dependencies that the package declares, and used from a foreign folder with an
empty home.
"""

from __future__ import annotations

import ast
import email
import json
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from environments import ROOT, bare_python, build_python, clean_environ
from shells import plain_shell

import cmemu_nb
from cmemu_nb import Emulator
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from email.message import Message

# The environments are made once, which takes a minute or two.
pytestmark = [pytest.mark.once, pytest.mark.timeout(600)]
NAME = f"cmemu_nb-{__version__}"
PROGRAMS = ROOT / "tests" / "programs"
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SESSION = """
from dataclasses import dataclass

import pandas as pd
from prices import price_of

VAT = 0.2

@dataclass
class Order:
    item: str
    amount: int = 1

@emu.function
def price(context, event: Order) -> float:
    return round(price_of(event.item) * event.amount * (1 + VAT), 2)

@emu.function(streaming=True)
def rows(context, event: Order) -> list[dict[str, int]]:
    for row in pd.DataFrame({"n": range(event.amount)}).to_dict("records"):
        yield row

@emu.function
def never_called(context, event: Order) -> str:
    return event.item

emu.call(price, item="bolt", amount=3), emu.call(rows, item="nut", amount=2)
%cmemu export-module orders/
"""
# What `import cmemu_nb` and `from cmemu_nb import Emulator` must leave for those who want them.
LATER = (
    *("pandas", "numpy", "ipywidgets", "anywidget", "IPython", "yaml", "sqlite3", "jsonschema", "requests"),
    *("trustme", "cryptography", "compute_modules", "nest_asyncio2", "jupyter_core"),
)
FOREIGN = ("asyncio", "ssl", "tornado", "traitlets", "msgspec", "http")


def run(*command: str | Path, cwd: Path, environ: dict[str, str] | None = None, code: int = 0) -> str:
    """Run a program and return what it prints; whatever it says goes into the failure."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean_environ() if environ is None else environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project, without what .gitignore names."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split()]
    copy = tmp_path_factory.mktemp("source") / "copy"
    return Path(shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", *ignored)))


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the sdist, and the wheel that was built from the copy itself."""
    folder = tmp_path_factory.mktemp("dist")
    build = (build_python(), "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", folder)
    run(*build, source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (path,) = built.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with the wheel and nothing but its dependencies."""
    home = tmp_path_factory.mktemp("installed")
    run(bare_python(), "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own, dependencies = (Path(run(each, "-c", code, cwd=home).strip()) for each in (python, bare_python()))
    (own / "dependencies.pth").write_text(f"{dependencies}\n", "utf-8")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    return python


@pytest.fixture
def user(installed: Path, tmp_path: Path) -> Any:
    """Run a program of the environment as somebody whose home and folder are empty."""
    home, folder = tmp_path / "home", tmp_path / "folder"
    home.mkdir()
    folder.mkdir()
    own = ("JUPYTER", "IPYTHON", "XDG_")
    environ = {name: value for name, value in clean_environ().items() if not name.startswith(own)}

    def run_as_user(program: str, *arguments: str | Path) -> str:
        return run(installed.parent / program, *arguments, cwd=folder, environ=environ | {"HOME": str(home)})

    return run_as_user


def names_in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(ROOT)) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{NAME}.dist-info/METADATA"))


# The archives


def test_the_wheel_has_the_whole_package_and_nothing_else(wheel: Path) -> None:
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    pictures = {f"cmemu_nb/docs/dashboard.{kind}" for kind in ("gif", "png")}  # README has them
    assert names_in_wheel(wheel) == files(ROOT / "cmemu_nb") - pictures | {f"{NAME}.dist-info/{name}" for name in about}
    assert wheel.name == f"{NAME}-py3-none-any.whl"


def test_what_is_no_python_is_in_the_wheel(wheel: Path) -> None:
    kinds = {Path(name).suffix for name in names_in_wheel(wheel) if name.startswith("cmemu_nb/")}
    assert kinds == {".py", ".md", ".js", ".css", ".html", ".typed"}
    assert {"cmemu_nb/py.typed", "cmemu_nb/docs/parity.md", "cmemu_nb/dashboard/static/main.js"} <= names_in_wheel(
        wheel
    )


def test_the_sdist_has_what_building_and_testing_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    for folder in ("cmemu_nb", "notebooks", "tests"):
        wanted |= files(ROOT / folder)
    assert names == wanted


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = (build_python(), "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path)
    run(*again, tmp_path / NAME, cwd=tmp_path)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


# What they say of themselves


def test_the_classifiers_are_valid_and_say_on_what_it_is_tested(wheel: Path, tmp_path: Path) -> None:
    classifiers = metadata(wheel).get_all("Classifier", [])
    code = "import json, trove_classifiers; print(json.dumps(sorted(trove_classifiers.classifiers)))"
    assert set(classifiers) <= set(json.loads(run(build_python(), "-c", code, cwd=tmp_path)))
    assert classifiers == sorted(classifiers)
    assert f"Programming Language :: Python :: {sys.version_info[0]}.{sys.version_info[1]}" in classifiers


def test_the_metadata_is_the_projects(wheel: Path) -> None:
    said = metadata(wheel)
    assert (said["Name"], said["Version"], said["License-Expression"]) == ("cmemu_nb", __version__, "Apache-2.0")
    assert said["Requires-Python"] == DECLARED["requires-python"]
    needed = {re.split("[<>=~;]", each)[0] for each in said.get_all("Requires-Dist", []) if "extra ==" not in each}
    assert needed == {re.split("[<>=~]", each)[0] for each in DECLARED["dependencies"]}
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert "[console_scripts]\ncmemu = cmemu_nb.cli:main" in entry_points
    assert "[pytest11]\ncmemu = cmemu_nb.pytest_plugin" in entry_points


# The wheel, installed


def test_the_command_says_its_version(user: Any) -> None:
    assert user("cmemu", "--version").split()[-1] == __version__
    assert user("python", "-m", "cmemu_nb", "--version").split()[-1] == __version__


def test_a_function_is_served_and_called_from_a_foreign_folder(user: Any, installed: Path) -> None:
    assert user("python", PROGRAMS / "typed_user.py") == "42 42 5 True failed True\n"
    where = Path(user("python", "-c", "import cmemu_nb; print(cmemu_nb.__file__)").strip())
    assert where.is_relative_to(installed.parent.parent)


def test_the_extension_is_loaded_in_ipython(user: Any) -> None:
    cell = (
        "get_ipython().run_line_magic('load_ext', 'cmemu_nb')\n"
        "get_ipython().run_line_magic('cmemu', 'start --port 0')\n"
        "from cmemu_nb.dashboard.widget import Dashboard\n"
        "import urllib.request\n"
        "urllib.request.urlopen(emu.url + '/docs').close()\n"
        "get_ipython().run_line_magic('cmemu', 'help parity')\n"
        "print('runs:', emu.running, len(emu.jobs))\n"
        "get_ipython().run_line_magic('cmemu', 'stop')\n"
    )
    printed = user("python", "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", cell)
    assert "runs: True 0" in printed


def test_a_typed_program_is_checked_against_it(installed: Path, tmp_path: Path) -> None:
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}")
    right, wrong = PROGRAMS / "typed_user.py", PROGRAMS / "wrongly_typed_user.py"
    told = run(*mypy, f"--python-executable={installed}", right, wrong, cwd=tmp_path, code=1)
    lines = enumerate(wrong.read_text("utf-8").splitlines(), 1)
    expected = [(wrong.name, number) for number, line in lines if line.endswith("# wrong")]
    found = re.findall(r"(\w+\.py):(\d+): error", told)
    assert [(name, int(number)) for name, number in found] == expected, told


def test_an_exported_project_passes_its_own_tests_where_only_its_requirements_are(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of IPython writes the project; its README's commands run in the clean environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "prices.py").write_text("from pathlib import Path\n\n\ndef price_of(item):\n    return len(item) / 2\n")
    with plain_shell(tmp_path / "ipython") as shell, Emulator(port=0, home="thread") as emu:
        shell.user_ns["emu"] = emu
        shell.run_line_magic("load_ext", "cmemu_nb")
        shell.run_cell(SESSION, store_history=True).raise_error()
        shell.run_line_magic("unload_ext", "cmemu_nb")
    project = tmp_path / "orders"
    pip = (sys.executable, "-m", "pip", "--python", installed, "install", "--disable-pip-version-check")
    run(*pip, "--requirement", project / "requirements.txt", cwd=project)
    said = run(installed, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", cwd=project)
    assert re.search(r"^3 passed, 1 skipped in ", said, re.MULTILINE), said
    assert "The notebook has no result of it: write a query" in said
    said = run(installed.with_name("cmemu"), "check", "--strict", ".", cwd=project)
    assert said == "Checked app.py, Dockerfile, requirements.txt: nothing wrong.\n"


# Importing


@pytest.mark.parametrize("code", ["import cmemu_nb", "from cmemu_nb import Emulator", "import cmemu_nb.pytest_plugin"])
def test_importing_leaves_the_rest_for_later(code: str, tmp_path: Path) -> None:
    print_loaded = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}; print(*sys.modules)"
    loaded = set(run(sys.executable, "-c", print_loaded, cwd=tmp_path).split())
    assert "cmemu_nb" in loaded
    assert sorted(loaded & set(LATER)) == []
    if "Emulator" not in code:
        ours = {name for name in loaded if name.startswith("cmemu_nb")}
        assert ours <= {"cmemu_nb", "cmemu_nb.version", "cmemu_nb.pytest_plugin"}
    if code == "import cmemu_nb":
        assert sorted(loaded & set(FOREIGN)) == []


def test_stopping_an_emulator_imports_nothing(tmp_path: Path) -> None:
    code = """
        import sys
        from cmemu_nb import Emulator
        emu = Emulator(port=0, home="thread").start()
        before = set(sys.modules)
        emu.stop()
        print(sorted(set(sys.modules) - before))
    """
    assert run(sys.executable, "-c", textwrap.dedent(code), cwd=tmp_path).strip() == "[]"


def test_every_constant_is_used() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "cmemu_nb").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    elsewhere = {each.name for each in nodes if isinstance(each, ast.alias)}
    elsewhere |= {each.attr for each in nodes if isinstance(each, ast.Attribute)}
    unused = set()
    for tree in trees:
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        constants = {each.id for each in names if isinstance(each.ctx, ast.Store) and each.id.isupper()}
        unused |= constants - {each.id for each in names if isinstance(each.ctx, ast.Load)} - elsewhere
    assert unused == set()


def test_all_is_sorted_and_is_the_whole_namespace() -> None:
    public = {name for name in dir(cmemu_nb) if name.isidentifier() and not name.startswith("_")}
    submodules = {path.stem for path in (ROOT / "cmemu_nb").iterdir()}
    assert cmemu_nb.__all__ == sorted({*public, "__version__"} - submodules - {"TYPE_CHECKING", "annotations"})
    assert all(hasattr(cmemu_nb, name) for name in cmemu_nb.__all__)
    with pytest.raises(AttributeError, match="'cmemu_nb' has no attribute 'Emulater'"):
        _ = cmemu_nb.Emulater  # type: ignore[attr-defined]
