"""The parts of Foundry that surround a compute module. These are the OAuth client and the users."""
