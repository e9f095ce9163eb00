"""`emu.dashboard()`: the widget in the browser, and below it the summary, which needs no kernel."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
import traitlets
from anywidget import AnyWidget
from IPython.display import display, update_display

from cmemu_nb.dashboard.assets import script, style
from cmemu_nb.dashboard.summary import summary
from cmemu_nb.dashboard.view import Options, View
from cmemu_nb.errors import HomeError
from cmemu_nb.eventloop.shell import in_marimo, in_voila
from cmemu_nb.ipython import current_shell

if TYPE_CHECKING:
    from cmemu_nb.emulator import Emulator


def _summary_bundle(emulator: Emulator, name: str) -> dict[str, str]:
    # The dashboard in the browser finds the summary by its class, and hides it.
    html = f'<div class="{name}">{summary(emulator)}</div>'
    return {"text/html": html, "text/plain": "A summary of the dashboard, as HTML."}


class DashboardWidget(AnyWidget):
    """The data of a dashboard in the browser: one trait for each part, so that only changed parts are sent again."""

    _esm = script()
    _css = style()

    name = traitlets.Unicode().tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)
    options = traitlets.Dict().tag(sync=True)
    flow = traitlets.Dict().tag(sync=True)
    runtimes = traitlets.Dict().tag(sync=True)
    jobs = traitlets.Dict().tag(sync=True)
    newest = traitlets.Dict().tag(sync=True)
    choices = traitlets.Dict().tag(sync=True)
    job = traitlets.Dict().tag(sync=True)
    edit = traitlets.Dict().tag(sync=True)
    compared = traitlets.Dict().tag(sync=True)
    functions = traitlets.Dict().tag(sync=True)
    histories = traitlets.Dict().tag(sync=True)
    form = traitlets.Dict().tag(sync=True)
    tried = traitlets.Dict().tag(sync=True)
    timeline = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    resource = traitlets.Dict().tag(sync=True)
    events = traitlets.Dict().tag(sync=True)
    trouble = traitlets.Dict().tag(sync=True)

    def open(self) -> None:
        """Connect to the browser, and let its messages arrive while a cell runs, where the kernel has subshells."""
        super().open()
        if hasattr(self.comm, "_reply_subshell_for"):
            # JupyterLab sends a widget's messages to a subshell, and ipykernel 7.4 moves them to the shell in which
            # Python has sent last, so that a cell that waits for an answer may receive it. Nothing waits for these.
            self.comm._reply_subshell_for = None  # noqa: SLF001

    def show(self, parts: dict[str, Any]) -> None:
        """Send parts to the browser, in one message."""
        try:
            with self.hold_sync():
                for name, part in parts.items():
                    self.set_trait(name, part)
        except BaseException:
            # anywidget would add the parts that could not be sent to every later message.
            self._states_to_send.clear()
            raise

    def __repr__(self) -> str:
        return "The dashboard is a widget, which this page does not show; a summary is below."


class Dashboard:
    """The dashboard of one emulator. It works while a browser shows it; `close()` ends it."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        # marimo and Voilà do not save outputs, so a summary would be of no use.
        self._is_saved = not (in_marimo() or in_voila())
        if getattr(current_shell(), "kernel", None) is None and not in_marimo():
            raise HomeError(
                "The dashboard is a widget, and this is not a notebook. 'cmemu ui' in a terminal opens it in a "
                f"browser. {emulator.name}.jobs, .runtimes and .events are DataFrames; .timeline() and .latency() "
                "are charts."
            )
        self._closed = False
        self._summary_id = f"cmemu-summary-{secrets.token_hex(8)}"
        options = msgspec.to_builtins(Options())
        self.widget = DashboardWidget(options=options, name=emulator.name, summary=self._summary_id)
        self._view = View(emulator.board, self.widget.show, self.widget.send, self._rewrite_summary)
        self.widget.on_msg(lambda _widget, message, _buffers: self._receive(message))
        emulator.board.open()

    def close(self) -> None:
        """Remove the widget and update the summary below it."""
        self._closed = True
        self._emulator.board.summaries.remove(self._rewrite_summary)
        self._emulator.board.do(self._close)

    def _close(self) -> None:
        self._view.pause()
        self.widget.close()

    def _receive(self, message: dict[str, Any]) -> None:
        self._view.ahead.heard()
        self._view.receive(message)

    def _rewrite_summary(self) -> None:
        if self._is_saved:
            update_display(_summary_bundle(self._emulator, self._summary_id), display_id=self._summary_id, raw=True)

    def _ipython_display_(self) -> None:
        if self._closed:
            print(self._closed_message())  # noqa: T201 - it is shown in a cell
            return
        display(self.widget)
        if self._is_saved:
            display(_summary_bundle(self._emulator, self._summary_id), display_id=self._summary_id, raw=True)
            self._emulator.board.summaries.add(self._rewrite_summary)

    def _closed_message(self) -> str:
        return f"This dashboard is closed. {self._emulator.name}.dashboard() opens another."

    def _display_(self) -> DashboardWidget | str:
        """Return the object that marimo shows."""
        return self._closed_message() if self._closed else self.widget

    def __repr__(self) -> str:
        return f"<Dashboard of {self._emulator!r}; it shows itself as the last line of a cell>"
