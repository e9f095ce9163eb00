"""What runs functions: Python functions of a notebook, through the official SDK's own code."""
