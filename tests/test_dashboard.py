"""The dashboard as its users see it: in JupyterLab in Chromium, with clients and executors outside."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from typing import TYPE_CHECKING

import pytest
from dashboard_page import function_button, open_lab
from lab_browser import screenshot
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from dashboard_page import Dashboard
    from playwright.sync_api import Page

FUNCTIONS = """
import threading
from dataclasses import dataclass
from typing import Iterable

@dataclass
class Pair:
    x: int
    y: int

@emu.function
def add(context, event: Pair) -> int:
    print('adding', event.x, event.y)
    return event.x + event.y

@emu.function
def fail(context, event):
    raise ValueError('no such thing')

gate = threading.Event()

@emu.function
def hang(context, event):
    gate.wait()
    return 'late'

@emu.function(streaming=True)
def count(context, event) -> Iterable[dict[str, int]]:
    yield {'n': 1}
    gate.wait()
    yield {'n': 2}
"""
pytestmark = [pytest.mark.browser, pytest.mark.long_lived]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., AbstractContextManager[Dashboard]]]:
    with open_lab(tmp_path_factory.mktemp("lab")) as open_notebook:
        yield open_notebook


@pytest.fixture(scope="module", params=["7.4", "7.3", "6.30"] if os.environ.get("CMEMU_LONG") else ["7.4", "6.30"])
def dashboard(
    request: pytest.FixtureRequest, lab: Callable[..., AbstractContextManager[Dashboard]]
) -> Iterator[Dashboard]:
    with lab(f"dash-{request.param}.ipynb", request.param, [FUNCTIONS]) as opened:
        yield opened


def test_jobs_of_an_outside_client_arrive_live(dashboard: Dashboard) -> None:
    panel = dashboard.tab("Jobs")
    first = dashboard.submit("add", {"x": 1, "y": 2})
    expect(dashboard.outcome(first)).to_have_text("ok")
    dashboard.row(first).click()
    card = panel.get_by_role("region", name="The open job")
    expect(card.get_by_label("Result", exact=True)).to_have_text("3")
    expect(card.get_by_label("Query")).to_have_text('{\n  "x": 1,\n  "y": 2\n}')
    expect(card.get_by_label("Logs")).to_have_text("adding 1 2\n")
    expect(card.get_by_label("Timeline")).to_contain_text(re.compile("queued.*running.*succeeded"))
    screenshot(dashboard.page, "dashboard-jobs")
    card.get_by_role("button", name="Edit and run").click()
    expect(card.get_by_role("region", name="Edit and run").get_by_label("y", exact=True)).to_have_value("2")
    card.get_by_role("button", name="Discard").click()
    card.get_by_role("button", name="Compare").click()
    expect(card.get_by_text("There is no other job of this function")).to_be_visible()
    card.get_by_role("button", name="Done").click()
    expect(card.get_by_label("Result", exact=True)).to_have_text("3")


def test_a_job_is_run_again_and_others_failed_and_cancelled(dashboard: Dashboard) -> None:
    panel = dashboard.tab("Jobs")
    hanging = dashboard.submit("hang")
    expect(dashboard.row(hanging)).to_contain_text("running")
    dashboard.row(hanging).get_by_role("button").click()
    card = panel.get_by_role("region", name="The open job")
    why = card.locator(".cmemu-waits")
    ends = f"on a worker of 'notebook'; emu.job(\"{hanging[-6:]}\").cancel() or %cmemu cancel hang ends it."
    expect(why).to_have_text(re.compile(f"^'hang' has been running for .* s {re.escape(ends)}$"))
    screenshot(dashboard.page, "dashboard-why")
    card.get_by_role("button", name="Fail…").click()
    card.get_by_label("Reason").fill("I <b>said</b> so")
    card.get_by_role("button", name="Fail", exact=True).click()
    expect(why).to_be_hidden()
    expect(card.get_by_label("Error")).to_contain_text("failed I <b>said</b> so")
    expect(dashboard.row(hanging)).to_contain_text("failed")
    card.get_by_role("button", name="Run again").click()
    expect(card.get_by_text(hanging)).to_have_count(0)
    expect(card.locator("h4")).to_contain_text("running")
    card.get_by_role("button", name="Fail…").click()
    dashboard.page.keyboard.press("Enter")
    expect(card.get_by_label("Error")).to_contain_text("failed failed in the dashboard")
    cancel = card.get_by_role("button", name="Cancel")
    expect(cancel).to_be_hidden()
    card.get_by_role("button", name="Run again").click()
    expect(card.locator("h4")).to_contain_text("running")
    screenshot(dashboard.page, "dashboard-cancel")
    cancel.click()
    expect(card.get_by_label("Error")).to_contain_text("cancelled in the dashboard")
    expect(cancel).to_be_hidden()
    card.get_by_role("button", name="Close").click()


def test_what_a_function_raised_is_shown_as_its_own_traceback_and_not_in_the_logs_too(dashboard: Dashboard) -> None:
    panel = dashboard.tab("Jobs")
    wrong = dashboard.submit("fail")
    dashboard.row(wrong).click()
    card = panel.get_by_role("region", name="The open job")
    expect(card.get_by_label("Error")).to_contain_text("ValueError no such thing")
    expect(card.get_by_label("Where it was raised")).to_have_text(
        re.compile(r"^Cell In\[\d+\], line \d+, in fail\n  raise ValueError\('no such thing'\)$")
    )
    expect(card.get_by_label("Traceback")).to_be_hidden()
    card.get_by_text("Traceback", exact=True).click()
    expect(card.get_by_label("Traceback")).to_have_text(
        re.compile(
            r"^ValueError: no such thing\n\nTraceback \(most recent call last\):\n"
            r"  Cell In\[\d+\], line \d+, in fail\n    raise ValueError\('no such thing'\)\nValueError: no such thing$"
        )
    )
    expect(card.get_by_label("Result", exact=True)).to_be_hidden()
    expect(card.get_by_label("Logs")).to_be_hidden()
    screenshot(dashboard.page, "dashboard-function-error")
    card.get_by_role("button", name="Close").click()


def test_behind_a_hub_the_info_panel_says_where_a_browser_reaches_it(dashboard: Dashboard) -> None:
    address = dashboard.info().locator(".cmemu-fact-proxy_url")
    expect(address).to_be_hidden()
    dashboard.run("__import__('os').environ.update(JUPYTERHUB_SERVICE_PREFIX='/user/jo/')")
    expect(address).to_have_text(f"/user/jo/proxy/{dashboard.url.rpartition(':')[2]}")
    expect(address).to_be_visible()
    dashboard.run("__import__('os').environ.pop('JUPYTERHUB_SERVICE_PREFIX')")
    expect(address).to_be_hidden()


def test_the_jobs_are_filtered(dashboard: Dashboard) -> None:
    panel = dashboard.tab("Jobs")
    wrong, right = dashboard.submit("fail"), dashboard.submit("add", {"x": 40404, "y": 2})
    expect(dashboard.outcome(wrong)).to_have_text("error")
    panel.get_by_label("Outcome").select_option("function error")
    expect(dashboard.row(right)).to_have_count(0)
    expect(dashboard.row(wrong)).to_have_count(1)
    panel.get_by_role("button", name="Clear").click()
    panel.get_by_label("Search").fill("40404")
    expect(dashboard.row(wrong)).to_have_count(0)
    expect(dashboard.row(right)).to_have_count(1)
    panel.get_by_label("Search").fill("nothing says this")
    expect(panel.get_by_text("No job matches.")).to_be_visible()
    panel.get_by_role("button", name="Clear").click()
    expect(dashboard.row(wrong)).to_have_count(1)


def test_tabs_the_search_and_a_job_need_no_cell_to_end(dashboard: Dashboard) -> None:
    """Where the kernel has no subshells, it sends ahead what may be chosen while the cell runs."""
    has_subshells = dashboard.run("__import__('ipykernel').version_info[0]") != "6"
    busy = dashboard.root.get_by_text("A cell keeps the kernel busy.")
    go_on = dashboard.folder / f"{dashboard.url.rpartition(':')[2]} goes on"
    dashboard.run_cell(f"import time\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.1)")
    expect(dashboard.page.get_by_text("[*]:")).to_be_visible()
    try:
        other, job_id = dashboard.submit("add", {"x": 2, "y": 3}), dashboard.submit("add", {"x": 1, "y": 50505})
        expect(dashboard.tab("Events").get_by_text(job_id[-6:]).first).to_be_visible()
        expect(function_button(dashboard.tab("Functions"), "add")).to_be_visible()
        expect(dashboard.tab("Runtimes").get_by_text("notebook").first).to_be_visible()
        panel = dashboard.tab("Jobs")
        expect(dashboard.outcome(other)).to_have_text("ok")
        panel.get_by_label("Search").fill("fn:add y=50505")
        expect(panel.locator("tbody tr")).to_have_count(1)
        dashboard.row(job_id).get_by_role("button").click()
        card = panel.get_by_role("region", name="The open job")
        expect(card).to_contain_text("50506")
        if has_subshells:
            expect(card.get_by_label("Result", exact=True)).to_have_text("50506")
        else:
            expect(card).to_contain_text("The rest is shown when the cell that runs now has ended.")
            expect(panel).to_contain_text(re.compile(r"1 of the newest \d+ jobs"))
            screenshot(dashboard.page, "dashboard-busy")
            panel.get_by_label("Outcome").select_option("failed")
            expect(panel.get_by_text("No job matches.")).to_be_visible()
        expect(busy).to_have_count(0)
        expect(dashboard.page.get_by_text("[*]:")).to_be_visible()
    finally:
        go_on.touch()
    expect(card.get_by_label("Result", exact=True)).to_have_text("50506")
    card.get_by_role("button", name="Close").click()
    panel.get_by_role("button", name="Clear").click()
    expect(dashboard.row(other)).to_have_count(1)
    expect(dashboard.page.get_by_text("[*]:")).to_have_count(0)


def test_the_keyboard_is_enough(dashboard: Dashboard) -> None:
    job_id = dashboard.submit("add", {"x": 5, "y": 6})
    dashboard.tab("Jobs").get_by_label("Search").fill(job_id)
    expect(dashboard.row(job_id)).to_contain_text("ok")
    dashboard.row(job_id).get_by_role("button").focus()
    dashboard.page.keyboard.press("Enter")
    card = dashboard.root.get_by_role("region", name="The open job")
    expect(card.get_by_label("Result", exact=True)).to_have_text("11")
    dashboard.root.get_by_role("tab", name="Jobs").focus()
    dashboard.page.keyboard.press("ArrowRight")
    expect(dashboard.root.get_by_role("tab", name="Functions")).to_have_attribute("aria-selected", "true")
    expect(dashboard.root.get_by_role("tabpanel", name="Functions")).to_be_visible()
    dashboard.page.keyboard.press("ArrowLeft")
    dashboard.root.get_by_role("button", name="Clear").click()
    card.get_by_role("button", name="Close").click()


def test_a_function_is_tried_by_its_form_and_a_stream_shows_as_it_comes(dashboard: Dashboard) -> None:
    panel = dashboard.tab("Functions")
    function_button(panel, "add").click()
    form, result = panel.get_by_role("region", name="Try it"), panel.get_by_role("region", name="The result")
    form.get_by_label("x", exact=True).fill("9007199254740993")
    form.get_by_label("y", exact=True).fill("-1")
    form.get_by_role("button", name="Run", exact=True).click()
    expect(result.get_by_label("Result", exact=True)).to_have_text("9007199254740992")
    function_button(panel, "count").click()
    form.get_by_role("button", name="Run", exact=True).click()
    expect(result.get_by_label("Result, as far as it has arrived")).to_contain_text('"n": 1')
    assert dashboard.run("gate.set()") == "None"
    expect(result.get_by_label("Result", exact=True)).to_contain_text('"n": 2')
    dashboard.run("gate.clear()")
    function_button(panel, "count").click()


def test_what_the_schema_refuses_is_said_beside_the_form(dashboard: Dashboard) -> None:
    panel = dashboard.tab("Functions")
    function_button(panel, "add").click()
    form = panel.get_by_role("region", name="Try it")
    form.get_by_role("button", name="JSON").click()
    form.get_by_role("textbox").last.fill('{"x": "one", "y": 2}')
    form.get_by_role("button", name="Run", exact=True).click()
    expect(form.get_by_role("alert")).to_contain_text("'x': expected integer, given a string ('one')")
    function_button(panel, "add").click()


def test_the_runtimes_say_who_polls_and_are_reset(dashboard: Dashboard) -> None:
    assert dashboard.run("emu.open_runtime('lonely', deployed_app_rid='ri.lonely').id") == "'lonely'"
    panel = dashboard.tab("Runtimes")
    row = panel.get_by_role("row").filter(has_text="lonely")
    expect(row).to_contain_text("never polled")
    expect(panel.get_by_role("row").filter(has_text="notebook").first).to_contain_text("connected")
    token = dashboard.run("emu.runtime('lonely').token")
    row.get_by_role("button", name="lonely", exact=True).click()
    panel.get_by_role("button", name="Reset session…").click()
    panel.get_by_role("button", name="Reset", exact=True).click()
    expect(dashboard.root.get_by_text("The session was reset")).to_be_visible()
    assert dashboard.run("emu.runtime('lonely').token") != token
    expect(panel).to_contain_text("ri.lonely (master)")
    row.get_by_role("button", name="lonely", exact=True).click()


def test_the_environment_and_the_token_are_copied_and_the_token_is_hidden(dashboard: Dashboard) -> None:
    assert dashboard.token not in dashboard.page.content()
    dashboard.info().get_by_role("button", name="Copy", exact=True).click()
    expect(dashboard.root.get_by_text("The token was copied.")).to_be_visible()
    assert pasted(dashboard.page) == dashboard.token
    assert dashboard.token not in dashboard.page.content()
    dashboard.root.get_by_role("button", name="Show", exact=True).click()
    expect(dashboard.root.locator(".cmemu-fact-token")).to_have_text(dashboard.token)
    dashboard.root.get_by_role("button", name="Hide", exact=True).click()
    expect(dashboard.root.locator(".cmemu-fact-token")).not_to_have_text(dashboard.token)
    panel = dashboard.tab("Runtimes")
    panel.get_by_role("button", name="notebook", exact=True).click()
    panel.get_by_role("button", name="Copy environment").click()
    expect(dashboard.root.get_by_text("The environment was copied")).to_be_visible()
    assert "export GET_JOB_URI=https://127.0.0.1:" in pasted(dashboard.page)


def pasted(page: Page) -> str:
    """Return what the clipboard holds."""
    text: str = page.evaluate("() => navigator.clipboard.readText()")
    return text


def test_events_are_filtered_and_empty_polls_come_when_asked_for(dashboard: Dashboard) -> None:
    job_id = dashboard.submit("add", {"x": 1, "y": 1})
    panel = dashboard.tab("Events")
    rows = panel.locator("tbody tr")
    expect(rows.filter(has_text=job_id[-6:]).first).to_be_visible()
    panel.get_by_label("Kind").select_option("job_queued")
    expect(rows.filter(has_text="job_started")).to_have_count(0)
    expect(rows.filter(has_text=job_id[-6:])).to_have_count(1)
    panel.get_by_label("Kind").select_option("")
    runtime = "/_emulate/foundry/compute-modules/runtimes"
    session = dashboard.send("POST", runtime, {"runtimeId": "quiet"})
    panel.get_by_label("Text").fill("quiet")
    expect(rows.filter(has_text="session_opened")).to_have_count(1)
    request = urllib.request.Request(session["getJobUri"], headers={"Module-Auth-Token": session["moduleAuthToken"]})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 204
    expect(rows.filter(has_text="runtime_connected")).to_have_count(1)
    expect(rows.filter(has_text="poll_empty")).to_have_count(0)
    panel.get_by_label("with empty polls and chunks").check()
    expect(rows.filter(has_text="poll_empty")).to_have_count(1)
    panel.get_by_label("Text").fill("")


HOSTILE = '<script>window.hacked=1</script>"><img src=x onerror=window.hacked=2>\u202egnp\x00' + "A" * 300


def test_hostile_names_and_results_never_execute_and_break_no_layout(dashboard: Dashboard) -> None:
    runtime = dashboard.send(
        "POST",
        "/_emulate/foundry/compute-modules/runtimes",
        {"runtimeId": f"a\nb{HOSTILE[:90]}", "displayName": HOSTILE},
    )
    schema = {"functionName": HOSTILE, "inputs": [{"name": HOSTILE, "dataType": {"type": HOSTILE}}], "output": {}}
    post(runtime["postSchemaUri"], runtime["moduleAuthToken"], json.dumps([schema]).encode())
    job = dashboard.send(
        "POST", runtime["getJobUri"][len(dashboard.url) :] + "s", {"queryType": HOSTILE, "query": HOSTILE}
    )
    request = urllib.request.Request(runtime["getJobUri"], headers={"Module-Auth-Token": runtime["moduleAuthToken"]})
    urllib.request.urlopen(request, timeout=20).close()
    post(f"{runtime['postResultUri']}/{job['jobId']}", runtime["moduleAuthToken"], (HOSTILE * 12_000).encode())
    schema = {"fields": [{"name": HOSTILE, "schema": {"nullable": True, "dataType": {"type": "string"}}}]}
    fields = {"name": HOSTILE, "parentFolderRid": "ri.folder", "schema": schema}
    stream = dashboard.send("POST", "/api/v2/streams/datasets/create?preview=true", fields)["rid"]
    record = f"/stream-proxy/api/streams/{stream}/branches/master/jsonRecord"
    dashboard.send("POST", record, {HOSTILE: HOSTILE})
    dashboard.tab("Jobs")
    dashboard.row(job["jobId"]).click()
    card = dashboard.root.get_by_role("region", name="The open job")
    expect(card.get_by_label("Result", exact=True)).to_contain_text("<script>")
    width = "(root) => root.scrollWidth <= root.clientWidth && root.getBoundingClientRect().right <= innerWidth"
    for name in ("Jobs", "Functions", "Runtimes", "Data", "Timeline", "Events"):
        panel = dashboard.tab(name)
        if name == "Data":
            panel.get_by_role("button").filter(has_text="<script>").click()
            rows = panel.locator(".cmemu-preview tbody tr")
            expect(rows).to_have_count(1)
            dashboard.send("POST", record, {HOSTILE: "the second one"})
            expect(rows.first).to_contain_text("the second one")
            expect(rows.nth(1)).to_contain_text("[U+202E]gnp␀AAA")
        if name == "Functions":
            panel.get_by_role("button").filter(has_text="<script>").click()
            expect(panel.get_by_role("region", name="Try it").get_by_role("textbox")).to_be_visible()
            expect(panel.get_by_role("region", name="Try it")).to_contain_text("[U+202E]gnp␀AAA")
            expect(panel.get_by_role("region", name="Try it")).not_to_contain_text("\u202e")
        expect(panel).to_contain_text("<script>") if name != "Timeline" else None
        screenshot(dashboard.page, f"dashboard-hostile-{name}")
        assert dashboard.root.evaluate(width), name
    assert dashboard.page.evaluate("window.hacked") is None
    dashboard.send("DELETE", runtime["getJobUri"][len(dashboard.url) : -len("/job")])


def post(address: str, token: str, body: bytes) -> None:
    """Post as a module does."""
    request = urllib.request.Request(address, body, {"Module-Auth-Token": token}, method="POST")
    urllib.request.urlopen(request, timeout=20).close()
