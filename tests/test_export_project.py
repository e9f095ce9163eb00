"""`%cmemu export-module DIR/`: a project of a real IPython session. test_package.py runs the tests of one."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from shells import plain_shell

from cmemu_nb import Emulator
from cmemu_nb.check.checker import check
from cmemu_nb.errors import ExportRefused
from cmemu_nb.export.examples import plausible_query
from cmemu_nb.export.requirements import find_requirements
from cmemu_nb.export.variation import varying_functions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

ORDERS = """
from dataclasses import dataclass
from datetime import date
import numpy as np
from prices import price_of

@dataclass
class Order:
    item: str
    amount: int
    day: date = date(2026, 1, 2)

@emu.function
def total(context, event: Order) -> float:
    '''The price of an order.'''
    return float(np.float64(price_of(event.item)) * event.amount)

@emu.function
def never_called(context, event: Order) -> str:
    return event.item
"""


class Session:
    """An IPython session whose variable `emu` is an emulator, in a folder of its own."""

    def __init__(self, run: Callable[[str], Any], emu: Emulator, folder: Path) -> None:
        self._run, self.emu, self.folder = run, emu, folder
        self.cells: list[str] = []

    def run(self, code: str) -> None:
        self._run(dedent(code)).raise_error()
        self.cells.append(dedent(code))

    def export(self, capsys: pytest.CaptureFixture[str], options: str = "orders/") -> str:
        """Export, and return what was printed."""
        capsys.readouterr()
        self.run(f"%cmemu export-module {options}")
        return capsys.readouterr().out


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Emulator]]:
    with plain_shell(tmp_path_factory.mktemp("ipython")) as shell, Emulator(port=0, home="thread") as emu:
        shell.run_line_magic("load_ext", "cmemu_nb")
        yield shell, emu
        shell.run_line_magic("unload_ext", "cmemu_nb")


@pytest.fixture
def session(served: tuple[Any, Emulator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    shell, emu = served
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "prices.py").write_text("def price_of(item):\n    return len(item) / 2\n")
    shell.user_ns["emu"] = emu
    yield Session(lambda code: shell.run_cell(code, store_history=True), emu, tmp_path)
    for each in list(emu.functions):
        emu.functions.remove(each.name)
    emu.reset()
    sys.modules.pop("prices", None)


def test_a_session_becomes_a_project_that_the_check_finds_right(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.run(ORDERS)
    session.run("emu.call('total', item='bolt', amount=3)")
    session.run("emu.runtime('notebook').enqueue('total', {'item': 'nut', 'amount': 1, 'unknown': 2}).result()")
    said = session.export(capsys)
    project = session.folder / "orders"
    files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    named = {"app.py", "requirements.txt", "Dockerfile", ".dockerignore", "README.md", "prices.py"}
    assert files == named | {"tests/test_app.py", "tests/schemas.json", ".cmemu-export.json"}
    assert all(name in said for name in named)
    assert "python -m pytest\n  cmemu check .\n  docker build --platform linux/amd64 -t orders:0.1.0 ." in said
    assert list(check(project)) == []
    versions = {name: metadata.version(name) for name in ("foundry-compute-modules", "numpy")}
    assert (project / "requirements.txt").read_text() == "".join(f"{name}=={versions[name]}\n" for name in versions)
    base = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    assert f"FROM --platform=linux/amd64 {base}\n" in (project / "Dockerfile").read_text()
    tests = (project / "tests" / "test_app.py").read_text()
    assert 'assert cmemu.call("total", {"item": "bolt", "amount": 3}) == 6.0\n' in tests
    assert "nut" not in tests  # emu.call would refuse its unknown field
    assert 'assert cmemu.call("never_called", {"item": "text", "amount": 1}) == ...\n' in tests
    readme = (project / "README.md").read_text()
    assert "- `total`: The price of an order. (item: string, amount: integer, day: date (may be left out)" in readme
    commands = readme.split("```bash\n")[1:]
    assert not any("latest" in block.partition("```")[0] for block in commands)
    assert session.emu.functions.export(project, session.cells, overwrite=True) == project


def test_what_the_functions_were_configured_with_is_named_in_the_tests_without_its_values(session: Session) -> None:
    client = {"id": "shop-app", "secret": "the secret of the client"}
    sources = {"Warehouse": {"password": "the password of the warehouse"}}
    session.emu.configure("notebook", sources=sources, client=client, environment={"VAT": "19 percent"})
    session.run("@emu.function\ndef stock(context, event) -> int:\n    return len(context['sources'])")
    session.run("emu.call('stock')")
    project = session.emu.functions.export_project(session.folder / "shop", session.cells).folder
    tests, readme = ((project / name).read_text() for name in ("tests/test_app.py", "README.md"))
    written: dict[str, Any] = {}
    exec(tests, written | {"__file__": str(project / "tests" / "test_app.py")}, written)
    configuration = written["CONFIGURATION"]
    assert [*configuration["sources"]["Warehouse"], *configuration["environment"]] == ["password", "VAT"]
    assert configuration["client"]["id"] == "shop-app"
    assert "cwd=str(TESTS.parent), **CONFIGURATION)" in tests
    assert "write values into CONFIGURATION" in written["test_stock"].pytestmark[0].kwargs["reason"]
    assert "Configure there what the functions need: the sources Warehouse; the environment variables VAT; an" in readme
    assert not any(secret in tests + readme for secret in ("the secret", "the password", "19 percent"))
    session.emu.env("notebook", **configuration)  # it is valid as it is


def test_files_that_were_changed_by_hand_are_kept(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    session.run(ORDERS)
    assert "Kept" not in session.export(capsys)
    project = session.folder / "orders"
    (project / "Dockerfile").write_text("FROM mine\n")
    session.run(ORDERS.replace("    return event.item", "    return event.item.upper()"))
    said = session.export(capsys)
    assert "Kept what was changed by hand: Dockerfile. --force (overwrite=True) replaces it." in said
    assert (project / "Dockerfile").read_text() == "FROM mine\n"
    assert "event.item.upper()" in (project / "app.py").read_text()
    assert "Kept" in session.export(capsys)  # a second export does not take the changed file for its own
    (project / "app.py").write_text("# mine\n")
    (project / "README.md").unlink()
    with pytest.raises(Exception, match=r"orders/app\.py was not written by an export, or was changed since"):
        session.export(capsys)
    assert (project / "app.py").read_text() == "# mine\n"
    assert not (project / "README.md").exists()
    assert "Kept" not in session.export(capsys, "orders/ --force")
    assert "FROM mine" not in (project / "Dockerfile").read_text()
    assert "event.item.upper()" in (project / "app.py").read_text()


def test_a_folder_that_can_not_be_written_is_refused_whole(session: Session) -> None:
    session.run(ORDERS)
    (session.folder / "file").write_text("x")
    with pytest.raises(ExportRefused, match=r"file is a file\. Give a folder"):
        session.emu.functions.export("file/", session.cells)
    with pytest.raises(ExportRefused, match=r"Give orders/ for a whole project, or orders\.py for the module alone"):
        session.emu.functions.export("orders", session.cells)
    (session.folder / "app.py").write_text("def shout(x):\n    return x.upper()\n")
    session.run(
        """
        from app import shout

        @emu.function
        def loud(context, event) -> str:
            return shout(event["x"])
        """
    )
    with pytest.raises(ExportRefused, match=r"the project has its own app\.py\. Rename the module"):
        session.emu.functions.export("orders/", session.cells)
    assert not (session.folder / "orders").exists()


def test_examples_are_calls_of_the_present_version_that_always_gave_the_same(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.run(
        """
        @emu.function
        def twice(context, event):
            return event["x"] * 3
        @emu.function
        def counts(context, event):
            import os
            os.environ["COUNT"] = str(int(os.environ.get("COUNT", "0")) + 1)
            return os.environ["COUNT"]
        @emu.function(streaming=True)
        def letters(context, event):
            yield from event["word"]
        @emu.function
        def now(context, event):
            import time
            return time.time()
        @emu.function
        def fails(context, event):
            raise ValueError("no")
        @emu.function
        def is_none(context, event):
            return None
        """
    )
    session.run("emu.call('twice', x=1)")
    session.run("@emu.function\ndef twice(context, event):\n    return event['x'] * 2")
    session.run(
        """
        for x in (1, 2, 3, 4, 2):
            emu.call("twice", x=x)
        emu.call("counts"), emu.call("counts"), emu.call("letters", word="ab"), emu.call("is_none")
        emu.call("now", zone="x")
        emu.call("twice", x=["a rather long text"] * 6)
        emu.call("twice", x="long" * 1000)
        emu.submit("fails").raw()
        """
    )
    session.export(capsys)
    tests = (session.folder / "orders" / "tests" / "test_app.py").read_text()
    calls = [line.strip() for line in tests.splitlines() if "cmemu.call(" in line]
    assert calls == [
        'assert cmemu.call("twice", {"x": 4}) == 8',
        'assert cmemu.call("twice", {"x": 2}) == 4',
        'assert cmemu.call("twice", query) == [',
        'assert cmemu.call("counts", {}) == ...',
        'assert cmemu.call("letters", {"word": "ab"}) == ["a", "b"]',
        'assert cmemu.call("now", {"zone": "x"}) == ...',
        'assert cmemu.call("fails", {}) == ...',
        'assert cmemu.call("is_none", {}) is None',
    ]
    compile(tests, "test_app.py", "exec")
    assert max(map(len, tests.splitlines())) <= 120


def test_what_functions_read_is_copied_or_named(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    (session.folder / "data").mkdir()
    (session.folder / "data" / "rates.csv").write_text("a\n1\n")
    (session.folder / "outside.csv").write_text("a\n2\n")
    (session.folder / ".env").write_text("A=1\n")
    (session.folder / "README.md").write_text("of the notebook\n")
    (session.folder / "limits.json").write_text("{}")
    (session.folder / "prices.py").write_text(
        "from pathlib import Path\nLIMITS = Path(__file__).with_name('limits.json')\n"
    )
    session.run(
        f"""
        from prices import LIMITS

        @emu.function
        def reads(context, event):
            names = "data/rates.csv", {str(session.folder / "outside.csv")!r}, "data", ".env", "README.md", "no.csv"
            return [LIMITS.read_text(), open(names[0]).read()]
        """
    )
    session.run(
        "if False:\n    get_ipython().run_line_magic('pip', 'install -q wcwidth numpy==2 nothing-of-this-name')"
    )
    said = session.export(capsys)
    project = session.folder / "orders"
    assert "Copied what no package brings: data/rates.csv, limits.json, prices.py." in said
    assert (project / "data" / "rates.csv").read_text() == "a\n1\n"
    assert "of the notebook" not in (project / "README.md").read_text()
    assert not (project / ".env").exists()
    notes = [line.removeprefix("Note: ") for line in said.splitlines() if line.startswith("Note: ")]
    assert notes[0].startswith(f"The functions name the file '{session.folder}/outside.csv', which the image does not")
    assert notes[1].startswith("The functions name the folder 'data'.")
    assert notes[2].endswith(f"add to requirements.txt: wcwidth=={metadata.version('wcwidth')}")
    assert notes[3].endswith(f"add to requirements.txt: numpy=={metadata.version('numpy')}")
    assert len(notes) == 4


@pytest.mark.parametrize(
    ("body", "varies"),
    [
        ("random.random()", True),
        ("np.random.default_rng().normal()", True),
        ("dt.date.today()", True),
        ("time.time()", True),
        ("time.sleep(1)", False),
        ("token_hex()", True),
        ("pause(1)", False),
        ("by_another()", True),
        ("Stamp()", True),
        ("plain()", False),
        ("event.time + event.sample", False),
        ("context['jobId']", True),
        ("context['sources']", False),
    ],
)
def test_functions_that_use_the_time_or_chance_are_known(body: str, *, varies: bool) -> None:
    text = f"""
import random, time, datetime as dt, numpy as np
from secrets import token_hex
from time import sleep as pause
class Stamp:
    def __init__(self):
        self.at = dt.datetime.now()
def by_another():
    return uses()
def uses():
    return [token_hex() for _ in range(2)]
def plain():
    return 1
def served(context, event):
    return {body}
"""
    assert ("served" in varying_functions(text)) is varies


def package(site: Path, name: str, version: str, source: dict[str, Any] | None, installer: str = "pip") -> None:
    """Install a package of one module, as pip does it."""
    (site / f"{name}.py").write_text("import wcwidth\n")
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "INSTALLER").write_text(installer)
    (about / "RECORD").write_text(f"{name}.py,,\n{about.name}/METADATA,,\n")
    if source:
        (about / "direct_url.json").write_text(json.dumps(source))


def test_requirements_of_packages_that_are_not_from_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, "plain_one", "1.5", None)
    package(tmp_path, "with_cuda", "2.3.0+cu121", None)
    package(tmp_path, "of_conda", "3.0", {"url": "file:///croot/of_conda", "dir_info": {}}, "conda")
    package(tmp_path, "of_a_wheel", "4.0", {"url": "file:///home/ada/of_a_wheel.whl", "archive_info": {}})
    git = {"url": "https://git.example/x.git", "vcs_info": {"vcs": "git", "commit_id": "1f2e"}}
    package(tmp_path, "of_git", "5.0", git)
    package(tmp_path, "editable_one", "6.0", {"url": "file:///home/ada/x", "dir_info": {"editable": True}})
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("from . import more\n")
    (tmp_path / "parts" / "more.py").write_text("import yaml\n")
    names = ("plain_one", "with_cuda", "of_conda", "of_a_wheel", "of_git", "editable_one", "parts", "json", "cmemu_nb")
    text = (
        "".join(f"import {name}\n" for name in names) + "import nowhere_at_all\nfrom compute_modules import sources_v2"
    )
    found = find_requirements(text)
    assert found.lines == [
        f"foundry-compute-modules[sources]=={metadata.version('foundry-compute-modules')}",
        "of_a_wheel==4.0",
        "of_conda==3.0",
        "of_git @ git+https://git.example/x.git@1f2e",
        "plain_one==1.5",
        f"PyYAML=={metadata.version('PyYAML')}",  # which the copied package imports
        f"wcwidth=={metadata.version('wcwidth')}",  # which the copied module imports
        "with_cuda==2.3.0",
    ]
    assert [path.name for path in found.local] == ["editable_one.py", "parts"]
    assert [note.split(" ")[0] for note in found.notes] == ["with_cuda", "of_a_wheel", "app.py"]
    assert "nowhere_at_all, which is not installed here" in found.notes[2]


def test_a_plausible_query_has_a_value_of_each_type() -> None:
    simple: dict[str, Any] = {
        name: {"type": name, name: {}} for name in ("integer", "double", "string", "boolean", "date", "timestamp")
    }
    inside = {"elementsType": simple["string"]}
    struct = {"type": "anonymousCustomType", "anonymousCustomType": {"fields": {"a": simple["double"]}}}
    types = {
        **simple,
        "list": {"type": "list", "list": inside},
        "struct": struct,
        "map": {"type": "map", "map": {"keysType": simple["string"], "valuesType": struct}},
        "optional": {"type": "optionalType", "optionalType": {"wrappedType": struct}},
    }
    inputs = [{"name": name, "required": True, "dataType": kind} for name, kind in types.items()]
    left_out = {"name": "left_out", "required": False, "dataType": struct}
    assert plausible_query({"functionName": "f", "inputs": [*inputs, left_out]}) == {
        "integer": 1,
        "double": 1.5,
        "string": "text",
        "boolean": True,
        "date": "2026-01-02",
        "timestamp": "2026-01-02T03:04:05Z",
        "list": ["text"],
        "struct": {"a": 1.5},
        "map": {},
        "optional": None,
    }
