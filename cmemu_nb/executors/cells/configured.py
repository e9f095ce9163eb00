"""The configuration of functions in cells: what a launched module finds in its environment, this process finds in its.

The official SDK reads `os.environ`. So the variables are set there, and the SDK is made to read them again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cmemu_nb.executors.modules.environment import surroundings
from cmemu_nb.executors.process_environment import HERE
from cmemu_nb.executors.sdk.caches import forget_environment
from cmemu_nb.tokens import scratch_token

if TYPE_CHECKING:
    from pathlib import Path

    from cmemu_nb.engine.engine import Engine

FILES = "-cells"


class ConfiguredCells:
    """Sets the environment of this process for the functions in cells of one emulator."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runtime_id = ""
        """The runtime whose configuration was set last, "" if there is none."""

    def set(self, runtime_id: str) -> None:
        """Set the configuration of a runtime, in place of any other."""
        engine, configuration = self._engine, self._engine.lifecycle.configuration(runtime_id)
        variables = surroundings(engine, runtime_id, configuration, self._write)
        if engine.lifecycle.has_runtime(runtime_id):
            token = scratch_token(engine.lifecycle.runtime(runtime_id).module_auth_token)
            variables.setdefault("SCRATCH_TOKEN", token)
        HERE.set(self, variables)
        forget_environment()
        self._runtime_id = runtime_id

    def _write(self, name: str, text: str) -> Path:
        return self._engine.identity.files.write(f"{name}{FILES}", text.encode())

    def follow(self, runtime_id: str) -> None:
        """Set it again if it is that of this runtime, whose session has a new token."""
        if runtime_id == self._runtime_id and HERE.owner is self:
            self.set(runtime_id)

    def resume(self) -> None:
        """Set the configuration again, if there was one when the emulator was stopped."""
        if self._runtime_id and HERE.owner is not self:
            self.set(self._runtime_id)

    def pause(self) -> None:
        """Remove it while the emulator is stopped."""
        if HERE.remove(self):
            self._engine.identity.files.delete(FILES)
            forget_environment()

    def remove(self, runtime_id: str) -> None:
        """Remove it if it is that of this runtime, which was deleted."""
        if runtime_id == self._runtime_id:
            self._runtime_id = ""
            self.pause()

    def context(self, runtime_id: str) -> dict[str, Any] | None:
        """Return the part of the context that the configuration of a function's runtime determines.

        None leaves it to the SDK, while nothing is configured.
        """
        if HERE.owner is not self and not self._engine.lifecycle.is_configured(runtime_id):
            return None
        configuration = self._engine.lifecycle.configuration(runtime_id)
        client = configuration.client
        sources = configuration.mounted_sources
        return {
            "sources": _plain(configuration.credentials),
            "source_configs": _plain({name: each.get("sourceConfiguration") for name, each in sources.items()}),
            **({"CLIENT_ID": client.id, "CLIENT_SECRET": str(client.secret)} if client else {}),
        }


def _plain(value: Any) -> Any:
    """Return what a launched module reads from a file: there are no `Token`s, which show only four characters."""
    return json.loads(json.dumps(value))
