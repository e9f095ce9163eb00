"""Functions whose types an ontology describes, with maps; the tests of the ontologies routes call them."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from compute_modules.function_registry.types import Double, Long


@dataclass
class Order:
    item: str
    amount: Long
    at: datetime.datetime
    note: Optional[str]


@dataclass
class Orders:
    orders: list[Order]
    prices: dict[str, Double]
    stock: dict[int, dict[str, Long]]
    days: dict[datetime.date, set[str]]
    title: Optional[str]


@dataclass
class Summary:
    total: Double
    first: Order
    counts: dict[int, Long]
    sizes: dict[Long, Double]
    items: list[dict[str, Long]]
    seen: str


@dataclass
class Limit:
    limit: int = 3


def summarize(context, event: Orders) -> Summary:
    return {
        "total": sum(event.prices[order.item] * order.amount for order in event.orders),
        "first": event.orders[0],
        "counts": {key: sum(counts.values()) for key, counts in event.stock.items()},
        "sizes": {2**60 + 1: 0.5},
        "items": [{order.item: order.amount} for order in event.orders],
        "seen": repr((event.stock, event.days)),
    }


def flags(context, event) -> dict[bool, Double]:
    return {True: 0.5}


def nothing(context, event) -> None:
    pass


def user_of(context, event) -> str:
    return context["userId"]


def fail(context, event) -> str:
    raise ValueError("it failed: badly")


def prices(context, event: Limit) -> Iterable[dict[str, Double]]:
    for number in range(event.limit):
        yield {f"item {number}": number + 0.5}


PLAIN = (summarize, flags, nothing, user_of, fail)
STREAMING = (prices,)
