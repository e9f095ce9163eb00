"""The export of a notebook's functions as a module for the official SDK."""
