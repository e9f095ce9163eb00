"""What `docker` does of the command line, for tests: a container is a child process with just the container's variables.

Its program ignores SIGTERM, as the first process of a container does, and runs on if the client is killed. The client's
arguments are appended to `calls`, beside this program; `silent` there is what a client without a daemon says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(sys.argv[0]).parent
WITH_VALUE = {"--name", "--network", "-v", "-e", "--add-host"}


def run(arguments: list[str]) -> int:
    """Run an image, whose name is that of a Python program here."""
    options, image = {}, ""
    while arguments and not image:
        word = arguments.pop(0)
        if word in WITH_VALUE:
            options.setdefault(word, []).append(arguments.pop(0))
        elif not word.startswith("-"):
            image = word
    mount = options["-v"][0].partition(":")[0]
    rights = {path.name: oct(path.stat().st_mode & 0o777) for path in [Path(mount), *Path(mount).iterdir()]}
    (HERE / "mounted").write_text(json.dumps({"folder": mount, "rights": rights}))
    names = [each.partition("=") for each in options["-e"]]
    variables = {name: value if equals else os.environ[name] for name, equals, value in names}
    program = HERE / f"{image.rpartition('/')[2].partition(':')[0]}.py"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the container inherits
    container = subprocess.Popen([sys.executable, program, *arguments], env=variables, start_new_session=True)
    (HERE / options["--name"][0]).write_text(str(container.pid))
    return container.wait()


def main(verb: str, *arguments: str) -> int:
    """Do what the verb says, and return the exit code."""
    with (HERE / "calls").open("a") as calls:
        calls.write(json.dumps([verb, *arguments]) + "\n")
    if (HERE / "silent").exists():
        print((HERE / "silent").read_text(), file=sys.stderr)
        return 1
    if verb == "run":
        return run(list(arguments))
    if verb == "kill":
        os.killpg(int((HERE / arguments[0]).read_text()), signal.SIGKILL)
    if verb == "exec":  # it succeeds in a container that runs
        return int(not (HERE / arguments[0]).exists())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
