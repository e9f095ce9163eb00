"""The URLs under which a browser reaches the emulator behind a JupyterHub, such as Binder's.

The hub passes a server its path prefix in `JUPYTERHUB_SERVICE_PREFIX`, such as `/user/jo/`. The server's extension
jupyter-server-proxy serves a local port under `<prefix>proxy/<port>`.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit


def service_prefix() -> str | None:
    """Return the hub's path prefix, which begins and ends with a slash; None without a hub."""
    inside = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "").strip().strip("/")
    return f"/{inside}/" if inside else None


def proxy_url(port: int) -> str | None:
    """Return the URL under which jupyter-server-proxy serves a port; None without a hub.

    It begins with the hub's host if the hub announces it (JupyterHub 5 with a `public_url`), otherwise with a slash: it
    is then relative to the host in the browser's address bar.
    """
    prefix = service_prefix()
    if prefix is None:
        return None
    public = urlsplit(os.environ.get("JUPYTERHUB_PUBLIC_URL", ""))
    known = public.scheme in ("http", "https") and public.netloc and public.path == prefix
    host = f"{public.scheme}://{public.netloc}" if known else ""
    return f"{host}{prefix}proxy/{port}"
