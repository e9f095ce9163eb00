"""Which datasets and streams the tokens of modules reach: those that the aliases of their runtimes name [foundry].

A runtime without aliases is not restricted: its tokens reach all of them [ours].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.tokens import BUILD_TOKEN_START

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.lifecycle.configuration import Configuration
    from cmemu_nb.lifecycle.state import State

    Rids = frozenset[str] | None
    """The RIDs that a token reaches; None stands for all."""


class Reach:
    """The build tokens and OAuth clients that modules were given, with the resources that they reach.

    Several runtimes may have been given the same ones, which then reach what any of the runtimes does. A runtime that
    was deleted gives access to nothing.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._builds: dict[str, dict[str, Rids]] = {}
        self._clients: dict[str, dict[str, Rids]] = {}

    def accept(self, runtime_id: str, configuration: Configuration, build_token: str | None) -> None:
        """Let a runtime's tokens reach what its aliases name, in place of what the same tokens reached before.

        What another session of the runtime was given by the emulator is valid no more.
        """
        rids = frozenset(str(each["rid"]) for each in configuration.aliases.values()) or None
        for token in [token for token in self._builds if token.startswith(BUILD_TOKEN_START)]:
            self._builds[token].pop(runtime_id, None)
            if not self._builds[token]:
                del self._builds[token]
        if build_token is not None:
            self._builds.setdefault(str(build_token), {})[runtime_id] = rids
        if configuration.client is not None:
            self._clients.setdefault(configuration.client.id, {})[runtime_id] = rids

    def build_tokens(self) -> list[str]:
        """Return the build tokens that are valid now."""
        return [token for token, runtimes in self._builds.items() if self._existing(runtimes)]

    def of_build(self, token: str) -> Rids:
        """Return what a valid build token reaches."""
        return _union(self._existing(self._builds[token]))

    def of_client(self, client_id: str) -> Rids:
        """Return what the access tokens of a module's client reach."""
        return _union(self._existing(self._clients.get(client_id, {})))

    def _existing(self, runtimes: dict[str, Rids]) -> list[Rids]:
        state = self._state
        return [rids for name, rids in runtimes.items() if state.has_runtime(name) or state.is_configured(name)]


def _union(reached: Iterable[Rids]) -> Rids:
    found = frozenset[str]()
    for rids in reached:
        if rids is None:
            return None
        found |= rids
    return found
