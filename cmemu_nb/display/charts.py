"""Charts of jobs as SVG text: which executor ran which job and when, how long jobs took, and the throughput.

A chart is part of a page, where it uses JupyterLab's colours, or an image, where it uses the fallback colours and its
own background. It has no scripts, stylesheets, references or ids, so any number of charts can share a page. Text from
outside is cut short, made visible and escaped.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from html import escape
from itertools import accumulate, groupby, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import east_asian_width

from cmemu_nb.display.names import USUAL_NAME
from cmemu_nb.display.percentiles import SHOWN, percentile
from cmemu_nb.display.text import duration, tally, visible, when
from cmemu_nb.lifecycle.records import JobStatus, Outcome
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmemu_nb.lifecycle.records import Job

__all__ = ["Chart", "latency_chart", "sparkline_svg", "timeline_chart"]

MAX_LANES = 40
MAX_REPLICA_NAME = 21

_BACK = "var(--jp-layout-color1,#ffffff)"
_TEXT = "var(--jp-ui-font-color1,#212121)"
_LINE = "var(--jp-border-color2,#bdbdbd)"
_BLUE = "var(--jp-info-color1,#1e88e5)"
_COLOURS: dict[str, str] = {
    JobStatus.RUNNING: _BLUE,
    Outcome.OK: "var(--jp-success-color1,#43a047)",
    Outcome.FUNCTION_ERROR: "var(--jp-warn-color1,#f57c00)",
    Outcome.FAILED: "var(--jp-error-color1,#e53935)",
}
_PALE = 0.25
_BOLD = "font-weight:600"
_STYLE = f"direction:ltr;fill:{_TEXT};font:13px system-ui,sans-serif"
_NOT_IN_XML = {code: f"[U+{code:X}]" for code in (0xFFFE, 0xFFFF)}

# Positions and sizes, in units of the viewBox.
_WIDTH, _PIXELS, _LEFT, _PLOT, _RIGHT, _LETTER = 600, 660, 12, 130, 582, 7.3
_LANES, _LANE, _BAR = 76, 20, 14
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
    """Return a chart of when each job waited and ran, with a lane for each queue, replica or worker.

    `now`, in Unix nanoseconds, is the time up to which unfinished jobs are drawn, and `steady` the same time on the
    steady clock; its default is `now`. If `jobs` are only the newest of all jobs, `every` is the number of all. `emu`
    is the emulator's variable. At most 40 lanes are drawn.
    """
    spans = [_span(job, now, now if steady is None else steady) for job in sorted(jobs, key=attrgetter("sequence"))]
    if not spans:
        return _nothing(_no_jobs(emu))
    lanes = _lanes(spans)
    drawn = len(spans)
    which = plural(drawn, "job") if every in (None, drawn) else f"the last {drawn:,} of {every:,} jobs"
    workers = sum(lane.works for lane in lanes)
    on = f" on {plural(workers, 'worker')}" if workers else ""
    text = f"Timeline of {which}{on}: {_ends(spans)}."
    return Chart(_draw_timeline(spans, lanes, text), text)


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


def sparkline_svg(values: Sequence[float], label: str) -> str:
    """Return the values as a line of at most 120 by 24 pixels, from 0 to the largest; `label` describes the line."""
    heights = [value if math.isfinite(value) and value > 0 else 0.0 for value in values]
    top, step = max(heights, default=0.0) or 1.0, 116 / max(1, len(heights) - 1)
    points = " ".join(f"{2 + index * step:.1f},{22 - 20 * (height / top):.1f}" for index, height in enumerate(heights))
    line = f'<polyline points="{points}" style="fill:none;stroke:{_BLUE};stroke-width:1.5;stroke-linejoin:round"/>'
    return _svg(120, 24, 120, _short(label, 200), line)


# The timeline


class _Span(NamedTuple):
    """A job and its times, which are complete and in order; `end` is its outcome, or else its status."""

    job: Job
    end: JobStatus | Outcome
    queued: int
    left_queue: int
    ended: int


class _Lane(NamedTuple):
    """The jobs of a runtime that one replica or worker ran, one after the other, or the jobs in its queue."""

    runtime_id: str
    label: str
    works: bool
    spans: list[_Span]


def _span(job: Job, now: int, steady: int) -> _Span:
    """Return when a job waited and ran: its measured durations, placed around the time at which it was taken."""
    waited, ran = job.queue_time(steady) or 0, job.run_time(steady) or 0
    if not job.finished:
        left_queue = now - ran
    elif job.started_at is None:
        left_queue = job.queued_at + waited
    else:
        left_queue = job.started_at
    return _Span(job, job.outcome or job.status, left_queue - waited, left_queue, left_queue + ran)


def _lanes(spans: Iterable[_Span]) -> list[_Lane]:
    """Assign every job to a lane: the queue of its runtime, or the first lane of its replica that is free at the time.

    Jobs that were taken through the emulator's own routes have no replica; their lanes are called "worker N".
    """
    groups: dict[tuple[int, bool, str], list[list[_Span]]] = {}
    order = {runtime: rank for rank, runtime in enumerate(dict.fromkeys(span.job.runtime_id for span in spans))}
    for span in sorted(spans, key=attrgetter("left_queue")):
        works = span.job.started_at is not None
        replica = (works and span.job.replica_id) or ""
        group = groups.setdefault((order[span.job.runtime_id], works, replica), [])
        free = (x for x in group if not works or (x[-1].end != JobStatus.RUNNING and x[-1].ended <= span.left_queue))
        lane = next(free, None)
        if lane is None:
            group.append(lane := [])
        lane.append(span)
    return [
        _Lane(inside[0].job.runtime_id, _lane_label(*key[1:], number, len(inside)), key[1], inside)
        for key, group in sorted(groups.items())
        for number, inside in enumerate(group, 1)
    ]


def _lane_label(works: bool, replica: str, number: int, jobs: int) -> str:  # noqa: FBT001 - `works` is part of a key
    if not works:
        return f"queue ({jobs:,})"
    if not replica:
        return f"worker {number}"
    return _short(replica, MAX_REPLICA_NAME) + (f" · {number}" if number > 1 else "")


def _ends(spans: Iterable[_Span]) -> str:
    return tally(Counter(span.end for span in spans))


def _draw_timeline(spans: Sequence[_Span], lanes: Sequence[_Lane], text: str) -> str:
    shown, hidden = lanes[:MAX_LANES], lanes[MAX_LANES:]
    start = min(span.queued for span in spans)
    end = max(start + _STEPS[0], *(span.ended for span in spans))
    live = any(span.job.completed_at is None for span in spans)
    names, tops, bottom = _lane_names(shown)
    plot = max(_PLOT, _LEFT + 18 + _LETTER * max(len(lane.label) for lane in shown))
    heading, _, ends = text.partition(": ")
    jobs = plural(sum(len(lane.spans) for lane in hidden), "job")
    notes = [f"now: {when(end)}" if live else f"0: {when(start)}, when the first of these jobs came"]
    notes += [f"{plural(len(hidden), 'more lane')} with {jobs} not shown"] * bool(hidden)
    parts = [
        _svg_text(_LEFT, 20, heading, _BOLD),
        _svg_text(_LEFT, 38, ends),
        _legend(60, {span.end for lane in shown for span in lane.spans}),
        _time_axis(start, end, bottom, plot, live=live),
        names,
        _bars(shown, tops, start, (_RIGHT - plot) / (end - start), plot),
        *(_svg_text(_LEFT, bottom + 40 + 18 * row, note, "fill-opacity:.8") for row, note in enumerate(notes)),
    ]
    return _svg(_WIDTH, bottom + 34 + 18 * len(notes), _PIXELS, text, "".join(parts))


def _legend(y: int, ends: set[JobStatus | Outcome]) -> str:
    """Draw the legend of the colours in the chart; every job was queued, and then is running or has ended."""
    parts, x = [], _LEFT
    for end in (JobStatus.QUEUED, *(each for each in _COLOURS if each in ends)):
        style = f"fill:{_COLOURS[end]}" if end in _COLOURS else f"fill-opacity:{_PALE}"
        parts += [_bar(x, y - 11, 24, style), _mark(end, x + 24, y - 4), _svg_text(x + 40, y, end)]
        x += 62 + 7 * len(end)
    return "".join(parts)


def _lane_names(lanes: Sequence[_Lane]) -> tuple[str, list[int], int]:
    """Draw each runtime's name above its lanes; returns also the tops of the lanes and the bottom of the last one."""
    parts, tops, y = list[str](), list[int](), _LANES
    for runtime_id, its_lanes in groupby(lanes, attrgetter("runtime_id")):
        tip = _tip(f"Runtime {_short(runtime_id, 120)}")
        back = _bar(_LEFT, y, _WIDTH - _LEFT, f"fill:{_BACK}", _LANE)
        parts += [f"<g>{tip}{back}{_svg_text(_LEFT, y + 15, _short(runtime_id, 42))}</g>", _line(_LEFT, y, _RIGHT, y)]
        for lane in its_lanes:
            y += _LANE
            tops.append(y)
            parts.append(_svg_text(_LEFT + 10, y + 15, lane.label))
        y += _LANE
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


def _bars(lanes: Sequence[_Lane], tops: Sequence[int], start: int, scale: float, plot: float) -> str:
    """Draw the bars of waiting below those of running, because a job waits while another runs, and the marks on top."""
    waited, ran, marks = [], [], []
    for lane, top in zip(lanes, tops, strict=True):
        y = top + (_LANE - _BAR) / 2
        for span in lane.spans:
            queued, left, ended = (plot + (at - start) * scale for at in span[2:])
            tip = _job_tip(span)
            waited.append(f"<g>{tip}{_bar(queued, y, left - queued)}</g>")
            if lane.works:
                ran.append(f"<g>{tip}{_bar(left, y + 2, ended - left, f'fill:{_COLOURS[span.end]}', _BAR - 4)}</g>")
            if mark := _mark(span.end, ended, y + _BAR / 2):
                marks.append(f"<g>{tip}{mark}</g>")
    # The group has one opacity, so a hundred overlapping bars are as pale as one. Many edges must not hide the bars.
    style = f"opacity:{_PALE};stroke:{_BACK};stroke-width:{min(0.7, 40 / len(waited)):.2g}"
    return "".join([f'<g style="{style}">', *waited, "</g>", *ran, *marks])


def _job_tip(span: _Span) -> str:
    times = f"queued {duration(span.left_queue - span.queued)}"
    if span.job.started_at is not None:
        times += f", ran {duration(span.ended - span.left_queue)}"
    lines = [_short(span.job.query_type, 120), span.end, times, _short(span.job.error_message or "", 120)]
    return _tip("\n".join(filter(None, lines)))


def _mark(end: str, x: float, y: float) -> str:
    """Return a failed job's cross or a function error's triangle, which can be recognised without colours."""
    if end == Outcome.FUNCTION_ERROR:
        style = f"fill:{_COLOURS[end]};stroke:{_BACK};stroke-width:1.5"
        return f'<path d="M{x:.1f} {y - 7:.1f}l6.5 12h-13z" style="{style}"/>'
    if end != Outcome.FAILED:
        return ""
    cross = f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" style="fill:none;'
    return f'{cross}stroke:{_BACK};stroke-width:5"/>{cross}stroke:{_COLOURS[end]};stroke-width:2.4"/>'


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
    for (what, values), colour in zip(times.items(), (f"fill:{_BLUE}", "fill-opacity:.45"), strict=True):
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
        yield f'<path d="M{x:.1f} {top}V{base}" style="stroke:{_TEXT};stroke-width:1.5;stroke-dasharray:4 2"/>'
        yield _svg_text(x + (4 if anchor == "start" else -4), top + 10, name, f"text-anchor:{anchor}")


def _log_x(time: float, ticks: Sequence[int]) -> float:
    """Return the position of a duration on the axis of these ticks; at an end of the axis if it is beyond it."""
    part = math.log(min(max(time, ticks[0]), ticks[-1]) / ticks[0]) / math.log(ticks[-1] / ticks[0])
    return _LOG_LEFT + part * (_LOG_RIGHT - _LOG_LEFT)


# SVG


def _svg(width: int, height: int, pixels: int, text: str, inside: str) -> str:
    """Return a chart that is `pixels` wide, also as an image, and narrower on a narrow page."""
    safe = escape(text)
    size = f'width="{pixels}" style="max-width:min({pixels}px,100%);height:auto;{_STYLE}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" {size} aria-label="{safe}">'
        f'<title>{safe}</title><rect width="{width}" height="{height}" style="fill:{_BACK}"/>{inside}</svg>'
    )


def _no_jobs(emu: str) -> str:
    return f'No jobs yet. {emu}.call("name", {{...}}) or {emu}.submit(...) submits one.'


def _nothing(text: str) -> Chart:
    return Chart(_svg(_WIDTH, 40, _PIXELS, text, _svg_text(_LEFT, 25, text)), text)


def _svg_text(x: float, y: float, text: str, style: str = "") -> str:
    look = f' style="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y}"{look}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path d="M{x:.1f} {y}L{to_x:.1f} {to_y}" style="stroke:{_LINE}"/>'


def _bar(x: float, y: float, width: float, style: str = "", height: float = _BAR) -> str:
    look = f' style="{style}"' if style else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 2):.1f}" height="{height:.1f}"{look}/>'


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _short(text: str, columns: int) -> str:
    """Make text from outside visible, and cut it to `columns` columns with an ellipsis at the end."""
    shown = visible(text[: columns + 1]).translate(_NOT_IN_XML)
    widths = accumulate(1 + (east_asian_width(each) in "FW") for each in shown)
    fits = sum(width <= columns for width in widths)
    return shown if fits == len(shown) else f"{shown[: fits - 1]}…"
