"""A dataset of a million rows, read through `readTable` as Arrow, against pyarrow writing and reading the same.

The emulator is another process. The first read decodes the Parquet file; later ones find the table still decoded.
"""

from __future__ import annotations

import io
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench.clients import KeepAlive
from bench.figures import Figure, report
from bench.programs import serve_emulator
from foundry_sdk import Config, FoundryClient, UserTokenAuth

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.programs import Server

ROWS = 1_000_000
TIMES = 7
MOST = 3.0
DATASETS = "/api/v2/datasets"
FIELDS = {"id": "LONG", "share": "DOUBLE", "at": "TIMESTAMP", "name": "STRING", "flag": "BOOLEAN"}


def table() -> pa.Table:
    """Return a million rows of five columns."""
    random = np.random.default_rng(0)
    ids = np.arange(ROWS)
    columns = {
        "id": pa.array(ids),
        "share": pa.array(random.random(ROWS)),
        "at": pa.array(ids * 1000, pa.timestamp("us", "UTC")),
        "name": pa.array([f"name-{number % 1000}" for number in range(ROWS)]),
        "flag": pa.array(random.random(ROWS) > 0.5),
    }
    return pa.table(columns)


def uploaded(server: Server, rows: pa.Table) -> str:
    """Upload the rows as a Parquet file of a dataset, and return its RID."""
    client, sink = KeepAlive(server.url, Authorization=f"Bearer {server.token}"), io.BytesIO()
    pq.write_table(rows, sink)
    body = {"name": "rows", "parentFolderRid": "ri.compass.main.folder.bench"}
    rid: str = json.loads(client.request("POST", DATASETS, json.dumps(body).encode()))["rid"]
    client.request("POST", f"{DATASETS}/{rid}/files/rows.parquet/upload", sink.getvalue())
    fields = [{"name": name, "type": kind, "nullable": True} for name, kind in FIELDS.items()]
    client.request("PUT", f"{DATASETS}/{rid}/putSchema", json.dumps({"schema": {"fieldSchemaList": fields}}).encode())
    return rid


def seconds(work: Callable[[], Any]) -> float:
    """Return how long some work takes."""
    start = time.perf_counter()
    assert work().num_rows == ROWS
    return time.perf_counter() - start


def best(work: Callable[[], Any]) -> float:
    """Return the shortest time of several."""
    return min(seconds(work) for _ in range(TIMES))


def written_and_read(rows: pa.Table) -> pa.Table:
    """Write the rows as a stream of Arrow's IPC format, and read it."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def main() -> None:
    """Measure and report."""
    rows = table()
    with serve_emulator() as server:
        rid = uploaded(server, rows)
        plain = KeepAlive(server.url, Authorization=f"Bearer {server.token}")
        config = Config(scheme="http")
        sdk = FoundryClient(UserTokenAuth(server.token), urlsplit(server.url).netloc, config=config).datasets.Dataset

        def by_plain_client() -> pa.Table:
            body = plain.request("GET", f"{DATASETS}/{rid}/readTable?format=ARROW")
            return pa.ipc.open_stream(body).read_all()

        def by_sdk() -> pa.Table:
            return sdk.read_table(rid, format="ARROW").to_pyarrow()

        first = seconds(by_plain_client)
        by_plain, with_sdk = best(by_plain_client), best(by_sdk)
    base = best(partial(written_and_read, rows))
    say = partial(Figure, "datasets", unit="ms", against="IPC written and read by pyarrow", base=base * 1000)
    report(say("readTable of 1,000,000 rows, the first", first * 1000))
    report(say("readTable of 1,000,000 rows", by_plain * 1000, at_most=MOST))
    report(say("readTable of 1,000,000 rows by the client SDK", with_sdk * 1000))


if __name__ == "__main__":
    main()
