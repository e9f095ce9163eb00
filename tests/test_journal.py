"""The journal: after kill -9, a restart or a stop the same start goes on where the process ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, SUBMIT, Api, error_code, eventually
from journaled import process
from msgspec.structs import replace

from cmemu_nb import Emulator
from cmemu_nb.errors import (
    HomeError,
    JobEvicted,
    JournalBehind,
    JournalError,
    PayloadTooLarge,
    PortTakenWarning,
    WireError,
)
from cmemu_nb.lifecycle.data_streams import StreamOptions
from cmemu_nb.lifecycle.datasets import Reader, TransactionType
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.records import Job, JobStatus
from cmemu_nb.storage.journal import Journal
from cmemu_nb.storage.journal_check import VERSION
from cmemu_nb.storage.journal_file import JournalFile
from cmemu_nb.wire.stream_schemas import parse
from cmemu_nb.wire.stream_values import NewRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from cmemu_nb.lifecycle.data_streams import StreamLog
    from cmemu_nb.lifecycle.datasets import DatasetHistory


PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lifecycle.db"


def journaled(path: Path, **settings: Any) -> Emulator:
    return Emulator(port=0, home="thread", journal=str(path), **settings)


def picture(state: Lifecycle) -> tuple[Any, ...]:
    """Return all that there is, but when a runtime polled last: that is written when the emulator stops."""
    runtimes = [
        (each.runtime_id, each.module_auth_token, each.display_name, each.connected, each.created_at)
        for each in state.runtimes()
    ]
    replicas = {
        name: [(r.token, r.max_concurrent_tasks, list(r.held)) for r in state.replicas(name)] for name, *_ in runtimes
    }
    return (
        runtimes,
        kept(state.jobs()),
        state.schemas(),
        state.deployed_apps(),
        state.evicted(),
        state.count(),
        replicas,
        [picture_of_dataset(state.dataset(each.rid)) for each in state.datasets()],
        [picture_of_stream(state.data_stream(each.rid, each.branch)) for each in state.data_streams()],
        {each.subscriber_id: each for each in state.subscribers()},
        state.data_bytes,
    )


def picture_of_dataset(history: DatasetHistory) -> tuple[Any, ...]:
    files = {rid: files for rid, files in history.files.items() if files}
    return (
        history.dataset,
        list(history.branches.items()),
        list(history.transactions.items()),
        files,
        history.schemas,
        history.size,
    )


def picture_of_stream(log: StreamLog) -> tuple[Any, ...]:
    by_partition = [log.read(number, 0, 10**6) for number in range(len(log.partitions))]
    return log.stream, log.ends, log.published, log.size, log.records(), by_partition


def kept(jobs: list[Job]) -> list[Job]:
    """Return jobs without the stopwatches that run: another process would have another clock."""
    running: dict[str, Any] = {JobStatus.QUEUED: {"queue_clock": None}, JobStatus.RUNNING: {"run_clock": None}}
    return [replace(job, **running.get(job.status, {})) for job in jobs]


def files(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}


# Everything comes back


def test_all_is_there_again_after_kill_9(path: Path) -> None:
    with process(path) as first:
        api = Api(first.url, first.token)
        runtime = api.open("ü/r", RID, displayName="My App")
        api.open("other", RID, branch="dev")
        assert (
            runtime.post_schemas([{"functionName": "f", "deep": {"x": 10**30}}, {"functionName": "g"}]).status_code
            == 204
        )
        done, failed, running, queued = (api.submit("f", {"n": n}) for n in range(4))
        for job_id in (done, failed, running):
            assert runtime.take_id() == job_id
        assert runtime.post_result(done, b"\xff\x00", Content_Type="text/x").status_code == 204
        runtime.fail(failed, "why not \u00fc")
        before = [runtime.inspect(job_id) for job_id in (done, failed, running, queued)]
        authority = path.with_name("lifecycle.db-files") / "ca.pem"
        pem = first.run("answer = emu.certificates.authority_path.read_text()")
        outside = first.run("answer = emu.env('other')['MODULE_AUTH_TOKEN']")
        first.run("emu.files.write('token-of-nobody', b'')\nemu.files.folder('module-m').joinpath('app.py').touch()")
        first.kill()
    with process(path) as second:
        assert (second.url, second.platform_url, second.token) == (first.url, first.platform_url, first.token)
        assert authority.read_text() == pem
        token, services = Path(outside).name, Path(outside).name.replace("token", "service_discovery")
        kept = {"ca.pem", "ca-bundle.pem", "lock", "mark", token, services}
        assert {each.name for each in authority.parent.iterdir()} == kept
        after = [runtime.inspect(job_id) for job_id in (done, failed, running, queued)]
        for each in (*before, *after):
            each["runtime"].pop("last_poll_at")
        assert after == before
        assert api.result(done).content == b"\xff\x00"
        assert runtime.take_id() == queued
        assert runtime.post_result(running, b"1").status_code == 204
        assert {(each["deployed_app_rid"], each["branch"]) for each in api_apps(api)} == {(RID, "master"), (RID, "dev")}


def api_apps(api: Api) -> list[dict[str, Any]]:
    runtimes = api.contour("GET", "/_emulate/foundry/compute-modules/runtimes").json()["runtimes"]
    return [app for runtime in runtimes for app in runtime["deployed_apps"]]


def test_a_clean_stop_leaves_one_file_that_has_everything(path: Path) -> None:
    with journaled(path) as emulator:
        runtime = Api(emulator.url, emulator.token).open("r", RID)
        job = emulator.submit("f", {"x": 1})
        runtime.take()
        runtime.post_result(job.id, b"1")
        runtime.poll()
        last_poll = emulator.lifecycle.runtime("r").last_poll_at
        before = picture(emulator.lifecycle)
    assert set(files(path)) == {"lifecycle.db"}
    with journaled(path) as again:
        assert picture(again.lifecycle) == before
        assert again.lifecycle.runtime("r").last_poll_at == last_poll
        assert (again.port, again.token) == (emulator.port, emulator.token)


def test_what_ends_with_the_kernel_fails_and_what_runs_elsewhere_goes_on(path: Path) -> None:
    with process(path) as first:
        api = Api(first.url, first.token)
        outside = api.open("outside", "ri.outside")
        first.run("import threading\n@emu.function\ndef in_a_cell(context, event):\n    threading.Event().wait()\n")
        in_a_cell = api.submit("in_a_cell", rid="ri.foundry.main.deployed-app.notebook")
        first.run(
            "code = 'import urllib.request as u, ssl, os, time; e = os.environ; '"
            " 'c = ssl.create_default_context(cafile=e[\"DEFAULT_CA_PATH\"]); '"
            ' \'h = {"Module-Auth-Token": open(e["MODULE_AUTH_TOKEN"]).read()}\\n\''
            " 'while u.urlopen(u.Request(e[\"GET_JOB_URI\"], headers=h), context=c).status != 200: pass\\n'"
            " 'time.sleep(600)'\n"
            "emu.launch(['python', '-c', code], 'launched')"
        )
        launched = api.submit("f", rid="ri.foundry.main.deployed-app.launched")
        elsewhere = api.submit("f", rid="ri.outside")
        assert outside.take_id() == elsewhere
        for job_id in (in_a_cell, launched):
            eventually(lambda job_id=job_id: api.status(job_id)["type"] == "running", "the job runs")  # type: ignore[misc]
        first.kill()
    with process(path):
        for job_id in (in_a_cell, launched):
            answer = api.result(job_id)
            assert (answer.status_code, answer.json()["error"]) == (500, "job_failed")
            assert "the kernel or process that ran it ended" in answer.json()["error_description"]
        assert api.status(elsewhere)["type"] == "running"
        assert outside.post_result(elsewhere, b"1").status_code == 204
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM replicas").fetchall() == []


@pytest.mark.once
def test_an_official_sdk_program_goes_on_across_kill_9(path: Path) -> None:
    with process(path) as first:
        api = Api(first.url, first.token)
        api.open("real", RID)
        environment = first.run("answer = dict(emu.env('real', 2))")
        command = [sys.executable, str(PROGRAMS / "python_module.py"), "threads"]
        with subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as program:
            try:
                assert api.result(api.submit("echo", {"n": 1}), wait=30).json() == {"n": 1}
                first.kill()
                with process(path):
                    assert api.result(api.submit("echo", {"n": 2}), wait=30).json() == {"n": 2}
                    assert program.poll() is None
            finally:
                program.kill()


def test_functions_of_a_new_kernel_take_the_jobs_that_were_queued(path: Path) -> None:
    with process(path) as first:
        first.run("@emu.function\ndef double(context, event):\n    return 2 * event['x']\n")
        first.run("emu.functions.remove('double')\nemu.home.run(emu.functions.stopping('the test has stopped them'))")
        job_id = Api(first.url, first.token).submit("double", {"x": 21}, rid="ri.foundry.main.deployed-app.notebook")
        first.kill()
    with process(path) as second:
        second.run("@emu.function\ndef double(context, event):\n    return 2 * event['x']\n")
        assert Api(second.url, second.token).result(job_id, wait=10).json() == 42


def test_the_lease_of_a_running_job_goes_on(path: Path) -> None:
    with journaled(path) as emulator:
        runtime = Api(emulator.url, emulator.token).open("r", RID)
        job = emulator.submit("f")
        runtime.take()
    with journaled(path, job_timeout=0.05) as again:
        eventually(again.job(job.id).done, "the lease has run out")
        assert "job_timeout" in (again.job(job.id).record.error_message or "")


def test_a_reset_leaves_nothing_behind_and_an_evicted_job_is_still_known(path: Path) -> None:
    with journaled(path, keep_jobs=2) as emulator:
        api = Api(emulator.url, emulator.token)
        cleared = api.open("cleared", RID)
        api.submit()
        cleared.post_schemas([{"name": "f"}])
        cleared.send("DELETE", cleared.uri)
        runtime = api.open("r", RID)
        api.submit()
        runtime = api.open("r", RID)
        jobs = [api.submit() for _ in range(4)]
        for job_id in jobs:
            runtime.take()
            runtime.post_result(job_id, b"1")
        eventually(lambda: emulator.lifecycle.evicted()["r"] == 2, "two were let go")
        before = picture(emulator.lifecycle)
    with journaled(path, keep_jobs=2) as again:
        assert picture(again.lifecycle) == before
        with pytest.raises(JobEvicted):
            again.job(jobs[0]).result()
    connection = sqlite3.connect(path)
    counts = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    connection.close()
    assert counts == {"runtimes": 1, "apps": 1, "jobs": 2, "states": 2, "schemas": 0, "replicas": 0}


TABLES = ("runtimes", "apps", "jobs", "states", "schemas", "replicas")


def test_large_bodies_and_hostile_texts_come_back_as_they_were(path: Path) -> None:
    with journaled(path) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("a\x00b'\"\u2028", RID, displayName="<script>\U0001f600")
        large = api.submit("f\x00g", "x" * 5_000_000)
        strange = api.submit()
        runtime.take(), runtime.take()
        runtime.post_result(large, iter([b"\x00" * 1_000_000] * 5))
        emulator.lifecycle.fail(strange, "by hand")
        emulator.change(lambda state: state.add_reason(strange, "\ud800"))
        before = picture(emulator.lifecycle)
        emulator.change(lambda state: state.note("late_result", "r", strange))
    with journaled(path) as again:
        assert picture(again.lifecycle) == before


def test_a_token_that_is_given_counts_and_is_kept(path: Path) -> None:
    with journaled(path) as first:
        assert first.token
    with journaled(path, token="given-token-of-mine") as second:
        assert second.token == "given-token-of-mine"
    with journaled(path) as third:
        assert third.token == "given-token-of-mine"


def test_stop_and_start_of_one_emulator_goes_on_too(path: Path) -> None:
    emulator = journaled(path)
    for _ in range(3):
        with emulator:
            emulator.open_runtime("r", RID)
            job = emulator.submit("f")
    with journaled(path) as other:
        assert [each.job_id for each in other.lifecycle.jobs()] == [job.id]
    with pytest.raises(JournalError, match="used by another emulator since this one was stopped"):
        emulator.start()
    with journaled(path):
        pass


def test_a_start_that_failed_can_be_tried_again(path: Path) -> None:
    make(path)
    emulator = Emulator(port=0, home="kernel", journal=str(path))  # there is no kernel
    for _ in range(2):
        with pytest.raises(HomeError, match="no kernel loop"):
            emulator.start()
    with journaled(path) as other:
        assert other.lifecycle.queue_depth("r") == 200


# Random changes, compared with what a new lifecycle makes of the file


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_file_has_it(path: Path, seed: int) -> None:
    async def main() -> None:
        rng, state = random.Random(seed), Lifecycle(keep_records=40, max_data_bytes=20_000)
        file = JournalFile(path, "normal")
        journal = Journal(file, state, asyncio.get_running_loop())
        for _ in range(200):
            change(rng, state)
            if rng.random() < 0.3:
                await journal.written()
                assert not journal.behind
                assert picture(restored(file)) == picture(state)
        journal.close()
        assert picture(restored(file)) == picture(state)
        assert queues(restored(file)) == queues(state)
        file.close()

    asyncio.run(main())


def restored(file: JournalFile) -> Lifecycle:
    state = Lifecycle()
    state.restore(file.load())
    return state


def queues(state: Lifecycle) -> dict[str, list[str]]:
    """Take every job there is."""
    found: dict[str, list[str]] = {}
    for runtime in state.runtimes():
        while (job := state.take(runtime.runtime_id)) is not None:
            found.setdefault(runtime.runtime_id, []).append(job.job_id)
    return found


def change(rng: random.Random, state: Lifecycle) -> None:
    """Do one thing, at random; what is refused changes nothing."""
    names = ["a", "b", "c"]
    name, rid, branch = rng.choice(names), rng.choice([None, "ri.1", "ri.2"]), rng.choice([None, "dev"])
    jobs = state.jobs()
    job = rng.choice(jobs) if jobs else None
    replicas = [each for other in state.runtimes() for each in state.replicas(other.runtime_id)]
    common = [
        lambda: state.submit(name, rng.choice("fg"), b'{"x":1}'),
        lambda: state.take(name),
        lambda: job and state.finish(job.runtime_id, job.job_id, rng.randbytes(5), "text/plain"),
        lambda: job and state.fail(job.job_id, "by hand"),
        lambda: list(map(state.give_back, jobs[-1:])),
        lambda: replicas and state.take(replicas[0].runtime_id, replica=replicas[0]),
        lambda: state.post_schemas(name, [(rng.choice("fg"), b"{}")]),
        lambda: state.submit_to_app(rid or "ri.1", branch, "f", b"[]", jobs[0].source if jobs else "contour-sync"),  # type: ignore[arg-type]
    ]
    common.extend([partial(change_dataset, rng, state), partial(change_stream, rng, state)] * 3)
    rare = [
        lambda: state.open_session(name, rid, branch, rng.choice([None, "Name"])),
        lambda: state.delete_session(name),
        lambda: state.delete_schema(name, "f"),
        lambda: state.add_replica(name, 3),
        lambda: state.evict(4, 10**9, 3),
        state.reset if rng.random() < 0.05 else lambda: None,
    ]
    with contextlib.suppress(WireError):
        rng.choice(common if rng.random() < 0.75 and state.runtimes() else rare)()


def change_dataset(rng: random.Random, state: Lifecycle) -> None:
    name, branch, path = rng.choice(["in", "out"]), rng.choice(["master", "dev"]), rng.choice(["a.csv", "b/c", "d"])
    history = state.find_dataset(name)
    if history is None:
        state.create_dataset(name, rid=rng.choice([None, f"ri.foundry.main.dataset.{name}"]))
        return
    rid, opened, kind = history.dataset.rid, history.open_transactions(), rng.choice(list(TransactionType))
    body, committed = rng.randbytes(rng.choice([0, 10, 1000])), history.branch("master").committed_rid
    operations: list[Callable[[], object]] = [
        lambda: state.open_transaction(rid, kind, branch),
        lambda: state.put_file(rid, opened[0].rid, path, body),
        lambda: state.put_file(rid, opened[-1].rid, path, body),
        lambda: state.delete_file(rid, opened[-1].rid, path),
        lambda: state.commit_transaction(rid, opened[0].rid),
        lambda: state.commit_transaction(rid, opened[-1].rid),
        lambda: state.set_dataset_schema(rid, rng.choice(list(history.transactions)), branch, b"[]", Reader.CSV),
    ]
    rare: list[Callable[[], object]] = [
        lambda: state.abort_transaction(rid, opened[0].rid),
        lambda: state.create_branch(rid, branch, rng.choice([None, committed])),
        lambda: state.delete_branch(rid, "dev"),
        partial(state.delete_dataset, rid) if rng.random() < 0.2 else lambda: None,
    ]
    with contextlib.suppress(IndexError):
        rng.choice(operations if rng.random() < 0.85 else rare)()


def change_stream(rng: random.Random, state: Lifecycle) -> None:
    name, branch, reader = rng.choice(["events", "others"]), rng.choice(["master", "dev"]), rng.choice(["x", "y"])
    log = state.find_data_stream(name, None)
    schema, options = parse({"a": "STRING"}, ("a",)), StreamOptions(rng.randrange(1, 4))
    if log is None:
        state.create_data_stream(name, schema, options, branch=branch)
        return
    rid = log.stream.rid
    records = [NewRecord(rng.randbytes(3), rng.choice([b"1", b"2", None])) for _ in range(rng.randrange(30))]
    operations: list[Callable[[], object]] = [
        *[lambda: state.publish(rid, branch, records)] * 5,
        lambda: state.create_subscriber(rid, branch, reader, {"type": "earliest"}, (0,) * len(log.partitions)),
        lambda: state.move_subscriber(rid, branch, reader, (rng.randrange(9),) * len(log.partitions)),
        lambda: state.delete_subscriber(rid, branch, reader),
        lambda: state.create_stream_branch(rid, branch, schema, options),
        lambda: state.reset_data_stream(rid, branch, rng.choice([None, schema]), rng.choice([None, options])),
        partial(state.delete_data_stream, rid) if rng.random() < 0.2 else lambda: None,
    ]
    rng.choice(operations)()


# Files that can't be used


def refused(path: Path, match: str) -> None:
    before = files(path)
    with pytest.raises(JournalError, match=match):
        journaled(path).start()
    assert files(path) == before


def make(path: Path) -> None:
    with journaled(path) as emulator:
        emulator.open_runtime("r", RID)
        for _ in range(200):
            emulator.submit("f", "x" * 500)


def test_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    make(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    refused(path, f"was written by a newer cmemu_nb .* {VERSION + 1}.*Upgrade")


@pytest.mark.parametrize("place", [4096, 40_000, 90_000])
def test_a_damaged_file_is_refused_and_left_alone(path: Path, place: int) -> None:
    make(path)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xa5" * 6000)
    refused(path, "is .*damaged .*It was left as it is")


def test_what_is_no_journal_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"my precious notes\n" * 100)
    refused(path, "is not a journal, or is damaged")
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    refused(path, "another program's database")


def test_a_newer_version_after_kill_9_is_left_alone_with_its_log(path: Path) -> None:
    with process(path) as first:
        Api(first.url, first.token).open("r", RID)
        first.kill()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    kept = files(path)
    connection.close()
    for name, content in kept.items():
        path.with_name(name).write_bytes(content)
    assert "lifecycle.db-wal" in kept
    before = {name: content for name, content in files(path).items() if not name.endswith("-shm")}
    with pytest.raises(JournalError, match="newer"):
        journaled(path).start()
    assert {name: content for name, content in files(path).items() if not name.endswith("-shm")} == before


def test_a_journal_in_use_is_refused_and_the_user_named(path: Path) -> None:
    with process(path) as first:
        with pytest.raises(JournalError, match=rf"in use by another emulator \(process {first.popen.pid}\)"):
            journaled(path).start()
        assert Api(first.url, first.token).open("r").runtime_id == "r"
    with journaled(path), pytest.raises(JournalError, match=f"process {os.getpid()}"):
        journaled(path).start()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        *[
            (name, "can't be opened")
            for name in (".", "/", "/dev/null", "file/x.db", "~nobody-has-this-name/x.db", "a\0b")
        ],
        ("missing/lifecycle.db", "No such file"),
    ],
)
def test_a_path_that_cant_be_is_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, match: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JournalError, match=match):
        Emulator(port=0, journal=name).start()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert stat.S_IMODE(Path("/dev/null").stat().st_mode) == 0o666


def test_the_files_are_for_their_owner_only(path: Path) -> None:
    old = os.umask(0)
    try:
        with journaled(path) as emulator:
            emulator.open_runtime("r")
            emulator.env("r")
            found = [path.with_name(f"{path.name}-files"), *path.parent.rglob("*")]
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in found}
    finally:
        os.umask(old)
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}
    assert len(modes) >= 6


# While it can't be written


@contextlib.contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    """Have another program lock the file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_nothing_is_acknowledged_that_is_not_in_the_file(path: Path, tmp_path: Path) -> None:
    with journaled(path) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("r", RID)
        job_id = api.submit()
        runtime.take()
        with held_by_another(path):
            answers = [
                api.contour("POST", SUBMIT, json={"deployedAppRid": RID, "queryType": "f"}),
                runtime.post_result(job_id, b"1"),
                runtime.post_schemas([{"name": "f"}]),
            ]
            with pytest.raises(JournalBehind, match="it is not in the journal, which can't be written"):
                emulator.open_runtime("r2")
            assert emulator.export(tmp_path / "run.json").exists()
        assert [(answer.status_code, error_code(answer)) for answer in answers] == [(503, "journal_behind")] * 3
        assert answers[0].headers["Retry-After"] == "1"
        eventually(lambda: runtime.post_result(job_id, b"1").status_code == 204, "the same result is taken")
        kinds = [event.kind for event in emulator.lifecycle.events.recent()]
        assert (kinds.count("journal_failed"), kinds.count("journal_written")) == (1, 1)
        before = picture(emulator.lifecycle)
    with journaled(path) as again:
        assert picture(again.lifecycle) == before


def test_a_job_that_could_not_be_noted_as_taken_is_handed_out_later(path: Path) -> None:
    with journaled(path) as emulator:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("r", RID)
        job_id = api.submit()
        with held_by_another(path):
            assert error_code(runtime.poll()) == "journal_behind"
        answers = eventually(lambda: [each for each in [runtime.poll()] if each.status_code == 200], "it is handed out")
        assert answers[0].json()["computeModuleJobV1"]["jobId"] == job_id


def not_taken(answer: requests.Response, what: str) -> bool:
    return error_code(answer) == "payload_too_large" and f"The journal can't store {what}" in answer.text


def test_one_record_that_sqlite_cant_take_is_refused_and_stops_nobody_else(path: Path) -> None:
    """Memory and the journal agree about what was refused, and what others send meanwhile is written."""
    large = b"x" * 2_500_000
    with journaled(path) as emulator, ThreadPoolExecutor(4) as pool:
        api = Api(emulator.url, emulator.token)
        runtime = api.open("r", RID)
        file = emulator._engine.identity._journal_file  # noqa: SLF001
        assert file is not None
        file.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2_000_000)
        others = [pool.submit(api.submit, "other") for _ in range(20)]
        query = {"deployedAppRid": RID, "queryType": "f", "query": large.decode()}
        assert not_taken(api.contour("POST", SUBMIT, json=query), "the query")
        with pytest.raises(PayloadTooLarge, match="can't store the query"):
            emulator.submit("f", large.decode())
        kept = {each.result() for each in others}
        assert set(emulator.lifecycle.job_ids()) == kept
        whole, streamed, good, *_ = (runtime.take_id() for _ in range(len(kept)))
        assert not_taken(runtime.post_result(whole, large), f"the result of job '{whole}'")
        assert error_code(runtime.post_result(whole, large)) == "job_already_completed"
        assert not_taken(runtime.post_result(streamed, iter([large, large])), f"the result of job '{streamed}'")
        assert runtime.post_result(good, b"1" * 1_500_000).status_code == 204
        assert not_taken(runtime.post_schemas([{"name": "f", "x": large.decode()}]), "the schemas")
        assert emulator.lifecycle.schemas() == []
        assert runtime.post_schemas([{"name": "f"}]).status_code == 204
        assert error_code(api.result(whole)) == "job_failed"
        before = picture(emulator.lifecycle)
        assert [emulator.lifecycle.job(each).status for each in (whole, streamed)] == [JobStatus.FAILED] * 2
    with journaled(path) as again:
        assert picture(again.lifecycle) == before


def test_a_result_that_there_is_no_memory_for_is_refused_and_stops_nobody_else(path: Path) -> None:
    with process(path) as first:
        api = Api(first.url, first.token)
        runtime = api.open("r", RID)
        large, small = api.submit("f"), api.submit("f")
        assert [runtime.take_id(), runtime.take_id()] == [large, small]
        first.run("emu._engine.identity._journal_file.connection.execute('PRAGMA hard_heap_limit = 20000000')")
        assert not_taken(runtime.post_result(large, b"x" * 30_000_000), f"the result of job '{large}'")
        assert runtime.post_result(small, b"1").status_code == 204
        job = api.submit("f")
        status = first.run(f"answer = emu.lifecycle.job({large!r}).status")
        assert status == "failed"
    with journaled(path) as again:
        known = again.lifecycle
        assert (known.job(large).status, known.job(small).result) == (JobStatus.FAILED, b"1")
        assert known.job(job).status == JobStatus.QUEUED
        assert "The journal can't store the result" in (known.job(large).error_message or "")


def test_a_large_record_is_written_once_and_comes_back(path: Path) -> None:
    """It is written before anybody hears of it, and after what came before it, such as a reset."""
    large = b"1" * 3_000_000
    with process(path) as first:
        api = Api(first.url, first.token)
        api.open("r", RID)
        api.submit("old")
        runtime = api.open("r", RID)
        log = path.with_name(f"{path.name}-wal")
        size = log.stat().st_size
        job_id = api.submit("f", large.decode())
        assert runtime.take_id() == job_id
        assert runtime.post_result(job_id, large).status_code == 204
        assert log.stat().st_size - size < 2.5 * len(large)
        first.kill()
    with journaled(path) as again:
        (job,) = again.lifecycle.jobs()
        assert (job.job_id, len(job.query), job.result) == (job_id, len(large) + 2, large)


def test_it_is_tried_again_without_any_request(path: Path) -> None:
    with journaled(path) as emulator:
        with held_by_another(path), pytest.raises(JournalBehind):
            emulator.open_runtime("r")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            count = "SELECT count(*) FROM runtimes"
            eventually(lambda: connection.execute(count).fetchone() == (1,), "it is in the file")


def test_nobody_waits_for_another_while_it_cant_be_written(path: Path) -> None:
    with journaled(path) as emulator, held_by_another(path), ThreadPoolExecutor(16) as pool:
        api = Api(emulator.url, emulator.token)
        with pytest.raises(JournalBehind):
            emulator.open_runtime("r")
        # If each of them tried to write, the last would wait for longer than clients do.
        body = {"deployedAppRid": "ri.none", "queryType": "f"}
        answers = list(pool.map(lambda _: api.contour("POST", SUBMIT, json=body), range(500)))
        assert {error_code(answer) for answer in answers} == {"journal_behind"}
        assert api.send("GET", "/_emulate/health").status_code == 200


@pytest.mark.parametrize("name", ["lifecycle.db", "lifecycle.db-wal", "lifecycle.db-shm", "lifecycle.db-files"])
@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
def test_a_file_that_is_deleted_meanwhile_is_noticed(path: Path, name: str, *, replaced: bool) -> None:
    """Nothing is acknowledged any more; a new file takes in everything."""
    with journaled(path) as emulator:
        emulator.open_runtime("r")
        gone = path.with_name(name)
        kept = gone.rename(path.with_name("kept"))
        if replaced:
            shutil.copytree(kept, gone) if kept.is_dir() else shutil.copy(kept, gone)
        with pytest.raises(
            JournalBehind, match=r"(lifecycle.db|-wal|-shm|mark) was (deleted|replaced by another file)"
        ):
            emulator.open_runtime("r2")
        with pytest.raises(JournalBehind, match="start it with a new file"):
            emulator.open_runtime("r2")
    with emulator.start(journal=str(path.with_name("new.db"))):
        emulator.open_runtime("r3")
    with journaled(path.with_name("new.db")) as again:
        assert [each.runtime_id for each in again.lifecycle.runtimes()] == ["r", "r2", "r3"]


def test_a_new_file_is_complete_although_reading_it_takes_longer_than_the_first_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = JournalFile.unused_contents

    def read_slowly(file: JournalFile) -> list[int]:
        time.sleep(0.1)  # the loop writes meanwhile what was there before, if it has been told
        return read(file)

    monkeypatch.setattr(JournalFile, "unused_contents", read_slowly)
    emulator = Emulator(port=0, home="thread")
    with emulator:
        emulator.open_runtime("r")
    with emulator.start(journal=str(path)):
        emulator.open_runtime("r2")


def test_a_log_that_is_deleted_meanwhile_loses_nothing_that_was_acknowledged(path: Path) -> None:
    with journaled(path) as emulator:
        emulator.open_runtime("r")
        path.with_name("lifecycle.db-wal").unlink()
        with pytest.raises(JournalBehind, match="-wal was deleted"):
            emulator.open_runtime("r2")
    with journaled(path) as again:
        assert again.lifecycle.runtime("r").runtime_id == "r"


@pytest.mark.parametrize("way", ["hard link", "deleted lock", "deleted folder"])
def test_two_emulators_on_one_journal_are_impossible(path: Path, way: str) -> None:
    with process(path) as first:
        other = path
        if way == "hard link":
            other = path.with_name("other.db")
            other.hardlink_to(path)
        elif way == "deleted lock":
            (path.with_name("lifecycle.db-files") / "lock").unlink()
        else:
            shutil.rmtree(path.with_name("lifecycle.db-files"))
        with pytest.raises(JournalError, match="is in use by another emulator"):
            journaled(other).start()
        with journaled(path.with_name("mine.db")) as here:
            link = path.with_name("link.db")
            link.hardlink_to(path.with_name("mine.db"))
            with pytest.raises(JournalError, match="is in use by another emulator"):
                journaled(link).start()
            # SQLite's locks are still there, which a process loses when it closes the file anywhere.
            locked = f"import sqlite3; sqlite3.connect({str(link)!r}).execute('PRAGMA locking_mode = EXCLUSIVE')"
            assert here.open_runtime("r").id == "r"
            subprocess.run([sys.executable, "-c", locked], check=True)
        if way == "deleted folder":
            with pytest.raises(AssertionError, match="mark was deleted"):
                first.run("emu.open_runtime('r')")
        else:
            first.run("emu.open_runtime('r')")


def test_a_change_of_directory_and_another_name_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    emulator = journaled(Path("x.db"))
    with emulator:
        emulator.open_runtime("r")
        monkeypatch.chdir("sub")
        assert Path(emulator.env("r")["MODULE_AUTH_TOKEN"]).read_text() == emulator.lifecycle.replicas("r")[0].token
        (tmp_path / "link.db").symlink_to(tmp_path / "x.db")
        with pytest.raises(JournalError, match="in use by another emulator"):
            journaled(tmp_path / "link.db").start()
    with emulator:
        assert emulator.lifecycle.runtime("r").runtime_id == "r"
    assert list((tmp_path / "sub").iterdir()) == []


def test_a_memory_journal_is_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with journaled(Path(":memory:")) as emulator:
        emulator.open_runtime("r")
    with journaled(Path(":memory:")) as again:
        assert again.lifecycle.runtime("r").runtime_id == "r"


def test_a_port_that_was_taken_once_is_tried_again(path: Path) -> None:
    with journaled(path) as first:
        port = first.port
    with socket.create_server(("127.0.0.1", port)), pytest.warns(PortTakenWarning), journaled(path) as second:
        assert second.port != port
    with journaled(path) as third:
        assert third.port == port


def test_a_file_that_is_locked_at_the_start_is_one_sentence_and_can_be_tried_again(path: Path) -> None:
    make(path)
    emulator = journaled(path)
    with held_by_another(path), pytest.raises(JournalError, match=r"can't be .*: database is locked"):
        emulator.start()
    with emulator:
        assert emulator.lifecycle.queue_depth("r") == 200


@pytest.mark.parametrize("number", range(1, 18, 2))
def test_kill_9_while_the_file_is_made_leaves_one_that_can_be_used(path: Path, number: int) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom cmemu_nb.storage import journal_file\n"
        "count = 0\n"
        "def die(event, arguments):\n"
        "    global count\n"
        "    if event in ('open', 'os.rename', 'os.remove', 'os.chmod', 'sqlite3.connect'):\n"
        "        count += 1\n"
        f"        if count == {number}: os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(die)\n"
        "journal_file.JournalFile(Path(sys.argv[1]), 'normal')\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    with journaled(path) as emulator:
        emulator.open_runtime("r")


# Its size


@pytest.mark.once
def test_the_log_does_not_grow_for_ever(path: Path) -> None:
    threads = set(threading.enumerate())
    with journaled(path) as emulator:
        emulator.open_runtime("r")

        def one(state: Lifecycle) -> None:
            job = state.submit("r", "f", b'"%b"' % (b"x" * 20_000))
            state.take("r")
            state.finish("r", job.job_id, b"y" * 20_000)

        for _ in range(3_000):
            emulator.change(one)
        log = path.with_name("lifecycle.db-wal").stat().st_size
        assert log < 80 * 1024 * 1024
        assert emulator.lifecycle.count()[JobStatus.SUCCEEDED] == 3_000
    assert set(threading.enumerate()) <= threads
    assert path.stat().st_size > 3_000 * 40_000


def test_full_sync_is_what_sqlite_was_told(path: Path) -> None:
    for sync, number in (("full", 2), ("normal", 1)):
        with journaled(path, journal_sync=sync) as emulator:
            file = emulator._engine.identity._journal_file  # noqa: SLF001
            assert file is not None
            assert file.connection.execute("PRAGMA synchronous").fetchone() == (number,)
