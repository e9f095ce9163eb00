"""The masking of secrets in texts: logs show at most the last four characters of a token or a credential."""

from __future__ import annotations

import base64
import re
from itertools import takewhile
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cmemu_nb.tokens import (
    ACCESS_TOKEN_START,
    BUILD_TOKEN_START,
    CODE_START,
    MODULE_TOKEN_START,
    REFRESH_TOKEN_START,
    SCRATCH_TOKEN_START,
    last_four,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIN_MASKED = 8
MAX_LAYERS = 3
STARTS = (
    *(MODULE_TOKEN_START, ACCESS_TOKEN_START, REFRESH_TOKEN_START, CODE_START, SCRATCH_TOKEN_START),
    BUILD_TOKEN_START,
)
_OF_OURS = re.compile(f"(?:{'|'.join(STARTS)})" + r"[\w-]+", re.ASCII)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([nrt])|([^\w\s]))")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}


def is_masked_by_its_form(token: str) -> bool:
    """Return whether a `Mask` recognises a module token even if it was not added."""
    return token.startswith("…") or _OF_OURS.fullmatch(token) is not None


class Mask:
    """Replaces secrets in a text with their last four characters: the added ones, and those that the emulator makes.

    It also finds a secret in base64, one that was cut to at least its half, and one that is percent-encoded or escaped
    as in JSON, up to three times; the text is then returned without the escapes. Secrets of less than eight characters
    are not masked, because they would match parts of ordinary words.

    >>> from cmemu_nb.wire.masking import Mask
    >>> Mask("a secret/of mine")("GET /a%20secret%2Fof%20mine")
    'GET /…mine'
    """

    def __init__(self, *secrets: str) -> None:
        self._secrets: dict[str, _Secret] = {}
        self._found_by: list[tuple[str, _Secret]] = []
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Add secrets to mask. Each line of a secret with several lines, such as a key, is masked by itself."""
        for text in secrets:
            in_form = text.replace(" ", "+")
            for line in (text, in_form, *text.splitlines(), *in_form.splitlines()):
                if len(line) >= MIN_MASKED and line not in self._secrets:
                    secret = self._secrets[line] = _Secret(line)
                    self._found_by += [(form, secret) for form in secret.found_by]

    def with_more(self, *secrets: str) -> Callable[[str], str]:
        """Return a function that masks more secrets, and also those that are added to this mask later."""
        more = Mask(*secrets)
        return lambda text: self(more(text))

    def __call__(self, text: str) -> str:
        """Return a text without the secrets."""
        # Halves are masked last: an escaped secret whose end was already masked would not be found as a whole.
        return _in_layers(_in_layers(text, self._without_wholes), self._without_halves)

    def _without_wholes(self, text: str) -> str:
        for secret in self._found_in(text):
            text = secret.whole_hidden_in(text)
        if any(start in text for start in STARTS):
            text = _OF_OURS.sub(lambda each: last_four(each[0]), text)
        return text

    def _without_halves(self, text: str) -> str:
        for secret in self._found_in(text):
            text = secret.halves_hidden_in(text)
        return text

    def _found_in(self, text: str) -> list[_Secret]:
        found = {secret for form, secret in self._found_by if form in text}
        # The longest first: one secret may contain another, or begin like a module token and continue differently.
        return sorted(found, key=lambda each: len(each.text), reverse=True)


def _in_layers(text: str, without: Callable[[str], str]) -> str:
    """Mask secrets in a text, then again after removing each layer of escapes."""
    text = plain = without(text)
    for _ in range(MAX_LAYERS):
        escaped, plain = plain, _unescaped(plain)
        if plain == escaped:
            break
        hidden = without(plain)
        if hidden != plain:
            text = plain = hidden
    return text


class _Secret:
    """A secret and the forms in which it may occur in a text: whole, either half, and in base64."""

    def __init__(self, text: str) -> None:
        self.text = text
        half = max(MIN_MASKED, (len(text) + 1) // 2)
        self._beginning, self._end = text[:half], text[-half:]
        self._encoded = list(dict.fromkeys(_in_base64(text)))
        self.found_by = [self._beginning, self._end, *self._encoded]

    def whole_hidden_in(self, text: str) -> str:
        """Return a text with each whole occurrence of the secret masked."""
        text = text.replace(self.text, last_four(self.text))
        for form in self._encoded:
            text = text.replace(form, "…")
        return text

    def halves_hidden_in(self, text: str) -> str:
        """Return a text with each part masked that matches at least the first or the last half of the secret."""
        text = _without_part(text, self._beginning, self.text)
        return _without_part(text[::-1], self._end[::-1], self.text[::-1])[::-1]


def _without_part(text: str, beginning: str, whole: str) -> str:
    """Replace each occurrence of `beginning`, and what follows as far as it agrees with `whole`."""
    rest = whole[len(beginning) :]
    first, *others = text.split(beginning)
    return "…".join([first, *(each[_common(each, rest) :] for each in others)])


def _common(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _in_base64(text: str) -> Iterator[str]:
    """Yield the base64 forms of a secret at each alignment, without characters that depend on neighbouring bytes."""
    for shift, shared in ((0, 0), (1, 2), (2, 3)):
        content = bytes(shift) + text.encode(errors="surrogatepass")
        whole = slice(shared, len(content) * 8 // 6)
        yield base64.b64encode(content).decode()[whole]
        yield base64.urlsafe_b64encode(content).decode()[whole]


def _unescaped(text: str) -> str:
    """Return a text after removing one layer of the escapes of URLs and of JSON."""
    if "%" in text:
        text = unquote(text)
    if "\\" in text:
        text = _ESCAPE.sub(_character, text)
        if _SURROGATE.search(text):  # join the two halves of a character
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _character(escape: re.Match[str]) -> str:
    code, byte, name, itself = escape.groups()
    return itself or _NAMED.get(name or "") or chr(int(code or byte, 16))
