"""The settings of an emulator. The `help` of each trait is its documentation wherever the setting is shown."""

from __future__ import annotations

import ipaddress
import math
import re
from typing import Any
from urllib.parse import urlsplit

from traitlets import Bool, CaselessStrEnum, Float, Int, List, TraitError, Unicode
from traitlets.config import Configurable

from cmemu_nb.errors import SettingError
from cmemu_nb.tokens import Token, can_be_sent, hidden
from cmemu_nb.wire.labels import MAX_LABEL_BYTES

DEFAULT_KEEP_BYTES = 1024**3
DEFAULT_KEEP_RECORDS = 100_000
DEFAULT_MAX_DATA_BYTES = 4 * 1024**3

LISTS = ("tokens", "local_hostnames", "allowed_origins", "redirect_uris", "caller_token_runtimes")
SECRETS = ("token", "client_secret")
LIMITS_OF_LIFECYCLE = (
    *("keep_events", "keep_bytes", "keep_records", "max_queued", "max_runtimes", "max_label_bytes"),
    "max_data_bytes",
)
SECONDS = (
    *("execute_timeout", "function_timeout", "job_timeout", "refusal_seconds", "slow_client_seconds", "idle_seconds"),
)


# As browsers write an origin: without a path, and without the default port of the scheme.
_ORIGIN = re.compile(
    r"(?:http://(?!\S*:80$)|https://(?!\S*:443$))(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?", re.ASCII
)
# A whole URL without a fragment, of any scheme that runs no script. It becomes a part of headers, so it has no spaces,
# quotes or semicolons, and no commas in the host name.
_REDIRECT_URI = re.compile(
    r"(?!(?:javascript|data|vbscript|file|blob|about):)[a-z][a-z0-9+.-]*://[\w.:[\]-]*(?:[/?][\w.~:/?[\]@!$&()*+,=%-]*)?",
    re.ASCII,
)


class TokenTrait(Unicode):  # type: ignore[type-arg]
    """A string of which only the last four characters are shown."""

    def validate(self, obj: Any, value: Any) -> Any:
        """Convert the string to a `Token`."""
        return Token(super().validate(obj, value))


class Settings(Configurable):
    """The settings of an emulator and their defaults.

    Each setting is an option of `%cmemu start`, `cmemu serve` and `cmemu run`, and a key of seed files. Its `metavar`
    is the placeholder of its value in the help. A setting that is `notebook_only` has no effect outside notebooks.
    """

    port = Int(4000, min=0, max=65535, help="Port to listen on; a free port is used if it is taken or if it is 0.").tag(
        config=True
    )
    tls_port = Int(
        None,
        min=0,
        max=65535,
        allow_none=True,
        help="Port of the platform routes (HTTPS); 8945 if it is not set. A free port is used if it is taken or if "
        "port is 0.",
    ).tag(config=True)
    host = Unicode("127.0.0.1", help="Address to listen on; 127.0.0.1 also listens on ::1 and 127.0.1.1.").tag(
        config=True, metavar="ADDRESS"
    )
    token = TokenTrait(
        None, allow_none=True, help="Bearer token of the contour routes; a random token if it is not set."
    ).tag(config=True)
    tokens = List(TokenTrait(), help="Further bearer tokens that the contour routes accept.").tag(config=True)
    client_id = Unicode(
        None, allow_none=True, help="Id of the OAuth client that may get access tokens; cmemu-client if it is not set."
    ).tag(config=True)
    client_secret = TokenTrait(
        None, allow_none=True, help="Secret of the OAuth client; a random secret if it is not set."
    ).tag(config=True)
    access_token_seconds = Int(3600, min=1, help="Seconds for which an access token of the OAuth client is valid.").tag(
        config=True
    )
    local_hostnames = List(
        Unicode(), help="Names of this machine, besides localhost, that requests may use in their Host header."
    ).tag(config=True, metavar="NAME")
    allowed_origins = List(
        Unicode(),
        help="Origins of web pages that may call functions, such as http://localhost:3000; none by default.",
    ).tag(config=True, metavar="ORIGIN")
    ontology_rid = Unicode(
        "ri.ontology.main.ontology.cmemu", help="RID of the ontology, of which every function is a query."
    ).tag(config=True, metavar="RID")
    ontology_api_name = Unicode("cmemu", help="API name of the ontology; requests may use any other name.").tag(
        config=True, metavar="NAME"
    )
    redirect_uris = List(
        Unicode(),
        help="URLs of applications to which users who sign in for the OAuth client are sent back, exactly as the "
        "applications send them; without one nobody can sign in.",
    ).tag(config=True, metavar="URL")
    sign_in_as = Unicode(
        None,
        allow_none=True,
        help="Login of the user who is signed in at once, without the sign-in page, for a browser without a person.",
    ).tag(config=True, metavar="LOGIN")
    caller_token_runtimes = List(
        Unicode(),
        help="Ids of the runtimes whose jobs contain the bearer token of their caller, as authHeader and "
        "temporaryCredentialsAuthToken; none by default.",
    ).tag(config=True, metavar="RUNTIME")
    allow_remote = Bool(
        default_value=False,
        help="Allow listening on addresses other than loopback. Anyone who can reach the port can then open sessions.",
    ).tag(config=True)
    contour = CaselessStrEnum(
        ["page", "foundry"],
        "page",
        help="The words of a job's status and of errors on the contour routes: 'page' has those of the documentation, "
        "'foundry' those of the types in the npm package @osdk/client.unstable.",
    ).tag(config=True)
    execute_timeout = Float(
        30.0, min=0.0, help="Seconds that a synchronous execute waits for the first byte of its result."
    ).tag(config=True)
    function_timeout = Float(
        None,
        min=0.0,
        allow_none=True,
        help="Seconds after which the job of a call on the functions and ontologies routes fails, in place of "
        "execute_timeout and also for asynchronous calls; the platform has 60. No limit if it is not set.",
    ).tag(config=True)
    job_timeout = Float(
        None,
        min=0.0,
        allow_none=True,
        help="Seconds after which a running job without a result fails; there is no limit if it is not set.",
    ).tag(config=True)
    refusal_seconds = Float(
        1.0, min=0.0, help="Seconds by which the platform routes delay a refusal, because real clients retry at once."
    ).tag(config=True)
    max_body_bytes = Int(
        512 * 1024 * 1024, min=1, help="Largest request body, in bytes; a larger one is refused with 413."
    ).tag(config=True)
    max_label_bytes = Int(
        MAX_LABEL_BYTES,
        min=1,
        help="Longest name, id, branch or reason from outside, in bytes; a longer one is refused with 400.",
    ).tag(config=True)
    max_data_bytes = Int(
        DEFAULT_MAX_DATA_BYTES,
        min=1,
        help="How many bytes the datasets may take in memory; more are refused with 413.",
    ).tag(config=True)
    max_schema_bytes = Int(
        16 * 1024 * 1024,
        min=1,
        help="Largest total size of the schemas of one runtime, in bytes; schemas beyond it are refused with 413.",
    ).tag(config=True)
    max_connections = Int(
        8192,
        min=1,
        help="How many connections may be open; further ones are answered with 503. The limit is lower where the "
        "process may not open that many files.",
    ).tag(config=True)
    max_waiting = Int(
        8192,
        min=1,
        help="How many requests may be held (polls, and clients that wait for a job); further ones are answered with "
        "503.",
    ).tag(config=True)
    max_requests_per_minute = Int(
        None,
        min=1,
        allow_none=True,
        help="How many requests to the routes of Foundry's API a user may send in a minute; further ones are refused "
        "with 429. The platform has 5000, and no limit for service users. No limit if it is not set.",
    ).tag(config=True)
    max_concurrent_requests = Int(
        None,
        min=1,
        allow_none=True,
        help="How many requests of one user to the routes of Foundry's API are processed at a time; further ones are "
        "refused with 429. The platform has 30, and 800 for service users. No limit if it is not set.",
    ).tag(config=True)
    slow_client_seconds = Float(
        60.0,
        min=0.01,
        help="Seconds after which a connection is closed if its client has begun a request but does not complete the "
        "head, sends nothing more of the body, or reads nothing more of the answer.",
    ).tag(config=True)
    idle_seconds = Float(
        3600.0,
        min=0.01,
        help="Seconds that a connection may be idle between two requests, or between two chunks of a streamed result.",
    ).tag(config=True)
    hide_tokens = Bool(
        default_value=False,
        help="Leave module_auth_token out of the runtimes that the routes show; only the client that opens a session "
        "gets its token.",
    ).tag(config=True)
    protect_notebook = Bool(
        default_value=False,
        help="Refuse with 409 to reset the open session of the runtime notebook without its module token or a bearer "
        "token.",
    ).tag(config=True, notebook_only=True)
    max_concurrent_tasks = Int(
        4, min=1, help="How many jobs of functions in cells run at the same time, each in a thread."
    ).tag(config=True, notebook_only=True)
    interrupt = CaselessStrEnum(
        ["cancel", "leave"],
        "cancel",
        help="What interrupting a cell or program that waits for its calls does to their unfinished jobs.",
    ).tag(config=True, notebook_only=True)
    progress = Bool(
        default_value=True,
        help="Whether a call that has waited for two seconds shows why, and a map shows a progress bar; never where "
        "the environment variable CI is set.",
    ).tag(config=True, notebook_only=True)
    keep_events = Int(10_000, min=1, help="How many events the log keeps; empty polls are counted separately.").tag(
        config=True
    )
    keep_jobs = Int(
        100_000, min=1, help="How many jobs are kept; beyond it the oldest finished ones are evicted, and counted."
    ).tag(config=True)
    keep_bytes = Int(
        DEFAULT_KEEP_BYTES,
        min=1,
        help="How many bytes of jobs, their output and events are kept; beyond it the oldest finished jobs are "
        "evicted. Events take at most a quarter of it.",
    ).tag(config=True)
    keep_records = Int(
        DEFAULT_KEEP_RECORDS,
        min=1,
        help="How many records of each data stream are kept; beyond it the oldest are dropped. They take at most 256 "
        "MiB.",
    ).tag(config=True)
    max_queued = Int(
        100_000, min=1, help="How many jobs may be queued for one runtime; further ones are refused with 429."
    ).tag(config=True)
    max_runtimes = Int(
        10_000, min=1, help="How many runtimes there may be; a session of a further one is refused with 429."
    ).tag(config=True)
    journal = Unicode(
        None,
        allow_none=True,
        help="File to which everything is written, so that the next start continues where this one ended.",
    ).tag(config=True, metavar="FILE")
    journal_sync = CaselessStrEnum(
        ["normal", "full"],
        "normal",
        help="What the journal survives: 'normal' is the end of the process at any moment, 'full' also a power cut.",
    ).tag(config=True)
    home = CaselessStrEnum(
        ["auto", "kernel", "thread"],
        "auto",
        help="Where the emulator's event loop runs: as a guest on the kernel's loop, on a thread, or whichever fits.",
    ).tag(config=True, notebook_only=True)


def make_settings(given: dict[str, Any]) -> Settings:
    """Make settings from values by name. A `SettingError` lists the valid names, or says what is wrong with a value."""
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
    _check_pages(settings)
    return settings


def limits_of(settings: Settings) -> dict[str, Any]:
    """Return the settings that `Lifecycle` and its `limit()` take, by name."""
    return {name: getattr(settings, name) for name in LIMITS_OF_LIFECYCLE}


def hide_tokens(given: dict[str, Any]) -> None:
    """Convert the secrets to `Token`s in place, since tracebacks show `given`; refuse secrets that are no strings."""
    if not _hide_tokens(given):
        raise SettingError(
            "A setting was refused: token and client_secret must be strings, and tokens a list of strings."
        )


def _hide_tokens(given: dict[str, Any]) -> bool:
    tokens = given.get("tokens", [])
    tokens = [tokens] if isinstance(tokens, str) else tokens
    texts = all(isinstance(given.get(name), str | None) for name in SECRETS) and isinstance(tokens, list | tuple)
    sound = texts and all(isinstance(each, str) for each in tokens)
    given.update({name: hidden(given[name]) if sound else "…" for name in (*SECRETS, "tokens") if name in given})
    return sound


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(settings: Settings) -> None:
    if not is_loopback(settings.host) and not settings.allow_remote:
        raise SettingError(
            f"Listening on {settings.host} would let other machines connect. Set allow_remote=True "
            "(--allow-remote) if you want that, or leave host at 127.0.0.1."
        )
    for name in SECONDS:
        if getattr(settings, name) is not None and not math.isfinite(getattr(settings, name)):
            raise SettingError(f"{name} must be a number of seconds.")
    for token in filter(None, [settings.token, *settings.tokens]):
        if not can_be_sent(token):
            raise SettingError(
                "A token can't be sent in a header: use printable ASCII without leading or trailing spaces."
            )
    if not (settings.ontology_rid.startswith("ri.") and settings.ontology_api_name.strip()):
        raise SettingError(
            "ontology_rid must begin with 'ri.', such as ri.ontology.main.ontology.shop, and ontology_api_name must "
            "not be empty."
        )
    if settings.journal is not None and not settings.journal.strip():
        raise SettingError("The journal's name is empty. Give a file name, such as lifecycle.db, or leave it out.")
    if settings.client_id == "" or settings.client_secret == "":
        raise SettingError("An empty client_id or client_secret can't be sent. Leave it out to get a default.")
    if settings.token == "" or "" in settings.tokens:
        raise SettingError("An empty token would let every client in. Leave it out to get a random one.")


def _has_sound_host(uri: str) -> bool:
    try:
        _ = urlsplit(uri).port  # raises an error also for brackets around what is no IPv6 address
    except ValueError:
        return False
    return True


def _check_pages(settings: Settings) -> None:
    for origin in settings.allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            raise SettingError(
                f"allowed_origins has '{origin}', which is not the origin of a web page. Write it as browsers send it, "
                "such as http://localhost:3000: in lower case, without a path, and without the default port."
            )
    for uri in settings.redirect_uris:
        if not (_REDIRECT_URI.fullmatch(uri) and _has_sound_host(uri)):
            raise SettingError(
                f"redirect_uris has '{uri}', to which no user can be sent back. Write the whole URL without a "
                "fragment, such as http://localhost:3000/callback."
            )
    if settings.sign_in_as is not None and not (settings.sign_in_as.strip() and settings.sign_in_as.isprintable()):
        raise SettingError("The login of sign_in_as is empty or not printable. Give a name, such as alice.")
