"""Import a program without starting it, and report its functions as the official SDK sees them.

This runs in a process of its own, `python -m cmemu_nb.check.imported FILE`, and prints one JSON object as its last
line. What the program prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import compute_modules.startup
from compute_modules.bin.static_inference import infer
from compute_modules.function_registry.function_registry import STREAMING

from cmemu_nb.errors import FunctionRefused
from cmemu_nb.executors.sdk.adapter import define
from cmemu_nb.executors.sdk.types import find_fix
from cmemu_nb.tracebacks import in_one_line

SDK_PARSER = "function_schema_parser"


def functions_of(file: Path) -> dict[str, Any]:
    """Import a file; return its `functions`, or the `error` that it raises.

    A function has its name, line, whether it streams, the SDK's schema, a problem and warnings.
    """
    compute_modules.startup.DISABLE_STARTUP = True
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # noqa: BLE001 - a program may raise anything, SystemExit included
        return {"error": _describe_error(error, file)}
    return {"functions": [_describe(function) for function in infer._discover_functions({module})]}  # noqa: SLF001


def _describe_error(error: BaseException, file: Path) -> dict[str, Any]:
    own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    message = in_one_line(error)
    fix = find_fix(error) if isinstance(error, (ValueError, TypeError)) and SDK_PARSER in _files(error) else ""
    return {"line": own[-1] if own else 0, "message": message, "fix": fix}


def _files(error: BaseException) -> str:
    return " ".join(frame.filename for frame in traceback.extract_tb(error.__traceback__))


def _describe(function: Any) -> dict[str, Any]:
    plain = function.function
    streaming = STREAMING.get(plain.__name__, False)
    found = {"name": plain.__name__, "line": plain.__code__.co_firstlineno, "schema": None, "problem": ""}
    found["annotated"] = "return" in getattr(plain, "__annotations__", {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            definition = define(function, streaming=streaming)
    except FunctionRefused as refused:
        return {**found, "problem": str(refused), "warnings": []}
    return {**found, "schema": function.get_function_schema({}), "warnings": list(definition.warnings)}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        found = functions_of(Path(sys.argv[1]))
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()
    os._exit(0)  # without the program's threads and exit handlers, of which the SDK's would start the module
