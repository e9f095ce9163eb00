"""The file of a module's configuration, as YAML or JSON: the keys of `cmemu_nb.lifecycle.configuration.Configuration`.

`docs/configuration.md` describes it. Invalid content raises an error with the line in the file, and never with a
secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import InvalidRequest, SeedError
from cmemu_nb.lifecycle.configuration import KEYS, Configuration, hide_secrets
from cmemu_nb.storage.seed_yaml import Document, read_bytes
from cmemu_nb.wire.json_values import read_json

if TYPE_CHECKING:
    from pathlib import Path

    import yaml


def read(path: str | Path) -> dict[str, Any]:
    """Return the keys and values of a configuration file; those of the secrets are `Token`s.

    Raises `InvalidRequest` for a file that can't be read or whose content is invalid.
    """
    try:
        return _read(path)
    except (InvalidRequest, SeedError) as error:
        refusal = str(error)
    # Raised here, because a traceback from inside _read can show local variables with the file's text and its secrets.
    raise InvalidRequest(refusal)


def _read(path: str | Path) -> dict[str, Any]:
    content = read_bytes(path, "The configuration file")
    given = _json_object(content)
    if given is None:
        document = Document(str(path), content, KEYS)
        return _values(document, document.root, "the file")
    hide_secrets(given)
    try:
        Configuration().changed(given)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error}") from None
    return given


def _json_object(content: bytes) -> dict[str, Any] | None:
    """Return the object that is written as JSON, None if it is YAML, which does not allow the tabs of JSON."""
    try:
        given = read_json(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


def read_mapping(document: Document, node: yaml.Node, where: str) -> Configuration:
    """Return the configuration that a mapping of a document has; `SeedError` with the line if it is invalid."""
    return Configuration().changed(_values(document, node, where))


def _values(document: Document, node: yaml.Node | None, where: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in document.fields(node, where, KEYS).items():
        one = {name: document.value(value, f"{where}.{name}")}
        hide_secrets(one)
        try:
            Configuration().changed(one)
        except InvalidRequest as error:
            raise document.error(value.start_mark, str(error)) from None
        given |= one
    return given
