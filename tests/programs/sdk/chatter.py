"""Chatter: a TypedDict, a stream of tokens, and results as TypedDicts."""

import logging
import time
from collections.abc import Iterable
from typing import NotRequired, TypedDict

from compute_modules.annotations import function

log = logging.getLogger("chatter")
logging.basicConfig(format="%(name)s says %(message)s", level=logging.INFO)


class Prompt(TypedDict):
    text: str
    max_tokens: NotRequired[int]


class Count(TypedDict):
    words: int
    longest: str


@function(streaming=True)
def tokens(context, event: Prompt) -> Iterable[str]:
    for word in event["text"].split()[: event.get("max_tokens", 100)]:
        time.sleep(0.001)
        yield word


@function
def count_words(context, event: Prompt) -> Count:
    words = event["text"].split()
    log.info("%d words", len(words))
    return {"words": len(words), "longest": max(words, key=len)}
