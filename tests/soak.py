"""Clients that work an emulator hard and keep count of what they were told: what `test_soak.py` is made of."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from client import CONTOUR, EXECUTE, RESULT, RUNTIMES, SUBMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RIDS = [f"ri.foundry.main.deployed-app.soak-{number}" for number in range(4)]
VICTIM = 3  # the runtime that is reset all the time
PATIENCE = 120.0


class Gone(Exception):
    """The connection ended before the whole answer came."""


class NotThere(Gone):
    """The emulator is dead at the moment: nothing was sent."""


@dataclass
class Plan:
    """Where the emulator is at the moment, what is still to be done, and when to stop."""

    url: str
    token: str
    sessions: list[str]
    jobs: int
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_number(self) -> int | None:
        """Return the number of the next job to submit, or None when there are enough."""
        with self.lock:
            self.jobs -= 1
            return self.jobs if self.jobs >= 0 else None


class Tally:
    """How everything ended. `wrong` has what must not be."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends: Counter[str] = Counter()
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []

    def end(self, how: str) -> None:
        with self.lock:
            self.ends[how] += 1

    def note(self, what: str) -> None:
        with self.lock:
            self.did[what] += 1


class Client:
    """One client: a kept connection that is made again when it ends."""

    def __init__(self, plan: Plan, tally: Tally, number: int) -> None:
        self.plan, self.tally, self.number = plan, tally, number
        self.rng = random.Random(number)
        self._connection = http.client.HTTPConnection(urlsplit(plan.url).netloc, timeout=60)

    def send(self, method: str, path: str, body: bytes | Iterator[bytes] | None, **headers: str) -> tuple[int, bytes]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except OSError:
            self._connection.close()
            raise NotThere from None
        try:
            self._connection.request(method, path, body, given, encode_chunked=not isinstance(body, bytes | None))
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise Gone from None

    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.plan.token}"}

    def work(self) -> None:
        """Work until it is over; what goes wrong in a client is a fault of the test or of the emulator."""
        try:
            self.until_over()
        except Exception as error:  # noqa: BLE001 - told by the test
            self.tally.wrong.append(f"client {self.number}: {error!r}")
        finally:
            self._connection.close()

    def until_over(self) -> None:
        raise NotImplementedError

    def again(self, request: Callable[[], tuple[int, bytes]], until: type[Gone] = Gone) -> tuple[int, bytes]:
        """Send until there is an answer, or only until the emulator lives: it may be dead at the moment."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return request()
            except until:
                assert time.monotonic() < end, "the emulator does not come back"
                self.plan.over.wait(0.02)


def expected(query: object) -> bytes:
    return json.dumps({"echo": query}).encode()


class Application(Client):
    """Submits jobs, waits for their results and compares them with what they must be."""

    def until_over(self) -> None:
        while (number := self.plan.next_number()) is not None:
            target = self.rng.randrange(len(RIDS))
            query = {"n": number, "pad": "ü" * self.rng.randrange(200)}
            body = json.dumps({"deployedAppRid": RIDS[target], "queryType": "f", "query": query}).encode()
            if self.rng.random() < 0.3:
                self.execute(body, query, target)
            else:
                self.submit(body, query, target)

    def execute(self, body: bytes, query: object, target: int) -> None:
        try:
            status, answer = self.again(lambda: self.send("POST", EXECUTE, body, **self.bearer()), NotThere)
        except Gone:  # nobody was told of this job, and nothing can be said of it
            self.tally.end("executed, no answer (killed)")
            return
        self.judge("executed", status, answer, query, target)

    def submit(self, body: bytes, query: object, target: int) -> None:
        try:
            status, answer = self.again(lambda: self.send("POST", SUBMIT, body, **self.bearer()), NotThere)
        except Gone:
            self.tally.end("submitted, no answer (killed)")
            return
        assert status == 200, (status, answer)
        wanted = json.dumps({"id": json.loads(answer)["id"]}).encode()
        while True:
            status, answer = self.again(lambda: self.send("PUT", RESULT, wanted, Prefer="wait=20", **self.bearer()))
            if status != 409:
                break
        self.judge("submitted", status, answer, query, target)

    def judge(self, how: str, status: int, answer: bytes, query: object, target: int) -> None:
        if status == 200:
            right = answer == expected(query)
            self.tally.end(f"{how}, succeeded")
            if not right:
                self.tally.wrong.append(f"wrong result for {query}: {answer[:200]!r}")
            return
        reason = json.loads(answer)["error_description"]
        cleared = "reset" in reason and target == VICTIM
        lease, gone = "lease ran out" in reason or "broke off" in reason, status == 410
        if status == 504:
            self.tally.end(f"{how}, timed out (goes on)")
        elif cleared or lease or gone:
            self.tally.end(
                f"{how}, {'cleared by a reset' if cleared else 'let go' if gone else 'failed with its reason'}"
            )
        else:
            self.tally.wrong.append(f"{how}: {status} {reason}")


class Executor(Client):
    """Takes jobs and posts their results, whole or in chunks, as often as it takes; sometimes it goes away."""

    def until_over(self) -> None:
        while not self.plan.over.is_set():
            target = self.number % len(RIDS)
            token = self.plan.sessions[target]
            headers = {"Module_Auth_Token": token}
            try:
                status, body = self.send("GET", f"{RUNTIMES}/soak-{target}/job", None, Prefer="wait=2", **headers)
            except Gone:
                self.plan.over.wait(0.02)
                continue
            assert status in (200, 204, 401, 503), (status, body)
            if status == 200:
                self.finish(json.loads(body)["computeModuleJobV1"], f"{RUNTIMES}/soak-{target}/results", headers)

    def finish(self, job: dict[str, object], uri: str, headers: dict[str, str]) -> None:
        result = expected(job["query"])
        for _ in range(50):
            chunked = self.rng.random() < 0.2
            pieces: bytes | Iterator[bytes] = iter([result[:7], result[7:]]) if chunked else result
            with contextlib.suppress(Gone):
                status, answer = self.send("POST", f"{uri}/{job['jobId']}", pieces, **headers)
                if status != 500:
                    # Reset, let go, failed by its lease, or finished by another delivery of the same job.
                    assert status in (204, 401, 404, 409, 410), (status, answer)
                    return
            if self.plan.over.wait(0.02):
                return


class Chaos(Client):
    """Resets a runtime, breaks connections off in every state, and asks for everything that can be looked at."""

    def until_over(self) -> None:
        while not self.plan.over.wait(0.05):
            with contextlib.suppress(Gone, OSError):
                self.rng.choice([self.reset, self.break_off, self.give_up, self.look])()

    def reset(self) -> None:
        body = json.dumps({"runtimeId": f"soak-{VICTIM}", "deployedAppRid": RIDS[VICTIM]}).encode()
        status, answer = self.send("POST", RUNTIMES, body)
        assert status == 200, (status, answer)
        self.plan.sessions[VICTIM] = json.loads(answer)["moduleAuthToken"]
        self.tally.note("resets")

    def break_off(self) -> None:
        """Send a part of a request and reset the connection."""
        address = urlsplit(self.plan.url)
        head = f"POST {SUBMIT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.plan.token}\r\n"
        whole = f"{head}Content-Length: 100\r\n\r\n{{".encode()
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(whole[: self.rng.randrange(1, len(whole))])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.tally.note("connections broken off")

    def give_up(self) -> None:
        """Go away while a poll is held."""
        target = self.rng.randrange(len(RIDS))
        address = urlsplit(self.plan.url)
        head = f"GET {RUNTIMES}/soak-{target}/job HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=5\r\n"
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(f"{head}Module-Auth-Token: {self.plan.sessions[target]}\r\n\r\n".encode())
        self.tally.note("polls given up")

    def look(self) -> None:
        """Look at what there is."""
        for path in (RUNTIMES, f"{RUNTIMES}/soak-0/jobs?status=running", f"{CONTOUR}/jobs/none/status"):
            status, _ = self.send("GET", path, None, **self.bearer())
            assert status in (200, 404)
        self.tally.note("looks")
