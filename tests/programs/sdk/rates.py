"""Rates: pydantic inside of the functions, and a thread that refreshes a cache; two functions never work."""

import threading

from compute_modules.annotations import function
from pydantic import BaseModel, ValidationError

_cache: dict = {}
_ready = threading.Event()
_end = threading.Event()


class Exchange(BaseModel):
    amount: float
    currency: str = "EUR"


def _refresh():
    while True:
        _cache.update({"EUR": 1.0, "USD": 1.25})
        _ready.set()
        if _end.wait(60):
            return


threading.Thread(target=_refresh, name="refresh", daemon=True).start()
_ready.wait()


@function
def exchange(context, event) -> float:
    request = Exchange(**event)
    return request.amount * _cache[request.currency]


@function
def health(context):
    return "ok"


@function
def check(context, event) -> str:
    try:
        Exchange.model_validate(event)
    except ValidationError as error:
        return f"{error.error_count()} errors"
    return "valid"


@function
def currencies(context, event):
    yield from _cache
