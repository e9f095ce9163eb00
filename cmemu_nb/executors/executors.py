"""What takes jobs in this process or for it: functions in cells, launched programs, and replicas on clusters."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from cmemu_nb.errors import NotFound, NotRunning
from cmemu_nb.executors.cells.functions import Functions
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.cluster.clusters import Clusters
    from cmemu_nb.executors.modules.modules import Modules


class Executors:
    """The executors of one emulator. Those that nobody has used are not made, and nothing is imported for them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.functions = Functions(self)

    @functools.cached_property
    def modules(self) -> Modules:
        """The programs that were launched."""
        from cmemu_nb.executors.modules.modules import Modules  # noqa: PLC0415 - imported when somebody uses it

        return Modules(self)

    @functools.cached_property
    def clusters(self) -> Clusters:
        """The clusters that serve functions."""
        from cmemu_nb.executors.cluster.clusters import Clusters  # noqa: PLC0415 - imported when somebody uses it

        return Clusters(self)

    @property
    def launched(self) -> bool:
        """Whether any program was ever launched."""
        return "modules" in vars(self)

    @contextlib.contextmanager
    def opened_runtime(self, runtime_id: str) -> Iterator[str]:
        """Give a runtime's id; a new one is opened, bound to an app of its name, and undone if the block fails."""
        state = self.engine.lifecycle
        if state.has_runtime(runtime_id):
            yield runtime_id
            return
        rid = f"ri.foundry.main.deployed-app.{runtime_id}"
        bound = {(app.deployed_app_rid, app.branch): app for app in state.deployed_apps()}
        self.engine.change(lambda lifecycle: lifecycle.open_session(runtime_id, rid))
        try:
            yield runtime_id
        except BaseException:
            # A runtime that nothing polls for would take every call of the app, and of an emulator without another app.
            with contextlib.suppress(NotRunning, NotFound):
                self.engine.change(
                    lambda lifecycle: lifecycle.undo_session(runtime_id, bound.get((rid, DEFAULT_BRANCH)))
                )
            raise
