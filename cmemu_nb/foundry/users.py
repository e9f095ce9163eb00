"""The users of an emulator, who are the logins of its seed file, as Foundry describes users [foundry]."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_LOGIN = "cmemu"
REALM = "cmemu"


class Users:
    """The users with these logins, and the user `cmemu`, to whom every token without a login belongs [ours]."""

    def __init__(self, logins: Iterable[str]) -> None:
        self.logins = tuple(dict.fromkeys(logins)) or (DEFAULT_LOGIN,)
        self._by_id = {user_id(login): login for login in (DEFAULT_LOGIN, *self.logins)}

    def find(self, name: str) -> str | None:
        """Return the login of the user with an id or a login; None for an unknown one."""
        return self._by_id.get(user_id(name))


def user_id(login: str) -> str:
    """Return the id of a user, which is always a UUID on the platform [foundry]: derived from the login [ours].

    >>> from cmemu_nb.foundry.users import user_id
    >>> user_id("alice")
    '7e8fc3e2-497f-57a1-b350-556bd5e321f9'
    >>> user_id("0d5c1b6e-9a7d-42c3-8e1f-0a2b4c6d8e90")
    '0d5c1b6e-9a7d-42c3-8e1f-0a2b4c6d8e90'
    """
    try:
        return str(uuid.UUID(login))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"cmemu:user:{login}"))


def user_record(login: str) -> dict[str, Any]:
    """Return a user as Foundry's public API describes one, without the members that it may leave out."""
    return {"id": user_id(login), "username": login, "realm": REALM, "status": "ACTIVE", "attributes": {}}
