"""The HTTP surfaces of the emulator: requests become calls on the Lifecycle."""
