"""What the dashboard computes: the last minute's figures, the filtered jobs, readable bodies, curl commands."""

from __future__ import annotations

import json
import random
import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from kernels.driver import wait_until

from cmemu_nb import Emulator
from cmemu_nb.dashboard.activity import Activity, activity_of, figures
from cmemu_nb.dashboard.bodies import readable
from cmemu_nb.dashboard.curl import curl_command, curl_commands
from cmemu_nb.dashboard.events import EventFilter, EventList
from cmemu_nb.dashboard.job_detail import job_part
from cmemu_nb.dashboard.job_list import JobFilter, JobList
from cmemu_nb.dashboard.job_rows import JobRows, list_row, preview
from cmemu_nb.dashboard.runtimes import runtimes_part, state_of
from cmemu_nb.display.text import visible
from cmemu_nb.errors import InvalidRequest
from cmemu_nb.lifecycle.lifecycle import Lifecycle
from cmemu_nb.lifecycle.records import NS_PER_S, Job, JobSource, JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

APP = "ri.foundry.main.deployed-app.test"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(port=0, home="thread") as emulator:
        yield emulator


def job(sequence: int, queued_at: int, started_at: int | None, completed_at: int | None) -> Job:
    return Job(
        f"j{sequence}",
        sequence,
        "r",
        "f",
        b"{}",
        JobSource.CONTOUR_SYNC,
        queued_at,
        status=JobStatus.SUCCEEDED,
        started_at=started_at,
        completed_at=completed_at,
    )


def one_finished(lifecycle: Lifecycle, name: str = "f", query: bytes = b"{}", result: bytes = b"1") -> str:
    lifecycle.submit("r", name, query)
    taken = lifecycle.take("r")
    assert taken is not None
    return lifecycle.finish("r", taken.job_id, result).job_id


# The last minute


def test_the_figures_of_the_last_minute_are_those_of_a_plain_count() -> None:
    rng = random.Random(5)
    now = 1_000_000 * NS_PER_S
    jobs = []
    for sequence in range(3000):
        queued_at = now - rng.randrange(90 * NS_PER_S)
        started_at = queued_at + rng.randrange(1, NS_PER_S)
        jobs.append(job(sequence, queued_at, started_at, started_at + rng.randrange(1, 5 * NS_PER_S)))
    jobs = [each for each in jobs if (each.completed_at or 0) <= now]
    found = figures([activity_of(jobs, now)], now, 0)
    oldest = now // NS_PER_S - 59
    last = [each for each in jobs if (each.completed_at or 0) // NS_PER_S >= oldest]
    assert found.finished == len(last) / 60
    assert found.submitted == sum(each.queued_at // NS_PER_S >= oldest for each in jobs) / 60
    assert found.started == sum((each.started_at or 0) // NS_PER_S >= oldest for each in jobs) / 60
    assert sum(map(sum, found.history)) == len(jobs)
    runs = sorted((each.completed_at or 0) - (each.started_at or 0) for each in last)
    assert found.run_p50 == pytest.approx(runs[len(runs) // 2], rel=0.03)
    assert found.run_p95 == pytest.approx(runs[len(runs) * 95 // 100], rel=0.03)


def test_a_minute_in_which_nothing_happens_forgets_what_was_before() -> None:
    activity = Activity()
    activity.add(job(1, 0, 5, 10 * NS_PER_S))
    assert figures([activity], 10 * NS_PER_S, 0).finished == 0.1
    assert figures([activity], 10 * NS_PER_S, 0).history[-1] == (1, 0, 0)
    assert figures([activity], 71 * NS_PER_S, 0).finished == 0
    assert figures([activity], 71 * NS_PER_S, 0).run_p50 is None
    assert sum(map(sum, figures([activity], 71 * NS_PER_S, 0).history)) == 1
    assert sum(map(sum, figures([activity], 140 * NS_PER_S, 0).history)) == 0


def test_the_throughput_of_a_young_emulator_is_that_of_its_life() -> None:
    activity = Activity()
    for sequence in range(10):
        activity.add(job(sequence, 0, 5, 4 * NS_PER_S))
    assert figures([activity], 5 * NS_PER_S, 0).finished == 2


def test_what_was_before_a_restart_does_not_count() -> None:
    activity = Activity()
    activity.add(job(1, 0, 5, 4 * NS_PER_S))
    activity.add(job(2, 0, 5, 8 * NS_PER_S))
    assert figures([activity], 9 * NS_PER_S, 7 * NS_PER_S).finished == 0.5


# The jobs


@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(),
        JobFilter(status="failed"),
        JobFilter(function="a"),
        JobFilter(outcome="function error"),
        JobFilter(text="7"),
        JobFilter(runtime="s", status="queued"),
    ],
)
def test_a_list_that_is_told_what_changed_is_the_list_that_is_made_anew(wanted: JobFilter) -> None:
    lifecycle, rng = Lifecycle(), random.Random(3)
    for name in ("r", "s"):
        lifecycle.open_session(name)
    changed: list[str] = []
    lifecycle.events.subscribe(lambda event: changed.append(event.job_id or ""))
    kept = JobList(lifecycle, wanted)
    for _ in range(40):
        for _ in range(rng.randrange(6)):
            change_something(lifecycle, rng)
        kept.update(changed)
        changed.clear()
        assert kept.newest(1000) == JobList(lifecycle, wanted).newest(1000)
        assert kept.newest(2) == JobList(lifecycle, wanted).newest(2)
        assert kept.newest(1000) == expected_list(lifecycle, wanted)


def expected_list(lifecycle: Lifecycle, wanted: JobFilter) -> list[Job]:
    ranks = {JobStatus.RUNNING: 0, JobStatus.QUEUED: 1}
    found = [each for each in lifecycle.jobs() if wanted.matches(each)]
    return sorted(found, key=lambda each: (ranks.get(each.status, 2), -each.sequence))


@pytest.mark.parametrize("wanted", [JobFilter(), JobFilter(runtime="r")])
def test_the_list_begins_with_running_and_queued_jobs_and_half_of_it_are_finished_ones(wanted: JobFilter) -> None:
    lifecycle = Lifecycle()
    lifecycle.open_session("r")
    done = [one_finished(lifecycle) for _ in range(10)]
    queued = [lifecycle.submit("r", "f", b"{}").job_id for _ in range(10)]
    running = lifecycle.take("r")
    assert running is not None
    listed = JobList(lifecycle, wanted)
    shown = [job.job_id for job in listed.newest(6)]
    assert shown == [running.job_id, queued[-1], queued[-2], done[-1], done[-2], done[-3]]
    assert [job.job_id for job in listed.newest(100)] == [running.job_id, *queued[:0:-1], *reversed(done)]
    lifecycle.finish("r", running.job_id, b"1")
    listed.update([running.job_id])
    assert [job.job_id for job in listed.newest(100)] == [*queued[:0:-1], running.job_id, *reversed(done)]


# Rows


def test_a_row_has_previews_of_one_line_that_are_cut_and_hide_nothing() -> None:
    assert preview(b'{\n  "x": 1,\n\t"y": "\\u00fc\\n"\n}') == '{ "x": 1, "y": "ü\\n" }'
    assert preview("a\x00b\u202ec\u2028d".encode()) == "a␀b[U+202E]c[U+2028]d"
    assert preview(b"\xff\x00A" * 1000) == "binary, 3,000 bytes"
    assert preview(b"") == ""
    long = preview(("ö" * 1_000).encode())
    assert long == "ö" * 100 + "…"
    assert preview(b"x" + ("ö" * 1_000).encode()) == "x" + "ö" * 99 + "…"


def test_a_row_says_in_one_word_how_a_job_ended_and_why_and_has_its_times() -> None:
    clock = [1_700_000_000 * NS_PER_S]
    lifecycle = Lifecycle(clock=lambda: clock[0], monotonic=lambda: clock[0])
    lifecycle.open_session("r")
    job_id = lifecycle.submit("r", "f", b'{"x": 1}').job_id
    row = list_row(lifecycle.job(job_id))
    assert (row["outcome"], row["result"], row["wait"], row["run"]) == ("queued", "", None, None)
    assert (row["queued"], row["started"]) == (1_700_000_000_000, None)
    clock[0] += 1_500_000
    lifecycle.take("r")
    row = list_row(lifecycle.job(job_id))
    assert (row["outcome"], row["wait"], row["run"], row["started"]) == ("running", 1.5, None, 1_700_000_000_001.5)
    clock[0] += 2_000
    raised = json.dumps({"exception": "Traceback (most recent call last):\n  File x\nValueError: no\u0000 thing"})
    lifecycle.finish("r", job_id, raised.encode())
    row = list_row(lifecycle.job(job_id))
    assert (row["outcome"], row["wait"], row["run"]) == ("error", 1.5, 0.002)
    assert "ValueError: no␀ thing" in row["result"]
    failed = lifecycle.submit("r", "f", b"{}").job_id
    lifecycle.fail(failed, "the first line\nthe second")
    row = list_row(lifecycle.job(failed))
    assert (row["outcome"], row["result"]) == ("failed", "the first line")


def test_a_row_is_made_once_and_again_when_its_job_has_changed() -> None:
    lifecycle, rows = Lifecycle(), JobRows()
    lifecycle.open_session("r")
    lifecycle.submit("r", "f", b"{}")
    [first] = rows.of(lifecycle.jobs())
    [second] = rows.of(lifecycle.jobs())
    assert first is second
    lifecycle.take("r")
    [third] = rows.of(lifecycle.jobs())
    assert (first["outcome"], third["outcome"]) == ("queued", "running")


def change_something(lifecycle: Lifecycle, rng: random.Random) -> None:
    name = rng.choice("rs")
    match rng.randrange(3):
        case 0:
            lifecycle.submit(name, rng.choice("ab"), b"%d" % rng.randrange(100))
        case 1:
            lifecycle.take(name)
        case _:
            unfinished = [each for each in lifecycle.jobs(name) if not each.finished]
            if unfinished:
                chosen = rng.choice(unfinished)
                if chosen.status == JobStatus.RUNNING and rng.random() < 0.7:
                    lifecycle.finish(name, chosen.job_id, rng.choice([b"7", b'{"exception":"x"}']))
                else:
                    lifecycle.fail(chosen.job_id, "no 7")


@pytest.mark.parametrize("text", ["straße", "STRASSE", "ärger", "ÄRGER"])
@pytest.mark.parametrize("body", ["Straße, Ärger, STRASSE, ÄRGER", "straße, strasse, ärger"])
@pytest.mark.parametrize("escaped", [True, False])
def test_text_that_is_not_ascii_is_found_in_any_case_and_escape(text: str, body: str, escaped: bool) -> None:  # noqa: FBT001
    lifecycle = Lifecycle()
    lifecycle.open_session("r")
    one_finished(lifecycle, "f", json.dumps({"x": body}, ensure_ascii=escaped).encode())
    assert len(JobList(lifecycle, JobFilter(text=text))) == 1


@pytest.mark.parametrize("text", ["hidden", "HIDDEN", "ü", "Ünder", 'a "quote"', "answer", "f_name"])
def test_text_is_found_wherever_it_stands(text: str) -> None:
    lifecycle = Lifecycle()
    lifecycle.open_session("r")
    query = json.dumps({"hidden": "ünder", "b": 'a "quote"'}).encode()
    one_finished(lifecycle, "f_name", query, b'"answer"')
    assert len(JobList(lifecycle, JobFilter(text=text))) == 1
    assert len(JobList(lifecycle, JobFilter(text=f"{text}!"))) == 0


# Bodies


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"", "nothing", ""),
        (b'{"a":[1,2]}', "JSON", '{\n  "a": [\n    1,\n    2\n  ]\n}'),
        (b'{"n":9007199254740993.10}', "JSON", '{\n  "n": 9007199254740993.10\n}'),
        (b'{"a":1}{"a":2}\n', "2 JSON values, one after the other", '{\n  "a": 1\n}\n{\n  "a": 2\n}'),
        (b'"\\u00fc\\ud83d\\ude00\\u0000\\\\u00fc\\""', "JSON", '"ü😀\\u0000\\\\u00fc\\""'),
        (b"plain\x00text", "text", "plain␀text"),
        (b"{broken", "text", "{broken"),
        (b"[" * 100_000, "text", "[" * 20_000),
        (b"NaN", "text", "NaN"),
        (b"1 2 3", "3 JSON values, one after the other", "1\n2\n3"),
        (b'1"a"[]2', "4 JSON values, one after the other", '1\n"a"\n[]\n2'),
        *((each, "text", each.decode()) for each in (b"2024-01-15", b"007", b"00420 555-1234", b"truefalse")),
    ],
)
def test_bodies_are_readable(body: bytes, kind: str, text: str) -> None:
    shown = readable(body)
    assert (shown["kind"], shown["text"]) == (kind, text)


def test_bytes_are_shown_in_hex_and_large_bodies_are_cut_with_a_note() -> None:
    shown = readable(b"\xff\x00A" * 1000)
    assert shown["kind"] == "binary"
    assert shown["text"].startswith("000000  ff 00 41 ff 00 41 ff 00 41 ff 00 41 ff 00 41 ff  ..A..A..A..A..A.")
    assert shown["note"] == "the first 1,024 of 3,000 bytes are shown"
    large = readable(json.dumps("x" * 5_000_000).encode())
    assert len(large["text"]) == 20_000
    assert large["note"] == "the first 20,000 characters of 5,000,002 bytes are shown"


def test_a_body_that_still_comes_may_end_inside_a_character() -> None:
    half = "Kö".encode()[:-1]
    assert readable(half, complete=False)["text"] == "K"
    assert readable(half)["kind"] == "binary"
    cut = ("ö" * 150_000).encode()
    assert readable(b"x" + cut)["text"] == "x" + "ö" * 19_999


# curl


@pytest.mark.parametrize("app", [None, APP])
@pytest.mark.parametrize("size", [0, 30_000])
def test_the_curl_commands_do_it_again(
    emulator: Emulator, app: str | None, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runtime = emulator.open_runtime("a b/'c\"", deployed_app_rid=APP)
    query = {"text": 'it\'s "quoted" $HOME `id` \\ ü\n\x7f\x85\u2028\u202e\ufeff', "more": "x" * size}
    raw = msgspec.Raw(json.dumps(query, ensure_ascii=False, indent=1).replace("\n", "\r\n").encode())
    first = emulator.submit("echo", raw, APP) if app else runtime.enqueue("echo", raw)
    *how_to_write, again, look = [
        visible(line, lines=True) for line in curl_commands(first.record, emulator.url, "lab")
    ]
    for code in how_to_write:
        exec(code.removeprefix("# In a cell first: "), {"lab": emulator})
    emulator.change(lambda lifecycle: lifecycle.fail(first.id, "seen"))
    # Nobody serves: the job is there, and its caller waits.
    caller = subprocess.Popen(["bash", "-c", again], env=shell_environ(emulator), stdout=subprocess.PIPE)
    taken = take(emulator, runtime.id)
    assert json.loads(taken.query) == query
    assert (taken.query_type, taken.deployed_app_rid) == ("echo", app)
    emulator.change(lambda lifecycle: lifecycle.finish(runtime.id, taken.job_id, b'"done"'))
    answer = json.loads(caller.communicate(timeout=20)[0])
    assert answer == ("done" if app else {"jobId": taken.job_id})
    shown: dict[str, Any] = json.loads(subprocess.check_output(["bash", "-c", look], env=shell_environ(emulator)))
    assert shown["job"]["job_id"] == first.id


@pytest.mark.parametrize("size", [0, 300_000])
def test_the_command_with_the_token_works_when_it_is_pasted(emulator: Emulator, size: int) -> None:
    runtime = emulator.open_runtime("pasted", deployed_app_rid="ri.pasted")
    query = {"text": 'it\'s "quoted" $HOME `id` \\ ü\n\x7f\u2028', "more": "x" * size}
    first = emulator.submit("echo", query, "ri.pasted")
    command = curl_command(first.record, emulator.url, str(emulator.token))
    emulator.change(lambda lifecycle: lifecycle.fail(first.id, "seen"))
    # From a terminal the shell reads it as here: the kernel limits an argument of bash to 128 kB.
    shell = {"PATH": "/usr/bin:/bin:/usr/local/bin"}
    caller = subprocess.Popen(["bash"], env=shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert caller.stdin is not None
    caller.stdin.write(command.encode())
    caller.stdin.close()
    caller.stdin = None
    taken = take(emulator, runtime.id)
    assert json.loads(taken.query) == query
    emulator.change(lambda lifecycle: lifecycle.finish(runtime.id, taken.job_id, b'"done"'))
    assert caller.communicate(timeout=60)[0] == b'"done"'


def test_the_command_of_a_stream_prints_it_as_it_arrives_and_a_long_query_is_refused() -> None:
    one = job(1, 0, 1, 2)
    assert curl_command(one, "http://x", "t").startswith("curl -sS -X POST -H 'Authorization: Bearer t'")
    assert curl_command(msgspec.structs.replace(one, streamed=True), "http://x", "t").startswith("curl -sSN -X POST")
    with pytest.raises(InvalidRequest, match="1,000,001 bytes"):
        curl_command(msgspec.structs.replace(one, query=b"1" * 1_000_001), "http://x", "t")


def shell_environ(emulator: Emulator) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin:/usr/local/bin", "TOKEN": emulator.token}


def take(emulator: Emulator, runtime_id: str) -> Job:
    taken: list[Job] = []

    def try_to_take() -> bool:
        taken.extend(filter(None, [emulator.change(lambda lifecycle: lifecycle.take(runtime_id))]))
        return bool(taken)

    wait_until(try_to_take, "a job")
    return taken[0]


# Runtimes and events


def test_a_runtime_is_connected_stale_or_was_never_polled() -> None:
    clock = [1000 * NS_PER_S]
    lifecycle = Lifecycle(clock=lambda: clock[0], monotonic=lambda: clock[0])
    lifecycle.open_session("r")
    assert state_of(lifecycle.runtime("r"), [], clock[0]) == "never polled"
    lifecycle.take("r")
    assert state_of(lifecycle.runtime("r"), [], clock[0] + 60 * NS_PER_S) == "connected"
    assert state_of(lifecycle.runtime("r"), [], clock[0] + 76 * NS_PER_S) == "stale"


def test_what_is_shown_of_a_runtime_has_no_control_characters_and_no_token(emulator: Emulator) -> None:
    runtime = emulator.open_runtime("<script>\x1b[31m\u202e", deployed_app_rid="ri.x", display_name="a\x00b")
    emulator.change(lambda lifecycle: lifecycle.add_replica(runtime.id, 1))
    text = json.dumps(runtimes_part(emulator, 0)["rows"], ensure_ascii=False)
    assert "<script>␛[31m[U+202E]" in text
    assert "a␀b" in text
    assert runtime.token not in text


def test_events_are_filtered_newest_first() -> None:
    lifecycle = Lifecycle()
    lifecycle.open_session("r")
    one_finished(lifecycle)
    lifecycle.take("r")
    assert kinds_in(EventList(EventFilter(all=True)), lifecycle)[:3] == [
        "poll_empty",
        "job_succeeded",
        "job_started",
    ]
    assert kinds_in(EventList(EventFilter()), lifecycle)[:2] == ["job_succeeded", "job_started"]
    assert kinds_in(EventList(EventFilter("F", "job_queued")), lifecycle) == ["job_queued"]
    assert kinds_in(EventList(EventFilter("nowhere")), lifecycle) == []


def kinds_in(events: EventList, lifecycle: Lifecycle) -> list[str]:
    lines = events.part(lifecycle.events, lifecycle)["lines"]
    return [each["kind"] for line in lines for each in reversed(line.get("events", [line]))]


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize(("text", "kind"), [("", ""), ("b", ""), ("", "job_queued"), ("r", "poll_empty")])
def test_a_list_of_events_that_goes_on_is_the_list_that_is_made_anew(text: str, kind: str, every: bool) -> None:  # noqa: FBT001
    lifecycle, rng = Lifecycle(keep_events=40), random.Random(4)
    for name in ("r", "s"):
        lifecycle.open_session(name)
    kept = EventList(EventFilter(text, kind, all=every))
    for _ in range(60):
        for _ in range(rng.randrange(8)):
            change_something(lifecycle, rng)
        assert kept.part(lifecycle.events, lifecycle) == EventList(EventFilter(text, kind, all=every)).part(
            lifecycle.events, lifecycle
        )


def test_events_that_the_log_let_go_take_no_place_from_those_that_it_keeps() -> None:
    lifecycle = Lifecycle(keep_events=150)
    kept = EventList(EventFilter(all=True))
    for kind, count in (("poll_empty", 100), ("log", 250)):
        for _ in range(count):
            lifecycle.note(kind)
            kept.part(lifecycle.events, lifecycle)
    assert kept.part(lifecycle.events, lifecycle) == EventList(EventFilter(all=True)).part(lifecycle.events, lifecycle)


def test_of_a_traceback_the_last_line_is_shown() -> None:
    lifecycle = Lifecycle()
    lifecycle.note("listener_failed", detail="Traceback:\n  line\n" * 50 + "ZeroDivisionError: division by zero\n")
    [row] = EventList(EventFilter()).part(lifecycle.events, lifecycle)["lines"]
    assert row["detail"] == "ZeroDivisionError: division by zero (the DataFrame of events has all of it)"


def test_long_logs_and_errors_are_cut_with_a_note(emulator: Emulator) -> None:
    runtime = emulator.open_runtime("noisy")
    job_id = runtime.enqueue("f").id
    emulator.lifecycle.log(job_id).write("first\n" + "x" * 30_000 + "last")
    emulator.change(lambda lifecycle: lifecycle.fail(job_id, "why " * 10_000))
    part = job_part(emulator, job_id, 0)
    assert part["logs"].endswith("xlast")
    assert part["logs_note"] == "the last 20,000 of 30,010 characters"
    assert part["error"]["message"].endswith("… (the first 2,000 of 16,420 characters)")
    assert part["error"]["trace"].endswith("… (the first 16,384 of 39,999 bytes)")
