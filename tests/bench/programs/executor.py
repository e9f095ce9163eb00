"""An executor with no logic: waits for the jobs of r0 and gives all of them the same result."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from bench.programs import Server
from bench.wire import Executor


def main() -> None:
    """Work until it is killed."""
    executor = Executor(Server(**json.loads(sys.argv[1])))
    while True:
        executor.work(waits=True)


if __name__ == "__main__":
    main()
