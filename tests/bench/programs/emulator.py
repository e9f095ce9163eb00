"""An emulator with the runtimes r0 to r7, an app bound to each, that does what lines on its standard input say.

`cpu` answers the processor time used so far in seconds, `peak` the most memory used since `forget_peak` and `memory`
that used now, in bytes; `fill N` makes N finished jobs of r0 with queries and results of 1 KB, `hold N` only those
bytes, `gc` collects garbage.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cmemu_nb import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmemu_nb.lifecycle.lifecycle import Lifecycle

RUNTIMES = 8
HELD: list[bytes] = []


def bodies(number: int, size: int = 1000) -> tuple[bytes, bytes]:
    """Make a query and a result of `size` bytes, bytes of their own as those from outside are."""
    digits = str(number).encode()
    return b'{"text":"' + digits.ljust(size - 11, b"x") + b'"}', digits.ljust(size, b"y")


def fill(lifecycle: Lifecycle, count: int, size: int = 1000) -> None:
    """Make finished jobs."""
    for number in range(count):
        query, result = bodies(number, size)
        job = lifecycle.submit("r0", "f", query)
        lifecycle.take("r0")
        lifecycle.finish("r0", job.job_id, result)


def memory(field: str) -> int:
    """Return what the system says of this process's memory."""
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) * 1024


def hold(count: int) -> int:
    """Keep the bytes of so many jobs."""
    HELD.extend(body for number in range(count) for body in bodies(number))
    return len(HELD)


def finish(emu: Emulator, count: int) -> int:
    """Make finished jobs, a thousand at a time."""
    for _ in range(0, count, 1000):
        emu.change(lambda lifecycle: fill(lifecycle, 1000))
    return count


def answers(emu: Emulator) -> dict[str, Callable[..., float]]:
    """Return what each command does."""
    return {
        "cpu": time.process_time,
        "peak": lambda: memory("VmHWM"),
        "memory": lambda: memory("VmRSS"),
        "forget_peak": lambda: Path("/proc/self/clear_refs").write_text("5"),
        "gc": gc.collect,
        "hold": lambda count: hold(int(count)),
        "fill": lambda count: finish(emu, int(count)),
    }


def main() -> None:
    """Serve until the other side closes the pipe."""
    settings = json.loads(sys.argv[1])
    with Emulator(port=0, home="thread", **settings) as emu:
        apps = [f"ri.foundry.main.deployed-app.bench-{number}" for number in range(RUNTIMES)]
        runtimes = [emu.open_runtime(f"r{number}", deployed_app_rid=app) for number, app in enumerate(apps)]
        tokens = [runtime.token for runtime in runtimes]
        print(json.dumps({"url": emu.url, "token": emu.token, "apps": apps, "module_tokens": tokens}), flush=True)
        commands = answers(emu)
        for line in sys.stdin:
            command, *arguments = line.split()
            print(commands[command](*arguments), flush=True)


if __name__ == "__main__":
    main()
