"""Whether a module would deploy: the documented rules of containers and functions, checked on files."""
