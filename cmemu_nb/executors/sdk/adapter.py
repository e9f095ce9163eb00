"""The adapter to the official SDK: its own code reads a function, calls it and encodes its result.

Only this package, `executors/sdk`, depends on the internals of `foundry-compute-modules`. A function that the SDK would
refuse is refused when it is defined; so is one that the SDK accepts but that could never work.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_type_hints

import compute_modules
from compute_modules import startup
from compute_modules.client.internal_query_client import (
    POST_ERROR_MAX_ATTEMPTS,
    POST_RESULT_MAX_ATTEMPTS,
    InternalQueryService,
)
from compute_modules.function_registry import function_registry
from compute_modules.function_registry.function import Function
from compute_modules.function_registry.function_schema_parser import (
    CONTEXT_KEY,
    RESERVED_KEYS,
    RETURN_KEY,
    _extract_data_type,
    _extract_inputs,
    is_required_field,
    parse_function_schema,
)
from compute_modules.logging.internal import get_internal_logger

from cmemu_nb.errors import FunctionRefused
from cmemu_nb.eventloop.ending import Ending
from cmemu_nb.executors.modules.logs import REPORTED_BY_RESULT
from cmemu_nb.executors.sdk.defaults import defaults_of
from cmemu_nb.executors.sdk.encoding import Items, explain_problem, unencodable, warn_of_stream
from cmemu_nb.executors.sdk.log_lines import write_json, write_text
from cmemu_nb.executors.sdk.types import (
    RESULT,
    describe_error,
    event_problem,
    event_warnings,
    find_fix,
    refusal,
    result_problem,
    result_warnings,
)
from cmemu_nb.wire.api_names import RULE, advice, name_in_api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import CodeType, ModuleType, TracebackType

    from compute_modules.function_registry.types import PythonClassNode

    Post = Callable[[bytes | Iterable[bytes]], None]
    Serve = Callable[[Callable[..., Any], bool, Sequence[Any]], object]


@dataclass(frozen=True)
class Definition:
    """A function with everything that the SDK derives from it; `schema` is what is posted."""

    name: str
    function: Callable[..., Any]
    streaming: bool
    schema: dict[str, Any]
    class_node: Any
    context_typed: bool
    warnings: tuple[str, ...] = ()

    @cached_property
    def payload(self) -> bytes:
        """The schema as the JSON text that is posted."""
        return json.dumps(self.schema).encode()

    @cached_property
    def full_schema(self) -> dict[str, Any]:
        """The schema; each struct of the inputs also lists the fields that it needs, as `required`."""
        nodes = self.class_node["children"] if self.class_node else {}
        inputs = [
            {**each, "dataType": full_type(each["dataType"], nodes[each["name"]])} for each in self.schema["inputs"]
        ]
        return {**self.schema, "inputs": inputs}

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The defaults of the inputs that have one, as JSON values by name."""
        return defaults_of(self.class_node["constructor"], self.schema) if self.class_node else {}

    @property
    def signature(self) -> str:
        """The function's parameters and result in Python's syntax."""
        return str(inspect.signature(self.function)).replace("__main__.", "")


def full_type(kind: dict[str, Any], node: PythonClassNode) -> dict[str, Any]:
    """Return a type whose structs also list, as `required`, the fields that the SDK's conversion needs.

    The SDK converts nothing inside an optional type, so nothing is required there.
    """
    name, children = kind["type"], node["children"]
    if not children or name == "optionalType":
        return kind
    inside = dict(kind[name])
    if name == "anonymousCustomType":
        fields: dict[str, Any] = inside["fields"]
        inside["required"] = [
            each
            for each, field in fields.items()
            if field["type"] != "optionalType" and is_required_field(node["constructor"], each)
        ]
        inside["fields"] = {each: full_type(field, children[each]) for each, field in fields.items()}
    for inner, child in (("elementsType", name), ("valuesType", "value")):
        if inner in inside:
            inside[inner] = full_type(inside[inner], children[child])
    return {**kind, name: inside}


def define(function: Any, *, streaming: bool = False, edits: Sequence[Any] = ()) -> Definition:
    """Read a function as the SDK's `@function` does.

    Raises `FunctionRefused` with what to do and the reason: the SDK's own, or what would break at each call.
    """
    if isinstance(function, Function):
        function, edits = function.function, edits or function.edits
    name = _name(function)
    _check_kind(name, function, streaming=streaming)
    event = _event_parameter(name, function)
    try:
        parsed = parse_function_schema(function, name, list(edits), api_name_type_id_mapping={})
        hints = get_type_hints(function, globalns={})
    except Exception as error:  # noqa: BLE001 - the SDK raises errors of many types
        raise _refused(name, *_refusal(function, error)) from None
    _check_hints(name, hints, event, streaming=streaming)
    schema: dict[str, Any] = dict(parsed.function_schema)
    warnings = (
        *event_warnings(hints.get(event), event),
        *(result_warnings(hints["return"]) if "return" in hints else ()),
        *_name_warnings(name),
    )
    return Definition(name, function, streaming, schema, parsed.class_node, parsed.is_context_typed, warnings)


def is_accepted(function: Any, edits: Sequence[Any] = ()) -> bool:
    """Return whether the SDK itself accepts a function, even one that could never work."""
    try:
        parse_function_schema(function, function.__name__, list(edits), api_name_type_id_mapping={})
    except Exception:  # noqa: BLE001 - the SDK raises errors of many types
        return False
    return True


def _name_warnings(name: str) -> Iterator[str]:
    if name_in_api(name) is None:
        yield f"no API name can be made from its name, since {RULE}. {advice(name)}"


def _refusal(function: Callable[..., Any], error: Exception) -> tuple[str, str]:
    """Return why the SDK refuses a function, and what to do: about the first of its type hints that is refused."""
    for name, hint in inspect.get_annotations(function).items():
        if name == CONTEXT_KEY:
            continue
        path = RESULT if name == RETURN_KEY else name
        if (problem := _refuses(hint, event=path is not RESULT)) is not None:
            return refusal(hint, path, problem, _refuses)
    return f"the official SDK refuses it ({describe_error(error)})", find_fix(error)


def _refuses(hint: Any, *, event: bool = False) -> Exception | None:
    """Return the SDK's error for a type hint that it refuses, None for a hint that it accepts."""

    def f() -> None: ...

    f.__annotations__ = {"hint": hint}
    try:
        read = get_type_hints(f, globalns={})["hint"]
        _extract_inputs({"event": read}) if event else _extract_data_type(read)
    except Exception as error:  # noqa: BLE001 - the SDK raises errors of many types
        return error
    return None


def _name(function: object) -> str:
    name = getattr(function, "__name__", None)
    if not callable(function) or not isinstance(name, str) or not name.isidentifier():
        raise _refused(repr(function), "it has no name to call it by", "Define it with def.")
    return name


def _check_kind(name: str, function: Callable[..., Any], *, streaming: bool) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _refused(
            name,
            "the SDK would call it and never await it, so every job would end as an error",
            "Define it with def; inside, asyncio.run(...) runs what is async.",
        )
    if inspect.isgeneratorfunction(function) and not streaming:
        raise _refused(
            name,
            "it is a generator, which only a streaming function can be",
            "Give its decorator streaming=True, or return a list.",
        )


def _event_parameter(name: str, function: Callable[..., Any]) -> str:
    """Return the name of the parameter that receives the event."""
    try:
        bound = inspect.signature(function).bind("context", "event")
    except (TypeError, ValueError) as error:
        raise _refused(
            name, f"the SDK calls it with a context and an event, and that fails ({error})", _SHAPE
        ) from None
    places = [key for key, value in bound.arguments.items() if value == "event"]
    return places[0] if places else ""


_SHAPE = "Define it as def name(context, event): ..."


def _check_hints(name: str, hints: dict[str, Any], event: str, *, streaming: bool) -> None:
    annotated = next((key for key in hints if key not in RESERVED_KEYS), None)
    if annotated is not None and annotated != event:
        raise _refused(
            name,
            f"the SDK takes the first annotated parameter that isn't called 'context' as the event, here "
            f"{annotated!r}, and gives the event to {event!r}",
            "Call the first parameter 'context', and annotate no others than the event.",
        )
    if annotated is not None and (problem := event_problem(hints[annotated], annotated)):
        raise _refused(name, *problem)
    if "return" in hints and (problem := result_problem(hints["return"], streaming=streaming)):
        raise _refused(name, *problem)


def _refused(name: str, reason: str, fix: str) -> FunctionRefused:
    return FunctionRefused(f"{name} can't be served: {reason}. {fix}")


# The part of the context that comes from the configuration of the module.
CONFIGURED = ("sources", "source_configs", "CLIENT_ID", "CLIENT_SECRET")


class _SdkLog:
    """The SDK's own log without the errors that the result reports too: a job's log is for its function's output."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def error(self, message: str) -> None:
        if not message.startswith(REPORTED_BY_RESULT):
            self._log.error(message)


class _Service(InternalQueryService):
    """The SDK's own job handler; it posts results through the given function."""

    def __init__(
        self,
        definition: Definition | None,
        post: Post,
        explain: Callable[[str], object],
        ending: Ending,
        configured: dict[str, Any] | None,
    ) -> None:
        # The SDK's own __init__ is not called, since it reads a container's environment. Its handler uses these only.
        functions = [definition] if definition is not None else []
        self.registered_functions = {each.name: functools.partial(ending.call, each.function) for each in functions}
        self.function_schema_conversions = {
            each.name: each.class_node for each in functions if each.class_node is not None
        }
        self.is_function_context_typed = {each.name: each.context_typed for each in functions}
        self.streaming = {each.name: each.streaming for each in functions}
        self.logger: Any = _SdkLog(get_internal_logger())
        self._post = post
        self._explain = explain
        self._ending = ending
        self._configured = configured

    def get_result(self, query_type: str, query: dict[str, Any], query_context: dict[str, Any]) -> Any:
        if self._configured is not None:
            others = {name: value for name, value in query_context.items() if name not in CONFIGURED}
            query_context = others | self._configured
        return super().get_result(query_type, query, query_context)

    def get_failed_query(self, exception: Exception) -> dict[str, str]:  # type: ignore[override]
        for code in (Ending.call.__code__, _Service.get_result.__code__):
            _drop_frames(code, exception.__traceback__)
        posted = InternalQueryService.get_failed_query(exception)
        if (problem := _problem_of_result(exception)) is not None:
            self._explain(explain_problem(problem, posted["exception"]))
        return posted

    def _iterable_to_json_generator(self, iterable: Iterable[Any]) -> Iterator[bytes]:
        if warning := warn_of_stream(iterable):
            print(warning, file=sys.stderr)  # noqa: T201 - this goes to the job's log
        items = Items(self._ending.items(iterable))
        try:
            yield from super()._iterable_to_json_generator(items)
        except (TypeError, ValueError, RecursionError):
            if (problem := items.problem) is None:  # the function itself raised the error
                raise
            raise TypeError(problem) from None

    def report_job_result(self, job_id: str, body: Any) -> None:  # noqa: ARG002 - the signature is the SDK's
        self._post(body)


def _drop_frames(code: CodeType, trace: TracebackType | None) -> None:
    """Drop a function's frames from a traceback, so that the posted text equals the SDK's exactly."""
    while trace is not None:
        while trace.tb_next is not None and trace.tb_next.tb_frame.f_code is code:
            trace.tb_next = trace.tb_next.tb_next
        trace = trace.tb_next


def _problem_of_result(error: Exception) -> str | None:
    """Describe what could not be encoded if the SDK raised this error when it encoded a result; else return None.

    The result is read from the SDK's frame: a wrapper that catches it on its way there would add a line to every
    traceback that is posted.
    """
    trace = error.__traceback__
    if trace is None or trace.tb_next is None or trace.tb_next.tb_frame.f_code is not json.dumps.__code__:
        return None
    return unencodable(trace.tb_frame.f_locals.get("result"))


def handle_job(
    definition: Definition | None,
    envelope: dict[str, Any],
    post: Post,
    explain: Callable[[str], object],
    ending: Ending,
    configured: dict[str, Any] | None = None,
) -> None:
    """Run one job as the SDK does and pass its result to `post`, in the calling thread.

    The result is bytes, or an iterable of bytes for a streaming function, which runs while it is iterated. The result
    of a function that raises is an error object. A `definition` of None stands for an unknown function. When a result
    can't be encoded, `explain` is called first with what is wrong in it, because the SDK's error object does not say
    so. `configured` is the part of the context that comes from the module's configuration; None leaves it to the SDK,
    which reads the environment. Raises `JobEnded` when `ending` has ended the function; `ending.begin()` must have been
    called before.
    """
    service = _Service(definition, post, explain, ending, configured)
    service._set_logger_process_id(threading.get_ident())  # noqa: SLF001 - the SDK's own worker threads do the same
    service.handle_job(envelope)


def posts(result: bytes) -> Iterator[bytes]:
    """Yield the bodies that the SDK posts until one is accepted: the result several times, then an error instead."""
    yield from [result] * POST_RESULT_MAX_ATTEMPTS
    error = {"error": f"Unable to post job result after {POST_RESULT_MAX_ATTEMPTS} attempts"}
    yield from [json.dumps(error).encode()] * POST_ERROR_MAX_ATTEMPTS


def take_over(serve: Serve) -> Callable[[], None]:
    """Have the SDK's `@function` call `serve(function, streaming, edits)`, and keep the SDK's poller off.

    `import compute_modules.annotations` makes the SDK poll for ever when the interpreter ends, which would hang the
    kernel. After this call an `app.py` can be pasted into a cell, or run with `%run`, unchanged, and its loggers write
    text. Returns the function that undoes it.
    """
    original, started = function_registry.add_function, startup.DISABLE_STARTUP
    startup.DISABLE_STARTUP = True
    write_text()

    def add_function(
        function_ref: Callable[..., Any], *, streaming: bool = False, edits: list[Any] | None = None
    ) -> None:
        serve(function_ref, streaming, edits or ())

    def undo() -> None:
        write_json()
        startup.DISABLE_STARTUP = started
        _replace(add_function, original)

    _replace(original, add_function)
    return undo


def _replace(old: Callable[..., None], new: Callable[..., None]) -> None:
    for module in _modules():
        if getattr(module, "add_function", None) is old:
            vars(module)["add_function"] = new


def _modules() -> list[ModuleType]:
    """Return the modules that hold the SDK's `add_function`. Importing `annotations` here would start the poller."""
    names = ("compute_modules.annotations", "__main__")  # the latter holds it if a cell has imported it before
    return [function_registry, compute_modules, *(sys.modules[each] for each in names if each in sys.modules)]
