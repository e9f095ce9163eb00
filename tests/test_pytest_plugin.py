"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["pytester"]

TESTS = """
def test_one(cmemu):
    cmemu.open_runtime("r")
    assert len(cmemu.runtimes) == 1

def test_other(cmemu):
    assert len(cmemu.runtimes) == 0
"""


def test_the_emulator_is_empty_in_each_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    pytester.runpytest_subprocess().assert_outcomes(passed=2)
