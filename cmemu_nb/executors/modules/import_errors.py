"""The traceback of a program that raised an exception while it was imported, found in its output.

The official Python SDK starts in an exit handler. So a program that raised is not ended by its exception: it polls for
jobs, with the functions that it had defined by then, which are often none [foundry].
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.executors.modules.logs import LogLine

MAX_STARTUP_LINES = 1_000
MAX_TRACEBACK_LINES = 10
_HEADER = "Traceback (most recent call last):"
# The first frame of an exception that ended a program: `python app.py`, or `python -m app`.
_OF_A_MODULE = re.compile(r'[ |]*File ".*", line \d+, in (<module>|_run_module_as_main)')


def import_error(lines: Iterable[LogLine]) -> str:
    """Return the last lines of the newest traceback of a module in a program's output, "" if there is none.

    `lines` is what the program wrote before it polled. A traceback that the program printed itself looks the same.
    """
    plain = [line.message for line in lines if line.level is None]
    begins = [
        index
        for index, (line, following) in enumerate(pairwise(plain))
        if line.endswith(_HEADER) and _OF_A_MODULE.match(following)
    ]
    return "\n".join(plain[begins[-1] + 1 :][-MAX_TRACEBACK_LINES:]) if begins else ""
