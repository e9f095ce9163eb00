"""Times that the dashboard's browser side writes while the kernel sends nothing are those that Python writes."""

from __future__ import annotations

import json
import random
import subprocess

import pytest
from environments import ROOT, program

from cmemu_nb.display.text import ago, duration

pytestmark = pytest.mark.once

SCRIPT = (ROOT / "cmemu_nb" / "dashboard" / "static" / "times.js").read_text("utf-8")
ASK = """
const times = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(times.map((time) => [durationText(time), agoText(time)])));
"""


def test_durations_and_ages_are_written_as_python_writes_them() -> None:
    rng = random.Random(20)
    edges = [0, 1, 999, 10_000, 59_999_999_999, 60_000_000_000, 3_600_000_000_000, 86_400_000_000_000]
    times = edges + [rng.randrange(10 ** rng.randrange(1, 16)) for _ in range(400)]
    milliseconds = json.dumps([round(each / 1e6, 6) for each in times])
    command = [str(program("nodejs")), "-e", SCRIPT + ASK]
    answer = json.loads(subprocess.run(command, input=milliseconds, text=True, check=True, capture_output=True).stdout)
    wanted = [[duration(each), ago(0, each)] for each in times]
    differing = [both for both in zip(times, wanted, answer, strict=True) if both[1] != both[2]]
    assert differing == []
