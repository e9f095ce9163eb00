"""The dashboard: a widget that shows the whole lifecycle live, with buttons to act on it."""
