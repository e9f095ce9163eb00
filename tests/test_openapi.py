"""The OpenAPI document is complete and true: every part described, its examples such as the server takes and gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from client import MODULE_HEADER, SUBMIT, Api, prepared_dataset
from conftest import TOKEN, serving
from schemathesis.specs.openapi import definitions
from updates import open_updates
from web_pages import answer_sign_in_page

from cmemu_nb import Emulator
from cmemu_nb.errors import WireError
from cmemu_nb.server.application import ROUTES, SURFACES
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.document import PATH_PARAMETERS, document
from cmemu_nb.server.routes.oauth import FORM
from cmemu_nb.server.routing import Route, Surface
from cmemu_nb.wire.paths import AUTHORIZE, PLATFORM, PUBLIC_API, UI

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

Operation = dict[str, Any]
DOCUMENT = document(SURFACES, "1.0")
# What their answers hold besides is the user's.
FREE = {"query", "schema_payload", "paths", "components", "info"}
# The routes that answer when a runtime has posted the result.
AWAITING = ("/execute", "/streamingExecute", "/streamingExecuteEvents")


def operation(route: Route) -> Operation:
    described: Operation = DOCUMENT["paths"][route.path][route.method.lower()]
    return described


def media(route: Route) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every body of a route and what the document says of it."""
    described = operation(route)
    for kind, body in described.get("requestBody", {}).get("content", {}).items():
        yield f"the request, {kind}", body
    for status, answer in described["responses"].items():
        for kind, body in answer.get("content", {}).items():
            yield f"the answer {status}, {kind}", body


def undescribed(schema: Any, path: str) -> Iterator[str]:
    """Return the members of a schema that nothing is said of; a constant says all."""
    for each in schema.get("oneOf", []):
        yield from undescribed(each, path)
    if "items" in schema:
        yield from undescribed(schema["items"], f"{path}[]")
    for name, member in schema.get("properties", {}).items():
        if not member.keys() & {"description", "const"}:
            yield f"{path}.{name}"
        yield from undescribed(member, f"{path}.{name}")


def lacking(route: Route) -> list[str]:
    """Say what a route has left out of its description, and where to put it."""
    described = operation(route)
    found = ["its handler has no documentation"] if not described["description"] else []
    found += [] if route.summary else ["it has no summary"]
    found += [
        f"nothing describes its parameter {each['name']}: add a description to "
        f"{'PATH_PARAMETERS of openapi/document.py' if each['in'] == 'path' else 'its schema in query'}"
        for each in described["parameters"]
        if not each.get("description")
    ]
    return [*found, *lacking_in_answers(described), *lacking_in_schemas(route)]


def lacking_in_answers(described: Operation) -> Iterator[str]:
    for status, answer in described["responses"].items():
        if status >= "400" and not any(each["examples"] for each in answer["content"].values()):
            yield f"no error has its status {status}: add the error's class to errors"
        if not answer["description"]:
            yield f"its status {status} is not described: add it to answers"


def lacking_in_schemas(route: Route) -> Iterator[str]:
    for name, schema in (("body", route.body), ("answer", route.answer)):
        if schema is not None and not schema.get("examples"):
            yield f"its {name} has no examples: wrap the schema in schemas.shown(schema, example)"
        for member in undescribed(schema or {}, name):
            yield f"nothing describes {member}: wrap its schema in schemas.described(schema, words)"


# The document


def test_it_is_valid_by_the_official_schema_of_openapi_3_1() -> None:
    errors = list(definitions.OPENAPI_31_VALIDATOR.iter_errors(DOCUMENT))
    assert [str(error) for error in errors] == []
    assert DOCUMENT["openapi"] == "3.1.0"


def test_each_of_its_schemas_is_valid_json_schema() -> None:
    schemas = [*DOCUMENT["components"]["schemas"].values()]
    for route in ROUTES:
        schemas += [body["schema"] for _, body in media(route)]
        schemas += [parameter["schema"] for parameter in operation(route)["parameters"]]
    for schema in schemas:
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_is_described_in_full(route: Route) -> None:
    assert lacking(route) == [], f"{route.method} {route.path} is not described in full"


def test_every_record_is_described_in_full() -> None:
    records = DOCUMENT["components"]["schemas"].items()
    assert [path for name, schema in records for path in undescribed(schema, name)] == []


def test_what_a_route_leaves_out_is_named() -> None:
    bare = Route(
        "POST",
        "/bare/{thing}",
        lambda *_: None,  # type: ignore[arg-type]
        Auth.NONE,
        {200: "", 409: "It clashes"},
        "",
        body={"type": "object", "properties": {"x": {}}},
        query={"page": {"type": "integer"}},
    )
    DOCUMENT["paths"][bare.path] = document([Surface("bare", "", (bare,))], "")["paths"][bare.path]
    try:
        found = " ".join(lacking(bare))
    finally:
        del DOCUMENT["paths"][bare.path]
    for words in ("documentation", "summary", "thing", "page", "status 409", "status 200", "examples", "body.x"):
        assert words in found


def test_operations_have_ids_of_their_own_and_tags_that_are_described() -> None:
    operations = [operation(route) for route in ROUTES]
    ids = [each["operationId"] for each in operations]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    assert {tag for each in operations for tag in each["tags"]} == set(tags)
    assert all(tags.values())


def test_the_document_is_the_same_from_the_emulator_running_or_not(emu: Emulator, api: Api) -> None:
    served = api.send("GET", "/openapi.json").json()
    assert json.loads(json.dumps(emu.openapi())) == served
    assert json.loads(json.dumps(Emulator(port=0).openapi())) == served


# Examples


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_example_is_valid_by_its_own_schema(route: Route) -> None:
    for what, body in media(route):
        schema = {"components": DOCUMENT["components"], **body["schema"]}
        for example in body.get("examples", {}).values():
            errors = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(example["value"])]
            assert errors == [], what
    for parameter in operation(route)["parameters"]:
        for name, where in (("example", parameter), ("default", parameter["schema"])):
            if name in where:
                jsonschema.validate(where[name], parameter["schema"])


def test_an_error_has_an_example_with_its_code() -> None:
    known = {kind.code for kind in every_error(WireError)}
    for route in ROUTES:
        for status, answer in operation(route)["responses"].items():
            if status >= "400":
                (body,) = answer["content"].values()
                name_of = "errorName" if route.path.startswith(PUBLIC_API) else "error"
                codes = {name: each["value"][name_of] for name, each in body["examples"].items()}
                assert list(codes) == list(codes.values())
                if name_of == "error":
                    assert list(codes) == body["schema"]["properties"]["error"]["enum"]
                    assert set(codes) <= known


def every_error(kind: type[WireError]) -> Iterator[type[WireError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from every_error(each)


class Prepared:
    """A runtime with a job that is ready for a route, and to which the ids of the examples lead."""

    def __init__(self, emu: Emulator, api: Api, route: Route) -> None:
        self.client = {"client_id": emu.client_id, "client_secret": str(emu.client_secret)}
        self.api = api
        self.emu = emu
        self.route = route
        self.runtime = api.open(examples.RUNTIME_ID, examples.RID, displayName="My app")
        self.runtime.post_schemas(examples.SCHEMAS[0])
        self.values = {name: example for name, (_, example) in PATH_PARAMETERS.items()} | {"userId": "cmemu"}
        if "streams" not in route.path:
            self.values |= emu.change(lambda lifecycle: prepared_dataset(lifecycle, route.path))
        self.scratch_token = emu.env(examples.RUNTIME_ID)["SCRATCH_TOKEN"]
        value = examples.CACHE_VALUE["value"]
        emu.change(lambda lifecycle: lifecycle.put_cached(examples.RUNTIME_ID, examples.CACHE_KEY["key"], value, 60))
        self.make_streams()
        self.job_id = api.contour("POST", SUBMIT, json=examples.CALL).json()["id"]
        if route.receiver is not None or route.path.endswith(("/fail", "/restart")):
            self.take()
        elif not route.path.endswith("/job"):
            self.take()
            self.finish(self.job_id)

    def make_streams(self) -> None:
        """Make the stream of the examples with a record, unless the route creates it, or one that takes bytes."""
        binary = self.route.path.endswith("/publishBinaryRecord")
        schema = {"bytes": "BINARY"} if binary else examples.STREAM_SCHEMA
        if not self.route.path.endswith("/datasets/create"):
            stream = self.emu.streams.create("readings", schema, rid=examples.STREAM_RID)
            stream.publish({"bytes": b""} if binary else examples.RECORD)
            self.values["viewRid"] = stream.view_rid
            earliest = examples.NEW_SUBSCRIBER["readPosition"]
            self.emu.change(
                lambda state: state.create_subscriber(stream.rid, "master", "alerts", earliest, (0,))  # type: ignore[arg-type]
            )

    def take(self) -> str:
        platform = self.route.path.startswith(PLATFORM)
        job_uri = f"{PLATFORM}/job" if platform else self.runtime.session["getJobUri"]
        answer = self.runtime.send("GET", job_uri, headers={"Prefer": "wait=30"})
        job_id: str = answer.json()["computeModuleJobV1"]["jobId"]
        return job_id

    def finish(self, job_id: str) -> None:
        answer = self.runtime.post_result(job_id, examples.RESULT.encode(), Content_Type="application/json")
        assert answer.status_code == 204

    def send(self, example: Any) -> Any:
        """Send a request as the document shows it; its ids lead to the job."""
        path = self.route.path.format(**self.values | {"jobId": self.job_id, "executionId": self.job_id})
        described = operation(self.route)["parameters"]
        options = {each["name"]: each["example"] for each in described if each["in"] == "query" and "example" in each}
        by_bearer = self.route.auth in (Auth.BEARER, Auth.DATA, Auth.EITHER)
        headers = self.api.bearer if by_bearer else self.runtime.headers
        if self.route.auth is Auth.SCRATCH:
            headers = {"Authorization": self.scratch_token}
        if (self.route.method, self.route.path) == ("POST", AUTHORIZE):
            return answer_sign_in_page(self.emu, "cmemu")
        if path == f"{UI}/messages":
            with open_updates(self.api) as page_id:
                return self.api.contour("POST", path, json={**example, "page": page_id})
        if self.route.body_media == FORM:
            return self.api.send(self.route.method, path, data={**example, **self.client})
        body = example if isinstance(example, str) else json.dumps(example)
        real = {examples.JOB_ID: self.job_id, examples.TRANSACTION_RID: self.values["transactionRid"]}
        for shown, found in (real | {examples.DATASET_RID: self.values["datasetRid"]}).items():
            body = body.replace(shown, found)
        data = None if example is None else body
        return self.api.send(self.route.method, path, headers=headers, data=data, params=options)


def request_examples(route: Route) -> list[Any]:
    content = operation(route).get("requestBody", {}).get("content", {})
    return [each["value"] for body in content.values() for each in body["examples"].values()] or [None]


def shape(value: Any) -> Any:
    """Return the members of a JSON value, without what they hold."""
    if isinstance(value, dict):
        return {name: None if name in FREE else shape(each) for name, each in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else []


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_the_server_takes_the_examples_and_answers_in_the_shape_of_the_examples(
    emu: Emulator, api: Api, route: Route, background: Callable[..., Future[Any]]
) -> None:
    responses = operation(route)["responses"]
    for example in request_examples(route):
        emu.streams.clear()
        prepared = Prepared(emu, api, route)
        answering = background(prepared.send, example)
        if route.path.endswith(AWAITING):
            prepared.finish(prepared.take())
        answer = answering.result()
        assert str(answer.status_code) == min(responses)
        if route.answer is not None:
            (shown,) = responses["200"]["content"]["application/json"]["examples"].values()
            answered = answer.text.replace(prepared.values["datasetRid"], examples.DATASET_RID)
            assert shape(json.loads(answered)) == shape(shown["value"])
            jsonschema.validate(answer.json(), {"components": DOCUMENT["components"], **route.answer})


# Headers


def test_the_headers_that_it_names_are_sent(api: Api) -> None:
    runtime = api.open()
    poll = runtime.poll(wait=1)
    assert (poll.status_code, poll.headers["Preference-Applied"]) == (204, "wait=1")
    refused = api.send("POST", SUBMIT, json=examples.CALL)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    other_method = api.send("POST", "/openapi.json")
    assert (other_method.status_code, other_method.headers["Allow"]) == (405, "GET, HEAD")
    with serving(max_queued=1) as emulator:
        full = Api(emulator.url, TOKEN)
        full.open(deployed_app_rid=examples.RID)
        full.submit()
        answer = full.contour("POST", SUBMIT, json=examples.CALL)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    described = DOCUMENT["paths"]
    assert "Retry-After" in described[SUBMIT]["post"]["responses"]["429"]["headers"]
    assert "WWW-Authenticate" in described[SUBMIT]["post"]["responses"]["401"]["headers"]
    assert "Allow" in DOCUMENT["components"]["responses"]["MethodNotAllowed"]["headers"]
    assert DOCUMENT["components"]["securitySchemes"]["moduleAuthToken"]["name"] == MODULE_HEADER
