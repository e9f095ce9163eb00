"""`cmemu check`: each rule has an example that breaks it, and the same example, corrected, that does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cmemu_nb import Emulator
from cmemu_nb.check import functions
from cmemu_nb.check.checker import check
from cmemu_nb.check.dockerfile import check_dockerfile
from cmemu_nb.check.findings import FUNCTIONS, Finding, Report, Severity
from cmemu_nb.check.image import check_image, tag_of
from cmemu_nb.errors import CmemuError, NotFound
from cmemu_nb.notebook import topics

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

GOOD_DOCKERFILE = """\
FROM --platform=linux/amd64 python:3.12-slim
WORKDIR /app
COPY requirements.txt app.py ./
RUN pip install --no-cache-dir -r requirements.txt
USER 5000
ENTRYPOINT ["python", "app.py"]
"""
GOOD_PROGRAM = '''\
from dataclasses import dataclass

from compute_modules.annotations import function


@dataclass
class Order:
    item: str
    amount: int


@function
def price(context, event: Order) -> float:
    """The price of an order."""
    return 4.5 * event.amount
'''
GOOD_REQUIREMENTS = "foundry-compute-modules==0.34.0\n"
REPLACED: list[tuple[str, str, str, int]] = [
    # the rule, what is replaced in the good Dockerfile, by what, and the line of the finding
    ("user", "USER 5000\n", "", 1),
    ("user", "USER 5000", "USER root", 5),
    ("user", "USER 5000", "USER module:5000", 5),
    ("user", "USER 5000", "USER 0", 5),
    ("user", "USER 5000", "USER 5000\nUSER $NAME", 6),
    ("platform", "linux/amd64", "linux/arm64", 1),
    ("platform", "--platform=linux/amd64 ", "", 1),
    ("tag", "python:3.12-slim", "python:latest", 1),
    ("shell", "python:3.12-slim", "gcr.io/distroless/python3-debian12", 1),
    ("port", "USER 5000", "EXPOSE 80/tcp\nUSER 5000", 5),
    ("port", "USER 5000", "EXPOSE 9000 \\\n  1000-2000\nUSER 5000", 5),
    ("port", "USER 5000", "EXPOSE 8945\nUSER 5000", 5),
    ("start", 'ENTRYPOINT ["python", "app.py"]\n', "", 1),
    ("requirements", "-r requirements.txt", "-r requirements.txt pandas", 4),
    ("secret", "USER 5000", "ENV DB_PASSWORD=hunter2hunter2\nUSER 5000", 5),
    ("base-image", GOOD_DOCKERFILE, "# nothing yet\n", 0),
]
PROGRAMS: list[tuple[str, str, str, int]] = [
    ("syntax", "def price(", "def price((", 13),
    ("api-name", "def price(", "def _price(", 12),
    ("types", "-> float", "-> set[str]", 12),
    ("types", "event: Order", "event: int", 12),
    ("import", "amount: int", "amount: dict", 12),
    ("import", "from dataclasses import", "import not_installed_anywhere\nfrom dataclasses import", 1),
    ("import", "@dataclass\n", "raise SystemExit(3)\n@dataclass\n", 6),
    ("result-type", " -> float", "", 12),
    ("blocking", "\n\n@dataclass", "\nimport time\n\ntime.sleep(0.1)\n\n@dataclass", 7),
    ("emulator", "from dataclasses", "import cmemu_nb\nfrom dataclasses", 1),
    ("secret", "@dataclass\n", 'TOKEN = "abc123def456ghi789"\n@dataclass\n', 6),
    ("secret", "@dataclass\n", 'URL = "postgres://ada:lovelace1815@db/orders"\n@dataclass\n', 6),
    ("requirements", "from dataclasses import", "import pandas\nfrom dataclasses import", 1),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that breaks no rule."""
    (tmp_path / "Dockerfile").write_text(GOOD_DOCKERFILE)
    (tmp_path / "app.py").write_text(GOOD_PROGRAM)
    (tmp_path / "requirements.txt").write_text(GOOD_REQUIREMENTS)
    return tmp_path


def found(target: Path) -> list[tuple[str, int]]:
    return [(finding.rule, finding.line) for finding in check(target)]


def test_a_good_project_breaks_no_rule(project: Path) -> None:
    report = check(project)
    assert list(report) == []
    assert report.ok
    assert str(report) == "Checked app.py, Dockerfile, requirements.txt: nothing wrong."


@pytest.mark.parametrize(("rule", "before", "after", "line"), REPLACED)
def test_a_dockerfile_that_breaks_a_rule(rule: str, before: str, after: str, line: int) -> None:
    assert before in GOOD_DOCKERFILE
    text = GOOD_DOCKERFILE.replace(before, after, 1)
    [finding] = check_dockerfile("Dockerfile", text)
    assert (finding.rule, finding.line) == (rule, line)
    assert finding.fix
    assert finding.page


def test_a_dockerfile_with_stages_and_here_documents_is_read_as_docker_does() -> None:
    text = (
        "FROM --platform=linux/amd64 python:3.12-slim AS base\nUSER 5000\nRUN <<EOF\nUSER root\nEXPOSE 80\nEOF\n"
        "FROM node:22 AS other\nEXPOSE 80\nFROM base\nEXPOSE 9000\nCMD python app.py\n"
    )
    assert list(check_dockerfile("Dockerfile", text)) == []


@pytest.mark.parametrize(("rule", "before", "after", "line"), PROGRAMS)
def test_a_program_that_breaks_a_rule(project: Path, rule: str, before: str, after: str, line: int) -> None:
    assert before in GOOD_PROGRAM
    (project / "app.py").write_text(GOOD_PROGRAM.replace(before, after, 1))
    assert (rule, line) in found(project / "app.py")


def test_two_functions_of_one_name_are_a_duplicate(project: Path) -> None:
    again = GOOD_PROGRAM.partition("@function")[2].replace("def price(", "def second(")
    (project / "app.py").write_text(f"{GOOD_PROGRAM}\n\n@function{again}\n\nsecond.function.__name__ = 'price'\n")
    assert "duplicate" in dict(found(project / "app.py"))


@pytest.mark.parametrize("line", ["pandas", "pandas>=2", "pandas[excel] ~= 2.0  # with sheets"])
def test_a_requirement_without_a_fixed_version(project: Path, line: str) -> None:
    (project / "requirements.txt").write_text(f"{GOOD_REQUIREMENTS}{line}\n")
    assert found(project / "requirements.txt") == [("requirements", 2)]
    (project / "requirements.txt").write_text(f"{GOOD_REQUIREMENTS}pandas==3.0.0\n--hash=x\nx @ https://x/y.whl\n")
    assert found(project / "requirements.txt") == []


def test_a_folder_without_a_program_or_a_dockerfile_says_so_and_a_settings_file_may_have_a_secret(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".env").write_text("CLIENT_SECRET=3f9a77c1d2e84b5f\nGREETING=hello\n")
    report = check(tmp_path)
    assert {(each.rule, each.path) for each in report} == {
        ("program", str(tmp_path)),
        ("dockerfile", str(tmp_path)),
        ("secret", "data/.env"),
    }
    assert "3f9a77c1d2e84b5f" not in str(report)


def test_a_large_file_is_too_much_for_an_image(project: Path) -> None:
    with (project / "model.bin").open("wb") as file:
        file.truncate(100_000_000)
    assert found(project) == []
    with (project / "model.bin").open("ab") as file:
        file.write(b"x")
    assert found(project) == [("size", 0)]


def test_a_program_that_does_not_end_its_import_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "IMPORT_SECONDS", 1.0)
    (project / "app.py").write_text("import threading\nimport compute_modules\nthreading.Event().wait()\n")
    [finding] = check(project / "app.py")
    assert (finding.rule, finding.severity) == ("blocking", "error")
    assert "still starting after 1 s" in finding.message


def test_a_project_without_requirements(project: Path) -> None:
    (project / "requirements.txt").unlink()
    assert found(project) == [("requirements", 3)]


def test_every_documented_rule_has_an_example_that_breaks_it() -> None:
    rows = re.findall(r"^\|(( `[a-z-]+`,?)+) \| (?:error|warning)", topics.read("deploy"), re.MULTILINE)
    documented = {rule for row, _ in rows for rule in re.findall(r"[a-z-]+", row)}
    of_tables = {rule for rule, *_ in (*REPLACED, *PROGRAMS)}
    # Each of these has a test of its own; the project of the fixture breaks none of all the rules.
    assert documented - of_tables == {"duplicate", "schema", "size", "program", "dockerfile"}
    assert of_tables <= documented


def image(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "User": "5000",
        "ExposedPorts": {"9000/tcp": {}},
        "Entrypoint": ["python", "app.py"],
        "Cmd": None,
    }
    return {"Os": "linux", "Architecture": "amd64", "Config": config} | changes


@pytest.mark.parametrize(
    ("name", "inspected", "rules"),
    [
        ("module:0.1.0", image(), []),
        ("host:5000/team/module@sha256:1f", image(), []),
        ("host:5000/team/module", image(), ["tag"]),
        ("module:latest", image(Architecture="arm64"), ["platform", "tag"]),
        ("module:1", image(Config={"User": "", "ExposedPorts": {"80/tcp": {}}}), ["user", "port", "start"]),
        ("module:1", image(Config={"User": "0:0", "Cmd": ["sh"]}), ["user"]),
    ],
)
def test_what_docker_inspect_prints_of_an_image(name: str, inspected: dict[str, Any], rules: list[str]) -> None:
    assert [finding.rule for finding in check_image(name, inspected)] == rules


def test_tags() -> None:
    assert [tag_of(name) for name in ("a", "a:1", "h:5000/a", "h:5000/a:2", "a@sha256:9")] == [
        "latest",
        "1",
        "latest",
        "2",
        "",
    ]


def test_what_can_not_be_checked_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="'nothing-here:1' can't be checked: there is no such file or folder"):
        check("nothing-here:1")
    (tmp_path / "table.csv").write_text("x\n1\n")
    with pytest.raises(CmemuError, match=r"table.csv can't be checked: it is no Python program"):
        check(tmp_path / "table.csv")


def test_the_command_line_prints_json_and_ends_with_1_for_an_error(project: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cmemu_nb", "check", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert run(str(project)).returncode == 0
    (project / "Dockerfile").write_text(GOOD_DOCKERFILE.replace("--platform=linux/amd64 ", "").replace("5000", "root"))
    done = run("--json", str(project / "Dockerfile"))
    assert done.returncode == 1
    assert [json.loads(line)["rule"] for line in done.stdout.splitlines()] == ["platform", "user"]
    (project / "Dockerfile").write_text(GOOD_DOCKERFILE.replace("--platform=linux/amd64 ", ""))
    assert run(str(project / "Dockerfile")).returncode == 0
    assert run("--strict", str(project / "Dockerfile")).returncode == 1


def test_the_functions_in_cells_and_those_of_a_file_that_differs_from_what_is_served(project: Path) -> None:
    with Emulator(port=0, home="thread") as emu:

        @emu.function
        def price(context, event) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001, ARG001
            return "free"

        assert list(emu.check()) == []
        assert [(each.rule, each.line) for each in emu.check(project / "app.py")] == [("schema", 12)]
        shown = emu.check(project / "app.py")._repr_html_()
        assert "another schema in the file" in shown
        assert f'<a href="{FUNCTIONS}" target="_blank" rel="noopener noreferrer">' in shown
        long = Finding("a", 1, Severity.ERROR, "x", "m" * 200, "f" * 200, "p")
        assert f"{'f' * 200}<" in Report(["a"], [long])._repr_html_()
