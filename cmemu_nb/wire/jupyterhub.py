"""Behind a JupyterHub, Binder's too: where a browser reaches what listens in the notebook's machine.

The hub tells a server its place in `JUPYTERHUB_SERVICE_PREFIX`, such as `/user/jo/`, and the server's extension
jupyter-server-proxy serves a local port under `<prefix>proxy/<port>`.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit


def service_prefix() -> str | None:
    """Return the hub's prefix, from slash to slash; None without a hub."""
    inside = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "").strip().strip("/")
    return f"/{inside}/" if inside else None


def proxy_url(port: int) -> str | None:
    """Return where jupyter-server-proxy serves a port; None without a hub.

    It begins with the hub's host where the hub tells that (JupyterHub 5 with a `public_url`), else with a slash: it
    goes behind the host that stands in the browser.
    """
    prefix = service_prefix()
    if prefix is None:
        return None
    public = urlsplit(os.environ.get("JUPYTERHUB_PUBLIC_URL", ""))
    known = public.scheme in ("http", "https") and public.netloc and public.path == prefix
    host = f"{public.scheme}://{public.netloc}" if known else ""
    return f"{host}{prefix}proxy/{port}"
