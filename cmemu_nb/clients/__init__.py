"""The HTTP clients of the package: an application's, a runtime's, and the one that both use."""
