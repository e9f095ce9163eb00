"""The routes of the emulator, one module for each kind of client."""
