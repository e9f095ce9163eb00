"""How long importing the package takes, on top of the modules of others that it needs.

Each figure is a median of fresh processes: one imports the package, another just what that one has imported besides.
It is processor time, which other work on the machine lengthens less.

    tests/bench/import_time.py [PROCESSES]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from statistics import median

IMPORTS = ("import cmemu_nb", "from cmemu_nb import Emulator", "import cmemu_nb.cli")
OTHERS = """
import sys
before = set(sys.modules)
{code}
print(*(name for name in sys.modules if name not in before and name.partition(".")[0] != "cmemu_nb"))
"""
TIMED = """
import time
start = time.process_time()
{code}
print((time.process_time() - start) * 1000)
"""
ALONE = """
for name in {names!r}:
    try:
        __import__(name)
    except ImportError:
        pass
"""


def printed(code: str, environ: dict[str, str]) -> str:
    """Return what a fresh process prints that runs the code."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    return done.stdout


def main() -> None:
    """Measure each import."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60 if os.environ.get("CMEMU_LONG") else 20
    print(f"{'':32}{'all':>8}{'others':>8}{'ours':>8}   ms, medians of {count} processes each")
    with tempfile.TemporaryDirectory() as compiled:
        # As it is installed: what was imported once is compiled.
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ["PYTHONPYCACHEPREFIX"] = compiled
        for code in IMPORTS:
            alone = ALONE.format(names=printed(OTHERS.format(code=code), environ).split())
            # In turn, so that a busy moment of the machine falls on both.
            runs = [[float(printed(TIMED.format(code=each), environ)) for each in (code, alone)] for _ in range(count)]
            whole, others = (median(column) for column in zip(*runs, strict=True))
            print(f"{code:32}{whole:8.1f}{others:8.1f}{whole - others:8.1f}", flush=True)


if __name__ == "__main__":
    main()
