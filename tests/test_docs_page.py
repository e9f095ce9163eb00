"""`GET /docs`: the OpenAPI document as a page, in a browser that would tell if it loaded or ran anything."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from client import MODULE_HEADER, Api
from conftest import TOKEN, serving
from environments import program
from lab_browser import CHROMIUM
from playwright.sync_api import sync_playwright

from cmemu_nb.server.application import ROUTES, SURFACES
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.document import document
from cmemu_nb.server.openapi.page import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

pytestmark = pytest.mark.once

EVIL = "</style><script>alert(1)</script><img src=x onerror=alert(1)> \"'&`<b>`"
VOID = {"meta", "wbr"}


class Reader(HTMLParser):
    """Collects the text of the page's curl lines, its tags and attributes, and which were never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.commands: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.startswith("curl "):
            self.commands.append(data)


def everywhere(value: Any, text: str) -> Any:
    """Put a text after every text of a document that people read."""
    if isinstance(value, dict):
        return {key: everywhere(each, text) if key != "$ref" else each for key, each in value.items()}
    if isinstance(value, list):
        return [everywhere(each, text) for each in value]
    return f"{value}{text}" if isinstance(value, str) else value


@pytest.fixture(scope="module")
def text() -> str:
    return page(document(SURFACES, "1.0"), "http://127.0.0.1:4000")


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(program("chromium")), args=CHROMIUM)
        yield browser
        browser.close()


def test_the_page_shows_every_route_once(text: str) -> None:
    shown = re.findall(r'<span class="method \w+">(\w+)</span> <code>(.+?)</code>', text)
    assert sorted((method, path.replace("<wbr>", "")) for method, path in shown) == sorted(
        (route.method, route.path) for route in ROUTES
    )
    assert len(Reader(text).commands) == len(ROUTES)


def test_it_is_served_with_a_policy_that_lets_nothing_in(api: Api) -> None:
    answer = api.send("GET", "/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    read = Reader(answer.text)
    assert read.open == []
    assert not read.tags & {"script", "link", "img", "iframe", "form", "base", "object"}
    assert not read.attributes & {"src", "style", "action"}
    assert not [name for name in read.attributes if name.startswith("on")]


def test_the_emulator_s_address_leads_to_it(api: Api) -> None:
    answer = api.send("GET", "/")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["Content-Security-Policy"] == api.send("GET", "/docs").headers["Content-Security-Policy"]
    links = re.findall(r'href="(.+?)"', answer.text)
    assert [api.send("GET", f"/{each}").status_code for each in links] == [200, 200, 200]
    assert links == ["docs", "openapi.json", "ui"]


def test_whatever_a_document_says_is_escaped() -> None:
    evil = everywhere(document(SURFACES, "1.0"), EVIL)
    for operations in evil["paths"].values():
        for operation in operations.values():
            operation["tags"] = [tag.removesuffix(EVIL) for tag in operation["tags"]]
            operation["security"] = []
    evil["tags"] = [{**tag, "name": tag["name"].removesuffix(EVIL)} for tag in evil["tags"]]
    read = Reader(page(evil, f"http://127.0.0.1{EVIL}"))
    assert read.open == []
    assert not read.tags & {"script", "img", "b"}
    assert "onerror" not in read.attributes


def test_every_curl_line_can_be_pasted_into_a_shell() -> None:
    """Each runs against a server that has nothing: what comes back is an answer that the document names."""
    described = document(SURFACES, "1.0")["paths"]
    with serving(execute_timeout=0.1, refusal_seconds=0.0, **examples.CLIENT) as emulator:
        api = Api(emulator.url, TOKEN)
        commands = Reader(api.send("GET", "/docs").text).commands
        runtime = api.open(examples.RUNTIME_ID, examples.RID)
        shell = {"TOKEN": TOKEN, "MODULE_TOKEN": runtime.headers[MODULE_HEADER], "PATH": str(program("curl").parent)}
        order = [(method.upper(), path) for path, each in described.items() for method in each]
        for (method, path), command in zip(grouped(order), commands, strict=True):
            if method == "DELETE" or path.endswith("/runtimes"):
                continue
            line = f"{command} -o /dev/null -w '%{{http_code}}'"
            done = subprocess.run(["sh", "-c", line], env=shell, capture_output=True, text=True, check=True)
            assert done.stdout in described[path][method.lower()]["responses"], line
            assert done.stdout != "401", line


def grouped(order: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the routes in the order of the page: surface by surface."""
    tags = [surface.name for surface in SURFACES]
    operations = document(SURFACES, "1.0")["paths"]
    return sorted(order, key=lambda each: tags.index(operations[each[1]][each[0].lower()]["tags"][0]))


@pytest.mark.browser
def test_it_is_read_in_both_themes_and_on_a_narrow_screen_and_loads_nothing(browser: Browser, api: Api) -> None:
    messages: list[str] = []
    requested: list[str] = []
    for scheme in ("light", "dark"):
        tab = browser.new_page(color_scheme=scheme, viewport={"width": 360, "height": 700})
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("request", lambda request: requested.append(request.url))
        tab.goto(api.url)
        tab.get_by_role("link", name="Every route").click()
        tab.locator("section > details > summary").first.click()
        assert tab.locator("h3", has_text="Errors").first.is_visible()
        tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        style = "getComputedStyle(document.body)"
        text, ground = (tab.evaluate(f"{style}.{name}.match(/\\d+/)[0]") for name in ("color", "backgroundColor"))
        assert (int(text) < int(ground)) == (scheme == "light")
    assert messages == []
    assert set(requested) == {f"{api.url}/", f"{api.url}/docs"}
