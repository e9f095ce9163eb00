"""Functions that are defined in a notebook's cells and run in threads of the kernel."""
