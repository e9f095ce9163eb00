"""The tools that call functions: `call`, and one for each function that a runtime serves."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from cmemu_nb.cli.call import explained, result_as_json
from cmemu_nb.cli.cancel import cancel
from cmemu_nb.cli.mcp.tool import Tool, arguments, text
from cmemu_nb.cli.show import schemas_view
from cmemu_nb.cli.targets import submit
from cmemu_nb.errors import CmemuError, InvalidRequest, NotFound
from cmemu_nb.phrases import bounded
from cmemu_nb.wire.function_schemas import schema_in_words
from cmemu_nb.wire.json_schema import input_schema

if TYPE_CHECKING:
    from cmemu_nb.cli.remote import Remote

SECONDS = 60.0
MAX_SECONDS = 3_600
MAX_FUNCTIONS = 200
MAX_SCHEMA_CHARACTERS = 20_000
# Some clients accept only such names [ours]: https://modelcontextprotocol.io/specification
MAX_NAME = 64
DIGEST = 8
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


async def call(remote: Remote, given: dict[str, Any]) -> object:
    """Call a function and return its result with the job's id."""
    options = argparse.Namespace(**{"runtime": None, "app": None, "branch": None, "no_validate": False, **given})
    try:
        # Whole, because a job whose id is not known yet can't be cancelled when the agent gives up.
        with anyio.CancelScope(shield=True):
            job_id = await submit(remote, options, json.dumps(given.get("query", {})).encode())
    except (InvalidRequest, NotFound) as error:
        raise type(error)(str(error).replace("--no-validate", "no_validate=true")) from None
    seconds = given.get("timeout", SECONDS)
    try:
        async with explained(remote, job_id, seconds), asyncio.timeout(seconds):
            result = await remote.contour.result(job_id, None)
            streamed = await remote.contour.streamed(job_id)
            answer = result_as_json(result, streamed=streamed)
    except CmemuError as error:
        raise type(error)(f"{error}\nThe job's id is '{job_id}'.") from None
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await cancel(remote, job_id, "by the agent")
        raise
    return f'{{"job_id": {json.dumps(job_id)}, "result": {answer}}}'


CALL = Tool(
    "call",
    "Call a function by its name and wait for its result. A job that is not done in time continues; show_job shows it.",
    arguments(
        {"function": text("The function's name")},
        query={"description": "The function's input, an object with a field for each input. Default: {}"},
        runtime=text("The id of the runtime to call, without a deployed app"),
        app=text("The deployed app's RID. It may be omitted if only one app serves the function"),
        branch=text("The app's branch"),
        timeout={
            "type": "number",
            "minimum": 0,
            "maximum": MAX_SECONDS,
            "description": f"Seconds to wait. Default: {SECONDS:g}",
        },
        no_validate={"type": "boolean", "description": "Whether to skip the check of the query. Default: false"},
    ),
    call,
)


async def function_tools(remote: Remote) -> list[Tool]:
    """Return a tool for each function of each runtime, the first `MAX_FUNCTIONS` of them."""
    schemas = (await schemas_view(remote, argparse.Namespace(runtime=None))).records[:MAX_FUNCTIONS]
    names = Counter(_short(each["function_name"]) for each in schemas)
    # A name with a digest may be the whole name of another function, which gets one then, too.
    names.update(_with_digest(each) for each in schemas)
    return [_function_tool(each, unique=names[_short(each["function_name"])] == 1) for each in schemas]


def _with_digest(schema: dict[str, Any]) -> str:
    named = [schema["runtime_id"], schema["function_name"]]
    digest = hashlib.sha256(msgspec.json.encode(named)).hexdigest()[:DIGEST]
    return f"{_short(schema['function_name'])[: MAX_NAME - DIGEST - 1]}_{digest}"


def _short(function: str) -> str:
    return f"call_{_NOT_IN_NAMES.sub('_', function)}"


def _function_tool(schema: dict[str, Any], *, unique: bool) -> Tool:
    function, runtime, payload = schema["function_name"], schema["runtime_id"], schema["schema_payload"]

    async def run(remote: Remote, query: dict[str, Any]) -> object:
        return await call(remote, {"function": function, "runtime": runtime, "query": query})

    name = _short(function)
    if not unique or len(name) > MAX_NAME:
        name = _with_digest(schema)
    words = bounded([f"Call the function {function!r} of the runtime {runtime!r}: {schema_in_words(payload)}"], 1_000)
    described = input_schema(payload)
    fits = len(json.dumps(described)) <= MAX_SCHEMA_CHARACTERS
    return Tool(name, words, described if fits else {"type": "object"}, run)
