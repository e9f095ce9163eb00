"""What notebooks show: HTML that hostile text can't get into, and values as people read them."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from cmemu_nb import Emulator
from cmemu_nb.display.html import Html, card, link, mimebundle, status_badge, table
from cmemu_nb.display.text import ago, cut, duration, say, visible, when
from cmemu_nb.tokens import MODULE_TOKEN_START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb.calls.handles import JobHandle

pytestmark = pytest.mark.once

SECOND = 1_000_000_000
MEGABYTES = 5_000_000
RID = "ri.foundry.main.deployed-app.my-app"
TAGS = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "bdi", "code"}
ATTRIBUTES = {"style", "scope", "colspan"}
TURNING = set("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "single quotes": "' onmouseover='alert(1)",
    "closing tags": "</bdi></td></table></div><iframe src=//x>",
    "entity": "&lt;b&gt;&#60;script&#62;",
    "comment": "<!-- ]]> --><![CDATA[<svg/onload=alert(1)>",
    "style": "</style><style>*{display:none}</style>",
    "url": "javascript:alert(1) [a](javascript:alert(1)) http://evil.example",
    "code": "`<script>alert(1)</script>` `` ` <b>",
    "control characters": "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)])),
    "right to left": "\u202egnp.exe\u2066 \u2069\u200f\u2028\ufeff",
    "lone surrogate": "a\ud800<b>",
    "long": "<script>" * (MEGABYTES // 8),
    "long and wide": "\u202e" * (MEGABYTES // 10),  # each is shown as eight characters
    "backticks": "`" * MEGABYTES,
}
hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
# What can be the name of a runtime: no lone surrogates, which are refused.
hostile_name = pytest.mark.parametrize("name", [name for name in HOSTILE if name != "lone surrogate"])


class Page(HTMLParser):
    """HTML as a browser reads it; every tag and attribute must be one of ours."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        if tag == "a":  # of the emulator's own address
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", fields.pop("href") or "")
            assert fields == {"target": "_blank", "rel": "noopener noreferrer"}
        else:
            assert tag in TAGS
            assert fields.keys() <= ATTRIBUTES
        style = fields.get("style") or ""
        assert re.fullmatch(r"[\w\s:;,.()#%-]*", style, re.ASCII)
        assert "url" not in style
        self.open.append(tag)
        self.tags.append((tag, fields))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise AssertionError(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def refuse(self, data: str) -> None:
        raise AssertionError(data)

    handle_comment = handle_decl = unknown_decl = handle_pi = refuse  # type: ignore[assignment]

    def count(self, tag: str, **fields: str) -> int:
        return sum(name == tag and fields.items() <= attributes.items() for name, attributes in self.tags)


def check_text(text: str, most: int) -> None:
    """Check that text is short and holds nothing that a screen or a terminal would obey."""
    text.encode()
    assert len(text) < most
    odd = {each for each in text if unicodedata.category(each) in ("Cc", "Cs")} - set("\n\t")
    assert odd | (set(text) & TURNING) == set()


def check(markup: str, most: int = 300_000) -> Page:
    page = Page(markup)
    check_text(markup, most)
    return page


def shown(thing: Any) -> Page:
    """Show an object as a notebook does, and check both of its forms."""
    bundle: dict[str, str] = thing._repr_mimebundle_(include=None, exclude=None)
    assert bundle.keys() == {"text/plain", "text/html"}
    check_text(bundle["text/plain"], 100_000)
    page = check(bundle["text/html"])
    assert page.count("caption") == 1
    assert page.count("th", scope="row") == page.count("th") > 0
    for text in (bundle["text/plain"], page.text):
        assert not re.search(MODULE_TOKEN_START + r"\S{5}", text)
        assert "the-bearer-token" not in text
    return page


# Tables, cards and badges


@hostile
def test_hostile_text_is_only_text_in_a_table(text: str) -> None:
    page = check(table(text, [text, "n"], [{text: text, "n": 1}, {text: None, "n": text}], text))
    assert (page.count("th", scope="col"), page.count("td")) == (2, 4)
    check(table(text, ["a"], [], text))
    check(table(text, [], [], f"`{text}`"))


@hostile
def test_hostile_text_is_only_text_in_a_card(text: str) -> None:
    page = check(card(text, [(text, text), ("b", text)], badge=text, hint=text))
    assert (page.count("th", scope="row"), page.count("td")) == (2, 2)
    check(card(text, {text: text}, badge=status_badge(text, text), hint=f"try `{text}`"))


@hostile
def test_hostile_text_is_only_text_in_a_badge(text: str) -> None:
    page = check(status_badge(text, text))
    assert [tag for tag, _ in page.tags] == ["span", "span", "bdi"] + ["span"] * (len(text) > 120)


def test_short_hostile_text_is_shown_whole() -> None:
    text = "<b onclick='x'>&amp;\"\u202e\0"
    page = check(table("t", ["a"], [{"a": text}]))
    assert "<b onclick='x'>&amp;\"[U+202E]␀" in page.text


def test_markup_of_ours_stays_markup_and_what_is_made_of_it_does_not() -> None:
    badge = status_badge("running")
    assert check(table("t", ["a"], [{"a": badge}])).count("span") == 2
    page = check(table("t", ["a"], [{"a": badge + "<script>"}, {"a": f"{badge}"}]))
    assert page.count("span") == 2 * (len(badge) > 120)
    assert "<span style=" in page.text
    assert isinstance(badge, Html)


def test_a_table_has_a_caption_and_heads_of_columns() -> None:
    page = check(table("Two jobs", ["job", "time"], [{"job": "a", "time": 1}, {"job": "b"}]))
    assert page.count("caption") == 1
    assert page.count("th", scope="col") == page.count("th") == 2
    assert [word for word in page.text.split() if word] == ["Two", "jobsjobtimea1b—"]


def test_a_table_without_rows_shows_its_hint_with_code_as_code() -> None:
    page = check(table("Jobs", ["job", "time"], [], "None yet. Try `emu.submit('f')`."))
    assert page.count("td", colspan="2") == page.count("code") == 1
    assert "None yet. Try emu.submit('f')." in page.text


def test_of_many_rows_the_first_and_the_last_are_shown() -> None:
    page = check(table("Jobs", ["n"], [{"n": f"row {number}."} for number in range(100_000)]))
    assert page.count("tr") == 62
    assert "row 29." in page.text
    assert "… 99,940 more rows …row 99970." in page.text
    assert "row 30." not in page.text
    assert page.text.endswith("row 99999.")


def test_a_frame_of_the_emulator_fits_in_a_table(emu: Emulator) -> None:
    emu.open_runtime("mine", RID).enqueue("<b>", {"x": "<script>"})
    frame = emu.jobs.reset_index()
    page = check(table("Jobs", list(frame.columns), frame.to_dict("records")))
    assert page.count("td") == len(frame.columns)
    assert "queued" in page.text
    assert '{"x": "<script>"}' in page.text


@pytest.mark.parametrize(
    ("status", "outcome", "words"),
    [
        ("queued", None, "queued"),
        ("running", None, "running"),
        ("succeeded", "ok", "succeeded · ok"),
        ("succeeded", "function error", "succeeded · function error"),
        ("failed", "failed", "failed"),
        ("connected", None, "connected"),
        ("never heard of", None, "never heard of"),
    ],
)
def test_a_state_is_a_word_beside_its_colour(status: str, outcome: str | None, words: str) -> None:
    assert check(status_badge(status, outcome)).text == f"● {words}"


def test_what_went_right_looks_different_from_what_went_wrong() -> None:
    ends = [status_badge(*end) for end in (("succeeded", "ok"), ("succeeded", "function error"), ("failed", "failed"))]
    assert len({re.findall(r"--jp-(\w+)-color1", badge)[0] for badge in ends}) == 3


def test_a_display_bundle_can_always_be_sent() -> None:
    bundle = mimebundle("a\ud800", "<b>\udfff</b>")
    assert bundle == {"text/plain": "a?", "text/html": "<b>?</b>"}


# Objects


def finished(emu: Emulator, job: JobHandle, result: bytes) -> JobHandle:
    record = emu.change(lambda state: state.take(job.record.runtime_id))
    assert record
    assert record.job_id == job.id
    emu.change(lambda state: state.finish(record.runtime_id, job.id, result, "text/html"))
    return job


@pytest.fixture
def lenient(serve: Callable[..., Any]) -> Iterator[Emulator]:
    """An emulator that takes names and reasons of any length, as its setting lets it."""
    with serve(max_label_bytes=10 * MEGABYTES) as emulator:
        yield emulator


@hostile_name
def test_a_runtime_with_hostile_names_shows_itself(lenient: Emulator, name: str) -> None:
    emu = lenient
    text = f"x{HOSTILE[name]}x"
    runtime = emu.open_runtime(text[:900], text, text, text)  # a longer id is refused
    assert "never polled" in shown(runtime).text
    emu.change(lambda state: state.take(runtime.id))
    assert "connected" in shown(runtime).text
    shown(emu)
    runtime.delete()
    assert "deleted" in shown(runtime).text


@hostile
def test_a_job_with_hostile_text_shows_itself_in_every_state(lenient: Emulator, text: str) -> None:
    emu = lenient
    runtime = emu.open_runtime("mine", RID)
    function = f"x{text.encode(errors='replace').decode()}"  # blank ones and lone surrogates are refused
    queued = runtime.enqueue(function, {text: text})
    assert "queued for" in shown(queued).text
    emu.change(lambda state: state.take("mine"))
    assert "running for" in shown(queued).text
    queued.fail(function)
    assert "failed after" in shown(queued).text
    done = finished(emu, runtime.enqueue(function, text), text.encode(errors="replace"))
    assert "ok" in shown(done).text
    raised = finished(emu, runtime.enqueue(function, text), b'{"exception":"<b>"}')
    page = shown(raised)
    assert "succeeded · function error" in page.text
    assert "succeeded (function error) after" in page.text
    runtime.reset()
    assert "removed" in shown(done).text
    shown(emu)


def test_a_job_that_failed_in_the_queue_says_how_long_it_waited(emu: Emulator) -> None:
    job = emu.open_runtime("mine", RID).enqueue("f")
    job.fail("by hand")
    assert re.search(r"failed after [\d.]+ \w+ in the queue", shown(job).text)


def test_bytes_that_are_no_text_are_shown(emu: Emulator) -> None:
    runtime = emu.open_runtime("mine", RID)
    assert "ok" in shown(finished(emu, runtime.enqueue("f"), bytes(range(256)))).text
    assert "ok" in shown(finished(emu, runtime.enqueue("f"), b"")).text


@pytest.mark.parametrize("size", [1, 1_900, 1_901, 2_000, 2_001, MEGABYTES])
def test_of_a_long_result_the_size_is_told_truly(emu: Emulator, size: int) -> None:
    job = finished(emu, emu.open_runtime("mine", RID).enqueue("f"), b"7" * size)
    bundle = job._repr_mimebundle_()
    for text in (bundle["text/plain"], Page(bundle["text/html"]).text):
        assert "77" in text or size == 1
        assert (f"… ({size:,} bytes in all)" in text) == (size > 1_900)
        assert "the first" not in text


def test_the_emulator_says_where_it_is_and_what_comes_next(emu: Emulator) -> None:
    page = shown(emu)
    for words in ("running", emu.url, "0 runtimes, 0 jobs", "@emu.function", "emu.call", "emu.open_runtime"):
        assert words in page.text


def test_the_address_of_the_emulator_is_a_link_where_the_browser_can_reach_it(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = emu._repr_mimebundle_()
    assert f'<a href="{emu.url}" target="_blank" rel="noopener noreferrer">' in bundle["text/html"]
    assert "<a " not in bundle["text/plain"]
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/jo/")
    assert "<a " not in emu._repr_mimebundle_()["text/html"]
    assert "<a " not in link("javascript:alert(1)")
    assert link('http://"><script>').startswith('<a href="http://&quot;&gt;&lt;script&gt;"')


def test_an_emulator_of_its_own_shows_itself_before_while_and_after_it_runs() -> None:
    emulator = Emulator(port=0, home="thread")
    assert "not running" in shown(emulator).text
    with emulator:
        page = shown(emulator)
        assert emulator.url in page.text
        assert "a thread of its own" in page.text
        assert emulator.token not in page.text
    assert "not running" in shown(emulator).text


def test_lines_of_a_value_stay_under_its_name_in_plain_text(emu: Emulator) -> None:
    job = emu.open_runtime("mine", RID).enqueue("f")
    job.fail("first\nstatus  succeeded\n\nJob")
    lines = job._repr_mimebundle_()["text/plain"].splitlines()
    assert lines[0] == "Job"
    assert [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "] == [
        *("id", "function", "runtime", "status", "query", "error", "next")
    ]


# Words


def at(days: int = 0, hours: int = 0, minutes: int = 0, seconds: float = 0) -> int:
    return round((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * SECOND)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (at(seconds=-5), "just now"),
        (0, "just now"),
        (at(seconds=0.999), "just now"),
        (at(seconds=1), "1 s ago"),
        (at(seconds=59.9), "59 s ago"),
        (at(minutes=1), "1 min ago"),
        (at(minutes=59, seconds=59), "59 min ago"),
        (at(hours=23, minutes=59), "23 h ago"),
        (at(days=1), "1 d ago"),
        (at(days=400), "400 d ago"),
        (None, "never"),
    ],
)
def test_ago(before: int | None, words: str) -> None:
    now = 1_700_000_000 * SECOND
    assert ago(None if before is None else now - before, now) == words


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 µs"),
        (950_000, "950 µs"),
        (999_999, "999 µs"),
        (1_999_999, "1.9 ms"),
        (10_900_000, "10 ms"),
        (999_999_999, "999 ms"),
        (at(seconds=1.25), "1.2 s"),
        (at(seconds=12), "12 s"),
        (at(seconds=59.999), "59 s"),
        (at(minutes=60) - 1, "59 min 59 s"),
        (at(minutes=1), "1 min"),
        (at(minutes=3, seconds=4.9), "3 min 4 s"),
        (at(hours=1), "1 h"),
        (at(hours=5, minutes=7, seconds=59), "5 h 7 min"),
        (at(days=2, hours=3, minutes=59), "2 d 3 h"),
        (at(days=1, minutes=59), "1 d"),
    ],
)
def test_duration(nanoseconds: int, words: str) -> None:
    assert duration(nanoseconds) == words


@pytest.mark.parametrize(
    ("text", "most", "words"),
    [
        ("", 3, ("", "")),
        ("abc", 3, ("abc", "")),
        ("abcd", 3, ("abc", "… (the first 3 of 4 characters)")),
        ("🦀" * 1_234, 1_000, ("🦀" * 1_000, "… (the first 1,000 of 1,234 characters)")),
    ],
)
def test_cut(text: str, most: int, words: tuple[str, str]) -> None:
    assert cut(text, most) == words


@pytest.mark.parametrize(
    ("text", "one_line", "lines"),
    [
        ("plain ü 🦀 שלום", "plain ü 🦀 שלום", "plain ü 🦀 שלום"),
        ("a\0b\x1b[31m\x7f", "a␀b␛[31m␡", "a␀b␛[31m␡"),
        ("a\r\n\tb", "a␍␊␉b", "a␍\n\tb"),
        ("\x85\u2028\ufeff", "[U+0085][U+2028][U+FEFF]", "[U+0085][U+2028][U+FEFF]"),
        ("\u202egnp.exe\u2069", "[U+202E]gnp.exe[U+2069]", "[U+202E]gnp.exe[U+2069]"),
        ("a\ud800", "a[U+D800]", "a[U+D800]"),
    ],
)
def test_visible(text: str, one_line: str, lines: str) -> None:
    assert visible(text) == one_line
    assert visible(text, lines=True) == lines


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "—"),
        (float("nan"), "—"),
        (pd.NaT, "—"),
        (pd.NA, "—"),
        (True, "yes"),
        (False, "no"),
        (7, "7"),
        ("text", "text"),
        (timedelta(milliseconds=1.9), "1.9 ms"),
        (pd.Timedelta(950, "us"), "950 µs"),
        (datetime(2025, 11, 24, 0, 35, 22, 123_999, UTC), "2025-11-24 00:35:22.123 UTC"),
        (datetime(2025, 11, 24, tzinfo=timezone(timedelta(hours=2))), "2025-11-24 00:00:00.000 UTC+02:00"),
        (pd.Timestamp(1_763_944_522_123_456_789, tz="UTC"), "2025-11-24 00:35:22.123 UTC"),
    ],
)
def test_say(value: object, words: str) -> None:
    assert say(value) == words


def test_when() -> None:
    assert when(None) == "—"
    assert when(1_763_944_522_123_999_999) == "2025-11-24 00:35:22.123 UTC"
