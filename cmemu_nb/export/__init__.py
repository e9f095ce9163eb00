"""Writing the functions of a notebook as a module for the official SDK."""
