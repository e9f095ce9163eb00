"""Runs commands of `foundry-cli`, a JSON array of arguments on each line of the input, and prints their exit codes.

One process runs all of them, because importing the client takes seconds. Its credentials are kept in memory, which is
the system's keyring for it.
"""

import json
import sys

import keyring
from keyring.backend import KeyringBackend
from pltr.cli import app


class MemoryKeyring(KeyringBackend):
    """A keyring that ends with the process."""

    def __init__(self):
        super().__init__()
        self.passwords = {}

    def get_password(self, service, username):
        """Return a password, or None."""
        return self.passwords.get((service, username))

    def set_password(self, service, username, password):
        """Keep a password."""
        self.passwords[service, username] = password


keyring.set_keyring(MemoryKeyring())
print(json.dumps([app(json.loads(line), standalone_mode=False) or 0 for line in sys.stdin]))
