"""What a notebook shows of the frames, in a real browser; and that they are pandas' own in all else."""

from __future__ import annotations

import copy
import pickle
import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from client import RID
from environments import program
from lab_browser import CHROMIUM
from playwright.sync_api import sync_playwright

from cmemu_nb import Emulator
from cmemu_nb.display import frames
from cmemu_nb.display.frame import Frame
from cmemu_nb.display.html import two_lines
from cmemu_nb.foundry.summaries import dataset_summary, histories, logs, stream_summary
from cmemu_nb.lifecycle.data_streams import StreamOptions
from cmemu_nb.lifecycle.datasets import TransactionType
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.wire.stream_schemas import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

# What is left of a window of 1280 pixels for an output of JupyterLab, beside its files.
WIDTH = 815
PAGE = "<body style='font:14px/1.3 system-ui,sans-serif;margin:0'>{}"
LONG = "a_name_that_is_much_longer_than_any_cell_" * 3
HOSTILE = "<b>x</b>\n\x1b[2J\u202e"
LINES = """() => [...document.querySelectorAll('tbody tr')].map(
    (row) => row.getBoundingClientRect().height / parseFloat(getComputedStyle(row).lineHeight))"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=CHROMIUM)
        yield browser.new_page(viewport={"width": WIDTH, "height": 900})
        browser.close()


@pytest.fixture(scope="module")
def lifecycle() -> Lifecycle:
    """Two runtimes whose jobs ended in every way, with long and strange texts."""
    state = Lifecycle()
    for name in ("notebook", LONG):
        state.open_session(name, f"{RID}.{name}")
        state.post_schemas(name, [("f", b'{"functionName": "f"}'), (LONG, b"{}")])
        for result in (b"3", b'{"exception":"no luck: Traceback (most recent call last):\\nValueError: no luck"}'):
            state.submit(name, "f", b'{"x": "%s"}' % (b"long " * 40))
            job = state.take(name)
            assert job is not None
            state.finish(name, job.job_id, result)
        state.submit(name, "f", b"{}")
        job = state.take(name)
        assert job is not None
        state.finish(name, job.job_id, b'{"values": [%s]}' % b",".join(b"%d" % n for n in range(500)))
        state.fail(state.submit(name, LONG, b"null").job_id, f"{HOSTILE} {LONG}")
        state.submit(name, HOSTILE, b"{}")
    for number in range(2):
        dataset = state.create_dataset(f"<b>{number}{LONG * 2}").rid
        transaction = state.open_transaction(dataset, TransactionType.APPEND).rid
        state.put_file(dataset, transaction, HOSTILE, b"x" * 1_000_000)
        state.commit_transaction(dataset, transaction)
        state.open_transaction(dataset, TransactionType.SNAPSHOT)
        state.create_branch(dataset, HOSTILE)
        fields = {f"<b>{LONG}{field}": "TIMESTAMP" for field in range(9)}
        state.create_data_stream(f"<b>{number}{LONG}", parse(fields), StreamOptions(partitions=20), branch=HOSTILE)
    return state


def every(state: Lifecycle) -> dict[str, pd.DataFrame]:
    counts = state.outcomes_by_runtime()
    return {
        "jobs": frames.jobs_frame(state.jobs(), state.now()),
        "runtimes": frames.runtimes_frame(
            state.runtimes(), counts, state.schemas(), state.deployed_apps(), state.evicted()
        ),
        "events": frames.events_frame(state.events.recent()),
        "schemas": frames.schemas_frame(state.schemas()),
        "deployed_apps": frames.deployed_apps_frame(state.deployed_apps()),
        "datasets": frames.datasets_frame([dataset_summary(each) for each in histories(state)]),
        "streams": frames.streams_frame([stream_summary(each) for each in logs(state)]),
    }


def html_of(frame: pd.DataFrame) -> str:
    text: Any = frame._repr_html_()  # type: ignore[operator]
    assert isinstance(text, str)
    return text


def in_short(frame: pd.DataFrame) -> bool:
    return 'class="dataframe"' not in html_of(frame)


@pytest.mark.browser
@pytest.mark.long_lived
@pytest.mark.parametrize("name", ["jobs", "runtimes", "events", "schemas", "deployed_apps", "datasets", "streams"])
def test_a_frame_fits_and_no_row_is_higher_than_two_lines(name: str, lifecycle: Lifecycle, page: Page) -> None:
    page.set_content(PAGE.format(html_of(every(lifecycle)[name])))
    assert page.evaluate("document.querySelector('div').scrollWidth") <= WIDTH
    # Two lines, and the space above and below them.
    lines = page.evaluate(LINES)
    assert lines
    assert max(lines) < 2.6
    assert page.locator("b").count() == 0


def test_the_jobs_in_short_have_what_people_look_for(lifecycle: Lifecycle) -> None:
    jobs = every(lifecycle)["jobs"]
    page = html_of(jobs)
    heading, _, body = page.partition("<tbody>")
    assert "10 jobs: 2 queued, 4 ok, 2 function errors, 2 failed" in page
    names = ("job", "function", "runtime", "state", "query", "result", "queued (UTC)", "queue time", "run time")
    assert [heading.find(f">{name}</th>") > 0 for name in names] == [True] * len(names)
    for job_id in jobs.index:
        assert f"…{job_id[-6:]}" in body
        assert job_id not in body
    for text in ("ValueError: no luck", "function error", "queued", "failed", "&lt;b&gt;x&lt;/b&gt;␊␛[2J[U+202E]"):
        assert text in body
    assert "Traceback" not in body
    assert "18 columns" in page


def test_a_column_that_says_the_same_in_every_row_is_left_out(lifecycle: Lifecycle) -> None:
    jobs = every(lifecycle)["jobs"]
    assert ">runtime</th>" in html_of(jobs)
    page = html_of(jobs[jobs["runtime_id"] == "notebook"])
    assert ">runtime</th>" not in page
    assert "which .columns lists. The runtime of every row is &#x27;notebook&#x27;." in page
    events = every(lifecycle)["events"]
    assert "The runtime of every row" not in html_of(events)


def test_it_says_that_there_are_more_columns_only_where_there_are(lifecycle: Lifecycle) -> None:
    frames_of = every(lifecycle)
    more = {name for name, frame in frames_of.items() if "Abbreviated: " in html_of(frame)}
    assert more == {"jobs", "runtimes", "datasets", "streams"}
    assert {name for name, frame in frames_of.items() if "Abbreviated: " in html_of(frame[:0])} == more
    assert html_of(frames_of["events"][:0]).count("</th>") == 1 + len(frames_of["events"].columns)


def test_of_many_rows_it_shows_as_many_as_pandas() -> None:
    state = Lifecycle()
    state.open_session("r")
    for _ in range(100):
        state.submit("r", "f", b"{}")
    jobs = every(state)["jobs"]
    page = html_of(jobs)
    assert "… 90 more rows …" in page
    assert page.count("<tr>") == 1 + 10 + 1
    assert all((f"…{job_id[-6:]}" in page) is (place < 5 or place >= 95) for place, job_id in enumerate(jobs.index))
    with pd.option_context("display.max_rows", 200, "display.min_rows", 200):
        assert html_of(jobs).count("<tr>") == 1 + 60 + 1  # more than sixty are never readable
    assert html_of(jobs[:0]).count("<tr>") == 2


def test_results_and_errors_are_in_the_frame_in_short(lifecycle: Lifecycle) -> None:
    jobs = every(lifecycle)["jobs"]
    assert jobs["result"].head(2).to_list() == ["3", "ValueError: no luck"]
    whole = lifecycle.job(jobs.index[2]).result or b""
    assert jobs["result"].iloc[2] == f"{whole.decode()[:100]}…"
    assert jobs["result"].iloc[3:5].isna().all()
    assert jobs["query"].iloc[0] == '{"x": "%s"}' % ("long " * 40)


# What emu.map returns


@pytest.fixture(scope="module")
def emu() -> Iterator[Emulator]:
    with Emulator(port=0, tls_port=0, home="thread") as emulator:
        # A lambda has no annotations, which the SDK could not read in this file.
        half: Any = lambda context, event: event["x"] / 2  # noqa: ARG005, E731 - the SDK gives both
        half.__name__ = "half"
        emulator.function(half)
        yield emulator


def mapped(emu: Emulator, queries: Any) -> tuple[str, str]:
    """Return the headings and the rest of what a notebook shows of a map."""
    heading, _, rest = html_of(emu.map("half", queries, progress=False)).partition("<tbody>")
    return heading, rest


@pytest.mark.long_lived
def test_a_map_is_shown_with_the_fields_and_the_results_of_its_calls(emu: Emulator) -> None:
    frame = pd.DataFrame({"x": [8, "eight"], "why": HOSTILE}, index=pd.Index(["Ada", "Ben"], name="who"))
    heading, rest = mapped(emu, frame)
    assert "2 calls: 1 ok, 1 function error" in heading
    names = ["who", "x", "why", "state", "result", "queue time", "run time", "job"]
    assert re.findall(r"<th [^>]*>([^<]*)</th>", heading) == names
    assert all(text in rest for text in ("Ada", "4.0", "TypeError: unsupported operand", "&lt;b&gt;x&lt;/b&gt;␊␛[2J"))
    assert "Traceback" not in rest
    assert "foundry_job_" not in rest
    assert "8 columns" in rest


@pytest.mark.long_lived
@pytest.mark.parametrize("query", [{"x": 2, "state": "x"}, {"x": 2, **dict.fromkeys("abcdef", 1)}])
def test_a_query_that_has_no_place_in_columns_is_in_one(emu: Emulator, query: Any) -> None:
    heading, rest = mapped(emu, [query])
    assert re.findall(r"<th [^>]*>([^<]*)</th>", heading)[:3] == ["", "query", "state"]
    assert "{&#x27;x&#x27;: 2" in rest


@pytest.mark.long_lived
def test_a_map_of_no_queries_or_of_no_objects_is_shown_too(emu: Emulator) -> None:
    assert "0 calls" in mapped(emu, [])[0]
    heading, rest = mapped(emu, ["abc"])
    assert ">query</th>" in heading
    assert "abc" in rest


@pytest.mark.browser
@pytest.mark.long_lived
def test_a_map_fits_and_no_row_is_higher_than_two_lines(emu: Emulator, page: Page) -> None:
    queries = [{"x": x, "text": LONG * 3, "why": "word " * 50, "n": 10**12} for x in (1, 2, "x")]
    page.set_content(PAGE.format(html_of(emu.map("half", queries, progress=False))))
    assert page.evaluate("document.querySelector('div').scrollWidth") <= WIDTH
    assert max(page.evaluate(LINES)) < 2.6


@pytest.mark.long_lived
def test_what_is_made_of_a_map_is_shown_in_short_while_its_results_are_the_last_columns(emu: Emulator) -> None:
    frame = emu.map("half", [{"x": 1}, {"x": 2}], progress=False)
    assert in_short(frame[frame["outcome"] == "ok"])
    assert in_short(frame.drop(columns="x"))
    assert not in_short(frame.assign(more=1))
    assert not in_short(frame[["x", "value"]])


# A DataFrame like any other


@pytest.mark.parametrize("name", ["jobs", "runtimes", "events", "schemas", "deployed_apps", "datasets", "streams"])
def test_a_frame_is_a_dataframe_that_pickles_and_is_written_as_one(name: str, lifecycle: Lifecycle) -> None:
    frame = every(lifecycle)[name]
    plain = pd.DataFrame(frame)
    assert isinstance(frame, pd.DataFrame)
    assert type(plain) is pd.DataFrame
    assert list(frame.columns) == list(plain.columns)
    unpickled = pickle.loads(pickle.dumps(frame))
    assert type(unpickled) is pd.DataFrame
    pd.testing.assert_frame_equal(unpickled, plain)
    pd.testing.assert_frame_equal(pd.concat([frame.head(2), frame.tail(len(frame) - 2)]), frame)
    assert frame.to_csv() == plain.to_csv()
    assert frame.to_html() == plain.to_html()
    assert repr(frame) == repr(plain)
    assert in_short(copy.deepcopy(frame))


def test_what_is_made_of_it_is_shown_in_short_while_it_has_its_columns(lifecycle: Lifecycle) -> None:
    jobs = every(lifecycle)["jobs"]
    failed, slowest, reordered = jobs[jobs["status"] == "failed"], jobs.sort_values("run_time"), jobs.iloc[:, ::-1]
    for kept in (jobs.head(2), failed, slowest, reordered):
        assert isinstance(kept, Frame)
        assert in_short(kept)
    others = (
        jobs[["status", "outcome"]],
        jobs.assign(more=1),
        jobs.set_index("query_type"),
        jobs.reset_index(),
        jobs.describe(),
        jobs.groupby("status", observed=True).size().to_frame("jobs"),
        pd.DataFrame(jobs),
    )
    assert [in_short(other) for other in others] == [False] * len(others)
    assert isinstance(jobs["status"], pd.Series)


def test_a_frame_is_no_html_where_pandas_is_told_to_make_none(lifecycle: Lifecycle) -> None:
    with pd.option_context("display.notebook_repr_html", False):  # noqa: FBT003 - pandas' own way
        assert every(lifecycle)["jobs"]._repr_html_() is None  # type: ignore[operator]


def test_a_text_of_two_lines_is_cut_and_made_harmless() -> None:
    assert "&lt;b&gt;" in two_lines(HOSTILE)
    assert "x" * 100 + "…" in two_lines("x" * 200)
