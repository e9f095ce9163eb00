"""A compute module without an SDK: a client of its own, which asks for the address of the machine's name."""

import json
import os
import socket

import requests

address = socket.gethostbyname(socket.gethostname())
base = f"https://{address}:{os.environ['RUNTIME_PORT']}/interactive-module/api/internal-query"

session = requests.Session()
session.verify = os.environ["DEFAULT_CA_PATH"]
with open(os.environ["MODULE_AUTH_TOKEN"]) as file:
    session.headers["Module-Auth-Token"] = file.read()

number = {"type": "float", "float": {}}
schema = {
    "functionName": "halve",
    "inputs": [{"name": "n", "dataType": number, "required": True, "constraints": []}],
    "output": {"type": "single", "single": {"dataType": number}},
}
session.post(f"{base}/schemas", json=[schema]).raise_for_status()

while True:
    answer = session.get(f"{base}/job")
    if answer.status_code == 200:
        job = answer.json()["computeModuleJobV1"]
        result = job["query"]["n"] / 2 if job["queryType"] == "halve" else None
        session.post(f"{base}/results/{job['jobId']}", data=json.dumps(result)).raise_for_status()
