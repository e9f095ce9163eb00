"""The settings of an emulator. Each trait's `help` is its documentation, everywhere it is shown."""

from __future__ import annotations

import ipaddress
import math
from typing import Any

from traitlets import Bool, CaselessStrEnum, Float, Int, List, TraitError, Unicode
from traitlets.config import Configurable

from cmemu_nb.errors import SettingError
from cmemu_nb.tokens import Token, can_be_sent, hidden
from cmemu_nb.wire.labels import MAX_LABEL_BYTES

DEFAULT_KEEP_BYTES = 1024**3

LISTS = ("tokens", "local_hostnames")
SECRETS = ("token", "client_secret")
LIMITS_OF_LIFECYCLE = ("keep_events", "keep_bytes", "max_queued", "max_runtimes", "max_label_bytes")
SECONDS = ("execute_timeout", "job_timeout", "refusal_seconds", "slow_client_seconds", "idle_seconds")


class TokenTrait(Unicode):  # type: ignore[type-arg]
    """A text that is shown with its last four characters only."""

    def validate(self, obj: Any, value: Any) -> Any:
        """Make a `Token` of the text."""
        return Token(super().validate(obj, value))


class Settings(Configurable):
    """What can be set of an emulator, with its default.

    Each is an option of `%cmemu start`, `cmemu serve` and `cmemu run`, and a key of seed files: `metavar` is what its
    value is called in the help, and one that is `notebook_only` says nothing where there are no cells.
    """

    port = Int(4000, min=0, max=65535, help="Port to listen on; a free one if it is taken, or if it is 0.").tag(
        config=True
    )
    tls_port = Int(
        None,
        min=0,
        max=65535,
        allow_none=True,
        help="Port of the platform routes (HTTPS): 8945 if it is not set, a free one if that is taken or port is 0.",
    ).tag(config=True)
    host = Unicode("127.0.0.1", help="Address to listen on; 127.0.0.1 also listens on ::1.").tag(
        config=True, metavar="ADDRESS"
    )
    token = TokenTrait(
        None, allow_none=True, help="Bearer token of the contour routes; a random one if it is not set."
    ).tag(config=True)
    tokens = List(TokenTrait(), help="Further bearer tokens that the contour routes accept.").tag(config=True)
    client_id = Unicode(
        None, allow_none=True, help="Id of the OAuth client that may get access tokens; cmemu-client if it is not set."
    ).tag(config=True)
    client_secret = TokenTrait(
        None, allow_none=True, help="Secret of the OAuth client; a random one if it is not set."
    ).tag(config=True)
    access_token_seconds = Int(3600, min=1, help="Seconds that an access token of the OAuth client is valid.").tag(
        config=True
    )
    local_hostnames = List(
        Unicode(), help="Names of this machine, besides localhost, that requests may use in their Host header."
    ).tag(config=True, metavar="NAME")
    allow_remote = Bool(
        default_value=False,
        help="Allow listening on other than loopback addresses: whoever reaches the port can open sessions.",
    ).tag(config=True)
    execute_timeout = Float(
        30.0, min=0.0, help="Seconds that a synchronous execute waits for the first byte of its result."
    ).tag(config=True)
    job_timeout = Float(
        None,
        min=0.0,
        allow_none=True,
        help="Seconds after which a job that was taken fails if there is no result; without limit if it is not set.",
    ).tag(config=True)
    refusal_seconds = Float(
        1.0, min=0.0, help="Seconds that the platform routes hold back a refusal, since real clients ask again at once."
    ).tag(config=True)
    max_body_bytes = Int(
        512 * 1024 * 1024, min=1, help="Largest request body, in bytes; larger ones are refused with 413."
    ).tag(config=True)
    max_label_bytes = Int(
        MAX_LABEL_BYTES,
        min=1,
        help="Longest name, id, branch or reason from outside, in bytes; longer ones are refused with 400.",
    ).tag(config=True)
    max_schema_bytes = Int(
        16 * 1024 * 1024,
        min=1,
        help="Largest size of all schemas of one runtime, in bytes; what comes beyond is refused with 413.",
    ).tag(config=True)
    max_connections = Int(
        8192,
        min=1,
        help="How many connections may be open; what comes beyond is answered 503. It is less where the process may "
        "not open as many files.",
    ).tag(config=True)
    max_waiting = Int(
        8192,
        min=1,
        help="How many requests may be held, polls and clients that wait for a job; what comes beyond is answered 503.",
    ).tag(config=True)
    slow_client_seconds = Float(
        60.0,
        min=0.01,
        help="Seconds after which a connection is closed that has begun a request and does not end its head, sends "
        "nothing of its body, or takes nothing of its answer.",
    ).tag(config=True)
    idle_seconds = Float(
        3600.0,
        min=0.01,
        help="Seconds that a connection may be silent between two requests, or two chunks of a streamed result.",
    ).tag(config=True)
    hide_tokens = Bool(
        default_value=False,
        help="Leave module_auth_token out of what the routes show of a runtime: only who opens its session is told.",
    ).tag(config=True)
    protect_notebook = Bool(
        default_value=False,
        help="Refuse with 409 to reset the open session of the runtime notebook without its module token or a bearer "
        "token.",
    ).tag(config=True, notebook_only=True)
    max_concurrent_tasks = Int(
        4, min=1, help="How many jobs of functions in cells run at a time, each in a thread."
    ).tag(config=True, notebook_only=True)
    interrupt = CaselessStrEnum(
        ["cancel", "leave"],
        "cancel",
        help="What interrupting a cell or program that waits for its calls does to their unfinished jobs.",
    ).tag(config=True, notebook_only=True)
    progress = Bool(
        default_value=True,
        help="Whether a call that has waited for two seconds says why, and a map shows a bar; never where the "
        "environment variable CI is set.",
    ).tag(config=True, notebook_only=True)
    keep_events = Int(10_000, min=1, help="How many events the log keeps; empty polls are counted apart.").tag(
        config=True
    )
    keep_jobs = Int(
        100_000, min=1, help="How many jobs are kept; beyond it the oldest finished ones are let go, counted."
    ).tag(config=True)
    keep_bytes = Int(
        DEFAULT_KEEP_BYTES,
        min=1,
        help="How many bytes of jobs, what they print and events are kept; beyond it as with keep_jobs. Events have at "
        "most a quarter of it.",
    ).tag(config=True)
    max_queued = Int(
        100_000, min=1, help="How many jobs may be queued for one runtime; more are refused with 429."
    ).tag(config=True)
    max_runtimes = Int(
        10_000, min=1, help="How many runtimes there may be; the session of a further one is refused with 429."
    ).tag(config=True)
    journal = Unicode(
        None,
        allow_none=True,
        help="File that everything is written to, so that the next start goes on where this one ends.",
    ).tag(config=True, metavar="FILE")
    journal_sync = CaselessStrEnum(
        ["normal", "full"],
        "normal",
        help="What the journal survives: 'normal' the end of the process at any moment, 'full' a power cut too.",
    ).tag(config=True)
    home = CaselessStrEnum(
        ["auto", "kernel", "thread"],
        "auto",
        help="Where the emulator's loop runs: as a guest on the kernel's loop, on a thread, or what fits.",
    ).tag(config=True, notebook_only=True)


def make_settings(given: dict[str, Any]) -> Settings:
    """Check settings given by name; a `SettingError` names the valid ones, or says what is wrong with a value."""
    hide_tokens(given)
    names = Settings.class_trait_names(config=True)
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise SettingError(f"There is no setting '{unknown[0]}'. The settings are {', '.join(sorted(names))}.")
    given = {name: [value] if name in LISTS and isinstance(value, str) else value for name, value in given.items()}
    try:
        settings = Settings(**given)
    except TraitError as error:
        raise SettingError(f"A setting was refused: {error}") from None
    _check(settings)
    return settings


def limits_of(settings: Settings) -> dict[str, Any]:
    """Return what `Lifecycle` and its `limit()` take of the settings, by name."""
    return {name: getattr(settings, name) for name in LIMITS_OF_LIFECYCLE}


def hide_tokens(given: dict[str, Any]) -> None:
    """Make tokens of the texts, in place: `given` is a variable in tracebacks. Those that are no texts are refused."""
    if not _hide_tokens(given):
        raise SettingError("A setting was refused: token and client_secret must be texts, and tokens a list of texts.")


def _hide_tokens(given: dict[str, Any]) -> bool:
    tokens = given.get("tokens", [])
    tokens = [tokens] if isinstance(tokens, str) else tokens
    texts = all(isinstance(given.get(name), str | None) for name in SECRETS) and isinstance(tokens, list | tuple)
    sound = texts and all(isinstance(each, str) for each in tokens)
    given.update({name: hidden(given[name]) if sound else "…" for name in (*SECRETS, "tokens") if name in given})
    return sound


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(settings: Settings) -> None:
    if not is_loopback(settings.host) and not settings.allow_remote:
        raise SettingError(
            f"Listening on {settings.host} would let other machines in. Set allow_remote=True "
            "(--allow-remote) if you mean it, or leave host at 127.0.0.1."
        )
    for name in SECONDS:
        if getattr(settings, name) is not None and not math.isfinite(getattr(settings, name)):
            raise SettingError(f"{name} must be a number of seconds.")
    for token in filter(None, [settings.token, *settings.tokens]):
        if not can_be_sent(token):
            raise SettingError("A token can't be sent in a header: use printable ASCII without blanks at its ends.")
    if settings.journal is not None and not settings.journal.strip():
        raise SettingError("The journal's name is empty. Give a file's name, such as lifecycle.db, or leave it out.")
    if settings.client_id == "" or settings.client_secret == "":
        raise SettingError("An empty client_id or client_secret can't be sent: leave it out to get one.")
    if settings.token == "" or "" in settings.tokens:
        raise SettingError("An empty token would let everybody in: leave it out to get a random one.")
