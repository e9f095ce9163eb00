"""The pytest plugin: an emulator for tests, as a fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.emulator import Emulator


@pytest.fixture(scope="session")
def cmemu_settings() -> dict[str, Any]:
    """Return the emulator's settings, by name; override it to have others. Default: a free port."""
    return {"port": 0}


@pytest.fixture(scope="session")
def _cmemu_of_the_session(cmemu_settings: dict[str, Any]) -> Iterator[Emulator]:
    # Who uses no fixture of this plugin pays no import.
    from cmemu_nb.emulator import Emulator  # noqa: PLC0415

    with Emulator(**cmemu_settings) as emulator:
        yield emulator


@pytest.fixture
def cmemu(_cmemu_of_the_session: Emulator) -> Iterator[Emulator]:
    """Return an emulator that runs and is empty; one serves the whole session and is emptied after each test."""
    yield _cmemu_of_the_session
    _cmemu_of_the_session.reset()
