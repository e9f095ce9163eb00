"""A program without any SDK of Palantir, which knows nothing of the platform but https://$FOUNDRY_URL.

    plain_requests.py FUNCTION PARAMETERS

It gets a token for its client, calls a function with it, and prints the value.
"""

import json
import os
import sys

import requests

PLATFORM = f"https://{os.environ['FOUNDRY_URL']}"

function, parameters = sys.argv[1:]
form = {
    "grant_type": "client_credentials",
    "client_id": os.environ["CLIENT_ID"],
    "client_secret": os.environ["CLIENT_SECRET"],
    "scope": "api:functions-execute",
}
answer = requests.post(f"{PLATFORM}/multipass/api/oauth2/token", data=form)
answer.raise_for_status()

headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
body = {"parameters": json.loads(parameters)}
answer = requests.post(f"{PLATFORM}/api/v2/functions/queries/{function}/execute", headers=headers, json=body)
answer.raise_for_status()
print(answer.json()["value"])
