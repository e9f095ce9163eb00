"""The scaling of modules: the decisions are those of the documented formula, and a launched module follows them."""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from client import RID, Api, alive, eventually

import cmemu_nb
from cmemu_nb import Scaling
from cmemu_nb.arguments import add_launch, given_configuration
from cmemu_nb.dashboard.runtimes import runtimes_part
from cmemu_nb.errors import InvalidRequest
from cmemu_nb.executors.modules import autoscaling, modules, restarts
from cmemu_nb.lifecycle.configuration import Configuration
from cmemu_nb.lifecycle.records import JobStatus
from cmemu_nb.lifecycle.scaling import Scale, Scaler

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cmemu_nb import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule

DAY = 86_400
START_SECONDS = 20
Change = tuple[int, int, int]  # at which second, from how many replicas, to how many


@dataclass
class Copy:
    """A replica of the simulated module: when it takes jobs, and when those that it has end."""

    ready_at: int
    ends: list[int] = field(default_factory=list)


class Simulation:
    """A module on a clock of whole seconds, with the jobs of a day: when each arrives, and how long it runs."""

    def __init__(self, jobs: list[tuple[int, int]], tasks: int) -> None:
        self.arriving = deque(jobs)
        self.tasks = tasks
        self.queue: deque[int] = deque()
        self.copies = [Copy(START_SECONDS)]
        self.leaving: list[Copy] = []
        self.changes: list[Change] = []

    def move_to(self, now: int) -> None:
        for copy in (*self.copies, *self.leaving):
            copy.ends = [end for end in copy.ends if end > now]
        while self.arriving and self.arriving[0][0] <= now:
            self.queue.append(self.arriving.popleft()[1])
        for copy in self.copies:
            while self.queue and now >= copy.ready_at and len(copy.ends) < self.tasks:
                copy.ends.append(now + self.queue.popleft())

    @property
    def running(self) -> int:
        return sum(len(copy.ends) for copy in self.copies)

    def starting(self, now: int) -> bool:
        return any(now < copy.ready_at for copy in self.copies)

    def change(self, now: int, number: int) -> None:
        self.changes.append((now, len(self.copies), number))
        while len(self.copies) < number:
            self.copies.append(Copy(now + START_SECONDS))
        while len(self.copies) > number:
            leaving = min(reversed(self.copies), key=lambda copy: len(copy.ends))
            self.copies.remove(leaving)
            self.leaving.append(leaving)

    def next_moment(self, now: int) -> int:
        """Return the next second at which anything happens, without the scaler."""
        moments = [copy.ready_at for copy in self.copies] + [end for copy in self.copies for end in copy.ends]
        moments += [self.arriving[0][0]] if self.arriving else []
        return min((each for each in moments if each > now), default=DAY)


def a_day(seed: int, per_hour: int) -> list[tuple[int, int]]:
    """Return the jobs of a day: many in bursts about noon and in the evening, none in the night."""
    dice = random.Random(seed)
    hours = [dice.choice((7, 8, 9, 11, 11, 12, 12, 12, 13, 15, 19, 19, 20)) for _ in range(13 * per_hour)]
    arrivals = sorted(int(3600 * (hour + dice.random() ** 2)) for hour in hours)
    return [(at, 1 + int(dice.lognormvariate(3.5, 1))) for at in arrivals]


def decided(scaling: Scaling, tasks: int, jobs: list[tuple[int, int]]) -> Simulation:
    """Let the scaler decide; it is asked when something happens, and when it has said."""
    simulation, scaler, now = Simulation(jobs, tasks), Scaler(scaling, tasks), 0
    while now < DAY:
        simulation.move_to(now)
        number = len(simulation.copies)
        decision = scaler.observe(
            now, simulation.running, len(simulation.queue), number, starting=simulation.starting(now)
        )
        if decision is None:
            now = int(min(simulation.next_moment(now), DAY if scaler.due is None else scaler.due))
        else:
            assert decision.before == number
            simulation.change(now, decision.after)
    return simulation


def documented(scaling: Scaling, tasks: int, jobs: list[tuple[int, int]]) -> Simulation:
    """Decide second by second, as the documentation says it in words."""
    simulation = Simulation(jobs, tasks)
    above = below = 0  # for how many seconds the load has been so
    for now in range(DAY):
        simulation.move_to(now)
        while True:
            count, active = len(simulation.copies), simulation.running + len(simulation.queue)
            if count == 0 and active:
                simulation.change(now, max(1, scaling.min))
                above = below = 0
                continue
            load = simulation.running / (count * tasks) if count else 0
            if count and count < scaling.max and load >= 0.75 and above >= scaling.scale_up_delay:
                simulation.change(now, count + 1)
                above = below = 0
                continue
            idle = not simulation.starting(now) and (count > 1 or not active)
            if count > scaling.min and load < 0.75 and idle and below >= scaling.scale_down_delay:
                simulation.change(now, count - 1)
                above = below = 0
                continue
            above = above + 1 if load >= 0.75 else 0
            below = below + 1 if load < 0.75 and idle else 0
            break
    return simulation


@pytest.mark.parametrize(
    ("scaling", "tasks", "per_hour"),
    [(Scaling(), 1, 60), (Scaling(1, 3), 4, 120), (Scaling(0, 2, scale_up_delay=10, scale_down_delay=300), 2, 30)],
    ids=repr,
)
def test_the_decisions_over_a_day_of_arrivals_are_those_of_the_documented_formula(
    scaling: Scaling, tasks: int, per_hour: int
) -> None:
    jobs = a_day(22, per_hour)
    simulation = decided(scaling, tasks, jobs)
    assert simulation.changes == documented(scaling, tasks, jobs).changes
    counts = {after for _, _, after in simulation.changes}
    assert {scaling.min, scaling.max} <= counts, "the day is one of rest and of bursts"
    assert all(abs(after - before) == 1 for _, before, after in simulation.changes)
    assert not simulation.queue
    assert not simulation.arriving


def test_the_last_replica_stays_while_a_job_is_active_and_others_while_one_starts() -> None:
    scaler = Scaler(Scaling(0, 4, scale_up_delay=1, scale_down_delay=10), 4)
    seen = [(scaler.observe(0, 1, 0, 1), scaler.due)]  # the load is 0.25
    seen += [(scaler.observe(50, 0, 0, 2, starting=True), scaler.due), (scaler.observe(60, 1, 0, 2), scaler.due)]
    assert seen == [(None, None), (None, None), (None, 70)]
    decision = scaler.observe(70, 1, 0, 2)
    assert decision is not None
    assert (decision.before, decision.after, decision.load) == (2, 1, 0.125)
    assert decision.why(2) == "the load was below 0.75 for 10 s (5 s at speedup 2), and is 0.12"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"min": 3, "max": 2}, "min of a module's scaling, 3, is greater than max, 2. Give a max of at least 3."),
        ({"min": -1}, "min of a module's scaling must be a whole number from 0 to 10,000, not -1."),
        ({"max": 0}, "max of a module's scaling must be a whole number from 1 to 10,000, not 0."),
        ({"max": True}, "max of a module's scaling must be a whole number from 1 to 10,000, not True."),
        ({"scale_up_load_threshold": 1.5}, "scale_up_load_threshold of a module's scaling must be from 0 to 1, not"),
        ({"scale_down_load_threshold": 0.8}, "0.8, is greater than scale_up_load_threshold, 0.75, which the platform"),
        (
            {"scale_up_delay": 3600},
            "scale_up_delay of a module's scaling, 3600, is greater than scale_down_delay, 1800",
        ),
        ({"scale_up_delay": float("nan")}, "scale_up_delay of a module's scaling must be a number of seconds, at"),
        ({"speedup": 0}, "speedup of a module's scaling must be a number greater than 0, not 0."),
        ({"speedup": "10"}, "speedup of a module's scaling must be a number greater than 0, not '10'."),
        ({"speedup": 10**400}, "speedup of a module's scaling must be a number greater than 0, not"),
        ({"most": 3}, "scaling of a module's configuration has no key 'most'."),
    ],
)
def test_a_scaling_that_is_not_valid_is_refused_however_it_is_given(
    emu: Emulator, given: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(why)):
        emu.configure("scaled", scaling=given)
    if "most" not in given:
        with pytest.raises(InvalidRequest, match=re.escape(why)):
            Scaling(**given)
    assert not emu.lifecycle.is_configured("scaled")


def test_a_scaling_excludes_what_would_contradict_it(emu: Emulator) -> None:
    for given, why in (
        ({"replicas": 2}, "both replicas=2 and a scaling"),
        ({"mode": "pipeline"}, "pipeline mode takes no jobs"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            emu.launch("python -c pass", "scaled", scaling={"max": 2}, **given)
    assert not emu.lifecycle.has_runtime("scaled")


def test_it_is_shown_by_what_differs_from_the_defaults() -> None:
    assert repr(Scaling()) == "Scaling(min=0, max=4)"
    assert repr(Scaling(1, 2, scale_down_delay=90)) == "Scaling(min=1, max=2, scale_down_delay=90)"
    assert cmemu_nb.Scaling is Scaling
    assert Scaling() == Scaling(speedup=1) != Scaling(speedup=2)


# Takes one job at a time, and answers when the file that its query names exists.
WORKER = """
import json, os, pathlib, ssl, sys, time, urllib.request
token = pathlib.Path(os.environ["MODULE_AUTH_TOKEN"]).read_text()
context = ssl.create_default_context(cafile=os.environ["DEFAULT_CA_PATH"])
def send(url, data=None):
    request = urllib.request.Request(url, data, {"Module-Auth-Token": token, "Content-Type": "application/json"})
    with urllib.request.urlopen(request, context=context) as answer:
        return answer.read()
while True:
    if polled := send(os.environ["GET_JOB_URI"]):
        job = json.loads(polled)["computeModuleJobV1"]
        while not os.path.exists(job["query"]["file"]):
            time.sleep(0.01)
        send(os.environ["POST_RESULT_URI"] + "/" + job["jobId"], b"1")
"""
FAST = Scaling(0, 3, scale_up_delay=6, scale_down_delay=30, speedup=100)


@pytest.fixture
def scaled(emu: Emulator) -> Callable[[], list[str]]:
    """Return the changes of this test, from how many to how many replicas."""
    since = emu.lifecycle.events.newest

    def changes() -> list[str]:
        new = [event for event in emu.lifecycle.events.recent() if event.sequence > since]
        return [(event.detail or "").partition(":")[0] for event in new if event.kind == "module_scaled"]

    return changes


def launch(emu: Emulator, scaling: Scaling, code: str = WORKER, runtime: str = "scaled") -> LaunchedModule:
    return emu.launch([sys.executable, "-c", code], runtime, scaling=scaling)


def shown(emu: Emulator) -> tuple[str, str, bool]:
    """Return what the dashboard shows of the only runtime: its state, its replicas, and whether it can be stopped."""
    (row,) = runtimes_part(emu, time.time_ns())["rows"]
    return row["state"], row["replicas"], row["stops"]


def exits(emu: Emulator) -> list[str]:
    return [event.detail or "" for event in emu.lifecycle.events.recent() if event.kind == "replica_exited"]


def until_zero(module: LaunchedModule) -> None:
    eventually(lambda: module.scaled_to_zero and not module.replicas, "it was scaled to 0 replicas")


def test_a_module_goes_from_nothing_to_many_replicas_and_back_without_losing_a_job(
    emu: Emulator, scaled: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emu.open_runtime("scaled", RID)
    module = launch(emu, FAST)
    until_zero(module)
    assert repr(module).endswith(": scaled to 0 replicas>")
    assert (module.ended, shown(emu)) == (False, ("scaled to 0", "0 of 0..3", True))
    assert "scaled to 0</" in module._repr_mimebundle_()["text/html"]
    file = tmp_path / "done"
    jobs = [emu.submit("f", {"file": str(file)}, RID) for _ in range(4)]
    eventually(lambda: emu.lifecycle.count("scaled")[JobStatus.RUNNING] == 3, "three replicas have a job each")
    assert module.states == ["responsive"] * 3
    assert shown(emu) == ("connected", "3 of 0..3", True)
    assert jobs[3].diagnosis.endswith(" The module has as many replicas as its scaling allows, max=3.")
    file.write_text("")
    assert [job.result(30) for job in jobs] == [1] * 4
    until_zero(module)
    assert scaled() == [
        *("from 0 to 1", "from 1 to 0"),
        *("from 0 to 1", "from 1 to 2", "from 2 to 3"),
        *("from 3 to 2", "from 2 to 1", "from 1 to 0"),
    ]
    # A reset of its runtime begins anew with one replica, as its launch does, and it still wakes for a job.
    emu.runtime("scaled").reset()
    eventually(lambda: scaled()[8:] == ["from 0 to 1", "from 1 to 0"], "it was started, and had nothing to do")
    until_zero(module)
    # One that can't be started is tried again.
    add_replica, refusals = module.add_replica, [OSError("no more processes")]

    def may_be_refused() -> None:
        if refusals:
            raise refusals.pop()
        add_replica()

    monkeypatch.setattr(autoscaling, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "add_replica", may_be_refused)
    assert emu.call("f", {"file": str(file)}, RID) == 1
    details = [event.detail or "" for event in emu.lifecycle.events.recent() if event.kind == "module_scaled"]
    assert "from 1 to 0: a replica could not be started: no more processes" in details
    module.stop()
    assert emu.lifecycle.scale_of("scaled") is None
    assert scaled()[-1].startswith("not scaled any more")
    assert emu.submit("f", {"file": str(file)}, RID).diagnosis.startswith("'f' is queued: the module 'scaled' was st")


def test_a_queued_job_says_whether_its_module_is_scaled_up(emu: Emulator, api: Api) -> None:
    emu.open_runtime("scaled", RID)
    job = api.submit()

    def info(replicas: int) -> str:
        emu.change(lambda lifecycle: lifecycle.set_scale("scaled", Scale(replicas, 0, 2), "a test"))
        queued: dict[str, str] = api.status(job)["queued"]
        return queued["queueInfo"]

    def add_replica() -> None:
        """Add a replica that has polled."""
        replica = emu.change(lambda lifecycle: lifecycle.add_replica("scaled"))
        emu.change(lambda lifecycle: lifecycle.count_poll(replica))

    def take_job(number: int) -> None:
        replica = emu.lifecycle.replicas("scaled")[number]
        emu.change(lambda lifecycle: lifecycle.take("scaled", replica=replica))

    infos = [info(0), info(1)]  # for the latter, its only replica has ended
    emu.env("scaled")
    infos += [info(1)]  # it has not polled
    assert infos == ["SCALING_UP_FROM_0", "NORMAL_OPERATION", "SCALING_UP_FROM_0"]
    add_replica()
    infos = [info(1)]
    add_replica()
    take_job(1)
    job = api.submit()
    infos += [info(2)]
    take_job(2)
    job = api.submit()
    assert [*infos, info(2), info(3)] == [
        *("NORMAL_OPERATION", "NORMAL_OPERATION"),
        *("RESOURCE_LIMITS_REACHED", "SCALING_UP"),
    ]


def test_a_program_that_crashes_when_a_job_wakes_it_is_given_up_and_says_so(
    emu: Emulator, scaled: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 0.005)
    emu.open_runtime("scaled", RID)
    broken, done = tmp_path / "broken", tmp_path / "done"
    module = launch(emu, FAST, f"import os, sys; os.path.exists({str(broken)!r}) and sys.exit(3)\n{WORKER}")
    until_zero(module)
    broken.write_text("")
    job = emu.submit("f", {"file": str(done)}, RID)
    given_up = "exited with code 3 and is not started again, after 5 restarts in 10 minutes"
    eventually(lambda: exits(emu)[-1].endswith(given_up), "it is given up")
    assert (module.ended, module.states) == (True, ["exited(3)"])
    assert job.diagnosis.startswith("'f' is queued: the module 'scaled' exited (3): it wrote nothing.")
    assert scaled() == ["from 0 to 1", "from 1 to 0", "from 0 to 1"]
    broken.unlink()
    done.write_text("")
    module.restart()
    assert job.result(30) == 1
    module.stop()


def test_the_end_of_a_runtime_and_of_the_emulator_ends_what_is_being_scaled_up(
    serve: Callable[..., AbstractContextManager[Emulator]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.01)
    with serve() as emu:
        launched = [launch(emu, Scaling(2, 3), "import time; time.sleep(600)", name) for name in ("a", "b")]
        eventually(lambda: all(each.pid for module in launched for each in module.replicas), "they have started")
        pids = [each.pid for module in launched for each in module.replicas]
        assert len(pids) == 4
        emu.runtime("a").delete()
        eventually(lambda: not launched[0].running, "the deletion has ended it")
        assert not launched[0].active
        emu.submit("f", {}, emu.lifecycle.apps_of("b")[0].deployed_app_rid)
    assert not any(alive(pid) for pid in pids if pid)
    assert not launched[1].active


def test_it_is_given_as_an_option_or_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_launch(parser)
    file = tmp_path / "module.yaml"
    file.write_text("scaling: {min: 1, max: 2, scale_up_delay: 5}")
    given = [
        Configuration().changed(given_configuration(parser.parse_args([*words])))
        for words in (("--config", str(file)), ("--config", str(file), "--scaling", "min=0,max=3, speedup=2.5"))
    ]
    assert [each.scaling for each in given] == [Scaling(1, 2, scale_up_delay=5), Scaling(0, 3, speedup=2.5)]
    for words, why in (
        ("min=4,max=3", "min of a module's scaling, 4, is greater than max, 3."),
        ("most=3", "scaling of a module's configuration has no key 'most'."),
        ("0..3", "'0..3' is not of the form min=0,max=4,speedup=60"),
        ("", "'' is not of the form min=0,max=4,speedup=60"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(["--scaling", words])
        assert why in capsys.readouterr().err
