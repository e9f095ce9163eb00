"""`cmemu jobs`, `runtimes`, `schemas`, `env` and `export`, as a person and as a script use them."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cli_processes import CMEMU, OnTerminal, run, run_here, serving
from client import MODULE_HEADER, RID, Api, eventually

from cmemu_nb import Emulator
from cmemu_nb.cli.remote import Remote
from cmemu_nb.cli.tables import table
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

HOSTILE = "r\x1b[2J\u202e\nü"


@pytest.fixture
def filled(emu: Emulator, api: Api) -> Emulator:
    """Three jobs: one that succeeded, one whose function raised, one that is queued elsewhere."""
    runtime = api.open("app", RID)
    runtime.post_schemas({"add": ADD, "odd": {}})
    for body in (b"3", b'{"exception": "no luck"}'):
        job_id = runtime.submit("add", {"x": 1})
        runtime.take()
        runtime.post_result(job_id, body)
    api.open(HOSTILE).submit("f")
    return emu


INTEGER = {"type": "integer", "integer": {}}
ADD = {
    "functionName": "add",
    "inputs": [{"name": "x", "required": True, "dataType": INTEGER}],
    "output": {"type": "single", "single": {"dataType": INTEGER}},
}


def lines(emu: Emulator, *arguments: str) -> list[str]:
    done = run_here(*arguments, "--url", emu.url)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def records(emu: Emulator, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(emu, *arguments, "--json")]


# Once


def test_jobs_are_a_table_of_what_people_look_for(filled: Emulator) -> None:
    heading, *rows = lines(filled, "jobs")
    assert " ".join(heading.split()) == "STATE FUNCTION RUNTIME QUEUED (UTC) QUEUE TIME RUN TIME RESULT JOB"
    assert [row.split()[-1] for row in rows] == [job.job_id for job in filled.lifecycle.jobs()]
    assert [row.partition("  ")[0] for row in rows] == ["ok", "function error", "queued"]
    result = heading.index("RESULT")
    assert [row[result:].partition("  ")[0] for row in rows[:2]] == ["3", "no luck"]
    assert "r␛[2J[U+202E]␊ü" in rows[2]


def test_jobs_are_chosen_by_status_runtime_and_age(filled: Emulator) -> None:
    first, second, third = (job.job_id for job in filled.lifecycle.jobs())

    def chosen(*options: str) -> list[str]:
        return [each["job_id"] for each in records(filled, "jobs", *options)]

    assert chosen() == [first, second, third]
    assert chosen("--status", "succeeded") == [first, second]
    assert chosen("--runtime", HOSTILE) == [third]
    assert chosen("--last", "2") == [second, third]
    assert chosen("--last", "1", "--runtime", "app") == [second]
    note = run_here("jobs", "--last", "2", "--url", filled.url).stderr
    assert note == "Older jobs are not shown. To see more: --last 20\n"


def test_runtimes_and_schemas_are_tables_too(filled: Emulator) -> None:
    heading, app, hostile = lines(filled, "runtimes")
    headings = "RUNTIME STATE LAST POLL QUEUED RUNNING OK FUNCTION ERROR FAILED DEPLOYED APPS"
    assert " ".join(heading.split()) == headings
    assert app.split() == ["app", "connected", "just", "now", *"00110", RID, "(master)"]
    assert hostile.split() == ["r␛[2J[U+202E]␊ü", "never", "polled", "never", *"10000", "—"]
    _, add, odd = lines(filled, "schemas")
    assert add.split(maxsplit=2) == ["add", "app", "x: integer -> integer"]
    assert odd.split() == ["odd", "app", "—"]
    assert [each["schema_payload"] for each in records(filled, "schemas", "--runtime", "app")] == [ADD, {}]


def test_datasets_and_streams_are_tables_too(filled: Emulator) -> None:
    assert "There are no datasets." in run_here("datasets", "--url", filled.url).stderr
    assert "There are no streams." in run_here("streams", "--url", filled.url).stderr
    filled.datasets["in"] = [{"id": 1}, {"id": 2}]
    filled.streams[HOSTILE] = [{"text": "x" * 10}]
    _, dataset = lines(filled, "datasets")
    rid = filled.datasets["in"].rid
    expected = r"in +2 +1 +\S+ (kB|bytes) +master +(just now|.* ago) +— +id LONG +"
    assert re.fullmatch(expected + re.escape(rid), dataset)
    heading, stream = lines(filled, "streams")
    assert heading.split()[:3] == ["STREAM", "BRANCH", "RECORDS"]
    assert stream.startswith("r␛[2J[U+202E]␊ü  master  1  ")
    assert "0: 1" in stream
    assert [each["name"] for each in records(filled, "streams")] == [HOSTILE]
    filled.reset()


def test_no_command_shows_a_whole_token(filled: Emulator) -> None:
    tokens = [runtime.module_auth_token for runtime in filled.lifecycle.runtimes()]
    shown = records(filled, "runtimes")
    assert [each["module_auth_token"] for each in shown] == [f"…{token[-4:]}" for token in tokens]
    said = [str(lines(filled, *words.split())) for words in ("jobs", "runtimes", "schemas", "env app")]
    assert [token for token in (*tokens, filled.token) if token in "".join(said)] == []


@pytest.mark.parametrize("command", ["jobs", "schemas", "call add"])
def test_a_runtime_that_is_deleted_meanwhile_is_left_out(
    filled: Emulator, api: Api, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Somebody else deletes it right after a command has listed all of them."""
    other = api.open("other", "ri.other")
    other.post_schemas({"sub": ADD})
    other.submit("sub")
    listed = Remote.runtimes

    async def runtimes(remote: Remote) -> list[dict[str, Any]]:
        found = await listed(remote)
        filled.lifecycle.delete_session("other")
        return found

    monkeypatch.setattr(Remote, "runtimes", runtimes)
    options = ("--timeout", "0.1") if command.startswith("call") else ()
    done = run_here(*command.split(), *options, "--url", filled.url)
    assert "There is no runtime" not in done.stderr
    assert done.returncode == (2 if options else 0), done.stderr  # the query lacks x, so a schema was found


def test_of_many_deployed_apps_some_are_named(emu: Emulator) -> None:
    for number in range(25):
        emu.open_runtime(f"r{number}", deployed_app_rid=f"ri.app{number:02}")
    done = run_here("call", "add", "--url", emu.url)
    assert "Choose one with --app ri.app00 or ri.app01 or " in done.stderr
    assert done.stderr.endswith(" or ri.app09 or one of 15 others.\n")


def test_what_there_is_not_is_said_on_stderr(emu: Emulator) -> None:
    for command, said in {"jobs": "no jobs", "runtimes": "no runtimes", "schemas": "No function"}.items():
        done = run_here(command, "--url", emu.url)
        assert (done.returncode, done.stdout) == (0, "")
        assert said in done.stderr
    done = run_here("jobs", "--runtime", "x", "--url", emu.url)
    assert (done.returncode, done.stderr) == (5, "cmemu jobs: There is no runtime 'x'. There are no runtimes yet.\n")


def test_columns_stand_under_each_other_whatever_is_in_them() -> None:
    shown = table(["name", "x"], [["日本", "1"], ["e\u0301", "2"], ["abc", "3" * 300]], 40)
    assert shown.splitlines() == ["NAME  X", "日本  1", "e\u0301     2", f"abc   {'3' * 33}…"]
    family = "\N{WOMAN}\u200d\N{WOMAN}\u200d\N{GIRL}"  # one picture of two columns
    assert table(["name", "x"], [[family, "日本"]], 9).splitlines() == ["NAME  X", f"{family}    日…"]
    assert table(["a"], [["\x07" * 3]]) == "A\n␇␇␇"


# Again and again


@pytest.fixture
def watched() -> Iterator[Any]:
    with serving("--token", "t") as server:
        api = Api(server.url, "t")
        yield server, api.open("app", RID)


def watching(url: str, *arguments: str) -> subprocess.Popen[str]:
    command = [*CMEMU, *arguments, "--watch", "--url", url, "--token", "t"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_watching_prints_each_change_as_a_json_line_until_the_emulator_goes_away(watched: Any) -> None:
    server, runtime = watched
    job_id = runtime.submit("f", 1)
    with watching(server.url, "jobs", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["status"] == "queued"
        runtime.take()
        assert json.loads(process.stdout.readline())["status"] == "running"
        second = runtime.submit("f", 2)
        assert json.loads(process.stdout.readline())["job_id"] == second
        runtime.post_result(job_id, b"1")
        assert json.loads(process.stdout.readline())["result_body_utf8"] == "1"
        server.end()
        assert process.stderr.read().startswith("cmemu jobs: The emulator at 127.0.0.1:")
    assert process.returncode == 6


def test_watching_prints_a_table_for_each_change_and_ends_with_its_reader(watched: Any) -> None:
    server, runtime = watched
    with watching(server.url, "runtimes") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("RUNTIME")
        assert process.stdout.readline().split()[:2] == ["app", "never"]
        runtime.poll()
        assert process.stdout.readline().startswith("RUNTIME")
        assert process.stdout.readline().split()[:2] == ["app", "connected"]
        # Nothing changes any more, and it notices all the same.
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_watching_draws_a_terminal_anew_and_ends_with_ctrl_c(watched: Any) -> None:
    server, runtime = watched
    with OnTerminal("jobs", "--watch", "--url", server.url, CMEMU_TOKEN="t") as terminal:
        terminal.until("There are no jobs.")
        runtime.submit("f", "x" * 200)
        seen = terminal.until("queued")
        assert seen.count("\x1b[H\x1b[2J") == 2
        drawn = seen.rpartition("\x1b[2J")[2].splitlines()
        assert [len(line) <= 100 for line in drawn] == [True, True]
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(20) == 0
        assert "Traceback" not in terminal.until("queued")


# Environments and sessions


def test_an_environment_is_for_a_module_that_is_started_by_hand(emu: Emulator, api: Api) -> None:
    api.open("app", RID)
    exports = run_here("env", "app", "--max-concurrent-tasks", "3", "--url", emu.url).stdout
    script = f'{exports}\ncurl -sS -o /dev/null -w "%{{http_code}}" --cacert "$DEFAULT_CA_PATH" '
    script += f'-H "{MODULE_HEADER}: $(cat "$MODULE_AUTH_TOKEN")" "$GET_JOB_URI"; echo " $MAX_CONCURRENT_TASKS"'
    polled = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert polled.stdout == "204 3\n"
    (shown,) = records(emu, "env", "app")
    assert Path(shown["MODULE_AUTH_TOKEN"]).read_text() not in str(shown)
    assert requests.get(f"{emu.url}{PLATFORM}/job", timeout=10).status_code == 401
    (docker,) = lines(emu, "env", "app", "--docker", "my-image")
    assert docker.startswith(f"docker run --rm --network host -v {emu.files.path}/container-")
    assert "--user" not in docker
    assert docker.endswith(" my-image")
    done = run_here("env", "app", "--docker", "i", "--json", "--url", emu.url)
    assert (done.returncode, done.stdout) == (2, "")
    done = run_here("env", "ap", "--url", emu.url)
    assert (done.returncode, done.stderr) == (
        5,
        "cmemu env: There is no runtime 'ap'. Did you mean 'app'? Known runtimes: 'app'.\n",
    )


def test_a_session_is_written_to_a_file_or_to_stdout(filled: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    done = run_here("export", str(path), "--url", filled.url)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"The session of {filled.url} is in {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Emulator.from_export(path).lifecycle.jobs() == sorted(filled.lifecycle.jobs(), key=lambda job: job.sequence)
    again = run_here("export", str(path), "--url", filled.url)
    assert again.returncode == 2
    assert again.stderr.startswith(f"cmemu export: {path} exists and was left as it is. --force")
    assert run_here("export", str(path), "--force", "--url", filled.url).returncode == 0
    piped = run("export", "-", "--url", filled.url, CMEMU_TOKEN=filled.token)
    assert [job["query_type"] for job in json.loads(piped.stdout)["jobs"]] == ["add", "add", "f"]
    assert piped.stderr == ""
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run.json"]


def test_an_export_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    with serving("--token", "t") as server:
        runtime = Api(server.url, "t").open()
        for _ in range(200):
            runtime.submit("f", "x" * 100_000)
        command = [*CMEMU, "export", "-", "--url", server.url, "--token", "t"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(1000)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0
        done = run("export", str(tmp_path / "no" / "run.json"), "--url", server.url, "--token", "t")
    assert done.returncode == 2
    assert "can't be written: No such file or directory. Choose another path.\n" in done.stderr
    eventually(lambda: list(tmp_path.iterdir()) == [], "nothing is left")
