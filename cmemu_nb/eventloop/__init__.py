"""The event loop of an emulator, the threads that drive it, and its connection to the notebook's shell."""
