"""An executor in a process of its own, with nothing but the standard library: polls, computes, posts.

Usage: executor.py RUNTIME_URL TOKEN. It knows `echo` (gives its query back), `slow` (after so many seconds) and
`never` (takes the job and forgets it).
"""

import http.client
import json
import sys
import time
from urllib.parse import urlsplit


def main() -> None:
    base = urlsplit(sys.argv[1])
    connection = http.client.HTTPConnection(base.netloc)
    headers = {"Module-Auth-Token": sys.argv[2], "Prefer": "wait=30"}
    while True:
        connection.request("GET", f"{base.path}/job", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 204):
            return
        if answer.status == 204:
            continue
        job = json.loads(body)["computeModuleJobV1"]
        if job["queryType"] == "never":
            continue
        if job["queryType"] == "slow":
            time.sleep(job["query"])
        connection.request("POST", f"{base.path}/results/{job['jobId']}", json.dumps(job["query"]), headers)
        connection.getresponse().read()


if __name__ == "__main__":
    main()
