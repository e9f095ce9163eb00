"""What an emulator can be looked at as: a dashboard, charts, DataFrames."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, cast

from cmemu_nb.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from cmemu_nb.dashboard.board import Board
    from cmemu_nb.dashboard.widget import Dashboard
    from cmemu_nb.display.charts import Chart
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.storage.session_file import Contents


class Looking:
    """The views of an emulator. They are made in the caller's thread, of records that never change."""

    lifecycle: Lifecycle
    _exported_at: int | None
    _exported_steady: int | None

    def looked_at(self) -> int:
        """Return up to when the views count, in Unix nanoseconds: now, or when a session from a file was exported."""
        return self._exported_at or time.time_ns()

    def steady_at(self) -> int:
        """Return the same moment on the steady clock, up to which durations count."""
        return self._exported_steady or self.lifecycle.steady()

    def export(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write all that there is to a JSON file, for `Emulator.from_export` elsewhere and later; returns its path.

        Runtimes, bindings, schemas, jobs with queries and results, events, and what functions printed; of tokens only
        the last four characters. The file is for its owner only (0600). Raises `SessionFileError` for one that exists,
        unless `overwrite` is True, and for one that can't be written.

        >>> emu.export("run.json", overwrite=True).name
        'run.json'
        """
        from cmemu_nb.storage import session_file  # noqa: PLC0415 - who exports nothing needs none

        path = session_file.expanded(path)
        session_file.write(path, self._contents(), overwrite=overwrite)
        return path

    def _contents(self) -> Contents:
        from cmemu_nb.storage import session_file  # noqa: PLC0415

        emulator = cast("Emulator", self)

        def take() -> Contents:
            return session_file.contents(self.lifecycle, emulator.url, self.looked_at(), self.steady_at())

        async def take_on_loop() -> Contents:
            return take()

        # Where it is changed, so that it is one moment's; but not as a change, which would wait for the journal.
        return emulator.home.run(take_on_loop()) if emulator.running else take()

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI 3.1 document of the routes, as `GET /openapi.json` answers it; of a stopped emulator too.

        `GET /docs` shows the same in a browser.
        """
        from cmemu_nb.server.application import SURFACES  # noqa: PLC0415 - who only looks at records serves nothing
        from cmemu_nb.server.openapi.document import document  # noqa: PLC0415
        from cmemu_nb.version import __version__  # noqa: PLC0415

        return document(SURFACES, __version__)

    def dashboard(self) -> Dashboard:
        """Return a widget that shows the whole lifecycle live, and lets you act on it; for notebooks.

        Under it stands a static summary that is still there when the kernel is gone. `close()` ends it.
        """
        from cmemu_nb.dashboard.widget import Dashboard  # noqa: PLC0415 - only a notebook has widgets

        return Dashboard(cast("Emulator", self))

    @functools.cached_property
    def board(self) -> Board:
        """What keeps the dashboards up to date."""
        from cmemu_nb.dashboard.board import Board  # noqa: PLC0415

        return Board(cast("Emulator", self))

    def timeline(self, most: int = 200) -> Chart:
        """Return a chart of the last jobs by replica or worker: when each was queued and ran.

        There are at most `most` of them. Raises `InvalidRequest` for less than one.
        """
        if most < 1:
            raise InvalidRequest(f"A timeline needs at least one job, not {most}. Leave it out for the last 200.")
        from cmemu_nb.display.charts import timeline_chart  # noqa: PLC0415

        state, emu = self.lifecycle, cast("Emulator", self).name
        return timeline_chart(
            state.newest_jobs(most), self.looked_at(), state.count().total(), emu, steady=self.steady_at()
        )

    def latency(self) -> Chart:
        """Return a histogram of how long the jobs waited and ran, in seconds or parts of them."""
        from cmemu_nb.display.charts import latency_chart  # noqa: PLC0415

        return latency_chart(self.lifecycle.jobs(), emu=cast("Emulator", self).name)

    @property
    def runtimes(self) -> pd.DataFrame:
        """The runtimes as a DataFrame, indexed by runtime_id: who polls, what is queued, what they have.

        >>> emu.runtimes[["display_name", "queued", "functions"]]
                   display_name  queued  functions
        runtime_id
        notebook       Notebook       0          2
        """
        from cmemu_nb.display import frames  # noqa: PLC0415 - pandas is imported when a frame is wanted

        state = self.lifecycle
        return frames.runtimes_frame(
            state.runtimes(), state.outcomes_by_runtime(), state.schemas(), state.deployed_apps(), state.evicted()
        )

    @property
    def jobs(self) -> pd.DataFrame:
        """The jobs as a DataFrame in the order of submission, indexed by job_id; times are UTC, durations timedeltas.

        >>> emu.call("add", {"x": 1})
        2
        >>> emu.jobs.set_index("query_type")[["status", "outcome"]]
                       status outcome
        query_type
        add         succeeded      ok
        """
        from cmemu_nb.display import frames  # noqa: PLC0415

        return frames.jobs_frame(self.lifecycle.jobs(), self.steady_at())

    @property
    def schemas(self) -> pd.DataFrame:
        """The function schemas as a DataFrame, indexed by runtime_id and function_name.

        >>> emu.schemas.index.to_list()
        [('notebook', 'add'), ('notebook', 'words')]
        """
        from cmemu_nb.display import frames  # noqa: PLC0415

        return frames.schemas_frame(self.lifecycle.schemas())

    @property
    def deployed_apps(self) -> pd.DataFrame:
        """The bindings as a DataFrame, indexed by deployed_app_rid and branch.

        >>> emu.deployed_apps.index.to_list()
        [('ri.foundry.main.deployed-app.notebook', 'master')]
        """
        from cmemu_nb.display import frames  # noqa: PLC0415

        return frames.deployed_apps_frame(self.lifecycle.deployed_apps())

    @property
    def events(self) -> pd.DataFrame:
        """What happened as a DataFrame, oldest first, without the empty polls and the chunks of streams.

        >>> emu.open_runtime("r").delete()
        >>> emu.events.query("runtime_id == 'r'")["kind"].to_list()
        ['session_opened', 'session_deleted']
        """
        return self.event_frame()

    def event_frame(self, *, all: bool = False) -> pd.DataFrame:  # noqa: A002 - named as the option of the magic
        """Return what happened, oldest first; `all=True` adds the empty polls and the chunks of streams."""
        from cmemu_nb.display import frames  # noqa: PLC0415

        return frames.events_frame(self.lifecycle.events.recent(all=all))
