"""A compute module as its author would write it, with the official Python SDK."""

import datetime
import decimal
import os
import sys
import time
from dataclasses import dataclass
from typing import Iterable, Optional

from compute_modules.annotations import function
from compute_modules.context import QueryContext
from compute_modules.logging import get_logger

log = get_logger("orders")
log.setLevel("INFO")


@dataclass
class Item:
    name: str
    price: decimal.Decimal


@dataclass
class Order:
    items: list[Item]
    placed: datetime.datetime
    due: datetime.date
    note: Optional[str]
    stamp: bytes
    discount: float = 0.0


@function
def describe(context: QueryContext, event: Order) -> dict[str, str]:
    total = sum(item.price for item in event.items)
    days = (event.due - event.placed.date()).days
    return {"total": str(total), "days": str(days), "note": str(event.note), "stamp": event.stamp.decode()}


@function
def echo(context, event):
    return event


@function
def who(context, event) -> int:
    return os.getpid()


@function
def slow(context, event) -> int:
    log.info("slow begins")
    time.sleep(event["seconds"])
    return os.getpid()


@function
def fail(context, event):
    log.warning("about to fail", params={"order": 12})
    raise ValueError("it failed")


@function
def large(context, event) -> str:
    return "x" * event["size"]


@function
def configuration(context: QueryContext, event):
    from compute_modules.auth import retrieve_pipeline_token
    from compute_modules.resources import get_pipeline_resources
    from compute_modules.sources import get_source_config, get_source_secret

    return {
        "secret": get_source_secret("Crm", "password"),
        "in context": context.sources["Crm"]["password"],
        "configuration": get_source_config("Crm"),
        "resource": get_pipeline_resources()["orders"].rid,
        "token": retrieve_pipeline_token(),
        "client": [context.CLIENT_ID, context.CLIENT_SECRET],
    }


@function
def ask_a_source(context, event):
    from compute_modules.sources_v2 import get_source

    source = get_source(event["name"])
    connection = source.get_https_connection()
    with connection.get_client() as client:
        answer = client.get(f"{connection.url}/orders", params=connection.query_params)
    credentials = source.get_session_credentials().get()
    return {
        "answer": answer.json(),
        "secret": source.get_secret("password"),
        "configuration": source.source_configuration,
        "credentials": credentials.access_token,
    }


@function
def reach_the_platform(context, event):
    import json
    import urllib.request

    import httpx
    import requests

    url = f"https://{os.environ['FOUNDRY_URL']}/_emulate/health"
    with urllib.request.urlopen(url) as answer:
        return [requests.get(url).json()["status"], httpx.get(url).json()["status"], json.load(answer)["status"]]


@function
def call_without_naming_the_host(context, event):
    from compute_modules.auth import oauth
    from foundry_sdk import FoundryClient, UserTokenAuth

    token = oauth(os.environ["FOUNDRY_HOSTNAME"], ["api:functions-execute"])
    client = FoundryClient(auth=UserTokenAuth(token))
    return client.functions.Query.execute("describe", parameters=event["order"]).value


@function
def use_its_client(context, event):
    from compute_modules.auth import oauth
    from foundry_sdk import Config, FoundryClient, UserTokenAuth

    token = oauth(event["host"], ["api:functions-execute"])
    config = Config(verify=os.environ["DEFAULT_CA_PATH"])
    client = FoundryClient(auth=UserTokenAuth(token), hostname=event["host"], config=config)
    return client.functions.Query.execute("describe", parameters=event["order"]).value


@function(streaming=True)
def count(context, event) -> Iterable[str]:
    for number in range(event["to"]):
        yield str(number)
        if event.get("until"):
            while not os.path.exists(event["until"]):
                time.sleep(0.01)


@function(streaming=True)
def break_half_way(context, event) -> Iterable[str]:
    yield "first"
    raise ValueError("half way")


@function(streaming=True)
def yield_a_set(context, event) -> Iterable[str]:
    yield "first"
    yield {1}


if "threads" in sys.argv:
    from compute_modules.startup import ConcurrencyType, start_compute_module

    start_compute_module(ConcurrencyType.THREAD_POOL)
