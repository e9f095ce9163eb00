"""Calling functions: handles of jobs and runtimes, many calls at once, streams, and why a call still waits."""
