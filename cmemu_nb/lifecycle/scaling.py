"""How many replicas a module has: what Foundry documents of its scaling, decided on a clock that is passed in.

The documentation is https://www.palantir.com/docs/foundry/compute-modules/scaling.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import msgspec

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.phrases import abbreviated

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_REPLICAS = 10_000


@dataclass(frozen=True)
class Scaling:
    """Between how many replicas a module is scaled, and when. Raises `InvalidRequest` for a value that is not valid.

    The load of a module is its running jobs / (its replicas * `max_concurrent_tasks`) [foundry]. A replica that is
    starting counts, one that is being decommissioned does not [ours].

    - `min` and `max`: the smallest and the largest number of replicas, 0 and 4 by default [ours]. A module starts with
      `min` replicas, or with one if that is 0 [foundry]. With none, the first job that is queued starts one at once
      [foundry].
    - `scale_up_load_threshold` and `scale_up_delay`: one replica is added when the load was at or above the threshold,
      0.75 by default, for that many seconds, 60 by default [foundry].
    - `scale_down_load_threshold` and `scale_down_delay`: one replica is removed when the load was below the threshold,
      0.75 by default, for that many seconds, 1,800 by default [foundry]; the last one only if no job was running or
      queued in that time [ours], and none while another one is starting [ours].
    - `speedup`: how many times faster the delays pass, 1.0 by default [ours]: with 60, a minute takes a second.

    Each change begins both delays anew [ours].

    >>> from cmemu_nb import Scaling
    >>> Scaling(min=0, max=2, speedup=60)
    Scaling(min=0, max=2, speedup=60)
    """

    min: int = 0
    max: int = 4
    scale_up_load_threshold: float = field(default=0.75, kw_only=True)
    scale_down_load_threshold: float = field(default=0.75, kw_only=True)
    scale_up_delay: float = field(default=60.0, kw_only=True)
    scale_down_delay: float = field(default=1800.0, kw_only=True)
    speedup: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        _check_counts(self)
        for name in ("scale_up_load_threshold", "scale_down_load_threshold"):
            _check_number(name, getattr(self, name), "from 0 to 1", 0, 1)
        for name in ("scale_up_delay", "scale_down_delay"):
            _check_number(name, getattr(self, name), "a number of seconds, at least 0", 0)
        _check_number("speedup", self.speedup, "a number greater than 0", math.ulp(0))
        for smaller, larger in (
            ("scale_down_load_threshold", "scale_up_load_threshold"),
            ("scale_up_delay", "scale_down_delay"),
        ):
            if getattr(self, smaller) > getattr(self, larger):
                raise InvalidRequest(
                    f"{smaller} of a module's scaling, {getattr(self, smaller):g}, is greater than {larger}, "
                    f"{getattr(self, larger):g}, which the platform does not allow."
                )

    @property
    def first(self) -> int:
        """How many replicas a module is started with."""
        return max(1, self.min)

    @property
    def in_words(self) -> str:
        """The values that differ from the defaults, as `min=0, max=2, speedup=60`; `min` and `max` always."""
        shown = [
            each for each in fields(self) if each.name in ("min", "max") or getattr(self, each.name) != each.default
        ]
        return ", ".join(f"{each.name}={getattr(self, each.name):g}" for each in shown)

    def __repr__(self) -> str:
        return f"Scaling({self.in_words})"


NAMES = tuple(each.name for each in fields(Scaling))


def read_scaling(values: Mapping[str, object]) -> Scaling:
    """Return the scaling with these values, whose names are known to be fields; they are checked."""
    return Scaling(**values)  # type: ignore[arg-type]


def _check_counts(scaling: Scaling) -> None:
    counts: tuple[tuple[str, object, int], ...] = (("min", scaling.min, 0), ("max", scaling.max, 1))
    for name, value, least in counts:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_REPLICAS:
            raise InvalidRequest(
                f"{name} of a module's scaling must be a whole number from {least} to {MAX_REPLICAS:,}, not "
                f"{abbreviated(value)}."
            )
    if scaling.min > scaling.max:
        raise InvalidRequest(
            f"min of a module's scaling, {scaling.min}, is greater than max, {scaling.max}. Give a max of at least "
            f"{scaling.min}."
        )


def _check_number(name: str, value: object, expected: str, least: float, most: float = sys.float_info.max) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidRequest(f"{name} of a module's scaling must be {expected}, not {abbreviated(value)}.")


class Scale(msgspec.Struct, frozen=True):
    """How many replicas the module of a runtime should have now, and between how many it is scaled."""

    replicas: int
    min: int
    max: int


class Decision(msgspec.Struct, frozen=True):
    """One change of the number of replicas: `load` is the load that led to it, None if a job woke the module.

    `seconds` is for how long the load was at or above, or below, the `threshold`.
    """

    before: int
    after: int
    load: float | None = None
    threshold: float = 0.0
    seconds: float = 0.0

    def why(self, speedup: float) -> str:
        """Return the clause that gives the reason; `speedup` is that of the module's scaling."""
        if self.load is None:
            return "a job is queued"
        where = "at or above" if self.after > self.before else "below"
        passed = f" ({self.seconds / speedup:,g} s at speedup {speedup:g})" if speedup != 1 else ""
        return f"the load was {where} {self.threshold:g} for {self.seconds:,g} s{passed}, and is {self.load:.2f}"


class Scaler:
    """Decides how many replicas a module should have, from what it is told at each change of its jobs and replicas.

    It has no clock: `observe()` is given the time, in seconds from any beginning. `due` is when `observe()` will decide
    at the latest if nothing changes until then, None if it will not.
    """

    def __init__(self, scaling: Scaling, max_concurrent_tasks: int) -> None:
        self._scaling = scaling
        self._tasks = max_concurrent_tasks
        self._above: float | None = None
        self._below: float | None = None
        self.due: float | None = None

    def observe(
        self, now: float, running: int, queued: int, replicas: int, *, starting: bool = False
    ) -> Decision | None:
        """Return what changes at this moment, None if nothing does; after a change, observe the new number at once.

        `starting` says whether any replica has been started and does not take jobs yet.
        """
        scaling = self._scaling
        load = running / (replicas * self._tasks) if replicas else 0.0
        self._above = _since(self._above, now, holds=load >= scaling.scale_up_load_threshold)
        may_shrink = not starting and (replicas > 1 or not (running or queued))
        self._below = _since(self._below, now, holds=load < scaling.scale_down_load_threshold and may_shrink)
        up = None if self._above is None or not replicas < scaling.max else self._above + scaling.scale_up_delay
        down = None if self._below is None or not replicas > scaling.min else self._below + scaling.scale_down_delay
        if not replicas:
            up = None
            if queued:
                return self._decide(Decision(0, scaling.first))
        if up is not None and up <= now:
            threshold = scaling.scale_up_load_threshold
            return self._decide(Decision(replicas, replicas + 1, load, threshold, scaling.scale_up_delay))
        if down is not None and down <= now:
            threshold = scaling.scale_down_load_threshold
            return self._decide(Decision(replicas, replicas - 1, load, threshold, scaling.scale_down_delay))
        self.due = min((each for each in (up, down) if each is not None), default=None)
        return None

    def _decide(self, decision: Decision) -> Decision:
        self._above = self._below = self.due = None
        return decision


def _since(since: float | None, now: float, *, holds: bool) -> float | None:
    """Return since when a condition holds, which held `since` then; None if it does not hold."""
    if not holds:
        return None
    return now if since is None else since
