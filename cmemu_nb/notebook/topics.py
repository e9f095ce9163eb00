"""The longer documents, which are packaged as Markdown files in `cmemu_nb/docs`."""

from __future__ import annotations

from importlib import resources


def names() -> list[str]:
    """Return the names of the documents, sorted."""
    return sorted(each.name.removesuffix(".md") for each in _folder().iterdir() if each.name.endswith(".md"))


def read(name: str) -> str:
    """Return a document as Markdown."""
    return (_folder() / f"{name}.md").read_text(encoding="utf-8")


def _folder() -> resources.abc.Traversable:
    return resources.files("cmemu_nb") / "docs"
