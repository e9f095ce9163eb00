"""kill -9 at random moments, again and again, with the journal on: whatever a client was told stays true.

`tests/run --long` kills 200 times.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from client import CONTOUR, RESULT, RUNTIMES, SUBMIT, Api, eventually
from journaled import process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.once

KILLS = 200 if os.environ.get("CMEMU_LONG") else 12
RUNTIMES_OPEN, SUBMITTERS, EXECUTORS = 3, 4, 4


class Gone(Exception):
    """The emulator was killed in the middle of a request."""


class Client:
    """One kept connection; a request that gets no whole answer is `Gone`."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        self._headers = headers

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, {**self._headers, **headers})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise Gone from None

    def close(self) -> None:
        self._connection.close()


class Told:
    """What clients were told, over all the emulator's lives. One lock, because many threads write it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.queries: dict[str, str] = {}
        self.taken: dict[str, int] = {}
        self.taken_twice: list[str] = []
        self.results: set[str] = set()
        self.schemas: dict[int, int] = {}
        self.lost_submissions = 0
        self.lost_polls = 0
        self.faults: list[str] = []

    def note(self, change: Callable[[], object]) -> None:
        with self.lock:
            change()
            self.count += 1


class Load:
    """Clients that work until the emulator is gone: applications, executors, and one that posts schemas."""

    def __init__(self, url: str, token: str, sessions: list[str], told: Told, seed: int) -> None:
        self._url, self._token, self._sessions, self._told = url, token, sessions, told
        self._seed = seed
        jobs = [(self._submit, number) for number in range(SUBMITTERS)]
        jobs += [(self._execute, number) for number in range(EXECUTORS)]
        jobs += [(self._post_schemas, 0)]
        self.threads = [threading.Thread(target=self._until_gone, args=each) for each in jobs]
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"

    def _until_gone(self, work: Callable[[int], object], number: int) -> None:
        try:
            work(number)
        except Gone:
            pass
        except Exception as error:  # noqa: BLE001 - told by the test's own thread
            self._told.faults.append(repr(error))

    def _runtime(self, number: int) -> tuple[Client, str]:
        name = number % RUNTIMES_OPEN
        return Client(self._url, {"Module-Auth-Token": self._sessions[name]}), f"{RUNTIMES}/r{name}"

    def _submit(self, number: int) -> None:
        rng = random.Random(f"{self._seed} {number}")
        client = Client(self._url, {"Authorization": f"Bearer {self._token}"})
        while True:
            text = f"{self._seed}-{number}-{rng.random()}"
            fields = {"deployedAppRid": f"ri.{number % RUNTIMES_OPEN}", "queryType": "f", "query": text}
            try:
                status, body = client.send("POST", SUBMIT, json.dumps(fields).encode())
            except Gone:
                with self._told.lock:
                    self._told.lost_submissions += 1
                raise
            assert status == 200, body
            job_id = json.loads(body)["id"]
            self._told.note(lambda job_id=job_id, text=text: self._told.queries.__setitem__(job_id, text))  # type: ignore[misc]

    def _execute(self, number: int) -> None:
        client, base = self._runtime(number)
        while True:
            try:
                status, body = client.send("GET", f"{base}/job", Prefer="wait=5")
            except Gone:
                with self._told.lock:
                    self._told.lost_polls += 1
                raise
            assert status in (200, 204), body
            if status == 200:
                job_id = json.loads(body)["computeModuleJobV1"]["jobId"]
                self._told.note(lambda job_id=job_id: self._take(job_id))  # type: ignore[misc]
                self._post_result(client, base, job_id)

    def _take(self, job_id: str) -> None:
        if job_id in self._told.taken:
            self._told.taken_twice.append(job_id)
        self._told.taken[job_id] = self._seed

    def _post_result(self, client: Client, base: str, job_id: str) -> None:
        status, body = client.send("POST", f"{base}/results/{job_id}", job_id.encode())
        assert status == 204, body
        self._told.note(lambda: self._told.results.add(job_id))

    def _post_schemas(self, number: int) -> None:
        client, base = self._runtime(number)
        for version in range(10**9):
            schema = [{"functionName": "f", "life": self._seed, "version": version}]
            status, body = client.send("POST", f"{base}/schemas", json.dumps(schema).encode())
            assert status == 204, body
            self._told.note(lambda version=version: self._told.schemas.__setitem__(self._seed, version))  # type: ignore[misc]


def check(api: Api, sessions: list[str], told: Told) -> None:
    """Compare what there is with what was told."""
    jobs: dict[str, Any] = {}
    for name, token in enumerate(sessions):
        headers, after = {"Module-Auth-Token": token}, ""
        more = True
        while more:
            page = api.send("GET", f"{RUNTIMES}/r{name}/jobs?limit=10000{after}", headers=headers).json()
            assert not jobs.keys() & {job["job_id"] for job in page["jobs"]}
            jobs |= {job["job_id"]: job for job in page["jobs"]}
            more = page["more"]
            after = f"&after={page['jobs'][-1]['job_id']}" if more else ""
    assert [job_id for job_id in told.queries if jobs.get(job_id, {}).get("query") != told.queries[job_id]] == []
    assert len(jobs) - len(told.queries) <= told.lost_submissions
    assert [job_id for job_id in told.taken if jobs[job_id]["status"] == "queued"] == []
    for job_id in told.results:
        assert (jobs[job_id]["status"], jobs[job_id]["result_body_utf8"]) == ("succeeded", job_id)
    assert told.taken_twice == []
    ended = [job_id for job_id, job in jobs.items() if job["status"] in ("succeeded", "failed")]
    unknown = [job_id for job_id in ended if job_id not in told.taken]
    assert len(unknown) <= told.lost_polls


def check_schema(api: Api, sessions: list[str], told: Told, life: int) -> None:
    if not told.schemas:  # the first life was too short
        return
    state = api.send("GET", f"{RUNTIMES}/r0", headers={"Module-Auth-Token": sessions[0]}).json()
    [schema] = state["schemas"]
    payload = schema["schema_payload"]
    last = told.schemas.get(life)
    if last is not None:
        assert payload["life"] == life
        assert payload["version"] in (last, last + 1)


def finish_what_runs(api: Api, sessions: list[str], told: Told) -> None:
    """Post the results of jobs that were running; those whose answer nobody got are failed by hand."""
    for name, token in enumerate(sessions):
        headers = {"Module-Auth-Token": token}
        listed = api.send("GET", f"{RUNTIMES}/r{name}/jobs?status=running&limit=10000", headers=headers).json()["jobs"]
        for job_id in (job["job_id"] for job in listed):
            if job_id in told.taken:
                body = job_id.encode()
                answer = api.send("POST", f"{RUNTIMES}/r{name}/results/{job_id}", headers=headers, data=body)
                told.results.add(job_id)
            else:
                body = {"reason": "nobody got it"}
                answer = api.send("POST", f"{RUNTIMES}/r{name}/jobs/{job_id}/fail", headers=headers, json=body)
            assert answer.status_code == 204


@pytest.mark.timeout(1800)
def test_nothing_that_was_acknowledged_is_lost_and_no_job_is_handed_out_twice(tmp_path: Path) -> None:
    rng, told, sessions = random.Random(2026), Told(), list[str]()
    where = None
    for life in range(KILLS + 1):
        with process(tmp_path / "lifecycle.db", keep_jobs=10**6) as emulator:
            api = Api(emulator.url, emulator.token)
            if where is None:
                where = emulator.url, emulator.token
                opened = [api.open(f"r{name}", f"ri.{name}") for name in range(RUNTIMES_OPEN)]
                sessions += [runtime.session["moduleAuthToken"] for runtime in opened]
            else:
                assert (emulator.url, emulator.token) == where
                check(api, sessions, told)
                check_schema(api, sessions, told, life - 1)
                finish_what_runs(api, sessions, told)
            if life < KILLS:
                target = told.count + rng.randrange(1, 400)
                load = Load(*where, sessions, told, life)
                eventually(lambda target=target: told.count >= target or told.faults, "the clients were told enough")  # type: ignore[misc]
                emulator.kill()
                load.join()
                assert told.faults == []
            else:
                drain(api, sessions, told)
    count, jobs, results = told.count, len(told.queries), len(told.results)
    print(f"\n{KILLS} kills, {count:,} answers ({jobs:,} jobs, {results:,} results): 0 lost, 0 jobs handed out twice")  # noqa: T201


def drain(api: Api, sessions: list[str], told: Told) -> None:
    """Take and finish what is queued, in its order, and see that every job has ended."""
    for name, token in enumerate(sessions):
        runtime = f"{RUNTIMES}/r{name}"
        headers = {"Module-Auth-Token": token}
        while (answer := api.send("GET", f"{runtime}/job", headers=headers)).status_code == 200:
            job_id = answer.json()["computeModuleJobV1"]["jobId"]
            assert job_id not in told.taken
            told.taken[job_id] = -1
            assert api.send("POST", f"{runtime}/results/{job_id}", headers=headers, data=job_id).status_code == 204
            told.results.add(job_id)
        for status in ("queued", "running"):
            left = api.send("GET", f"{runtime}/jobs?status={status}", headers=headers).json()
            assert left["jobs"] == []
    check(api, sessions, told)
    some = sorted(told.results)[:20]
    for job_id in some:
        assert api.contour("PUT", RESULT, json={"id": job_id}).text == job_id
        assert api.contour("GET", f"{CONTOUR}/jobs/{job_id}/status").json()["type"] == "succeeded"
