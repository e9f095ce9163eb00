"""The dashboard: one widget that shows the whole lifecycle as it happens, and lets a person act on it."""
