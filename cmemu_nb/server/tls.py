"""The certificate of the platform routes: a private authority, made once per emulator, in a private directory."""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = ("localhost", "127.0.0.1", "::1")


class PrivateFiles:
    """A directory that only its owner can read (0700), for the certificates and tokens that clients are given.

    It is a temporary one, removed at `close()`, when it is collected, and when the interpreter ends; or `lasting`,
    which is there already and stays.
    """

    def __init__(self, lasting: Path | None = None) -> None:
        self.path = lasting or Path(tempfile.mkdtemp(prefix="cmemu-"))
        self.close = weakref.finalize(self, _remove, None if lasting else self.path, os.getpid())

    def write(self, name: str, content: bytes) -> Path:
        """Write a file that only its owner can read (0600), and return its path."""
        path = self.path / name
        # Made with these rights, and given them if it was there: in no moment may others open it.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            path.chmod(0o600)
            file.truncate()
            file.write(content)
        return path

    def folder(self, name: str) -> Path:
        """Return a directory in it, made if it is missing."""
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path


def _remove(path: Path | None, owner: int) -> None:
    # A forked child inherits the clean-up, not the files.
    if path is not None and os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


class Authority(NamedTuple):
    """A certificate authority as PEM text, with its key."""

    certificate: str
    key: str


class Certificates:
    """A certificate for this machine's names, and the authority that clients are to trust: `authority_path`.

    The authority is a new one, or `known` from before.
    """

    def __init__(self, files: PrivateFiles, hostnames: Iterable[str], known: Authority | None = None) -> None:
        import trustme  # noqa: PLC0415 - takes a while to import

        authority = trustme.CA.from_pem(known.certificate.encode(), known.key.encode()) if known else trustme.CA()
        self.authority = Authority(authority.cert_pem.bytes().decode(), authority.private_key_pem.bytes().decode())
        certificate = authority.issue_cert(*NAMES, *(name for name in hostnames if name not in NAMES))
        self.authority_path = files.write("ca.pem", authority.cert_pem.bytes())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
