"""The charts of jobs: what they draw and say is what happened, in pictures that nothing from outside can break."""

from __future__ import annotations

import random
import re
import sys
import unicodedata
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmemu_nb.display.charts import MAX_LANES, Chart, latency_chart, timeline_chart
from cmemu_nb.display.lanes import Lanes, queue_depth, span_of
from cmemu_nb.display.text import duration
from cmemu_nb.errors import InvalidRequest
from cmemu_nb.lifecycle.records import Job, JobSource, JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmemu_nb import Emulator

pytestmark = pytest.mark.once

MS, S = 10**6, 10**9
DAY = 86_400 * S
NOW = 1_764_000_000 * S
ERROR = b'{"exception":"boom"}'
SVG = "{http://www.w3.org/2000/svg}"
TAGS = {"svg", "style", "title", "rect", "g", "text", "path"}
ATTRIBUTES = {"class", "viewBox", "width", "height", "role", "aria-label", "style", "x", "y", "d"}
LOOKS = {"fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray"}
LOOKS |= {"font-weight", "font-size", "font-family", "text-anchor"}
# A colour is one of JupyterLab's, with one of ours for where there is no JupyterLab; what is fine has a muted one.
MUTED = "#78909c"
JUPYTER = r"var\(--jp-[a-z0-9-]+,#[0-9a-f]{6}\)"
COLOUR = re.compile(rf"none|{MUTED}|{JUPYTER}|var\(--cmemu-svg-[a-z]+,{JUPYTER}\)")
# The only rules in a chart apply to charts, and set only variables of charts.
DARK = re.compile(r"@media \(prefers-color-scheme:dark\)\{\.cmemu-svg\{(--cmemu-svg-[a-z]+:" + JUPYTER + r"[;}])+\}")
OUTCOME_COLOUR = re.compile(r"(?:fill|stroke):(#78909c|var\(--jp-(?:info|success|warn|error)-color1)")
UNSEEN = set("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\ufffe\uffff")
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '" onload="alert(1)',
    "single quotes": "' onload='alert(1)",
    "closing tags": "</title></text></g></svg><script>alert(1)</script>",
    "entity": "&lt;b&gt;&#60;script&#62;&#0;&xxe;",
    "comment": "<!-- ]]> --><![CDATA[<script/>]]><?xml-stylesheet href='x'?>",
    "style": "fill:url(//x) } * { display:none",
    "control characters": "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)])),
    "right to left": "\u202egnp.exe\u2066 \u2069\u200f\u2028\ufeff",
    "Hebrew": "שלום עולם",
    "lone surrogates": "\ud800 \udfff",
    "no characters": "\ufffe\uffff\U0001fffe",
    "long": "<b>" * 300_000,
    "long and wide": "語" * 300_000,
    "widest Latin letters": "W" * 300,
    "picture": "👩\u200d👩\u200d👧\u200d👦" * 30,
    "nothing": "",
}
NAMES = [name for name in HOSTILE.values() if len(name) < 1_000]
fuzz = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def job(number: int, queued: int, started: int | None = None, ended: int | None = None, **fields: Any) -> Job:
    """Make a job from times that count from `NOW`; its function is called after its number."""
    status = JobStatus.SUCCEEDED if ended is not None else JobStatus.QUEUED if started is None else JobStatus.RUNNING
    made = Job(
        f"job-{number}",
        number,
        "r",
        f"f{number}",
        b"{}",
        JobSource.RUNTIME_DIRECT,
        NOW + queued,
        status=status,
        started_at=None if started is None else NOW + started,
        completed_at=None if ended is None else NOW + ended,
        result=None if ended is None else b"1",
    )
    return msgspec.structs.replace(made, **fields)


FAILED: Any = {"status": JobStatus.FAILED, "result": None, "error_message": "killed"}
RAISED: Any = {"result": ERROR}


def busy_day(count: int, seed: int = 0, runtimes: int = 2, replicas: int = 3) -> list[Job]:
    """Make jobs of every kind, as replicas that take one at a time make them."""
    random_ = random.Random(seed)
    free: Counter[str] = Counter()
    jobs, now = [], 0
    for number in range(count):
        now += random_.randrange(20 * MS)
        replica = random_.choice([f"{each:08x}" for each in range(replicas)])
        start = max(now, free[replica])
        free[replica] = end = start + random_.randrange(50 * MS)
        kinds = ["ok", "ok", "raised", "failed", "failed in the queue"]
        kind = random_.choice(kinds if number < count * 0.9 else ["running", "queued"])
        who: Any = {"runtime_id": f"r{int(replica, 16) % runtimes}"}
        if kind in ("queued", "failed in the queue"):
            jobs.append(job(number, now, None, end if kind != "queued" else None, **who))
            if kind != "queued":
                jobs[-1] = msgspec.structs.replace(jobs[-1], **FAILED)
            continue
        more = {"failed": FAILED, "raised": RAISED}.get(kind, {})
        jobs.append(job(number, now, start, None if kind == "running" else end, replica_id=replica, **who, **more))
    return jobs


def after(jobs: Iterable[Job]) -> int:
    return max(at for each in jobs for at in (each.queued_at, each.started_at, each.completed_at) if at is not None)


# A picture as a person sees it


class Text(NamedTuple):
    """A text and where it is; how wide it is, is guessed from DejaVu Sans, a wide font."""

    left: float
    right: float
    y: float
    words: str


class Box(NamedTuple):
    """Something with a tip: a bar, a mark."""

    left: float
    right: float
    y: float
    path: str
    lines: list[str]


@dataclass
class Picture:
    """What is drawn, in the order in which it is painted."""

    width: float
    height: float
    title: str
    texts: list[Text] = field(default_factory=list)
    queues: list[Box] = field(default_factory=list)
    ran: list[Box] = field(default_factory=list)
    marks: list[Box] = field(default_factory=list)
    painted: list[str] = field(default_factory=list)
    headers: list[Text] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        return [text.words for text in self.texts]

    def rows(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Return the queues and lanes, by the runtime's name and their own, with their tops and bottoms."""
        found, runtime = {}, ""
        for text in self.texts:
            if text in self.headers:
                runtime = text.words
            elif self.headers and text.left == self.headers[0].left + 10:
                height = 32 if text.words.startswith("queue (max ") else 20
                found[runtime, text.words] = (text.y + 5 - height, text.y + 5)
        return found

    def lanes(self) -> list[tuple[str, str]]:
        """Return the lanes, without the queues."""
        return [row for row in self.rows() if not row[1].startswith("queue (max ")]

    def lane(self, box: Box) -> tuple[str, str]:
        """Return which row something is in: by where it is."""
        (row,) = [row for row, (top, bottom) in self.rows().items() if top < box.y < bottom]
        return row

    def in_lane(self, boxes: Iterable[Box], label: str) -> list[str]:
        """Return the functions in the lanes of that name."""
        return sorted(box.lines[0] for box in boxes if self.lane(box)[1] == label)

    def axis(self) -> list[Text]:
        """Return the names of the ticks, which are in one row below everything else."""
        rows = Counter(text.y for text in self.texts if text.words in ("now", "0"))
        (row,) = rows
        return [text for text in self.texts if text.y == row]


def check(svg: str) -> Picture:
    """Parse a chart as a strict parser does, and check that it is safe, whole and in one style."""
    svg.encode()
    assert not re.search(r"<[!?]", svg)
    assert {each for each in svg if unicodedata.category(each) == "Cc"} <= {"\n"}
    assert not UNSEEN & set(svg)
    root = ET.fromstring(svg)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert (root.tag, left, top) == (SVG + "svg", 0, 0)
    assert root.attrib["role"] == "img"
    title = root.findtext(SVG + "title", "")
    assert root.attrib["aria-label"] == title
    picture = Picture(width, height, title)
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in TAGS
        assert element.attrib.keys() <= ATTRIBUTES | LOOKS
        assert element.get("class", "cmemu-svg") == "cmemu-svg"
        assert element.tag != SVG + "style" or DARK.fullmatch(element.text or "")
        check_style(element.get("style", ""))
        check_looks(element)
    read(picture, root, [])
    for text in picture.texts:
        assert 0 <= text.left <= text.right <= width, text
        assert 10 <= text.y <= height - 3, text
    for text, other in combinations(picture.texts, 2):
        apart = abs(text.y - other.y) >= 13 or text.right < other.left or other.right < text.left
        assert apart, (text, other)
    return picture


def check_looks(element: ET.Element) -> None:
    """Check that programs which know no variables, or get no styles, show the colours that the style falls back to."""
    for name in ("fill", "stroke"):
        themed = re.search(rf"(?:^|;){name}:([^;]*)", element.get("style", ""))
        plain = element.get(name, "none")
        assert re.fullmatch("none|#[0-9a-f]{6}", plain)
        assert not themed or themed[1].rstrip(")").endswith(plain)
    assert element.tag != SVG + "rect" or element.get("fill")


def check_style(style: str) -> None:
    assert re.fullmatch(r"[\w\s:;,.()#%-]*", style, re.ASCII)
    assert "url" not in style
    for each in filter(None, style.split(";")):
        name, value = each.split(":", 1)
        assert name not in ("fill", "stroke") or COLOUR.fullmatch(value), each


def read(picture: Picture, parent: ET.Element, tip: list[str]) -> None:
    for element in parent:
        name = element.tag.removeprefix(SVG)
        if name == "g":
            lines = element.findtext(SVG + "title", "").split("\n")
            read(picture, element, lines if lines != [""] else [])
        elif name == "text":
            text = where(element)
            picture.texts.append(text)
            if tip:
                picture.headers.append(text)
        elif name == "rect":
            x, y, wide, high = (float(element.get(each, 0)) for each in ("x", "y", "width", "height"))
            assert x >= 0 <= y
            assert x + wide <= picture.width
            assert y + high <= picture.height
            # The bars of several jobs have parts.
            if tip and not tip[0].startswith("Runtime ") and element is parent.find(SVG + "rect"):
                picture.ran.append(Box(x, x + wide, y, "", tip))
                picture.painted.append("ran")
        elif name == "path" and tip:
            path = element.get("d", "")
            x, y = map(float, re.findall(r"[\d.]+", path)[:2])
            if tip[0].startswith("at most "):
                right = max(float(each) for each in re.findall(r"H([\d.]+)", path))
                picture.queues.append(Box(x, right, y, path, tip))
                continue
            mark = Box(x, x, y, path, tip)
            if mark not in picture.marks[-1:]:  # A cross lies on its outline.
                picture.marks.append(mark)
                picture.painted.append("mark")


def shown(box: Box) -> int:
    """Return how many jobs something stands for."""
    several = re.fullmatch(r"([\d,]+) jobs: .*", box.lines[0])
    return int(several[1].replace(",", "")) if several else 1


def where(element: ET.Element) -> Text:
    words = element.text or ""
    x, y = float(element.attrib["x"]), float(element.attrib["y"])
    anchor, bold = element.get("text-anchor"), "font-weight" in element.attrib
    em = sum(map(letter, words)) * (1.1 if bold else 1)
    left = x - em / 2 if anchor == "middle" else x - em if anchor == "end" else x
    return Text(left, left + em, y, words)


def letter(each: str) -> float:
    if each in " .,:;'|!()[]iljtfr-·" or unicodedata.combining(each):
        return 5.3
    return 13 if each in "mwMW@%…—" or unicodedata.east_asian_width(each) in "FW" else 8.3


def timeline(jobs: Sequence[Job], now: int | None = None, most: int = 200) -> Picture:
    newest = sorted(jobs, key=attrgetter("sequence"))[-most:]
    return check(timeline_chart(newest, after(jobs) if now is None else now, len(jobs)).svg)


def histograms(jobs: Sequence[Job]) -> tuple[Picture, list[Box], list[Box]]:
    """Return the picture, and the bars of the run time and of the queue time."""
    picture = check(latency_chart(jobs).svg)
    (border,) = [text.y for text in picture.texts if text.words.startswith("Queue time")]
    upper = [box for box in picture.ran if box.y < border]
    return picture, upper, [box for box in picture.ran if box.y >= border]


def spent(each: Job) -> tuple[int, int]:
    """Return when a job ran, if clocks that step back are thought to stand still; who still runs it, is not free."""
    begin = max(each.queued_at, each.started_at or 0)
    return begin, sys.maxsize if each.completed_at is None else max(begin, each.completed_at)


# Any jobs at all

moments = st.one_of(st.integers(-5, 5), st.integers(-S, 100 * S), st.integers(0, 30 * 365 * DAY))
texts = st.one_of(st.sampled_from(NAMES), st.text(st.characters(), max_size=50))


@st.composite
def any_job(draw: st.DrawFn, number: int = 0) -> Job:
    """Make any job: whatever its names, and even if the clock was set back in between."""
    queued = draw(moments)
    started = draw(st.none() | moments)
    ended = draw(st.none() | moments)
    return job(
        number,
        queued,
        started,
        ended,
        status=JobStatus.FAILED if draw(st.booleans()) and ended is not None else job(0, 0, started, ended).status,
        result=draw(st.sampled_from([None, b"", b"1", ERROR])),
        error_message=draw(st.none() | texts),
        replica_id=draw(st.sampled_from([None, "", "3f9a12bc", "77ab01cd"])),
        runtime_id=draw(st.sampled_from(["r", "s", "t"])),
    )


any_jobs = st.lists(any_job(), min_size=1, max_size=20).map(
    lambda jobs: [
        msgspec.structs.replace(each, job_id=f"job-{n}", sequence=n, query_type=f"f{n}") for n, each in enumerate(jobs)
    ]
)


@fuzz
@given(any_jobs, moments, st.lists(texts, min_size=3, max_size=3), texts)
def test_any_jobs_make_a_picture_that_is_safe_and_whole(jobs: list[Job], now: int, names: list[str], name: str) -> None:
    runtimes = dict(zip("rst", names, strict=True))
    jobs = [msgspec.structs.replace(each, runtime_id=runtimes[each.runtime_id], query_type=name) for each in jobs]
    picture = check(timeline_chart(jobs, NOW + now).svg)
    assert sum(map(shown, picture.ran)) == sum(each.started_at is not None for each in jobs)
    check(latency_chart(jobs).svg)


@fuzz
@given(any_jobs, moments, st.randoms(use_true_random=False))
def test_no_lane_runs_two_jobs_at_a_time(jobs: list[Job], now: int, random_: random.Random) -> None:
    """The jobs come in batches of any order, as a dashboard sees them, and first without their ends."""
    lanes, waiting = Lanes(), [*jobs, *jobs]
    found: dict[str, Any] = {}
    random_.shuffle(waiting)
    seen: set[str] = set()
    while waiting:
        batch = {each.job_id: each for each in (waiting.pop() for _ in range(min(3, len(waiting))))}
        begun = [each if each.job_id in seen else unended(each) for each in batch.values()]
        seen |= batch.keys()
        found |= lanes.place([span_of(each, NOW + now, NOW + now) for each in begun])
    ran = [each for each in jobs if each.started_at is not None]
    assert set(found) == {each.job_id for each in ran}
    spans: dict[Any, list[tuple[int, int]]] = {}
    for each in ran:
        assert found[each.job_id][:2] == (each.runtime_id, each.replica_id or "")
        spans.setdefault(found[each.job_id], []).append(spent(each))
    for inside in spans.values():
        assert all(first[1] <= second[0] for first, second in pairwise(sorted(inside)))


def unended(each: Job) -> Job:
    if each.started_at is None or each.completed_at is None:
        return each
    return msgspec.structs.replace(each, status=JobStatus.RUNNING, completed_at=None, result=None)


@fuzz
@given(any_jobs, moments)
def test_a_picture_has_each_job_in_the_lane_in_which_it_ran(jobs: list[Job], now: int) -> None:
    picture = timeline(jobs, NOW + now)
    assert sum(map(shown, picture.ran)) == sum(each.started_at is not None for each in jobs)
    by_name = {each.query_type: each for each in jobs}
    for box in picture.ran:
        if shown(box) == 1:
            runtime, label = picture.lane(box)
            assert runtime == by_name[box.lines[0]].runtime_id
            assert label.startswith(by_name[box.lines[0]].replica_id or "worker ")


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_are_only_text(name: str) -> None:
    named: Any = {"runtime_id": name, "query_type": name, "error_message": name, "replica_id": name[:5]}
    svg = timeline_chart(
        [job(0, 0, 1, 2, **{**named, **FAILED, "error_message": name}), job(1, 0, **named)], NOW + 3
    ).svg
    assert len(svg) < 20_000
    picture = check(svg)
    assert len(picture.ran) == 1


def test_short_hostile_names_are_shown_whole() -> None:
    picture = timeline([job(0, 0, 1, 2, runtime_id="<b onclick='x'>&amp;\"", query_type="\ufffe\0<i>")])
    assert [text.words for text in picture.headers] == ["<b onclick='x'>&amp;\""]
    assert picture.ran[0].lines[0] == "[U+FFFE]␀<i>"


@pytest.mark.parametrize(
    ("name", "most"), [("W" * 300, 45), ("語" * 300, 25), ("ri.foundry.main.compute-module.0b1c2d3e", 39)]
)
def test_names_are_cut_by_how_wide_they_are(name: str, most: int) -> None:
    (header,) = timeline([job(0, 0, 1, 2, runtime_id=name)]).headers
    assert 20 < len(header.words) <= most
    assert header.words == name or header.words.endswith("…")


def test_a_chart_does_not_depend_on_the_order_of_the_jobs() -> None:
    jobs = busy_day(100)
    mixed = random.Random(1).sample(jobs, len(jobs))
    assert timeline_chart(mixed, after(jobs)).svg == timeline_chart(jobs, after(jobs)).svg
    assert latency_chart(mixed).svg == latency_chart(jobs).svg


# How a chart is shown


@pytest.mark.parametrize("chart", [timeline_chart(busy_day(50), NOW + 10 * S), latency_chart(busy_day(50))])
def test_a_notebook_gets_the_picture_and_the_words(chart: Chart) -> None:
    bundle = chart._repr_mimebundle_(include=None, exclude=None)
    assert bundle == {"image/svg+xml": chart.svg, "text/plain": chart.text}
    assert repr(chart) == chart.text == check(chart.svg).title


def test_a_chart_as_an_image_has_a_size_of_its_own_and_fits_in_a_narrow_page() -> None:
    for svg in (timeline_chart([job(0, 0)], NOW).svg, latency_chart([job(0, 0, 1, 2)]).svg, latency_chart([]).svg):
        root = ET.fromstring(svg)
        pixels, width = int(root.attrib["width"]), int(root.attrib["viewBox"].split()[2])
        assert 12 <= 13 * pixels / width <= 16, "letters on a wide page"
        assert 13 * 400 / width > 8, "letters on a page of 400 pixels"
        assert f"max-width:min({pixels}px,100%)" in root.attrib["style"]


@pytest.mark.parametrize(
    ("chart", "hint"),
    [
        (timeline_chart([], NOW), 'emu.call("name", {...})'),
        (latency_chart([]), 'emu.call("name", {...})'),
        (latency_chart([job(0, 0), job(1, 0, 1)]), "emu.jobs"),
    ],
)
def test_with_nothing_to_draw_there_is_a_hint_what_to_type(chart: Chart, hint: str) -> None:
    picture = check(chart.svg)
    assert picture.words == [chart.text] == [picture.title]
    assert chart.text.startswith("No job")
    assert hint in chart.text


def test_a_timeline_of_no_jobs_is_refused(emu: Emulator) -> None:
    for most in (0, -1):
        with pytest.raises(InvalidRequest, match=f"at least one job, not {most}"):
            emu.timeline(most)


def test_the_emulator_shows_its_jobs(emu: Emulator) -> None:
    assert repr(emu.timeline()).startswith("No jobs yet.")
    runtime = emu.open_runtime("mine")
    for number in range(3):
        runtime.enqueue(f"f{number}", {})
    assert repr(emu.timeline()) == "Timeline of 3 jobs: 3 queued."
    assert repr(emu.latency()).startswith("No job has finished yet.")
    assert [text.words for text in check(emu.timeline().svg).headers] == ["mine"]


# The timeline's words


def test_the_summary_counts_every_way_to_end() -> None:
    jobs = [
        *(job(number, 0, number, number + 1) for number in range(5)),
        *(job(number, 0, number, number + 1, **RAISED) for number in range(5, 7)),
        *(job(number, 0, number, number + 1, **FAILED) for number in range(7, 10)),
        job(10, 0, None, 5, **FAILED),
        *(job(number, 0, 10) for number in range(11, 13)),
        job(13, 0),
    ]
    text = "Timeline of 14 jobs on 2 workers: 1 queued, 2 running, 5 ok, 2 function errors, 4 failed."
    assert timeline_chart(jobs, NOW + 20).text == text
    assert " ".join(timeline(jobs).words[:2]) == text.replace(":", "")


@pytest.mark.parametrize(
    ("jobs", "text"),
    [
        ([job(0, 0, 1, 2)], "Timeline of 1 job on 1 worker: 1 ok."),
        ([job(0, 0, 1, 2, **RAISED)], "Timeline of 1 job on 1 worker: 1 function error."),
        ([job(0, 0)], "Timeline of 1 job: 1 queued."),
    ],
)
def test_one_is_not_many(jobs: list[Job], text: str) -> None:
    assert timeline_chart(jobs, NOW + 3).text == text


def test_the_summary_of_any_jobs_is_a_plain_count() -> None:
    for seed in range(5):
        jobs = busy_day(150, seed)
        kinds = Counter(
            "failed"
            if each.status == JobStatus.FAILED
            else "function error"
            if each.result == ERROR
            else {"succeeded": "ok"}.get(each.status, each.status)
            for each in jobs
        )
        said = re.findall(r"([\d,]+) (ok|function error|failed|running|queued)", timeline_chart(jobs, after(jobs)).text)
        assert {kind: int(number) for number, kind in said} == kinds


def test_the_last_of_many_jobs_are_drawn() -> None:
    jobs = [job(number, number * MS, number * MS, number * MS + MS) for number in range(3_000)]
    picture = timeline(jobs[::-1])
    assert picture.words[0] == "Timeline of the last 200 of 3,000 jobs on 1 worker"
    assert sorted(int(box.lines[0][1:]) for box in picture.ran) == list(range(2_800, 3_000))
    assert sum(map(shown, timeline(jobs, most=3_000).ran)) == 3_000


def test_the_longest_words_stay_in_the_picture() -> None:
    kinds: list[Any] = [
        *((None, None, {}), (0, None, {}), (0, 1, {}), (0, 1, RAISED), (0, 1, FAILED)) * 40,
        *[(0, 1, {})] * 99_800,
    ]
    jobs = [
        job(-number, 0, start, end, replica_id=f"{number:08x}", **more)
        for number, (start, end, more) in enumerate(kinds)
    ]
    words = timeline(jobs).words
    assert words[:2] == [
        "Timeline of the last 200 of 100,000 jobs on 160 workers",
        "40 queued, 40 running, 40 ok, 40 function errors, 40 failed.",
    ]


# The timeline's lanes


def test_each_replica_has_a_lane_and_each_task_beside_another_one_of_its_own() -> None:
    jobs = [
        job(0, 0, 0, 10, replica_id="77ab01cd"),
        job(1, 0, 0, 10, replica_id="3f9a12bc"),
        job(2, 0, 5, 15, replica_id="3f9a12bc"),
        job(3, 0, 10, 12, replica_id="3f9a12bc"),
        job(4, 0, 20, 30),
        job(5, 0, 25, 30),
        job(6, 0),
        job(7, 0, 0, 40, runtime_id="s", replica_id="3f9a12bc"),
    ]
    picture = timeline(jobs)
    names = ["queue (max 5)", "worker 1", "worker 2", "3f9a12bc", "3f9a12bc · 2", "77ab01cd"]
    assert list(picture.rows()) == [*(("r", name) for name in names), ("s", "queue (max 0)"), ("s", "3f9a12bc")]
    assert picture.in_lane(picture.ran, "3f9a12bc") == ["f1", "f3", "f7"]
    assert picture.in_lane(picture.ran, "3f9a12bc · 2") == ["f2"]
    assert picture.in_lane(picture.ran, "worker 2") == ["f5"]


def test_who_still_runs_a_job_takes_no_other_even_if_the_clock_was_set_back() -> None:
    picture = timeline([job(0, 0, 10), job(1, 0, 20), job(2, 0, 30, replica_id="3f9a12bc")], NOW - 5)
    assert [label for _, label in picture.lanes()] == ["worker 1", "worker 2", "3f9a12bc"]


def test_a_job_that_starts_when_another_ends_has_its_lane_although_the_clocks_differ() -> None:
    jobs = [job(number, 0, number * S, (number + 1) * S, run_clock=S + 2 * MS) for number in range(5)]
    assert timeline(jobs).lanes() == [("r", "worker 1")]
    now = NOW + 6 * S
    spans = [span_of(each, now, now + 2 * MS) for each in [*jobs, job(5, 0, 5 * S, run_clock=NOW + 5 * S)]]
    assert {lane.label for lane in Lanes().place(spans).values()} == {"worker 1"}


def test_the_names_of_lanes_end_before_the_bars_begin() -> None:
    tasks = [job(number, 0, number, 10**6, replica_id="3f9a12bc") for number in range(100)]
    picture = timeline([*tasks, *(job(number, 0, None, 10**6, **FAILED) for number in range(100, 200))])
    bars = min(box.left for box in [*picture.ran, *picture.queues])
    labels = {label for _, label in picture.rows()}
    assert {"queue (max 199)", "3f9a12bc", "3f9a12bc · 39"} <= labels
    assert all(text.right <= bars for text in picture.texts if text.words in labels)


def test_no_more_than_forty_rows_are_drawn_and_a_note_counts_the_rest() -> None:
    jobs = [job(number, 0, 1, 2 + number, runtime_id=f"r{number // 50}") for number in range(200)]
    picture = timeline(jobs)
    assert len(picture.rows()) == MAX_LANES == 40
    assert len(picture.ran) == len(picture.lanes()) == 39
    assert picture.words[-1] == "161 more lanes with 161 jobs not shown"
    assert "on 200 workers" in picture.title
    assert not re.search("not shown", "".join(timeline(jobs[:39]).words))
    assert timeline(jobs[:40]).words[-1] == "1 more lane with 1 job not shown"


def test_lanes_of_many_runtimes_stay_below_their_own_name() -> None:
    jobs = busy_day(200, runtimes=7, replicas=20)
    picture = timeline(jobs)
    runtimes = [runtime for runtime, _ in picture.rows()]
    assert [text.words for text in picture.headers] == list(dict.fromkeys(runtimes))
    assert len(picture.headers) == 7


# The timeline's bars and marks


def test_a_job_runs_in_the_time_it_took_and_its_wait_is_a_gap() -> None:
    picture = timeline([job(0, 0, 25 * S, 75 * S, query_type="add"), job(1, 0, 75 * S, 100 * S)])
    (queue,), (first, second) = picture.queues, picture.ran
    whole = second.right - queue.left
    assert first.left - queue.left == pytest.approx(whole / 4, abs=0.2)
    assert first.right - first.left == pytest.approx(whole / 2, abs=0.2)
    assert second.left == pytest.approx(first.right, abs=0.2)
    assert first.lines == ["add", "ok", "queued 25 s, ran 50 s"]


def test_the_queue_is_one_area_as_high_as_the_number_of_queued_jobs() -> None:
    jobs = [job(number, number * S, 10 * S + number * S, 10 * S + number * S) for number in range(4)]
    assert queue_depth([span_of(each, NOW, NOW) for each in jobs]) == [
        *((NOW + second * S, second + 1) for second in range(4)),
        *((NOW + (10 + second) * S, 3 - second) for second in range(4)),
    ]
    (queue,) = timeline(jobs).queues
    assert queue.lines == ["at most 4 jobs queued at a time"]
    heights = [float(each) for each in re.findall(r"V([\d.]+)", queue.path)][:-1]
    base = max(heights)
    assert [round(4 * (base - each) / (base - min(heights)), 1) for each in heights] == [1, 2, 3, 4, 3, 2, 1, 0]


def test_the_queue_of_very_many_jobs_stays_small_and_keeps_its_highest_point() -> None:
    jobs = [job(number, number, number + 5) for number in range(20_000)]
    jobs += [job(20_000 + number, 10_000, 10_001) for number in range(300)]
    (queue,) = timeline(jobs, most=30_000).queues
    assert len(queue.path) < 15_000
    assert queue.lines == ["at most 305 jobs queued at a time"]
    assert min(float(each) for each in re.findall(r"V([\d.]+)", queue.path)) < queue.y - 25


def test_unfinished_jobs_last_until_now() -> None:
    picture = timeline([job(0, 0, 5 * S), job(1, 0)], NOW + 10 * S)
    (ran,), (queue,) = picture.ran, picture.queues
    assert ran.lines[2] == "queued 5 s, ran 5 s"
    assert ran.right == queue.right
    assert [text.words for text in picture.axis()] == ["now", "-2 s", "-4 s", "-6 s", "-8 s", "-10 s"]
    assert picture.words[-1] == "now: 2025-11-24 16:00:10.000 UTC"


def test_what_is_over_counts_from_the_first_job() -> None:
    picture = timeline([job(0, 0, 1 * S, 3 * S)], NOW + 3_600 * S)
    assert [text.words for text in picture.axis()] == ["0", "1 s", "2 s", "3 s"]
    assert picture.words[-1] == "0: 2025-11-24 16:00:00.000 UTC, when the first of these jobs came"


def test_a_job_that_took_no_time_can_be_seen() -> None:
    picture = timeline([job(0, 0, 0, 0), job(1, 0, 0, DAY)])
    assert len(picture.ran) == 2
    assert all(box.right - box.left >= 2 for box in picture.ran)


def test_jobs_too_short_to_be_seen_are_one_bar_that_shows_its_errors() -> None:
    jobs = [job(number, number * MS, number * MS, number * MS + MS) for number in range(10_000)]
    jobs[5_000] = msgspec.structs.replace(jobs[5_000], **FAILED)
    jobs[7_000] = msgspec.structs.replace(jobs[7_000], **RAISED)
    picture = timeline(jobs, most=10_000)
    assert len(picture.ran) < 500
    assert sum(map(shown, picture.ran)) == 10_000
    assert len([box for box in picture.ran if box.lines[0].endswith(", 1 failed")]) == 1
    svg = timeline_chart(jobs, after(jobs)).svg
    found = re.findall(r"<g><title>(\d+ jobs): [^<]* 1 (failed|function error)</title>(.*?)</g>", svg)
    assert [kind for _, kind, _ in found] == ["failed", "function error"]
    for (_, _, bars), colour in zip(found, ("error", "warn"), strict=True):
        heights = [float(each) for each in re.findall(r'height="([\d.]+)"', bars)]
        assert bars.count("<rect") == 2
        assert f"--jp-{colour}-color1" in bars
        assert heights[1] >= 4, "one in thousands must be seen"


def test_failures_and_function_errors_have_marks_of_different_shapes() -> None:
    random_ = random.Random(0)
    kinds: list[Any] = [random_.choice([{}, RAISED, FAILED]) for _ in range(50)]
    jobs = [job(number, 0, number * S, (number + 1) * S, **more) for number, more in enumerate(kinds)]
    picture = timeline(jobs)
    shapes: dict[str, set[str]] = {}
    for mark in picture.marks:
        shapes.setdefault(mark.lines[1], set()).add(re.sub(r"M\S+ \S+?(?=[lm])", "", mark.path))
    assert {kind: len(found) for kind, found in shapes.items()} == {"failed": 1, "function error": 1}
    assert shapes["failed"] != shapes["function error"]
    assert sorted(mark.lines[0] for mark in picture.marks) == sorted(f"f{n}" for n, more in enumerate(kinds) if more)


def test_a_mark_stands_where_its_job_ended() -> None:
    picture = timeline(
        [job(0, 0, 0, 5 * S, **FAILED), job(1, 0, 5 * S, 10 * S, **RAISED), job(2, 0, None, 8 * S, **FAILED)]
    )
    ends = {box.lines[0]: box.right for box in picture.ran}
    (queue,) = picture.queues
    ends["f2"] = ends["f0"] + (ends["f1"] - ends["f0"]) * 3 / 5
    lanes = {mark.lines[0]: picture.lane(mark)[1] for mark in picture.marks}
    assert lanes == {"f0": "worker 1", "f1": "worker 1", "f2": "queue (max 2)"}
    for mark in picture.marks:
        assert mark.left == pytest.approx(ends[mark.lines[0]], abs=5)
    assert queue.right >= ends["f2"]


def test_no_bar_is_painted_over_a_mark_of_its_lane() -> None:
    ends: list[Any] = [{}, RAISED, FAILED]
    jobs = [job(number, 0, number * S, (number + 1) * S, **ends[number % 3]) for number in range(30)]
    painted = timeline(jobs).painted
    assert painted == ["ran"] * 30 + ["mark"] * 20


def test_a_job_that_failed_in_the_queue_never_ran() -> None:
    picture = timeline(
        [job(0, 0, None, 5 * S, **{**FAILED, "error_message": "The job was deleted"}), job(1, 0, 0, 9 * S)]
    )
    assert [box.lines[0] for box in picture.ran] == ["f1"]
    (mark,) = picture.marks
    assert picture.lane(mark) == ("r", "queue (max 1)")
    assert mark.lines == ["f0", "failed", "queued 5 s", "The job was deleted"]


@pytest.mark.parametrize(
    ("jobs", "named"),
    [
        ([job(0, 0)], ["queued"]),
        ([job(0, 0, 1)], ["queued", "running"]),
        ([job(0, 0, 1, 2)], ["queued", "ok"]),
        ([job(0, 0, 1, 2, **RAISED)], ["queued", "function error"]),
        ([job(0, 0, None, 2, **FAILED), job(1, 0, 1, 2)], ["queued", "ok", "failed"]),
        (busy_day(100), ["queued", "running", "ok", "function error", "failed"]),
    ],
)
def test_the_legend_names_the_colours_that_the_picture_has_and_no_others(jobs: list[Job], named: list[str]) -> None:
    picture = timeline(jobs)
    assert [text.words for text in picture.texts if text.y == 60] == named
    legend, _, below = timeline_chart(jobs, after(jobs)).svg.partition(f">{named[-1]}</text>")
    assert set(OUTCOME_COLOUR.findall(legend)) == set(OUTCOME_COLOUR.findall(below))


def test_the_legend_has_the_marks_of_failures_and_function_errors() -> None:
    svg = timeline_chart(busy_day(100), NOW + 10 * S).svg
    root = ET.fromstring(svg)
    paths = [element.get("d", "") for element in root.findall(f"./{SVG}path")]
    assert sum("l8 8m0 -8l-8 8" in path for path in paths) == 2, "a cross and its outline"
    assert sum("l6.5 12h-13z" in path for path in paths) == 1


# The timeline's axis


@fuzz
@given(st.integers(0, 16), st.floats(1, 10), st.booleans())
def test_an_axis_of_any_length_has_a_few_round_ticks_that_can_be_read(power: int, digits: float, live: bool) -> None:  # noqa: FBT001
    length = int(digits * 10**power)
    jobs = [job(0, 0, 0, None if live else length)]
    ticks = timeline(jobs, NOW + length).axis()
    assert 2 <= len(ticks) <= 6
    assert not live or all(text.words.startswith("-") for text in ticks[1:])
    assert len({text.words for text in ticks}) == len(ticks)


def test_the_names_of_the_ticks_do_not_overlap() -> None:
    for seconds in (*range(1, 200), *range(200, 4_000, 25), *range(4_000, 400_000, 1_800)):
        timeline([job(0, 0, 0, seconds * S)])


# The latency


def plain_percentile(times: Sequence[int], percent: int) -> int:
    return min(time for time in times if 100 * sum(other <= time for other in times) >= percent * len(times))


@fuzz
@given(st.lists(st.tuples(st.integers(0, 10 * S), st.integers(0, 100 * S)), min_size=1, max_size=60))
def test_percentiles_are_those_of_a_plain_computation(times: list[tuple[int, int]]) -> None:
    jobs = [job(number, 0, wait, wait + run) for number, (wait, run) in enumerate(times)]
    waits, runs = zip(*times, strict=True)
    figures = [
        f"{what} time p50 {duration(plain_percentile(values, 50))}, p95 {duration(plain_percentile(values, 95))}"
        for what, values in (("run", runs), ("queue", waits))
    ]
    many = "1 finished job" if len(jobs) == 1 else f"{len(jobs)} finished jobs"
    assert latency_chart(jobs).text == f"Latency of {many}: {'; '.join(figures)}."


@pytest.mark.parametrize(("count", "p50", "p95"), [(1, 1, 1), (2, 1, 2), (20, 10, 19), (100, 50, 95)])
def test_the_percentiles_of_the_first_numbers(count: int, p50: int, p95: int) -> None:
    text = latency_chart([job(number, 0, 0, number * S) for number in range(1, count + 1)]).text
    assert f"run time p50 {duration(p50 * S)}, p95 {duration(p95 * S)};" in text


@fuzz
@given(any_jobs)
def test_every_finished_job_is_in_one_bar_of_each_histogram(jobs: list[Job]) -> None:
    done = [each for each in jobs if each.completed_at is not None]
    if not done:
        assert "No job has finished yet" in latency_chart(jobs).text
        return
    _, run, queue = histograms(jobs)
    assert counted(run) == sum(each.started_at is not None for each in done)
    assert counted(queue) == len(done)
    for bars in (run, queue):
        assert all(one.right <= other.left for one, other in pairwise(bars))


def counted(bars: Sequence[Box]) -> int:
    return sum(int(bar.lines[0].rpartition(": ")[2].split()[0]) for bar in bars)


def test_a_bar_says_which_times_it_counts() -> None:
    times = [0, 0, 3 * MS, 40 * DAY, 1_200 * DAY]
    _, run, _ = histograms([job(number, 0, 0, time) for number, time in enumerate(times)])
    assert [bar.lines for bar in run] == [
        ["0 ns to 0 ns: 2 jobs"],
        ["3 ms to 3 ms: 1 job"],
        ["40 d to 40 d: 1 job"],
        ["1200 d to 1200 d: 1 job"],
    ]


@pytest.mark.parametrize("time", [1_000, MS, S, 10 * S, 60 * S, 600 * S, 3_600 * S, 36_000 * S, DAY, 100 * DAY])
def test_a_round_time_begins_its_bar_at_its_tick(time: int) -> None:
    picture, (bar,), _ = histograms([job(0, 0, time // 3, time // 3 + time)])
    (tick,) = [text for text in picture.texts if text.words == duration(time)]
    assert bar.left == pytest.approx((tick.left + tick.right) / 2, abs=0.2)


def test_times_of_weeks_are_inside_the_axis() -> None:
    picture, (bar,), _ = histograms([job(0, 0, 40 * DAY, 80 * DAY)])
    assert picture.words[-2:] == ["10 d", "100 d"]
    assert bar.right < picture.texts[-1].left


@fuzz
@given(st.integers(0, 17), st.integers(0, 17))
def test_the_ticks_of_any_range_can_be_read(low: int, high: int) -> None:
    picture, _, _ = histograms([job(0, 0, 10**low, 10**low + 10**high), job(1, 0, 0, 10**high)])
    row = [text for text in picture.texts if text.y == picture.texts[-1].y]
    assert 2 <= len(row) <= 9


def test_the_largest_counts_stay_in_the_picture() -> None:
    words = check(latency_chart([job(0, 0, 0, 69 * MS)] * 1_000_000).svg).words
    assert words.count("1,000,000") == 2
    assert "Run time of 1,000,000 jobs: p50 69 ms, p95 69 ms" in words


def test_jobs_that_failed_in_the_queue_only_waited() -> None:
    jobs = [job(number, 0, None, 2 * S, **FAILED) for number in range(5)]
    assert latency_chart(jobs).text == "Latency of 5 finished jobs: run time none; queue time p50 2 s, p95 2 s."
    _, run, queue = histograms(jobs)
    assert (len(run), counted(queue)) == (0, 5)


def test_unfinished_jobs_do_not_count() -> None:
    jobs = busy_day(100)
    done = [each for each in jobs if each.completed_at is not None]
    assert 0 < len(done) < len(jobs)
    assert latency_chart(jobs).svg == latency_chart(done).svg


def test_the_heights_of_the_bars_are_as_their_counts() -> None:
    _, run, _ = histograms([job(number, 0, 0, S if number < 30 else 100 * S) for number in range(40)])
    base = max(bar.y for bar in run)
    assert [bar.lines[0] for bar in run] == ["1 s to 1 s: 30 jobs", "1 min 40 s to 1 min 40 s: 10 jobs"]
    assert run[0].y < base
