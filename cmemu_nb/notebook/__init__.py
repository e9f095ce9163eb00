"""The magics of a notebook: their commands, help and completion."""
