"""One tool that the server offers to an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cmemu_nb.cli.remote import Remote


class Tool(msgspec.Struct, frozen=True):
    """A tool: `run` gets the emulator and the arguments, which match `input_schema`, and returns what to answer."""

    name: str
    description: str
    input_schema: dict[str, Any]
    run: Callable[[Remote, dict[str, Any]], Awaitable[object]]
    read_only: bool = False


def arguments(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def text(description: str, **more: Any) -> dict[str, Any]:
    """Return the JSON Schema of a text."""
    return {"type": "string", "description": description, **more}
