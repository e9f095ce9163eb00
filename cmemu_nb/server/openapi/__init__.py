"""The OpenAPI document of the routes, generated from their tables, and its HTML page."""
