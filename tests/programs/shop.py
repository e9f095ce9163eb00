"""The functions of a small shop, which the dashboard's pictures show."""

import random
import threading
import time
from dataclasses import dataclass

slots = threading.Event()


@dataclass
class Order:
    item: str
    amount: int
    price: str


@dataclass
class Days:
    days: int


def total(context, event: Order) -> float:
    """The price of an order, with tax."""
    time.sleep(0.1 + 0.4 * random.random())
    return round(1.2 * event.amount * float(event.price), 2)


def forecast(context, event: Days) -> float:
    """How much will be sold in the next days."""
    print(f"a forecast for {event.days} days")
    slots.wait()
    return 31.4
