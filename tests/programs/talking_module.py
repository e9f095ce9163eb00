"""A module for the official Python SDK that prints, and whose loggers write lines of a format of its own."""

import logging
import sys
from typing import Iterable

from compute_modules.annotations import function
from compute_modules.logging import get_logger, setup_logger_formatter

log = get_logger("talking")
log.setLevel("INFO")
setup_logger_formatter(logging.Formatter("%(levelname)-8s| %(message)s"))
print("talking starts")


@function
def talk(context, event) -> str:
    print("printed", event["word"])
    print("to stderr", event["word"], file=sys.stderr)
    log.info("logged %s", event["word"])
    return event["word"]


@function(streaming=True)
def spell(context, event) -> Iterable[str]:
    for letter in event["word"]:
        print("spells", letter)
        yield letter


@function
def crash(context, event) -> str:
    print("about to crash")
    raise ValueError(event["word"])
