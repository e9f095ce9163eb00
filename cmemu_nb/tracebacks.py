"""Tracebacks of the user's own code, without the frames of this package and of the official SDK."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import sys
import sysconfig
import traceback
import warnings
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
# The Java SDK's frames, and those of its callers.
_JAVA_CALLERS = re.compile(r"\n\tat com\.palantir\.computemodules\..*(?:\n\tat .*)*")
_OUR_FRAME = re.compile(rf'File "{re.escape(_OURS)}')
_CALLER = re.compile(r'File "(?=[^"\n]*+", line)[^"\n]*[\\/](?:compute_modules[\\/]client|cmemu_nb[\\/]executors)[\\/]')


def shortened(error: E) -> E:
    """Make a notebook show an error like a `CmemuError`, without the frames of this package; return the error."""
    error._render_traceback_ = functools.partial(render, error)  # type: ignore[attr-defined]
    return error


def render(error: BaseException) -> list[str]:
    """Return the lines that IPython shows for an error; IPython calls it as the method `_render_traceback_`.

    While the error is being handled, in the cell that raised it, these are the user's own frames. `%tb` shows all.
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
    """Return an error, its cause or context, and theirs."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain


def _shown(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of IPython, of this package and of libraries that this package called."""
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


# Tracebacks as text


def of_function(posted: str) -> str:
    """Make the error text readable that the official Python SDK posts for a function that raised.

    That text is the error's message, a colon and the traceback. It becomes a line with the type of the error and the
    first line of its message, and the traceback starting at the function's own frame. A stack trace of Java ends with
    the function's own frame. Any other text stays as it is.
    """
    found = _POSTED.fullmatch(posted)
    if found is None:
        return _JAVA_CALLERS.sub("", posted)
    message, trace = found.groups()
    first = message.partition("\n")[0]
    # Only the first line: with a long message, every line of the traceback may begin a match, in quadratic time.
    kinds = re.findall(rf"^[ |]*([\w.<>]+){re.escape(f': {first}' if message else '')}$", trace, re.MULTILINE)
    head = ": ".join(part for part in (*kinds[-1:], first) if part)
    return f"{head}\n\n{from_its_own_frame(trace.rstrip())}"


def from_its_own_frame(trace: str) -> str:
    """Return a traceback's text without the frames of the SDK and of this package, and with cells named."""
    return point_at_cells("\n".join(_without_callers(trace.split("\n"))))


def print_from_its_own_frame() -> None:
    """Print the exception being handled to the same place where the function that raised it prints."""
    print(from_its_own_frame(traceback.format_exc()), file=sys.stderr, end="")  # noqa: T201


def _without_callers(lines: list[str]) -> Iterator[str]:
    """Drop the callers' frames at the beginning of each traceback, and all of ours, with their source lines."""
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
    """Return an error's type and message, like the last line of its traceback."""
    return traceback.format_exception_only(error)[-1].strip() if error is not None else "no error"


def point_at_cells(traceback: str) -> str:
    """Replace the file names of cells in a traceback's text with IPython's names, such as 'Cell In[3], line 2'."""
    compiler = getattr(current_shell(), "compile", None)

    def name(found: re.Match[str]) -> str:
        label = compiler.format_code_name(found[1]) if compiler is not None else None
        return f"{label[0]} {label[1]}, line" if label else found[0]

    return _FILE_AND_LINE.sub(name, traceback)


_FILE_AND_LINE = re.compile(r'File "([^"\n]+)", line')


_NOT_THE_USERS = ("cmemu_nb", "compute_modules")


def warn_user(warning: Warning) -> None:
    """Warn at the line of the user's code that has led here: neither this package's nor the official SDK's."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(warning, stacklevel=level)
