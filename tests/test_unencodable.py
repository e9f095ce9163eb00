"""A result that the official SDK can't encode: what is posted is the SDK's, what people read says where and why."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import re
import types
import uuid
from fractions import Fraction
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pydantic
import pytest
from compute_modules.client.internal_query_client import InternalQueryService

from cmemu_nb.dashboard.job_detail import job_part
from cmemu_nb.errors import FunctionError, JobFailed
from cmemu_nb.eventloop.ending import Ending
from cmemu_nb.executors.sdk.adapter import define, handle_job
from cmemu_nb.executors.sdk.encoding import unencodable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb import Emulator


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Part:
    name: object
    price: object = None


class Model(pydantic.BaseModel):
    x: int = 1


class Plain:
    pass


def ring() -> dict[str, Any]:
    value: dict[str, Any] = {"a": [1]}
    value["a"].append(value)
    return value


def ring_of_parts() -> Part:
    part = Part("x")
    part.price = part
    return part


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


BAD: list[tuple[Any, str]] = [
    ({"a": np.int64(3)}, r"result\['a'\] is numpy\.int64, .*: return int\(\.\.\.\)"),
    ({"a": [np.float32(3)]}, r"result\['a'\]\[0\] is numpy\.float32, .*: return float"),
    (np.True_, r"result is numpy\.bool_?, .*: return bool"),
    (np.arange(3), r"result is numpy\.ndarray, .*: return its \.tolist\(\)"),
    ([1, (2, np.datetime64("2026-01-01"))], r"result\[1\]\[1\] is numpy\.datetime64, .*: return str"),
    (pd.DataFrame({"a": [1]}), r"result is pandas\.DataFrame, .*: return its \.to_dict\('records'\)"),
    ({"a": pd.Series([1])}, r"result\['a'\] is pandas\.Series, .*: return its \.tolist\(\)"),
    (pd.Index([1]), r"result is pandas\.\w*Index, .*: return its \.tolist\(\)"),
    ([pd.NaT], r"result\[0\] is pandas\.NaTType, .*: return None"),
    ([pd.NA], r"result\[0\] is pandas\.NAType, .*: return None"),
    (pd.Timestamp("2026-01-01"), r"result is pandas\.Timestamp, .*: return its \.tz_localize"),
    (decimal.Decimal("1.1"), r"result is decimal\.Decimal, .*: return str\(\.\.\.\) or float"),
    ({"a": {1}}, r"result\['a'\] is set, .*: return list"),
    (b"x", r"result is bytes, .*: return its \.decode\(\), or base64"),
    (dt.timedelta(1), r"result is datetime\.timedelta, .*: return its \.total_seconds"),
    (dt.time(1), r"result is datetime\.time, .*: return its \.isoformat"),
    (uuid.UUID(int=1), r"result is uuid\.UUID, .*: return str"),
    (Color.RED, r"result is [\w.]+\.Color, .*: return its \.value"),
    (Fraction(1, 2), r"result is fractions\.Fraction, .*: return str"),
    (PurePosixPath("/x"), r"result is pathlib\.PurePosixPath, .*: return str"),
    ({"m": Model()}, r"result\['m'\] is [\w.]+\.Model, .*: return its \.model_dump"),
    (Plain(), r"result is [\w.]+\.Plain, .*: return a dict of its fields, or make its class a dataclass"),
    (Part("x", {"y": (1, decimal.Decimal(1))}), r"result\.price\['y'\]\[1\] is decimal\.Decimal"),
    (Part, r"result is the class Part, .*: return an object of it"),
    (range(3), r"result is range, .*: return list"),
    ((each for each in [1]), r"result is generator, .*: return list.*streaming=True"),
    ({}.keys(), r"result is dict_keys, .*: return list"),
    (types.MappingProxyType({}), r"result is mappingproxy, .*: return dict"),
    (collections.deque([1]), r"result is collections\.deque, .*: return list"),
    (ValueError("x"), r"result is ValueError, .*: return str"),
    ({"a": {(1, 2): 1}}, r"result\['a'\] has the key \(1, 2\), a tuple, .*: return it with str\(\.\.\.\) as the key"),
    ({np.int64(1): 1}, r"result has the key .*1.*, a numpy\.int64"),
    ({dt.date(2026, 1, 1): 1}, r"result has the key datetime\.date\(2026, 1, 1\), a datetime\.date"),
    ({Color.RED: 1}, r"result has the key <Color\.RED: 'red'>, a [\w.]+\.Color"),
    (ring(), r"result\['a'\]\[1\] is result itself, .*: return a value that doesn't contain itself"),
    (ring_of_parts(), r"result\.price is result itself"),
    (deep(), "result is nested too deeply"),
    ({"n": 10**5000}, r"result\['n'\] is an integer with too many digits"),
]
# What the SDK encodes is nobody's mistake, however odd.
GOOD: list[Any] = [
    {"a": [1, 2.5, None, True, "x", (1,)]},
    np.float64(1.5),
    np.str_("x"),
    Level.LOW,
    float("nan"),
    {float("nan"): 1, None: 2, True: 3, 4: 5},
    Part("x", [Part(dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC))]),
    pd.Timestamp("2026-01-01", tz="UTC"),
    collections.Counter("a"),
    "\ud800",
    10**400,
    {"exception": "which the function has returned itself"},
]


pytestmark = pytest.mark.long_lived
values: list[Any] = []


@pytest.fixture(scope="module")
def emulator(runtime_folder: object) -> Iterator[Emulator]:  # noqa: ARG001 - where its file is
    from cmemu_nb import Emulator  # noqa: PLC0415

    with Emulator(port=0, tls_port=0, home="thread") as emulator:
        emulator.function(give)
        yield emulator


def named(name: str, body: Callable[[], Any]) -> Any:
    """Return a function without annotations, for the SDK."""
    function = lambda *_: body()  # noqa: E731
    function.__name__ = name
    return function


give = named("give", lambda: values[-1])


def posted_by_the_sdk(value: object) -> bytes:
    """Return what the SDK's own handler posts, without anything of ours."""
    service: Any = object.__new__(InternalQueryService)
    bodies: list[bytes] = []
    service.__dict__ = {
        "registered_functions": {"give": lambda _context, _event: value},
        "function_schema_conversions": {},
        "is_function_context_typed": {"give": False},
        "streaming": {},
        "logger": types.SimpleNamespace(**dict.fromkeys(("info", "debug", "error"), lambda *_: None)),
        "report_job_result": lambda _job_id, body: bodies.append(body),
    }
    service.handle_job({"computeModuleJobV1": {"jobId": "j", "queryType": "give", "query": {}}})
    return bodies[0]


def without_depth(posted: bytes) -> bytes:
    """Leave out where the stack ended, and in the middle of what: that is never twice the same."""
    return posted.partition(b"recursion depth exceeded")[0]


@pytest.mark.parametrize(("value", "said"), BAD, ids=[str(index) for index in range(len(BAD))])
def test_it_is_named_with_its_path_and_the_cure_and_posted_as_the_sdk_does(
    emulator: Emulator, value: Any, said: str
) -> None:
    values.append(value)
    job = emulator.submit("give")
    assert without_depth(job.raw(timeout=30)) == without_depth(posted_by_the_sdk(value))
    sdk_says = json.loads(job.raw())["exception"].partition(": Traceback")[0]
    with pytest.raises(FunctionError, match=said) as raised:
        job.result()
    assert str(raised.value).endswith(f"own error, here as on the platform, is {sdk_says!r}.")
    assert job.explanation == str(raised.value)
    assert job.status == "succeeded"


@pytest.mark.parametrize("value", GOOD, ids=[str(index) for index in range(len(GOOD))])
def test_what_the_sdk_encodes_is_no_mistake(emulator: Emulator, value: Any) -> None:
    values.append(value)
    job = emulator.submit("give")
    assert job.raw(timeout=30) == posted_by_the_sdk(value)
    assert job.explanation == ""
    assert unencodable(value) is None


def test_it_is_said_wherever_people_look(emulator: Emulator) -> None:
    values.append({"a": np.int64(3)})
    job = emulator.submit("give")
    said = r"result\['a'\] is numpy\.int64, which can't be encoded as JSON: return int\(\.\.\.\)\."
    with pytest.raises(FunctionError, match=said):
        list(job.stream())
    assert re.match(said, emulator.map("give", [{}]).error[0])
    assert re.match(said, job_part(emulator, job.id, 0)["error"]["message"])
    assert re.search(said, job._repr_mimebundle_()["text/plain"])


def test_of_a_module_elsewhere_the_sdk_s_words_are_explained(emulator: Emulator) -> None:
    runtime = emulator.open_runtime("module")
    job = runtime.enqueue("give")
    emulator.change(lambda lifecycle: lifecycle.take("module"))
    emulator.change(lambda lifecycle: lifecycle.finish("module", job.id, posted_by_the_sdk({1})))
    with pytest.raises(FunctionError, match=r"^The result can't be encoded .*numpy.*'Circular reference detected'\.$"):
        job.result()


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([{"a": 1}, {"a": [np.int64(3)]}], r"items\[1\]\['a'\]\[0\] is numpy\.int64, .*: yield int\(\.\.\.\)"),
        (np.arange(3), r"items\[0\] is numpy\.int64, .*: yield int"),
        ([dt.date(2026, 1, 1)], r"items\[0\] is datetime\.date, .*: yield its \.isoformat"),
        ([Part("x")], r"items\[0\] is [\w.]+\.Part, .*: yield dataclasses\.asdict"),
        ([Plain()], r"items\[0\] is [\w.]+\.Plain, .*: yield a dict of its fields\."),
        ([{(1, 2): 3}], r"items\[0\] has the key \(1, 2\)"),
        ([ring()], r"items\[0\]\['a'\]\[1\] is items\[0\] itself"),
    ],
)
def test_an_item_of_a_stream_is_named_too(emulator: Emulator, items: Any, said: str) -> None:
    emulator.function(named("stream", lambda: items), streaming=True)
    with pytest.raises(JobFailed, match=f"the result stream broke off after .* bytes?: TypeError: {said}"):
        emulator.call("stream")


def test_a_generator_s_own_error_stays_its_own(emulator: Emulator) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise TypeError("mine")

    emulator.function(named("stream", items), streaming=True)
    with pytest.raises(JobFailed, match=r"broke off after 1 bytes?: TypeError: mine$"):
        emulator.call("stream")


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("ab", "returned a str, so each of its characters is an item: yield the text"),
        (b"ab", "returned a bytes, so each of its bytes is an item"),
        (pd.DataFrame({"a": [1]}), r"pandas\.DataFrame, so the names of its columns are the items: return its \.to_di"),
        (Model(), r"Model, so each of its fields is an item: yield its \.model_dump"),
    ],
)
def test_a_stream_that_the_sdk_takes_apart_oddly_is_told_in_the_log(emulator: Emulator, result: Any, said: str) -> None:
    emulator.function(named("stream", lambda: result), streaming=True)
    job = emulator.submit("stream")
    job.raw(timeout=30)
    assert re.search(said, job.logs)


def test_nothing_is_searched_in_results_that_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large result costs as much as with the SDK alone."""
    monkeypatch.setattr("cmemu_nb.executors.sdk.adapter.unencodable", None)
    bodies: list[Any] = []
    explain: Callable[[str], object] = bodies.append
    envelope = {"computeModuleJobV1": {"jobId": "j", "queryType": "give", "query": {}}}
    values.append({"a": 1})
    handle_job(define(give), envelope, bodies.append, explain, Ending())
    assert bodies == [b'{"a": 1}']
