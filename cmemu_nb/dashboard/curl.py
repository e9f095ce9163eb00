"""The curl commands of a job: they submit its query again, and inspect the job."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from cmemu_nb.display.text import UNSEEN
from cmemu_nb.wire.paths import CONTOUR, RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmemu_nb.lifecycle.records import Job

MAX_QUERY = 20_000
TOKEN = '-H "Authorization: Bearer $TOKEN"'  # noqa: S105 - the name of a variable
JSON = "-H 'Content-Type: application/json'"


def curl_commands(job: Job, url: str, emu: str) -> list[str]:
    """Return the curl commands that submit a job's query again and that inspect the job.

    They read the emulator's bearer token from the shell variable TOKEN. A query of more than 20 kB is read from a
    file; the first line says how to write the file in a cell, with the variable of the emulator, `emu`.
    """
    runtime = f"{url}{RUNTIMES}/{quote(job.runtime_id, safe='')}"
    look = f"curl -sS {shlex.quote(f'{runtime}/jobs/{job.job_id}')}"
    if job.deployed_app_rid is None:
        return [*_submit(f"{runtime}/jobs", {"queryType": job.query_type}, job, emu), look]
    app = {"deployedAppRid": job.deployed_app_rid, "deployedAppBranch": job.deployed_app_branch}
    call = {**app, "queryType": job.query_type}
    return [*_submit(f"{url}{CONTOUR}/compute-modules/jobs/execute", call, job, emu), look]


def _submit(address: str, fields: Mapping[str, object], job: Job, emu: str) -> list[str]:
    post = f"curl -sS -X POST {TOKEN} {JSON} {shlex.quote(address)}"
    before = f'{msgspec.json.encode(fields).decode()[:-1]},"query":'
    if len(job.query) <= MAX_QUERY:
        return [f"{post} --data-binary {shlex.quote(_typeable(f'{before}{job.query.decode()}}}'))}"]
    query = f"{emu}.job({job.job_id!r}).record.query"
    write = f"# In a cell first: with open('query.json', 'wb') as file: file.write({query})"
    body = f"{{ printf %s {shlex.quote(_typeable(before))}; cat query.json; printf '}}'; }}"
    return [write, f"{body} | {post} --data-binary @-"]


def _typeable(body: str) -> str:
    """Return the same JSON with escapes in place of invisible characters."""
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", body.replace("\r", " ").replace("\x7f", "\\u007f"))
