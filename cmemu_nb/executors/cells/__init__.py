"""Functions of a notebook's cells, run as executors in threads of the kernel."""
