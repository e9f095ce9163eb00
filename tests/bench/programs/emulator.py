"""An emulator with the runtimes r0 to r7, an app bound to each, that does what lines on its standard input say.

`cpu` answers the processor time used so far in seconds, `peak` the most memory used since `forget_peak`, and `memory`
that used now, in bytes; `fill N` makes N finished jobs of r0 with queries and results of 1 KB, `gc` collects garbage.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cmemu_nb import Emulator

if TYPE_CHECKING:
    from cmemu_nb.lifecycle import Lifecycle

RUNTIMES = 8
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


def fill(lifecycle: Lifecycle, count: int, size: int = 1000) -> None:
    """Make finished jobs with queries and results of `size` bytes, their own as those from outside have."""
    for number in range(count):
        query = b'{"text":"' + str(number).encode().ljust(size - 11, b"x") + b'"}'
        job = lifecycle.submit("r0", "f", query)
        lifecycle.take("r0")
        lifecycle.finish("r0", job.job_id, str(number).encode().ljust(size, b"y"))


def answer(emu: Emulator, command: str, *arguments: str) -> float:
    """Do what a line says."""
    if command == "cpu":
        return time.process_time()
    if command == "peak":
        return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    if command == "forget_peak":
        return Path("/proc/self/clear_refs").write_text("5")
    if command == "memory":
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE
    if command == "gc":
        return gc.collect()
    assert command == "fill", command
    for _ in range(0, int(arguments[0]), 1000):
        emu.change(lambda lifecycle: fill(lifecycle, 1000))
    return 0


def main() -> None:
    """Serve until the other side closes the pipe."""
    settings = json.loads(sys.argv[1])
    with Emulator(port=0, home="thread", **settings) as emu:
        apps = [f"ri.foundry.main.deployed-app.bench-{number}" for number in range(RUNTIMES)]
        runtimes = [emu.open_runtime(f"r{number}", deployed_app_rid=app) for number, app in enumerate(apps)]
        tokens = [runtime.token for runtime in runtimes]
        print(json.dumps({"url": emu.url, "token": emu.token, "apps": apps, "module_tokens": tokens}), flush=True)
        for line in sys.stdin:
            print(answer(emu, *line.split()), flush=True)


if __name__ == "__main__":
    main()
