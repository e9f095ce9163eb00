"""The dashboard's forms in Chromium: an input for each of Foundry's types, and what arrives in the function."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from dashboard_page import function_button, open_dashboard
from lab_browser import screenshot
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dashboard_page import Dashboard
    from playwright.sync_api import Locator

EVERYTHING = """
import datetime
from dataclasses import dataclass
from decimal import Decimal
from typing import Optional

from compute_modules.function_registry.types import Byte, Double, Long, Short

@dataclass
class Part:
    name: str
    price: Decimal

@dataclass
class Everything:
    a_bool: bool
    a_bytes: bytes
    a_date: datetime.date
    a_datetime: datetime.datetime
    a_decimal: Decimal
    a_float: float
    an_int: int
    a_str: str
    a_byte: Byte
    a_short: Short
    a_long: Long
    a_double: Double
    a_list: list[datetime.date]
    a_set: set[int]
    a_dict: dict[str, Decimal]
    by_date: dict[datetime.date, int]
    an_optional: Optional[int]
    another: Optional[str]
    a_part: Part
    parts: list[Part]
    left_out: int = 7
    given: int = 8

@emu.function
def everything(context, event: Everything) -> dict[str, str]:
    return {name: repr(value) for name, value in vars(event).items()}

@emu.function
def twice(context, event) -> str:
    return repr(event)
"""
ARRIVED = {
    "a_bool": "True",
    "a_bytes": "b'raw \\xc3\\xbc'",
    "a_date": "datetime.date(2026, 1, 2)",
    "a_datetime": "datetime.datetime(2026, 1, 2, 3, 4, 5, 600000)",
    "a_decimal": "Decimal('1.10')",
    "a_float": "-0.0015",
    "an_int": "9007199254740993",
    "a_str": "'two\\nlines \"quoted\"'",
    "a_byte": "-128",
    "a_short": "300",
    "a_long": "9223372036854775807",
    "a_double": "2.5",
    "a_list": "[datetime.date(2026, 2, 3), datetime.date(2026, 2, 1)]",
    "a_set": "{4}",
    "a_dict": "{'first': Decimal('0.1')}",
    "by_date": "{datetime.date(2026, 3, 4): 5}",
    "an_optional": "None",
    "another": "'there'",
    "a_part": "Part(name='tea', price=Decimal('4.50'))",
    "parts": "[Part(name='cup', price=Decimal('1'))]",
    "left_out": "7",
    "given": "9",
}
pytestmark = [pytest.mark.browser, pytest.mark.long_lived]


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with open_dashboard("7.4", tmp_path_factory.mktemp("lab"), [EVERYTHING]) as opened:
        yield opened


@pytest.fixture
def form(dashboard: Dashboard) -> Iterator[Locator]:
    """The form of the function `everything`, as new: another function's is opened before."""
    function_button(dashboard.tab("Functions"), "twice").click()
    yield from opened_form(dashboard, "everything")


def opened_form(dashboard: Dashboard, name: str) -> Iterator[Locator]:
    panel = dashboard.tab("Functions")
    function_button(panel, name).click()
    form = panel.get_by_role("region", name="Try it")
    expect(form).to_be_visible()
    yield form
    function_button(panel, name).click()
    expect(form).to_be_hidden()


def fill(place: Locator, **values: str) -> None:
    for name, value in values.items():
        field(place, name).fill(value)


def field(place: Locator, name: str) -> Locator:
    """Return the input with this label."""
    return place.get_by_label(name, exact=True)


def group(form: Locator, name: str) -> Locator:
    return form.get_by_role("group", name=re.compile(f"^{name} "))


def fill_everything(form: Locator) -> None:
    field(form, "a_bool").check()
    fill(form, a_bytes="raw ü", a_date="2026-01-02", a_decimal="1.10", a_float="-1.5e-3", an_int="9007199254740993")
    fill(form, a_str='two\nlines "quoted"', a_byte="-128", a_short="300", a_long="9223372036854775807", a_double="2.5")
    field(form, "a_datetime (UTC)").fill("2026-01-02T03:04:05.600")
    dates, numbers = group(form, "a_list"), group(form, "a_set")
    for position, date in enumerate(("2026-02-03", "2026-02-02", "2026-02-01")):
        dates.get_by_role("button", name="add element").click()
        field(dates, f"element {position}").fill(date)
    dates.get_by_role("button", name="remove element 1").click()
    numbers.get_by_role("button", name="add element").click()
    fill(numbers, **{"element 0": "4"})
    for name, key, value in (("a_dict", "first", "0.1"), ("by_date", "2026-03-04", "5")):
        entries = group(form, name)
        entries.get_by_role("button", name="add entry").click()
        fill(entries, **{"key 0": key, "value 0": value})
    field(form, "give a value for another").check()
    field(form, "another").fill("there")
    fill(group(form, "a_part"), name="tea", price="4.50")
    parts = group(form, "parts")
    parts.get_by_role("button", name="add element").click()
    fill(parts, name="cup", price="1")
    field(form, "give given").check()
    field(form, "given").fill("9")


def submit(form: Locator) -> None:
    form.get_by_role("button", name="Run", exact=True).click()


def result(dashboard: Dashboard) -> Locator:
    card = dashboard.root.get_by_role("tabpanel", name="Functions").get_by_role("region", name="The result")
    return card.get_by_label("Result", exact=True)


def test_every_type_is_filled_in_and_arrives_in_the_function(dashboard: Dashboard, form: Locator) -> None:
    fill_everything(form)
    screenshot(dashboard.page, "dashboard-form")
    submit(form)
    expect(result(dashboard)).to_contain_text("a_bool")
    shown: Any = json.loads(result(dashboard).inner_text())
    assert shown == ARRIVED


def test_what_is_missing_or_wrong_is_said_beside_its_input_and_nothing_is_sent(
    dashboard: Dashboard, form: Locator
) -> None:
    jobs = dashboard.run("len(emu.jobs)")
    fill_everything(form)
    fill(form, an_int="1.5", a_float="many", a_decimal="")
    field(form, "a_date").fill("")
    submit(form)
    expect(form).to_contain_text('an_int: expected an integer of any size, like -42, given "1.5".')
    expect(form).to_contain_text('a_float: expected a number, like -1.5 or 2e-3, given "many".')
    expect(form).to_contain_text("a_decimal: expected a decimal number, like 1.10, given nothing.")
    expect(form).to_contain_text("a_date: expected a date, given nothing.")
    for name in ("an_int", "a_float", "a_decimal", "a_date"):
        expect(field(form, name)).to_have_attribute("aria-invalid", "true")
    expect(field(form, "a_date")).to_be_focused()
    screenshot(dashboard.page, "dashboard-form-wrong")
    assert dashboard.run("len(emu.jobs)") == jobs
    fill(form, an_int="15", a_float="1", a_decimal="2", a_date="2026-01-02")
    submit(form)
    expect(result(dashboard)).to_contain_text('"an_int": "15"')


def test_a_map_refuses_a_key_that_is_there_twice(form: Locator) -> None:
    fill_everything(form)
    entries = group(form, "a_dict")
    entries.get_by_role("button", name="add entry").click()
    fill(entries, **{"key 1": "first", "value 1": "2"})
    submit(form)
    expect(entries).to_contain_text('The key "first" occurs twice: expected another one.')


def test_the_json_side_begins_with_the_form_and_says_what_is_no_json(dashboard: Dashboard, form: Locator) -> None:
    fill_everything(form)
    form.get_by_role("button", name="JSON").click()
    query = form.get_by_label("Query", exact=True)
    assert json.loads(query.input_value())["an_int"] == 9007199254740993
    query.fill(query.input_value().replace("9007199254740993", "9007199254740995"))
    submit(form)
    expect(result(dashboard)).to_contain_text('"an_int": "9007199254740995"')
    query.fill("{broken")
    submit(form)
    expect(form).to_contain_text('Query: expected JSON, which has no NaN and no Infinity, given "{broken"')
    form.get_by_role("button", name="Form").click()
    assert field(form, "an_int").input_value() == "9007199254740993"


def test_a_form_that_is_half_filled_in_stays_when_the_schema_changes_and_says_so(
    dashboard: Dashboard, form: Locator
) -> None:
    fill(form, a_str="half")
    schema = json.dumps({"inputs": [{"name": "only", "dataType": {"type": "string"}}]}).encode()
    changed = f"[('everything', {schema!r})]"
    payload = dashboard.run("emu.lifecycle.find_schema('notebook', 'everything').schema_payload")
    dashboard.run(f"emu.change(lambda state: state.post_schemas('notebook', {changed}))")
    expect(form.get_by_text("The schema has changed since this form was made.")).to_be_visible()
    assert field(form, "a_str").input_value() == "half"
    form.get_by_role("button", name="New form").click()
    expect(field(form, "only")).to_have_value("")
    dashboard.run(f"emu.change(lambda state: state.post_schemas('notebook', [('everything', {payload})]))")
    expect(field(form, "a_str")).to_have_value("")


def test_a_schema_of_another_dialect_is_written_as_json(dashboard: Dashboard) -> None:
    dashboard.run("emu.change(lambda state: state.post_schemas('notebook', [('twice', b'{\"type\": \"object\"}')]))")
    panel = dashboard.tab("Functions")
    for form in opened_form(dashboard, "twice"):
        expect(panel.get_by_text("The dialect of this schema is unknown")).to_be_visible()
        form.get_by_label("Query", exact=True).fill('{"a": [1e400, 12345678901234567890]}')
        submit(form)
        expect(result(dashboard)).to_contain_text("[inf, 12345678901234567890]")
