"""An IPython shell in the tests' own process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def plain_shell(folder: Path) -> Iterator[InteractiveShell]:
    """Make the process's shell. Its history is in memory alone: the file and its thread would outlive it."""
    config = Config()
    config.HistoryManager.enabled = False
    yield InteractiveShell.instance(ipython_dir=str(folder), config=config)
    InteractiveShell.clear_instance()
