"""Every pattern takes time in proportion to the text that it reads, however hostile that is."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import resource
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cmemu_nb
from cmemu_nb.tracebacks import of_function

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.once

LENGTH = 50_000
# A linear pattern takes a few milliseconds for a text, one that takes the square of the time more than a second.
CPU_SECONDS = 0.5
NODE_CPU_SECONDS = 20
PACKAGE = Path(cmemu_nb.__file__).parent
UNITS = (*"a0_ \n\t\r.,;:|<>'`-+/(){}[]=&é\x00", '"', "\\", '\\"', "\\u", "d8", '{"', "__", "import ", "\n\n ")
WRONG_END = "\x00\n\x01"


@contextmanager
def bounded(what: object) -> Iterator[None]:
    """Raise when what is done inside takes more than half a second of the processor's time, however busy that is."""

    def end(*_: object) -> None:
        raise AssertionError(f"{what!r} took more than {CPU_SECONDS} s of the processor's time")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def patterns() -> dict[str, re.Pattern[Any]]:
    """Return the patterns of all modules of the package by their full names."""
    modules = [each.name for each in pkgutil.walk_packages([str(PACKAGE)], "cmemu_nb.") if "__main__" not in each.name]
    found = {}
    for name in modules:
        for each, value in vars(importlib.import_module(name)).items():
            if isinstance(value, re.Pattern):
                found[f"{name}.{each}"] = value
    return found


def hostile(pattern: re.Pattern[Any]) -> Iterator[str]:
    """Return texts that nearly match: long runs of each part of what the pattern matches, behind what comes before."""
    parser = importlib.import_module("re._parser")
    source = pattern.pattern
    tree = parser.parse(source if isinstance(source, str) else source.decode("latin-1"), pattern.flags & ~re.UNICODE)
    runs = set(_runs("", tree))
    runs |= {("", unit) for unit in UNITS} | {(before, unit) for before, _ in runs for unit in UNITS}
    for before, unit in runs:
        if unit:
            yield before + unit * (LENGTH // len(unit)) + WRONG_END


def _runs(before: str, items: Any) -> Iterator[tuple[str, str]]:
    """Return each part of an example together with what stands before it."""
    parts = [_example(each) for each in items]
    for start in range(len(parts)):
        for end in range(start, len(parts)):
            yield before + "".join(parts[:start]), "".join(parts[start : end + 1])
        for inner in _inside(items[start]):
            yield from _runs(before + "".join(parts[:start]), inner)


def _inside(item: tuple[Any, Any]) -> list[Any]:
    """Return the sequences in a group, a repetition or a choice."""
    name, value = str(item[0]), item[1]
    if name == "BRANCH":
        return list(value[1])
    if name in ("SUBPATTERN", "MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT", "ASSERT", "ASSERT_NOT"):
        return [value[-1]]
    return [value] if name == "ATOMIC_GROUP" else []


def _example(item: tuple[Any, Any]) -> str:
    """Return a short text that an item matches."""
    name, value = str(item[0]), item[1]
    if name == "LITERAL":
        return chr(value)
    if name == "IN":
        return _one_of(value)
    if name in ("ANY", "NOT_LITERAL"):
        return "a"
    if name in ("ASSERT", "ASSERT_NOT", "AT"):
        return ""
    inside = _inside(item)
    example = "".join(map(_example, inside[0])) if inside else "a"
    return example * max(1, value[0]) if name.endswith("REPEAT") else example


def _one_of(choices: Sequence[tuple[Any, Any]]) -> str:
    """Return a character of a set."""
    first, value = str(choices[0][0]), choices[0][1]
    if first == "NEGATE":
        return next(each for each in "a0 ?" if (not _has(choices[1:], each)))
    if first == "RANGE":
        return chr(value[0])
    return chr(value) if first == "LITERAL" else {"CATEGORY_SPACE": " ", "CATEGORY_DIGIT": "0"}.get(str(value), "a")


def _has(choices: Sequence[tuple[Any, Any]], character: str) -> bool:
    return any(str(kind) == "LITERAL" and value == ord(character) for kind, value in choices)


@pytest.mark.parametrize("name", patterns())
def test_a_pattern_takes_time_in_proportion_to_the_text(name: str) -> None:
    pattern = patterns()[name]
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    uses = set(re.findall(rf"\b{name.rpartition('.')[2]}\.(\w+)\(", source))
    assert uses <= {"match", "fullmatch", "search", "findall", "finditer", "sub"}
    assert uses
    for text in hostile(pattern):
        subject = text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")
        for use in uses:
            # All but the first two look for the pattern everywhere.
            method = pattern.fullmatch if use == "fullmatch" else pattern.match if use == "match" else pattern.findall
            with bounded((use, subject[:40])):
                method(subject)


def test_what_a_function_posts_of_an_error_is_read_in_time_in_proportion_to_its_length() -> None:
    heading = "Traceback (most recent call last):\n"
    frame = 'File "' + "/cmemu_nb/executors/" * (LENGTH // 20) + "\n"
    said = "A: X\n" * (LENGTH // 5)
    for text in (f"x: {heading}{frame}", f"{said}: {heading}A: {said}", f"{'a' * LENGTH}b: {heading}{'a' * LENGTH}"):
        with bounded(text[:40]):
            of_function(text)


def test_the_patterns_of_the_dashboard_take_time_in_proportion_to_the_text() -> None:
    texts = {path.name: path.read_text() for path in (PACKAGE / "dashboard" / "static").glob("*.js")}
    literal = r"(?:replace\(|return |= )/((?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+)/([a-z]*)[.,]"
    found = [each for text in texts.values() for each in re.findall(literal, text)]
    assert len(found) >= 5
    lines = [("", unit) for unit in UNITS] + [(before, unit) for before in ('"', "{", "1", "0.") for unit in UNITS]
    subjects = [before + unit * (LENGTH // len(unit)) + WRONG_END for before, unit in lines]
    program = (
        "const subjects = JSON.parse(require('fs').readFileSync(0));\n"
        "for (const [pattern, flags] of JSON.parse(process.argv[1])) {\n"
        "  for (const subject of subjects) {\n"
        "    console.log(pattern, JSON.stringify(subject.slice(0, 20)));\n"
        "    subject.replace(new RegExp(pattern, flags), '');\n"
        "  }\n"
        "}\n"
    )
    done = subprocess.run(
        ["node", "-e", program, json.dumps(found)],
        input=json.dumps(subjects),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (NODE_CPU_SECONDS, NODE_CPU_SECONDS)),
    )
    assert done.returncode == 0, f"{done.stdout[-200:]} {done.stderr[-1000:]}"
