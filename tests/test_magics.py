"""`%cmemu` in a real IPython shell."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from client import free_port
from IPython.core.completer import provisionalcompleter
from shells import plain_shell
from traitlets import CaselessStrEnum, Float, Int

from cmemu_nb import Emulator
from cmemu_nb.notebook.commands import COMMANDS, describe, parser_of
from cmemu_nb.notebook.topics import names as topic_names
from cmemu_nb.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell

Run = Callable[[str], tuple[Any, str]]
RID = "ri.foundry.main.deployed-app.my-app"


@pytest.fixture(scope="module")
def only_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    with plain_shell(tmp_path_factory.mktemp("ipython")) as shell:
        yield shell


@pytest.fixture
def shell(only_shell: InteractiveShell) -> Iterator[InteractiveShell]:
    only_shell.run_line_magic("load_ext", "cmemu_nb")
    yield only_shell
    only_shell.run_line_magic("unload_ext", "cmemu_nb")
    only_shell.reset(new_session=False)


@pytest.fixture
def run(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a cell; returns its value and all that it printed or showed."""

    def run_cell(code: str) -> tuple[Any, str]:
        capsys.readouterr()
        done = shell.run_cell(code)
        captured = capsys.readouterr()
        return done.result, captured.out + captured.err

    return run_cell


@pytest.fixture
def emu(run: Run, shell: InteractiveShell) -> Emulator:
    run("%cmemu start --port 0")
    emulator: Emulator = shell.user_ns["emu"]
    return emulator


def test_start_shows_the_url_and_how_to_get_the_token_but_not_the_token(run: Run, emu: Emulator) -> None:
    _, said = run("%cmemu start")
    assert emu.url in said
    assert "emu.token" in said
    assert emu.token not in said


def test_start_prints_what_listening_for_other_machines_exposes(run: Run, shell: InteractiveShell) -> None:
    _, said = run("%cmemu start --port 0 --host 0.0.0.0 --allow-remote --hide-tokens")
    emulator = shell.user_ns["emu"]
    assert f"Warning: The emulator listens on 0.0.0.0 port {emulator.port}, which other machines can reach." in said
    assert emulator.token not in said
    assert emulator.settings.hide_tokens


def test_a_journal_is_shown_and_stop_says_how_to_go_on_with_it(run: Run, shell: Any, tmp_path: Path) -> None:
    path = tmp_path / "my journal.db"
    assert str(path) in run(f"%cmemu start --port 0 --journal {str(path)!r}")[1]
    run("emu.open_runtime('r')")
    url, said = shell.user_ns["emu"].url, run("%cmemu stop")[1]
    line = next(line for line in said.splitlines() if line.startswith("%cmemu start --journal"))
    run("del emu")
    assert url in run(line.removesuffix(" does so in another kernel, too."))[1]
    assert list(run("emu.runtimes")[0].index) == ["r"]


def test_export_writes_the_session_and_says_how_to_read_it(run: Run, emu: Emulator, tmp_path: Path) -> None:
    emu.open_runtime("r")
    path = tmp_path / "run.json"
    _, said = run(f"%cmemu export {path}")
    assert f"Emulator.from_export({str(path)!r}) reads it." in said
    assert list(run(f"from cmemu_nb import Emulator\nEmulator.from_export({str(path)!r}).runtimes")[0].index) == ["r"]
    assert "exists and was left as it is. --force" in run(f"%cmemu export {path}")[1]
    assert "UsageError" not in run(f"%cmemu export {path} --force")[1]


def test_a_token_that_ends_a_cell_is_not_saved_and_print_shows_it(run: Run, emu: Emulator) -> None:
    value, said = run("emu.token")
    assert value == emu.token
    assert said.strip().endswith(f"'…{emu.token[-4:]}'")
    assert run("print(emu.token)")[1].strip() == emu.token


def test_starting_again_gives_the_same_emulator_and_names_what_it_ignores(run: Run, emu: Emulator, shell: Any) -> None:
    _, said = run("%cmemu start --port 1 --execute-timeout 5 --job-timeout 9")
    assert shell.user_ns["emu"] is emu
    assert "The emulator is already running; only a start can set its port, execute_timeout and job_timeout. " in said
    assert "then run this again." in said
    assert "Its token, jobs and functions stay." in said


def test_stopping_and_starting_by_any_way_gives_the_same_emulator(run: Run, emu: Emulator, shell: Any) -> None:
    run("@emu.function\ndef double(context, event):\n    return 2 * event['x']")
    run("emu.call('double', {'x': 1})")
    url, token = emu.url, emu.token
    assert "%cmemu start starts it again with these records." in run("%cmemu stop")[1]
    assert url in run("emu.start()\n%cmemu status")[1]
    emu.stop()
    assert "No emulator is running as 'emu'. Type: %cmemu start." in run("%cmemu status")[1]
    assert "The emulator was started again with its token, jobs and functions." in run("%cmemu start")[1]
    assert (shell.user_ns["emu"], emu.url, emu.token) == (emu, url, token)
    assert run("emu.call('double', {'x': 4})")[0] == 8
    assert len(emu.jobs) == 2
    port = free_port()
    assert "Type %cmemu stop, then run this again" in run(f"%cmemu start --port {port}")[1]
    run("%cmemu stop")
    run(f"%cmemu start --port {port} --keep-jobs 9")
    assert (shell.user_ns["emu"], emu.port, emu.settings.keep_jobs) == (emu, port, 9)
    run("%config CMEmu.execute_timeout = 7\n%cmemu stop\n%cmemu start")
    assert (emu.port, emu.settings.execute_timeout) == (port, 7)


@pytest.mark.parametrize("without", ["del emu", "emu = None", "%reset -f"])
def test_an_emulator_keeps_its_name_when_its_variable_is_gone(run: Run, shell: Any, without: str) -> None:
    run("from cmemu_nb import Emulator\nemu = Emulator(port=0, home='thread').start()")
    emulator = shell.user_ns["emu"]
    run(without)
    assert emulator.url in run("%cmemu status")[1]
    run("%cmemu start")
    assert shell.user_ns["emu"] is emulator
    run(without)
    assert run("%cmemu stop")[1] == f"The emulator at {emulator.url} is stopped.\n"
    run("%cmemu start --port 0")
    assert shell.user_ns["emu"] is not emulator


def test_a_variable_that_holds_something_else_meanwhile_is_not_overwritten(run: Run, emu: Emulator) -> None:
    run("emu = 5")
    said = run("%cmemu start")[1]
    assert f"the variable 'emu' holds something else (int). The emulator of that name is running at {emu.url}." in said
    assert "Type: del emu, then run this again, or choose another variable with --name." in said
    assert run("emu")[0] == 5
    assert emu.url in run("del emu\n%cmemu start")[1]


def test_of_emulators_that_take_turns_in_a_variable_none_is_left_without_a_name(run: Run, shell: Any) -> None:
    start = "emu = Emulator(port=0, home='thread').start()"
    run(f"from cmemu_nb import Emulator\n{start}")
    first = shell.user_ns["emu"]
    said = run(start)[1]
    second = shell.user_ns["emu"]
    assert f"The emulator at {first.url} was stopped, because the variable 'emu' holds another one now." in said
    assert (first.running, second.running) == (False, True)
    run("kept = emu")
    third = run(f"{start}\nemu")[0]
    assert (second.running, third.running) == (True, True)
    said = run("emu = kept")[1]
    name = f"emu_{third.port}"
    assert f"{third.url} is now called {name!r}, because the variable 'emu' holds another one now." in said
    assert third.running
    assert third.url in run(f"%cmemu stop --name {name}")[1]
    assert not third.running
    with Emulator(port=0, home="thread") as other:
        shell.push({"emu": other})
        other.stop()
        assert second.url in run("%cmemu status")[1]


def test_unloading_stops_what_the_magics_started_and_what_no_variable_holds(
    run: Run, emu: Emulator, shell: Any
) -> None:
    start = "Emulator(port=0, home='thread').start()"
    run(f"from cmemu_nb import Emulator\nmine = {start}\nlost = {start}\nread = 5")
    mine, lost = shell.user_ns["mine"], shell.user_ns["lost"]
    run("del lost")
    shell.run_line_magic("unload_ext", "cmemu_nb")
    try:
        assert (emu.running, mine.running, lost.running) == (False, True, False)
        assert (shell.user_ns.get("emu"), shell.user_ns["mine"]) == (None, mine)
    finally:
        mine.stop()
        shell.run_line_magic("load_ext", "cmemu_nb")


def test_a_journal_of_its_own_records_makes_another_emulator(
    run: Run, emu: Emulator, shell: Any, tmp_path: Path
) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    with Emulator(port=0, home="thread", journal=str(old)) as other:
        other.open_runtime("of-old")
    run("emu.open_runtime('r')")
    said = run(f"%cmemu start --journal {new}")[1]
    assert "The emulator is already running; only a start can set its journal." in said
    assert "Its token, jobs and functions stay." in said
    assert "That starts a different emulator" in run(f"%cmemu start --journal {old}")[1]
    run("%cmemu stop")
    run(f"%cmemu start --journal {new}")
    assert (shell.user_ns["emu"], list(emu.runtimes.index)) == (emu, ["r"])
    run("%cmemu stop")
    assert "This is a different emulator" in run(f"%cmemu start --journal {old}")[1]
    assert list(shell.user_ns["emu"].runtimes.index) == ["of-old"]


def test_another_name_is_another_emulator(run: Run, emu: Emulator, shell: Any) -> None:
    run("%cmemu start --name other --port 0 --thread")
    other = shell.user_ns["other"]
    assert other is not emu
    assert run("%cmemu url --name other")[1].strip() == other.url
    run("%cmemu stop --name other")
    assert (other.running, emu.running) == (False, True)


def test_a_variable_that_holds_something_else_is_not_overwritten(run: Run) -> None:
    _, said = run("emu = 5\n%cmemu start --port 0")
    assert "UsageError" in said
    assert "--name" in said
    assert run("emu")[0] == 5


def test_config_lists_the_settings_and_start_uses_them(run: Run, shell: InteractiveShell) -> None:
    _, said = run("%config CMEmu")
    assert "CMEmu.execute_timeout=<Float>" in said
    run("%config CMEmu.execute_timeout = 7\n%config CMEmu.port = 0\n%cmemu start")
    assert shell.user_ns["emu"].settings.execute_timeout == 7


def test_every_view_is_a_frame(run: Run, emu: Emulator) -> None:
    for command in ("runtimes", "jobs", "schemas", "apps", "events"):
        assert list(run(f"%cmemu {command}")[0].columns) == list(
            getattr(emu, "deployed_apps" if command == "apps" else command).columns
        )
    for command in ("datasets", "streams"):
        assert list(run(f"%cmemu {command}")[0].columns) == list(getattr(emu, command).overview.columns)


def test_an_empty_view_says_what_to_type(run: Run, emu: Emulator) -> None:
    emu.reset()
    for command in ("runtimes", "jobs", "apps", "datasets", "streams"):
        assert "emu." in run(f"%cmemu {command}")[1]


def test_the_charts_are_there_with_and_without_jobs(run: Run, emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    assert "No jobs yet" in run("%cmemu timeline")[1]
    for _ in range(3):
        emu.submit("f")
    assert "3 jobs" in run("%cmemu timeline")[1]
    assert "2 of 3 jobs" in run("%cmemu timeline --limit 2")[1]
    assert "No job has finished yet" in run("%cmemu latency")[1]


def test_all_events_are_those_with_the_empty_polls(run: Run, emu: Emulator) -> None:
    emu.open_runtime("r")
    emu.change(lambda state: state.take("r"))
    assert "poll_empty" not in set(run("%cmemu events")[0]["kind"])
    assert "poll_empty" in set(run("%cmemu events --all")[0]["kind"])
    assert set(emu.event_frame(all=True)["kind"]) >= {"session_opened", "poll_empty"}
    _, said = run("%cmemu events --quiet")
    assert "unrecognized arguments: --quiet. Type: %cmemu help events" in said


def test_jobs_are_filtered(run: Run, emu: Emulator) -> None:
    assert run("%cmemu jobs")[1].startswith("No jobs yet. Type: job = emu.submit(")
    for name in ("a", "b"):
        emu.open_runtime(name, f"ri.{name}")
        for function in ("f", "g"):
            emu.submit(function, deployed_app_rid=f"ri.{name}")
    emu.change(lambda state: state.take("a"))
    assert len(run("%cmemu jobs")[0]) == 4
    assert list(run("%cmemu jobs --status running")[0].runtime_id) == ["a"]
    assert list(run("%cmemu jobs --runtime b --function g")[0].query_type) == ["g"]
    assert len(run("%cmemu jobs --limit 3")[0]) == 3
    assert run("%cmemu jobs --status failed")[1].startswith("None of the 4 jobs matches.\n")


@pytest.mark.parametrize(
    ("typed", "query"),
    [
        ('{"x":1}', {"x": 1}),
        ('{"x": 1, "y": "a  b\'c"}', {"x": 1, "y": "a  b'c"}),
        ("'{\"x\": 1}'", {"x": 1}),
        ("[1, [2]]", [1, [2]]),
        ("5", 5),
        ("payload", {"from": "a variable"}),
        ("", {}),
    ],
)
def test_a_query_is_json_or_a_variable(run: Run, emu: Emulator, typed: str, query: Any) -> None:
    emu.open_runtime("r", RID)
    run("payload = {'from': 'a variable'}")
    job, _ = run(f"%cmemu submit f {typed} --branch master")
    assert json.loads(job.record.query) == query
    assert job.record.deployed_app_branch == "master"


def test_call_gives_the_value(run: Run, emu: Emulator) -> None:
    emu.open_runtime("r", RID)

    def answer(event: Any) -> None:
        if event.kind == "job_queued":
            job = emu.lifecycle.take("r")
            assert job is not None
            emu.lifecycle.finish("r", job.job_id, job.query)

    end = emu.on_event(answer)
    assert run('%cmemu call echo {"a": [1, 2]} --timeout 20')[0] == {"a": [1, 2]}
    end()


def test_fail_ends_a_job_with_the_reason(run: Run, emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    job = emu.submit("f")
    _, said = run(f"%cmemu fail {job.id} it takes too long")
    assert "failed" in said
    assert job.record.error_message == "it takes too long"


def test_faults_are_set_shown_and_ended(run: Run, emu: Emulator) -> None:
    assert "No faults are on. Try: emu.faults(error_rate=0.2)" in run("%cmemu faults")[1]
    emu.open_runtime("r", RID)
    faults, said = run("%cmemu faults --runtime r --function f --delay 0.1:0.5 --error-rate 0.25 --seed 7")
    assert "<Faults on: delay=0.1 to 0.5 s, error_rate=0.25 on runtime 'r', function 'f', seed=7; struck:" in said
    assert (faults.chances, faults.seed) == ({"error_rate": 0.25}, 7)
    run("%cmemu faults --delay 2 --drop-result 1")
    shown, said = run("%cmemu faults")
    assert shown is emu.faults
    assert said.count("<Faults on") == 2
    html = shown._repr_mimebundle_()["text/html"]
    assert all(word in html for word in ("drop_result", "every runtime", "0.1 to 0.5 s"))
    assert "No faults are on" in run("%cmemu faults --off")[1]
    assert (faults.on, len(emu.faults)) == (False, 0)


def test_reset_of_one_runtime_keeps_its_binding(run: Run, emu: Emulator) -> None:
    emu.open_runtime("r", RID)
    emu.open_runtime("s")
    emu.submit("f")
    run("%cmemu reset r")
    assert [len(emu.lifecycle.jobs()), len(emu.lifecycle.deployed_apps()), len(emu.lifecycle.runtimes())] == [0, 1, 2]
    run("%cmemu reset")
    assert emu.lifecycle.runtimes() == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nope", "Its commands: start, stop,"),
        ("start --prt 5", "unrecognized arguments: --prt 5"),
        ("start --port x", "invalid int value: 'x'"),
        ("start --name 1x", "can't be a variable's name"),
        ("start --name class", "can't be a variable's name"),
        ("events --limit -1", "-1 is less than 1"),
        ("jobs --status nope", "choose from"),
        ("jobs 'open", "Close the quotes"),
        ("call f {x: 1}", "JSON needs double quotes"),
        ("call f nothing", "neither JSON nor the name of a variable"),
        ("call", "the following arguments are required: function"),
        ("call f", "emu.open_runtime("),
        ("fail nope", "There is no job 'nope'"),
        ("reset nope", "There are no runtimes yet"),
        ("help nope", "choose from"),
        (
            "dashboard",
            "The dashboard is a widget, and this is not a notebook. 'cmemu ui' in a terminal opens it in a browser.",
        ),
        ("timeline --limit 0", "0 is less than 1"),
        ("faults --delay soon", "'soon' is neither a number of seconds nor LOW:HIGH"),
        ("faults --delay 2:1", "delay must be seconds, from 0 to 86400, (low, high)"),
        ("faults --error-rate 2", "error_rate must be a chance from 0, never, to 1, always, not 2.0"),
        ("faults --error-rate nan", "error_rate must be a chance from 0, never, to 1, always, not nan"),
        ("faults --error-rate often", "invalid float value: 'often'"),
        ("faults --seed 1", "no fault was given. The faults are delay, error_rate, drop_result,"),
        ("faults --runtime nope --delay 1", "There are no runtimes yet"),
        ("faults --off --delay 1", "--off ends all faults; omit delay"),
        ("faults --eror-rate 1", "unrecognized arguments: --eror-rate"),
        ("url --name nope", "%cmemu start --name nope. Running: emu"),
    ],
)
def test_mistakes_are_usage_errors_that_say_what_is_valid(run: Run, emu: Emulator, line: str, said: str) -> None:
    emu.reset()
    printed = run(f"%cmemu {line}")[1]
    assert "UsageError" in printed
    assert said in printed
    assert "Traceback" not in printed


def test_without_an_emulator_every_command_says_how_to_start_one(run: Run) -> None:
    for command in sorted(set(COMMANDS) - {"start", "help"}):
        takes_one = (
            "cancel",
            "fail",
            "logs",
            "submit",
            "call",
            "export",
            "export-module",
            "launch",
            "env",
            "configure",
        )
        needed = dict.fromkeys(takes_one, " x").get(command, "")
        assert "Type: %cmemu start" in run(f"%cmemu {command}{needed}")[1]


def test_help_describes_every_command_and_shows_the_documents(run: Run, shell: InteractiveShell) -> None:
    _, said = run("%cmemu help")
    assert all(f"%cmemu {command}" in said for command in COMMANDS)
    assert run("%cmemu")[1] == said
    assert "--timeout" in run("%cmemu help call")[1]
    assert said.splitlines()[2].strip() in shell.object_inspect_text("%cmemu")
    assert "parity" in topic_names()
    for topic in topic_names():
        assert "Markdown" in run(f"%cmemu help {topic}")[1]


def test_help_names_the_default_of_every_option_that_has_one() -> None:
    options = [action for command in COMMANDS for action in parser_of(command)._actions]  # noqa: SLF001
    given = [each for each in options if each.default not in (None, False, argparse.SUPPRESS, [])]
    assert [each.dest for each in given if str(each.default) not in (each.help or "")] == []
    said = describe("start")
    for name, trait in Settings.class_traits(config=True).items():
        if isinstance(trait, Int | Float | CaselessStrEnum) and trait.default_value is not None:
            shown = f"{trait.default_value:g}" if isinstance(trait, Float) else trait.default_value
            assert re.search(rf"--{name.replace('_', '-')} [^-]*?Default:\s+{shown}\.", said), name
    assert re.search(r"--no-progress\n[^-]*Default: on\.", said)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("%cmemu st", {"start", "stop", "status", "streams"}),
        ("%cmemu jobs --st", {"--status"}),
        ("%cmemu jobs --status s", {"succeeded"}),
        ("%cmemu jobs --runtime my", {"my-runtime"}),
        ("%cmemu reset my", {"my-runtime"}),
        ("%cmemu call ad", {"add"}),
        ("%cmemu call add --app ri.", {RID}),
        ("%cmemu fail foundry", {"<job>"}),
        ("%cmemu help par", {"parity"}),
        ("%cmemu faults --d", {"--delay", "--drop-result", "--duplicate-dispatch", "--disconnect"}),
        ("%cmemu faults --runtime my", {"my-runtime"}),
        ("%cmemu faults --function a", {"add"}),
    ],
)
def test_tab_completion(shell: InteractiveShell, emu: Emulator, typed: str, expected: set[str]) -> None:
    emu.open_runtime("my-runtime", RID)
    emu.change(lambda state: state.post_schemas("my-runtime", [("add", b"{}")]))
    job = emu.submit("add")
    with provisionalcompleter():
        found = list(shell.Completer.completions(typed, len(typed)))
    assert {typed[: each.start] for each in found} == {typed[: typed.rindex(" ") + 1]}
    assert {each.text for each in found} == {job.id if name == "<job>" else name for name in expected}


def test_hostile_names_are_escaped_in_every_view(run: Run, emu: Emulator) -> None:
    hostile = "<script>alert(1)</script>"
    emu.open_runtime(hostile, hostile, hostile, hostile)
    emu.change(lambda state: state.post_schemas(hostile, [(hostile, b"{}")]))
    job = emu.submit(hostile, hostile, hostile, hostile)
    shown = [run(f"%cmemu {command}")[0]._repr_html_() for command in ("runtimes", "jobs", "schemas", "apps", "events")]
    shown += [each._repr_mimebundle_()["text/html"] for each in (emu, job, emu.runtime(hostile))]
    assert all("<script" not in html for html in shown)
    assert sum("&lt;script" in html for html in shown) >= 7


def test_handles_never_show_a_whole_token(run: Run, emu: Emulator) -> None:
    runtime = emu.open_runtime("r", RID)
    shown = [run("%cmemu runtimes")[0].to_html(), run("%cmemu events")[0].to_html()]
    shown += [str(each._repr_mimebundle_()) for each in (emu, runtime)]
    for secret in (runtime.token, emu.token):
        assert all(secret not in text for text in shown)
    assert any(runtime.token[-4:] in text for text in shown)
