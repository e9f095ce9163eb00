"""Why a job has no result yet, in one sentence that says what to type, the same everywhere a wait is shown.

A diagnosis reads the state and the executors at one moment, from any thread, and changes nothing.
"""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.calls.capacity import Capacity, last_awaited, thread_of
from cmemu_nb.display.names import magic_line
from cmemu_nb.display.text import ago, cut, duration, visible
from cmemu_nb.errors import JobFailed, NotFound
from cmemu_nb.lifecycle.records import NOTEBOOK, JobStatus, Mode, takes_no_jobs
from cmemu_nb.phrases import plural

if TYPE_CHECKING:
    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.executors.executors import Executors
    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.records import Job

MAX_NAME = 60
MAX_LINE = 200
MAX_FUNCTIONS = 3


class Diagnosis(msgspec.Struct, frozen=True):
    """Why a job has no result: `kind` is one of `DIAGNOSES`, for programs, `sentence` for people.

    For a finished job without a value, `explanation` says why, if more is known than its result says; else it is "".
    """

    kind: str
    sentence: str
    explanation: str = ""

    def __str__(self) -> str:
        return self.sentence


def diagnose(executors: Executors, job_id: str, *, in_shell: bool = False) -> Diagnosis:
    """Return why a job has no result yet; raises `NotFound` or `JobEvicted` for an unknown job.

    The code to type is for a cell, or with `in_shell` for a terminal, which has no variables of the notebook.
    """
    engine = executors.engine
    state = engine.lifecycle
    job = state.find_job(job_id)
    try:
        if job is None:
            kind, sentence = _cleared(state, job_id)
        elif job.finished:
            kind, sentence = "finished", f"{_quoted(job.query_type)} is done, and its result is on its way."
        elif not engine.running:
            kind, sentence = "not_running", _not_running(engine, job)
        elif job.status == JobStatus.RUNNING:
            kind, sentence = _running(executors, job, in_shell=in_shell)
        else:
            kind, sentence = _queued(executors, job, in_shell=in_shell)
    except NotFound:  # the runtime was deleted at this moment
        kind, sentence = _cleared(state, job_id)
    faults = f" Faults are on, which may be the reason; {engine.name}.faults.off() ends them." if engine.faults else ""
    explanation = state.log(job_id).explanation if kind == "finished" else ""
    return Diagnosis(kind, visible(f"{sentence}{faults}"), visible(explanation, lines=True))


def error_if_cleared(executors: Executors, job_id: str) -> JobFailed | None:
    """Return the error to raise for a job that was cleared with its session; None for a job that still exists."""
    if executors.engine.lifecycle.find_job(job_id) is not None:
        return None
    try:
        why = diagnose(executors, job_id).sentence
    except NotFound:  # the job had finished, and clearing finished jobs causes no event
        why = "Its runtime's session was reset or deleted before its result was read."
    return JobFailed(f"Job '{job_id}' does not exist any more. {why}")


def _not_running(engine: Engine, job: Job) -> str:
    if engine.read_from:
        return f"{_quoted(job.query_type)} was {job.status} when the session was exported."
    start = f"{engine.name}.start() starts it again."
    return f"{_quoted(job.query_type)} is {job.status}, and the emulator is not running. {start}"


def _cleared(state: Lifecycle, job_id: str) -> tuple[str, str]:
    for event in reversed(state.events.recent()):
        if event.job_id == job_id and event.kind == "job_cleared":
            runtime, what = _quoted(event.runtime_id or ""), (event.detail or "").removeprefix("session ")
            return "cleared", f"It was discarded when the session of {runtime} was {what}. Submit it again."
    state.job(job_id)  # raises the error that says what is known of it
    return "cleared", "It was discarded with its runtime's session. Submit it again."


# Running


def _running(executors: Executors, job: Job, *, in_shell: bool) -> tuple[str, str]:
    engine, thread, runtime = executors.engine, thread_of(executors, job), _quoted(job.runtime_id)
    state = engine.lifecycle
    sentence = f"{_quoted(job.query_type)} has been running for {duration(_age(state, job))}"
    other = last_awaited(executors, thread)
    if other is not None:
        why = diagnose(executors, other.job_id, in_shell=in_shell)
        return why.kind, f"{sentence}, and waits for a job that it has submitted. {why}"
    if thread is not None:
        sentence += f" on a worker of {runtime}"
    elif job.replica_id is not None:
        sentence += f" on replica {_quoted(job.replica_id)} of {runtime}{_lost_workers(executors, job)}"
    else:
        sentence += f" on the executor of {runtime}, which last polled {_last_poll(state, job.runtime_id)}"
    stream = state.stream(job.job_id)
    have = "has" if stream and stream.size == 1 else "have"
    arrived = f"; {plural(stream.size, 'byte')} of its result {have} arrived" if stream else ""
    return "running", f"{sentence}{arrived}; {_how_to_cancel(engine.name, [job], in_shell=in_shell)}."


def _lost_workers(executors: Executors, job: Job) -> str:
    """Return a clause about worker processes of a job's replica that have ended since it started, "" if none has."""
    process = executors.modules.process_of(job) if executors.launched else None
    lost = process.lost_workers(job.job_id) if process is not None else []
    if not lost:
        return ""
    pids = ", ".join(map(str, lost))
    noun = "worker process" if len(lost) == 1 else "worker processes"
    return (
        f", whose {noun} {pids} died meanwhile: the official SDK replaces a worker, but the job that it was running "
        "gets no result"
    )


# Queued


def _queued(executors: Executors, job: Job, *, in_shell: bool) -> tuple[str, str]:  # noqa: C901 - a line for each kind
    capacity = Capacity(executors, job.runtime_id)
    engine = capacity.engine
    runtime = _quoted(job.runtime_id)
    if capacity.runtime.polling == Mode.PIPELINE:
        kind, why = "no_executor", f", and {takes_no_jobs(job.runtime_id)}"
    elif capacity.deadlocked:
        kind, why = "deadlock", _deadlock(capacity, in_shell=in_shell)
    elif capacity.exhausted:
        kind, why = "workers_busy", _workers_busy(capacity, engine.lifecycle.queued_before(job), in_shell=in_shell)
    elif unready := _unready(capacity):
        kind, why = "replicas_starting", unready
    elif capacity.polls:
        kind, why = "queued", f", and the executor of {runtime} is free and has not taken it yet."
    elif capacity.executor is not None:
        kind, why = (
            "executor_silent",
            f", and the executor of {runtime} is free, but does not poll. {engine.name}.events may say why.",
        )
    elif capacity.polling:
        kind, why = "executor_silent", _silent_replicas(capacity)
    elif any(module.active for module in capacity.modules):
        kind, why = "replicas_starting", _starting(capacity)
    elif capacity.seats:
        kind, why = "replicas_starting", _no_seat_polls(capacity)
    elif capacity.modules:
        kind, why = "replicas_ended", _ended(capacity)
    else:
        kind, why = _without_executor(executors, capacity, job, in_shell=in_shell)
    return kind, f"{_quoted(job.query_type)} is queued{why}"


def _workers_busy(capacity: Capacity, ahead: int, *, in_shell: bool) -> str:
    engine, running = capacity.engine, capacity.running
    queued = f" and {plural(ahead, 'queued job')}" if ahead else ""
    ended = sum(each.exit_code is not None for module in capacity.modules for each in module.replicas)
    also = f" {plural(ended, 'further replica')} {'has' if ended == 1 else 'have'} exited." if ended else ""
    if capacity.executor is None and not capacity.polls:
        # A module with an official SDK polls ahead while it is busy, so the last poll says whether it still works.
        also += f" The last poll was {ago(capacity.runtime.last_poll_at, time.time_ns())}."
    also += _scaling(capacity)
    return (
        f" behind {plural(len(running), 'running job')}{queued}: {_all_workers(capacity)} busy "
        f"({_functions(engine.lifecycle, running)}); {_how_to_cancel(engine.name, running, in_shell=in_shell)}.{also}"
    )


def _scaling(capacity: Capacity) -> str:
    """Return a sentence about further replicas of a module that is scaled, with a space before it, else ""."""
    scaling = next((each.configuration.scaling for each in capacity.modules if each.configuration.scaling), None)
    if scaling is None:
        return ""
    if sum(len(module.in_service) for module in capacity.modules) >= scaling.max:
        return f" The module has as many replicas as its scaling allows, max={scaling.max}."
    seconds = scaling.scale_up_delay / scaling.speedup
    load = f"{scaling.scale_up_load_threshold:g}"
    return f" The module gets a further replica when its load was at or above {load} for {seconds:,.2g} s."


def _unready(capacity: Capacity) -> str:
    """Return the clause about replicas that get no jobs because their readiness probe fails; "" if others do."""
    reason = next((module.unready for module in capacity.modules if module.unready), "")
    if capacity.exists or not reason:
        return ""
    runtime = _quoted(capacity.runtime.runtime_id)
    return f": no replica of {runtime} is ready to get jobs, because its readiness probe fails: {reason}."


def _deadlock(capacity: Capacity, *, in_shell: bool) -> str:
    engine, running = capacity.engine, capacity.running
    more = magic_line(engine.name, f"start --max-concurrent-tasks {2 * len(running)}")
    return (
        f": {_all_workers(capacity)} taken by functions ({_functions(engine.lifecycle, running)}) that wait "
        "for queued jobs themselves, so none of them can end. Call such a function directly instead of as a job, or "
        f"start with more workers: {more}; {_how_to_cancel(engine.name, running, in_shell=in_shell)}."
    )


def _silent_replicas(capacity: Capacity) -> str:
    runtime_id = capacity.runtime.runtime_id
    modules = capacity.modules
    again = f"{modules[-1].expression}.restart() starts its module again" if modules else "Start its program again"
    return (
        f", and no replica of {_quoted(runtime_id)} polls for jobs now: the last poll was "
        f"{_last_poll(capacity.engine.lifecycle, runtime_id)}. {again}, if it hangs."
    )


def _starting(capacity: Capacity) -> str:
    runtime = _quoted(capacity.runtime.runtime_id)
    for module in capacity.modules:
        if restart := module.next_restart:
            return f", and no replica of {runtime} takes jobs: {restart}; {_last_output(module)}."
    running = [module for module in capacity.modules if module.running]
    if not running:
        return f": the module {runtime} was scaled to 0 replicas, and the first one is about to be started."
    module = running[0]
    verb, target = module.readiness
    doing = "starting" if module.configuration.scaling is None else "scaling up from 0 replicas"
    return f": the module {runtime} is {doing} and has not {verb}ed {target} yet; {_last_output(module)}."


def diagnose_startup(query_type: str, module: LaunchedModule | None) -> Diagnosis:
    """Return why a call is not submitted yet: its function may belong to a module that is still starting."""
    beginning = f"No deployed app is known to have {_quoted(query_type)} yet"
    if module is None:
        return Diagnosis("replicas_starting", f"{beginning}.")
    runtime = _quoted(module.runtime_id)
    sentence = f"{beginning}: the module {runtime} is starting and has not posted its schemas; {_last_output(module)}."
    return Diagnosis("replicas_starting", visible(sentence))


def _last_output(module: LaunchedModule) -> str:
    line = last_line(module)
    return f"the last line that it wrote is {line}" if line else "it has written nothing yet"


def _no_seat_polls(capacity: Capacity) -> str:
    states = cut(", ".join(f"{seat.number} {seat.state}" for seat in capacity.seats), MAX_LINE)[0]
    return (
        f": no replica of {_quoted(capacity.runtime.runtime_id)} on the cluster polls for jobs ({states}). "
        "client.get_worker_logs() may say why."
    )


def _ended(capacity: Capacity) -> str:
    module, runtime = capacity.modules[-1], _quoted(capacity.runtime.runtime_id)
    if not module.ended:
        return f": the module {runtime} was stopped. {module.expression}.restart() starts it again."
    line = last_line(module)
    wrote = f"its last line was {line}" if line else "it wrote nothing"
    return (
        f": the module {runtime} exited ({module.exit_code}): {wrote}. {module.expression}.logs has every line, "
        f"{module.expression}.restart() starts it again."
    )


def _without_executor(executors: Executors, capacity: Capacity, job: Job, *, in_shell: bool) -> tuple[str, str]:
    engine = capacity.engine
    runtime, name, polled_at = _quoted(job.runtime_id), _quoted(job.query_type), capacity.runtime.last_poll_at
    if job.runtime_id == NOTEBOOK or executors.functions.were_on(job.runtime_id):
        return "no_executor", f", and nothing polls {runtime}: run the cell that defines {name} again."
    if polled_at is not None and polled_at >= engine.identity.started_at:
        running = capacity.running
        behind = (
            f" behind {plural(len(running), 'running job')} ({_functions(engine.lifecycle, running)})"
            if running
            else ""
        )
        polled = _last_poll(engine.lifecycle, job.runtime_id)
        return "executor_silent", (
            f"{behind}, and nothing polls {runtime} now: the last poll was {polled}. Start its executor again if it "
            "has ended."
        )
    if polled_at is not None or engine.lifecycle.schemas(
        job.runtime_id
    ):  # polls and schemas of an earlier process, from the journal
        return "no_executor", (
            f", and nothing has polled {runtime} since the emulator was started: start its program again, or run the "
            f"cell that defines {name} again."
        )
    how = _how_to_start(engine.name, capacity, in_shell=in_shell)
    return "no_executor", f", and nothing has polled {runtime} for jobs yet. {how}"


def _how_to_start(emu: str, capacity: Capacity, *, in_shell: bool) -> str:
    runtime = _quoted(capacity.runtime.runtime_id)
    if in_shell:
        command = f"cmemu env {shlex.quote(cut(capacity.runtime.runtime_id, MAX_NAME)[0])}"
        return f"Start its program with the environment that this prints: {command}."
    if capacity.replicas:
        return f"Start its program with the environment that {emu}.env({runtime}) gave."
    return (
        f"{emu}.launch('python app.py', {runtime}) starts a program for it; @{emu}.runtime({runtime}).function above "
        "a function serves that."
    )


# Pieces of sentences


def _quoted(name: str) -> str:
    short, note = cut(name, MAX_NAME)
    return f"'{short}{'…' if note else ''}'"


def _age(state: Lifecycle, job: Job) -> int:
    now = state.steady()
    return job.run_time(now) or job.queue_time(now) or 0


def _last_poll(state: Lifecycle, runtime_id: str) -> str:
    return ago(state.runtime(runtime_id).last_poll_at, time.time_ns())


def _all_workers(capacity: Capacity) -> str:
    """Return subject and verb of a sentence about everything that takes a runtime's jobs: 'both workers of r are'."""
    counts = {"worker": capacity.executor.slots if capacity.executor else 0, "replica": len(capacity.polling)}
    few = {1: "the only {}", 2: "both {}s"}
    nouns = [few.get(count, f"all {count} {{}}s").format(noun) for noun, count in counts.items() if count]
    verb = "is" if sum(counts.values()) == 1 else "are"
    return f"{' and '.join(nouns)} of {_quoted(capacity.runtime.runtime_id)} {verb}"


def _functions(state: Lifecycle, jobs: list[Job]) -> str:
    """Return which functions run, the most frequent first, and for how long: '2 x f, longest 3 s'."""
    names = Counter(job.query_type for job in jobs).most_common()
    counts = [f"{count} x {cut(name, MAX_NAME)[0]}" for name, count in names[:MAX_FUNCTIONS]]
    if len(names) > MAX_FUNCTIONS:
        counts.append(plural(len(names) - MAX_FUNCTIONS, "other function"))
    longest = duration(max((_age(state, job) for job in jobs), default=0))
    return f"{', '.join(counts)}, {'for' if len(jobs) == 1 else 'longest'} {longest}"


def job_expression(emulator_name: str, job_id: str) -> str:
    """Return what to type to get a job's handle: `emu.job("a4c966")`."""
    return f'{emulator_name}.job("{job_id[-6:]}")'


def _how_to_cancel(emu: str, jobs: list[Job], *, in_shell: bool) -> str:
    (name, _), *_ = Counter(job.query_type for job in jobs).most_common(1) or [("all", 0)]
    name = cut(name, MAX_NAME)[0]
    command = f"cancel {shlex.quote(name)}"
    if in_shell:
        return f"cmemu {command} ends {'it' if len(jobs) == 1 else 'them'}"
    magic = magic_line(emu, command)
    if len(jobs) == 1:
        return f"{job_expression(emu, jobs[0].job_id)}.cancel() or {magic} ends it"
    return f"{emu}.cancel({json.dumps(name, ensure_ascii=False)}) or {magic} ends them"


def last_line(module: LaunchedModule) -> str:
    """Return the last line that a module wrote and that is not blank, in quotes; '' if there is none."""
    lines = [text for each in module.logs if not each.by_emulator and (text := str(each).strip())]
    return f"'{cut(lines[-1], MAX_LINE)[0]}'" if lines else ""
