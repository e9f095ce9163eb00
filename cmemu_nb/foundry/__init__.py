"""The parts of Foundry that surround a compute module. These are the OAuth client, the users and how they sign in."""
