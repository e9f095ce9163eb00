"""The tools that launch programs as modules, of an emulator that `cmemu mcp` has started itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cmemu_nb.cli.mcp.tool import Tool, arguments, text
from cmemu_nb.errors import LaunchFailed
from cmemu_nb.executors.modules.modules import read_command, runtime_name
from cmemu_nb.lifecycle.configuration import KEYS
from cmemu_nb.wire.function_schemas import schema_in_words
from cmemu_nb.wire.json_values import read_exactly

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.cli.remote import Remote
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.lifecycle.lifecycle import Lifecycle

SECONDS = 30.0
MAX_SECONDS = 600
LINES, MAX_LINES = 50, 1_000
_COMMAND = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
    "description": "The command, such as: python app.py. 'python' is the interpreter that runs cmemu",
}
_RUNTIME = text("The runtime's id")
_LAUNCH = arguments(
    {"command": _COMMAND},
    runtime=text("The runtime's id. Default: the name of the program's file"),
    cwd=text("The program's working directory"),
    configuration={
        "type": "object",
        "properties": {name: {} for name in KEYS},
        "additionalProperties": False,
        "description": "The module's configuration, such as environment, an object of variables",
    },
    timeout={
        "type": "number",
        "minimum": 0,
        "maximum": MAX_SECONDS,
        "description": f"Seconds to wait. Default: {SECONDS:g}",
    },
)
_SHOW_LOG = arguments(
    {"runtime": _RUNTIME},
    last={
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_LINES,
        "description": f"How many lines. Default: {LINES}",
    },
)


def _launch(emulator: Emulator, given: dict[str, Any]) -> object:
    command = given["command"]
    runtime_id = given.get("runtime") or runtime_name(read_command(command))
    _stop(emulator, {"runtime": runtime_id})
    module = emulator.launch(command, runtime_id, cwd=given.get("cwd"), **given.get("configuration", {}))
    try:
        module.wait_until_responsive(given.get("timeout", SECONDS))
    except LaunchFailed:
        emulator.modules.stop(runtime_id)
        raise
    schemas = emulator.lifecycle.schemas(runtime_id)
    functions = {each.function_name: schema_in_words(read_exactly(each.schema_payload)) for each in schemas}
    # The log has the traceback of a program that raised after some of its functions were defined: it serves these.
    log = module.logs.tail(LINES)
    return {"runtime_id": runtime_id, "replicas": module.states, "functions": functions, "log": log}


def _stop(emulator: Emulator, given: dict[str, Any]) -> object:
    """Stop the modules of a runtime and delete the schemas of their functions, which nothing serves any more."""
    runtime_id = given["runtime"]
    stopped = len(emulator.modules.of(runtime_id))
    if stopped:
        emulator.modules.stop(runtime_id)
        emulator.change(lambda lifecycle: _delete_schemas(lifecycle, runtime_id))
    return {"stopped": stopped}


def _delete_schemas(lifecycle: Lifecycle, runtime_id: str) -> None:
    for each in lifecycle.schemas(runtime_id):
        lifecycle.delete_schema(runtime_id, each.function_name)


def _show_log(emulator: Emulator, given: dict[str, Any]) -> object:
    return emulator.modules[given["runtime"]].logs.tail(given.get("last", LINES)) or "Nothing was written yet."


def module_tools(emulator: Emulator) -> list[Tool]:
    """Return the tools that launch, stop and show the programs of an emulator in this process."""

    def of(function: Callable[[Emulator, dict[str, Any]], object]) -> Any:
        async def run(_: Remote, given: dict[str, Any]) -> object:
            return await asyncio.to_thread(function, emulator, given)

        return run

    return [
        Tool(
            "launch",
            "Launch a program with an official SDK as a runtime's module, and wait until it polls for jobs. Its "
            "functions become tools. The program that ran as this runtime is stopped first.",
            _LAUNCH,
            of(_launch),
        ),
        Tool("stop_module", "Stop the program of a runtime.", arguments({"runtime": _RUNTIME}), of(_stop)),
        Tool(
            "show_module_log",
            "Show the newest lines that the program of a runtime has written.",
            _SHOW_LOG,
            of(_show_log),
            read_only=True,
        ),
    ]
