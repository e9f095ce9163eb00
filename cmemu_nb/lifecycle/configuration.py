"""The configuration of a compute module: its sources, resources, client, tokens, environment and size.

It has the same keys wherever it is given: as keywords, in a file, in a seed file and in a request.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.lifecycle.records import Mode
from cmemu_nb.lifecycle.scaling import NAMES as SCALING_NAMES
from cmemu_nb.lifecycle.scaling import Scaling, read_scaling
from cmemu_nb.phrases import abbreviated, closest, listed, quoted
from cmemu_nb.tokens import Token, hidden, last_four
from cmemu_nb.wire.json_input import JSON_TYPES
from cmemu_nb.wire.value_types import name_of_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIN_PORT, MAX_PORT = 1024, 65_535
RUNTIME_PORTS = (8945, 8946)
SERVER_SECONDS = 300.0
"""How long a call may take that comes from a TypeScript function [foundry]; a server's own limit is not documented."""
MAX_COUNT = 10_000
# Parts of a source's configuration that hold credentials [foundry].
SECRET_PARTS = ("secrets", "proxyToken", "authHeaders", "queryParameters", "resolvedCredentials", "pemPrivateKey")
# Parts of a source's configuration that are texts by name [foundry].
TEXTS_OF_A_SOURCE = {"secrets": "of credentials by name", "serverCertificates": "of certificates in PEM by name"}


@dataclass(frozen=True)
class OAuthCredentials:
    """The id and the secret of the OAuth client that a module may use for requests of its own [foundry]."""

    id: str
    secret: Token


@dataclass(frozen=True)
class ServerOptions:
    """That a module is an HTTP server without an SDK [foundry], whose functions the file `openapi` describes.

    It listens on `port`, by default that of its document; a request may take `timeout` seconds.
    """

    openapi: str
    port: int | None = None
    timeout: float = SERVER_SECONDS


@dataclass(frozen=True)
class Probe:
    """A check of a replica: a `command` that exits with code 0, or a GET that is answered with 200 to 399 [foundry].

    It is run every `period` seconds, for at most `timeout` seconds; `failures` in a row are a failure. The defaults of
    `period` and `failures` are Kubernetes's, because the documentation names none; that of `timeout` is [ours].
    """

    command: tuple[str, ...] = ()
    path: str = ""
    port: int = 0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 5.0
    period: float = 10.0
    failures: int = 3

    @property
    def in_words(self) -> str:
        """What it does: `GET :8000/health`, or the command."""
        return shlex.join(self.command) if self.command else f"GET :{self.port}{self.path}"


@dataclass(frozen=True, repr=False)
class Configuration:
    """What a deployed module is configured with [foundry]. Its repr has names only, and no secrets.

    - `sources`: the credentials of each source, by the source's name and the credential's name.
    - `source_configurations`: further properties of each source, in the format that the SDKs read, such as
      `{"Crm": {"sourceConfiguration": {...}, "httpConnectionConfig": {"url": ...}}}`.
    - `aliases`: the resources by alias, each with its `rid` and, if it has one, its `branch`. In place of these the RID
      alone can be given, or the name of a dataset or data stream of the emulator.
    - `client`: the `id` and `secret` of the module's OAuth client, which the emulator's OAuth routes accept.
    - `build2_token`: the token of pipeline mode.
    - `environment`: environment variables of the program.
    - `mode`: `function`, or `pipeline` for a program that takes no jobs and need not poll.
    - `replicas`: how many processes a launch starts, 1 by default.
    - `max_concurrent_tasks`: how many unfinished jobs a replica receives at a time, 1 by default.
    - `max_lifetime`: after how many seconds a replica is replaced by a new one; None, the default, for never.
    - `server`: for a program that is an HTTP server without an SDK, the path of its OpenAPI document as `openapi`, and
      perhaps its `port` and the `timeout` of a request in seconds.
    - `scaling`: between how many replicas it is scaled, and when, in place of `replicas`; None, the default, leaves
      their number as it is.
    - `readiness_probe` and `liveness_probe`: a check after which a replica gets jobs, and one whose failure restarts
      it: `command`, or `path` and `port` and perhaps `headers`, and perhaps `timeout`, `period` and `failures`.
    """

    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    source_configurations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    aliases: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    client: OAuthCredentials | None = None
    build2_token: Token | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    mode: Mode = Mode.FUNCTION
    replicas: int = 1
    max_concurrent_tasks: int = 1
    server: ServerOptions | None = None
    scaling: Scaling | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    max_lifetime: float | None = None

    def changed(self, given: Mapping[str, Any]) -> Configuration:
        """Return it with other values for the given keys; None leaves a key as it is.

        Raises `InvalidRequest` for an unknown key, which lists the keys, and for a value that is not valid.
        """
        for name in given:
            if name not in KEYS:
                raise InvalidRequest(f"{unknown_key(name)} The keys are {', '.join(KEYS)}.")
        read = {name: _READERS[name](value, name) for name, value in given.items() if value is not None}
        return replace(self, **read)

    def resolved(self, resource: Callable[[str, str | None], Mapping[str, str | None]]) -> Configuration:
        """Return it with the resources of aliases that were given by name.

        `resource(name, branch)` returns the RID and the branch.
        """
        names = {alias: each for alias, each in self.aliases.items() if not str(each["rid"]).startswith("ri.")}
        if not names:
            return self
        found = {alias: resource(str(each["rid"]), each["branch"]) for alias, each in names.items()}
        return replace(self, aliases={**self.aliases, **found})

    @property
    def credentials(self) -> dict[str, dict[str, str]]:
        """The credentials of each source, from `sources` and from the `secrets` of `source_configurations`."""
        both = {**self.source_configurations, **self.sources}
        return {name: {**self._secrets_of(name), **self.sources.get(name, {})} for name in both}

    @property
    def mounted_sources(self) -> dict[str, dict[str, Any]]:
        """The properties of each source with its credentials as `secrets`, as a module receives them [foundry]."""
        secrets = self.credentials
        return {name: {**self.source_configurations.get(name, {}), "secrets": secrets[name]} for name in secrets}

    def _secrets_of(self, source: str) -> Mapping[str, str]:
        secrets: Mapping[str, str] = self.source_configurations.get(source, {}).get("secrets") or {}
        return secrets

    @property
    def secrets(self) -> list[str]:
        """Every text that must be masked wherever it is shown."""
        secrets = [*_texts(self.sources), *_texts_of_secret_parts(self.source_configurations)]
        secrets += [self.client.secret] if self.client else []
        return [*secrets, *([self.build2_token] if self.build2_token else [])]

    def outline(self, value: str) -> dict[str, Any]:
        """Return what a program needs to find, its sources, client and environment, with `value` for each secret."""
        sources = {source: dict.fromkeys(names, value) for source, names in self.credentials.items()}
        client = {"id": self.client.id, "secret": value} if self.client else None
        outline = {"sources": sources, "client": client, "environment": dict.fromkeys(self.environment, value)}
        return {name: each for name, each in outline.items() if each}

    @property
    def in_words(self) -> str:
        """The names of what is configured, on one line; "nothing" if that is nothing."""
        named = {"sources": {**self.sources, **self.source_configurations}, "aliases": self.aliases}
        parts = [f"{name} {', '.join(values)}" for name, values in named.items() if values]
        parts += [f"client {self.client.id}"] if self.client else []
        parts += [f"build2_token {last_four(self.build2_token)}"] if self.build2_token else []
        parts += [f"environment {', '.join(self.environment)}"] if self.environment else []
        parts += [f"server {self.server.openapi}"] if self.server else []
        parts += [f"scaling {self.scaling.in_words}"] if self.scaling else []
        probes = {"readiness_probe": self.readiness_probe, "liveness_probe": self.liveness_probe}
        parts += [f"{name} {probe.in_words}" for name, probe in probes.items() if probe]
        parts += [f"max_lifetime {self.max_lifetime:g} s"] if self.max_lifetime else []
        parts += [f"mode {self.mode}"] if self.mode != Mode.FUNCTION else []
        sizes = {"replicas": self.replicas, "max_concurrent_tasks": self.max_concurrent_tasks}
        parts += [f"{name} {value}" for name, value in sizes.items() if value != 1]
        return "; ".join(parts) or "nothing"

    def __repr__(self) -> str:
        return f"<Configuration: {self.in_words}>"


KEYS = tuple(each.name for each in fields(Configuration))
SECRETS = ("sources", "source_configurations", "client", "build2_token", "environment")


def unknown_key(name: str) -> str:
    """Return the sentences about a key that configurations do not have, with the one that was meant."""
    whole = next((key for key in KEYS if key.startswith(name)), None)
    similar = f" Did you mean {quoted(whole)}?" if whole else closest(name, KEYS)
    return f"A module's configuration has no key {quoted(name)}.{similar}"


def hide_secrets(given: dict[str, Any]) -> None:
    """Convert the secrets of a configuration to `Token`s in place, because tracebacks may show `given`."""
    given.update({name: hidden(given[name]) for name in SECRETS if name in given})


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in plain JSON values."""
    if isinstance(value, str):
        yield str(value)
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _texts_of_secret_parts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(each) if name in SECRET_PARTS else _texts_of_secret_parts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts_of_secret_parts(each)


# Each reader takes a value and its path for messages. Messages never have the value, because it may be a secret.


def _wrong(where: str, expected: str, value: Any) -> InvalidRequest:
    given = JSON_TYPES.get(type(value).__name__) or name_of_type(value)
    given = "a string" if isinstance(value, str) else given
    return InvalidRequest(f"{where} of a module's configuration must be {expected}, not {given}.")


def _text(value: Any, where: str) -> Token:
    """Read a text that environments and files can hold."""
    if not isinstance(value, str):
        raise _wrong(where, "a string (in YAML, put it in quotes)", value)
    if "\0" in value or not _is_unicode(value):
        raise InvalidRequest(f"{where} of a module's configuration has a character that no environment can hold.")
    return Token(value)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _filled(value: Any, where: str) -> Token:
    text = _text(value, where)
    if not text.strip():
        raise InvalidRequest(f"{where} of a module's configuration is empty. Leave it out, or give it a value.")
    return text


def _mapping(value: Any, where: str, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(where, f"an object {what}", value)
    if not all(isinstance(each, str) and each and _is_unicode(each) for each in value):
        raise InvalidRequest(
            f"{where} of a module's configuration has a key that is no name. Give each a name that is a string of "
            "Unicode characters (in YAML, put it in quotes: on, no and 12 are no strings there)."
        )
    return {str(name): each for name, each in value.items()}


def _sources(value: Any, where: str) -> dict[str, dict[str, str]]:
    sources = _mapping(value, where, "of sources by name")
    return {
        name: _texts_by_name(credentials, f"{where}.{name}", "of credentials by name")
        for name, credentials in sources.items()
    }


def _texts_by_name(value: Any, where: str, what: str) -> dict[str, str]:
    return {name: _text(each, f"{where}.{name}") for name, each in _mapping(value, where, what).items()}


def _source_configurations(value: Any, where: str) -> dict[str, dict[str, Any]]:
    sources = _mapping(value, where, "of sources by name")
    for name, each in sources.items():
        properties = _mapping(each, f"{where}.{name}", "such as {'sourceConfiguration': {...}}")
        for part, what in TEXTS_OF_A_SOURCE.items():
            _texts_by_name(properties.get(part) or {}, f"{where}.{name}.{part}", what)
        try:
            json.dumps(each, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise InvalidRequest(
                f"{where}.{name} of a module's configuration can't be written as JSON. Use strings, numbers, lists and "
                "objects; in YAML, put dates in quotes."
            ) from None
    return sources


def _aliases(value: Any, where: str) -> dict[str, dict[str, str | None]]:
    return {
        name: _resource(each, f"{where}.{name}")
        for name, each in _mapping(value, where, "of resources by alias").items()
    }


def _resource(value: Any, where: str) -> dict[str, str | None]:
    if isinstance(value, str):
        return {"rid": str(_filled(value, where)), "branch": None}
    if not isinstance(value, Mapping):
        raise _wrong(where, "the name or RID of a dataset or stream, or an object with rid and branch", value)
    resource = _members(value, where, ("rid",), ("branch",))
    branch = resource.get("branch")
    return {
        "rid": str(_filled(resource["rid"], f"{where}.rid")),
        "branch": None if branch is None else str(_filled(branch, f"{where}.branch")),
    }


def _client(value: Any, where: str) -> OAuthCredentials:
    client = _members(value, where, ("id", "secret"))
    return OAuthCredentials(str(_filled(client["id"], f"{where}.id")), _filled(client["secret"], f"{where}.secret"))


def _members(value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read an object that has just these members."""
    names = (*required, *optional)
    members = _mapping(value, where, f"with {listed(names)}")
    for name in members:
        if name not in names:
            raise InvalidRequest(
                f"{where} of a module's configuration has no key {quoted(name)}.{closest(name, names)} Its keys are "
                f"{', '.join(names)}."
            )
    for name in required:
        if name not in members:
            raise InvalidRequest(f"{where} of a module's configuration needs {' and '.join(required)}.")
    return members


def _environment(value: Any, where: str) -> dict[str, str]:
    variables = _mapping(value, where, "of environment variables by name")
    for name in variables:
        if "=" in name or "\0" in name:
            # What follows "=" was perhaps meant as the value, which may be a secret.
            shown = quoted(name.partition("=")[0])
            raise InvalidRequest(
                f"{where} of a module's configuration has a name that no environment variable can have: it begins with "
                f"{shown}. Give an object, such as {{'LOG_LEVEL': 'DEBUG'}}."
            )
    return {name: _text(each, f"{where}.{name}") for name, each in variables.items()}


def _mode(value: Any, where: str) -> Mode:  # noqa: ARG001 - every reader takes the path
    names = [*map(str, Mode)]
    if value not in names:
        raise InvalidRequest(
            f"There is no mode {quoted(str(value))}.{closest(str(value), names)} The modes are {', '.join(names)}."
        )
    return Mode(value)


def _count(value: Any, where: str, most: int = MAX_COUNT) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(where, f"a whole number from 1 to {most:,}", value)
    if not 1 <= value <= most:
        raise InvalidRequest(
            f"{where} of a module's configuration must be from 1 to {most:,}, not {abbreviated(value)}."
        )
    return value


def _server(value: Any, where: str) -> ServerOptions:
    server = _members(value, where, ("openapi",), ("port", "timeout"))
    path, port, timeout = server["openapi"], server.get("port"), server.get("timeout")
    openapi = str(_filled(os.fspath(path) if isinstance(path, os.PathLike) else path, f"{where}.openapi"))
    if port is not None:
        _count(port, f"{where}.port", MAX_PORT)
    return ServerOptions(openapi, port, SERVER_SECONDS if timeout is None else _seconds(timeout, f"{where}.timeout"))


def _scaling(value: Any, where: str) -> Scaling:
    return value if isinstance(value, Scaling) else read_scaling(_members(value, where, (), SCALING_NAMES))


def _probe(value: Any, where: str) -> Probe:
    names = tuple(each.name for each in fields(Probe))
    probe = _members(value, where, (), names)
    if ("command" in probe) == ("path" in probe or "port" in probe):
        raise InvalidRequest(
            f"{where} of a module's configuration needs either a command, such as ['python', 'check.py'], or a path "
            "and a port, such as '/health' and 8000."
        )
    read: dict[str, Any] = {}
    if "command" in probe:
        read["command"] = _command(probe["command"], f"{where}.command")
    else:
        read |= _http_get(probe, where)
    read |= {name: _seconds(probe[name], f"{where}.{name}") for name in ("timeout", "period") if name in probe}
    read |= {"failures": _count(probe["failures"], f"{where}.failures")} if "failures" in probe else {}
    return Probe(**read)


def _command(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError as error:
            raise InvalidRequest(f"{where} of a module's configuration can't be split: {error}.") from None
    if not isinstance(value, list | tuple) or not value:
        raise _wrong(where, "a command line, or a list of its words", value)
    return tuple(str(_text(each, where)) for each in value)


def _http_get(probe: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read the request of a probe; the ports that it may have are documented [foundry]."""
    path = str(_filled(probe.get("path"), f"{where}.path"))
    port = _count(probe.get("port"), f"{where}.port", MAX_PORT)
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise InvalidRequest(f"{where}.path of a module's configuration must begin with '/', and be as in a URL.")
    if port < MIN_PORT or port in RUNTIME_PORTS:
        raise InvalidRequest(
            f"{where}.port of a module's configuration must be from {MIN_PORT} to {MAX_PORT}, but not 8945 or 8946, "
            f"where modules find the runtime. It is {port}."
        )
    headers = _texts_by_name(probe.get("headers") or {}, f"{where}.headers", "of texts by the names of headers")
    if not all(each.isprintable() for each in (*headers, *headers.values())):
        raise InvalidRequest(f"{where}.headers of a module's configuration have a character that no header can have.")
    return {"path": path, "port": port, "headers": headers}


def _seconds(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        raise _wrong(where, "a number of seconds greater than 0", value)
    return float(value)


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "sources": _sources,
    "source_configurations": _source_configurations,
    "aliases": _aliases,
    "client": _client,
    "build2_token": _filled,
    "environment": _environment,
    "mode": _mode,
    "replicas": _count,
    "max_concurrent_tasks": _count,
    "server": _server,
    "scaling": _scaling,
    "readiness_probe": _probe,
    "liveness_probe": _probe,
    "max_lifetime": _seconds,
}
