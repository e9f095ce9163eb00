"""Secrets in the text of a file: tokens in a known form, and passwords that are given to a name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cmemu_nb.check.findings import ADVICE, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN = {
    "a JSON Web Token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{40,})\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[\w-]{10,}"),
    "a password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s:/@'\"{}$]+:[^\s:/@'\"{}$]{3,}@"),
}
NAMED = re.compile(
    r"""(?i)(?:password|passwd|secret|token|api_?key|credential)\w{0,40}["']?\s{0,8}[:=]\s{0,8}"""
    r"""(["']?)([^\s"'{}$<>()\[\],;]{8,200})\1(?![\w(.\[])"""
)
FIX = "Remove it, revoke it, and read it when the function runs: from a source, or from an environment variable."


def find_secrets(path: str, text: str, *, quoted: bool) -> Iterator[Finding]:
    """Yield a finding for each line that contains a secret; `quoted` if the language quotes its values."""
    for number, line in enumerate(text.splitlines(), 1):
        kind = next((kind for kind, pattern in KNOWN.items() if pattern.search(line)), None)
        if kind is None and (named := NAMED.search(line)) and (named[1] or not quoted) and _is_random(named[2]):
            kind = "a secret"
        if kind:
            # The line itself is not shown: the report may end in a log.
            yield Finding(
                path, number, Severity.ERROR, "secret", f"This line contains what looks like {kind}.", FIX, ADVICE
            )


def _is_random(value: str) -> bool:
    """Return whether a value may be a secret: not a name of something, a path or a placeholder."""
    return bool(re.search(r"\d", value) and re.search(r"[A-Za-z]", value)) and not re.search(r"[/\\]|xxx|\.\.\.", value)
