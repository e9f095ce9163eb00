"""What the error of a job says first: its type, its message, and the frame of the user's own code that raised it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cmemu_nb.display.text import cut, visible
from cmemu_nb.lifecycle.records import CANCELLED, Outcome
from cmemu_nb.wire.results import why_no_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.dashboard.panels import Part
    from cmemu_nb.lifecycle.records import Job

MAX_ERROR = 20_000
MAX_MESSAGE = 2_000
MAX_FRAME = 1_000
# Where the stack trace begins, in Python, and in Java and Node.
_TRACE = re.compile(r"\n(?=(?:  \+ Exception Group )?Traceback \(most recent call last\):\n|[ \t]+at \S)")
_TYPE = re.compile(r"[A-Za-z_$][\w.$<>]*")
_TYPE_ALONE = re.compile(r"[A-Za-z_$][\w.$<>]*(?:Error|Exception|Exit|Interrupt|Warning)")
_FRAME = re.compile(r'[ |]*(?:File "([^"]+)"|Cell In\[\d+\]), line \d+')
# The line of Python's tracebacks that marks a part of the line above.
_MARKS = re.compile(r"[ |]*~*\^+~*\s*")
_AT = re.compile(r"\s+at (.+)")
_LIBRARY = re.compile(r"[\\/](?:site|dist)-packages[\\/]|[\\/]lib[\\/]python3|[\\/]Python3\d+[\\/]Lib[\\/]|^<frozen ")
_FOREIGN = re.compile(
    r"(?:java|javax|jdk|sun|kotlin|scala|com\.sun|com\.palantir\.computemodules)[./]|.*(?:node:|node_modules)"
)


def error_of(job: Job, explanation: str = "") -> Part | None:
    """Return the error of a job: its `type`, `message`, own `frame` and `trace`; None if the job has none.

    `explanation` is what the executor knows about it. A text that is empty is not known.
    """
    text = "".join(cut(why_no_value(job, explanation), MAX_ERROR))
    if not text:
        return None
    kind, message, trace = _split(text)
    if job.outcome == Outcome.FAILED:
        kind, message = kind or ("cancelled" if job.cancelled else "failed"), message.removeprefix(CANCELLED)
    parts = {
        "type": kind or str(job.outcome),
        "message": "".join(cut(message, MAX_MESSAGE)),
        "frame": "".join(cut(own_frame(trace), MAX_FRAME)),
        "trace": text if trace or len(message) > MAX_MESSAGE else "",
    }
    return {name: visible(part, lines=True) for name, part in parts.items()}


def _split(text: str) -> tuple[str, str, str]:
    """Split the text of an error into the type of the exception, its whole message, and its stack trace."""
    found = _TRACE.search(text)
    head, trace = (text[: found.start()].rstrip("\n"), text[found.end() :]) if found else (text, "")
    kind, colon, message = head.partition(": ")
    if not (_TYPE.fullmatch(kind) if trace else _TYPE_ALONE.fullmatch(kind)):
        return "", head, trace
    # In Python the head has the first line of the message, and the trace ends with the whole of it.
    whole = trace.rfind(f"\n{head}")
    return kind, (trace[whole + 1 + len(kind + colon) :] if whole >= 0 else message), trace


def own_frame(trace: str) -> str:
    """Return the frame in which the user's own code raised or called what raised, "" if there is none."""
    frames = list(_python_frames(trace.split("\n")))
    if frames:
        own = [frame for file, frame in frames if not _LIBRARY.search(file)]
        return (own or [frame for _, frame in frames])[-1]
    calls = [found[1] for line in trace.split("\n") if (found := _AT.fullmatch(line))]
    return next((f"at {call}" for call in calls if not _FOREIGN.match(call)), "")


def _python_frames(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the file of each frame of a Python traceback, "" for a cell, and the frame's lines without marks."""
    file, frame = "", list[str]()
    for line in [*lines, ""]:
        found = _FRAME.match(line)
        if frame and (found or len(line) - len(line.lstrip(" |")) <= _depth(frame[0])):
            yield file, "\n".join(each[_depth(frame[0]) :] for each in frame)
            frame = []
        if found:
            file = found[1] or ""
        if (found or frame) and not _MARKS.fullmatch(line):
            frame.append(line)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" |"))
