"""Functions as in a cell, as they are written; the client SDK's tests call them."""

import datetime
import decimal
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from compute_modules.function_registry.types import Byte, Double, Long, Short

GO_ON = threading.Event()
BIG = 2**60 + 1


@dataclass
class Part:
    at: datetime.datetime
    amount: Long
    note: Optional[str]


@dataclass
class Everything:
    truth: bool
    byte: Byte
    short: Short
    integer: int
    long: Long
    float_: float
    double: Double
    decimal: decimal.Decimal
    text: str
    binary: bytes
    date: datetime.date
    timestamp: datetime.datetime
    array: list[Long]
    set_: set[str]
    map_: dict[str, Long]
    struct: Part
    optional: Optional[int]


@dataclass
class Echo:
    long: Long
    integer: int
    date: datetime.date
    timestamp: datetime.datetime
    array: list[Long]
    map_: dict[str, Long]
    struct: Part
    text: str
    decimal: str
    told: dict[str, str]


def _utc(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(tzinfo=datetime.UTC)


def echo(context, event: Everything) -> Echo:
    names = ("decimal", "binary", "date", "optional", "byte", "truth", "double")
    told = {name: repr(getattr(event, name)) for name in names} | {"set_": repr(sorted(event.set_))}
    return {
        "long": event.long,
        "integer": event.integer,
        "date": event.date,
        "timestamp": _utc(event.timestamp),
        "array": event.array,
        "map_": event.map_,
        "struct": Part(_utc(event.struct.at), event.struct.amount, event.struct.note),
        "text": event.text,
        "decimal": str(event.decimal),
        "told": told,
    }


@dataclass
class Name:
    name: str
    greeting: str = "Hello"


def greet(context, event: Name) -> str:
    return f"{event.greeting} {event.name}"


def fail(context, event) -> str:
    raise ValueError("it failed: badly")


def count(context, event) -> Iterable[Long]:
    yield str(BIG)
    GO_ON.wait(30)
    yield "-7"
    yield "0"


def one_item(context, event) -> Iterable[str]:
    yield "only\u2028one"


def break_half_way(context, event) -> Iterable[str]:
    yield "first"
    raise ValueError("half way")


PLAIN = (echo, greet, fail)
STREAMING = (count, one_item, break_half_way)
