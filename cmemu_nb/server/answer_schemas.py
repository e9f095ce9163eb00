"""JSON schemas of what the routes answer, for the OpenAPI document.

The answers have these members and no others, all of them unless `optional` says so.
"""

from __future__ import annotations

from typing import Any

from cmemu_nb.model import JobSource, JobStatus

Schema = dict[str, Any]

ANYTHING: Schema = {}
TEXT: Schema = {"type": "string"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
NOTHING: Schema = {"type": "null"}
TIME: Schema = {"type": "integer", "description": "Unix milliseconds"}
MAYBE_TIME: Schema = {"type": ["integer", "null"], "description": "Unix milliseconds"}


def one_of(values: Any) -> Schema:
    """Describe a string that is one of these."""
    return {"type": "string", "enum": [str(value) for value in values]}


def array(items: Schema) -> Schema:
    """Describe an array."""
    return {"type": "array", "items": items}


def members(properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """Describe an object by its members."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def record(name: str) -> Schema:
    """Refer to one of the `RECORDS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_RUNTIME: dict[str, Schema] = {
    "runtime_id": TEXT,
    "module_auth_token": {**TEXT, "description": "Left out with the setting hide_tokens"},
    "connected": FLAG,
    "last_poll_at": MAYBE_TIME,
    "last_schema_post_at": MAYBE_TIME,
    "created_at": TIME,
}
_TIMING: Schema = members(
    {
        "multiplexerSubmitTimeMillis": TIME,
        "queueSubmitTimeMillis": TIME,
        "queuedJobDispatchTimeMillis": MAYBE_TIME,
        "moduleSubmitTimeMillis": MAYBE_TIME,
    }
)
_GOING_ON = members(
    {
        "metadata": NOTHING,
        "intermediateJobInfoList": array(ANYTHING),
        "multiplexerJobTiming": members({"type": {"const": "queuedJob"}, "queuedJob": _TIMING}),
    }
)


def _tagged(kind: JobStatus, content: Schema) -> Schema:
    return members({"type": {"const": str(kind)}, str(kind): content})


RECORDS: dict[str, Schema] = {
    "Error": members({"error": TEXT, "error_description": TEXT}),
    "Runtime": members(_RUNTIME, ("module_auth_token",)),
    "RuntimeInFull": members(
        {
            **_RUNTIME,
            "display_name": MAYBE_TEXT,
            "queue_depth": COUNT,
            "evicted_jobs": COUNT,
            "deployed_apps": array(record("DeployedApp")),
        },
        ("module_auth_token",),
    ),
    "DeployedApp": members(
        {
            "deployed_app_rid": TEXT,
            "branch": TEXT,
            "runtime_id": TEXT,
            "display_name": MAYBE_TEXT,
            "bound_at": TIME,
        }
    ),
    "FunctionSchema": members(
        {"runtime_id": TEXT, "function_name": TEXT, "schema_payload": ANYTHING, "posted_at": TIME}
    ),
    "Job": members(
        {
            "job_id": TEXT,
            "runtime_id": TEXT,
            "deployed_app_rid": MAYBE_TEXT,
            "deployed_app_branch": MAYBE_TEXT,
            "query_type": TEXT,
            "query": ANYTHING,
            "source": one_of(JobSource),
            "status": one_of(JobStatus),
            "queued_at": TIME,
            "started_at": MAYBE_TIME,
            "completed_at": MAYBE_TIME,
            "result_content_type": MAYBE_TEXT,
            "result_body_utf8": MAYBE_TEXT,
            "result_body_base64": {**TEXT, "description": "Instead of result_body_utf8, for what is no UTF-8"},
            "error_message": MAYBE_TEXT,
        },
        ("result_body_base64",),
    ),
    "Status": {
        "oneOf": [
            _tagged(JobStatus.QUEUED, members({"queueInfo": {"const": "NORMAL_OPERATION"}})),
            _tagged(JobStatus.RUNNING, _GOING_ON),
            _tagged(JobStatus.SUCCEEDED, _GOING_ON),
            _tagged(JobStatus.FAILED, members({"message": MAYBE_TEXT})),
        ]
    },
}

_URI: Schema = {**TEXT, "format": "uri"}
SESSION = members(
    {
        "runtimeId": TEXT,
        "moduleAuthToken": TEXT,
        "getJobUri": _URI,
        "postResultUri": _URI,
        "postSchemaUri": _URI,
    }
)
ENVELOPE = members(
    {
        "type": {"const": "computeModuleJobV1"},
        "computeModuleJobV1": members({"jobId": TEXT, "queryType": TEXT, "query": ANYTHING}),
    }
)
INSPECTION = members({"runtime": record("Runtime"), "job": record("Job"), "schemas": array(record("FunctionSchema"))})
SUBMITTED = members(
    {
        "id": TEXT,
        "nodeId": NOTHING,
        "moduleId": NOTHING,
        "jobHandle": {**TEXT, "description": "JSON text; the result route takes it in place of the id"},
        "persistJobResult": NOTHING,
        "status": record("Status"),
    }
)
STATUS = record("Status")
JOB_IDS = array(TEXT)
RUNTIMES = members({"runtimes": array(record("RuntimeInFull"))})
ONE_RUNTIME = members({"runtime": record("RuntimeInFull"), "schemas": array(record("FunctionSchema"))})
JOBS = members({"jobs": array(record("Job")), "more": FLAG})
QUEUED_DIRECTLY = members({"jobId": TEXT})
ENVIRONMENT = members(
    {
        "environment": {"type": "object", "additionalProperties": TEXT},
        "folder": {**TEXT, "description": "A private directory of the emulator's machine"},
    }
)
EXPORTED: Schema = {"type": "object", "required": ["format", "version", "runtimes", "jobs", "events"]}
HEALTH = members({"status": {"const": "ok"}, "id": {**TEXT, "description": "Another one for each start"}})
DOCUMENT: Schema = {"type": "object", "required": ["openapi", "info", "paths", "components"]}
