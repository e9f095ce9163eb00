"""What of Foundry surrounds a compute module, so far the OAuth client."""
