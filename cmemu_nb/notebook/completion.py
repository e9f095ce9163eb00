"""Tab completion of `%cmemu`: commands, options, runtime ids, function names, job ids, apps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from cmemu_nb.display.names import running_emulators
from cmemu_nb.lifecycle.records import JobStatus
from cmemu_nb.notebook import topics
from cmemu_nb.notebook.commands import COMMANDS, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_COMPLETIONS = 200


def make_matcher() -> Callable[[CompletionContext], SimpleMatcherResult]:
    """Return the matcher for IPython's completer."""

    @context_matcher(identifier="cmemu", priority=60)  # type: ignore[untyped-decorator]
    def cmemu(context: CompletionContext) -> SimpleMatcherResult:
        before = context.line_with_cursor[: context.cursor_position]
        arguments = before.lstrip().split()
        if not arguments or arguments[0] != "%cmemu" or before.endswith("%cmemu"):
            return SimpleMatcherResult(completions=[])
        typed = "" if before.endswith(" ") else arguments.pop()
        names = sorted(name for name in _candidates(arguments[1:]) if name.startswith(typed))[:MAX_COMPLETIONS]
        completions = [SimpleCompletion(name) for name in names]
        return SimpleMatcherResult(completions=completions, matched_fragment=typed, suppress=True)

    return cmemu  # type: ignore[no-any-return]


def _candidates(arguments: list[str]) -> Iterable[str]:
    if not arguments:
        return COMMANDS
    command = arguments[0]
    if command not in COMMANDS:
        return []
    if command == "help":
        return [*COMMANDS, *topics.names()]
    return [*options_of(command), *_names_for(command, arguments[-1])]


def _names_for(command: str, last: str) -> Iterable[str]:
    for emulator in running_emulators():
        state = emulator.lifecycle
        if last == "--status":
            yield from JobStatus
        elif last == "--app":
            yield from {app.deployed_app_rid for app in state.deployed_apps()}
        elif last == "--runtime" or command == "reset":
            yield from (runtime.runtime_id for runtime in state.runtimes())
        elif last == "--function" or command in ("submit", "call"):
            yield from {schema.function_name for schema in state.schemas()}
        elif command == "logs":
            yield from (job.job_id for job in state.newest_jobs(MAX_COMPLETIONS))
        elif command == "fail":
            yield from state.unfinished()
        elif command == "cancel":
            yield from ("all", *state.unfinished(), *{job.query_type for job in state.jobs() if not job.finished})
