"""What a check finds: a rule that is broken, where, what to type instead, and the page that says so."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cmemu_nb.display.html import Html, card, link, table, wrapped
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DOCS = "https://www.palantir.com/docs/foundry"
CONTAINERS = f"{DOCS}/compute-modules/containers"
IMAGES = f"{DOCS}/transforms-container"
FUNCTIONS = f"{DOCS}/compute-modules/functions"
ADVICE = "cmemu_nb: advice of this package, not a rule of the platform"


class Severity(StrEnum):
    """An error keeps the module from working on the platform; a warning may do so later."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, order=True)
class Finding:
    """A broken rule: `message` says what is wrong at `line` of the file `path`, `fix` what to type instead.

    `line` counts from 1; 0 means the whole file. `page` is the page that states the rule.
    """

    path: str
    line: int
    severity: Severity
    rule: str
    message: str
    fix: str
    page: str

    @property
    def place(self) -> str:
        """The file, with the line if it is known."""
        return f"{self.path}:{self.line}" if self.line else self.path

    def __str__(self) -> str:
        return f"{self.place}: {self.severity}: {self.message} [{self.rule}]\n    {self.fix}\n    {self.page}"


class Report:
    """The findings of a check, by file and line. `checked` are the files and images that were checked."""

    def __init__(self, checked: Iterable[str], findings: Iterable[Finding]) -> None:
        self.checked = list(dict.fromkeys(checked))
        self.findings = sorted(set(findings))

    @property
    def ok(self) -> bool:
        """Whether there is no error; there may be warnings."""
        return not any(finding.severity == Severity.ERROR for finding in self.findings)

    @property
    def words(self) -> str:
        """The number of errors and warnings, and what was checked."""
        counts = Counter(finding.severity for finding in self.findings)
        found = " and ".join(plural(counts[each], str(each)) for each in Severity if counts[each]) or "nothing wrong"
        return f"Checked {', '.join(self.checked)}: {found}."

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the findings as JSON objects."""
        return [dataclasses.asdict(finding) for finding in self.findings]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.findings), self.words])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> Html:
        rows = [
            {
                "where": each.place,
                "severity": str(each.severity),
                "what is wrong": wrapped(each.message),
                "what to type": wrapped(each.fix),
                "page": link(each.page, each.page.rpartition("/")[2]) if each.page != ADVICE else "",
            }
            for each in self.findings
        ]
        if not rows:
            return card("Check", [("result", self.words)])
        return table(self.words, tuple(rows[0]), rows, compact=True)
