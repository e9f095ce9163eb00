"""A pipeline as in the documentation: it reads a stream, computes, and writes another stream, with plain requests.

    stream_pipeline.py

It knows the streams by its aliases `in` and `out`, and the platform by its environment. It follows the input from the
position after the last record that it has seen, and ends when it has seen a record whose `x` is null. With the alias
`other`, it says what the platform answers to a token that does not reach a stream.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import requests
import yaml

SERVICES = yaml.safe_load(Path(os.environ["FOUNDRY_SERVICE_DISCOVERY_V2"]).read_text())
STREAM_PROXY, API = SERVICES["stream_proxy"][0], SERVICES["api_gateway"][0]
HEADERS = {"Authorization": f"Bearer {Path(os.environ['BUILD2_TOKEN']).read_text()}"}
ALIASES = json.loads(Path(os.environ["RESOURCE_ALIAS_MAP"]).read_text())


def address(alias):
    """Return the path of a stream, as the documentation builds it."""
    resource = ALIASES[alias]
    return f"{STREAM_PROXY}/streams/{resource['rid']}/branches/{resource['branch'] or 'master'}"


def newest_records():
    """Return the newest records of the input."""
    answer = requests.get(f"{address('in')}/records", headers=HEADERS, timeout=30)
    answer.raise_for_status()
    return answer.json()


def put(record):
    """Write a record to the output."""
    answer = requests.post(f"{address('out')}/jsonRecord", json=record, headers=HEADERS, timeout=30)
    answer.raise_for_status()


def records_from(offset):
    """Return the records of the input from an offset on."""
    resource = ALIASES["in"]
    path = f"v2/highScale/streams/datasets/{resource['rid']}/streams/{resource['branch'] or 'master'}/getRecords"
    options = {"partitionId": "0", "limit": 3, "startOffset": offset}
    answer = requests.get(f"{STREAM_PROXY}/{path}", params=options, headers=HEADERS, timeout=30)
    answer.raise_for_status()
    return answer.json()


for each in newest_records():
    put({"twice_x": each["value"]["x"] * 2, "how": "newest"})
position, done = 0, False
while not done:
    batch = records_from(position)
    for each in batch:
        position, x = each["offset"] + 1, each["value"]["x"]
        done = x is None
        put({"twice_x": None if done else x * 2, "how": "followed"})
    time.sleep(0.01)
for url in (
    f"{STREAM_PROXY}/streams/{os.environ['OTHER_RID']}/branches/master/records",
    f"{API}/v2/streams/datasets/{os.environ['OTHER_RID']}/streams/master",
):
    refused = requests.get(url, headers=HEADERS, timeout=30)
    print(refused.status_code, refused.json()["errorName"], refused.json()["parameters"]["datasetRid"])
print("the token is", HEADERS["Authorization"])
