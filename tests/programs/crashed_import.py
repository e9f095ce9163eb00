"""A module for the official Python SDK whose import raises after its first function: its author forgot a package."""

from compute_modules.annotations import function


@function
def ready(context, event) -> str:
    return "ready"


import no_such_package  # noqa: E402


@function
def predict(context, event) -> float:
    return no_such_package.predict(event["x"])
