"""The curl line that calls a route of the OpenAPI document, with the document's own examples."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import quote, urlencode

from cmemu_nb.server.response import BYTES, JSON
from cmemu_nb.server.routes.oauth import FORM
from cmemu_nb.wire.paths import MODULE_HEADER

# In double quotes, so that the shell puts the tokens in.
_TOKENS = {
    "bearer": '-H "Authorization: Bearer $TOKEN"',
    "moduleAuthToken": f'-H "{MODULE_HEADER}: $MODULE_TOKEN"',
}


def curl_line(method: str, path: str, operation: dict[str, Any], base_url: str) -> str:
    """Return the line; it reads tokens from the shell variables TOKEN and MODULE_TOKEN."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter.get("example", "")), safe=""))
        elif parameter["in"] == "query" and "example" in parameter:
            path += f"?{urlencode({parameter['name']: parameter['example']})}"
    words = ["curl -sS", *([] if method == "GET" else [f"-X {method}"])]
    wanted = {name for each in operation["security"] for name in each}
    words += [text for name, text in _TOKENS.items() if name in wanted][:1]
    words += _body(operation.get("requestBody", {}).get("content", {}))
    return " ".join([*words, shlex.quote(f"{base_url}{path}")])


def first_example(media: dict[str, Any]) -> Any:
    """Return the first example of a body; None when it has none."""
    return next((each["value"] for each in media.get("examples", {}).values()), None)


def _body(content: dict[str, Any]) -> list[str]:
    for kind, media in content.items():
        example = first_example(media)
        if kind == FORM:
            return [f"-d {shlex.quote(urlencode({name: value}))}" for name, value in example.items()]
        text = example if kind == BYTES else json.dumps(example)
        return [f"-H 'Content-Type: {JSON if kind == BYTES else kind}'", f"--data-binary {shlex.quote(text)}"]
    return []
