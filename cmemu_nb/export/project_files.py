"""The files of a project around an exported module: what it needs, its image, its tests, and how to use it."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmemu_nb.export.examples import plausible_query
from cmemu_nb.phrases import plural
from cmemu_nb.version import __version__
from cmemu_nb.wire.function_schemas import schema_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cmemu_nb.export.examples import Example
    from cmemu_nb.lifecycle.configuration import Configuration

WIDTH = 100
VERSION = "0.1.0"
INSTALL = f'python -m pip install -r requirements.txt "cmemu_nb=={__version__}" pytest'
TEST = "python -m pytest"
CHECK = "cmemu check ."
DOCKERFILE = """\
# The platform runs images for linux/amd64 only.
FROM --platform=linux/amd64 {base}
WORKDIR /app
# What the module prints is in the logs at once.
ENV PYTHONUNBUFFERED=1
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
# The platform needs a user with a number, who is not root.
USER 5000
ENTRYPOINT ["python", "app.py"]
"""
DOCKERIGNORE = """\
# What the image does not need.
**/__pycache__
**/.ipynb_checkpoints
.cmemu-export.json
.dockerignore
.env
.git
.pytest_cache
.venv
Dockerfile
README.md
tests
"""
TESTS = '''\
"""The module as the platform runs it: the official SDK serves it, and an emulator of the platform calls it.

The queries and results are those of the notebook's session. More about such tests: cmemu_nb, docs/testing.md.
"""

import json
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
{configuration}

@pytest.fixture(autouse=True)
def module(cmemu_launch):
    return cmemu_launch("python app.py", cwd=str(TESTS.parent){options})


def test_all_functions_have_their_schemas(cmemu):
    served = {each.function_name: json.loads(each.schema_payload) for each in cmemu.lifecycle.schemas()}
    assert served == json.loads((TESTS / "schemas.json").read_text("utf-8"))
'''
CONFIGURATION = """\
# The functions were configured with these names in the notebook, whose values are not written into any file.
CONFIGURATION = {outline}
"""
VALUE = "a value for the tests"
SKIP = "The notebook has no result of it: write a query, and the result to expect."
SKIP_VARYING = "It uses the time, chance or the job's id or user: write what to expect of its result."
SKIP_CONFIGURED = "The results depend on the notebook's configuration: write values into CONFIGURATION."
README = """\
# {name}

A compute module for Palantir Foundry with {count}, written by `%cmemu export-module` from a notebook:

{functions}

`app.py` has the functions and everything that they need, `requirements.txt` the packages that it imports, with the
versions that the notebook had. The commands below are for a terminal in this folder.

## Install and test

```bash
python -m venv .venv && . .venv/bin/activate
{install}
{test}
```

The tests start the module with the official SDK, as the platform does, and call its functions through `cmemu_nb`, an
emulator of the platform.

## Try it

```bash
cmemu run -- python app.py
```

It prints how to call the functions from another terminal.

## Check and build

```bash
{check}
{build}
cmemu run --image {name}:{version}
```

The check knows the platform's rules for images and functions. The last line tries the image itself, as the user that it
has on the platform; it works with Docker and with podman.

## Push

The page of your Artifacts repository in Foundry shows its address, REGISTRY here, and how to log in.

```bash
docker login REGISTRY
docker tag {name}:{version} REGISTRY/{name}:{version}
docker push REGISTRY/{name}:{version}
```

Then choose this image and tag on the page of the compute module. Give each build a version of its own: the platform
does not run the tag `latest`.{configured}
"""


@dataclass(frozen=True)
class ExportedFunction:
    """A function of the module: its name, the first line of its docstring, its schema, and calls that succeeded.

    `varies` is whether it uses the time, chance or the job's id or user, so that it may give other results.
    """

    name: str
    summary: str
    schema: Mapping[str, Any]
    examples: Sequence[Example]
    varies: bool = False


def image_name(folder: str) -> str:
    """Return a valid name of an image, after the name of the project's folder."""
    return re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-") or "module"


def build_command(name: str) -> str:
    """Return the command that builds the project's image."""
    return f"docker build --platform linux/amd64 -t {name}:{VERSION} ."


def project_files(
    name: str,
    text: str,
    requirements: Sequence[str],
    functions: Sequence[ExportedFunction],
    configurations: Sequence[Configuration] = (),
) -> dict[str, str]:
    """Return the texts of a project's files by their paths; `text` is that of the module, `name` that of the image.

    `configurations` are those of the functions' runtimes: the tests have their names, but no value of them.
    """
    outline = _merged(each.outline(VALUE) for each in configurations)
    schemas = {each.name: each.schema for each in functions}
    return {
        "app.py": text,
        "requirements.txt": "".join(f"{each}\n" for each in requirements),
        "Dockerfile": DOCKERFILE.format(base=_base(requirements)),
        ".dockerignore": DOCKERIGNORE,
        "tests/test_app.py": _tests(functions, outline),
        "tests/schemas.json": json.dumps(schemas, indent=2, ensure_ascii=False) + "\n",
        "README.md": _readme(name, functions, outline),
    }


def _base(requirements: Sequence[str]) -> str:
    """Return the image of the kernel's Python; the large one, which has git, where pip needs that."""
    slim = "" if any("git+" in each for each in requirements) else "-slim"
    return f"python:{sys.version_info.major}.{sys.version_info.minor}{slim}"


def _merged(outlines: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for outline in outlines:
        for key, values in outline.items():
            merged.setdefault(key, {}).update(values)
    return merged


def _tests(functions: Sequence[ExportedFunction], outline: Mapping[str, Any]) -> str:
    shown = CONFIGURATION.format(outline=_literal(outline, "")) if outline else ""
    text = TESTS.replace("{configuration}", shown).replace("{options}", ", **CONFIGURATION" if outline else "")
    return text + "".join(_tests_of(each, configured=bool(outline)) for each in functions)


def _tests_of(function: ExportedFunction, *, configured: bool) -> str:
    examples = function.examples
    if function.varies or not examples:
        query = examples[-1].query if examples else plausible_query(function.schema)
        body = f"    assert {_call(function.name, query)} == ...\n"
        reason = SKIP_VARYING if function.varies else SKIP
    else:
        body = "".join(_assertion(function.name, each) for each in examples)
        reason = SKIP_CONFIGURED if configured else ""
    skip = f'@pytest.mark.skip(reason="{reason}")\n' if reason else ""
    return f"\n\n{skip}def test_{function.name}(cmemu):\n{body}"


def _assertion(name: str, example: Example) -> str:
    operator = "is" if example.result is None or isinstance(example.result, bool) else "=="
    line = f"    assert {_call(name, example.query)} {operator} {_literal(example.result)}\n"
    if len(line) <= WIDTH:
        return line
    query, result = _literal(example.query, "    "), _literal(example.result, "    ")
    return f"    query = {query}\n    assert cmemu.call({_literal(name)}, query) {operator} {result}\n"


def _call(name: str, query: Any) -> str:
    return f"cmemu.call({_literal(name)}, {_literal(query)})"


def _literal(value: Any, indent: str | None = None) -> str:
    """Return a JSON value in Python's syntax: in one line, or, with an indent, in several if it is long."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return text if text.isprintable() else ascii(value)
    if not isinstance(value, list | dict):
        return repr(value)
    deeper = None if indent is None else f"{indent}    "
    if isinstance(value, list):
        parts, (start, end) = [_literal(each, deeper) for each in value], "[]"
    else:
        parts, (start, end) = [f"{_literal(key)}: {_literal(each, deeper)}" for key, each in value.items()], "{}"
    line = f"{start}{', '.join(parts)}{end}"
    if deeper is None or ("\n" not in line and len(line) + len(deeper) <= WIDTH):
        return line
    return f"{start}\n" + "".join(f"{deeper}{each},\n" for each in parts) + f"{indent}{end}"


def _readme(name: str, functions: Sequence[ExportedFunction], outline: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        f"- `{each.name}`{f': {each.summary}' if each.summary else ''} ({schema_in_words(each.schema)})"
        for each in functions
    ]
    return README.format(
        name=name,
        count=plural(len(functions), "function"),
        functions="\n".join(lines),
        install=INSTALL,
        test=TEST,
        check=CHECK,
        build=build_command(name),
        version=VERSION,
        configured=_configured(outline),
    )


def _configured(outline: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the sentence that says what to configure on the platform; "" if that is nothing."""
    words = {"sources": "the sources", "environment": "the environment variables"}
    parts = [f"{words[key]} {', '.join(values)}" for key, values in outline.items() if key in words]
    parts += ["an OAuth client"] if "client" in outline else []
    return f"\n\nConfigure there what the functions need: {'; '.join(parts)}." if parts else ""
