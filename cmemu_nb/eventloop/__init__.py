"""The event loop that an emulator runs on, the thread whose turn it is, and the notebook's shell."""
