"""Images of modules: the program that runs them, and the container that finds the emulator and its files."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cmemu_nb.errors import LaunchFailed
from cmemu_nb.executors.modules import container

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENGINES = {"docker": "Docker", "podman": "podman"}
ANSWER_SECONDS = 20.0
LOOPBACK, HOST = "127.0.0.1", "host.docker.internal"
SHARES_NETWORK = sys.platform == "linux"
"""Whether a container can use this machine's network; elsewhere Docker runs in a virtual machine."""


def find_engine() -> tuple[str, str]:
    """Return the program's name of Docker or podman, the first that answers; or "", and why there is none."""
    reasons = []
    for name, title in ENGINES.items():
        path = shutil.which(name)
        reason = f"{title} is not installed" if path is None else _why_silent(path)
        if path is not None and not reason:
            return name, ""
        reasons.append(reason if path is None else f"{title} does not answer ({reason.removesuffix('.')})")
    return "", ", and ".join(reasons)


def needed_engine(image: str) -> str:
    """Return the program's name of Docker or podman; `LaunchFailed` says why there is none."""
    name, reason = find_engine()
    if not name:
        raise LaunchFailed(
            f"The image {image!r} can't be run: {reason}. Start Docker, install podman, or run the program without its "
            "image: cmemu run -- python app.py"
        )
    return name


def _why_silent(path: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            [path, "version"], capture_output=True, text=True, errors="replace", timeout=ANSWER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else last_line(done.stderr) or f"exit code {done.returncode}"


def last_line(text: str) -> str:
    """Return the last line of what a program has said; "" if it said nothing."""
    return text.strip().rpartition("\n")[2].strip()


def image_runtime(image: str) -> str:
    """Return the runtime id that an image suggests: `orders` for `registry/team/orders:0.1.0`."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0] or "module"


def for_container(environment: Mapping[str, str], folder: Path) -> tuple[dict[str, str], Path]:
    """Return the variables that a container gets, and the folder that it must mount, at the same path.

    `folder` is the emulator's private one. The files that the variables name are copied to a folder inside it, which
    the image's own user may read. Other users of this machine still can't: the private folder around it is closed to
    them, and a mount leads past it only inside the container.
    """
    variables = dict(environment)
    files = {name: Path(value) for name, value in environment.items() if value.startswith(f"{folder}/")}
    if not all(file.is_file() for file in files.values()):  # they are on the emulator's machine, and this is another
        return variables, folder
    # Of the replica's id, by which its files are deleted.
    replica = next((file.name.partition("-")[2] for file in files.values() if file.suffix != ".pem"), "")
    shared = folder / f"container-{replica}"
    shared.mkdir(exist_ok=True)
    shared.chmod(0o755)
    for name, file in files.items():
        copy = shared / file.name
        copy.write_bytes(file.read_bytes())
        copy.chmod(0o644)
        variables[name] = str(copy)
    return (variables if SHARES_NETWORK else {n: v.replace(LOOPBACK, HOST) for n, v in variables.items()}), shared


def run_arguments(variables: Iterable[str], folder: Path) -> list[str]:
    """Return the arguments of `docker run`; `variables` are names, whose values the client has, or `NAME=VALUE`.

    The container runs as the user of its image, as on the platform.
    """
    network = ["--network", "host"] if SHARES_NETWORK else ["--add-host", f"{HOST}:host-gateway"]
    given = [word for each in variables for word in ("-e", each)]
    return ["run", "--rm", *network, "-v", f"{folder}:{folder}:ro", *given]


def container_command(
    engine: str, image: str, arguments: Iterable[str], replica_id: str, variables: Iterable[str], folder: Path
) -> list[str]:
    """Return the command that runs a replica in a container, which ends with the command."""
    name = _container_of(replica_id)
    run = [engine, *run_arguments(variables, folder)]
    run[2:2] = ["--name", name]
    return [sys.executable, "-ISE", container.__file__, name, *run, image, *arguments]


def inside(engine: str, replica_id: str) -> list[str]:
    """Return the words before a command that is to run in the container of a replica."""
    return [engine, "exec", _container_of(replica_id)]


def _container_of(replica_id: str) -> str:
    return f"cmemu-{replica_id}"


def docker_line(environment: Mapping[str, str], folder: Path, image: str) -> str:
    """Return the line for a terminal that runs a container of an image, with the values in it."""
    variables, shared = for_container(environment, folder)
    given = run_arguments((f"{name}={value}" for name, value in variables.items()), shared)
    return shlex.join(["docker", *given, image])
