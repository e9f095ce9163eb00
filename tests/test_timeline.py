"""The dashboard's timeline: the messages from which a browser draws it, and what a person sees and does there."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, eventually
from playwright.sync_api import expect
from ui_page import UiPages, ui_pages

from cmemu_nb.dashboard import timeline
from cmemu_nb.dashboard.assets import style
from cmemu_nb.dashboard.board import Changes
from cmemu_nb.dashboard.timeline import Timeline
from cmemu_nb.display.charts import timeline_chart
from cmemu_nb.display.lanes import span_of
from cmemu_nb.lifecycle.records import STATES, Job, JobSource, JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from client import Runtime
    from playwright.sync_api import Locator

    from cmemu_nb import Emulator

pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.long_lived]

MS, S = 10**6, 10**9
RAISED = b'{"exception":"boom"}'
NOTHING = Changes(set(), everything=False, anything=False)
HOSTILE = "<img src=x onerror=alert(1)>\u202e\0"


@pytest.fixture(scope="module")
def opened() -> Iterator[UiPages]:
    with ui_pages() as opened:
        yield opened


@pytest.fixture
def pages(opened: UiPages) -> Iterator[UiPages]:
    yield opened
    opened.emulator.reset()


@pytest.fixture
def runtime(pages: UiPages) -> Runtime:
    return pages.open_runtime(rid=RID)


@pytest.fixture
def four_jobs(pages: UiPages, runtime: Runtime) -> list[str]:
    """Submit four jobs: two run at the same time, one fails in the queue, one stays there. Returns their ids."""
    ids = [pages.submit(f"f{number}", {"x": number}) for number in range(4)]
    assert [runtime.take_id(), runtime.take_id()] == ids[:2]
    runtime.post_result(ids[0], b"1")
    runtime.post_result(ids[1], RAISED)
    runtime.fail(ids[2], "nobody wants it")
    return ids


class Received:
    """What a browser knows after some messages: each job's lane, function, state, and times in microseconds."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.timeline = Timeline(emulator)
        self.messages: list[dict[str, Any]] = []
        self.jobs: dict[str, tuple[Any, ...]] = {}
        self.names: dict[str, list[Any]] = {"lanes": [], "functions": [], "runtimes": []}

    def receive(self, changes: Changes = NOTHING, asked: str = "") -> bool:
        now, steady = self.emulator.looked_at(), self.emulator.steady_at()
        message = self.timeline.message(changes, now, steady, asked)
        if message is None:
            return False
        if message["first"]:
            self.jobs.clear()
            self.names = {kind: [] for kind in self.names}
        self.messages.append(message)
        for kind, names in self.names.items():
            names.extend(message[kind])
        for job_id in message["removed"]:
            self.jobs.pop(job_id, None)
        columns = [message[name] for name in ("lane", "function", "state", "wait", "run")]
        rows = zip(message["id"], accumulate(message["queued"]), *columns, strict=True)
        for end, queued, lane, function, state, wait, run in rows:
            place = self.names["lanes"][lane][3] if lane >= 0 else None
            name = self.names["functions"][function]
            self.jobs[message["prefix"] + end] = (name, place, STATES[state], queued, wait, run)
        return True


def changed(*ids: str) -> Changes:
    return Changes(set(ids), everything=False, anything=True)


# The messages


def test_a_message_has_each_job_with_its_lane_its_state_and_its_times(pages: UiPages, four_jobs: list[str]) -> None:
    received = Received(pages.emulator)
    assert received.receive()
    found = [received.jobs[job_id] for job_id in four_jobs]
    assert [each[:3] for each in found] == [
        ("f0", "worker 1", "ok"),
        ("f1", "worker 2", "function error"),
        ("f2", None, "failed"),
        ("f3", None, "queued"),
    ]
    for job_id, (_, _, _, queued, wait, run) in zip(four_jobs, found, strict=True):
        job = pages.emulator.lifecycle.job(job_id)
        if job.finished:
            assert abs(received.messages[0]["origin"] + queued - span_of(job, 0, 0).queued // 1000) <= 1
        assert wait == (-1 if job.status == JobStatus.QUEUED else (job.queue_time() or 0) // 1000)
        assert run == (-1 if not job.finished else (job.run_time() or 0) // 1000)
    assert not received.receive()


def test_a_job_that_changes_is_sent_again_in_the_same_lane(pages: UiPages, runtime: Runtime) -> None:
    received = Received(pages.emulator)
    first, second = pages.submit("first"), pages.submit("second")
    received.receive()
    assert {each[2] for each in received.jobs.values()} == {"queued"}
    runtime.take_id()
    received.receive(changed(first))
    assert received.jobs[first][1:3] == ("worker 1", "running")
    assert received.messages[-1]["id"] == [first.removeprefix(received.messages[-1]["prefix"])]
    runtime.post_result(first, b"1")
    runtime.take_id()
    received.receive(changed(first, second))
    assert received.jobs[first][1:3] == ("worker 1", "ok")
    assert received.jobs[second][1:3] == ("worker 1", "running")


def test_a_job_that_starts_in_the_slot_of_one_whose_end_is_sent_later_has_its_lane(
    pages: UiPages, runtime: Runtime
) -> None:
    received = Received(pages.emulator)
    first, second = pages.submit("first"), pages.submit("second")
    runtime.take_id()
    received.receive()
    runtime.post_result(first, b"1")
    runtime.take_id()
    received.receive(changed(second))
    assert received.jobs[second][1:3] == ("worker 1", "running")
    received.receive(changed(first))
    assert received.jobs[first][1:3] == ("worker 1", "ok")


def test_a_job_that_is_given_back_leaves_its_lane_to_the_job_that_starts_next(pages: UiPages, runtime: Runtime) -> None:
    received, emulator = Received(pages.emulator), pages.emulator
    first = pages.submit("first")
    runtime.take_id()
    received.receive()
    emulator.change(lambda lifecycle: lifecycle.give_back(lifecycle.job(first)))
    assert runtime.take_id() == first
    received.receive(changed(first))
    assert received.jobs[first][1:3] == ("worker 1", "running")
    emulator.change(lambda lifecycle: lifecycle.give_back(lifecycle.job(first)))
    emulator.change(lambda lifecycle: lifecycle.fail(first, "given up"))
    second = pages.submit("second")
    runtime.take_id()
    received.receive(changed(first, second))
    assert received.jobs[first][1:3] == (None, "failed")
    assert received.jobs[second][1:3] == ("worker 1", "running")


def test_very_many_jobs_are_sent_in_pieces_the_newest_first(
    pages: UiPages, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MAX_SENT", 4)
    ids = [runtime.submit() for _ in range(10)]
    received = Received(pages.emulator)
    received.receive()
    assert set(received.jobs) == set(ids[-4:])
    assert received.messages[0]["left"] == 6
    newest = runtime.submit()
    received.receive(changed(newest))
    assert set(received.jobs) == {*ids[-7:], newest}
    while received.receive():
        pass
    assert set(received.jobs) == {*ids, newest}
    assert [each["number"] for each in received.messages] == [1, 2, 3]
    assert received.messages[-1]["left"] == 0


def test_while_many_jobs_change_older_ones_come_in_smaller_pieces(
    pages: UiPages, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MAX_SENT", 4)
    monkeypatch.setattr(timeline, "MAX_SENT_BESIDE", 1)
    monkeypatch.setattr(timeline, "MANY_CHANGED", 1)
    ids = [runtime.submit() for _ in range(10)]
    received = Received(pages.emulator)
    received.receive()
    newest = [runtime.submit() for _ in range(2)]
    received.receive(changed(*newest))
    assert set(received.jobs) == {*ids[-5:], *newest}
    received.receive(changed(newest[0]))
    assert set(received.jobs) == {*ids[-8:], *newest}
    received.receive()
    assert set(received.jobs) == {*ids, *newest}


def test_what_is_not_kept_any_more_is_removed(pages: UiPages, runtime: Runtime) -> None:
    ids = [runtime.submit() for _ in range(3)]
    received = Received(pages.emulator)
    received.receive()
    pages.emulator.reset()
    received.receive(changed(*ids[:2]))
    assert sorted(received.messages[-1]["removed"]) == sorted(ids[:2])
    assert list(received.jobs) == ids[2:]
    received.timeline.end()
    received.receive()
    assert received.messages[-1]["first"]
    assert received.jobs == {}


def test_hostile_names_are_cut_and_made_visible(pages: UiPages) -> None:
    pages.open_runtime(HOSTILE.replace("\0", "")).submit(HOSTILE * 100)
    received = Received(pages.emulator)
    received.receive()
    (name,) = received.names["functions"]
    assert name.startswith("<img src=x onerror=alert(1)>[U+202E]␀")
    assert len(name) < 100
    assert received.names["runtimes"] == ["<img src=x onerror=alert(1)>[U+202E]"]


def test_starts_exits_resets_and_configurations_are_marks(pages: UiPages, runtime: Runtime) -> None:
    received = Received(pages.emulator)
    received.receive()
    kinds = [mark["kind"] for mark in received.messages[0]["marks"]]
    assert kinds[0] == "emulator_started"
    assert kinds[-1] == "session_opened"
    assert "job_queued" not in kinds
    pages.emulator.configure(
        runtime.runtime_id, aliases={"in": {"rid": "ri.foundry.main.dataset.1", "branch": "master"}}
    )
    received.receive()
    (mark,) = received.messages[-1]["marks"]
    assert (mark["kind"], mark["runtime"]) == ("runtime_configured", runtime.runtime_id)


# The picture


PINCH = """(field) => {
    const { left, top } = field.getBoundingClientRect();
    const finger = (kind, pointerId, x) => field.dispatchEvent(new PointerEvent(kind, {
        pointerId, pointerType: 'touch', clientX: left + x, clientY: top + 5, bubbles: true }));
    finger('pointerdown', 7, 100);
    finger('pointerdown', 8, 150);
    finger('pointermove', 8, 300);
    finger('pointerup', 7, 100);
    finger('pointerup', 8, 300);
}"""


def panel_of(pages: UiPages) -> Locator:
    panel = pages.page.tab("Timeline")
    panel.get_by_role("button", name="All", exact=True).click()
    return panel


def picture_of(panel: Locator) -> Locator:
    return panel.get_by_role("application")


def lanes(panel: Locator) -> list[list[str]]:
    return [row.split("\t") for row in panel.locator("tbody").inner_text().split("\n") if row]


def test_the_picture_and_its_table_show_the_lanes(pages: UiPages, four_jobs: list[str]) -> None:
    panel = panel_of(pages)
    expect(panel.get_by_text("4 jobs", exact=True)).to_be_visible()
    expect(panel.locator(".cmemu-timeline-lane")).to_have_text(["worker 1", "worker 2"])
    expect(panel.locator(".cmemu-timeline-queue")).to_have_text(re.compile(r"^queuemax \d$"))
    words = re.compile(r"^Timeline of .*: 1 queued, 1 ok, 1 function error, 1 failed, in 2 lanes\. ")
    expect(picture_of(panel)).to_have_attribute("aria-label", words)
    panel.get_by_text("As a table").click()
    expect(panel.locator("tbody tr")).to_have_count(3)
    name = pages.emulator.lifecycle.job(four_jobs[0]).runtime_id
    by_lane = {row[0]: row[1:] for row in lanes(panel)}
    assert by_lane[f"queue of {name}"] == ["2", "", "0", "1", ""]
    assert by_lane[f"{name} · worker 2"][2] == "1"
    expect(panel.get_by_role("figure", name=re.compile("^Run time: p50 .* · 2 jobs$"))).to_be_visible()
    panel.get_by_text("As a table").click()


def test_the_keys_choose_a_job_say_what_it_is_and_open_it(pages: UiPages, four_jobs: list[str]) -> None:
    panel = panel_of(pages)
    picture = picture_of(panel)
    expect(panel.get_by_text("4 jobs", exact=True)).to_be_visible()
    picture.focus()
    spoken = panel.get_by_role("status")
    for name in ("f0 · ok", "f1 · function error", "f2 · failed"):
        picture.press("ArrowDown")
        expect(spoken).to_contain_text(name)
    expect(spoken).to_contain_text("never ran")
    picture.press("ArrowUp")
    expect(spoken).to_have_text(re.compile("f1 · function error, waited .*, ran .*, worker 2"))
    expect(panel.locator(".cmemu-timeline-tip")).to_contain_text('{"x": 1}')
    picture.press("Escape")
    expect(panel.locator(".cmemu-timeline-tip")).to_be_hidden()
    picture.press("Home")
    picture.press("Enter")
    expect(pages.page.root.get_by_role("tab", name="Jobs", exact=True)).to_have_attribute("aria-selected", "true")
    card = pages.page.root.get_by_role("region", name="The open job")
    expect(card).to_contain_text(four_jobs[0][-6:])


def test_the_pointer_tells_a_job_and_a_click_opens_it(pages: UiPages, runtime: Runtime) -> None:
    job_id = pages.submit("double", {"word": "needle"})
    runtime.take_id()
    panel = panel_of(pages)
    lane, canvas = panel.locator(".cmemu-timeline-lane"), picture_of(panel)
    expect(lane).to_have_text("worker 1")
    tip = panel.locator(".cmemu-timeline-tip")

    def point() -> tuple[float, float]:
        label, place = lane.bounding_box(), canvas.bounding_box()
        assert label
        assert place
        return place["x"] + 0.9 * place["width"], label["y"] + label["height"] / 2

    def pointed() -> bool:
        pages.page.page.mouse.move(*point())
        return "needle" in (tip.text_content() or "")

    eventually(pointed, "the tip has the query")
    expect(tip).to_contain_text(re.compile("double · running.*waited .*, running for .*worker 1 · …"))
    pages.page.page.mouse.click(*point())
    expect(pages.page.root.get_by_role("region", name="The open job")).to_contain_text(job_id[-6:])
    runtime.post_result(job_id, b"1")


@pytest.mark.usefixtures("four_jobs")
def test_zoom_pan_and_window(pages: UiPages) -> None:
    panel = panel_of(pages)
    picture, axis = picture_of(panel), panel.locator(".cmemu-timeline-axis")
    live = panel.get_by_role("button", name="Live")
    expect(panel.get_by_text("4 jobs", exact=True)).to_be_visible()
    panel.get_by_role("button", name="30 s", exact=True).click()
    expect(panel.get_by_role("button", name="30 s", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(axis).to_contain_text(re.compile(r"-2\d s.*now"))
    expect(live).to_have_attribute("aria-pressed", "true")
    panel.get_by_role("button", name="Zoom in", exact=True).click()
    expect(axis).to_contain_text("-10 s")
    expect(axis).not_to_contain_text("-20 s")
    expect(live).to_have_attribute("aria-pressed", "true")
    picture.press("ArrowLeft")
    expect(live).to_have_attribute("aria-pressed", "false")
    expect(axis).to_have_text(re.compile(r"^(\d\d:\d\d:\d\d(\.\d+)?)+$"))
    picture.press("End")
    expect(live).to_have_attribute("aria-pressed", "true")
    picture.hover()
    pages.page.page.keyboard.down("Control")
    pages.page.page.mouse.wheel(0, -100)
    pages.page.page.keyboard.up("Control")
    expect(live).to_have_attribute("aria-pressed", "false")
    events: Any = {"x": 5, "y": 3}  # where no job is
    picture.dblclick(position=events)
    expect(live).to_have_attribute("aria-pressed", "true")
    picture.hover(position=events)
    pages.page.page.mouse.down()
    picture.hover(position={"x": 60, "y": 3})
    pages.page.page.mouse.up()
    expect(live).to_have_attribute("aria-pressed", "false")
    expect(pages.page.root.get_by_role("tab", name="Timeline", exact=True)).to_have_attribute("aria-selected", "true")
    live.click()
    expect(live).to_have_attribute("aria-pressed", "true")
    picture.evaluate(PINCH)
    expect(live).to_have_attribute("aria-pressed", "false")
    picture.press("0")
    expect(live).to_have_attribute("aria-pressed", "true")
    panel.get_by_role("button", name="All", exact=True).click()


def test_colours_by_function_have_a_legend_with_the_functions(pages: UiPages, four_jobs: list[str]) -> None:
    panel = panel_of(pages)
    legend = panel.get_by_role("list", name="Colours")
    expect(legend.get_by_role("listitem")).to_have_text(["queued", "running", "ok", "function error", "failed"])
    panel.get_by_role("button", name="Function", exact=True).click()
    names = sorted(f"f{number}" for number in range(len(four_jobs)))
    expect(legend.get_by_role("listitem")).to_have_count(7)
    assert sorted(legend.get_by_role("listitem").all_inner_texts())[:4] == names
    panel.get_by_role("button", name="Outcome", exact=True).click()


# Ten thousand jobs

PIXELS = """async (field, name) => {
    const canvas = field.querySelector('canvas');
    const probe = document.createElement('span');
    probe.style.color = getComputedStyle(canvas).getPropertyValue(`--cmemu-timeline-${name}`);
    document.body.append(probe);
    const [red, green, blue] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
    probe.remove();
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let index = 0; index < data.length; index += 4)
        count += [red, green, blue, 255].every((part, at) => data[index + at] === part);
    return count;
}"""


def many_jobs(count: int, end: int, failed: Sequence[int]) -> list[Job]:
    """Make jobs of one millisecond each, one after the other in one lane, which ended before `end`."""
    jobs = []
    for number in range(count):
        at = end - (count - number) * 2 * MS
        bad = number in failed
        status = JobStatus.FAILED if bad else JobStatus.SUCCEEDED
        jobs.append(
            Job(
                f"foundry_job_{number:032x}",
                number,
                "r",
                "f",
                b"{}",
                JobSource.CONTOUR_SYNC,
                at,
                status=status,
                started_at=at,
                completed_at=at + MS,
                error_message="killed" if bad else None,
            )
        )
    return jobs


def test_one_failure_among_ten_thousand_jobs_is_seen(pages: UiPages, monkeypatch: pytest.MonkeyPatch) -> None:
    state = pages.emulator.lifecycle
    jobs = many_jobs(10_000, pages.emulator.looked_at(), failed=[5_000])
    by_id = {job.job_id: job for job in jobs}
    pages.page.tab("Jobs")
    monkeypatch.setattr(state, "newest_jobs", lambda most: jobs[::-1][:most])
    monkeypatch.setattr(state, "find_job", by_id.get)
    with pages.open() as page:  # a view that has not been sent any jobs
        panel = page.tab("Timeline")
        picture = picture_of(panel)
        expect(panel.get_by_text("10,000 jobs", exact=True)).to_be_visible()
        expect(panel.locator(".cmemu-timeline-lane")).to_have_text("worker 1")
        expect(picture).to_have_attribute("aria-label", re.compile("9,999 ok, 1 failed, in 1 lane"))
        eventually(lambda: 4 <= picture.evaluate(PIXELS, "failed") <= 60, "the failure is seen")
        assert picture.evaluate(PIXELS, "error") == picture.evaluate(PIXELS, "running") == 0


def test_a_window_that_lacks_a_message_asks_for_all_jobs_again(
    pages: UiPages, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window may be opened after the others, and a page that reads slowly does not get every message."""
    message, lost = Timeline.message, list[Any]()

    def lose_one(self: Timeline, *arguments: Any) -> Any:
        made = message(self, *arguments)
        if made is None or made["first"] or lost:
            return made
        lost.append(made)
        return None

    panel = panel_of(pages)
    runtime.submit()
    expect(panel.get_by_text("1 job", exact=True)).to_be_visible()
    monkeypatch.setattr(Timeline, "message", lose_one)
    runtime.submit()
    expect(panel.get_by_text("2 jobs", exact=True)).to_be_visible()
    assert len(lost) == 1


# Saved charts

BACKGROUND = """async (svg) => {
    const image = new Image();
    image.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
    document.body.append(image);
    await image.decode();
    const pen = Object.assign(document.createElement('canvas'), { width: 50, height: 50 }).getContext('2d');
    pen.drawImage(image, 0, 0);
    image.remove();
    return [...pen.getImageData(30, 3, 1, 1).data];
}"""
IMAGES = """(svg) => {
    document.body.setAttribute('data-jp-theme-light', 'false');
    for (const each of [svg, '<svg xmlns="http://www.w3.org/2000/svg"/>'])
        document.body.append(Object.assign(new Image(), { src: `data:image/svg+xml,${encodeURIComponent(each)}` }));
}"""
FILL = "(element) => getComputedStyle(element).fill"


@pytest.mark.parametrize(("scheme", "grey"), [("light", 255), ("dark", 24)])
def test_a_saved_chart_follows_the_theme_and_changes_nothing_else(pages: UiPages, scheme: Any, grey: int) -> None:
    svg = timeline_chart(many_jobs(10, 10**18, failed=[5]), 10**18).svg
    page = pages.new_tab(color_scheme=scheme)
    try:
        page.set_content("<p class='cmemu-svg-text'>text</p><svg class='other'><rect width='9' height='9'/></svg>")
        before = page.locator("p, .other rect").evaluate_all("(all) => all.map((one) => getComputedStyle(one).cssText)")
        # An image is what JupyterLab and nbconvert make of it.
        assert page.evaluate(BACKGROUND, svg) == [grey, grey, grey, 255]
        page.evaluate("(svg) => document.body.insertAdjacentHTML('beforeend', svg)", svg)
        assert page.locator(".cmemu-svg > rect").first.evaluate(FILL) == f"rgb({grey}, {grey}, {grey})"
        after = page.locator("p, .other rect").evaluate_all("(all) => all.map((one) => getComputedStyle(one).cssText)")
        assert after == before
        # In a page with a theme of its own the chart has this theme's colours, whatever the reader prefers elsewhere.
        page.evaluate("document.body.style.setProperty('--jp-layout-color1', '#010203')")
        assert page.locator(".cmemu-svg > rect").first.evaluate(FILL) == "rgb(1, 2, 3)"
        # JupyterLab's theme reaches an image only by the dashboard's styles, and no other image.
        page.add_style_tag(content=style())
        page.evaluate(IMAGES, svg)
        schemes = page.locator("img").evaluate_all("(all) => all.map((one) => getComputedStyle(one).colorScheme)")
        assert schemes == ["dark", "normal"]
    finally:
        page.close()
