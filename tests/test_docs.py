"""The documents say what is true: the tests, routes, files and commands that they name are there."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from cli_processes import OnTerminal, run, run_here, serving
from IPython.core.inputtransformer2 import TransformerManager
from test_notebooks import NOTEBOOKS, ThisPython, execute, of_stderr

from cmemu_nb import errors
from cmemu_nb.notebook import topics
from cmemu_nb.notebook.commands import COMMANDS, options_of, parse
from cmemu_nb.server.application import ROUTES
from cmemu_nb.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TESTING = ROOT / "cmemu_nb" / "docs" / "testing.md"
DOCS = sorted((ROOT / "cmemu_nb" / "docs").glob("*.md"))
SETUP = [
    "python3 -m venv .venv && .venv/bin/pip install -e '.[lab]' && .venv/bin/cmemu lab",
    "tests/run",
]
# By export-module, by who tests that, by emu.export, and by readers with a seed file or a module of their own.
WRITTEN = {
    "app.py",
    "test_app.py",
    "test_pipeline.py",
    "run.json",
    "seed.yaml",
    "helpers.py",
    "tests/test_app.py",
    "tests/schemas.json",
}
SOURCES = {"page", "foundry", "ours", "page, ours", "foundry, ours"}
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
NAMED_FILE = re.compile(r"(?<![\w.*{}-])[\w./-]*\w\.(?:ipynb|json|md|mjs|py|toml|txt|ya?ml)\b")
LINK = re.compile(r"]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[([^]]*)]\((\S+)\)")
MAX_PICTURES = {"cmemu_nb/docs/dashboard.png": 200_000, "cmemu_nb/docs/dashboard.gif": 1_000_000}
CLAIM = re.compile(r"^(\S.*\S)  # (\d+|\(.*\))$", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Of %%compute_module, pytest, tests/run and jupyter.
OTHER_OPTIONS = {"--language", "--cmemu-export-on-failure", "--bench", "--long", "--runtime-dir"}
WIDTH = 100  # characters: a cell of JupyterLab shows a few more, in a window of 1280 pixels
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def fenced(path: Path, language: str) -> list[str]:
    return [code.strip() for name, code in FENCE.findall(path.read_text("utf-8")) if name == language]


def files() -> set[str]:
    """Return the project's files as paths, also from tests/ and cmemu_nb/, and as bare names; without dot-folders."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    found = [path for folder in folders for path in folder.rglob("*")] + list(ROOT.iterdir())
    tops = [ROOT, ROOT / "tests", ROOT / "cmemu_nb"]
    return {path.name for path in found} | {
        str(path.relative_to(top)) for top in tops for path in found if path.is_relative_to(top)
    }


def test_readme_s_pictures_are_there_small_and_described() -> None:
    pictures = {path: words for words, path in PICTURE.findall(README.read_text("utf-8"))}
    assert set(pictures) == set(MAX_PICTURES)
    assert all(len(words) > 50 for words in pictures.values())
    assert {path for path, most in MAX_PICTURES.items() if (ROOT / path).stat().st_size > most} == set()


@functools.cache
def collected_from(file: str) -> set[str]:
    """Return what pytest collects from a test file: functions, and classes however they are made."""
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    names |= {target.id for target in assigned if isinstance(target, ast.Name)}
    return {name for name in names if name.startswith(("test_", "Test"))}


def cells() -> list[str]:
    """Return the tour of the README as cells: its blocks, and the rows of its table of what there is to look at."""
    text = README.read_text("utf-8")
    parts = re.findall(r"```python\n((?s:.*?))```|^\| (`(?:emu\.|%cmemu ).*`) \| .* \|$", text, re.MULTILINE)
    return [each for code, row in parts for each in ([code.strip()] if code else re.findall("`(.+?)`", row))]


def named_options(text: str) -> Iterator[tuple[str, str]]:
    """Return the options that are named as code, each with its command, `%cmemu start`, say, if that is named too."""
    lines = [line.strip() for line in text.splitlines() if line.lstrip().startswith(("%cmemu ", "cmemu "))]
    for code in (*re.findall(r"`([^`\n]+)`", text), *lines):
        command = re.match(r"%?cmemu [a-z][a-z-]*", code)
        yield from ((command[0] if command else "", option) for option in OPTION.findall(code))


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """Return the options that each command and each magic has."""
    commands = re.findall(r"^ +([a-z]+) {2}", run_here("--help").stdout, re.MULTILINE)
    found = {f"cmemu {name}": set(OPTION.findall(run_here(name, "--help").stdout)) for name in commands}
    return found | {f"%cmemu {name}": set(options_of(name)) for name in COMMANDS}


def parity_rows() -> list[tuple[str, str, str]]:
    """Return behaviour, source and test of every row of the parity tables."""
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", topics.read("parity"), re.MULTILINE)
    return [row for row in rows if row != ("behaviour", "source", "test")]


# Parity


@pytest.mark.parametrize(("topic", "least"), [("parity", 100), ("security", 30), ("clients", 6)])
def test_every_test_that_is_named_exists(topic: str, least: int) -> None:
    named = NAMED_TEST.findall(topics.read(topic))
    assert len(named) >= least
    assert [f"{file}::{name}" for file, name in named if name not in collected_from(file)] == []


def test_every_row_of_parity_has_a_source_and_a_test_or_says_that_there_is_none() -> None:
    rows = parity_rows()
    assert len(rows) > 100
    assert {source for _, source, _ in rows} <= SOURCES
    assert [what for what, _, test in rows if not NAMED_TEST.search(test) and not test.startswith("no test")] == []


def test_every_row_of_clients_names_a_test() -> None:
    table = topics.read("clients").partition("\n## ")[0]
    rows = re.findall(r"^\| (.+) \|$", table, re.MULTILINE)[1:]
    assert len(rows) > 10
    assert [row for row in rows if not NAMED_TEST.search(row.rpartition(" | ")[2])] == []


def test_every_route_is_in_parity() -> None:
    headings = re.findall(r"^### `(.+)`$", topics.read("parity"), re.MULTILINE)
    assert sorted(headings) == sorted(f"{route.method} {route.path}" for route in ROUTES)


def test_parity_names_the_differences_from_the_documentation() -> None:
    _, heading, rest = topics.read("parity").partition("\n## Differences from the documentation\n")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", rest.partition("\n## ")[0], re.MULTILINE)
    assert heading
    assert len(rows) > 10
    assert any("milliseconds" in documented and "ISO 8601" in here for documented, here in rows)


# README


def test_readme_has_exactly_the_two_commands_to_set_up() -> None:
    _, heading, rest = README.read_text("utf-8").partition("\n## Set up\n")
    assert heading
    set_up = rest.partition("\n## ")[0]
    assert [code.strip() for _, code in FENCE.findall(set_up)] == SETUP


@pytest.mark.parametrize("code", cells(), ids=lambda code: code.splitlines()[0][:40])
def test_the_tour_can_be_pasted_into_cells_which_show_all_that_they_are_said_to_show(code: str) -> None:
    assert max(map(len, code.splitlines())) <= WIDTH
    source = TransformerManager().transform_cell(code)
    compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for line in re.findall(r"^%cmemu (.*)$", code, re.MULTILINE):
        parse(line, {})
    # Of a cell's expressions only the last one is shown; a magic prints, and closing a connection has nothing to show.
    values = [ast.unparse(node) for node in ast.parse(source).body[:-1] if isinstance(node, ast.Expr)]
    assert [each for each in values if not each.startswith("get_ipython()") and not each.endswith(".close()")] == []


def test_the_tour_runs_in_a_kernel_and_gives_what_it_says(tmp_path: Path) -> None:
    codes = [CLAIM.sub(r"assert (\1) == \2", code) for code in cells()]
    assert "assert (job.result(), job.logs) == (41," in "\n".join(codes)
    assert "emu.latency()" in codes
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, codes)))
    assert of_stderr(execute(notebook, tmp_path, kernel=ThisPython)) == ""
    assert (tmp_path / "app.py").read_text("utf-8").count("@function") == 1
    assert (tmp_path / "lifecycle.db").is_file()


def test_the_commands_for_a_terminal_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    (module,) = (code for code in fenced(TESTING, "python") if code.startswith("# app.py"))
    (tmp_path / "app.py").write_text(module)
    lines = [shlex.split(line, comments=True) for code in fenced(README, "bash") for line in code.splitlines()]
    start, call, jobs = ([*words] for program, *words in lines if program == "cmemu")
    with serving(*start[1:], command=start[0]) as server:
        while not (said := server.output.readline()).startswith("Call it from another terminal"):
            assert said, server.errors.read()
        done = run(*call)
        assert (done.stdout, done.stderr) == ("41\n", "")
        with OnTerminal(*jobs) as terminal:
            assert "add" in terminal.until("ok  ")


# Every document


@pytest.mark.parametrize("path", [README, *DOCS], ids=lambda path: path.name)
def test_every_relative_link_leads_to_a_file_or_a_heading(path: Path) -> None:
    text = path.read_text("utf-8")
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in LINK.findall(text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (path.parent / target.partition("#")[0]).is_file(), target


@pytest.mark.parametrize("path", [README, *DOCS], ids=lambda path: path.name)
def test_no_document_names_a_file_that_is_not_in_the_project(path: Path) -> None:
    routes = {route.path.lstrip("/") for route in ROUTES}
    named = {name.removeprefix("./").lstrip("/") for name in NAMED_FILE.findall(path.read_text("utf-8"))}
    assert named - files() - routes - WRITTEN == set()


@pytest.mark.parametrize("path", [README, *DOCS, *NOTEBOOKS], ids=lambda path: path.name)
def test_every_option_that_is_named_exists(path: Path, options: dict[str, set[str]]) -> None:
    text = path.read_text("utf-8")
    if path in NOTEBOOKS:  # An option by itself is one of a magic there.
        text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
    any_command = [each for name, each in options.items() if path not in NOTEBOOKS or name.startswith("%")]
    known = {**options, "": OTHER_OPTIONS.union(*any_command)}
    assert [(command, option) for command, option in named_options(text) if option not in known.get(command, ())] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_document_is_a_topic_with_a_title(path: Path) -> None:
    assert path.stem in topics.names()
    assert topics.read(path.stem).startswith("# ")


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    entries = re.findall(r"^## (.+)$", topics.read("changelog"), re.MULTILINE)
    assert entries[0].split()[0] == __version__


def test_troubleshooting_knows_every_error() -> None:
    words = set(re.findall(r"\w+", topics.read("troubleshooting")))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CmemuError)]
    names = [{kind.__name__, getattr(kind, "code", "")} for kind in kinds if kind is not errors.WireError]
    assert [name for name in names if not name & words] == []
