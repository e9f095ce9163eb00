"""The state machine of the runtime lifecycle: its records, its state, every change of it, and the events."""
