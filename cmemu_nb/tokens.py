"""Tokens. Only their last four characters are shown, because notebooks are saved and shared."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

SHOWN = 4
MIN_SHOWN = 12
MODULE_TOKEN_START = "foundry_module_auth_"  # noqa: S105 - a prefix, not a secret [page]
ACCESS_TOKEN_START = "foundry_access_token_"  # noqa: S105 - a prefix, not a secret [ours]
CODE_START = "foundry_code_"
REFRESH_TOKEN_START = "foundry_refresh_token_"  # noqa: S105 - a prefix, not a secret [ours]
BUILD_TOKEN_START = "foundry_build_token_"  # noqa: S105 - a prefix, not a secret [ours]
SCRATCH_TOKEN_START = "foundry_scratch_"  # noqa: S105 - a prefix, not a secret [ours]


class Token(str):
    """A token. `print()`, headers and files get all of it; its repr, and so outputs and tracebacks, four characters.

    >>> Token("foundry_module_auth_0123456789abcdef")
    '…cdef'
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(last_four(self))


def scratch_token(module_token: str) -> Token:
    """Return the token of the scratch routes that belongs to a replica's module token.

    It is a signature by the module token: it is valid as long, and the module token can't be found from it.

    >>> from cmemu_nb.tokens import scratch_token
    >>> scratch_token("foundry_module_auth_0123456789abcdef")
    '…vfts'
    """
    return Token(SCRATCH_TOKEN_START + _signed(module_token, b"scratch"))


def build_token(module_token: str) -> Token:
    """Return the build token of a pipeline that was configured with none; it belongs to the session's module token."""
    return Token(BUILD_TOKEN_START + _signed(module_token, b"build"))


def _signed(module_token: str, what: bytes) -> str:
    signature = hmac.digest(module_token.encode(errors="surrogatepass"), what, hashlib.sha256)
    return base64.urlsafe_b64encode(signature).decode().rstrip("=")


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
