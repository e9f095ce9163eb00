"""The API names of functions, `com.<namespace>.computemodules.<Name>`, by the documented rules [foundry].

The namespace is lower case, the name camel case, and neither has special characters. On the platform people choose
both; here they are made from the app's RID and from the function's own name, so `add_one` becomes `addOne` [ours].
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

COM, MODULES = "com.", ".computemodules."
RULE = "an API name consists of letters and digits in camel case"
_PARTS_OF_A_RID = 5
_CAMEL_CASE = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)+")
_WORD = re.compile(r"[A-Za-z0-9]+")


@functools.lru_cache(1000)
def namespace_of(deployed_app_rid: str) -> str:
    """Return the namespace of an app's functions: the last part of its RID, or all of a text that is no RID.

    Special characters are left out, unless there would be nothing left.
    """
    parts = deployed_app_rid.split(".", _PARTS_OF_A_RID - 1)
    return normal_namespace(parts[-1] if len(parts) == _PARTS_OF_A_RID else deployed_app_rid)


def normal_namespace(text: str) -> str:
    """Return a text in lower case and without special characters; unchanged if there would be nothing left."""
    return "".join(_WORD.findall(text)).lower() or text


@functools.lru_cache(1000)
def name_in_api(function_name: str) -> str | None:
    """Return the name of a function in its API name; None if the rules allow none that can be made from it."""
    if _CAMEL_CASE.fullmatch(function_name):
        return function_name
    return _in_camel_case(function_name) if _SNAKE_CASE.fullmatch(function_name) else None


def possible_functions(name: str) -> Iterator[str]:
    """Yield the names of the functions that a name in an API name can mean: itself, and `add_one` for `addOne`."""
    yield name
    function_name = re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)
    if function_name != name and name_in_api(function_name) == name:
        yield function_name


def allowed_name(function_name: str) -> str | None:
    """Return the most similar function name that has an API name; None if the text has no letter or is not ASCII."""
    if not function_name.isascii():
        return None
    similar = _in_camel_case("_".join(_WORD.findall(function_name)).lstrip("_0123456789"))
    return similar if _CAMEL_CASE.fullmatch(similar) else None


def advice(function_name: str) -> str:
    """Return what to do about a function whose name allows no API name, as a sentence."""
    similar = allowed_name(function_name)
    return f"Rename it, for instance to {similar!r}." if similar else "Rename it with letters from A to Z and digits."


def _in_camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)
