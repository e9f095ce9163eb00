"""The OpenAPI document of the routes, made from their tables, and its page for people."""
