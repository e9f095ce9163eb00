"""The paths, header names and longest wait that routes and clients share, and the URIs of a session."""

from __future__ import annotations

from urllib.parse import quote

RUNTIMES = "/_emulate/foundry/compute-modules/runtimes"
MULTIPLEXER = "/contour-backend-multiplexer/api"
CONTOUR = f"{MULTIPLEXER}/module-group-multiplexer"
DEPLOYED_APPS = f"{MULTIPLEXER}/deployed-apps"
SCRATCH = f"{MULTIPLEXER}/scratch/api/v1"
PLATFORM = "/interactive-module/api/internal-query"
API = "/api/"
MULTIPASS = "/multipass/api"
OAUTH = f"{MULTIPASS}/oauth2"
AUTHORIZE = f"{OAUTH}/authorize"
QUERIES = f"{API}v2/functions/queries"
ONTOLOGIES = f"{API}v2/ontologies"
ONTOLOGIES_V1 = f"{API}v1/ontologies"
DATASETS = f"{API}v2/datasets"
MEDIA_SETS = f"{API}v2/mediasets"
EXECUTIONS = f"{API}v2/functions/executions"
UI = "/ui"
STREAMS = f"{API}v2/streams/datasets"
STREAM_PROXY = "/stream-proxy/api"
PUBLIC_API = (API, f"{STREAM_PROXY}/")
"""The beginnings of the paths whose errors have the format of Foundry's public API."""
HIGH_SCALE = "v2/highScale/streams/datasets/{datasetRid}/streams/{streamBranchName}"
"""The path of a stream's records; the official SDK sends requests for it to `/api` or to the stream proxy."""

MODULE_HEADER = "Module-Auth-Token"
# The longest wait that `Prefer: wait=N` is granted (RFC 7240).
MAX_WAIT_SECONDS = 60
# The User-Agent of the executor of functions in cells. The jobs that it runs end with the kernel.
IN_THIS_KERNEL = "cmemu_nb, functions in cells"


def session_uris(runtime_id: str, base_url: str, *, proxied: bool = False) -> dict[str, str]:
    """Return the URIs of a runtime's session, by their names in the answer that opens it [page].

    In URIs for a hub's proxy the id is encoded twice, because the proxy decodes it once.
    """
    segment = quote(runtime_id, safe="")
    uri = f"{base_url}{RUNTIMES}/{quote(segment, safe='') if proxied else segment}"
    return {"getJobUri": f"{uri}/job", "postResultUri": f"{uri}/results", "postSchemaUri": f"{uri}/schemas"}
