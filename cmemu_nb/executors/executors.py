"""The executors of an emulator: functions in cells, launched programs, and replicas on clusters."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cmemu_nb.executors.cells.functions import Functions

if TYPE_CHECKING:
    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.cluster.cluster import Cluster
    from cmemu_nb.executors.cluster.clusters import Clusters
    from cmemu_nb.executors.modules.modules import LaunchedModule, Modules


class Executors:
    """The executors of one emulator. `modules` and `clusters` are made, and their code is imported, on first use."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.functions = Functions(
            engine,
            lambda: vars(self).get("clusters"),
            lambda: self.modules.functions if self.launched else None,
        )

    @functools.cached_property
    def modules(self) -> Modules:
        """The programs that were launched."""
        from cmemu_nb.executors.modules.modules import Modules  # noqa: PLC0415 - imported on first use

        return Modules(self.engine)

    @functools.cached_property
    def clusters(self) -> Clusters:
        """The clusters that serve functions."""
        from cmemu_nb.executors.cluster.clusters import Clusters  # noqa: PLC0415 - imported on first use

        return Clusters(self.engine, self.functions)

    def modules_of(self, runtime_id: str) -> list[LaunchedModule]:
        """Return the programs that were launched for a runtime, without importing anything if there are none."""
        return self.modules.of(runtime_id) if self.launched else []

    def clusters_of(self, runtime_id: str) -> list[Cluster]:
        """Return the clusters that serve functions of a runtime, without importing anything if there are none."""
        return self.clusters.of(runtime_id) if "clusters" in vars(self) else []

    @property
    def launched(self) -> bool:
        """Whether `modules` was used, so that programs may have been launched."""
        return "modules" in vars(self)
