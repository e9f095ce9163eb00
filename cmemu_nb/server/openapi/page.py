"""The HTML pages: the OpenAPI document at `/docs`, with a curl line for each route, and the front page at `/`.

They load nothing and run no script.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from cmemu_nb.server.response import BYTES, JSON
from cmemu_nb.server.routes.oauth import FORM
from cmemu_nb.wire.paths import MODULE_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Document = dict[str, Any]

FIRST_ERROR = 400
_VARIABLES = {"moduleAuthToken": "$MODULE_TOKEN", "bearer": "$TOKEN"}
_TOKENS = {"moduleAuthToken": "the runtime's module token", "bearer": "the bearer token"}
_OTHERS = {"basic": "none, but the client's id and secret, in the form or as HTTP Basic authentication"}


@functools.cache
def _style() -> str:
    return Path(__file__).with_suffix(".css").read_text("utf-8")


def policy(form_action: str = "'none'") -> str:
    """Return a page's Content-Security-Policy, which allows its own style and `form_action`, and nothing else."""
    others = f"base-uri 'none'; form-action {form_action}; frame-ancestors 'none'"
    return f"default-src 'none'; style-src 'sha256-{_style_digest()}'; {others}"


@functools.cache
def _style_digest() -> str:
    return base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()


def page(document: Document, base_url: str) -> str:
    """Return an OpenAPI document as an HTML page. Its curl lines call the server at `base_url`."""
    info = document["info"]
    surfaces = "".join(_surface(document, tag, base_url) for tag in document["tags"])
    about = (
        f"<p>Version {html.escape(info['version'])}. The same description for programs is "
        '<a href="openapi.json">openapi.json</a>.</p>'
    )
    header = f"{_paragraphs(info['description'])}{about}{_about_tokens(document)}"
    return html_page(info["title"], header, f"<main>{surfaces}</main>")


def front_page(info: dict[str, str]) -> str:
    """Return the HTML page for a browser that opens the emulator's address; `info` is from the OpenAPI document."""
    first = info["description"].partition("\n\n")[0]
    header = (
        f"{_paragraphs(first)}<p>This is cmemu_nb {html.escape(info['version'])}, a server for programs. "
        '<a href="docs">Every route</a> is described on a page, with a curl line to try it; the same description for '
        'programs is <a href="openapi.json">openapi.json</a>.</p><p>The <a href="ui">dashboard</a> shows what '
        "happens in the emulator. It asks for the bearer token; <code>cmemu ui</code> in a terminal opens it with the "
        "token.</p>"
    )
    return html_page(info["title"], header)


def html_page(title: str, header: str, rest: str = "") -> str:
    """Return a whole HTML page; `header` and `rest` are HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_style()}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1>{header}</header>{rest}</body></html>\n"
    )


def _about_tokens(document: Document) -> str:
    schemes = document["components"]["securitySchemes"]
    rows = [(token, f"`{_VARIABLES[name]}`", schemes[name]["description"]) for name, token in _TOKENS.items()]
    return _table(("token", "variable in the curl lines", "where to get it"), rows)


def _surface(document: Document, tag: dict[str, str], base_url: str) -> str:
    routes = "".join(
        _route(document, method.upper(), path, operation, base_url)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if tag["name"] in operation["tags"]
    )
    title = html.escape(tag["name"].replace("_", " ").capitalize())
    return f"<section><h2>{title} routes</h2>{_paragraphs(tag['description'])}{routes}</section>"


def _route(document: Document, method: str, path: str, operation: dict[str, Any], base_url: str) -> str:
    responses = operation["responses"].items()
    answers = "".join(_answer(document, *each) for each in responses if int(each[0]) < FIRST_ERROR)
    errors = [row for each in responses if int(each[0]) >= FIRST_ERROR for row in _error_rows(*each)]
    curl = _code(curl_line(method, path, operation, base_url))
    return (
        f'<details><summary><span class="method {html.escape(method.lower())}">{html.escape(method)}</span> '
        f"<code>{_breakable(path)}</code> <span>{_text(operation['summary'])}</span></summary>"
        f'<div id="{html.escape(operation["operationId"])}">{_paragraphs(operation["description"])}'
        f'<p>Token: {_wanted(operation)}</p><div class="curl">{curl}</div>'
        f"{_parameters(operation)}{_body(document, operation)}{answers}"
        f"<h3>Errors</h3>{_table(('status', 'error', 'when'), errors)}</div></details>"
    )


def _wanted(operation: dict[str, Any]) -> str:
    names = [{**_TOKENS, **_OTHERS}.get(name, name) for each in operation["security"] for name in each]
    return html.escape(" or ".join(names) or "none")


def _parameters(operation: dict[str, Any]) -> str:
    rows = [
        (f"`{each['name']}`", each["in"], f"{each.get('description', '')}{_default(each['schema'])}")
        for each in operation["parameters"]
    ]
    return f"<h3>Parameters</h3>{_table(('name', 'in', 'description'), rows)}" if rows else ""


def _default(schema: dict[str, Any]) -> str:
    values = f"; one of {', '.join(f'`{value}`' for value in schema['enum'])}" if "enum" in schema else ""
    return f"{values}; `{schema['default']}` if omitted" if "default" in schema else values


def _body(document: Document, operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    return "".join(
        f"<h3>Body, <code>{html.escape(kind)}</code></h3>{_media(document, media)}" for kind, media in content.items()
    )


def _answer(document: Document, status: str, answer: dict[str, Any]) -> str:
    kinds = "".join(f", <code>{html.escape(kind)}</code>" for kind in answer.get("content", {}))
    headers = ", ".join(f"`{name}`" for name in answer.get("headers", {}))
    text = f"{answer['description']}. Header: {headers}" if headers else answer["description"]
    media = "".join(_media(document, each) for each in answer.get("content", {}).values())
    return f"<h3>Answer {html.escape(status)}{kinds}</h3>{_paragraphs(text)}{media}"


def _media(document: Document, media: dict[str, Any]) -> str:
    """Show a body: its description, its first example, and all of its members."""
    schema, example = media["schema"], first_example(media)
    rows = list(dict.fromkeys(_members(document, schema, "")))
    members = (
        f"<details><summary>Members</summary>{_table(('member', 'type', 'description'), rows)}</details>"
        if rows
        else ""
    )
    shown = "" if example is None else _code(example if isinstance(example, str) else json.dumps(example, indent=2))
    return f"{_paragraphs(schema.get('description', ''))}{shown}{members}"


def _members(document: Document, schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield the path, type and description of each member, and of the members inside it."""
    schema = _resolved(document, schema)
    for each in schema.get("oneOf", []):
        yield from _members(document, each, prefix)
    if "items" in schema:
        yield from _members(document, schema["items"], f"{prefix}[]")
    for name, member in schema.get("properties", {}).items():
        path = f"{prefix}.{name}".lstrip(".")
        optional = "" if name in schema.get("required", []) else ", optional"
        yield f"`{path}`", f"{_type(_resolved(document, member))}{optional}", member.get("description", "")
        yield from _members(document, member, path)


def _resolved(document: Document, schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] | schema if name else schema


def _type(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "object" if "oneOf" in schema else "any JSON")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _error_rows(status: str, answer: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for media in answer.get("content", {}).values():
        for code, example in media.get("examples", {}).items():
            yield status, f"`{code}`", example["summary"]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in head)
    lines = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>'


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_text(each)}</p>" for each in text.split("\n\n") if each)


def _text(text: str) -> str:
    """Return a text as HTML; text in backquotes becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _breakable(path: str) -> str:
    return html.escape(path).replace("/", "/<wbr>")


# Curl lines, with the document's own examples


# In double quotes, so that the shell expands the variables.
_CURL_TOKENS = {
    "bearer": '-H "Authorization: Bearer $TOKEN"',
    "moduleAuthToken": f'-H "{MODULE_HEADER}: $MODULE_TOKEN"',
}


def curl_line(method: str, path: str, operation: dict[str, Any], base_url: str) -> str:
    """Return the curl line of a route. It reads tokens from the shell variables TOKEN and MODULE_TOKEN."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter.get("example", "")), safe=""))
        elif parameter["in"] == "query" and "example" in parameter:
            path += f"?{urlencode({parameter['name']: parameter['example']})}"
    parts = ["curl -sS", *([] if method == "GET" else [f"-X {method}"])]
    wanted = {name for each in operation["security"] for name in each}
    parts += [text for name, text in _CURL_TOKENS.items() if name in wanted][:1]
    parts += _curl_body(operation.get("requestBody", {}).get("content", {}))
    return " ".join([*parts, shlex.quote(f"{base_url}{path}")])


def first_example(media: dict[str, Any]) -> Any:
    """Return the first example of a body; None if it has none."""
    return next((each["value"] for each in media.get("examples", {}).values()), None)


def _curl_body(content: dict[str, Any]) -> list[str]:
    for kind, media in content.items():
        example = first_example(media)
        if kind == FORM:
            return [f"-d {shlex.quote(urlencode({name: value}))}" for name, value in example.items()]
        text = example if kind == BYTES else json.dumps(example)
        return [f"-H 'Content-Type: {JSON if kind == BYTES else kind}'", f"--data-binary {shlex.quote(text)}"]
    return []
