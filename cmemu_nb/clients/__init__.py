"""The HTTP clients of the package: for applications, for runtimes, and the HTTP client that both use."""
