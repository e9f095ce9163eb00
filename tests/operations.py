"""What a client can do with an emulator over HTTP, and what the answer may say, whoever else is there.

Each operation is a generator: a request, and after the `yield`, when all is quiet, what its answer must fit.
"""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests
from client import CONTOUR, DEADLINE, EXECUTE, MODULE_HEADER, RESULT, RUNTIMES, SUBMIT, check_answer, error_code

from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from truth import TrueJob, Truth

    from cmemu_nb import Emulator

    Operation = Iterator[None]

NAMES = ["a", "b", "ü/<c>"]
APPS = ["ri.app.1", "ri.app.2"]
HELD = 2 * DEADLINE
RESTARTED = "the replica restarted"


class Clients:
    """As many clients as there are threads, each with connections of its own that it keeps."""

    def __init__(self, emulator: Emulator, most: int) -> None:
        self.emulator = emulator
        self.pool = ThreadPoolExecutor(most)
        self._authority = str(emulator.certificates.authority_path)
        self._mine = threading.local()
        self._sessions: list[requests.Session] = []

    def send(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Send a request, over HTTPS if it is a platform route; whatever comes must be documented."""
        url = self.emulator.platform_url if path.startswith(PLATFORM) else self.emulator.url
        answer = self._session().request(method, url + path, timeout=HELD, **kwargs)
        check_answer(answer)
        return answer

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._mine, "session", None)
        if session is None:
            session = self._mine.session = requests.Session()
            session.trust_env = False
            session.verify = self._authority
            self._sessions.append(session)
        return session

    def close(self) -> None:
        self.pool.shutdown()
        for session in self._sessions:
            session.close()


@dataclass(frozen=True)
class Replica:
    runtime: str
    session: str
    token: str
    replica_id: str
    most: int


def path_of(runtime: str) -> str:
    return f"{RUNTIMES}/{quote(runtime, safe='')}"


def module(token: str | None) -> dict[str, str]:
    return {MODULE_HEADER: token or "none"}


def waiting(seconds: int) -> dict[str, str]:
    return {"Prefer": f"wait={seconds}"}


class Operations:
    """The operations of every client of one emulator. `told` are the tickets of jobs that somebody was told of."""

    on_jobs = frozenset({"status", "result", "stream", "post", "post_platform", "post_to_another", "fail", "cancel"})

    def __init__(self, clients: Clients, truth: Truth) -> None:
        self.clients = clients
        self.truth = truth
        self.numbers = itertools.count(1)
        self.tokens: set[tuple[str, str]] = set()
        self.told: set[int] = set()
        self.bearer = {"Authorization": f"Bearer {clients.emulator.token}"}

    def send(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        return self.clients.send(method, path, **kwargs)

    def receive(self, method: str, path: str, **kwargs: Any) -> requests.Response | None:
        """Send a request whose answer may break off; None if it does."""
        try:
            return self.send(method, path, **kwargs)
        except requests.exceptions.ChunkedEncodingError:
            return None

    def some(self, name: str, index: int, *statuses: str) -> TrueJob | None:
        """Return a job of a runtime, preferably in one of the statuses."""
        jobs = self.truth.of(name, *statuses) or self.truth.of(name)
        return jobs[index % len(jobs)] if jobs else None

    def stale(self, name: str, token: str | None) -> bool:
        return token is None or self.truth.tokens.get(name) != token

    # Sessions

    def open(self, name: str, index: int) -> Operation:
        before = self.truth.tokens.get(name)
        answer = self.send("POST", RUNTIMES, json={"runtimeId": name, "deployedAppRid": [*APPS, None][index % 3]})
        yield
        assert answer.status_code == 200
        token = answer.json()["moduleAuthToken"]
        assert token != before
        self.tokens.add((name, token))

    def delete(self, name: str, _: int) -> Operation:
        answer = self.send("DELETE", path_of(name), headers=self.bearer)
        yield
        assert answer.status_code in (204, 404)

    def reset_all(self, *_: object) -> Operation:
        answer = self.send("DELETE", RUNTIMES, headers=self.bearer)
        yield
        assert answer.status_code == 204

    def post_schemas(self, name: str, index: int) -> Operation:
        token = self.truth.tokens.get(name)
        body = [{"functionName": f"f{index % 3}", "schema": {"session": token}}]
        answer = self.send("POST", f"{path_of(name)}/schemas", json=body, headers=module(token))
        yield
        assert answer.status_code == 204 or self.stale(name, token)

    def delete_schema(self, name: str, index: int) -> Operation:
        answer = self.send("DELETE", f"{path_of(name)}/schemas/f{index % 3}", headers=self.bearer)
        yield
        assert answer.status_code in (204, 404)

    # Submitting

    def ticket(self, padding: str = "ü") -> tuple[int, dict[str, Any]]:
        """Return a number that no other job has, and the fields of a job that has it."""
        number = next(self.numbers)
        return number, {"queryType": "f", "query": {"ticket": number, "padding": padding}}

    def submit(self, _: str, index: int) -> Operation:
        number, body = self.ticket()
        app = APPS[index % 2]
        answer = self.send("POST", SUBMIT, json={"deployedAppRid": app, **body}, headers=self.bearer)
        yield
        self.acknowledged(number, answer, "id")
        assert answer.status_code == 404 or self.truth.by_ticket[number].app == app

    def submit_direct(self, name: str, index: int, padding: str = "ü") -> Operation:
        number, body = self.ticket(padding)
        token = self.truth.tokens.get(name)
        headers = self.bearer if index % 2 else module(token)
        answer = self.send("POST", f"{path_of(name)}/jobs", json=body, headers=headers)
        yield
        if answer.status_code == 401:
            assert self.stale(name, token)
        else:
            self.acknowledged(number, answer, "jobId")
            assert answer.status_code == 404 or self.truth.by_ticket[number].runtime == name

    def acknowledged(self, number: int, answer: requests.Response, key: str) -> None:
        assert answer.status_code in (200, 404)
        if answer.status_code == 200:
            assert self.truth.by_ticket[number].job_id == answer.json()[key]
            self.told.add(number)

    def execute(self, index: int, number: int, body: dict[str, Any]) -> Operation:
        fields = {"deployedAppRid": APPS[index % 2], **body}
        answer = self.receive("POST", EXECUTE, json=fields, headers=self.bearer)
        yield
        self.outcome_fits(self.truth.by_ticket.get(number), answer)
        if number in self.truth.by_ticket:
            self.told.add(number)

    # Asking

    def outcome_fits(self, job: TrueJob | None, answer: requests.Response | None) -> None:
        """Check an answer that is a result: it is this job's, and the one that the job ended with."""
        if answer is not None and answer.status_code == 404:
            assert job is None or job.gone
            return
        assert job is not None
        if answer is None:
            assert job.status in ("failed", "cleared")
        elif answer.status_code == 200:
            assert (job.status, job.result) == ("succeeded", answer.content)
            assert json.loads(answer.content.split(b"\n")[0])["jobId"] == job.job_id
        else:
            assert (answer.status_code, error_code(answer)) == (500, "job_failed")
            why = answer.json()["error_description"]
            assert (job.gone and "reset" in why) or (job.status, job.error) == ("failed", why)

    def status(self, job: TrueJob, seconds: int = 0) -> Operation:
        headers = self.bearer | waiting(seconds)
        if job.ticket % 2:
            answer = self.send("GET", f"{CONTOUR}/jobs/{job.job_id}/status", headers=headers)
        else:
            answer = self.send("PUT", f"{CONTOUR}/jobs/status/v2", json={"id": job.job_id}, headers=headers)
        yield
        if answer.status_code == 200:
            said = answer.json()
            # It was true when it was said, and an end is for ever.
            assert said["type"] in (job.status, "queued", "running")
            assert said["type"] != "failed" or said["failed"]["message"] == job.error
        else:
            assert job.gone
            assert answer.status_code == 404 or error_code(answer) == "job_failed"

    def result(self, job: TrueJob, seconds: int = 0) -> Operation:
        headers = self.bearer | waiting(seconds)
        answer = self.send("PUT", RESULT, json={"id": job.job_id}, headers=headers)
        yield
        if answer.status_code == 409:
            assert error_code(answer) == "job_not_ready"
        else:
            self.outcome_fits(job, answer)

    def stream(self, job: TrueJob) -> Operation:
        answer = self.receive("GET", f"{CONTOUR}/jobs/{job.job_id}/result", headers=self.bearer)
        yield
        self.outcome_fits(job, answer)

    def look(self, name: str, index: int) -> Operation:
        job = self.some(name, index)
        listed = self.send("GET", f"{path_of(name)}/jobs", params={"limit": "5"}, headers=self.bearer)
        shown = self.send("GET", f"{path_of(name)}/jobs/{job.job_id}") if job else None
        yield
        assert listed.status_code in (200, 404)
        if job and shown and shown.status_code == 200:
            record = shown.json()["job"]
            assert (record["job_id"], record["query"]["ticket"]) == (job.job_id, job.ticket)

    # Being a runtime

    def poll(self, name: str, index: int, seconds: int = 0, token: str | None = None) -> Operation:
        token = token or self.truth.tokens.get(name)
        method = "GET" if seconds or index % 7 else "HEAD"
        answer = self.send(method, f"{path_of(name)}/job", headers=module(token) | waiting(seconds))
        yield
        self.poll_fits(name, token, answer)

    def poll_platform(self, replica: Replica, seconds: int) -> Operation:
        answer = self.send("GET", f"{PLATFORM}/job", headers=module(replica.token) | waiting(seconds))
        yield
        self.poll_fits(replica.runtime, replica.session, answer)

    def poll_fits(self, name: str, token: str | None, answer: requests.Response) -> None:
        if answer.status_code == 200:
            envelope = answer.json()["computeModuleJobV1"]
            job = self.truth.jobs[envelope["jobId"]]
            assert (job.runtime, job.session, job.ticket) == (name, token, envelope["query"]["ticket"])
            assert job.status != "queued"
        elif answer.status_code != 204:
            assert answer.status_code in (401, 404)
            assert self.stale(name, token)

    def restart(self, replica: Replica) -> Operation:
        answer = self.send("POST", f"{PLATFORM}/restart", headers=module(replica.token))
        yield
        if answer.status_code == 200:
            assert [self.truth.jobs[each].error for each in answer.json()] == [RESTARTED] * len(answer.json())
        else:
            assert answer.status_code == 401
            assert self.stale(replica.runtime, replica.session)

    def a_result(self, job: TrueJob) -> bytes:
        """Return a body that no other request sends."""
        return json.dumps({"jobId": job.job_id, "ticket": job.ticket, "by": next(self.numbers)}).encode() + b"\n"

    def post(self, job: TrueJob, *more: bytes) -> Operation:
        """Post a result as a whole, or with `more` pieces as a stream."""
        pieces = [self.a_result(job), *more]
        body: Any = iter(pieces) if more else pieces[0]
        path = f"{path_of(job.runtime)}/results/{job.job_id}"
        answer = self.send("POST", path, data=body, headers=module(job.session))
        yield
        self.posted_fits(job, b"".join(pieces), answer.status_code)

    def posted_fits(self, job: TrueJob, body: bytes, status: int | None) -> None:
        assert (status == 204) == (job.result == body)
        assert status in (None, 204, 409) or (status in (401, 404) and job.gone)

    def post_again(self, job: TrueJob) -> Operation:
        path = f"{path_of(job.runtime)}/results/{job.job_id}"
        answer = self.send("POST", path, data=job.result, headers=module(job.session))
        yield
        assert answer.status_code == 204 or job.gone

    def post_platform(self, job: TrueJob) -> Operation:
        body = self.a_result(job)
        answer = self.send("POST", f"{PLATFORM}/results/{job.job_id}", data=body, headers=module(job.session))
        yield
        if answer.status_code == 204:
            # Kept, or too late: the job has ended, or another result is coming in.
            assert job.ended or self.clients.emulator.lifecycle.stream(job.job_id)
        else:
            assert answer.status_code == 409 or (answer.status_code in (401, 404) and job.gone)
            assert job.result != body

    def post_to_another(self, job: TrueJob) -> Operation:
        other = NAMES[(NAMES.index(job.runtime) + 1) % len(NAMES)]
        body, headers = self.a_result(job), module(self.truth.tokens.get(other))
        posted = self.send("POST", f"{path_of(other)}/results/{job.job_id}", data=body, headers=headers)
        inspected = self.send("GET", f"{path_of(other)}/jobs/{job.job_id}")
        yield
        assert posted.status_code in (401, 404)
        assert inspected.status_code == 404
        assert job.result != body

    def cancel(self, job: TrueJob) -> Operation:
        answer = self.send("DELETE", f"{CONTOUR}/jobs", json={"id": job.job_id}, headers=self.bearer)
        yield
        if answer.status_code == 204:
            assert job.status in ("succeeded", "failed") or job.gone
        else:
            assert answer.status_code == 404
            assert job.gone

    def fail(self, job: TrueJob) -> Operation:
        reason = f"for reason {next(self.numbers)}"
        path = f"{path_of(job.runtime)}/jobs/{job.job_id}/fail"
        answer = self.send("POST", path, json={"reason": reason}, headers=self.bearer)
        yield
        assert (job.error == reason) == (answer.status_code == 204)
        assert answer.status_code in (204, 409) or (answer.status_code == 404 and job.gone)

    def work(self, name: str, done: Callable[[], bool]) -> Operation:
        """Run jobs until all are done; what others took and forgot, too."""
        token = self.truth.tokens.get(name)
        checks = []
        while not done():
            checks.append(self.poll(name, 1, token=token))
            next(checks[-1])
            job = self.some(name, next(self.numbers), "running")
            if job is not None and job.status == "running":
                checks.append(self.post(job, *[b"more"] * (job.ticket % 3)))
                next(checks[-1])
        yield
        for each in checks:
            next(each, None)
