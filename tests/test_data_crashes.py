"""kill -9 of `cmemu serve --journal` at random moments while plain HTTP clients write datasets and streams.

Whatever was acknowledged is there exactly once after the restart, nothing that was not acknowledged is there in part,
and what was open is still open. `tests/run --long` kills 100 times.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cli_processes import serving
from client import eventually
from test_crashes import Client, Gone

from cmemu_nb.wire.paths import API, DATASETS, STREAM_PROXY, STREAMS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

KILLS = 100 if os.environ.get("CMEMU_LONG") else 2
TOKEN = "token-of-the-crashes"
HIGH_SCALE = f"{API}v2/highScale/streams/datasets"
FOLDER = "ri.compass.main.folder.crashes"
UPLOADERS, PUBLISHERS = 2, 2
SIZES = (0, 100, 40_000, 1_300_000)
"""In bytes; the last one has several pieces in the journal."""


@dataclass
class Opened:
    """A transaction of a life: the files that were acknowledged, and the answer that never arrived."""

    rid: str
    files: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)
    status: set[str] = field(default_factory=lambda: {"OPEN"})


@dataclass
class Written:
    """What one writer did to its dataset or stream, and what it was told of it."""

    rid: str
    files: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)
    opened: Opened | None = None
    records: list[str] = field(default_factory=list)
    unanswered_records: list[list[str]] = field(default_factory=list)
    position: set[int] = field(default_factory=lambda: {0})


class Writers:
    """Clients that write until the emulator is killed, each a dataset or a stream of its own."""

    def __init__(self, url: str, life: int, datasets: list[Written], streams: list[Written]) -> None:
        self._url, self._life = url, life
        self.count = 0
        self.faults: list[str] = []
        jobs = [(self._write_files, each, number) for number, each in enumerate(datasets)]
        jobs += [(self._publish, each, number) for number, each in enumerate(streams)]
        self.threads = [threading.Thread(target=self._until_gone, args=job) for job in jobs]
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"

    def _until_gone(self, work: Any, written: Written, number: int) -> None:
        rng = random.Random(f"{self._life} {work.__name__} {number}")
        client = client_of(self._url)
        try:
            while True:
                work(client, written, rng)
        except Gone:
            pass
        except Exception as error:  # noqa: BLE001 - reported by the test's own thread
            self.faults.append(repr(error))
        finally:
            client.close()

    def _send(self, client: Client, method: str, path: str, body: bytes = b"") -> Any:
        status, answer = client.send(method, path, body)
        assert status == 200, answer
        self.count += 1
        return json.loads(answer)

    def _name(self, rng: random.Random) -> str:
        return f"{self._life}/{rng.getrandbits(64):x}"

    def _write_files(self, client: Client, written: Written, rng: random.Random) -> None:
        base = f"{DATASETS}/{written.rid}"
        for _ in range(rng.randrange(3)):
            path, body = self._name(rng), rng.randbytes(rng.choice(SIZES))
            written.unanswered[path] = digest(body)
            self._send(client, "POST", f"{base}/files/{quote(path, '')}/upload?branchName=master", body)
            written.files[path] = written.unanswered.pop(path)
        self._write_transaction(client, written, rng, base)

    def _write_transaction(self, client: Client, written: Written, rng: random.Random, base: str) -> None:
        if rng.random() < 0.3:
            written.opened = None
        kind = rng.choice(["UPDATE", "APPEND"])
        made = self._send(
            client, "POST", f"{base}/transactions?branchName=dev", b'{"transactionType":"%s"}' % kind.encode()
        )
        written.opened = opened = Opened(made["rid"])
        for _ in range(rng.randrange(4)):
            path, body = self._name(rng), rng.randbytes(rng.choice(SIZES))
            opened.unanswered = {path: digest(body)}
            self._send(client, "POST", f"{base}/files/{quote(path, '')}/upload?transactionRid={opened.rid}", body)
            opened.files |= opened.unanswered
        opened.unanswered = {}
        ending, status = rng.choice([("commit", "COMMITTED"), ("commit", "COMMITTED"), ("abort", "ABORTED")])
        opened.status = {"OPEN", status}
        self._send(client, "POST", f"{base}/transactions/{opened.rid}/{ending}")
        written.opened = None
        if status == "COMMITTED":
            written.files |= {f"dev {path}": content for path, content in opened.files.items()}

    def _publish(self, client: Client, written: Written, rng: random.Random) -> None:
        base = f"{STREAM_PROXY}/streams/{written.rid}/branches/master"
        batch = [f"{self._name(rng)} {'x' * rng.choice([1, 1000])}" for _ in range(rng.choice([1, 3, 50]))]
        written.unanswered_records.append(batch)
        values = [{"value": {"id": each}} for each in batch]
        self._send(client, "POST", f"{base}/jsonRecords", json.dumps(values).encode())
        written.records += written.unanswered_records.pop()
        position = max(written.position) + 1
        written.position.add(position)
        commit = f"{HIGH_SCALE}/{written.rid}/streams/master/subscribers/{written.rid}/commitOffsets?preview=true"
        self._send(client, "POST", commit, json.dumps({"offsets": {"0": position - 1}}).encode())
        written.position = {position}


def client_of(url: str) -> Client:
    return Client(url, {"Authorization": f"Bearer {TOKEN}"})


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def get(client: Client, path: str) -> Any:
    status, answer = client.send("GET", path)
    assert status == 200, answer
    return json.loads(answer)


def check_dataset(client: Client, written: Written) -> None:
    """Compare the files with what was told, and commit the transaction that is still open."""
    base = f"{DATASETS}/{written.rid}"
    if (opened := written.opened) is not None:
        status = get(client, f"{base}/transactions/{opened.rid}")["status"]
        assert status in opened.status
        if status == "OPEN":
            assert not listed(client, base, "dev").keys() & {*opened.files, *opened.unanswered}
            assert client.send("POST", f"{base}/transactions/{opened.rid}/commit")[0] == 200
        if status != "ABORTED":
            written.files |= {f"dev {path}": content for path, content in opened.files.items()}
            written.unanswered |= {f"dev {path}": content for path, content in opened.unanswered.items()}
        written.opened = None
    found = {
        **listed(client, base, "master"),
        **{f"dev {path}": each for path, each in listed(client, base, "dev").items()},
    }
    assert written.files.keys() <= found.keys() <= written.files.keys() | written.unanswered.keys()
    known = {**written.files, **written.unanswered}
    for path, url in found.items():
        status, body = client.send("GET", url)
        assert status == 200
        assert digest(body) == known[path]
    written.files, written.unanswered = {path: known[path] for path in found}, {}


def listed(client: Client, base: str, branch: str) -> dict[str, str]:
    """Return the URLs of the files of a branch, by path; a transaction whose answer was lost is aborted before."""
    head = get(client, f"{base}/branches/{branch}")
    if "transactionRid" not in head:
        return {}
    found, token = {}, ""
    while True:
        page = get(client, f"{base}/files?branchName={branch}&pageSize=1000{token}")
        for file in page["data"]:
            found[file["path"]] = f"{base}/files/{quote(file['path'], '')}/content?branchName={branch}"
        if "nextPageToken" not in page:
            return found
        token = f"&pageToken={page['nextPageToken']}"


def abort_unanswered(client: Client, written: Written) -> None:
    """Abort the transaction whose opening nobody was told of."""
    base = f"{DATASETS}/{written.rid}"
    head = get(client, f"{base}/branches/dev").get("transactionRid")
    if head is not None and get(client, f"{base}/transactions/{head}")["status"] == "OPEN":
        assert client.send("POST", f"{base}/transactions/{head}/abort")[0] == 200


def check_stream(client: Client, written: Written) -> None:
    """Compare the records with what was told: each once, in order, with offsets that follow each other."""
    base = f"{HIGH_SCALE}/{written.rid}/streams/master"
    ends = get(client, f"{base}/getEndOffsets?preview=true")
    found: list[str] = []
    for partition, end in ends.items():
        offset = 0
        while offset < end:
            records = get(
                client, f"{base}/getRecords?preview=true&partitionId={partition}&startOffset={offset}&limit=100"
            )
            assert [each["offset"] for each in records] == list(range(offset, offset + len(records)))
            found += [each["value"]["id"] for each in records]
            offset += len(records)
    assert len(found) == len({*found})
    extra = {*found} - {*written.records}
    assert {*written.records} <= {*found}
    for batch in written.unanswered_records:
        assert extra >= {*batch} or not extra & {*batch}
        extra -= {*batch}
    assert not extra
    written.records, written.unanswered_records = found, []
    position = get(client, f"{base}/subscribers/{written.rid}/getReadPosition?preview=true")
    assert position["0"] in written.position
    written.position = {position["0"]}


def made(client: Client) -> tuple[list[Written], list[Written]]:
    """Create the datasets with a branch `dev`, and the streams with a subscriber each."""
    datasets, streams = [], []
    for number in range(UPLOADERS):
        rid = post(client, DATASETS, name=f"dataset {number}", parentFolderRid=FOLDER)["rid"]
        post(client, f"{DATASETS}/{rid}/branches", name="dev")
        datasets.append(Written(rid))
    schema = {"fields": [{"name": "id", "schema": {"dataType": {"type": "string"}, "nullable": False}}]}
    for number in range(PUBLISHERS):
        rid = post(client, f"{STREAMS}/create?preview=true", name=f"s {number}", parentFolderRid=FOLDER, schema=schema)[
            "rid"
        ]
        post(
            client,
            f"{STREAMS}/{rid}/streams/master/subscribers?preview=true",
            subscriberId=rid,
            readPosition={"type": "earliest"},
        )
        streams.append(Written(rid))
    return datasets, streams


def post(client: Client, path: str, **fields: Any) -> Any:
    status, answer = client.send("POST", path, json.dumps(fields).encode())
    assert status == 200, answer
    return json.loads(answer)


@pytest.mark.timeout(1800)
def test_no_dataset_and_no_stream_loses_what_was_acknowledged(tmp_path: Path) -> None:
    rng, datasets, streams = random.Random(2026), list[Written](), list[Written]()
    options = ("--journal", str(tmp_path / "lifecycle.db"), "--token", TOKEN)
    for life in range(KILLS + 1):
        with serving(*options, runtime_folder=tmp_path) as emulator, contextlib.ExitStack() as closing:
            client = client_of(emulator.url)
            closing.callback(client.close)
            if life == 0:
                datasets, streams = made(client)
            for each in datasets:
                if each.opened is None:
                    abort_unanswered(client, each)
                check_dataset(client, each)
            for each in streams:
                check_stream(client, each)
            if life < KILLS:
                writers, target = Writers(emulator.url, life, datasets, streams), rng.randrange(1, 100)
                eventually(lambda: writers.count >= target or writers.faults, "the clients were told enough")  # noqa: B023
                emulator.process.kill()
                writers.join()
                assert writers.faults == []
    files, records = sum(len(each.files) for each in datasets), sum(len(each.records) for each in streams)
    print(f"\n{KILLS} kills, {files:,} files and {records:,} records: 0 lost, 0 twice")  # noqa: T201
