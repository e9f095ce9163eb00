"""The OpenAPI document of a server module, read as the platform's "Integrate a server" reads an image's label.

The documentation demands [foundry]: version 3.0.0 or higher, a single server `http://localhost:PORT`, an `operationId`
on each operation, only GET, PUT, POST and DELETE, the `schema` field on all parameters and none in cookies, no `anyOf`,
`oneOf`, `allOf` or several types, and a single response code, of the media type application/json. Its own example has
neither `info` nor descriptions of responses, which OpenAPI requires, so both may be missing here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from openapi_pydantic.v3.v3_1 import OpenAPI, PathItem
from openapi_pydantic.v3.v3_1 import Operation as DocumentedOperation
from openapi_pydantic.v3.v3_1 import Parameter as DocumentedParameter
from pydantic import ValidationError

from cmemu_nb.errors import FunctionRefused, InvalidRequest
from cmemu_nb.executors.servers.operations import BODY, JSON_TYPE, PLACEHOLDER, Input, Operation, is_parameter_type
from cmemu_nb.executors.servers.platform_types import References, Unfit, platform_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from openapi_pydantic.v3.v3_1 import MediaType

MAX_BYTES = 10_000_000
MAX_PROBLEMS = 5
METHODS = ("get", "put", "post", "delete")
OTHER_METHODS = ("head", "patch", "options", "trace")
SERVER_URL = re.compile(r"http://localhost:([0-9]{1,5})/?")
MODEL_VERSION = "3.1.1"
"""The version whose model is used for every document: it knows all that is needed of 3.0 and 3.2, too."""
IGNORED_HEADERS = ("accept", "authorization", "content-type")
"""Parameters that OpenAPI says to ignore."""
SEPARATORS = {"simple": ",", "form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}


@dataclass(frozen=True)
class Document:
    """The port and the operations of a document, by function."""

    port: int
    operations: Mapping[str, Operation]


def read_document(path: Path) -> Document:
    """Read a document in JSON or YAML.

    Raises `InvalidRequest` for a file that can't be read, `FunctionRefused` for a document that the platform's
    documentation excludes; its message names the operations, and the places in them.
    """
    given = _load(path)
    problems = [] if isinstance(given, dict) else ["it is not a JSON object"]
    try:
        model = None if problems else _model(given, problems)
    except RecursionError:
        model, problems = None, ["it is nested too deeply"]
    if model is None:
        raise _refused(path, problems)
    port = _port(model, problems)
    operations: dict[str, Operation] = {}
    for place, result in _operations(model):
        if isinstance(result, Unfit):
            problems.append(f"{place}: {result}")
        elif result.function in operations:
            other = operations[result.function]
            problems.append(f"{place}: {other.method} {other.path} has the same operationId {result.function!r}")
        else:
            operations[result.function] = result
    if problems or not operations:
        raise _refused(path, problems or ["it has no operations"])
    return Document(port, operations)


def _refused(path: Path, problems: list[str]) -> FunctionRefused:
    shown = problems[:MAX_PROBLEMS]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"and {len(problems) - MAX_PROBLEMS} more")
    lines = "".join(f"\n- {each}" for each in shown)
    return FunctionRefused(f"{path} can't be the OpenAPI document of a server module:{lines}")


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(
            f"The OpenAPI document {path} can't be read: {error.strerror}. Give the path of a JSON or YAML file."
        ) from None
    if len(content) > MAX_BYTES:
        raise InvalidRequest(f"The OpenAPI document {path} has more than {MAX_BYTES:,} bytes. Give a smaller one.")
    try:
        text = content.decode("utf-8-sig")
        return json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InvalidRequest(f"The OpenAPI document {path} is neither JSON nor YAML: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return " ".join(str(error).split()) if mark is None else f"{getattr(error, 'problem', '')} (line {mark.line + 1})"


def _model(given: dict[str, Any], problems: list[str]) -> OpenAPI | None:
    version = given.get("openapi")
    if not (isinstance(version, str) and re.fullmatch(r"3\.\d+(\.\d+)?", version)):
        said = f'its "openapi" is {version!r}' if version is not None else 'it has no "openapi"'
        problems.append(f"{said}: version 3.0.0 or higher is needed")
        return None
    try:
        return OpenAPI.model_validate(_completed(given))
    except ValidationError as error:
        found = [(list(map(str, each["loc"])), each["msg"]) for each in error.errors(include_url=False)]
        # Each object might be a reference instead. The other errors are those of what it is.
        others = [(place, said) for place, said in found if "Reference" not in place]
        problems += [f"{'.'.join(place)}: {said}" for place, said in others or found]
        return None


def _completed(given: dict[str, Any]) -> dict[str, Any]:
    """Return a document with what OpenAPI requires and the platform does not, in the form that the model reads."""
    info = given.get("info") or {}
    completed_info = {"title": "", "version": "", **info} if isinstance(info, dict) else info
    with_info = {**given, "openapi": MODEL_VERSION, "info": completed_info}
    completed: dict[str, Any] = _described(with_info)
    return completed


def _described(value: Any, *, responses: bool = False) -> Any:
    """Return a JSON value with texts as keys, which YAML's `200:` is not, and with a description in each response."""
    if isinstance(value, list):
        return [_described(each) for each in value]
    if not isinstance(value, dict):
        return value
    described = {str(key): _described(each, responses=key == "responses") for key, each in value.items()}
    for each in described.values() if responses else ():
        if isinstance(each, dict) and "$ref" not in each:
            each.setdefault("description", "")
    return described


def _port(model: OpenAPI, problems: list[str]) -> int:
    urls = [each.url for each in model.servers]
    found = SERVER_URL.fullmatch(urls[0]) if len(urls) == 1 else None
    if found is None:
        has = f"has {', '.join(map(repr, urls))}" if urls != ["/"] else "has none"
        problems.append(
            f'"servers" {has}: the platform needs a single one, such as "servers": [{{"url": "http://localhost:8000"}}]'
        )
        return 0
    return int(found[1])


def _operations(model: OpenAPI) -> Iterator[tuple[str, Operation | Unfit]]:
    references = References(model)
    for path, item in (model.paths or {}).items():
        if item.ref is not None:
            yield path, Unfit("it is a $ref: put its operations into the document")
        for method in (*METHODS, *OTHER_METHODS):
            documented = getattr(item, method)
            if documented is not None:
                named = f" ({documented.operationId})" if documented.operationId else ""
                place = f"{method.upper()} {path}{named}"
                try:
                    yield place, _Reader(references).operation(method, path, item, documented)
                except Unfit as problem:
                    yield place, problem


def _all_of(*read: Callable[[], Any]) -> list[Any]:
    """Return what each function returns; the `Unfit` of several are raised as one."""
    found, problems = [], []
    for each in read:
        try:
            found.append(each())
        except Unfit as problem:
            problems.append(str(problem))
    if problems:
        raise Unfit("; ".join(problems))
    return found


class _Reader:
    """Reads one operation. Its methods raise `Unfit`."""

    def __init__(self, references: References) -> None:
        self._references = references

    def operation(self, method: str, path: str, item: PathItem, documented: DocumentedOperation) -> Operation:
        """Return the operation as a function."""
        if method not in METHODS:
            raise Unfit("the platform calls only GET, PUT, POST and DELETE: leave this operation out")
        if not (documented.operationId or "").strip():
            raise Unfit("it has no operationId, which is the name of the function: add one")
        if not path.startswith("/"):
            raise Unfit("its path does not begin with /")
        parameters, body, output = _all_of(
            lambda: self._parameters(path, item, documented),
            lambda: self._body(documented),
            lambda: self._output(documented),
        )
        names = [each.name for each in (*parameters, *body)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise Unfit(f"two of its inputs are called {twice!r}: rename one of them")
        return Operation(str(documented.operationId), method.upper(), path, (*parameters, *body), output)

    def _parameters(self, path: str, item: PathItem, documented: DocumentedOperation) -> list[Input]:
        """Return the parameters of the operation and of its path; those of the operation take precedence."""
        listed = [self._references.resolve(each) for each in (*(item.parameters or ()), *(documented.parameters or ()))]
        unique = {(each.name, each.param_in): each for each in listed}.values()
        inputs = [
            self._parameter(each)
            for each in unique
            if not (each.param_in == "header" and each.name.lower() in IGNORED_HEADERS)
        ]
        in_path = {each.name for each in inputs if each.location == "path"}
        for name in PLACEHOLDER.findall(path):
            if name not in in_path:
                raise Unfit(f"its path has {{{name}}}, but it has no parameter {name!r} in the path")
        return inputs

    def _parameter(self, parameter: DocumentedParameter) -> Input:
        name, location = parameter.name, parameter.param_in.value
        if location == "cookie":
            raise Unfit(f"its parameter {name!r} is a cookie, which the platform excludes")
        if parameter.param_schema is None:
            raise Unfit(f"its parameter {name!r} has no schema: add one")
        data_type = platform_type(parameter.param_schema, f"the parameter {name!r}", self._references)
        if not is_parameter_type(data_type):
            raise Unfit(f"its parameter {name!r} is not a single value or a list of them: pass it in the body")
        style = parameter.style or ("form" if location == "query" else "simple")
        if style not in SEPARATORS:
            raise Unfit(f"its parameter {name!r} has the style {style!r}: use one of {', '.join(SEPARATORS)}")
        explode = parameter.explode if parameter.explode is not None else style == "form"
        separator = None if location == "query" and explode else SEPARATORS[style]
        return Input(name, location, parameter.required or location == "path", data_type, separator)

    def _body(self, documented: DocumentedOperation) -> list[Input]:
        if documented.requestBody is None:
            return []
        body = self._references.resolve(documented.requestBody)
        return [Input(BODY, BODY, required=body.required, data_type=self._json_type(body.content, "its body"))]

    def _output(self, documented: DocumentedOperation) -> dict[str, Any]:
        responses = documented.responses or {}
        if len(responses) != 1:
            codes = f" ({', '.join(responses)})" if responses else ""
            raise Unfit(f"it has {len(responses)} responses{codes}, but a function has one output: describe one")
        ((code, response),) = responses.items()
        return self._json_type(self._references.resolve(response).content, f"its response {code}")

    def _json_type(self, content: Mapping[str, MediaType] | None, place: str) -> dict[str, Any]:
        if not content or len(content) > 1:
            types = f"the media types {', '.join(content)}" if content else "no media type"
            raise Unfit(f"{place} has {types}: give it one, {JSON_TYPE}")
        ((name, media),) = content.items()
        if name.partition(";")[0].strip().lower() != JSON_TYPE:
            raise Unfit(f"{place} has the media type {name}: give it {JSON_TYPE}")
        if media.media_type_schema is None:
            raise Unfit(f"{place} has no schema: add one")
        return platform_type(media.media_type_schema, place, self._references)
