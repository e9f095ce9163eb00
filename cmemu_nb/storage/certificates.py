"""The certificate of the platform routes, issued by a private authority that each emulator makes once."""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmemu_nb.storage.private_files import PrivateFiles

NAMES = ("localhost", "127.0.0.1", "127.0.1.1", "::1")
CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")
"""The variables that name the trusted authorities of requests, of OpenSSL and httpx, of Node, and of curl."""


class Authority(NamedTuple):
    """A certificate authority with its key, as PEM text."""

    certificate: str
    key: str


class Certificates:
    """A certificate for this machine's names. `authority_path` is the file of the authority that clients must trust.

    The authority is a new one, or the one that is `known` from an earlier run.
    """

    def __init__(self, files: PrivateFiles, hostnames: Iterable[str], known: Authority | None = None) -> None:
        import trustme  # noqa: PLC0415 - takes a while to import

        authority = trustme.CA.from_pem(known.certificate.encode(), known.key.encode()) if known else trustme.CA()
        self._files = files
        self.authority = Authority(authority.cert_pem.bytes().decode(), authority.private_key_pem.bytes().decode())
        certificate = authority.issue_cert(*NAMES, *(name for name in hostnames if name not in NAMES))
        self.authority_path = files.write("ca.pem", authority.cert_pem.bytes())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # In a private file: trustme's own temporary file might stay behind if the process ends at this moment.
        pair = files.write("pair.pem", certificate.private_key_and_cert_chain_pem.bytes())
        self.context.load_cert_chain(pair)
        pair.unlink()

    @functools.cached_property
    def bundle_path(self) -> Path:
        """The file of this authority, the public ones of certifi, and those that this process's environment names.

        So a program that trusts the file reaches the emulator, public hosts, and the hosts of an organisation.
        """
        import certifi  # noqa: PLC0415 - for modules only

        named = (certifi.where(), *(os.environ.get(each, "") for each in CA_BUNDLES))
        trusted = [path.read_bytes() for path in dict.fromkeys(map(Path, named)) if path.is_file()]
        return self._files.write("ca-bundle.pem", b"\n".join([*trusted, self.authority.certificate.encode()]))
