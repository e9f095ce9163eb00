"""Job ids: a session recognises those that it has issued, also when the jobs are gone, without a list of them.

Half of an id is random, the other half says under the session's token that the first half is genuine.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

JOB_PREFIX = "foundry_job_"
_HALF = 8
_MAX_KEY_BYTES = 64


def new_job_id(token: str) -> str:
    """Make an id for a job of the session with this token; nobody can guess one [page: the prefix]."""
    nonce = secrets.token_bytes(_HALF)
    return JOB_PREFIX + nonce.hex() + _mark(nonce, token)


def is_job_of(job_id: str, token: str) -> bool:
    """Tell whether the session with this token has issued an id."""
    digits = job_id.removeprefix(JOB_PREFIX)
    try:
        nonce = bytes.fromhex(digits[: 2 * _HALF])
    except ValueError:
        return False
    given = digits[2 * _HALF :].encode(errors="surrogatepass")
    return job_id.startswith(JOB_PREFIX) and hmac.compare_digest(given, _mark(nonce, token).encode())


def is_whole(job_id: str) -> bool:
    """Tell whether this is a whole id, as sessions issue them, and not the end of one."""
    return job_id.startswith(JOB_PREFIX) and len(job_id) == len(JOB_PREFIX) + 4 * _HALF


def _mark(nonce: bytes, token: str) -> str:
    key = token.encode()
    if len(key) > _MAX_KEY_BYTES:  # a token of a seed file
        key = hashlib.blake2b(key).digest()
    return hashlib.blake2b(nonce, key=key, digest_size=_HALF).hexdigest()


def ending_of(name: str) -> str:
    """Return an id or its end as it was copied, without the dots that stand before a short one."""
    return name.strip().lstrip("….")
