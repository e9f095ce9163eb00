"""An IPython shell in the tests' own process."""

from __future__ import annotations

import gc
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
    shell = InteractiveShell.instance(ipython_dir=str(folder), config=config)
    # `shell.reset()` collects garbage, which takes 0.2 s when it looks at all the modules of this process, too.
    gc.freeze()
    yield shell
    gc.unfreeze()
    InteractiveShell.clear_instance()
