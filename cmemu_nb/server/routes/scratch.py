"""The scratch routes: the replicas of a compute module share a cache and locks, by the SDK's `scratch` [foundry].

The scratch token of a replica identifies its runtime. A reset of the runtime's session empties both [ours].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmemu_nb.errors import InvalidRequest, TooManyLocks
from cmemu_nb.phrases import quoted
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import examples
from cmemu_nb.server.openapi.schemas import FLAG, TEXT, array, described, members, with_examples
from cmemu_nb.server.response import Response, json_response
from cmemu_nb.server.routing import Route
from cmemu_nb.wire.json_input import Fields
from cmemu_nb.wire.paths import SCRATCH

if TYPE_CHECKING:
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.openapi.schemas import Schema
    from cmemu_nb.server.request import Request

MAX_KEYS = 100
TTLS = {
    "ONE_MINUTE": 60,
    "FIVE_MINUTES": 300,
    "FIFTEEN_MINUTES": 900,
    "ONE_HOUR": 3600,
    "SIX_HOURS": 21_600,
    "TWELVE_HOURS": 43_200,
    "ONE_DAY": 86_400,
}
"""The seconds of each time to live, by its name in the SDK."""
DEFAULT_TTL = "ONE_HOUR"

# The cache


def put(context: Context, request: Request) -> Response:
    """Put a value into the cache, for an hour if no time to live is given.

    The oldest values are evicted when the cache of a runtime has more than 64 MiB.
    """
    what = "Putting a value into the cache"
    fields = Fields(request.body, what)
    key, ttl = fields.string("key"), fields.text("ttl")
    value = Fields(fields.raw("value", b"null"), f"{what} (value)").string("value")
    if ttl is not None and ttl not in TTLS:
        raise InvalidRequest(f"{what}: 'ttl' is {quoted(ttl)}. It must be {_or(TTLS)}.")
    context.lifecycle.put_cached(request.params["runtimeId"], key, value, TTLS[ttl or DEFAULT_TTL])
    return Response(204)


def get(context: Context, request: Request) -> Response:
    """Answer with a value of the cache, or with 204 if the key is not there or its time has passed."""
    key = Fields(request.body, "Getting a value of the cache").string("key")
    value = context.lifecycle.cached(request.params["runtimeId"], [key]).get(key)
    return Response(204) if value is None else json_response(200, {"value": value})


def batch_get(context: Context, request: Request) -> Response:
    """Answer with the values of up to 100 keys; those that are not in the cache are left out."""
    keys = Fields(request.body, "Getting values of the cache").strings("keys", MAX_KEYS)
    found = context.lifecycle.cached(request.params["runtimeId"], keys)
    return json_response(200, {"entries": {key: {"value": value} for key, value in found.items()}})


def exists(context: Context, request: Request) -> Response:
    """Answer whether a key is in the cache."""
    key = Fields(request.body, "Finding a key in the cache").string("key")
    return json_response(200, {"exists": bool(context.lifecycle.cached(request.params["runtimeId"], [key]))})


def delete(context: Context, request: Request) -> Response:
    """Delete a value from the cache, if it is there."""
    key = Fields(request.body, "Deleting a value of the cache").string("key")
    context.lifecycle.delete_cached(request.params["runtimeId"], key)
    return Response(204)


# Locks


def try_lock(context: Context, request: Request) -> Response:
    """Acquire a lock for 20 seconds, and answer with its handle; without one if another holder has the lock."""
    name = Fields(request.body, "Acquiring a lock").string("lockName")
    assert request.replica is not None  # noqa: S101 - Auth.SCRATCH has set it
    lock = context.lifecycle.try_lock(request.replica, name)
    return json_response(200, {} if lock is None else {"acquired": {"lockName": lock.name, "lockId": lock.lock_id}})


def refresh(context: Context, request: Request) -> Response:
    """Extend a lock by 20 seconds from now, and answer whether it was still held."""
    held = context.lifecycle.refresh_lock(request.params["runtimeId"], *_handle(request, "Refreshing a lock"))
    return json_response(200, {"success": held})


def unlock(context: Context, request: Request) -> Response:
    """Release a lock. One whose lease has ended is not an error."""
    context.lifecycle.unlock(request.params["runtimeId"], *_handle(request, "Releasing a lock"))
    return Response(204)


def _handle(request: Request, what: str) -> tuple[str, str]:
    """Return the name and the id of the lock that a request names."""
    handle = Fields(Fields(request.body, what).raw("handle", b"null"), f"{what} (handle)")
    return handle.string("lockName"), handle.string("lockId")


def _or(names: dict[str, int]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


_KEY = {"key": described(TEXT, "The key in the runtime's cache")}
_VALUE = {"value": described(TEXT, "The text under the key")}
_HANDLE = members(
    {"lockName": described(TEXT, "The name of the lock"), "lockId": described(TEXT, "The id of this acquisition")}
)


def _body(properties: dict[str, Schema], example: object, optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return with_examples({"type": "object", "required": required, "properties": properties}, example)


def _answer(properties: dict[str, Schema], example: object, optional: tuple[str, ...] = ()) -> Schema:
    return with_examples(members(properties, optional), example)


_KEY_BODY = _body(_KEY, examples.CACHE_KEY)
_HANDLE_BODY = _body({"handle": described(_HANDLE, "The handle from the answer to `try-lock`")}, examples.LOCK_HELD)
_PUT_BODY = _body(
    {
        **_KEY,
        "value": described({"type": "object", "required": ["value"], "properties": _VALUE}, "The value"),
        "ttl": {"enum": [*TTLS, None], "description": f"How long the value is kept; `{DEFAULT_TTL}` if omitted"},
    },
    examples.CACHE_PUT,
    ("ttl",),
)
_KEYS = {"keys": described({**array(TEXT), "maxItems": MAX_KEYS}, "The keys")}
_ENTRIES = {"type": "object", "additionalProperties": members(_VALUE)}
_LOCK_BODY = _body({"lockName": described(TEXT, "The name of the lock")}, examples.LOCK_NAME)

routes = (
    Route(
        "POST",
        f"{SCRATCH}/cache",
        put,
        Auth.SCRATCH,
        {204: "The value is in the cache"},
        "Put a value into the cache",
        body=_PUT_BODY,
    ),
    Route(
        "POST",
        f"{SCRATCH}/cache/get",
        get,
        Auth.SCRATCH,
        {200: "The value", 204: "The key is not in the cache"},
        "Get a value of the cache",
        body=_KEY_BODY,
        answer=_answer(_VALUE, examples.CACHE_VALUE),
    ),
    Route(
        "POST",
        f"{SCRATCH}/cache/batch-get",
        batch_get,
        Auth.SCRATCH,
        {200: "The values that are in the cache, by key"},
        "Get several values of the cache",
        body=_body(_KEYS, examples.CACHE_KEYS),
        answer=_answer({"entries": described(_ENTRIES, "The values, by key")}, examples.CACHE_ENTRIES),
    ),
    Route(
        "POST",
        f"{SCRATCH}/cache/exists",
        exists,
        Auth.SCRATCH,
        {200: "Whether the key is in the cache"},
        "Find a key in the cache",
        body=_KEY_BODY,
        answer=_answer({"exists": described(FLAG, "Whether it is there")}, examples.CACHE_EXISTS),
    ),
    Route(
        "POST",
        f"{SCRATCH}/cache/delete",
        delete,
        Auth.SCRATCH,
        {204: "The key is not in the cache any more"},
        "Delete a value of the cache",
        body=_KEY_BODY,
    ),
    Route(
        "POST",
        f"{SCRATCH}/lock/try-lock",
        try_lock,
        Auth.SCRATCH,
        {200: "The lock's handle, if it was free", 429: "The replicas of the runtime hold too many locks"},
        "Acquire a lock",
        body=_LOCK_BODY,
        answer=_answer(
            {"acquired": described(_HANDLE, "The handle; absent if another holder has the lock")},
            examples.LOCK_ACQUIRED,
            ("acquired",),
        ),
        errors=(TooManyLocks,),
    ),
    Route(
        "POST",
        f"{SCRATCH}/lock/refresh",
        refresh,
        Auth.SCRATCH,
        {200: "Whether the lock was still held, and is for 20 seconds more"},
        "Extend the lease of a lock",
        body=_HANDLE_BODY,
        answer=_answer({"success": described(FLAG, "Whether the lock was still held")}, examples.LOCK_REFRESHED),
    ),
    Route(
        "POST",
        f"{SCRATCH}/lock/unlock",
        unlock,
        Auth.SCRATCH,
        {204: "The lock is free, or was lost before"},
        "Release a lock",
        body=_HANDLE_BODY,
    ),
)
