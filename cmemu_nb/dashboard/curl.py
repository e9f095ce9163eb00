"""The curl commands that do again what a job did."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from cmemu_nb.server.contour_routes import CONTOUR
from cmemu_nb.server.runtime_routes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmemu_nb.model import Job

MOST_QUERY = 20_000
TOKEN = '-H "Authorization: Bearer $TOKEN"'  # noqa: S105 - the name of a variable
JSON = "-H 'Content-Type: application/json'"


def curl_commands(job: Job, url: str) -> list[str]:
    """Return the commands that submit a job's query again and that look at the job.

    They read the emulator's bearer token from the shell variable TOKEN. A query of more than 20 kB is read from a
    file, which has to be written first.
    """
    runtime = f"{url}{RUNTIMES}/{quote(job.runtime_id, safe='')}"
    look = f"curl -sS {shlex.quote(f'{runtime}/jobs/{job.job_id}')}"
    if len(job.query) > MOST_QUERY:
        size = f"{len(job.query):,} bytes"
        return [f"# The query has {size}; its text is emu.job({job.job_id!r}).record.query", look]
    call = {"queryType": job.query_type, "query": msgspec.Raw(job.query)}
    if job.deployed_app_rid is None:
        return [_post(f"{runtime}/jobs", call), look]
    app = {"deployedAppRid": job.deployed_app_rid, "deployedAppBranch": job.deployed_app_branch}
    return [_post(f"{url}{CONTOUR}/compute-modules/jobs/execute", {**app, **call}), look]


def _post(address: str, fields: Mapping[str, object]) -> str:
    body = msgspec.json.encode(fields).decode()
    return f"curl -sS -X POST {TOKEN} {JSON} {shlex.quote(address)} --data {shlex.quote(body)}"
