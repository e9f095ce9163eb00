"""A progress bar below a cell that waits for many jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cmemu_nb.ipython import current_shell
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Callable

UPDATE_SECONDS = 0.2


def progress_bar(total: int, *, wanted: bool) -> Callable[[int, int], None]:
    """Show a bar in a notebook, and return `update(done, errors)`, which may be called from any thread.

    Outside a notebook, or if the bar is not `wanted`, nothing is shown.
    """
    in_notebook = getattr(current_shell(), "kernel", None) is not None
    if not (wanted and in_notebook and total):
        return lambda *_: None
    return _show(total)


def _show(total: int) -> Callable[[int, int], None]:
    from IPython.display import display  # noqa: PLC0415 - only a notebook needs it
    from ipywidgets import HBox, IntProgress, Label  # noqa: PLC0415

    bar, label = IntProgress(max=total), Label(f"0 of {plural(total, 'job')}")
    display(HBox([bar, label]))
    shown_at = 0.0

    def update(done: int, errors: int) -> None:
        nonlocal shown_at
        # The Jupyter server drops messages that arrive too fast.
        if done < total and time.monotonic() - shown_at < UPDATE_SECONDS:
            return
        shown_at = time.monotonic()
        bar.value = done
        bar.bar_style = "warning" if errors else "success" if done == total else ""
        label.value = f"{done:,} of {plural(total, 'job')}" + (f", {errors:,} without a value" if errors else "")

    return update
