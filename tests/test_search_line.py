"""The search line of the jobs list finds the same in the kernel, by Python, and in the browser, by JavaScript."""

from __future__ import annotations

import json
import random
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest
from environments import ROOT, program

from cmemu_nb.dashboard.job_list import JobFilter, JobList
from cmemu_nb.dashboard.job_rows import list_row
from cmemu_nb.lifecycle.lifecycle import Lifecycle

pytestmark = pytest.mark.once

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "searches.json").read_text("utf-8"))
SCRIPT = (ROOT / "cmemu_nb" / "dashboard" / "static" / "search.js").read_text("utf-8")
SEARCH_ALL = """
const { searches, rows } = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(searches.map((search) => {
  const { terms, problem } = searchTerms(search);
  return { found: rows.map((row) => searchMatches(terms, row)), problem };
})));
"""


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> tuple[Lifecycle, dict[str, str]]:
    """Return a lifecycle with the jobs of the table, and their ids by the names that they have in it.

    The ids are always the same ones: in one of every ten tables, "493" or "ada" would be in a random id by chance.
    """
    monkeypatch.setattr(secrets, "token_bytes", random.Random(1).randbytes)
    lifecycle, ids = Lifecycle(), {}
    for runtime in ("r", "billing"):
        lifecycle.open_session(runtime)
    for name, job in TABLE["jobs"].items():
        runtime = job.get("runtime", "r")
        ids[name] = lifecycle.submit(runtime, job["function"], job["query"].encode()).job_id
        if job.get("status") == "queued":
            continue
        taken = lifecycle.take(runtime)
        assert taken is not None
        if "result" in job:
            lifecycle.finish(runtime, taken.job_id, job["result"].encode())
        elif "failed" in job:
            lifecycle.fail(taken.job_id, job["failed"])
    return lifecycle, ids


def filled_in(search: str, ids: dict[str, str]) -> str:
    return search.replace("{ok}", ids["ok"][-6:])


def test_the_kernel_finds_what_the_table_says(jobs: tuple[Lifecycle, dict[str, str]]) -> None:
    lifecycle, ids = jobs
    names = {job_id: name for name, job_id in ids.items()}
    wrong = []
    for case in TABLE["cases"]:
        found = JobList(lifecycle, JobFilter(text=filled_in(case["search"], ids))).newest(100)
        if {names[job.job_id] for job in found} != set(case["found"]):
            wrong.append((case, [names[job.job_id] for job in found]))
    assert wrong == []


def test_the_browser_finds_the_same_and_says_what_it_does_not_understand(
    jobs: tuple[Lifecycle, dict[str, str]],
) -> None:
    lifecycle, ids = jobs
    searches = [filled_in(case["search"], ids) for case in TABLE["cases"]]
    rows = [list_row(lifecycle.job(job_id)) for job_id in ids.values()]
    given = json.dumps({"searches": searches, "rows": rows})
    command = [str(program("nodejs")), "-e", SCRIPT + SEARCH_ALL]
    answer = json.loads(subprocess.run(command, input=given, text=True, check=True, capture_output=True).stdout)
    wrong = []
    for case, each in zip(TABLE["cases"], answer, strict=True):
        found = {name for name, matches in zip(ids, each["found"], strict=True) if matches}
        if found != set(case["found"]) or each["problem"] != case.get("problem", ""):
            wrong.append((case, sorted(found), each["problem"]))
    assert wrong == []
