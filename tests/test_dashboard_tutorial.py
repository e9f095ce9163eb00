"""A walk through the dashboard's tutorial, as its reader takes it: in JupyterLab, with the mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dashboard_page import function_button, open_tutorial
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dashboard_page import Dashboard
    from playwright.sync_api import Locator

ORDER = {"item": "tea", "price": "4.50", "day": "2026-01-02", "amount": 3}
pytestmark = [pytest.mark.browser, pytest.mark.long_lived]


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with open_tutorial(tmp_path_factory.mktemp("lab")) as opened:
        yield opened


def card(panel: Locator, name: str) -> Locator:
    return panel.get_by_role("region", name=name)


def test_the_jobs_of_the_tutorial_are_there_and_more_arrive_live(dashboard: Dashboard) -> None:
    expect(dashboard.count("14 ok")).to_be_visible()
    expect(dashboard.count("1 failed")).to_be_visible()
    job_id = dashboard.submit("total", ORDER)
    expect(dashboard.outcome(job_id)).to_have_text("ok")
    expect(dashboard.count("15 ok")).to_be_visible()


def test_its_form_is_filled_and_what_may_be_left_out_is(dashboard: Dashboard) -> None:
    panel = dashboard.tab("Functions")
    function_button(panel, "total").click()
    form = card(panel, "Try it")
    form.get_by_label("item", exact=True).fill("coffee")
    form.get_by_label("day", exact=True).fill("2026-01-03")
    form.get_by_role("button", name="Run", exact=True).click()
    expect(form).to_contain_text("price: expected a decimal number, like 1.10, given nothing.")
    form.get_by_label("price", exact=True).fill("3.20")
    form.get_by_role("button", name="Run", exact=True).click()
    expect(card(panel, "The result").get_by_label("Result", exact=True)).to_have_text('"3.20 EUR"')
    form.get_by_label("give amount").check()
    form.get_by_label("amount", exact=True).fill("2")
    form.get_by_role("button", name="Run", exact=True).click()
    expect(card(panel, "The result").get_by_label("Result", exact=True)).to_have_text('"6.40 EUR"')


def test_the_result_of_a_stream_grows(dashboard: Dashboard) -> None:
    panel = dashboard.tab("Functions")
    function_button(panel, "countdown").click()
    card(panel, "Try it").get_by_label("Query", exact=True).fill('{"start": 3000}')
    card(panel, "Try it").get_by_role("button", name="Run", exact=True).click()
    result = card(panel, "The result")
    arrived = result.get_by_label("Result, as far as it has arrived")
    expect(arrived).to_contain_text('"left": 3000')
    expect(arrived).to_contain_text('"left": 2998')
    result.get_by_role("button", name="Cancel").click()
    expect(result).to_contain_text("in the dashboard")
    function_button(panel, "countdown").click()


def test_a_job_that_hangs_is_found_and_failed_and_another_run_again(dashboard: Dashboard) -> None:
    hanging, done = dashboard.submit("deliver", {"seconds": 86_400}), dashboard.submit("total", ORDER)
    panel = dashboard.tab("Jobs")
    panel.get_by_label("Outcome").select_option("running")
    expect(dashboard.row(done)).to_have_count(0)
    dashboard.row(hanging).get_by_role("button").click()
    job = card(panel, "The open job")
    job.get_by_role("button", name="Fail…").click()
    job.get_by_label("Reason").fill("nobody waits")
    job.get_by_role("button", name="Fail", exact=True).click()
    expect(job.get_by_label("Error")).to_contain_text("failed nobody waits")
    panel.get_by_role("button", name="Clear").click()
    dashboard.row(done).get_by_role("button").click()
    expect(job.get_by_text(done).first).to_be_visible()
    job.get_by_role("button", name="Run again").click()
    expect(job.get_by_text(done)).to_have_count(0)
    expect(job.get_by_label("Result", exact=True)).to_have_text('"13.50 EUR"')
    expect(job.get_by_label("Logs")).to_have_text("one tea\n")
