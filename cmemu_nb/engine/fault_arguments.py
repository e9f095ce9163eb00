"""Reading and checking the arguments of `emu.faults(...)`."""

from __future__ import annotations

from numbers import Integral, Real
from random import Random
from typing import TYPE_CHECKING, Any, cast

from cmemu_nb.errors import InvalidRequest, NotFound, not_served
from cmemu_nb.phrases import abbreviated
from cmemu_nb.wire.labels import checked_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.lifecycle.lifecycle import Lifecycle

# The faults that occur with a probability, and what each does.
CHANCES = {
    "error_rate": "Answer results, schemas and restart notifications with 500.",
    "drop_result": "Answer a result with 204, and discard it.",
    "truncate_result": "Keep only the beginning of a result.",
    "duplicate_dispatch": "Dispatch a job a second time.",
    "reject_poll": "Answer polls with 503.",
    "disconnect": "Close connections instead of answering.",
}
FAULTS = ("delay", *CHANCES)
MAX_SECONDS = 86_400
_WHAT = "Setting faults"


class Delay:
    """How long answers are delayed: `seconds(random)` chooses a time, `words` describes the choice."""

    def __init__(self, choose: Callable[[Random], Any], words: str) -> None:
        self._choose = choose
        self.words = words

    def seconds(self, random: Random) -> float:
        """Choose a number of seconds; raises `InvalidRequest` if the user's function fails or returns another value."""
        try:
            chosen = self._choose(random)
        except Exception as error:
            raise InvalidRequest(
                f"{_WHAT}: the delay {self.words} raised {type(error).__name__}: {error}. "
                "Its argument is a random.Random."
            ) from error
        if not _is_seconds(chosen):
            raise InvalidRequest(
                f"{_WHAT}: the delay {self.words} returned {abbreviated(chosen)}, which is not a number of seconds."
            )
        return float(chosen)


def read_delay(value: Any) -> Delay:
    """Read a delay: seconds, (low, high) in seconds, or a function of a `random.Random` that returns seconds."""
    if _is_seconds(value):
        return Delay(lambda _: value, f"{float(value):g} s")
    if isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_seconds, value)) and value[0] <= value[1]:  # noqa: PLR2004
        low, high = map(float, value)
        return Delay(lambda random: random.uniform(low, high), f"{low:g} to {high:g} s")
    if callable(value):
        delay = Delay(value, f"of {getattr(value, '__name__', repr(value))}")
        delay.seconds(Random(0))  # noqa: S311 - nothing secret
        return delay
    raise InvalidRequest(
        f"{_WHAT}: delay must be seconds, from 0 to {MAX_SECONDS}, (low, high) in seconds, or a function that takes "
        f"a random.Random and returns seconds, not {abbreviated(value)}."
    )


def _is_seconds(value: object) -> bool:
    return _is_number(value, MAX_SECONDS)


def _is_number(value: object, maximum: float) -> bool:
    return isinstance(value, Real) and 0 <= cast("float", value) <= maximum


def read_chances(given: dict[str, Any]) -> dict[str, float]:
    """Read the probabilities that are not None: from 0, never, to 1, always."""
    chances = {name: value for name, value in given.items() if value is not None}
    for name, value in chances.items():
        if not _is_number(value, 1):
            raise InvalidRequest(
                f"{_WHAT}: {name} must be a chance from 0, never, to 1, always, not {abbreviated(value)}."
            )
    return {name: float(value) for name, value in chances.items()}


def check_that_any(delay: object, chances: dict[str, float], function: str | None) -> None:
    """Reject a call without any fault, and one with a `function` for a fault that concerns no function."""
    if delay is None and not chances:
        raise InvalidRequest(f"{_WHAT}: no fault was given. The faults are {', '.join(FAULTS)}.")
    if function is not None and "reject_poll" in chances:
        raise InvalidRequest(
            f"{_WHAT}: reject_poll concerns polls, which belong to no function. Leave function out, or set it alone: "
            "faults(reject_poll=0.5)."
        )


def read_runtime(lifecycle: Lifecycle, runtime: Any) -> str | None:
    """Return the id of a runtime that is given by its id or its handle; `NotFound` lists the known ones."""
    if runtime is None:
        return None
    return lifecycle.runtime(checked_text("runtime", getattr(runtime, "id", runtime))).runtime_id


def read_function(lifecycle: Lifecycle, runtime_id: str | None, function: Any) -> str | None:
    """Return the name of a function; raises `NotFound` if schemas were posted and none of them has the name."""
    if function is None:
        return None
    names = {schema.function_name for schema in lifecycle.schemas(runtime_id)}
    if checked_text("function", function) not in names and names:
        raise NotFound(f"{_WHAT}: {not_served(function, names).replace('No', 'no', 1)}")
    return str(function)


def read_seed(seed: Any) -> int:
    """Read a seed, a whole number."""
    if not isinstance(seed, Integral):
        raise InvalidRequest(
            f"{_WHAT}: seed must be a whole number, not {abbreviated(seed)}. Leave it out for a random one."
        )
    return int(seed)
