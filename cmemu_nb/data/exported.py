"""Reading an exported session, with the check that the schemas of its datasets can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.errors import ApiError, SessionFileError
from cmemu_nb.foundry.field_schemas import read_fields
from cmemu_nb.storage import session_file

if TYPE_CHECKING:
    from pathlib import Path

    from cmemu_nb.storage.session_file import Contents


def read_export(path: str | Path) -> Contents:
    """Read an exported session. Raises `SessionFileError`, which says what is wrong with the file."""
    found = session_file.read(session_file.expanded(path))
    for dataset in found.state.datasets:
        for schema in dataset.schemas:
            try:
                read_fields(schema.fields)
            except ApiError as error:
                name = dataset.dataset.name
                raise SessionFileError(
                    f"{path} is damaged: a schema of the dataset {name!r} is not valid: {error}"
                ) from None
    return found
