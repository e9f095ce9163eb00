"""Job ids: a session recognises the ids that it has issued without a list of them, even after the jobs are deleted.

Half of an id is random; the other half is a keyed hash of the first half, with the session's token as the key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

JOB_PREFIX = "foundry_job_"
_HALF = 8
_MAX_KEY_BYTES = 64


def new_job_id(token: str) -> str:
    """Make an id for a job of the session with this token. Ids can't be guessed [page: the prefix]."""
    nonce = secrets.token_bytes(_HALF)
    return JOB_PREFIX + nonce.hex() + _mark(nonce, token)


def is_job_of(job_id: str, token: str) -> bool:
    """Return whether the session with this token has issued an id."""
    digits = job_id.removeprefix(JOB_PREFIX)
    try:
        nonce = bytes.fromhex(digits[: 2 * _HALF])
    except ValueError:
        return False
    given = digits[2 * _HALF :].encode(errors="surrogatepass")
    return job_id.startswith(JOB_PREFIX) and hmac.compare_digest(given, _mark(nonce, token).encode())


def is_whole(job_id: str) -> bool:
    """Return whether this is a whole id, as sessions issue them, and not only the end of one."""
    return job_id.startswith(JOB_PREFIX) and len(job_id) == len(JOB_PREFIX) + 4 * _HALF


def _mark(nonce: bytes, token: str) -> str:
    key = token.encode()
    if len(key) > _MAX_KEY_BYTES:  # a token of a seed file
        key = hashlib.blake2b(key).digest()
    return hashlib.blake2b(nonce, key=key, digest_size=_HALF).hexdigest()


def ending_of(name: str) -> str:
    """Return an id, or the end of one, without the dots that precede a shortened id when it is shown."""
    return name.strip().lstrip("….")
