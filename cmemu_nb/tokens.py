"""Tokens, and how they may be shown: with their last four characters, because notebooks are saved and shared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN = 4
SHORTEST_SHOWN = 12
SHORTEST_MASKED = 8
MODULE_TOKEN_START = "foundry_module_auth_"  # noqa: S105 - a prefix, no secret [page]
ACCESS_TOKEN_START = "foundry_access_token_"  # noqa: S105 - a prefix, no secret [ours]
_OF_OURS = re.compile(f"(?:{MODULE_TOKEN_START}|{ACCESS_TOKEN_START})" + r"[\w-]+", re.ASCII)


class Token(str):
    """A token. `print()`, headers and files get all of it, its repr, so outputs and tracebacks, four characters.

    >>> Token("foundry_module_auth_0123456789abcdef")
    '…cdef'
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(last_four(self))


def last_four(token: str) -> str:
    """Return a token as it may be shown: '…' and its last four characters, of a short one none."""
    if token.startswith("…"):  # of an exported session, whose file has no more
        return str(token)  # or the repr of a Token would ask for itself
    return "…" + (token[-SHOWN:] if len(token) >= SHORTEST_SHOWN else "")


def can_be_sent(token: str) -> bool:
    """Tell whether a header can hold a token."""
    return token.isascii() and token.isprintable() and token.strip() == token


def is_masked_by_its_form(token: str) -> bool:
    """Tell whether `masked` knows a module token without being told of it."""
    return token.startswith("…") or _OF_OURS.fullmatch(token) is not None


def masked(text: str, tokens: Iterable[str] = ()) -> str:
    """Return a text with no more than the last four characters of any module or access token, and of `tokens`.

    Tokens of less than eight characters stay: who sets such a one finds it in many words.
    """
    found = [token for token in tokens if token in text and len(token) >= SHORTEST_MASKED]
    # One may be in another one, or begin as module tokens do and go on with other characters.
    for token in sorted(found, key=len, reverse=True):
        text = text.replace(token, last_four(token))
    if MODULE_TOKEN_START in text or ACCESS_TOKEN_START in text:
        text = _OF_OURS.sub(lambda each: last_four(each[0]), text)
    return text


def hidden(value: Any) -> Any:
    """Return plain JSON values with every text as a `Token`; anything else as it is."""
    if isinstance(value, str):
        return Token(value)
    if isinstance(value, dict):
        return {key: hidden(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(each) for each in value]
    return value
