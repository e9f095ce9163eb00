"""The parts of Foundry that surround a compute module. So far this is the OAuth client."""
