"""`cmemu call`: run a function and print its result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cmemu_nb.arguments import add_call_options, add_function_and_query
from cmemu_nb.calls.interrupts import LEAVE, WAYS
from cmemu_nb.cli.cancel import cancel
from cmemu_nb.cli.discovery import add_where, find
from cmemu_nb.cli.parser import Commands, Parser, add_command, complain, does
from cmemu_nb.cli.remote import receiving
from cmemu_nb.cli.targets import submit
from cmemu_nb.cli.wait_line import RemoteWaitLine, diagnosis
from cmemu_nb.clients.contour import check_timeout
from cmemu_nb.errors import (
    CmemuError,
    FunctionError,
    InvalidRequest,
    JobFailed,
    JobTimeout,
    NotFound,
    NotRunning,
    ResultError,
)
from cmemu_nb.wire.item_reader import FirstHeld, ItemReader
from cmemu_nb.wire.json_values import read_json
from cmemu_nb.wire.results import error_for_people, function_error, item_value, split_result

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Callable

    from cmemu_nb.cli.remote import Remote

TICK_SECONDS = 0.1
# Characters that JSON strings may contain unescaped, although terminals interpret some of them.
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
# JSON allows line ends only between values.
_LINE_ENDS = re.compile(r"[\r\n]+")


def add_commands(commands: Commands, parsers: dict[str | None, Parser]) -> None:
    """Add `call`."""
    parser = parsers["call"] = add_command(
        commands,
        "call",
        "Run a function and print its result as JSON.",
        '  cmemu call add \'{"x": 1, "y": 2}\'\n'
        "  echo '{\"x\": 1}' | cmemu call add -\n"
        "  cmemu call add @query.json --timeout 10\n"
        "  cmemu call count '{}' --stream | head -3",
        "Without --app, the function is called on the only deployed app, or on the only one that serves it.",
    )
    add_function_and_query(parser, "Its input: JSON, - to read stdin, or @FILE to read a file. Default: {}.")
    parser.set_defaults(query="{}")
    parser.add_argument("--runtime", metavar="ID", help="Call this runtime directly, without a deployed app.")
    add_call_options(parser)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--stream", action="store_true", help="Print each item of the result on a line, as it arrives.")
    kinds.add_argument("--raw", action="store_true", help="Write the bytes of the result unchanged.")
    parser.add_argument(
        "--interrupt",
        choices=WAYS,
        default=WAYS[0],
        help="What Ctrl-C does: 'cancel' the job (the default), or 'leave' it queued or running.",
    )
    add_where(parser)
    does(parser, _call)


def _call(parser: Parser, options: argparse.Namespace) -> int:
    if options.runtime and (options.app or options.branch):
        parser.error("--runtime calls a runtime directly, so it excludes --app and --branch")
    check_timeout(options.timeout)
    asyncio.run(_run(options, _read_query(options.query)))
    return 0


def _read_query(given: str) -> bytes:
    """Return a query as JSON text."""
    try:
        if given == "-":
            text = sys.stdin.buffer.read()
        else:
            text = Path(given[1:]).read_bytes() if given.startswith("@") else given.encode()
        read_json(text, parse_constant=_reject)
    except OSError as error:
        raise InvalidRequest(f"The query can't be read from {given[1:]}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The query is not JSON: {error}. Quote it for the shell: '{{\"x\": 1}}'.") from None
    return text


def _reject(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")


async def _run(options: argparse.Namespace, query: bytes) -> None:
    async with await find(options) as remote:
        ticking = asyncio.create_task(_tick())
        submission = asyncio.create_task(submit(remote, options, query))
        try:
            await _wait(remote, await asyncio.shield(submission), options)
        except asyncio.CancelledError:
            await _interrupted(remote, submission, options.interrupt)
            raise
        finally:
            ticking.cancel()


async def _wait(remote: Remote, job_id: str, options: argparse.Namespace) -> None:
    async with (
        explained(remote, job_id, options.timeout),
        RemoteWaitLine(remote, job_id, progress=not options.no_progress) as line,
    ):
        await _print(remote, job_id, line, options)


@contextlib.asynccontextmanager
async def explained(remote: Remote, job_id: str, seconds: float) -> AsyncIterator[None]:
    """Raise the errors of a wait for a job with what the emulator knows of their reason."""
    try:
        yield
    except TimeoutError:
        raise await _timed_out(remote, job_id, seconds) from None
    except FunctionError as error:
        raise await _explained(remote, job_id) or error from None
    except (NotFound, JobFailed) as error:
        raise await _cleared(remote, job_id) or error from None


async def _print(remote: Remote, job_id: str, line: RemoteWaitLine, options: argparse.Namespace) -> None:
    async with asyncio.timeout(options.timeout):
        if options.stream:
            await Items(line.clear).print(remote, job_id)
            return
        result = await remote.contour.result(job_id, None)
        streamed = await remote.contour.streamed(job_id)
    line.clear()
    if options.raw:
        sys.stdout.buffer.write(result)
    else:
        print(_safe(result_as_json(result, streamed=streamed)))


async def _timed_out(remote: Remote, job_id: str, seconds: float) -> JobTimeout:
    why = await diagnosis(remote, job_id)
    reason = f"{why} " if why else ""
    return JobTimeout(
        f"Job '{job_id}' was not done within {seconds:g} s. {reason}'cmemu jobs' shows its state, 'cmemu runtimes' "
        "which runtimes poll."
    )


async def _explained(remote: Remote, job_id: str) -> FunctionError | None:
    """Return the error for a job of which the emulator knows more than the posted error says; None for any other."""
    why = await diagnosis(remote, job_id)
    return FunctionError(why.explanation) if why and why.explanation else None


async def _cleared(remote: Remote, job_id: str) -> JobFailed | None:
    """Return the error for a job that was deleted by a reset; None for any other job."""
    why = await diagnosis(remote, job_id)
    return JobFailed(f"Job '{job_id}' no longer exists. {why}") if why and why.kind == "cleared" else None


async def _interrupted(remote: Remote, submission: asyncio.Task[str], way: str) -> None:
    """Cancel the job of an interrupted call, or leave it running. A second Ctrl-C ends the command at once."""
    with contextlib.suppress(CmemuError):  # the submission failed, so there is no job
        job_id = await submission  # a request that was sent can't be withdrawn
        if way == LEAVE:
            complain(f"Job '{job_id}' continues; 'cmemu jobs' shows its state.")
        elif await cancel(remote, job_id, "Ctrl-C in 'cmemu call'"):
            complain(f"Job '{job_id}' was cancelled.")


async def _tick() -> None:
    """Wake the event loop regularly: a signal that arrives just before the loop starts to wait does not wake it."""
    while True:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(TICK_SECONDS)


def result_as_json(result: bytes, *, streamed: bool) -> str:
    """Return a value as JSON: a stream as an array of its items, also if there is only one or none."""
    error = function_error(result)
    if error is not None:
        raise FunctionError(error_for_people(error))
    try:
        values = split_result(result, streaming=streamed)
    except ResultError as wrong:
        raise _for_the_shell(wrong) from None
    if len(values) == 1 and not streamed:  # the text as it was posted: Python's numbers are less exact than JSON's
        return values[0][1]
    items = ", ".join(_in_one_line(*each) for each in values)
    return f"[{items}]" if values or streamed else "null"


def _in_one_line(value: object, text: str) -> str:
    """Return a value as JSON on one line; its original text where Python can't write its numbers."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return _LINE_ENDS.sub(" ", text)


def _safe(text: str) -> str:
    """Return the same JSON with escapes for the characters that a terminal would interpret."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _for_the_shell(error: ResultError) -> ResultError:
    return ResultError(str(error).replace("job.raw() gives its bytes", "--raw gives its bytes"))


class Items:
    """Prints the items of a result as they arrive; calls `before()` each time before it prints."""

    def __init__(self, before: Callable[[], object]) -> None:
        self._before = before
        self._reader = ItemReader(streaming=False, plain_text=True)
        self._first = FirstHeld()

    async def print(self, remote: Remote, job_id: str) -> None:
        """Print all items. Raises `FunctionError` if the only item is the error object of a function that raised."""
        try:
            with receiving(lambda piece: self._print(self._reader.split(piece))) as take:
                await remote.contour.stream(job_id, take)
            self._print(self._reader.split_end())
        except ResultError as error:
            raise _for_the_shell(error) from None
        except NotRunning as error:
            raise JobFailed(f"The result is incomplete: {error}") from None
        posted = self._first.error()
        if posted is not None:
            raise FunctionError(error_for_people(posted))

    def _print(self, items: list[bytes]) -> None:
        self._before()
        for text in self._first.add(items):
            print(_safe(_in_one_line(item_value(text), text.decode())), flush=True)
