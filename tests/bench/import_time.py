"""How long importing the package takes, on top of the modules of others that it needs.

Each figure is of fresh processes: one imports the package, another just what that one has imported besides. It is
processor time, which other work on the machine lengthens less.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.figures import Figure, report

PROCESSES = 60 if os.environ.get("CMEMU_LONG") else 15
MOST_MS = 60.0
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
    """Measure and report each import."""
    say = partial(Figure, "import_time", unit="ms")
    with tempfile.TemporaryDirectory() as compiled:
        # As it is installed: what was imported once is compiled.
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ["PYTHONPYCACHEPREFIX"] = compiled
        for code in IMPORTS:
            alone = ALONE.format(names=printed(OTHERS.format(code=code), environ).split())
            # In turn, so that a busy moment of the machine falls on both.
            runs = [
                [float(printed(TIMED.format(code=each), environ)) for each in (code, alone)] for _ in range(PROCESSES)
            ]
            whole, others = (median(column) for column in zip(*runs, strict=True))
            report(say(code, whole, against="what it needs of others", base=others))
            report(say(f"{code}: ours on top", whole - others, at_most=MOST_MS))


if __name__ == "__main__":
    main()
