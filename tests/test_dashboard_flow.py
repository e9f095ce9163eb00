"""The flow at the top of the dashboard: counts, rates, slots and what holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cells import make
from client import eventually

from cmemu_nb.dashboard.activity import Activity, figures
from cmemu_nb.dashboard.flow import flow_part
from cmemu_nb.lifecycle.records import NS_PER_S

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from cmemu_nb import Emulator
    from cmemu_nb.lifecycle.session import Replica

pytestmark = pytest.mark.once

WAIT = "def wait(context, event):\n    gate.wait()"
NOW = 10**9 * NS_PER_S


def flow(emulator: Emulator, activity: Activity | None = None) -> Any:
    return flow_part(emulator, figures([activity or Activity()], NOW, 0), NOW)


def slots(emulator: Emulator) -> Any:
    return flow(emulator)["slots"]


def test_the_slots_of_cells_turn_full_and_name_the_function_that_holds_most(
    serve_functions: Callable[..., Any], gate: threading.Event
) -> None:
    with serve_functions(max_concurrent_tasks=3) as emulator:
        assert slots(emulator) == {"number": None, "holder": "", "why": ""}
        emulator.function(make(WAIT, gate=gate))
        emulator.function(make(WAIT.replace("wait(c", "other(c"), gate=gate))
        jobs = [emulator.submit("wait"), emulator.submit("wait")]
        eventually(lambda: flow(emulator)["counts"]["running"] == 2, "two jobs run")
        assert slots(emulator) == {"number": 3, "holder": "", "why": ""}
        jobs.append(emulator.submit("other"))
        eventually(lambda: slots(emulator)["holder"], "all slots are taken")
        why = "All slots of notebook are taken: wait holds 2 and other holds 1."
        assert slots(emulator) == {"number": 3, "holder": "wait", "why": why}
        gate.set()
        assert [job.result() for job in jobs] == [None] * 3
        eventually(lambda: not slots(emulator)["holder"], "the slots are free")


def test_the_slots_of_replicas_count_too_and_one_full_runtime_is_named_while_its_jobs_wait(
    serve: Callable[..., Any],
) -> None:
    with serve() as emulator:
        lifecycle = emulator.lifecycle

        def replica(runtime_id: str, tasks: int) -> Replica:
            found: Replica = lifecycle.add_replica(runtime_id, tasks)
            lifecycle.count_poll(found)
            return found

        def change() -> None:
            for name in ("full", "free", "unlimited"):
                lifecycle.open_session(name)
            lifecycle.add_replica("free", 8)  # it has not polled yet
            replicas = {"full": replica("full", 2), "free": replica("free", 4)}
            for name, function in (("full", "f"), ("full", "f"), ("free", "g")):
                lifecycle.submit(name, function, b"{}")
                lifecycle.take(name, replica=replicas[name])

        emulator.change(lambda _: change())
        assert slots(emulator) == {"number": 6, "holder": "", "why": ""}
        emulator.change(lambda _: lifecycle.submit("full", "g", b"{}"))
        assert slots(emulator) == {"number": 6, "holder": "f", "why": "All slots of full are taken: f holds 2."}
        # A job that runs where no limit is known.
        emulator.change(lambda _: (lifecycle.submit("unlimited", "h", b"{}"), lifecycle.take("unlimited")))
        assert slots(emulator)["number"] is None
        emulator.change(lambda _: lifecycle.delete_session("full"))
        assert slots(emulator)["holder"] == ""


def test_rates_are_by_the_second_or_else_by_the_minute(serve: Callable[..., Any]) -> None:
    activity, submitted = Activity(), 0
    with serve() as emulator:
        for jobs, shown in {0: "0/min", 3: "3/min", 59: "59/min", 60: "1.0/s", 630: "10/s", 90_000: "1,500/s"}.items():
            for _ in range(jobs - submitted):
                activity.add_submitted(NOW)
            submitted = jobs
            assert flow(emulator, activity)["rates"] == {"submitted": shown, "started": "0/min", "finished": "0/min"}


def test_a_queue_that_nothing_takes_says_why(serve: Callable[..., Any], gate: threading.Event) -> None:
    with serve(max_concurrent_tasks=1) as emulator:
        emulator.function(make(WAIT, gate=gate))
        emulator.submit("wait")
        emulator.submit("wait")
        emulator.open_runtime("lonely")
        assert flow(emulator)["jam"] == ""
        emulator.change(lambda lifecycle: lifecycle.submit("lonely", "f", b"{}"))
        eventually(lambda: flow(emulator)["jam"] == "no executor", "the job waits for longer than a moment")
        [replica] = [emulator.change(lambda lifecycle: lifecycle.add_replica("lonely"))]
        emulator.change(lambda lifecycle: (lifecycle.count_poll(replica), lifecycle.take("lonely", replica=replica)))
        assert flow(emulator)["jam"] == ""
        gate.set()
