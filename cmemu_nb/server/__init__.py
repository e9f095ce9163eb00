"""The HTTP server of the emulator: it turns requests into calls of the Lifecycle."""
