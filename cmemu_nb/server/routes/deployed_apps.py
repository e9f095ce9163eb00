"""The deployed-app routes: applications and tools read what a deployed app consists of and how it runs [foundry].

Their answers have the members of the types in Palantir's npm package `@osdk/client.unstable`.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.errors import InvalidRequest, NotFound
from cmemu_nb.lifecycle.records import NS_PER_S, Mode, ReplicaState
from cmemu_nb.server.auth import Auth
from cmemu_nb.server.openapi import schemas
from cmemu_nb.server.openapi.schemas import described
from cmemu_nb.server.response import json_response
from cmemu_nb.server.routing import Route, query_options
from cmemu_nb.wire.paths import DEPLOYED_APPS

if TYPE_CHECKING:
    from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, Runtime
    from cmemu_nb.lifecycle.session import Replica
    from cmemu_nb.server.context import Context
    from cmemu_nb.server.request import Request
    from cmemu_nb.server.response import Response

SCHEMA_TYPES = ("FUNCTIONS", "OPENAPI")
REASONS = ["SCALING_STRATEGY"]


class _Posted(msgspec.Struct):
    inputs: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


def function_schemas(context: Context, request: Request) -> Response:
    """Answer with the schemas of a deployed app's functions, by name.

    `inputs` and `output` are as the runtime posted them. Where they are missing, or `inputs` is not a list, they are
    `[]` and null, and `issues` says so. With `schemaType=OPENAPI` the answer is `[]`.
    """
    kind = query_options(request).get("schemaType", SCHEMA_TYPES[0])
    if kind not in SCHEMA_TYPES:
        raise InvalidRequest(f"Listing schemas: schemaType must be one of {', '.join(SCHEMA_TYPES)}, not {kind!r}.")
    posted = context.lifecycle.schemas(_app(context, request).runtime_id) if kind == SCHEMA_TYPES[0] else []
    return json_response(200, [_schema(each) for each in posted])


def _schema(posted: FunctionSchema) -> dict[str, Any]:
    try:
        payload = msgspec.json.decode(posted.schema_payload, type=_Posted)
    except (msgspec.DecodeError, RecursionError):  # it is no object, or is nested too deeply
        payload = _Posted()
    readable = {"INPUTS": bytes(payload.inputs).startswith(b"["), "OUTPUT": bool(bytes(payload.output))}
    return {
        "functionName": posted.function_name,
        "inputs": payload.inputs if readable["INPUTS"] else [],
        "output": payload.output if readable["OUTPUT"] else None,
        "issues": [f"CANNOT_PARSE_{part}" for part, is_readable in readable.items() if not is_readable],
        "ontologyProvenance": None,
    }


def status(context: Context, request: Request) -> Response:
    """Answer how a deployed app runs: its replicas and whether they poll for jobs.

    A replica that has polled is `RESPONSIVE`; a runtime whose executor was not launched counts as one replica. Without
    a scaling, the largest and the smallest number of replicas are the number that there is.
    """
    app = _app(context, request)
    runtime = context.lifecycle.runtime(app.runtime_id)
    replicas = _replicas(context, runtime)
    fewest, most = _limits(context, runtime, replicas)
    limits = {"maxNumModules": most, "minNumModules": fewest}
    answer = {
        "computeModuleId": runtime.runtime_id,
        "buildRid": f"ri.foundry.main.build.{_uuid(runtime)}",
        "buildJobRid": f"ri.foundry.main.job.{_uuid(runtime)}",
        "previousUpdate": datetime.fromtimestamp(runtime.created_at / NS_PER_S, UTC).isoformat().replace("+00:00", "Z"),
        "resourceProgressStatus": {"type": "appliedInCluster", "appliedInCluster": {}},
        "scalingConfig": limits,
        "currentReplicaSet": _replica_set(runtime, replicas, fewest, most),
        "targetReplicaSet": None,
    }
    return json_response(200, answer)


def configuration(context: Context, request: Request) -> Response:
    """Answer with the configuration of a deployed app, of its branch `master` or else its newest branch.

    The emulator knows of the container no more than its limits: how many replicas there are, and how many jobs each
    may have at a time.
    """
    app = _app(context, request)
    runtime = context.lifecycle.runtime(app.runtime_id)
    module = context.lifecycle.configuration(app.runtime_id)
    fewest, most = _limits(context, runtime, _replicas(context, runtime))
    scaling = {"minReplicas": fewest, "maxReplicas": most, "concurrencyLimit": module.max_concurrent_tasks}
    running = {"foundryServiceAccess": [], "networkPolicies": [], "scalingConfig": scaling}
    answer = {
        "deployedAppRid": app.deployed_app_rid,
        "jobSpecRid": f"ri.foundry.main.job-spec.{uuid.uuid5(uuid.NAMESPACE_URL, app.deployed_app_rid)}",
        "computationParameters": {"type": "computationParamsV1", "computationParamsV1": _computation()},
        "runtimeParameters": {"type": "runtimeParamsV1", "runtimeParamsV1": running},
        "externalSources": {"importedExternalSources": [], "unimportedExternalSources": []},
    }
    return json_response(200, answer)


def _computation() -> dict[str, Any]:
    lists = (
        *("computeModuleInputs", "computeModuleInputsV2", "computeModuleOutputs", "computeModuleOutputsV2"),
        *("externalSources", "securityScopes", "telemetrySessionTags"),
    )
    return {
        **{name: [] for name in lists},
        "foundryContainerizedApplication": None,
        "foundryDataAccess": False,
        "runtime": "COMPUTE_MODULE_RUNTIME_V1",
    }


def _app(context: Context, request: Request) -> DeployedApp:
    return context.lifecycle.resolve_app(request.params["deployedAppRid"], request.params.get("branch"))


def _uuid(runtime: Runtime) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{runtime.runtime_id}/{runtime.created_at}")


def _replicas(context: Context, runtime: Runtime) -> dict[str, ReplicaState]:
    """Return the state of each replica of a runtime, by its id; a pipeline is responsive without a poll."""
    state = context.lifecycle
    replicas = {each.replica_id: _state_of(each, runtime) for each in state.replicas(runtime.runtime_id)}
    if replicas or state.scale_of(runtime.runtime_id) is not None:
        return replicas
    return {str(_uuid(runtime)): ReplicaState.RESPONSIVE if runtime.connected else ReplicaState.STARTING}


def _state_of(replica: Replica, runtime: Runtime) -> ReplicaState:
    if replica.max_concurrent_tasks == 0:
        return ReplicaState.DECOMMISSIONED
    if replica.ready is False:
        return ReplicaState.UNRESPONSIVE
    if (replica.polls or runtime.mode == Mode.PIPELINE) and replica.ready:
        return ReplicaState.RESPONSIVE
    return ReplicaState.STARTED if replica.heard else ReplicaState.STARTING


def _limits(context: Context, runtime: Runtime, replicas: dict[str, ReplicaState]) -> tuple[int, int]:
    """Return between how many replicas a runtime's module is scaled; without a scaling, how many there are."""
    scale = context.lifecycle.scale_of(runtime.runtime_id)
    return (len(replicas), len(replicas)) if scale is None else (scale.min, scale.max)


def _replica_set(runtime: Runtime, replicas: dict[str, ReplicaState], fewest: int, most: int) -> dict[str, Any]:
    responsive = sum(state == ReplicaState.RESPONSIVE for state in replicas.values())
    return {
        "moduleGroupName": runtime.runtime_id,
        "replicaSetId": str(_uuid(runtime)),
        "replicaSetDiagnostic": None,
        "state": "ACTIVE" if responsive or not replicas else "STARTING",
        "configuredMaxModules": most,
        "configuredMinModules": fewest,
        "totalReplicas": len(replicas),
        "responsiveReplicas": responsive,
        "replicas": [
            {
                "replicaId": name,
                "state": {"state": state, "reason": REASONS if state == ReplicaState.DECOMMISSIONED else []},
            }
            for name, state in replicas.items()
        ],
        "images": [],
    }


_SCHEMA_TYPE = described(schemas.one_of(SCHEMA_TYPES), "Which kind of schemas; `FUNCTIONS` if omitted")
_NO_APP = {404: "No runtime is bound to the app"}

routes = (
    Route(
        "GET",
        f"{DEPLOYED_APPS}/{{deployedAppRid}}/{{branch}}/function-schemas",
        function_schemas,
        Auth.BEARER,
        {200: "The schemas of the functions", **_NO_APP},
        "Get the schemas of a deployed app's functions",
        answer=schemas.APP_SCHEMAS,
        query={"schemaType": _SCHEMA_TYPE},
        errors=(NotFound,),
    ),
    Route(
        "GET",
        f"{DEPLOYED_APPS}/{{deployedAppRid}}/{{branch}}/status",
        status,
        Auth.BEARER,
        {200: "The status of the app", **_NO_APP},
        "Get how a deployed app runs",
        answer=schemas.APP_STATUS,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        f"{DEPLOYED_APPS}/{{deployedAppRid}}/v2",
        configuration,
        Auth.BEARER,
        {200: "The configuration of the app", **_NO_APP},
        "Get the configuration of a deployed app",
        answer=schemas.APP_CONFIGURATION,
        errors=(NotFound,),
    ),
)
