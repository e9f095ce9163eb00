"""The routes of the emulator, a module for each kind of client."""
