"""The environment variables of this process while functions in its cells are configured as a module is.

A process has one environment, so there is one of these: it has the variables of the runtime that was configured last.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ProcessEnvironment:
    """Variables that are set in `os.environ` until they are replaced or removed; then it is as it was before.

    A variable that the user changes meanwhile is left alone.
    """

    def __init__(self) -> None:
        self._set: dict[str, str] = {}
        self._before: dict[str, str | None] = {}
        self.owner: object = None
        """Who has set the variables; None while there are none."""

    def set(self, owner: object, variables: Mapping[str, str]) -> None:
        """Set variables for an owner, in place of those that were set before."""
        self._restore()
        self._set = {name: str(value) for name, value in variables.items()}
        self._before = {name: os.environ.get(name) for name in self._set}
        os.environ.update(self._set)
        self.owner = owner

    def remove(self, owner: object) -> bool:
        """Remove the variables if they are this owner's, and return whether they were."""
        if owner != self.owner:
            return False
        self._restore()
        return True

    def _restore(self) -> None:
        inherited = self.inherited()
        for name in self._set:
            if name in inherited:
                os.environ[name] = inherited[name]
            else:
                os.environ.pop(name, None)
        self._set, self._before, self.owner = {}, {}, None

    def inherited(self) -> dict[str, str]:
        """Return the environment without the variables that are set here, for programs that get their own."""
        environment = dict(os.environ)
        for name, value in self._set.items():
            if environment.get(name) == value:
                before = self._before[name]
                environment.pop(name) if before is None else environment.update({name: before})
        return environment


HERE = ProcessEnvironment()
"""The environment of this process."""
