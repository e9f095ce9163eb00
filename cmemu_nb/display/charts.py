"""Charts of jobs as SVG text: which executor ran which job and when, and how long jobs took.

A chart is part of a page, where it uses JupyterLab's colours, or an image, where it uses colours of its own, for
light or dark pages as the reader prefers. It has no scripts, references or ids, and its rules apply to charts only,
so any number of charts can share a page. Text from outside is cut short, made visible and escaped.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from functools import lru_cache
from html import escape
from itertools import groupby, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from cmemu_nb.display.lanes import Lanes, queue_depth, span_of
from cmemu_nb.display.names import USUAL_NAME
from cmemu_nb.display.percentiles import SHOWN, percentile
from cmemu_nb.display.text import duration, short_text, tally, when
from cmemu_nb.lifecycle.records import JobStatus, Outcome
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmemu_nb.display.lanes import Lane, Span
    from cmemu_nb.lifecycle.records import Job

__all__ = ["Chart", "latency_chart", "timeline_chart"]

MAX_LANES = 40

# JupyterLab's colours in a page that has them. Elsewhere, and in an image, the colours of the light theme in these
# lines, or those of `_DARK` for a reader who prefers dark pages. GitHub may remove the rules; it then shows the light
# ones.
_BACK = "var(--cmemu-svg-back,var(--jp-layout-color1,#ffffff))"
_TEXT = "var(--cmemu-svg-text,var(--jp-ui-font-color1,#212121))"
_LINE = "var(--cmemu-svg-line,var(--jp-border-color2,#bdbdbd))"
_DARK = (
    "<style>@media (prefers-color-scheme:dark){.cmemu-svg{--cmemu-svg-back:var(--jp-layout-color1,#181818);"
    "--cmemu-svg-text:var(--jp-ui-font-color1,#e0e0e0);--cmemu-svg-line:var(--jp-border-color2,#4a4a4a)}}</style>"
)
_BLUE = "var(--jp-info-color1,#1e88e5)"
_COLOURS: dict[str, str] = {
    JobStatus.RUNNING: _BLUE,
    Outcome.OK: "#78909c",
    Outcome.FUNCTION_ERROR: "var(--jp-warn-color1,#f57c00)",
    Outcome.FAILED: "var(--jp-error-color1,#e53935)",
}
_AREA = f"fill:{_TEXT};fill-opacity:.25;stroke:{_TEXT};stroke-opacity:.55"
_BOLD = "font-weight:600"
_PLAIN = re.compile("#[0-9a-f]{6}")
_LETTERS = f"fill:{_TEXT};font-size:13px;font-family:system-ui,sans-serif"

# Positions and sizes, in units of the viewBox.
_WIDTH, _PIXELS, _LEFT, _PLOT, _RIGHT, _LETTER = 600, 660, 12, 130, 582, 7.3
_LANES, _LANE, _BAR, _QUEUE, _MERGED, _MARK = 76, 20, 12, 32, 2, 9
_PANEL, _HEIGHT, _LOG_LEFT, _LOG_RIGHT = 122, 70, 80, 560

# Round durations in nanoseconds: the steps of an even axis, the ticks of a logarithmic one.
_S, _D = 10**9, 86_400 * 10**9
_STEPS = (
    *(digit * 10**power for power in range(3, 10) for digit in (1, 2, 5)),
    *(each * _S for each in (10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200)),
    *(digit * 10**power * _D for power in range(6) for digit in (1, 2, 5)),
)
_TICKS = (*(10**n for n in range(3, 11)), *(n * _S for n in (60, 600, 3_600, 36_000)), *(10**n * _D for n in range(4)))
_MAX_STEPS, _MAX_LABELS = 5, 9


class Chart:
    """A chart that a notebook shows, with a description in words."""

    def __init__(self, svg: str, text: str) -> None:
        self.svg = svg
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": self.text}


def timeline_chart(
    jobs: Iterable[Job], now: int, every: int | None = None, emu: str = USUAL_NAME, *, steady: int | None = None
) -> Chart:
    """Return a chart of when each job ran, with a lane for each slot of an executor, and of how many were queued.

    `now`, in Unix nanoseconds, is the time up to which unfinished jobs are drawn, and `steady` the same time on the
    steady clock; its default is `now`. If `jobs` are only the newest of all jobs, `every` is the number of all. `emu`
    is the emulator's variable. At most 40 rows are drawn, and jobs that would be narrower than two pixels are merged.
    """
    spans = [span_of(job, now, now if steady is None else steady) for job in sorted(jobs, key=attrgetter("sequence"))]
    if not spans:
        return _nothing(_no_jobs(emu))
    rows = _rows(spans)
    drawn = len(spans)
    which = plural(drawn, "job") if every in (None, drawn) else f"the last {drawn:,} of {every:,} jobs"
    workers = sum(row.works for row in rows)
    on = f" on {plural(workers, 'worker')}" if workers else ""
    text = f"Timeline of {which}{on}: {_ends(spans)}."
    return Chart(_draw_timeline(spans, rows, text), text)


def latency_chart(jobs: Sequence[Job], every: int | None = None, emu: str = USUAL_NAME) -> Chart:
    """Return histograms of the run times and queue times of the finished jobs, on a logarithmic axis.

    If `jobs` are only the newest of all jobs, `every` is the number of all. `emu` is the emulator's variable.
    """
    done = [job for job in jobs if job.completed_at is not None]
    if not done:
        return _nothing(f"No job has finished yet. {emu}.jobs shows their states." if jobs else _no_jobs(emu))
    times = {
        "Run time": sorted([time for job in done if (time := job.run_time()) is not None]),
        "Queue time": sorted([time for job in done if (time := job.queue_time()) is not None]),
    }
    figures = "; ".join(f"{what.lower()} {_figures(values)}" for what, values in times.items())
    which = plural(len(done), "finished job")
    text = f"Latency of {which if every in (None, len(jobs)) else f'the last {which}'}: {figures}."
    return Chart(_draw_latency(times, text), text)


# The timeline


class _Row(NamedTuple):
    """One row of the timeline: a lane with the jobs that ran in it, or the queue of a runtime with all of its jobs."""

    runtime_id: str
    label: str
    spans: list[Span]
    works: bool = False

    @property
    def height(self) -> int:
        return _LANE if self.works else _QUEUE


def _rows(spans: Sequence[Span]) -> list[_Row]:
    """Return the rows of each runtime: its queue, and below it the lanes of its executors."""
    by_runtime: dict[str, dict[Lane, list[Span]]] = {span.job.runtime_id: {} for span in spans}
    lanes = Lanes().place(spans)
    for span in sorted((span for span in spans if span.ran), key=attrgetter("left_queue")):
        by_runtime[span.job.runtime_id].setdefault(lanes[span.job.job_id], []).append(span)
    return [
        row
        for runtime_id, its_lanes in by_runtime.items()
        for row in (
            _queue_row(runtime_id, [span for span in spans if span.job.runtime_id == runtime_id]),
            *(_Row(runtime_id, lane.label, its_lanes[lane], works=True) for lane in sorted(its_lanes)),
        )
    ]


def _queue_row(runtime_id: str, spans: list[Span]) -> _Row:
    most = max(depth for _, depth in [(0, 0), *queue_depth(spans)])
    return _Row(runtime_id, f"queue (max {most:,})", spans)


def _ends(spans: Iterable[Span]) -> str:
    return tally(Counter(span.end for span in spans))


def _draw_timeline(spans: Sequence[Span], rows: Sequence[_Row], text: str) -> str:
    shown, hidden = rows[:MAX_LANES], [row for row in rows[MAX_LANES:] if row.works]
    start = min(span.queued for span in spans)
    end = max(start + _STEPS[0], *(span.ended for span in spans))
    live = any(span.job.completed_at is None for span in spans)
    names, tops, bottom = _row_names(shown)
    plot = max(_PLOT, _LEFT + 18 + _LETTER * max(len(row.label) for row in shown))
    heading, _, ends = text.partition(": ")
    jobs = plural(sum(len(row.spans) for row in hidden), "job")
    notes = [f"now: {when(end)}" if live else f"0: {when(start)}, when the first of these jobs came"]
    notes += [f"{plural(len(hidden), 'more lane')} with {jobs} not shown"] * bool(hidden)
    place = _Scale(start, (_RIGHT - plot) / (end - start), plot)
    parts = [
        _svg_text(_LEFT, 20, heading, _BOLD),
        _svg_text(_LEFT, 38, ends),
        _legend(60, {span.end for row in shown for span in row.spans if row.works or not span.ran}),
        _time_axis(start, end, bottom, plot, live=live),
        names,
        *(_queue(row.spans, top, place, end) for row, top in zip(shown, tops, strict=True) if not row.works),
        *(_bars(row.spans, top, place) for row, top in zip(shown, tops, strict=True) if row.works),
        *(_svg_text(_LEFT, bottom + 40 + 18 * line, note, "fill-opacity:.8") for line, note in enumerate(notes)),
    ]
    return _svg(_WIDTH, bottom + 34 + 18 * len(notes), _PIXELS, text, "".join(parts))


def _legend(y: int, ends: set[JobStatus | Outcome]) -> str:
    """Draw the legend of the colours in the chart."""
    parts, x = [], _LEFT
    for end in (JobStatus.QUEUED, *(each for each in _COLOURS if each in ends)):
        style = f"fill:{_COLOURS[end]}" if end in _COLOURS else _AREA
        parts += [_bar(x, y - 11, 24, style), _mark(end, x + 24, y - 4), _svg_text(x + 40, y, end)]
        x += 62 + 7 * len(end)
    return "".join(parts)


def _row_names(rows: Sequence[_Row]) -> tuple[str, list[int], int]:
    """Draw each runtime's name above its rows; returns also the tops of the rows and the bottom of the last one."""
    parts, tops, y = list[str](), list[int](), _LANES
    for runtime_id, its_rows in groupby(rows, attrgetter("runtime_id")):
        tip = _tip(f"Runtime {short_text(runtime_id, 120)}")
        back = _bar(_LEFT, y, _WIDTH - _LEFT, f"fill:{_BACK}", _LANE)
        parts += [f"<g>{tip}{back}{_svg_text(_LEFT, y + 15, short_text(runtime_id, 42))}</g>"]
        parts += [_line(_LEFT, y, _RIGHT, y)]
        y += _LANE
        for row in its_rows:
            tops.append(y)
            parts.append(_svg_text(_LEFT + 10, y + row.height - 5, row.label))
            y += row.height
    return "".join(parts), tops, y


def _time_axis(start: int, end: int, bottom: int, plot: float, *, live: bool) -> str:
    """Draw the ticks, which count back from now while a job is unfinished, and otherwise from the first job."""
    span = end - start
    step = next((step for step in _STEPS if span <= step * _MAX_STEPS), span)
    parts = [_line(plot, bottom, _RIGHT, bottom)]
    for tick in range(0, span + 1, step):
        x = plot + (span - tick if live else tick) / span * (_RIGHT - plot)
        label = f"{'-' if live else ''}{duration(tick)}" if tick else "now" if live else "0"
        middle = min(x, _WIDTH - 5 - 4 * len(label))  # a long label at the end is moved into the picture
        parts += [_line(x, _LANES, x, bottom + 4), _svg_text(middle, bottom + 19, label, "text-anchor:middle")]
    return "".join(parts)


class _Scale(NamedTuple):
    """Where a time is in the chart."""

    start: int
    scale: float
    left: float

    def x(self, at: int) -> float:
        return self.left + (at - self.start) * self.scale


def _queue(spans: Sequence[Span], top: int, place: _Scale, end: int) -> str:
    """Draw how many jobs were queued, as a step area, and a mark for each job that failed in the queue."""
    base, steps = top + _QUEUE - 2, queue_depth(spans)
    most = max((depth for _, depth in steps), default=0)
    parts = []
    if most:
        columns = _highest(steps, place, end)
        outline = "".join(f"H{x:.1f}V{base - (_QUEUE - 6) * depth / most:.1f}" for x, depth in columns)
        tip = _tip(f"at most {plural(most, 'job')} queued at a time")
        path = f"M{columns[0][0]:.1f} {base}{outline}H{place.x(end):.1f}V{base}z"
        parts.append(f'<g>{tip}<path d="{path}"{_look(_AREA)}/></g>')
    failed = [span for span in spans if not span.ran and span.end == Outcome.FAILED]
    for group in _merged(failed, place, _MARK):
        mark = _mark(Outcome.FAILED, place.x(group[0].ended), top + _QUEUE / 2)
        parts.append(f"<g>{_jobs_tip(group)}{mark}</g>")
    return "".join(parts)


def _highest(steps: Sequence[tuple[int, int]], place: _Scale, end: int) -> list[tuple[float, int]]:
    """Return the steps with at most one for each unit of width: the highest, and then the depth that follows."""
    found: list[tuple[float, int]] = []
    for (at, depth), following in zip(steps, [*(at for at, _ in steps[1:]), end], strict=True):
        x, wide = place.x(at), place.x(following) - place.x(at)
        if wide >= 1 or not found or x - found[-1][0] >= 1:
            found.append((x, depth))
        elif depth > found[-1][1]:
            found[-1] = (found[-1][0], depth)
    return found


def _bars(spans: Sequence[Span], top: int, place: _Scale) -> str:
    """Draw the bars of a lane, and on top of them the marks of errors and failures."""
    bars, marks, y = [], [], top + (_LANE - _BAR) / 2
    for group in _merged(spans, place, _MERGED):
        tip, left, right = _jobs_tip(group), place.x(group[0].left_queue), max(place.x(span.ended) for span in group)
        if len(group) > 1:
            bars.append(f"<g>{tip}{_shares(group, left, y, right - left)}</g>")
            continue
        end = group[0].end
        bars.append(f"<g>{tip}{_bar(left, y, right - left, f'fill:{_COLOURS[end]}')}</g>")
        if mark := _mark(end, max(right, left + 2), y + _BAR / 2):
            marks.append(f"<g>{tip}{mark}</g>")
    return "".join(bars + marks)


def _shares(group: Sequence[Span], x: float, y: float, width: float) -> str:
    """Draw several jobs as one bar: above the share that failed, below that of errors, both large enough to be seen."""
    counts = Counter(span.end for span in group)
    most = Outcome.OK if counts[Outcome.OK] else max(counts, key=list(_COLOURS).index)
    parts = [_bar(x, y, width, f"fill:{_COLOURS[most]}")]
    for end, at_top in ((Outcome.FUNCTION_ERROR, False), (Outcome.FAILED, True)):
        if counts[end]:
            height = max(_BAR / 3, _BAR * counts[end] / len(group))
            parts.append(_bar(x, y if at_top else y + _BAR - height, width, f"fill:{_COLOURS[end]}", height))
    return "".join(parts)


def _merged(spans: Sequence[Span], place: _Scale, width: float) -> list[list[Span]]:
    """Return the jobs of a row in groups: those that end within the same `width` are drawn as one."""
    groups: list[list[Span]] = []
    for span in sorted(spans, key=attrgetter("ended")):
        if groups and place.x(span.ended) - place.x(groups[-1][0].left_queue) < width:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _jobs_tip(group: Sequence[Span]) -> str:
    return _job_tip(group[0]) if len(group) == 1 else _tip(f"{plural(len(group), 'job')}: {_ends(group)}")


def _job_tip(span: Span) -> str:
    times = f"queued {duration(span.left_queue - span.queued)}"
    if span.ran:
        times += f", ran {duration(span.ended - span.left_queue)}"
    lines = [short_text(span.job.query_type, 120), span.end, times, short_text(span.job.error_message or "", 120)]
    return _tip("\n".join(filter(None, lines)))


def _mark(end: str, x: float, y: float) -> str:
    """Return a failed job's cross or a function error's triangle, which can be recognised without colours."""
    if end == Outcome.FUNCTION_ERROR:
        style = f"fill:{_COLOURS[end]};stroke:{_BACK};stroke-width:1.5"
        return f'<path d="M{x:.1f} {y - 7:.1f}l6.5 12h-13z"{_look(style)}/>'
    if end != Outcome.FAILED:
        return ""
    cross = f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"'
    outline = _look(f"fill:none;stroke:{_BACK};stroke-width:5")
    return f"{cross}{outline}/>{cross}{_look(f'fill:none;stroke:{_COLOURS[end]};stroke-width:2.4')}/>"


# The latency


def _percentiles(times: Sequence[int]) -> dict[str, int]:
    found = {f"p{percent}": percentile(times, percent) for percent in SHOWN}
    return {name: time for name, time in found.items() if time is not None}


def _figures(times: Sequence[int]) -> str:
    return ", ".join(f"{name} {duration(time)}" for name, time in _percentiles(times).items()) or "none"


def _draw_latency(times: dict[str, list[int]], text: str) -> str:
    known = [values for values in times.values() if values]
    first = bisect_right(_TICKS, min(values[0] for values in known)) - 1
    first = min(max(first, 0), len(_TICKS) - 2)
    last = max(first + 1, bisect_right(_TICKS, max(values[-1] for values in known)))
    ticks, y = _TICKS[first : last + 1], 6
    parts = []
    for (what, values), colour in zip(times.items(), (f"fill:{_BLUE}", f"fill:{_TEXT};fill-opacity:.45"), strict=True):
        parts.append(_histogram(what, values, ticks, y, colour))
        y += _PANEL
    labelled = ticks[:: 1 + len(ticks) // _MAX_LABELS]
    parts += [_svg_text(_log_x(tick, ticks), y + 17, duration(tick), "text-anchor:middle") for tick in labelled]
    return _svg(_WIDTH, y + 28, _PIXELS, text, "".join(parts))


def _histogram(what: str, times: Sequence[int], ticks: Sequence[int], y: int, colour: str) -> str:
    """Draw one histogram, with about ten bars for each factor of ten and an edge at each tick, and its percentiles."""
    base, edges = y + _PANEL - 6, [float(ticks[-1])]
    for tick, following in pairwise(ticks):
        buckets = round(10 * math.log10(following / tick))
        edges[-1:-1] = [tick * (following / tick) ** (index / buckets) for index in range(buckets)]
    bounds = [0, *(bisect_left(times, edge) for edge in edges[1:-1]), len(times)]
    most = max(end - begin for begin, end in pairwise(bounds))
    heading = f"{what} of {plural(len(times), 'job')}: {_figures(times)}"
    parts = [_svg_text(_LEFT, y + 16, heading, _BOLD), _line(_LOG_LEFT, base, _LOG_RIGHT, base)]
    parts += [_line(x, base - _HEIGHT, x, base + 4) for x in (_log_x(tick, ticks) for tick in ticks)]
    for (low, high), (begin, end) in zip(pairwise(edges), pairwise(bounds), strict=True):
        if end > begin:
            x, height = _log_x(low, ticks), max(2, _HEIGHT * (end - begin) / most)
            tip = _tip(f"{duration(times[begin])} to {duration(times[end - 1])}: {plural(end - begin, 'job')}")
            parts.append(f"<g>{tip}{_bar(x, base - height, _log_x(high, ticks) - x - 1, colour, height)}</g>")
    if times:
        parts.append(_svg_text(_LOG_LEFT - 6, base - _HEIGHT + 12, f"{most:,}", "text-anchor:end"))
    return "".join([*parts, *_percentile_lines(times, ticks, base)])


def _percentile_lines(times: Sequence[int], ticks: Sequence[int], base: int) -> Iterable[str]:
    """Draw the lines of the percentiles, with the names on opposite sides so that they can't overlap."""
    for (name, time), anchor in zip(_percentiles(times).items(), ("end", "start"), strict=False):
        x, top = _log_x(time, ticks), base - _HEIGHT - 18
        yield f'<path d="M{x:.1f} {top}V{base}"{_look(f"stroke:{_TEXT};stroke-width:1.5;stroke-dasharray:4 2")}/>'
        yield _svg_text(x + (4 if anchor == "start" else -4), top + 10, name, f"text-anchor:{anchor}")


def _log_x(time: float, ticks: Sequence[int]) -> float:
    """Return the position of a duration on the axis of these ticks; at an end of the axis if it is beyond it."""
    part = math.log(min(max(time, ticks[0]), ticks[-1]) / ticks[0]) / math.log(ticks[-1] / ticks[0])
    return _LOG_LEFT + part * (_LOG_RIGHT - _LOG_LEFT)


# SVG


@lru_cache(maxsize=200)
def _look(style: str) -> str:
    """Return a style as attributes: plain ones for each program, and for those that know them also the variables.

    Programs for drawings know no variables, and some pages remove styles: everything would be black there.
    """
    given = [declaration.partition(":")[::2] for declaration in style.split(";") if declaration]
    plain = "".join(f' {name}="{_PLAIN.findall(value)[-1] if "var(" in value else value}"' for name, value in given)
    themed = ";".join(f"{name}:{value}" for name, value in given if "var(" in value)
    return f'{plain} style="{themed}"' if themed else plain


def _svg(width: int, height: int, pixels: int, text: str, inside: str) -> str:
    """Return a chart that is `pixels` wide, also as an image, and narrower on a narrow page."""
    safe = escape(text)
    letters = _look(_LETTERS).replace('style="', f'style="max-width:min({pixels}px,100%);height:auto;direction:ltr;')
    size = f'width="{pixels}"{letters}'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="cmemu-svg" role="img" viewBox="0 0 {width} {height}" {size} '
        f'aria-label="{safe}"><title>{safe}</title>{_DARK}'
        f'<rect width="{width}" height="{height}"{_look(f"fill:{_BACK}")}/>{inside}</svg>'
    )


def _no_jobs(emu: str) -> str:
    return f'No jobs yet. {emu}.call("name", {{...}}) or {emu}.submit(...) submits one.'


def _nothing(text: str) -> Chart:
    return Chart(_svg(_WIDTH, 40, _PIXELS, text, _svg_text(_LEFT, 25, text)), text)


def _svg_text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}"{_look(style)}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path d="M{x:.1f} {y}L{to_x:.1f} {to_y}"{_look(f"stroke:{_LINE}")}/>'


def _bar(x: float, y: float, width: float, style: str = "", height: float = _BAR) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 2):.1f}" height="{height:.1f}"{_look(style)}/>'


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>"
