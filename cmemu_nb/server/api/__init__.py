"""The functions routes of Foundry's public API, which its client SDKs call."""
