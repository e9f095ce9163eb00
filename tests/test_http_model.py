"""The whole HTTP API under many clients at once, against what must hold whatever the order they come in.

Which client comes first is chance, so what is checked is not one outcome: the emulator's events must tell one
history that is right (`truth.py`), every answer must fit it (`operations.py`), and whoever can be answered must be.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from acts import MOST_HELD, Acts
from client import CONTOUR, RESULT, eventually
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from operations import NAMES, Clients, module, path_of
from truth import Truth

from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from operations import Operation

    from cmemu_nb import Emulator

pytestmark = pytest.mark.once

LONG = "CMEMU_LONG" in os.environ
MOST_AT_ONCE = 24
ANOTHER = "another"
MORE_THAN_BUFFERS_HOLD = 8_000_000
BUSY_SECONDS = 0.02
SETTINGS = settings(
    max_examples=150 if LONG else 8,
    stateful_step_count=20,
    phases=[Phase.explicit, Phase.generate],  # another order of the threads would not fail the same way
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# What is done with a runtime, of which there are three, and a number that says which job, app or replica.
SUBMITTING = ["submit"] * 3 + ["submit_direct"] * 3 + ["hold_execute", "come_to_execute"]
RUNNING = ["poll"] * 6 + ["hold_poll", "hold_poll_platform", "leave"] * 2 + ["come_to_poll"]
POSTING = ["post", "post_chunked"] * 2 + ["post_platform", "post_again", "post_to_another", "post_schemas"]
STREAMING = ["begin_stream"] * 2 + ["go_on_streaming"] * 2 + ["end_stream", "break_stream"]
ASKING = ["status", "result", "look", "hold_status", "hold_result", "hold_stream"]
OTHER = ["fail", "cancel", "fail_queued", "delete_schema", "add_replica"]
CALM = [*SUBMITTING, *RUNNING, *POSTING, *STREAMING, *ASKING, *OTHER]
WILD = [*CALM, *["open"] * 3, "delete", "reset_all", *["restart", "fail", "cancel"] * 2]


def choices(kinds: list[str]) -> st.SearchStrategy[list[tuple[str, str, int]]]:
    one = st.tuples(st.sampled_from(kinds), st.sampled_from(NAMES), st.integers(0, 99))
    return st.lists(one, min_size=12, max_size=MOST_AT_ONCE)


class ApiMachine(RuleBasedStateMachine):
    """Draws who does what. No choice depends on what came of those before, so that every run makes the same."""

    def __init__(self, clients: Clients) -> None:
        super().__init__()
        self.clients = clients
        self.emulator = clients.emulator
        self.truth = Truth(self.emulator)
        self.acts = Acts(clients, self.truth)
        self.can = self.acts.can
        self.steps = 0
        self.all_at_once([self.can.open(name, index) for index, name in enumerate(NAMES)])

    def all_at_once(self, started: list[Operation], *, in_one_moment: bool = False) -> None:
        """Let clients act at once; `in_one_moment` keeps the emulator busy, so that it hears of all together."""
        if in_one_moment:
            self.emulator.home.loop.call_soon_threadsafe(time.sleep, BUSY_SECONDS)
        for future in [self.clients.pool.submit(next, each, None) for each in started]:
            future.result()
        for each in started:
            next(each, None)

    # Many clients at once

    @rule(drawn=choices(CALM), in_one_moment=st.booleans())
    def storm(self, drawn: list[tuple[str, str, int]], in_one_moment: bool) -> None:  # noqa: FBT001
        self.all_at_once([self.acts.begin(*each) for each in drawn], in_one_moment=in_one_moment)

    @rule(drawn=choices(WILD), in_one_moment=st.booleans())
    def storm_with_resets(self, drawn: list[tuple[str, str, int]], in_one_moment: bool) -> None:  # noqa: FBT001
        self.all_at_once([self.acts.begin(*each) for each in drawn], in_one_moment=in_one_moment)

    @rule(name=st.sampled_from(NAMES), submitters=st.integers(1, 8), workers=st.integers(1, 4))
    def crowd(self, name: str, submitters: int, workers: int) -> None:
        """Let some submit and execute while others run the jobs, until all are done."""
        self.all_at_once([self.can.open(name, 0)] if name not in self.truth.tokens else [])
        calls = [self.can.submit_direct(name, index) for index in range(submitters)]
        calls += [self.can.execute(0, *self.can.ticket()) for _ in range(4)]
        first = len(self.truth.jobs)
        started = [self.clients.pool.submit(next, each, None) for each in calls]

        def done() -> bool:
            jobs = list(self.truth.jobs.values())[first:]
            return all(each.done() for each in started) and all(job.ended for job in jobs if job.runtime == name)

        serving = {name, *(app.runtime_id for app in self.emulator.lifecycle.deployed_apps())}
        self.all_at_once([self.can.work(each, done) for each in serving for _ in range(workers)])
        for each in calls:
            next(each, None)

    @precondition(lambda machine: machine.steps % 8 == 5)
    @rule(larges=st.integers(1, 2), abruptly=st.booleans())
    def leave_in_the_middle_of_a_job(self, larges: int, abruptly: bool) -> None:  # noqa: FBT001
        """Take jobs that are too large to arrive at once, and go: the next in line gets them, the oldest first."""
        self.all_at_once([self.can.open(ANOTHER, 2)])
        self.all_at_once([self.can.submit_direct(ANOTHER, 1, "x" * MORE_THAN_BUFFERS_HOLD) for _ in range(larges)])
        self.all_at_once([self.can.submit_direct(ANOTHER, 1) for _ in range(3)])
        for _ in range(larges):
            self.acts.come_to_poll(ANOTHER)
        eventually(lambda: len(self.truth.of(ANOTHER, "running")) == larges, "the large jobs are on their way")
        self.all_at_once([self.acts.leave_last(abruptly=abruptly) for _ in range(larges)])
        eventually(lambda: len(self.truth.queue(ANOTHER)) == larges + 3, "the jobs are given back")
        self.all_at_once([self.can.poll(ANOTHER, 1) for _ in range(larges + 3)])
        self.all_at_once([self.can.delete(ANOTHER, 0)])

    # What holds whenever all is quiet

    @invariant()
    def nothing_went_wrong(self) -> None:
        self.steps += 1
        assert self.truth.wrong == []

    @invariant()
    def who_can_be_answered_is(self) -> None:
        held = self.acts.held
        eventually(lambda: all(each.future.done() or not each.due() for each in held), "all that are due are answered")
        for each in [each for each in held if each.future.done()]:
            held.remove(each)
            each.future.result()
            next(each.operation, None)

    @invariant()
    def what_is_shown_is_what_happened(self) -> None:
        name = NAMES[self.steps % len(NAMES)]
        eventually(lambda: self.listed(name) == self.expected(name), f"the jobs of {name} are those that are there")
        shown = self.clients.send("GET", path_of(name), headers=self.can.bearer)
        assert shown.status_code == (200 if name in self.truth.tokens else 404)
        if shown.status_code == 200:
            marks = {schema["schema_payload"]["session"] for schema in shown.json()["schemas"]}
            assert marks <= {self.truth.tokens[name]}

    def listed(self, name: str) -> list[tuple[str, str]] | None:
        answer = self.clients.send("GET", f"{path_of(name)}/jobs", params={"limit": "10000"}, headers=self.can.bearer)
        return [(job["job_id"], job["status"]) for job in answer.json()["jobs"]] if answer.status_code == 200 else None

    def expected(self, name: str) -> list[tuple[str, str]] | None:
        return [(job.job_id, job.status) for job in self.truth.of(name)] if name in self.truth.tokens else None

    @invariant()
    def an_old_token_opens_nothing(self) -> None:
        old = sorted(each for each in self.can.tokens if self.can.stale(*each))
        if old:
            name, token = old[self.steps % len(old)]
            refused = [
                self.clients.send("GET", f"{path_of(name)}/job", headers=module(token)),
                self.clients.send("POST", f"{path_of(name)}/schemas", headers=module(token), json={}),
                self.clients.send("GET", f"{path_of(name)}/jobs", headers=module(token)),
            ]
            assert {each.status_code for each in refused} == {401 if name in self.truth.tokens else 404}
            assert self.clients.send("GET", f"{PLATFORM}/job", headers=module(token)).status_code == 401

    @invariant()
    def a_job_of_an_old_session_is_nowhere(self) -> None:
        gone = [job for job in self.truth.jobs.values() if job.gone]
        if gone:
            job = gone[self.steps % len(gone)]
            assert job.ended
            unknown = [
                self.clients.send("GET", f"{CONTOUR}/jobs/{job.job_id}/status", headers=self.can.bearer),
                self.clients.send("GET", f"{CONTOUR}/jobs/{job.job_id}/result", headers=self.can.bearer),
                self.clients.send("PUT", RESULT, json={"id": job.job_id}, headers=self.can.bearer),
                self.clients.send("GET", f"{path_of(job.runtime)}/jobs/{job.job_id}"),
            ]
            assert [each.status_code for each in unknown] == [404] * 4

    def teardown(self) -> None:
        for wire in (*self.acts.leaving, *(stream.wire for stream in self.acts.streams)):
            wire.close()
        self.all_at_once([self.can.reset_all()])
        eventually(lambda: all(each.future.done() for each in self.acts.held), "all are answered")
        self.who_can_be_answered_is()
        self.truth.stop()
        assert self.truth.wrong == []
        assert [job for job in self.truth.jobs.values() if not job.ended] == []
        unheard = set(self.truth.by_ticket) - self.can.told
        assert unheard <= self.acts.may_be_unheard


def test_many_clients_at_once(serve: Callable[..., AbstractContextManager[Emulator]]) -> None:
    with serve(refusal_seconds=0.0, execute_timeout=600.0) as emulator:
        clients = Clients(emulator, MOST_AT_ONCE + MOST_HELD)
        try:
            run_state_machine_as_test(lambda: ApiMachine(clients), settings=SETTINGS)  # type: ignore[arg-type]
        finally:
            clients.close()
