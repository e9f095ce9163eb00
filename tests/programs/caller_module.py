"""A compute module whose function calls the platform with its caller's token, and prints what it was given."""

import hashlib
import os

import requests
from compute_modules.annotations import function

RUNTIMES = f"https://{os.environ['FOUNDRY_URL']}/_emulate/foundry/compute-modules/runtimes"


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


@function
def on_behalf(context, event) -> list[str]:
    print("the context:", context, flush=True)
    header, token = context["authHeader"], context["tempCredsAuthToken"]
    status = requests.get(RUNTIMES, headers={"Authorization": header}).status_code
    return [digest(header), digest(token), str(status)]
