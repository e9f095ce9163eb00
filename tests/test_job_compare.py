"""What the dashboard computes to compare two jobs of one function."""

from __future__ import annotations

import pytest

from cmemu_nb import Emulator
from cmemu_nb.dashboard.job_compare import MAX_LINES, compare_part

pytestmark = pytest.mark.once


def test_a_job_is_compared_with_the_one_before_it_or_with_another() -> None:
    with Emulator(port=0, home="thread") as emulator:
        runtime = emulator.open_runtime("r")
        alone = runtime.enqueue("alone").id
        first, second, third = (runtime.enqueue("f", {"x": number, "same": [*range(20)]}).id for number in range(3))
        emulator.change(lambda lifecycle: lifecycle.fail(second, "no"))
        part = compare_part(emulator, third, "", 0)
        assert part["other"] == second
        assert [each["value"] for each in part["choices"]] == [second, first]
        assert part["facts"][0] == ["outcome", "failed", "queued"]
        assert ["~", '  "x": 1,', '  "x": 2,'] in part["query"]
        assert part["query"][-1] == ["…", "…", "…"]
        assert len(part["query"]) == 6
        assert part["result"] == [["~", "failed: no", ""]]
        assert compare_part(emulator, third, first, 0)["result"] == []
        assert compare_part(emulator, first, "", 0)["other"] == third
        assert "no other job" in compare_part(emulator, alone, "", 0)["nothing"]
        assert "was removed" in compare_part(emulator, third, "foundry_job_x", 0)["nothing"]


def test_long_texts_are_compared_up_to_a_limit() -> None:
    with Emulator(port=0, home="thread") as emulator:
        runtime = emulator.open_runtime("r")
        runtime.enqueue("f", [*range(2 * MAX_LINES)])
        job_id = runtime.enqueue("f", [*range(1, 2 * MAX_LINES)]).id
        rows = compare_part(emulator, job_id, "", 0)["query"]
        assert len(rows) <= MAX_LINES
        assert rows[-1][0] == "…"
