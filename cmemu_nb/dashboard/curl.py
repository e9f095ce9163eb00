"""The curl commands of a job: they submit its query again, and inspect the job."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from cmemu_nb.display.text import UNSEEN
from cmemu_nb.errors import InvalidRequest
from cmemu_nb.wire.paths import CONTOUR, RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmemu_nb.lifecycle.records import Job

MAX_QUERY = 20_000
# The kernel refuses longer arguments of a program, and terminals take long to read more than a megabyte.
MAX_ARGUMENT, MAX_PASTED = 100_000, 1_000_000
TOKEN = '"Authorization: Bearer $TOKEN"'  # noqa: S105 - the name of a variable
JSON = "-H 'Content-Type: application/json'"


def curl_commands(job: Job, url: str, emu: str) -> list[str]:
    """Return the curl commands that submit a job's query again and that inspect the job.

    They read the emulator's bearer token from the shell variable TOKEN. A query of more than 20 kB is read from a
    file; the first line says how to write the file in a cell, with the variable of the emulator, `emu`.
    """
    address, fields = _route(job, url)
    look = f"curl -sS {shlex.quote(f'{_runtime(job, url)}/jobs/{job.job_id}')}"
    return [*_submit(address, fields, job, emu), look]


def curl_command(job: Job, url: str, token: str) -> str:
    """Return one curl command, with the bearer token in it, that submits a job's query again when it is pasted.

    A result that was streamed is printed as it arrives. Raises `InvalidRequest` for a query of more than 1 MB.
    """
    if len(job.query) > MAX_PASTED:
        raise InvalidRequest(
            f"The command can't be copied: the query has {len(job.query):,} bytes, and no more than {MAX_PASTED:,} can "
            "be pasted. The lines of curl below read it from a file."
        )
    address, fields = _route(job, url)
    post = _post(address, shlex.quote(f"Authorization: Bearer {token}"), stream=job.streamed)
    body = _typeable(f"{_before(fields)}{job.query.decode()}}}")
    if len(body) <= MAX_ARGUMENT:
        return f"{post} --data-binary {shlex.quote(body)}"
    return f"{post} --data-binary @- <<'END_OF_QUERY'\n{body}\nEND_OF_QUERY\n"


def _runtime(job: Job, url: str) -> str:
    return f"{url}{RUNTIMES}/{quote(job.runtime_id, safe='')}"


def _route(job: Job, url: str) -> tuple[str, dict[str, object]]:
    """Return the address that submits a job by the route by which it came, and the fields of the body but the query."""
    if job.deployed_app_rid is None:
        return f"{_runtime(job, url)}/jobs", {"queryType": job.query_type}
    app = {"deployedAppRid": job.deployed_app_rid, "deployedAppBranch": job.deployed_app_branch}
    return f"{url}{CONTOUR}/compute-modules/jobs/execute", {**app, "queryType": job.query_type}


def _post(address: str, authorization: str, *, stream: bool) -> str:
    unbuffered = "N" if stream else ""
    return f"curl -sS{unbuffered} -X POST -H {authorization} {JSON} {shlex.quote(address)}"


def _before(fields: Mapping[str, object]) -> str:
    return f'{msgspec.json.encode(fields).decode()[:-1]},"query":'


def _submit(address: str, fields: Mapping[str, object], job: Job, emu: str) -> list[str]:
    post, before = _post(address, TOKEN, stream=job.streamed), _before(fields)
    if len(job.query) <= MAX_QUERY:
        return [f"{post} --data-binary {shlex.quote(_typeable(f'{before}{job.query.decode()}}}'))}"]
    query = f"{emu}.job({job.job_id!r}).record.query"
    write = f"# In a cell first: with open('query.json', 'wb') as file: file.write({query})"
    body = f"{{ printf %s {shlex.quote(_typeable(before))}; cat query.json; printf '}}'; }}"
    return [write, f"{body} | {post} --data-binary @-"]


def _typeable(body: str) -> str:
    """Return the same JSON with escapes in place of invisible characters."""
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", body.replace("\r", " ").replace("\x7f", "\\u007f"))
