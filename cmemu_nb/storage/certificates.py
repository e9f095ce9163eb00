"""The certificate of the platform routes: a private authority, made once per emulator, in a private directory."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.storage.private_files import PrivateFiles

NAMES = ("localhost", "127.0.0.1", "::1")


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
        # In a private file, not by trustme's own, which the end of the process might leave where nobody looks.
        pair = files.write("pair.pem", certificate.private_key_and_cert_chain_pem.bytes())
        self.context.load_cert_chain(pair)
        pair.unlink()
