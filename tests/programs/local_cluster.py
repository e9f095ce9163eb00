"""A Dask cluster on this machine, each worker a process; prints the scheduler's address, and ends with its input."""

import sys

from distributed import LocalCluster

if __name__ == "__main__":
    workers, host = int(sys.argv[1]), sys.argv[2]
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with LocalCluster(n_workers=workers, host=host, **options) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
