"""What tools answer with: bounded text without tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmemu_nb.display.text import when
from cmemu_nb.lifecycle.records import NS_PER_MS
from cmemu_nb.wire.json_values import write_json
from cmemu_nb.wire.masking import Mask

if TYPE_CHECKING:
    from cmemu_nb.cli.remote import Remote

MAX_CHARACTERS = 20_000
MAX_FIELD = 300


async def mask_of(remote: Remote) -> Mask:
    """Return what hides the tokens of an emulator and of its runtimes."""
    runtimes = await remote.runtimes()
    return Mask(remote.token, *(each["module_auth_token"] for each in runtimes if "module_auth_token" in each))


def as_text(value: object, mask: Mask) -> str:
    """Return a value as JSON, or text as it is, without tokens and with at most `MAX_CHARACTERS` of it."""
    text = mask(value if isinstance(value, str) else write_json(value, ensure_ascii=False))
    left_out = len(text) - MAX_CHARACTERS
    return text if left_out <= 0 else f"{text[:MAX_CHARACTERS]}\n… {left_out:,} more characters were left out."


def with_times(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with its times in UTC instead of in Unix milliseconds."""
    return {
        name: when(value * NS_PER_MS) if name.endswith("_at") and isinstance(value, int) else value
        for name, value in record.items()
    }


def shortened(text: str) -> str:
    """Return the beginning of a text that is one of many."""
    return text if len(text) <= MAX_FIELD else f"{text[:MAX_FIELD]}…"
