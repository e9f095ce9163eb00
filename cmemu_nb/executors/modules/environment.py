"""The environment variables and files of a real compute module, for programs that run against the emulator."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cmemu_nb.errors import InvalidRequest
from cmemu_nb.lifecycle.records import app_named
from cmemu_nb.storage.certificates import CA_BUNDLES, NAMES
from cmemu_nb.tokens import Token, hidden, last_four
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.lifecycle.session import Replica
    from cmemu_nb.storage.replica_files import ReplicaFiles


@dataclass(frozen=True)
class Extras:
    """The optional parts of a deployed module's configuration [foundry].

    `sources` has the secrets of each source by name, `source_configurations` their settings, `aliases` the resources
    by alias; all are plain JSON values.
    """

    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    source_configurations: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, Any] = field(default_factory=dict)
    client_id: str | None = None
    client_secret: str | None = None
    build2_token: str | None = None

    @property
    def secrets(self) -> list[str]:
        """Every text in `sources`, `client_secret` and `build2_token`."""
        return list(_texts([getattr(self, name) for name in SECRETS]))


SERVICES = {
    "api_gateway": "/api",
    "multipass": "/multipass/api",
    "stream_proxy": "/stream-proxy/api",
    "contour_backend_multiplexer": "/contour-backend-multiplexer/api",
}
"""The paths of Foundry's services, by their names in service discovery [foundry]."""
SECRETS = ("sources", "client_secret", "build2_token")


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in plain JSON values."""
    if isinstance(value, str):
        yield str(value)
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def read_extras(given: Mapping[str, Any]) -> Extras:
    """Read the options of a module's configuration; `InvalidRequest` lists the options if one is unknown."""
    names = [each.name for each in fields(Extras)]
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise InvalidRequest(f"There is no option {unknown[0]!r}. The further options are {', '.join(names)}.")
    return Extras(**given)


def hide_secrets(given: dict[str, Any]) -> None:
    """Wrap the secrets in options of a module's configuration, so that tracebacks that show the options hide them."""
    given.update({name: hidden(given[name]) for name in SECRETS if name in given})


class ModuleEnvironment(dict[str, str]):
    """Environment variables [foundry]; their repr is lines for a terminal, with four characters of each token.

    `folder` is the private directory that holds the files that they name.

    >>> ModuleEnvironment(MAX_CONCURRENT_TASKS="1")
    export MAX_CONCURRENT_TASKS=1
    """

    folder = ""

    @property
    def export_lines(self) -> str:
        """The variables as lines to paste into a terminal, with whole tokens."""
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self.items())

    def docker_line(self, image: str = "IMAGE") -> str:
        """Return a command that runs a container with them, on the host's network and with the private files mounted.

        `image` is the container's image.
        """
        variables = " ".join(f"-e {shlex.quote(f'{name}={value}')}" for name, value in self.items())
        folder = shlex.quote(f"{self.folder}:{self.folder}:ro")
        return f"docker run --rm --network host -v {folder} --user {os.getuid()} {variables} {shlex.quote(image)}"

    def __repr__(self) -> str:
        shown = {name: last_four(value) if isinstance(value, Token) else value for name, value in self.items()}
        return ModuleEnvironment(shown).export_lines


def add_replica(
    engine: Engine,
    runtime_id: str,
    max_concurrent_tasks: int,
    extras: Extras | None = None,
    *,
    launched: bool = False,
) -> tuple[Replica, ModuleEnvironment]:
    """Add a replica to a runtime, write its files, and return the replica and its environment.

    It must be called on the emulator's loop. Raises `NotPrivate` or `OSError` if the files can't be written; then no
    replica is added.
    """
    if extras is not None:
        engine.lifecycle.events.hide(*extras.secrets)
    replica = engine.lifecycle.add_replica(runtime_id, max_concurrent_tasks, launched=launched)
    try:
        return replica, _environment(engine, replica, extras or Extras())
    except BaseException:
        engine.lifecycle.remove_replica(replica, "its files could not be written")
        engine.identity.replica_files.delete(replica)
        raise


def _environment(engine: Engine, replica: Replica, extras: Extras) -> ModuleEnvironment:
    """Return the variables of the platform routes for one replica; tokens and certificates are files [foundry]."""
    address = urlsplit(engine.platform_url)
    base = f"{engine.platform_url}{PLATFORM}"
    authority = str(engine.identity.certificates.authority_path)
    token = engine.identity.replica_files.write(replica, "token", replica.token)
    discovery = engine.identity.replica_files.write(replica, "service_discovery", _services(engine.platform_url))
    environment = ModuleEnvironment(
        GET_JOB_URI=f"{base}/job",
        POST_RESULT_URI=f"{base}/results",
        POST_SCHEMA_URI=f"{base}/schemas",
        RESTART_NOTIFICATION_URI=f"{base}/restart",
        GET_JOB_PATH=f"{PLATFORM}/job",
        POST_RESULT_PATH=f"{PLATFORM}/results",
        RUNTIME_HOST=address.hostname or "",
        RUNTIME_PORT=str(address.port),
        RUNTIME_API=address.netloc,
        MAX_CONCURRENT_TASKS=str(replica.max_concurrent_tasks),
        FOUNDRY_URL=address.netloc,
        FOUNDRY_HOSTNAME=address.netloc,
        FOUNDRY_SERVICE_DISCOVERY_V2=str(discovery),
        COMPUTE_SESSION_ID=_session_id(replica),
        FOUNDRY_COMPUTE_MODULE_RID=_app_rid(engine, replica.runtime_id),
        MODULE_AUTH_TOKEN=str(token),
        DEFAULT_CA_PATH=authority,
        CONNECTIONS_TO_OTHER_PODS_CA_PATH=authority,
        **dict.fromkeys(CA_BUNDLES, str(engine.identity.certificates.bundle_path)),
        # If a proxy is configured, the Python SDK would send its requests to the proxy.
        **dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(NAMES)),
    )
    environment.folder = str(engine.identity.files.path)
    environment.update(_configured(engine.identity.replica_files, replica, extras))
    return environment


def _services(url: str) -> str:
    """Return the YAML text that names the addresses of Foundry's services, each as a list [foundry]."""
    import yaml  # noqa: PLC0415 - for modules and seed files only

    services = {name: [f"{url}{path}"] for name, path in SERVICES.items()}
    text: str = yaml.safe_dump({**services, "on_prem_proxy": []}, sort_keys=False)
    return text


def _session_id(replica: Replica) -> str:
    """Return a session id of the form `ses-UUID` [foundry], whose UUID begins with the replica's id [ours]."""
    return f"ses-{uuid.UUID(replica.replica_id[:8] + secrets.token_hex(12), version=4)}"


def _app_rid(engine: Engine, runtime_id: str) -> str:
    """Return the RID of a runtime's app, of the one bound first if there are several, or that of its name if none."""
    bound = engine.lifecycle.apps_of(runtime_id)
    return bound[0].deployed_app_rid if bound else app_named(runtime_id)


def _with_branch(aliases: Mapping[str, Any]) -> dict[str, Any]:
    """Return aliases as the platform writes them: each resource has a `branch`, which may be null [foundry]."""
    return {name: {"branch": None, **each} if isinstance(each, Mapping) else each for name, each in aliases.items()}


def _configured(files: ReplicaFiles, replica: Replica, extras: Extras) -> dict[str, str]:
    json_files = {
        "SOURCE_CREDENTIALS": extras.sources,
        "SOURCE_CONFIGURATIONS_PATH": extras.source_configurations,
        "RESOURCE_ALIAS_MAP": _with_branch(extras.aliases),
    }
    texts = {name: json.dumps(value) for name, value in json_files.items() if value}
    if extras.build2_token is not None:
        texts["BUILD2_TOKEN"] = extras.build2_token
    paths = {name: str(files.write(replica, name.lower(), text)) for name, text in texts.items()}
    given = {"CLIENT_ID": extras.client_id, "CLIENT_SECRET": extras.client_secret}
    return paths | {name: value for name, value in given.items() if value is not None}
