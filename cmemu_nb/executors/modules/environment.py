"""The environment variables and files of a real compute module, for programs that run against the emulator."""

from __future__ import annotations

import functools
import json
import secrets
import shlex
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cmemu_nb.executors.process_environment import HERE
from cmemu_nb.lifecycle.records import app_named
from cmemu_nb.storage.certificates import CA_BUNDLES, NAMES
from cmemu_nb.tokens import Token, last_four
from cmemu_nb.wire.paths import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.lifecycle.configuration import Configuration
    from cmemu_nb.lifecycle.session import Replica

    Write = Callable[[str, str], Path]


SERVICES = {
    "api_gateway": "/api",
    "multipass": "/multipass/api",
    "stream_proxy": "/stream-proxy/api",
    "contour_backend_multiplexer": "/contour-backend-multiplexer/api",
    "foundry_mio": "/mio/api",
}
"""The paths of Foundry's services, by their names in service discovery [foundry]."""


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
        """Return a command that runs a container with them, on the host's network, as the user of its image.

        `image` is the container's image. Copies of the files that they name are mounted, which that user may read.
        """
        from cmemu_nb.executors.modules.images import docker_line  # noqa: PLC0415 - for containers only

        return docker_line(self, Path(self.folder), image)

    def __repr__(self) -> str:
        shown = {name: last_four(value) if isinstance(value, Token) else value for name, value in self.items()}
        return ModuleEnvironment(shown).export_lines


def add_replica(
    engine: Engine,
    runtime_id: str,
    configuration: Configuration,
    *,
    launched: bool = False,
    standby: bool = False,
) -> tuple[Replica, ModuleEnvironment]:
    """Add a replica to a runtime, write its files, and return the replica and its environment.

    It must be called on the emulator's loop. Raises `NotPrivate` or `OSError` if the files can't be written; then no
    replica is added.
    """
    engine.lifecycle.events.hide(*configuration.secrets)
    ready = None if launched and configuration.readiness_probe else True
    replica = engine.lifecycle.add_replica(
        runtime_id, configuration.max_concurrent_tasks, launched=launched, ready=ready, standby=standby
    )
    try:
        return replica, _environment(engine, replica, configuration)
    except BaseException:
        engine.lifecycle.remove_replica(replica, "its files could not be written")
        engine.identity.replica_files.delete(replica)
        raise


def _environment(engine: Engine, replica: Replica, configuration: Configuration) -> ModuleEnvironment:
    """Return the variables of the platform routes for one replica; tokens and certificates are files [foundry]."""
    address = urlsplit(engine.platform_url)
    base = f"{engine.platform_url}{PLATFORM}"
    write = functools.partial(engine.identity.replica_files.write, replica)
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
        COMPUTE_SESSION_ID=_session_id(replica),
        MODULE_AUTH_TOKEN=str(write("token", replica.token)),
        SCRATCH_TOKEN=replica.scratch_token,
    )
    # The configuration may give any of these variables another value.
    environment |= surroundings(engine, replica.runtime_id, configuration, write)
    environment.folder = str(engine.identity.files.path)
    return environment


def surroundings(engine: Engine, runtime_id: str, configuration: Configuration, write: Write) -> dict[str, str]:
    """Return the variables that a function may need, whatever runs it: Foundry's services and the configuration.

    `write(name, text)` writes a private file and returns its path.
    """
    host, certificates = urlsplit(engine.platform_url).netloc, engine.identity.certificates
    bundle = str(certificates.bundle_path)
    return {
        "FOUNDRY_URL": host,
        "FOUNDRY_HOSTNAME": host,
        "FOUNDRY_SERVICE_DISCOVERY_V2": str(write("service_discovery", _services(engine.platform_url))),
        "FOUNDRY_COMPUTE_MODULE_RID": _app_rid(engine, runtime_id),
        "CONNECTIONS_TO_OTHER_PODS_CA_PATH": str(certificates.authority_path),
        # Not the bundle: the TypeScript SDK reads it for each connection, which would take a hundred milliseconds.
        "DEFAULT_CA_PATH": str(certificates.authority_path),
        **dict.fromkeys(CA_BUNDLES, bundle),
        **{name: _with_own_names(HERE.inherited().get(name)) for name in ("NO_PROXY", "no_proxy")},
        **_configured(configuration, engine.identity.accept(runtime_id, configuration), Path(bundle), write),
        **configuration.environment,
    }


def _with_own_names(no_proxy: str | None) -> str:
    """Return the hosts for which a proxy is not used; through a proxy, the SDK would not reach the emulator."""
    return ",".join([*([no_proxy] if no_proxy else []), *NAMES])


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
    bound = engine.lifecycle.apps_of(runtime_id) if engine.lifecycle.has_runtime(runtime_id) else []
    return bound[0].deployed_app_rid if bound else app_named(runtime_id)


def _with_trust(source: dict[str, Any], bundle: Path) -> dict[str, Any]:
    """Return a source whose connection also trusts public authorities: in the Python SDK, it trusts only given ones."""
    if "httpConnectionConfig" not in source:
        return source
    trusted = {"cmemu-authorities": bundle.read_text(), **(source.get("serverCertificates") or {})}
    return {**source, "serverCertificates": trusted}


def _configured(configuration: Configuration, build_token: Token | None, bundle: Path, write: Write) -> dict[str, str]:
    sources = configuration.mounted_sources
    json_files = {
        "SOURCE_CREDENTIALS": configuration.credentials,
        "SOURCE_CONFIGURATIONS_PATH": {name: _with_trust(each, bundle) for name, each in sources.items()},
        "RESOURCE_ALIAS_MAP": configuration.aliases,
    }
    texts = {name: json.dumps(value) for name, value in json_files.items() if value}
    if build_token is not None:
        texts["BUILD2_TOKEN"] = build_token
    variables = {name: str(write(name.lower(), text)) for name, text in texts.items()}
    client = configuration.client
    return variables if client is None else {**variables, "CLIENT_ID": client.id, "CLIENT_SECRET": client.secret}
