"""A module without an SDK, whose function `exit` ends the whole program; `echo` returns its input."""

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path

TOKEN = Path(os.environ["MODULE_AUTH_TOKEN"]).read_text()
CONTEXT = ssl.create_default_context(cafile=os.environ["DEFAULT_CA_PATH"])


def request(url: str, body: bytes | None = None) -> bytes:
    headers = {"Module-Auth-Token": TOKEN}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), context=CONTEXT) as answer:
        return answer.read()


def main() -> None:
    request(os.environ["POST_SCHEMA_URI"], json.dumps([{"functionName": name} for name in ("echo", "exit")]).encode())
    while True:
        envelope = request(os.environ["GET_JOB_URI"])
        if not envelope:
            continue
        job = json.loads(envelope)["computeModuleJobV1"]
        print("runs", job["queryType"], flush=True)
        if job["queryType"] == "exit":
            sys.exit(job["query"]["code"])
        request(f"{os.environ['POST_RESULT_URI']}/{job['jobId']}", json.dumps(job["query"]).encode())


if __name__ == "__main__":
    main()
