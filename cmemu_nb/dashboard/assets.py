"""The browser's side of the dashboard: its scripts and styles, each joined into one file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

# The browser gets one module: these files joined, each after those that it uses.
SCRIPTS = (
    "dom",
    "times",
    "line_table",
    "filters",
    "search",
    "form_fill",
    "form_types",
    "form",
    "roving",
    "keys",
    "confirm",
    "flow",
    "runtimes",
    "job_edit",
    "job_compare",
    "job",
    "job_table",
    "jobs",
    "functions",
    "timeline_jobs",
    "timeline_draw",
    "timeline_latency",
    "timeline",
    "resource",
    "data",
    "events",
    "summary",
    "main",
)
STYLES = (
    "dashboard",
    "flow",
    "lines",
    "jobs",
    "form",
    "functions",
    "job",
    "runtimes",
    "timeline",
    "data",
    "events",
)


@cache
def script() -> str:
    """Return the module of the dashboard, which exports `render({ model, el })`."""
    return "\n".join(static(f"{name}.js") for name in SCRIPTS)


@cache
def style() -> str:
    """Return the stylesheet of the dashboard."""
    return "\n".join(static(f"{name}.css") for name in STYLES)


@cache
def static(name: str) -> str:
    """Return one of the files of the browser's side."""
    return (files("cmemu_nb.dashboard") / "static" / name).read_text(encoding="utf-8")
