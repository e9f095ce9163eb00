"""What the official SDK reads once and keeps for the life of the process: sources, and the address of the scratch."""

from __future__ import annotations

import sys

CACHED = {
    "compute_modules.sources_v2._back_compat": ("get_mounted_source_secrets", "get_mounted_sources"),
    "compute_modules.sources_v2._sources": ("get_source",),
    "scratch._client": ("_get_default_client",),
}
KEPT = {"compute_modules.sources._sources": ("_source_credentials", "_source_configurations")}


def forget_environment() -> None:
    """Have the SDK read all of this again, from the environment as it is now."""
    for module, names in CACHED.items():
        if module in sys.modules:
            for name in names:
                getattr(sys.modules[module], name).cache_clear()
    for module, names in KEPT.items():
        if module in sys.modules:
            vars(sys.modules[module]).update(dict.fromkeys(names))
