"""Tokens. Only their last four characters are shown, because notebooks are saved and shared."""

from __future__ import annotations

from typing import Any

SHOWN = 4
MIN_SHOWN = 12
MODULE_TOKEN_START = "foundry_module_auth_"  # noqa: S105 - a prefix, not a secret [page]
ACCESS_TOKEN_START = "foundry_access_token_"  # noqa: S105 - a prefix, not a secret [ours]


class Token(str):
    """A token. `print()`, headers and files get all of it; its repr, and so outputs and tracebacks, four characters.

    >>> Token("foundry_module_auth_0123456789abcdef")
    '…cdef'
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(last_four(self))


def last_four(token: str) -> str:
    """Return a token as it may be shown: '…' and its last four characters, or '…' alone if the token is short."""
    if token.startswith("…"):  # a token of an exported session, whose file contains only this
        return str(token)  # without str(), the repr of a Token would call itself
    return "…" + (token[-SHOWN:] if len(token) >= MIN_SHOWN else "")


def can_be_sent(token: str) -> bool:
    """Return whether a header can hold a token."""
    return token.isascii() and token.isprintable() and token.strip() == token


def hidden(value: Any) -> Any:
    """Return a JSON value with every string as a `Token`; other values stay as they are."""
    if isinstance(value, str):
        return Token(value)
    if isinstance(value, dict):
        return {key: hidden(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(each) for each in value]
    return value
