"""The IPython shell of this process, for what must not import IPython."""

from __future__ import annotations

import sys
from typing import Any


def current_shell() -> Any:
    """Return the IPython shell that this code runs in, or None; imports nothing."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
