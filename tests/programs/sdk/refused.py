"""Refused: the SDK rejects the second of three functions, which ends the program there."""

from compute_modules.annotations import function


@function
def first(context, event) -> int:
    return 1


@function
def second(context, event: dict[str, int]) -> int:
    return event["x"]


@function
def third(context, event) -> int:
    return 3
