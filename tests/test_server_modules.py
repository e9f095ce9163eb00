"""Server modules: HTTP servers without an SDK, whose functions are the operations of an OpenAPI document."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from client import eventually, free_port
from conftest import end_programs, serving

from cmemu_nb import Emulator
from cmemu_nb.arguments import given_configuration
from cmemu_nb.errors import FunctionError, FunctionRefused, InvalidRequest, JobFailed, LaunchFailed
from cmemu_nb.executors.modules import modules, restarts
from cmemu_nb.executors.servers.document import read_document
from cmemu_nb.lifecycle.configuration import ServerOptions
from cmemu_nb.notebook.commands import parse
from cmemu_nb.wire.function_schemas import schema_in_words, type_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb.executors.modules.modules import LaunchedModule

pytestmark = pytest.mark.long_lived

BOOKS = Path(__file__).parent / "programs" / "book_server"
DOCUMENT = yaml.safe_load((BOOKS / "openapi.yaml").read_text())
# The example of the documentation: it has no info and no descriptions, and its parameter of the path is not required.
DOCUMENTED = {
    "openapi": "3.0.0",
    "servers": [{"url": "http://localhost:8000"}],
    "paths": {
        "/books/{book_id}": {
            "get": {
                "operationId": "getBook",
                "parameters": [{"name": "book_id", "in": "path", "schema": {"type": "string"}}],
                "responses": {"200": {"content": {"application/json": {"schema": {"type": "string"}}}}},
            }
        }
    },
}
FOREVER = "import time; time.sleep(600)"


@contextlib.contextmanager
def emulator(**settings: int) -> Iterator[Emulator]:
    with serving(**settings) as started:
        try:
            yield started
        finally:
            end_programs(started)


@pytest.fixture(scope="module")
def emu() -> Iterator[Emulator]:
    with emulator(max_body_bytes=100_000) as started:
        yield started


@pytest.fixture(scope="module")
def module(emu: Emulator) -> LaunchedModule:
    port = free_port()
    server = {"openapi": "openapi.yaml", "port": port, "timeout": 60}
    launched = emu.launch(["python", "server.py", str(port)], "books", cwd=str(BOOKS), server=server)
    return launched.wait_until_responsive()


@pytest.fixture
def call(emu: Emulator, module: LaunchedModule) -> Callable[..., Any]:
    assert module.running
    app = "ri.foundry.main.deployed-app.books"
    return lambda function, query=None, **more: emu.call(function, query, app, timeout=60, **more)


def test_operations_are_functions_with_parameters_in_the_path_the_query_headers_and_the_body(
    call: Callable[..., Any], module: LaunchedModule
) -> None:
    call("clear")
    book = {"title": "Dune", "added": None, "pages": 412, "prices": {"EUR": 9.5}, "more": {"a": [1]}}
    number = call("addBook", {"body": book, "User-ID": "me"})
    call("addBook", {"body": {"title": "Dune Messiah"}})
    assert call("getBook", {"book_id": number}) == {**book, "added_by": "me"}
    assert call("findBooks", {"word": ["Dune", "Mess"]}) == ["Dune Messiah"]
    assert call("findBooks", {"limit": 1}) == ["Dune"]
    assert "adds Dune Messiah" in module.logs.text  # what the server prints is in the module's log
    assert "GET /books?word=Dune&word=Mess" in module.logs.text


def test_the_schemas_are_those_of_the_document(emu: Emulator, module: LaunchedModule) -> None:
    assert module.states == ["responsive"]
    payloads = {each.function_name: json.loads(each.schema_payload) for each in emu.lifecycle.schemas("books")}
    shown = {name: schema_in_words(payload) for name, payload in payloads.items()}
    assert shown["findBooks"].endswith("limit: integer (may be left out) -> list of string")
    assert shown["addBook"] == (
        "'User-ID': string (may be left out), body: struct {title: string, added: optional date, pages: long, "
        "prices: map of string to double, more: struct {}} -> string"
    )


def test_a_query_is_checked_against_the_document(call: Callable[..., Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"'body' is missing: .*'User' is unknown. Did you mean 'User-ID'\?"):
        call("addBook", {"User": 1})
    with pytest.raises(InvalidRequest, match=r"'body.title' is missing"):
        call("addBook", {"body": {}})
    with pytest.raises(
        FunctionError, match=r"was not sent: 'book_id', which is part of the path /books/\{book_id\}, is"
    ):
        call("getBook", {}, validate=False)


@pytest.mark.parametrize(
    ("function", "query", "said"),
    [
        (
            "getBook",
            {"book_id": "a/b?"},
            r'GET http://localhost:\d+/books/{book_id} answered 404 Not Found: {"detail": "no',
        ),
        ("addBook", {"body": {"title": ""}}, r"POST .*/books answered 422 Unprocessable \w+: a book needs a title"),
        ("crash", {}, "answered 500 Internal Server Error: Traceback: boom"),
        ("text", {}, "answered 200 OK, but not with JSON: plain text"),
        ("moved", {}, "answered 302 Found to /books, which is not followed: it has no body"),
        ("gone", {}, "was not answered: The server at localhost:.* closed the connection before it had answered"),
    ],
)
def test_an_error_of_the_server_is_a_function_error(
    call: Callable[..., Any], function: str, query: dict[str, Any], said: str
) -> None:
    with pytest.raises(FunctionError, match=said):
        call(function, query)


def test_an_answer_that_is_too_large_is_a_function_error(call: Callable[..., Any]) -> None:
    with pytest.raises(FunctionError, match="or began an answer of more than 100,000 bytes"):
        call("large", {"size": 100_000})
    assert len(call("large", {"size": 99_000})) == 99_000


def test_a_job_that_is_cancelled_breaks_off_its_request(
    emu: Emulator, module: LaunchedModule, call: Callable[..., Any], tmp_path: Path
) -> None:
    slow = emu.submit("slow", {"until": str(tmp_path / "a")}, "ri.foundry.main.deployed-app.books")
    eventually(lambda: slow.status == "running", "the server works on it")
    slow.cancel()
    with pytest.raises(JobFailed, match="cancelled"):
        slow.result(timeout=60)
    assert call("findBooks", {"limit": 0}) == []  # its only slot is free again, though the server still sleeps
    assert module.running


def test_a_server_that_is_restarted_fails_the_jobs_that_it_holds_and_serves_again(tmp_path: Path) -> None:
    port = free_port()
    document = write(tmp_path, {**DOCUMENT, "servers": [{"url": f"http://localhost:{port}"}]})
    with emulator() as emu:
        # Nothing but the document says where the server is, and nothing but the runtime that the program is one.
        emu.open_runtime("books", "ri.foundry.main.deployed-app.books")
        emu.configure("books", server={"openapi": document}, max_concurrent_tasks=2)
        launched = emu.launch(["python", str(BOOKS / "server.py"), str(port)], "books").wait_until_responsive()
        job = emu.submit("slow", {"until": str(tmp_path / "never")})
        eventually(lambda: job.status == "running", "the server works on it")
        assert emu.call("findBooks", timeout=60) == []  # at the same time
        with pytest.raises(LaunchFailed, match=f"Another program listens on port {port} already"):
            emu.launch(["python", "-c", FOREVER], "other", server={"openapi": document})
        assert "other" not in emu.runtimes.index
        launched.restart()
        with pytest.raises(JobFailed, match="the module was restarted"):
            job.result(timeout=60)
        assert emu.call("findBooks", timeout=60) == []
        with emu.faults(error_rate=0.3, seed=7) as faults:  # a refused result is posted again
            assert [emu.call("findBooks", timeout=60) for _ in range(5)] == [[]] * 5
        assert faults.struck["error_rate"]
        with emu.faults(reject_poll=1) as faults:
            job = emu.submit("findBooks")
            eventually(lambda: faults.struck["reject_poll"], "a poll is refused")
        assert job.result(timeout=60) == []
        emu.runtime("books").reset()
        eventually(lambda: launched.states == ["responsive"], "the server listens again after the reset")
        assert emu.call("findBooks", timeout=60) == []


def test_a_server_that_was_killed_is_started_again_and_serves(tmp_path: Path) -> None:
    port = free_port()
    server = {"openapi": BOOKS / "openapi.yaml", "port": port}
    with emulator() as emu:
        launched = emu.launch(["python", str(BOOKS / "server.py"), str(port)], "books", server=server)
        launched.wait_until_responsive()
        job = emu.submit("slow", {"until": str(tmp_path / "never")})
        eventually(lambda: job.status == "running", "the server works on it")
        killed = launched.replicas[0]
        os.kill(killed.pid or 0, signal.SIGKILL)
        # It depends on what is noticed first, and whether the server had accepted the connection of the job.
        noticed = r"closed the connection|can't be reached|exited with code 137"
        with pytest.raises((FunctionError, JobFailed), match=noticed):
            job.result(timeout=60)
        eventually(lambda: killed.exit_code is not None, "its end is noticed")
        assert emu.call("findBooks", timeout=60) == []
        assert launched.replicas != [killed]


# It leaves a process behind that keeps its port.
LEAVES_A_LISTENER = """
import os, pathlib, socket, sys, time
folder = pathlib.Path(sys.argv[2])
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.fork():
    while not (folder / "exit").exists():
        time.sleep(0.01)
    sys.exit(3)
os.setsid()
while not (folder / "end").exists():
    time.sleep(0.01)
"""


def test_a_server_whose_port_another_program_has_taken_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 0.01)
    monkeypatch.setattr(modules, "PORT_CHECKS", 1)
    port = free_port()
    with emulator() as emu:
        command = ["python", "-c", LEAVES_A_LISTENER, str(port), str(tmp_path)]
        launched = emu.launch(command, "left", server={"openapi": BOOKS / "openapi.yaml", "port": port})
        launched.wait_until_responsive()
        try:
            (tmp_path / "exit").touch()
            taken = f"Another program listens on port {port} already"
            eventually(lambda: f"could not be started again: {taken}" in launched.logs.text, "its log says why")
            assert launched.states == ["exited(3)"]
            with pytest.raises(LaunchFailed, match=taken):
                launched.restart()
            (tmp_path / "exit").unlink()
        finally:
            (tmp_path / "end").touch()
        monkeypatch.undo()
        launched.restart()
        launched.wait_until_responsive()


def test_events_name_what_has_no_api_name_and_why_a_reset_does_not_start_a_server_again(tmp_path: Path) -> None:
    document = write(tmp_path, changed(((*GET, "operationId"), "get-book")))
    with Emulator(port=0, home="thread") as emu:
        emu.launch(["python", "-c", FOREVER], "books", server={"openapi": document, "port": free_port()})
        (named,) = [each.detail for each in emu.lifecycle.events.recent() if each.kind == "invalid_api_name"]
        assert str(named).startswith("No API name can be made from 'get-book'")
        document.write_text("{}")
        emu.runtime("books").reset()
        why = f"was not started again: {document} can't be the OpenAPI document of a server module"
        eventually(lambda: any(why in str(each.detail) for each in emu.lifecycle.events.recent()), "an event says why")


def test_an_answer_that_is_too_late_or_does_not_come_is_a_function_error(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    server = {"openapi": BOOKS / "openapi.yaml", "port": port, "timeout": 0.2}
    listens_once = f"import socket as s, time; s.create_server(('127.0.0.1', {other})).accept(); time.sleep(600)"
    with emulator() as emu:
        emu.launch(["python", str(BOOKS / "server.py"), str(port)], "slow", server=server)
        with pytest.raises(FunctionError, match=r"GET http://localhost:\d+/slow was not answered within 0.2 s"):
            emu.call("slow", {"until": str(tmp_path / "never")}, "ri.foundry.main.deployed-app.slow", timeout=60)
        emu.launch(["python", "-c", listens_once], "once", server={**server, "port": other, "timeout": 60})
        with pytest.raises(FunctionError, match=rf"was not answered: The server at .*:{other} (can't|closed)"):
            emu.call("clear", None, "ri.foundry.main.deployed-app.once", timeout=60)


def test_a_server_that_does_not_listen_is_shown_as_waiting_for_its_port() -> None:
    port = free_port()
    server = {"openapi": str(BOOKS / "openapi.yaml"), "port": port}
    with emulator() as emu:
        launched = emu.launch(["python", "-c", FOREVER], "books", server=server)
        assert repr(launched) == f"<Module 'books': python -c 'import time; time.sleep(600)': waiting for port {port}>"
        job = emu.submit("clear")
        assert f"is starting and has not answered at http://localhost:{port} yet" in str(job.diagnosis)
        with pytest.raises(LaunchFailed) as said:
            launched.wait_until_responsive(0.1)
        assert f"did not answer at http://localhost:{port} within 0.1 s: waiting for port {port}." in str(said.value)
        assert f"Its OpenAPI document names port 8000; the launch names port {port}." in str(said.value)
        ends, server = ["python", "-c", "raise SystemExit(3)"], {**server, "port": free_port()}
        with pytest.raises(LaunchFailed, match=r"ended (at once|before it answered at http.*), with exit code 3"):
            # Where Python takes longer than a second to start, launch() returns.
            emu.launch(ends, "ends", server=server).wait_until_responsive()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"server": "openapi.json"}, "server of a module's configuration must be an object with openapi, port and"),
        ({"server": {"port": 8000}}, "server of a module's configuration needs openapi"),
        ({"server": {"openapi": "x", "prt": 1}}, "has no key 'prt'. Did you mean 'port'"),
        (
            {"server": {"openapi": "x", "port": "8000"}},
            "server.port of a module's configuration must be a whole number",
        ),
        ({"server": {"openapi": "x", "port": 70000}}, "must be from 1 to 65,535, not 70000"),
        (
            {"server": {"openapi": "x", "timeout": 0}},
            "server.timeout .* a number of seconds greater than 0, not a number",
        ),
        ({"server": {"openapi": 7}}, "server.openapi of a module's configuration must be a string"),
        ({"server": {"openapi": str(BOOKS / "openapi.yaml")}, "mode": "pipeline"}, "in pipeline mode takes no jobs"),
        ({"server": {"openapi": "missing.json"}}, "missing.json can't be read: No such file or directory"),
        ({"server": {"openapi": "~no-such-user/a.json"}}, "~no-such-user/a.json can't be read: Could not determine"),
        ({"server": {"openapi": str(BOOKS / "openapi.yaml")}, "replicas": 2}, "has one replica here, because each"),
    ],
)
def test_an_option_that_is_wrong_is_one_sentence(emu: Emulator, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        emu.launch(["python", "-c", FOREVER], "wrong", **options)
    assert "wrong" not in emu.runtimes.index


def write(folder: Path, document: object) -> Path:
    path = folder / "openapi.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def changed(*changes: tuple[tuple[str, ...], object]) -> dict[str, Any]:
    """Return the documented example with other values at some places; None deletes what is there."""
    document: dict[str, Any] = json.loads(json.dumps(DOCUMENTED))
    for path, value in changes:
        place = document
        for key in path[:-1]:
            place = place[key]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value
    return document


GET = ("paths", "/books/{book_id}", "get")
RESPONSES = (*GET, "responses")
SCHEMA = (*RESPONSES, "200", "content", "application/json", "schema")
PARAMETERS = (*GET, "parameters")
OF_THE_PATH = DOCUMENTED["paths"]["/books/{book_id}"]["get"]["parameters"][0]  # type: ignore[index]


def query_parameter(**given: object) -> tuple[tuple[str, ...], object]:
    return PARAMETERS, [OF_THE_PATH, {"name": "q", "in": "query", "schema": {"type": "string"}, **given}]


# JSON of this depth can be read, but a function that calls itself for each level can't go through it.
DEPTH = 600 if sys.version_info < (3, 12) else 3000
DEEP = '{"openapi": "3.0.0", "x-deep": ' + '{"in": ' * DEPTH + "1" + "}" * DEPTH + "}"


def json_content(*media_types: str) -> dict[str, Any]:
    return {"content": {name: {"schema": {"type": "string"}} for name in media_types}}


def test_the_example_of_the_documentation_and_documents_of_3_1_and_3_2_are_read(tmp_path: Path) -> None:
    for version in ("3.0.0", "3.0.4", "3.1.0", "3.2.0"):
        found = read_document(write(tmp_path, changed((("openapi",), version))))
        assert (found.port, list(found.operations)) == (8000, ["getBook"])
        (book_id,) = found.operations["getBook"].inputs
        assert (book_id.name, book_id.location, book_id.required) == ("book_id", "path", True)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "format": "date-time"}, "timestamp"),
        ({"type": "string", "format": "byte"}, "binary"),
        ({"type": "string", "format": "uuid"}, "string"),
        ({"type": "number"}, "double"),
        ({"type": "number", "format": "float"}, "float"),
        ({"type": ["integer"]}, "integer"),
        ({"type": "boolean", "nullable": True}, "optional boolean"),
        ({"properties": {"a": {"items": {"type": "integer"}}}}, "struct {a: list of integer}"),
        ({"type": "object", "additionalProperties": {"type": "object"}}, "map of string to struct {}"),
    ],
)
def test_schemas_become_the_platform_s_types(tmp_path: Path, schema: object, words: str) -> None:
    found = read_document(write(tmp_path, changed((SCHEMA, schema))))
    assert "".join(type_in_words(found.operations["getBook"].output)) == words


@pytest.mark.parametrize(
    ("parameter", "value", "target"),
    [
        ({"schema": {"type": "boolean"}}, True, "?q=true"),
        ({"schema": {"type": "array", "items": {"type": "integer"}}}, [1, 2], "?q=1&q=2"),
        ({"schema": {"type": "array", "items": {"type": "integer"}}, "explode": False}, [1, 2], "?q=1%2C2"),
        ({"schema": {"type": "array", "items": {"type": "integer"}}, "style": "pipeDelimited"}, [1, 2], "?q=1%7C2"),
        ({"schema": {"type": "string"}}, "ä & /?", "?q=%C3%A4%20%26%20%2F%3F"),
        ({"schema": {"type": "string"}}, None, ""),
    ],
)
def test_parameters_are_written_as_openapi_says(
    tmp_path: Path, parameter: dict[str, object], value: object, target: str
) -> None:
    operation = read_document(write(tmp_path, changed(query_parameter(**parameter)))).operations["getBook"]
    assert operation.request({"book_id": "7 /", "q": value}).target == f"/books/7%20%2F{target}"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "it is not a JSON object"),
        ({}, 'it has no "openapi": version 3.0.0 or higher is needed'),
        (changed((("openapi",), "2.0")), "its \"openapi\" is '2.0': version 3.0.0 or higher is needed"),
        (
            changed((("servers",), None)),
            '"servers" has none: the platform needs a single one, such as "servers": [{"url"',
        ),
        (changed((("servers",), [{"url": "https://x.org"}])), "\"servers\" has 'https://x.org': the platform needs"),
        (changed((("paths",), {})), "it has no operations"),
        (changed((("info",), "Books")), "info: Input should be"),
        (DEEP, "it is nested too deeply"),
        (
            changed((("components",), {"schemas": {"Reference": {"type": 5}}})),
            "components.schemas.Reference.type",
        ),
        (
            changed((RESPONSES, {}), (PARAMETERS, [])),
            "GET /books/{book_id} (getBook): its path has {book_id}, but it has no parameter 'book_id' in the path; i",
        ),
        (changed(((*GET, "operationId"), None)), "GET /books/{book_id}: it has no operationId, which is the name of"),
        (
            changed(
                (
                    ("paths", "/x"),
                    {"get": {"operationId": "getBook", "responses": {"200": json_content("application/json")}}},
                )
            ),
            "GET /x (getBook): GET /books/{book_id} has the same operationId 'getBook'",
        ),
        (
            changed((("paths", "/x"), {"patch": {"operationId": "p", "responses": {}}})),
            "PATCH /x (p): the platform calls only GET, PUT, POST and DELETE: leave this operation out",
        ),
        (changed(((*RESPONSES, "422"), {})), "it has 2 responses (200, 422), but a function has one output"),
        (changed((RESPONSES, {"204": {}})), "its response 204 has no media type: give it one, application/json"),
        (
            changed((RESPONSES, {"200": json_content("text/html")})),
            "its response 200 has the media type text/html: give",
        ),
        (
            changed(((*GET, "requestBody"), json_content("application/json", "text/plain"))),
            "GET /books/{book_id} (getBook): its body has the media types application/json, text/plain: give it one",
        ),
        (changed(query_parameter(**{"in": "cookie"})), "its parameter 'q' is a cookie, which the platform excludes"),
        (
            changed(query_parameter(schema={"type": "object"})),
            "its parameter 'q' is not a single value or a list of them",
        ),
        (
            changed(query_parameter(style="deepObject")),
            "its parameter 'q' has the style 'deepObject': use one of simple",
        ),
        (
            changed((PARAMETERS, [OF_THE_PATH, {"name": "q", "in": "query"}])),
            "its parameter 'q' has no schema: add one",
        ),
        (changed(query_parameter(name="book_id")), "two of its inputs are called 'book_id': rename one of them"),
        (changed((PARAMETERS, [])), "its path has {book_id}, but it has no parameter 'book_id' in the path"),
        (
            changed((PARAMETERS, [{"name": "q"}])),
            "paths./books/{book_id}.get.parameters.0.Parameter.in: Field required",
        ),
        (changed((SCHEMA, {"anyOf": [{"type": "string"}]})), "the schema of its response 200 uses anyOf, which the pl"),
        (
            changed((SCHEMA, {"type": ["string", "null"]})),
            "the schema of its response 200 has several types (string, null)",
        ),
        (changed((SCHEMA, {"type": "array"})), "the schema of its response 200 is an array without items"),
        (changed((SCHEMA, {"properties": {"a": {"items": {}}}})), "the schema of its response 200.a[] has no type"),
        (changed((SCHEMA, {"$ref": "#/components/schemas/No"})), "the $ref '#/components/schemas/No' leads to nothing"),
        (changed((SCHEMA, {"$ref": "other.json"})), "the $ref 'other.json' does not begin with #/components/"),
        (
            changed(
                (SCHEMA, {"$ref": "#/components/schemas/Tree"}),
                (
                    ("components",),
                    {"schemas": {"Tree": {"properties": {"left": {"$ref": "#/components/schemas/Tree"}}}}},
                ),
            ),
            "the schema of its response 200.left contains itself, which no type of a function can",
        ),
        (
            changed(
                (SCHEMA, {"$ref": "#/components/schemas/A"}),
                (("components",), {"schemas": {"A": {"$ref": "#/components/schemas/A"}}}),
            ),
            "the $ref '#/components/schemas/A' refers to itself",
        ),
    ],
)
def test_what_the_platform_excludes_is_refused_with_its_place(tmp_path: Path, document: object, said: str) -> None:
    path = write(tmp_path, document)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)  # the default, which a command that ran in this process before has raised
    try:
        with pytest.raises(FunctionRefused) as refused:
            read_document(path)
    finally:
        sys.setrecursionlimit(limit)
    assert str(refused.value).startswith(f"{path} can't be the OpenAPI document of a server module:\n- ")
    assert said in str(refused.value)


def test_all_that_is_refused_is_listed_up_to_five(tmp_path: Path) -> None:
    paths: dict[str, Any] = {f"/{number}": {"get": {"responses": {}}} for number in range(7)}
    with pytest.raises(FunctionRefused) as refused:
        read_document(write(tmp_path, {**DOCUMENTED, "paths": paths}))
    assert str(refused.value).count("it has no operationId") == 5
    assert str(refused.value).endswith("\n- and 2 more")


def test_a_file_that_is_neither_json_nor_yaml_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is neither JSON nor YAML: Expecting property name"):
        read_document(write(tmp_path, "{"))
    with pytest.raises(
        InvalidRequest, match=r"neither JSON nor YAML: mapping values are not allowed here \(line 1\)\."
    ):
        read_document(write(tmp_path, "a: b: c"))


def test_without_the_extra_a_launch_says_what_to_install(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmemu_nb.executors.servers.document", None)
    with pytest.raises(
        InvalidRequest, match=r"needs the package openapi-pydantic. Install it: pip install 'cmemu_nb\[s"
    ):
        emu.launch(["python", "-c", FOREVER], "wrong", server={"openapi": "openapi.json"})


def test_the_options_of_a_magic_and_a_file_are_one_configuration(tmp_path: Path) -> None:
    command, given = parse("launch --openapi openapi.json --server-port 8001 python server.py", {})
    assert (command, given.words) == ("launch", ["python", "server.py"])
    assert given_configuration(given) == {"server": {"openapi": "openapi.json", "port": 8001}}
    config = tmp_path / "module.yaml"
    config.write_text("server: {openapi: a.json, timeout: 1.5}")
    _, given = parse(f"launch --config {config} --server-port 8001 python server.py", {})
    assert given_configuration(given) == {"server": {"openapi": "a.json", "timeout": 1.5, "port": 8001}}
    seed = tmp_path / "seed.yaml"
    runtime = "{runtime_id: books, configuration: {server: {openapi: a.json, timeout: 1.5, port: 8001}}}"
    seed.write_text(f"foundry: {{compute_modules: {{runtimes: [{runtime}]}}}}")
    with Emulator.from_seed(seed, port=0, home="thread") as emu:
        assert repr(emu.lifecycle.configuration("books")) == "<Configuration: server a.json>"
        assert emu.lifecycle.configuration("books").server == ServerOptions("a.json", 8001, 1.5)
