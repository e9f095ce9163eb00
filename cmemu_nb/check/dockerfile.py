"""The rules for an image, checked in the text of a Dockerfile."""

from __future__ import annotations

import io
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from dockerfile_parse import DockerfileParser

from cmemu_nb.check.findings import ADVICE, CONTAINERS, IMAGES, Finding, Severity
from cmemu_nb.check.secrets import find_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

PLATFORM = "linux/amd64"
MIN_PORT, MAX_PORT = 1024, 65_535
RUNTIME_PORTS = (8945, 8946)
WITHOUT_SHELL = re.compile(r"^scratch$|distroless")
# The options of pip install that are followed by a value.
TAKES_VALUE = ("-r", "--requirement", "-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-t", "--target")
_HEREDOC = re.compile(r"<<-?(['\"]?)(\w+)\1")


class Instruction(NamedTuple):
    """One instruction of a Dockerfile; `line` counts from 1."""

    name: str
    value: str
    line: int


class Stage(NamedTuple):
    """One build stage: its FROM, and the instructions that follow."""

    start: Instruction
    instructions: list[Instruction]

    def last(self, name: str) -> Instruction | None:
        """Return the last instruction of this name."""
        return next((each for each in reversed(self.instructions) if each.name == name), None)


def read_instructions(text: str) -> list[Instruction]:
    """Parse a Dockerfile. The lines of here-documents, which the parser does not know, are left out."""
    parsed = DockerfileParser(fileobj=io.BytesIO(_without_heredocs(text).encode())).structure
    return [Instruction(each["instruction"], each["value"], each["startline"] + 1) for each in parsed]


def _without_heredocs(text: str) -> str:
    lines, ends = [], list[str]()
    for line in text.splitlines():
        if ends:
            if line.strip() == ends[0]:
                ends.pop(0)
            lines.append("#")
            continue
        lines.append(line)
        if not line.lstrip().startswith("#"):
            ends = [found[2] for found in _HEREDOC.finditer(line)]
    return "\n".join(lines) + "\n"


def check_dockerfile(path: str, text: str) -> Iterator[Finding]:
    """Yield the findings in a Dockerfile; the rules concern the last stage, which is the image."""
    instructions = [each for each in read_instructions(text) if each.name not in ("COMMENT", "ARG")]
    stages: list[Stage] = []
    for each in instructions:
        if each.name == "FROM":
            stages.append(Stage(each, []))
        elif stages:
            stages[-1].instructions.append(each)
    yield from find_secrets(path, text, quoted=False)
    if not stages:
        message = "It has no FROM instruction, so no image can be built."
        fix = f"Type: FROM --platform={PLATFORM} python:3.12-slim"
        yield Finding(path, 0, Severity.ERROR, "base-image", message, fix, CONTAINERS)
        return
    image = _with_its_bases(stages)
    yield from _check_user(path, image)
    yield from _check_base(path, image, stages)
    yield from _check_ports(path, image)
    yield from _check_start(path, image)


def _with_its_bases(stages: list[Stage]) -> Stage:
    """Return the last stage, with the instructions of the earlier stages that it begins with."""
    image = stages[-1]
    names = {_base(each.start).partition(" as ")[2] or str(number): each for number, each in enumerate(stages)}
    while (before := names.get(_base(image.start).partition(" as ")[0])) and before is not image:
        image = Stage(before.start, [*before.instructions, *image.instructions])
    return image


def _base(start: Instruction) -> str:
    """Return the name of a base image and of its stage, without options."""
    return " ".join(word for word in start.value.split() if not word.startswith("--")).replace(" AS ", " as ")


def _check_user(path: str, image: Stage) -> Iterator[Finding]:
    user = image.last("USER")
    fix = "Type before CMD or ENTRYPOINT: USER 5000"
    line = user.line if user else image.start.line
    name = user.value.partition(":")[0].strip() if user else ""
    if user is None:
        message = "It has no USER instruction, so the image runs as root, which the platform does not allow."
    elif name.startswith("$"):
        message = f"USER {name} is a variable; the platform needs a number in the image."
    elif not name.isdecimal():
        message = f"USER {name} is a name; the platform needs a number, because a name may stand for root."
    elif int(name) == 0:
        message = "USER 0 is root, which the platform does not allow."
    else:
        return
    yield Finding(path, line, Severity.ERROR, "user", message, fix, CONTAINERS)


def _check_base(path: str, image: Stage, stages: list[Stage]) -> Iterator[Finding]:
    base = _base(image.start).partition(" as ")[0]
    platform = re.search(r"--platform=(\S+)", image.start.value)
    fix = f"Type: FROM --platform={PLATFORM} {base}"
    if platform and platform[1] not in (PLATFORM, "$TARGETPLATFORM"):
        message = f"The platform runs images for {PLATFORM} only, not for {platform[1]}."
        yield Finding(path, image.start.line, Severity.ERROR, "platform", message, fix, CONTAINERS)
    elif not platform:
        message = f"The image is built for the platform of the machine that builds it; it must be {PLATFORM}."
        yield Finding(path, image.start.line, Severity.WARNING, "platform", message, fix, CONTAINERS)
    for stage in stages:
        name = _base(stage.start).partition(" as ")[0]
        if name.endswith(":latest"):
            message = f"{name} is another image each time that it is built."
            fix = f"Name a version: FROM {name.removesuffix('latest')}VERSION"
            yield Finding(path, stage.start.line, Severity.WARNING, "tag", message, fix, IMAGES)
    if WITHOUT_SHELL.search(base):
        message = f"{base} has no /bin/sh, set and tee, so the platform can't collect what the module prints."
        fix = "Use a base image with a shell, such as python:3.12-slim."
        yield Finding(path, image.start.line, Severity.WARNING, "shell", message, fix, IMAGES)


def _check_ports(path: str, image: Stage) -> Iterator[Finding]:
    for each in image.instructions:
        for port in (
            re.findall(r"(?<![\w$-])(\d+)(?=[-/\s]|$)|(?<=-)(\d+)", each.value) if each.name == "EXPOSE" else ()
        ):
            yield from check_port(path, each.line, int("".join(port)))


def check_port(path: str, line: int, port: int) -> Iterator[Finding]:
    """Yield why a port can't be exposed."""
    if not MIN_PORT <= port <= MAX_PORT:
        message = f"Port {port} can't be used: a module is not root, and ports below {MIN_PORT} belong to root."
        fix = f"Expose a port from {MIN_PORT} to {MAX_PORT}, and let the program listen to it."
        yield Finding(path, line, Severity.ERROR, "port", message, fix, IMAGES)
    elif port in RUNTIME_PORTS:
        message = f"Port {port} is the one at which a module finds its runtime, on the same address."
        yield Finding(path, line, Severity.WARNING, "port", message, "Choose another port.", CONTAINERS)


def _check_start(path: str, image: Stage) -> Iterator[Finding]:
    start = image.last("ENTRYPOINT") or image.last("CMD")
    if start is None:
        message = "It has neither ENTRYPOINT nor CMD, so only what the base image starts would run."
        fix = 'Type as the last line: ENTRYPOINT ["python", "app.py"]'
        yield Finding(path, image.start.line, Severity.ERROR, "start", message, fix, CONTAINERS)
    for each in image.instructions:
        if each.name == "RUN" and re.search(r"\bpip3?\s+install\b", each.value):
            yield from _check_installed(path, each)


def _check_installed(path: str, run: Instruction) -> Iterator[Finding]:
    """Yield the packages that a RUN instruction installs without a version."""
    command = re.split(r"\bpip3?\s+install\b", run.value)[1]
    command = re.split(r"&&|\|\||;", command)[0]
    try:
        words = shlex.split(command)
    except ValueError:
        return
    for before, word in zip(["", *words], words, strict=False):
        is_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(\[[\w,-]+\])?", word) and before not in TAKES_VALUE
        if is_name and word not in ("pip", "setuptools", "wheel"):
            message = f"{word} is installed without a version, so another one may be installed next time."
            fix = f"Type: {word}==VERSION, or put it in requirements.txt."
            yield Finding(path, run.line, Severity.WARNING, "requirements", message, fix, ADVICE)
