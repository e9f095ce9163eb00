"""An operation of an OpenAPI document as a function: its schema, and the HTTP request for one call."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cmemu_nb.wire.function_schemas import type_name

BODY = "body"
"""The name of the input that is the request's body [foundry: its query panel]."""
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
JSON_TYPE = "application/json"
_LINE_BREAKS = re.compile(r"[\r\n\0]")


class BadInput(Exception):
    """The query of a job can't be sent to the server; the message is a clause that says why."""


@dataclass(frozen=True)
class Input:
    """One input of a function: a parameter in the `path`, the `query` or a `header`, or the `body`.

    `separator` is between the items of a list; None if a parameter of the query is repeated for each of them.
    """

    name: str
    location: str
    required: bool
    data_type: dict[str, Any]
    separator: str | None = ","

    def texts(self, value: object) -> list[str]:
        """Return the texts of the parameter for a value: one, or one for each item."""
        items = value if isinstance(value, list) else [value]
        texts = [_text(self.name, item) for item in items]
        return texts if self.separator is None or not isinstance(value, list) else [self.separator.join(texts)]


@dataclass(frozen=True)
class Request:
    """An HTTP request to the server; `target` is the path with the query."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Operation:
    """One operation: the function of its `operationId`."""

    function: str
    method: str
    path: str
    inputs: tuple[Input, ...]
    output: dict[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        """The function's schema, in the form that the official SDKs post [foundry]."""
        inputs = [
            {"name": each.name, "required": each.required, "constraints": [], "dataType": each.data_type}
            for each in self.inputs
        ]
        output = {"type": "single", "single": {"dataType": self.output}}
        return {"functionName": self.function, "inputs": inputs, "output": output, "ontologyProvenance": None}

    def request(self, query: object) -> Request:
        """Return the request for the query of a job. An input that is absent or null is left out, except the body.

        Raises `BadInput` for a query that is no object, a missing parameter of the path, and a value without a text.
        """
        values = {} if query is None else query
        if not isinstance(values, dict):
            raise BadInput("its query is not a JSON object")
        given = [each for each in self.inputs if values.get(each.name) is not None and each.location != BODY]
        pairs = [
            f"{quote(each.name, safe='')}={quote(text, safe='')}"
            for each in given
            if each.location == "query"
            for text in each.texts(values[each.name])
        ]
        headers = {each.name: _header(each, values[each.name]) for each in given if each.location == "header"}
        body = b""
        if BODY in values and any(each.location == BODY for each in self.inputs):
            body = json.dumps(values[BODY], ensure_ascii=False, allow_nan=False).encode()
            headers["Content-Type"] = JSON_TYPE
        target = self._path(values) + ("?" + "&".join(pairs) if pairs else "")
        return Request(self.method, target, {"Accept": JSON_TYPE, **headers}, body)

    def _path(self, values: dict[str, object]) -> str:
        inputs = {each.name: each for each in self.inputs if each.location == "path"}

        def text(found: re.Match[str]) -> str:
            name = found[1]
            if values.get(name) is None:
                raise BadInput(f"{name!r}, which is part of the path {self.path}, is missing")
            return quote(inputs[name].texts(values[name])[0], safe="")

        return PLACEHOLDER.sub(text, self.path)


def _text(name: str, value: object) -> str:
    if isinstance(value, dict | list) or value is None:
        raise BadInput(f"{name!r} has no form for a path, a query or a header: {json.dumps(value)[:100]}")
    return value if isinstance(value, str) else json.dumps(value)


def _header(header: Input, value: object) -> str:
    (text,) = header.texts(value)
    if _LINE_BREAKS.search(text) or not text.isascii():
        raise BadInput(f"{header.name!r} is a header, whose value must be ASCII text without line breaks")
    return text


def is_parameter_type(data_type: dict[str, Any]) -> bool:
    """Return whether a parameter may have a type: a single value or a list of them, which may be optional."""
    name = type_name(data_type)
    inside = data_type[name]
    if name == "optionalType":
        return is_parameter_type(inside["wrappedType"])
    if name == "list":
        return type_name(inside["elementsType"]) not in ("list", "map", "anonymousCustomType", "optionalType")
    return name not in ("map", "anonymousCustomType")
