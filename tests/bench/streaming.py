"""How long a chunk of a result takes from its post to the client that reads the stream, over HTTP on both sides."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cmemu_nb import Emulator

CHUNKS = 500


def main() -> None:
    """Print the delays of many chunks, each posted when the one before was read."""
    sent: list[float] = []
    read = threading.Event()

    def tick(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001 - as the SDK wants it
        for _ in range(CHUNKS):
            read.wait()
            read.clear()
            sent.append(time.perf_counter())
            yield "tick"

    with Emulator(port=0) as emulator:
        emulator.function(tick, streaming=True)
        delays = []
        read.set()
        for _ in emulator.stream("tick"):
            delays.append(1000 * (time.perf_counter() - sent[-1]))
            read.set()
    cuts = statistics.quantiles(delays, n=100)
    print(f"{len(delays)} chunks: first {delays[0]:.2f} ms, p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms")


if __name__ == "__main__":
    main()
