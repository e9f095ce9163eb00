"""Server modules: the functions of an OpenAPI document, and the executor that sends their jobs to an HTTP server."""
