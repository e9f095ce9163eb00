"""The data behind modules as objects of a notebook: datasets and data streams."""
