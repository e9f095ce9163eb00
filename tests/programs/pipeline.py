"""A pipeline: it copies the rows of one file to another, says what it has done, and ends. It never polls for jobs.

    pipeline.py SOURCE TARGET [SECONDS]

The file SOURCE has one JSON object a line. A row without a price ends the pipeline with exit code 3. With SECONDS it
waits so long after each row.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(source: str, target: str, seconds: str = "0") -> int:
    """Copy the rows with their totals; return the exit code."""
    token, aliases = (os.environ.get(name) for name in ("BUILD2_TOKEN", "RESOURCE_ALIAS_MAP"))
    inputs = json.loads(Path(aliases).read_text()) if aliases else {}
    print("pipeline of", sorted(inputs), "with a build token" if token else "without a build token")
    with Path(target).open("w") as file:
        for number, line in enumerate(Path(source).read_text().splitlines(), 1):
            row = json.loads(line)
            if "price" not in row:
                print(f"row {number} has no price", file=sys.stderr)
                return 3
            print(json.dumps({**row, "total": row["price"] * row["count"]}), file=file, flush=True)
            time.sleep(float(seconds))
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
