"""The rules for an image that was built, where Docker or podman is there."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from cmemu_nb.check.dockerfile import PLATFORM, check_port
from cmemu_nb.check.findings import CONTAINERS, IMAGES, Finding, Severity
from cmemu_nb.errors import NotFound
from cmemu_nb.executors.modules.images import find_engine, last_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INSPECT_SECONDS = 60.0


def inspect_image(name: str) -> dict[str, Any]:
    """Return what Docker or podman knows of an image; `NotFound` says why there is nothing."""
    program, reason = find_engine()
    if not program:
        raise NotFound(
            f"{name!r} can't be checked: there is no such file or folder, and images can't be read here: {reason}. "
            "Give app.py, a Dockerfile or a folder."
        )
    done = subprocess.run(  # noqa: S603 - without a shell
        [program, "image", "inspect", name], capture_output=True, text=True, timeout=INSPECT_SECONDS, check=False
    )
    if done.returncode:
        reason = last_line(done.stderr) or f"exit code {done.returncode}"
        raise NotFound(
            f"{name!r} can't be checked: there is no such file or folder, and no such image ({reason}). "
            f"Give app.py, a Dockerfile, a folder, or the name of an image that '{program} image ls' lists."
        )
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def check_image(name: str, image: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the findings in what `docker image inspect` prints of an image."""
    config: Mapping[str, Any] = image.get("Config") or {}
    user = str(config.get("User") or "").partition(":")[0]
    if not user.isdecimal() or int(user) == 0:
        message = f"The image runs as {user or 'root'}; the platform needs a number other than 0."
        fix = "Type in the Dockerfile, before CMD or ENTRYPOINT: USER 5000"
        yield Finding(name, 0, Severity.ERROR, "user", message, fix, CONTAINERS)
    platform = f"{image.get('Os')}/{image.get('Architecture')}"
    if platform != PLATFORM:
        message = f"The image is for {platform}; the platform runs images for {PLATFORM} only."
        fix = f"Build it again: docker build --platform {PLATFORM} -t {name} ."
        yield Finding(name, 0, Severity.ERROR, "platform", message, fix, IMAGES)
    if tag_of(name) == "latest":
        message = "Its tag is 'latest', which the platform does not run."
        fix = f"Give it a version: docker tag {name} {name.removesuffix(':latest')}:0.1.0"
        yield Finding(name, 0, Severity.ERROR, "tag", message, fix, IMAGES)
    for port in config.get("ExposedPorts") or {}:
        yield from check_port(name, 0, int(str(port).partition("/")[0]))
    if not (config.get("Entrypoint") or config.get("Cmd")):
        message, fix = "The image starts nothing.", 'Type in the Dockerfile: ENTRYPOINT ["python", "app.py"]'
        yield Finding(name, 0, Severity.ERROR, "start", message, fix, CONTAINERS)


def tag_of(name: str) -> str:
    """Return the tag of an image's name: 'latest' if it has neither tag nor digest, "" if it has a digest."""
    if "@" in name:
        return ""
    _, colon, tag = name.rpartition("/")[2].partition(":")
    return tag if colon else "latest"
