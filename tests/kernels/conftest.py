from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kernels.notebooks import WHERE, Notebook, open_notebook

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=WHERE, ids="-".join)
def notebook(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    version, home = request.param
    with open_notebook(version, home, tmp_path_factory.mktemp("kernel")) as opened:
        yield opened


@pytest.fixture(params=WHERE, ids="-".join)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Notebook]:
    """Return a notebook of the test's own, which it may wreck."""
    version, home = request.param
    with open_notebook(version, home, tmp_path) as opened:
        yield opened
