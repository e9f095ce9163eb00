"""The identity of an emulator: what it keeps after a stop, and with a journal after its process has ended."""

from __future__ import annotations

import contextlib
import functools
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import JournalBehind, JournalError
from cmemu_nb.foundry.oauth import DEFAULT_CLIENT_ID, OAuthClient
from cmemu_nb.foundry.reach import Reach
from cmemu_nb.lifecycle.records import Mode
from cmemu_nb.settings import limits_of, make_settings
from cmemu_nb.storage.certificates import Authority, Certificates
from cmemu_nb.storage.owner_only import is_ours
from cmemu_nb.storage.private_files import PrivateFiles, remove_left_directories
from cmemu_nb.storage.replica_files import ReplicaFiles
from cmemu_nb.tokens import Token, build_token

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from cmemu_nb.lifecycle.configuration import Configuration
    from cmemu_nb.lifecycle.lifecycle import Lifecycle
    from cmemu_nb.lifecycle.snapshot import Seed
    from cmemu_nb.settings import Settings
    from cmemu_nb.storage.journal import Journal
    from cmemu_nb.storage.journal_file import JournalFile

TLS_PORT = 8945
DEFAULT_PORTS = (4000, 0)
LOST = "the kernel or process that ran it ended"


class Identity:
    """The settings, the token, the OAuth client, the ports, the certificates and the journal of an emulator.

    `started_at` is when it was last started, in Unix nanoseconds, 0 before the first start; `seed` is the initial state
    from a seed file, or None.
    """

    def __init__(self, settings: Settings, lifecycle: Lifecycle) -> None:
        self.settings = settings
        self.seed: Seed | None = None
        self.journal: Journal | None = None
        self.started_at = 0
        self.token: Token
        self.client_id: str
        self.client_secret: Token
        self.replica_files: ReplicaFiles
        self.reach = Reach(lifecycle)
        self._module_clients: dict[str, Token] = {}
        self._lifecycle = lifecycle
        self._journal_file: JournalFile | None = None
        self._known: dict[str, str] = {}
        self._path: Path | None = None
        self._adopt(_new_identity())

    def other_settings(self, settings: Mapping[str, Any]) -> list[str]:
        """Return the names of those settings whose current values differ; `SettingError` if one is invalid."""
        wanted = self._settings_with(settings)
        return [name for name in settings if not self._has(name, getattr(wanted, name))]

    def _settings_with(self, settings: Mapping[str, Any]) -> Settings:
        names = self.settings.trait_names(config=True)
        return make_settings({**{name: getattr(self.settings, name) for name in names}, **settings})

    def _has(self, name: str, value: object) -> bool:
        known = getattr(self.settings, name)
        if name == "journal" and None not in (known, value):
            return _real_path(str(value)) == self._journal_path()
        return bool(known == value)

    def can_have_journal(self, journal: str | None) -> bool:
        """Return whether it can be started with a journal: after the first start only with its own or a new file."""
        if journal is None or not self.started_at or self._has("journal", journal):
            return True
        path = _real_path(journal)
        return not path.exists() or not path.stat().st_size

    def change_settings(self, settings: Mapping[str, Any]) -> Callable[[], None]:
        """Change settings while it is stopped; returns a function that restores the old ones."""
        if not self.can_have_journal(settings.get("journal")):
            raise JournalError(
                f"The journal {settings['journal']} has another emulator's records, and this one has its own. "
                "Choose a new file, or create a new Emulator with that journal, which restores its records."
            )
        old, identity = self.settings, dict(self._known)
        who = {name: getattr(self, name) for name in ("token", "client_id", "client_secret")}

        def take(settings: Settings, identity: dict[str, str]) -> None:
            self.settings, self._known, self._path = settings, identity, None
            self._lifecycle.limit(**limits_of(settings))
            self._adopt(who)

        # A port in the settings takes precedence over the one of the last start.
        take(self._settings_with(settings), {name: each for name, each in identity.items() if name not in settings})
        return lambda: take(old, identity)

    @property
    def bearer_tokens(self) -> tuple[Token, ...]:
        """Every token that the contour routes accept."""
        return (self.token, *self.settings.tokens, *(self.seed.logins if self.seed else ()))

    def open_journal(self) -> None:
        """Open the journal, if the settings name one; on the first start restore its records."""
        if self.settings.journal is None:
            return
        # SQLite is imported only for a journal.
        from cmemu_nb.storage.journal_file import JournalFile  # noqa: PLC0415

        file = JournalFile(self._journal_path(), self.settings.journal_sync)
        try:
            self._take_over(file)
        except BaseException:
            file.close()
            raise
        self._journal_file = file

    def _journal_path(self) -> Path:
        """Return the journal's real path, which no later change of directory affects and each alias of it shares."""
        if self._path is None:
            self._path = _real_path(str(self.settings.journal))
        return self._path

    def _take_over(self, file: JournalFile) -> None:
        known = file.identity()
        if known and (self.started_at or "owner" in self._known):
            if known.get("owner") != self._known.get("owner"):
                raise JournalError(
                    f"The journal {file.path} was used by another emulator since this one was stopped. Create a new "
                    "Emulator with it, which restores its records. In a notebook delete the variable, then type "
                    "%cmemu start --journal FILE."
                )
            return
        saved, owner = file.load(), secrets.token_hex(8)
        if self.seed is not None:
            self.seed.check_tokens(saved.sessions)
        file.remember({"owner": owner})
        if not self.started_at:
            self._lifecycle.restore(saved)
        self._known |= {"token": self.token, "client_id": self.client_id, "client_secret": self.client_secret}
        self._known |= {**known, "owner": owner}
        self._adopt(self._known)

    def _adopt(self, identity: Mapping[str, str]) -> None:
        """Adopt the token and the OAuth client of the settings, or else those of an identity."""
        self.token = Token(self.settings.token or identity["token"])
        self.client_id = self.settings.client_id or identity["client_id"]
        self.client_secret = Token(self.settings.client_secret or identity["client_secret"])
        self._lifecycle.events.hide(self.token, self.client_secret, *self.settings.tokens)

    def oauth_client(self) -> OAuthClient:
        """Return the OAuth client, which issues access tokens and knows the revoked ones."""
        revoked = msgspec.json.decode(self._known.get("revoked", "{}"), type=dict[str, int])
        return OAuthClient(
            self.client_id,
            self.client_secret,
            int(self.settings.access_token_seconds),
            revoked,
            self._keep_revoked,
            self._module_clients,
        )

    def accept(self, runtime_id: str, configuration: Configuration) -> Token | None:
        """Accept the OAuth client and the build token of a module's configuration, and return the build token.

        The newest secret of a client's id is valid. A pipeline with aliases that is configured with no build token gets
        one.
        """
        token, client = configuration.build2_token, configuration.client
        has_none = token is None and configuration.mode == Mode.PIPELINE and configuration.aliases
        if has_none and self._lifecycle.has_runtime(runtime_id):
            token = build_token(self._lifecycle.runtime(runtime_id).module_auth_token)
        self.reach.accept(runtime_id, configuration, token)
        if client is not None:
            self._module_clients[client.id] = client.secret
        return token

    def _keep_revoked(self, revoked: Mapping[str, int]) -> None:
        self._known["revoked"] = msgspec.json.encode(revoked).decode()
        if self._journal_file is None:
            return
        try:
            self._journal_file.remember({"revoked": self._known["revoked"]})
        except JournalError as error:
            raise JournalBehind(
                f"The token is revoked, but would be valid again after a restart: {error} Then revoke it again."
            ) from None

    def wanted_port(self) -> int:
        """Return the port to listen on: that of the settings, or for a default port that of the last start."""
        port = int(self.settings.port)
        return self._known_port("port", port) if port in DEFAULT_PORTS else port

    def wanted_tls_port(self) -> int:
        """Return the port of the platform routes to listen on, as `wanted_port()` does."""
        wanted = self.settings.tls_port
        if wanted:
            return int(wanted)
        any_free = wanted == 0 or not self.settings.port
        return self._known_port("tls_port", 0 if any_free else TLS_PORT)

    def _known_port(self, name: str, otherwise: int) -> int:
        known = self._known.get(name, "")
        return int(known) if known.isascii() and known.isdecimal() else otherwise

    def remember(self, port: int, tls_port: int) -> None:
        """Keep the identity and the ports for the next start, and in the journal, if there is one."""
        # A port that is taken now may be free at the next start, and external executors are configured with it.
        ports = {"port": str(port), "tls_port": str(tls_port)}
        asked_for = {"port": self.settings.port not in DEFAULT_PORTS, "tls_port": bool(self.settings.tls_port)}
        self._known |= {n: p for n, p in ports.items() if asked_for[n] or n not in self._known}
        if self._journal_file is not None:
            authority = self.certificates.authority
            self._known |= {"token": str(self.token), "client_id": self.client_id}
            self._known["client_secret"] = str(self.client_secret)
            self._known |= {"authority": authority.certificate, "authority_key": authority.key}
            self._journal_file.remember(self._known)

    def begin_journal(self, loop: asyncio.AbstractEventLoop) -> None:
        """Record every change in the journal, if there is one, from now on."""
        if self._journal_file is not None:
            from cmemu_nb.storage.journal import Journal  # noqa: PLC0415

            self.journal = Journal(self._journal_file, self._lifecycle, loop)

    def close_journal(self) -> None:
        """Write the remaining changes to the journal and close it; do nothing if there is none."""
        journal, file = self.journal, self._journal_file
        self.journal = self._journal_file = None
        try:
            if journal is not None:
                journal.close()
        finally:
            if file is not None:
                file.close()

    @contextlib.asynccontextmanager
    async def contents(self, bodies: Iterable[bytes]) -> AsyncIterator[None]:
        """Write the bytes of large files to the journal, if there is one, before they are added to datasets inside."""
        if self.journal is None:
            yield
        else:
            async with self.journal.contents(bodies):
                yield

    async def written(self) -> None:
        """Wait until the journal, if there is one, has every change so far."""
        if self.journal is not None:
            await self.journal.written()

    @functools.cached_property
    def files(self) -> PrivateFiles:
        """The private directory of the emulator's certificates and tokens, beside the journal if there is one."""
        remove_left_directories()
        files = PrivateFiles(self._journal_file.folder if self._journal_file else None)
        self.replica_files = ReplicaFiles(files, self._lifecycle)
        return files

    @functools.cached_property
    def certificates(self) -> Certificates:
        """The certificate of the platform routes, and the certificate authority that signed it."""
        known = self._known
        authority = Authority(known["authority"], known["authority_key"]) if "authority" in known else None
        names = (*self.settings.local_hostnames, *([self.settings.host] if self.settings.allow_remote else []))
        return Certificates(self.files, names, authority)


def _new_identity() -> dict[str, str]:
    new = {name: secrets.token_urlsafe(32) for name in ("token", "client_secret")}
    return {**new, "client_id": DEFAULT_CLIENT_ID}


def _real_path(journal: str) -> Path:
    try:
        path = Path(journal).expanduser()
        if path.is_symlink() and not is_ours(path.lstat()):
            raise JournalError(
                f"The journal {path} can't be used: it is a symbolic link of another user. Give the path of the file."
            )
        return path.resolve()
    except (ValueError, RuntimeError, OSError) as error:
        raise JournalError(f"The journal {journal!r} can't be opened: {error}.") from None
