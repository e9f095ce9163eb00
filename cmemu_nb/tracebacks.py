"""Tracebacks as people read them: of their own lines, without the frames of this package and of the official SDK."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from cmemu_nb.ipython import current_shell

if TYPE_CHECKING:
    from collections.abc import Iterator

E = TypeVar("E", bound=BaseException)

_OURS = f"{Path(__file__).parent}{os.sep}"
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_IPYTHON = re.compile(r"[\\/](IPython|ipykernel)[\\/]")
_HEADING = "Traceback (most recent call last):"
_POSTED = re.compile(rf"(.*?): ((?:  \+ Exception Group )?{re.escape(_HEADING)}\n.*)", re.DOTALL)
_OUR_FRAME = re.compile(rf'File "{re.escape(_OURS)}')
_CALLER = re.compile(r'File "(?=[^"\n]*+", line)[^"\n]*[\\/](?:compute_modules[\\/]client|cmemu_nb[\\/]executors)[\\/]')


def shortened(error: E) -> E:
    """Let a notebook show an error without the frames of this package, as it does with a `CmemuError`; returns it."""
    error._render_traceback_ = functools.partial(render, error)  # type: ignore[attr-defined]
    return error


def render(error: BaseException) -> list[str]:
    """Return what IPython shows of an error; called by IPython, which looks for the method `_render_traceback_`.

    While the error is handled, in the cell that raised it, these are the user's own frames. `%tb` shows all of it.
    """
    show = sys.modules["IPython"].get_ipython().InteractiveTB
    if sys.exc_info()[1] is not error:
        lines: list[str] = show.structured_traceback(type(error), error, error.__traceback__)
        return lines
    with _without_hidden_frames(error):
        if error.__traceback__ is None:
            lines = show.get_exception_only(type(error), error)
        else:
            lines = show.structured_traceback(type(error), error, error.__traceback__, tb_offset=0)
    return lines


@contextlib.contextmanager
def _without_hidden_frames(error: BaseException) -> Iterator[None]:
    whole = [(each, each.__traceback__) for each in _chain(error)]
    try:
        for each, trace in whole:
            each.__traceback__ = _shown(trace)
        yield
    finally:
        for each, trace in whole:
            each.__traceback__ = trace


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and those that led to it."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain


def _shown(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback of the same frames but IPython's, ours and those of libraries that we have called."""
    parts, below_ours = [], False
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        ours = file.startswith(_OURS)
        below_ours = below_ours or ours
        library = file.startswith((*_LIBRARIES, "<frozen "))
        if not (ours or _IPYTHON.search(file) or (below_ours and library)):
            parts.append(trace)
        trace = trace.tb_next
    shown = None
    for part in reversed(parts):
        shown = TracebackType(shown, part.tb_frame, part.tb_lasti, part.tb_lineno)
    return shown


# Their text


def of_function(posted: str) -> str:
    """Make readable what the official Python SDK posts of a function that raised; any other text stays as it is.

    That is the error's message, a colon and the traceback. It becomes a line with the kind of the error and the first
    line of its message, and the traceback from the function's own frame on.
    """
    found = _POSTED.fullmatch(posted)
    if found is None:
        return posted
    said, trace = found.groups()
    first = said.partition("\n")[0]
    # Of a long message each line of the traceback may be a beginning, so that all of it takes the square of the time.
    kinds = re.findall(rf"^[ |]*([\w.<>]+){re.escape(f': {first}' if said else '')}$", trace, re.MULTILINE)
    head = ": ".join(part for part in (*kinds[-1:], first) if part)
    return f"{head}\n\n{from_its_own_frame(trace.rstrip())}"


def from_its_own_frame(trace: str) -> str:
    """Return a traceback without the frames that called the function, the official SDK's and ours, cells by name."""
    return point_at_cells("\n".join(_without_callers(trace.split("\n"))))


def print_from_its_own_frame() -> None:
    """Print the error that is handled, where the function that raised it prints."""
    print(from_its_own_frame(traceback.format_exc()), file=sys.stderr, end="")  # noqa: T201


def _without_callers(lines: list[str]) -> Iterator[str]:
    """Leave out the callers' frames at the beginning of each traceback, and ours, each with its lines of source."""
    leading, hidden_at = False, sys.maxsize
    for line in lines:
        text = line.lstrip(" |+")
        depth = len(line) - len(text)
        if text.endswith(_HEADING):
            leading, hidden_at = True, sys.maxsize
        elif _OUR_FRAME.match(text) or (leading and _CALLER.match(text)):
            hidden_at = depth
        elif depth <= hidden_at:
            leading, hidden_at = False, sys.maxsize
        if hidden_at == sys.maxsize:
            yield line


def in_one_line(error: BaseException | None) -> str:
    """Return an error's type and message, as the last line of its traceback says them."""
    return traceback.format_exception_only(error)[-1].strip() if error is not None else "no error"


def point_at_cells(traceback: str) -> str:
    """Name the cells in a traceback's text as IPython does: 'Cell In[3], line 2', where it has their files' names."""
    compiler = getattr(current_shell(), "compile", None)

    def name(found: re.Match[str]) -> str:
        label = compiler.format_code_name(found[1]) if compiler is not None else None
        return f"{label[0]} {label[1]}, line" if label else found[0]

    return _FILE_AND_LINE.sub(name, traceback)


_FILE_AND_LINE = re.compile(r'File "([^"\n]+)", line')
