"""Calling functions: jobs and runtimes as objects, many calls at once, streams, and why a call waits."""
