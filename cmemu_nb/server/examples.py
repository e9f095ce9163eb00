"""What requests and answers look like, for the OpenAPI document: one job, from its session to its end."""

from __future__ import annotations

from typing import Any

RUNTIME_ID = "my-runtime"
RID = "ri.foundry.main.deployed-app.my-app"
JOB_ID = "foundry_job_5f0c1b6e9a7d42c38e1f0a2b4c6d8e90"
MODULE_TOKEN = "foundry_module_auth_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"  # noqa: S105 - nobody's
FUNCTION = "add"
QUERY = {"x": 1, "y": 2}
RESULT = "3"
_AT = 1_767_225_600_000
_URI = f"http://127.0.0.1:4000/_emulate/foundry/compute-modules/runtimes/{RUNTIME_ID}"
_PAYLOAD = {"inputs": [], "output": {"type": "single", "single": {"dataType": {"type": "integer", "integer": {}}}}}
_APP = {"deployedAppRid": RID, "deployedAppBranch": "master"}

OPEN = {"runtimeId": RUNTIME_ID, "deployedAppRid": RID, "branch": "master", "displayName": "My app"}
SESSION = {
    "runtimeId": RUNTIME_ID,
    "moduleAuthToken": MODULE_TOKEN,
    "getJobUri": f"{_URI}/job",
    "postResultUri": f"{_URI}/results",
    "postSchemaUri": f"{_URI}/schemas",
}
ENVELOPE = {
    "type": "computeModuleJobV1",
    "computeModuleJobV1": {"jobId": JOB_ID, "queryType": FUNCTION, "query": QUERY},
}
SCHEMAS: list[Any] = [
    [{"functionName": FUNCTION, "schema": _PAYLOAD}],
    {"functions": [{"functionName": FUNCTION, **_PAYLOAD}]},
    {FUNCTION: _PAYLOAD},
]

CALL = {**_APP, "queryType": FUNCTION, "query": QUERY}
SUBMITTED = {
    "id": JOB_ID,
    "nodeId": None,
    "moduleId": None,
    "jobHandle": f'{{"type":"v1","jobId":"{JOB_ID}","nodeId":null,"moduleId":null,"persistJobResult":null}}',
    "persistJobResult": None,
    "status": {"type": "queued", "queued": {"queueInfo": "NORMAL_OPERATION"}},
}
STATUS = {
    "type": "succeeded",
    "succeeded": {
        "metadata": None,
        "intermediateJobInfoList": [],
        "multiplexerJobTiming": {
            "type": "queuedJob",
            "queuedJob": {
                "multiplexerSubmitTimeMillis": _AT + 300,
                "queueSubmitTimeMillis": _AT + 300,
                "queuedJobDispatchTimeMillis": _AT + 302,
                "moduleSubmitTimeMillis": _AT + 302,
            },
        },
    },
}
FETCH = {"id": JOB_ID}

RUNTIME = {
    "runtime_id": RUNTIME_ID,
    "module_auth_token": MODULE_TOKEN,
    "connected": True,
    "last_poll_at": _AT + 302,
    "last_schema_post_at": _AT + 100,
    "created_at": _AT,
}
SCHEMA = {
    "runtime_id": RUNTIME_ID,
    "function_name": FUNCTION,
    "schema_payload": _PAYLOAD,
    "posted_at": _AT + 100,
}
JOB = {
    "job_id": JOB_ID,
    "runtime_id": RUNTIME_ID,
    "deployed_app_rid": RID,
    "deployed_app_branch": "master",
    "query_type": FUNCTION,
    "query": QUERY,
    "source": "contour-async",
    "status": "succeeded",
    "queued_at": _AT + 300,
    "started_at": _AT + 302,
    "completed_at": _AT + 310,
    "result_content_type": "application/json",
    "result_body_utf8": RESULT,
    "error_message": None,
}
INSPECTION = {"runtime": RUNTIME, "job": JOB, "schemas": [SCHEMA]}
RUNTIME_IN_FULL = {
    **RUNTIME,
    "display_name": "My app",
    "queue_depth": 0,
    "evicted_jobs": 0,
    "deployed_apps": [
        {
            "deployed_app_rid": RID,
            "branch": "master",
            "runtime_id": RUNTIME_ID,
            "display_name": "My app",
            "bound_at": _AT,
        }
    ],
}
RUNTIMES = {"runtimes": [RUNTIME_IN_FULL]}
ONE_RUNTIME = {"runtime": RUNTIME_IN_FULL, "schemas": [SCHEMA]}
JOBS = {"jobs": [JOB], "more": False}
DIRECT = {"queryType": FUNCTION, "query": QUERY}
QUEUED_DIRECTLY = {"jobId": JOB_ID}
REASON = {"reason": "no more fuel"}
JOB_IDS = [JOB_ID]
HEALTH = {"status": "ok", "id": "5f0c1b6e9a7d42c3"}
REPLICA = {"maxConcurrentTasks": 2}
ENVIRONMENT = {
    "environment": {"RUNTIME_HOST": "127.0.0.1", "RUNTIME_PORT": "8945", "MODULE_AUTH_TOKEN": "/tmp/cmemu-1/token"},  # noqa: S108
    "folder": "/tmp/cmemu-1",  # noqa: S108 - what one looks like
}
EXPORTED = {"format": "cmemu_nb session", "version": 1, "runtimes": [], "jobs": [], "events": []}
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "cmemu_nb", "version": "1.0"},
    "tags": [{"name": "runtime", "description": "What a runtime calls"}],
    "paths": {},
    "components": {},
}
