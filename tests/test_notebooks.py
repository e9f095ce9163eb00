"""Every notebook runs from top to bottom in a real kernel, as its text promises, and is stored without outputs.

The kernels are of the environment that Binder builds.
"""

from __future__ import annotations

import html
import re
import socket
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
from environments import binder_python, clean_environ
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

pytestmark = pytest.mark.once

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MORE_THAN_FOUR_OF_A_TOKEN = re.compile(r"foundry_(?:module_auth|access_token|build_token)_…?[\w-]{5}")
LIFECYCLE = [
    ("1. Start the emulator", r"No runtimes yet"),
    ("2. Open a session", r"'moduleAuthToken': 'foundry_module_auth_….{4}'"),
    ("2. Open a session", r"'getJobUri': 'http://127\.0\.0\.1:\d+/_emulate/\S+/my-runtime/job'"),
    ("2. Open a session", r"my-runtime ● never polled"),
    ("3. Submit jobs that nobody runs yet", r'"id":"foundry_job_\w+".*"type":"queued"'),
    ("3. Submit jobs that nobody runs yet", r"3 jobs: 3 queued .*(…\w{6} \w+ ● queued .* [1-9][\d.]* ms.*){3}"),
    ("4. Be the runtime, by hand", r"'queryType': 'mean',\s+'query': {'values': \[1, 2, 6\]}"),
    ("4. Be the runtime, by hand", r"my-runtime ● connected"),
    ("4. Be the runtime, by hand", r"…\w{6} mean ● running"),
    ("4. Be the runtime, by hand", r"HTTP 204"),
    ("4. Be the runtime, by hand", r"(?m)^3\.0$"),
    ("4. Be the runtime, by hand", r"…\w{6} mean ● ok .* 3\.0 "),
    ("5. Inspect a job", r"'module_auth_token': 'foundry_module_auth_….{4}'"),
    ("5. Inspect a job", r"'result_body_utf8': '3\.0'"),
    ("6. Break things on purpose", r"poll with a wrong token +401 +invalid_module_auth_token"),
    ("6. Break things on purpose", r"result for a queued job +409 +job_not_running"),
    ("6. Break things on purpose", r"the same result again +204"),
    ("6. Break things on purpose", r"a different second result +409 +job_already_completed"),
    ("7. Fail a job by hand", r"JobFailed: there is no mean of no values"),
    ("7. Fail a job by hand", r"…\w{6} mean ● failed .* there is no mean of no values"),
    ("8. Say which functions there are", r"\[204, 204, 204\]"),
    (
        "8. Say which functions there are",
        r'mean {"type": "object", "properties".* slow {"type": "object"}.* spread {"type": "object", "properties"',
    ),
    ("9. A polling loop", r"(?m)^5$"),
    ("10. Call and wait", r"(?m)^3$"),
    ("10. Call and wait", r"(?m)^30$"),
    ("10. Call and wait", r"FunctionError: StatisticsError"),
    ("10. Call and wait", r"…\w{6} mean ● function error .* StatisticsError"),
    ("11. Better than asking: waiting", r"pause of 100 ms +10 +\d+ +\d+\.\d+"),
    ("11. Better than asking: waiting", r"Prefer: wait=10 +10 +0 +\d+\.\d+"),
    ("12. Reset", r"The executor's last poll was answered with 401"),
    ("12. Reset", r"\(401,\s+{'error': 'invalid_module_auth_token'"),
    ("12. Reset", r"0 jobs, 0 schemas"),
    ("12. Reset", r"my-runtime ● never polled"),
    ("12. Reset", r"session_reset +1"),
    ("13. Stop", r"is stopped"),
]
FUNCTIONS = [
    ("1. Start the emulator", r"(?s)@emu\.function above a function serves it.*0 runtimes, 0 jobs"),
    ("2. Two lines", r"(?m)^42$"),
    ("2. Two lines", r"session_opened.*app_bound.*schemas_posted.*job_queued.*job_started.*job_succeeded"),
    ("2. Two lines", r"\(42, 1\)"),
    ("3. A typed event", r"(?m)^4\.5$"),
    ("3. A typed event", r"item: string, price: float, amount: integer \(may be left out\) -> float"),
    ("3. A typed event", r"InvalidRequest: .* 'price': expected float, given a string \('4\.5'\); 'amont' is unknown"),
    ("3. A typed event", r"Did you mean 'amount'\?"),
    ("3. A typed event", r"(?m)^9\.0$"),
    ("4. A function that raises", r"(?s)FunctionError: ZeroDivisionError: division.*Cell In\[\d+\], line 4, in share"),
    ("4. A function that raises", r'succeeded, function error: b\'{"exception": "division by zero'),
    ("5. What a function prints", r"^the cell says: packed\n"),
    ("5. What a function prints", r"(?s)packing tea\nWARNING:root:only one left.*packing tea\n.*'packed'"),
    ("6. Streaming", r"\['3\.\.\.', '2\.\.\.', '1\.\.\.'\]"),
    ("6. Streaming", r'(?s)after 0\.\d s: "3\.\.\."\n.*after \d\.\d s: "2\.\.\."\n.*after \d\.\d s: "1\.\.\."\n'),
    ("7. Edit and run again", r"\(4\.05, <total v2 on 'notebook'"),
    ("7. Edit and run again", r"FunctionRefused: total can't be served: .*Leave 'event' without an annotation"),
    ("7. Edit and run again", r"total v2 is still served\."),
    ("8. Many calls", r"IntProgress.*0 of 4 jobs"),
    ("8. Many calls", r"(?s)Ada +90 +3 +ok +30\.0 +\d+\.\d\n.*Cy +10 +0 +function error +None.*Dee +75 +2 +ok +37\.5"),
    ("8. Many calls", r"Cy +ZeroDivisionError: division by zero"),
    ("8. Many calls", r"1000 ok in \d+\.\d s"),
    ("9. A whole cell of functions", r"Served: gross v1, net v1\."),
    ("9. A whole cell of functions", r"(?m)^100\.0$"),
    ("10. A function that never returns", r"running for 1(\.\d+)? s"),
    ("10. A function that never returns", r"Cancelled 1 job\."),
    ("10. A function that never returns", r"JobFailed: cancelled: by %cmemu cancel"),
    ("10. A function that never returns", r"nobody is at the door any more\n"),
    ("10. A function that never returns", r"\(0, 0\)"),
    ("11. Take it to the platform", r"not written, because of 1 thing:\n- wait_for_delivery uses 'delivery'"),
    ("11. Take it to the platform", r"Wrote 7 functions to app\.py"),
    (
        "11. Take it to the platform",
        r"(?s)import function\n\nVAT = 0\.19\n.*class Order:.*def _rounded.*@function\ndef double",
    ),
    ("11. Take it to the platform", r"@function\ndef total\(context, event: Order\) -> float:\n    return round\(0\.9"),
    ("11. Take it to the platform", r"@function\(streaming=True\)\ndef countdown"),
    ("12. Stop", r"is stopped"),
]
MODULES = [
    ("1. Start the emulator", r"0 runtimes, 0 jobs"),
    ("2. A program in a cell", r"(?s)Module.*shop.*replicas"),
    ("2. A program in a cell", r"\['responsive', 'responsive', 'responsive'\]"),
    ("2. A program in a cell", r"(?m)^9\.0$"),
    ("3. Watch a stream arrive", r"after 0\.\d s: 3\.\.\.\s+after \d\.\d s: 2\.\.\.\s+after \d\.\d s: 1\.\.\.\n"),
    ("4. Lose a replica", r"(?s)(running +[0-9a-f]{8}.*){3}queued"),
    ("4. Lose a replica", r"● failed .* replica [0-9a-f]{8} exited with code 143 "),
    ("4. Lose a replica", r'(● ok .* "delivered" .*){3}'),
    ("4. Lose a replica", r"\['responsive', 'responsive', 'responsive'\]"),
    ("5. Read the logs", r"(?s)INFO: one coffee\n.*INFO +foundry_job_\w+ +one coffee"),
    ("5. Read the logs", r"<deliver on 'shop', calls: 4 \(3 ok, 1 failed\)>"),
    ("6. A module in Node", r"Node is here\."),
    ("6. A module in Node", r"(?m)^42$"),
    ("7. A program of your own", r"(?s)GET_JOB_URI.*MODULE_AUTH_TOKEN.*RUNTIME_PORT"),
    ("8. Give a module a source", r"<Configuration: sources Crm>"),
    ("8. Give a module a source", r"(?s)signed in at https://crm\.example with 28 characters\n.*the password is …aple"),
    ("9. A program that raises while it is imported", r"raised an exception while it was imported"),
    ("9. A program that raises while it is imported", r"(?m)^ZeroDivisionError: division by zero$"),
    ("10. Stop", r"is stopped"),
]
DASHBOARD = [
    ("1. Start the emulator", r"0 runtimes, 0 jobs"),
    ("2. Something to look at", r"Served: total v1, deliver v1, countdown v1\."),
    ("3. Open the dashboard", r"Summary of the dashboard, written .* UTC: "),
    ("4. Watch jobs arrive", r"(?s)(ok +[01]\.\d.*){12}"),
    ("4. Watch jobs arrive", r"13\.50 EUR"),
    ("5. Try a function", r"3\.20 EUR"),
    ("6. A job that hangs", r"(?s)failed.*nobody waits a day for tea"),
    ("7. Charts without the dashboard", r"Timeline of 15 jobs on \d+ workers: 14 ok, 1 failed\."),
    ("7. Charts without the dashboard", r"Latency of 15 finished jobs: run time p50 .*; queue time p50 "),
]
END_TO_END = [
    ("1. Start the emulator", r"0 runtimes, 0 jobs"),
    ("2. A function and a client", r"(?m)^9\.0$"),
    ("2. A function and a client", r"com\.notebook\.computemodules\.total 0\.0\.0\n"),
    ("2. A function and a client", r"item: string \nprice: float \namount: integer \(may be left out\)"),
    ("3. What goes wrong", r"NotFoundError, QueryNotFound: No function 'totl' is served\. Did you mean 'total'\?"),
    ("3. What goes wrong", r"BadRequestError, MissingParameter: .* was called without 'price'"),
    ("3. What goes wrong", r"BadRequestError, InvalidQueryParameterValue: .* 'price': expected float, given a string"),
    ("3. What goes wrong", r"BadRequestError, QueryRuntimeError: .* failed: -1 of tea\?"),
    ("3. What goes wrong", r"(?m)^ValueError: -1 of tea\?$"),
    ("4. Call now, fetch later", r"SucceededExecution\(value=3\.0, type='succeeded'\)"),
    ("5. Receive a stream", r"(?s)after 0\.\d s: \['3\.\.\.'\].*after \d\.\d s: .*'1\.\.\.'\]\n"),
    ("6. As a query of an ontology", r"(?m)^4\.5$"),
    ("6. As a query of an ontology", r"(?m)^entrySet$"),
    ("6. As a query of an ontology", r"\[\{'key': 'coffee', 'value': 3(\.0)?\}\]"),
    ("7. An application of its own", r"\('cmemu-client', '….{4}'\)"),
    ("7. An application of its own", r"(?m)^2\.5$"),
    ("7. An application of its own", r"(?m)^401$"),
    ("8. The same as a module", r"'com\.notebook\.computemodules\.total' or 'com\.shop\.computemodules\.total'"),
    ("8. The same as a module", r"\[119\.0, 100(\.0)?\]"),
    ("8. The same as a module", r"total notebook ● ok .* total shop ● ok"),
    ("9. Stop", r"is stopped"),
]
SCALE = [
    ("1. One function", r"0 runtimes, 0 jobs"),
    ("1. One function", r"33,860 primes in \d+\.\d s"),
    ("2. A cluster", r"<Client: 'tcp://127\.0\.0\.1:\d+' processes=2 threads=2"),
    ("3. Eight replicas", r"<Replicas of 'notebook' on 2 workers: 8 of 8 responsive>"),
    ("3. Eight replicas", r"\d+\.\d s, \d+\.\d times as fast as in the notebook"),
    ("3. Eight replicas", r"7@127\.0\.0\.1:\d+"),
    ("4. A new version", r"\(25, '\d@127\.0\.0\.1:\d+'\)"),
    ("4. A new version", r"sieved up to 100\n"),
    ("5. A worker dies", r"4 ok, 4 failed .*nap ● failed "),
    ("5. A worker dies", r"replica \d@127\.0\.0\.1:\d+ ended: its worker"),
    ("5. A worker dies", r'nap ● ok {} "rested"'),
    ("5. A worker dies", r"(?s)replica_exited.*replica_started"),
    ("7. More, fewer, none", r"<Replicas of 'notebook' on [12] workers?: 2 of 2 responsive>"),
    ("7. More, fewer, none", r"(?m)^25$"),
    ("7. More, fewer, none", r"is stopped"),
]
PIPELINES = [
    ("1. Start the emulator", r"0 runtimes, 0 jobs"),
    ("2. Two streams", r"<Stream 'readings': 3 records; sensor STRING, celsius DOUBLE, at TIMESTAMP>"),
    ("2. Two streams", r"<Stream 'alarms': 0 records; sensor STRING, fahrenheit DOUBLE, at TIMESTAMP>"),
    ("2. Two streams", r"Summary of the dashboard, written .* UTC: "),
    ("3. Bind them to aliases", r"<Configuration: aliases in, out>"),
    ("4. A pipeline between the streams", r"Module.* watch .*aliases in, out; mode pipeline"),
    ("4. A pipeline between the streams", r"0 +north +95\.9 +2026-01-31 11:04:00\+00:00"),
    ("4. A pipeline between the streams", r"read {'sensor': 'south', 'celsius': None, 'at': 1769857260000}"),
    ("5. A dataset in, a dataset out", r"item:? STRING, amount:? LONG, price:? DECIMAL\(38, 2\)"),
    ("5. A dataset in, a dataset out", r"<Configuration: aliases orders, revenue>"),
    ("5. A dataset in, a dataset out", r"(?m)^0$"),
    ("5. A dataset in, a dataset out", r"\[Decimal\('3\.20'\), Decimal\('22\.50'\)\]"),
    ("6. What the token may read", r"<Configuration: aliases orders; environment SALARIES>"),
    ("6. What the token may read", r'"item","amount","price"\n"tea",2,4\.50\n"coffee",,3\.20\n'),
    ("6. What the token may read", r"403 ReadTableDatasetPermissionDenied\nThis token does not reach"),
    ("7. A module that dies", r"(?s)SNAPSHOT +COMMITTED.*APPEND +OPEN"),
    ("7. A module that dies", r"ApiError: The branch 'master' of the dataset 'revenue' has an open transaction"),
    ("7. A module that dies", r"(?m)^2 +cocoa +1\.10$"),
    ("8. All data at a glance", r"3 datasets .* revenue item STRING, total DECIMAL"),
    ("8. All data at a glance", r"'tags': 'ARRAY<STRING>', 'place': 'STRUCT<lat: DOUBLE, lon: DOUBLE>'"),
]
DEPLOY = [
    ("1. Start the emulator", r"0 runtimes, 0 jobs"),
    ("2. A function that works here", r"(?m)^9\.0$"),
    ("3. Check it", r"app\.py:7: error: This line contains what looks like a secret\."),
    ("3. Check it", r"app\.py:18: warning: total has no result type"),
    ("3. Check it", r"Checked app\.py: nothing wrong\."),
    ("4. Write the project", r"(?m)^3\.2$"),
    ("4. Write the project", r"Wrote 1 function to the project shop: app\.py, requirements\.txt, Dockerfile"),
    ("4. Write the project", r"@function\ndef total\(context, event: Order\) -> float:"),
    ("4. Write the project", r"FROM --platform=linux/amd64 python:3\.\d+-slim\n"),
    ("4. Write the project", r'"coffee", "price": 3\.2, "password": "a guess"}\) == 3\.2\n'),
    ("5. Check the project", r"Checked app\.py, Dockerfile, requirements\.txt: nothing wrong\."),
    ("5. Check the project", r"Dockerfile:3: error: USER root is a name"),
    ("5. Check the project", r"requirements\.txt: 1 error and 3 warnings\."),
    ("6. Run its tests", r"2 passed in "),
    ("9. Stop", r"is stopped"),
]
PROMISES = {
    "01-runtime-lifecycle": LIFECYCLE,
    "02-functions-in-cells": FUNCTIONS,
    "03-real-modules": MODULES,
    "04-dashboard": DASHBOARD,
    "05-end-to-end": END_TO_END,
    "06-scale-out": SCALE,
    "07-pipelines": PIPELINES,
    "08-deploy": DEPLOY,
}


class ThisPython(AsyncKernelManager):
    """Starts kernels of the interpreter that runs the tests, whatever is installed under the name python3."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """Return the specification."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="test", language="python")


class BindersPython(AsyncKernelManager):
    """Starts kernels as Binder would."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """Return the specification."""
        argv = [str(binder_python()), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="binder", language="python")


def execute(notebook: Any, home: Path, port: int = 0, kernel: type[AsyncKernelManager] = BindersPython) -> list[Any]:
    """Run a notebook with a HOME that holds nothing but the wanted ports; returns all outputs."""
    config = home / "ipython" / "profile_default" / "ipython_config.py"
    config.parent.mkdir(parents=True)
    config.write_text(f"get_config().CMEmu.port = {port}\nget_config().CMEmu.tls_port = 0\n")
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("HOME", str(home))
        environ.setenv("IPYTHONDIR", str(home / "ipython"))
        environ.setenv("JUPYTER_RUNTIME_DIR", str(home / "runtime"))
        client = NotebookClient(notebook, timeout=60, kernel_manager_class=kernel)
        client.execute(cwd=str(home), env=clean_environ())
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    # An object that fails to show itself does not fail its cell.
    assert [output for output in outputs if output["output_type"] == "error"] == []
    return outputs


def text_of(outputs: list[Any]) -> str:
    parts = [output.get("text", "") for output in outputs]
    parts += [str(value) for output in outputs for value in output.get("data", {}).values()]
    return "\n".join(parts)


def seen(outputs: list[Any]) -> str:
    """Return what is read of the outputs: of HTML its words, with one blank between them."""
    parts = [output.get("text", "") for output in outputs]
    for kind, value in (item for output in outputs for item in output.get("data", {}).items()):
        if kind == "text/html":
            words = html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", value, flags=re.DOTALL))
            parts.append(" ".join(words.split()))
        else:
            parts.append(str(value))
    return "\n".join(parts)


def of_stderr(outputs: list[Any]) -> str:
    return "".join(output["text"] for output in outputs if output.get("name") == "stderr")


def sections(cells: list[Any]) -> dict[str, str]:
    """Return what the cells under each heading printed and showed."""
    found: dict[str, list[Any]] = {}
    heading = ""
    for cell in cells:
        title = re.match(r"## (.+)", cell.source) if cell.cell_type == "markdown" else None
        heading = title[1] if title else heading
        found.setdefault(heading, []).extend(cell.get("outputs", []))
    return {heading: seen(outputs) for heading, outputs in found.items()}


@dataclass
class Run:
    """A tutorial that was run twice in one kernel whose wanted port was taken, and what its cells showed."""

    home: Path
    port: int
    first: dict[str, str]
    outputs: list[Any]
    token: str


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def tutorial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a tutorial from top to bottom, ask for the token, and run it again."""
    home, notebook, again = tmp_path_factory.mktemp("home"), *(nbformat.read(request.param, 4) for _ in "12")
    for cell in again.cells:
        cell["id"] = f"again-{cell['id']}"[:64]
    first = list(notebook.cells)
    asking = nbformat.v4.new_code_cell("print(emu.token)")
    notebook.cells += [asking, *again.cells]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        execute(notebook, home, port)
    outputs = [output for cell in notebook.cells if cell is not asking for output in cell.get("outputs", [])]
    return Run(home, port, sections(first), outputs, asking.outputs[0]["text"].strip())


def test_it_runs_without_errors_and_again_in_the_same_kernel(tutorial: Run) -> None:
    told = of_stderr(tutorial.outputs)
    # Once a start, unless the ports stay those of the first.
    warning = rf"Port {tutorial.port} is in use; the emulator listens on port \d+\."
    assert re.search(warning, told)
    assert [line for line in told.splitlines() if line and not re.search(warning, line)] == []


def test_it_shows_no_token(tutorial: Run) -> None:
    shown = text_of(tutorial.outputs)
    assert len(tutorial.token) > 30
    assert tutorial.token not in shown
    assert not MORE_THAN_FOUR_OF_A_TOKEN.search(shown)


def test_it_shows_no_text_that_pandas_has_cut(tutorial: Run) -> None:
    assert re.findall(r"<td>([^<]+\.\.\.)</td>", text_of(tutorial.outputs)) == []


def test_it_leaves_no_module_behind(tutorial: Run) -> None:
    assert list(tutorial.home.rglob("app.py")) == []


def test_it_does_what_its_text_says(tutorial: Run, request: pytest.FixtureRequest) -> None:
    promises = PROMISES[request.node.callspec.id]
    broken = [(heading, promise) for heading, promise in promises if not re.search(promise, tutorial.first[heading])]
    assert broken == []
    assert {heading for heading, text in tutorial.first.items() if text} == {heading for heading, _ in promises}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert {cell.execution_count for cell in code} == {None}
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("tutorial", sorted(PROMISES)[1:])
def test_each_code_cell_of_a_tutorial_is_announced_by_a_sentence(tutorial: str) -> None:
    kinds = [cell.cell_type for cell in nbformat.read(FOLDER / f"{tutorial}.ipynb", 4).cells]
    assert ("code", "code") not in pairwise(kinds)
