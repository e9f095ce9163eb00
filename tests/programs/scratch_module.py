"""A compute module whose replicas share a cache and a lock, with the `scratch` package of the official SDK."""

import os
import time

from compute_modules.annotations import function
from scratch import CacheTTL, DistributedCache, DistributedLock


@function
def work_alone(context, event) -> list[str]:
    """Hold the lock until a file exists, and say whether it is still held then."""
    lock = DistributedLock().try_lock("batch")
    if lock is None:
        return ["held by another replica"]
    with lock:
        DistributedCache().put("progress", "half", ttl=CacheTTL.FIVE_MINUTES)
        print("the lock is held", flush=True)
        while not os.path.exists(event["until"]):
            time.sleep(0.01)
        return ["finished" if lock.refresh() else "the lock was lost"]


@function
def progress(context, event) -> str:
    return str(DistributedCache().get("progress"))
