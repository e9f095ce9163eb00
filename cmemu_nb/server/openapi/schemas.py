"""JSON schemas of what the routes answer, for the OpenAPI document.

The answers have these members and no others, all of them unless `optional` says so.
"""

from __future__ import annotations

from typing import Any

from cmemu_nb.lifecycle.records import DIAGNOSES, STATES, JobSource, JobStatus, Outcome, column_of
from cmemu_nb.server.openapi import examples

Schema = dict[str, Any]

ANYTHING: Schema = {}
TEXT: Schema = {"type": "string"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
NOTHING: Schema = {"type": "null", "description": "Always null; the platform may say more"}
TIME: Schema = {"type": "integer", "description": "Unix milliseconds"}
MAYBE_TIME: Schema = {"type": ["integer", "null"], "description": "Unix milliseconds"}
MAYBE_DURATION: Schema = {"type": ["number", "null"], "minimum": 0, "description": "milliseconds, with fractions"}


def said(schema: Schema, words: str) -> Schema:
    """Describe a schema in words, before those that it has already."""
    return {**schema, "description": ", ".join([words, *filter(None, [schema.get("description")])])}


def shown(schema: Schema, *examples: Any) -> Schema:
    """Give a body's schema its examples."""
    return {**schema, "examples": list(examples)}


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


_RUNTIME_ID = said(TEXT, "The runtime's id")
_APP_RID = "The deployed app that is bound to the runtime"
_DISPLAY_NAME = said(MAYBE_TEXT, "The name for people that the session was opened with")
_JOB_ID = said(TEXT, "The job's id; it starts with `foundry_job_`")
_SCHEMAS = said(array(record("FunctionSchema")), "The schemas that the runtime has posted, by name")
_RUNTIME: dict[str, Schema] = {
    "runtime_id": _RUNTIME_ID,
    "module_auth_token": said(TEXT, "The session's token. Left out with the setting hide_tokens"),
    "connected": said(FLAG, "Whether the runtime has polled for jobs since its session was opened"),
    "last_poll_at": said(MAYBE_TIME, "When it last polled"),
    "last_schema_post_at": said(MAYBE_TIME, "When it last posted schemas"),
    "created_at": said(TIME, "When its session was opened"),
}
_TIMING: Schema = members(
    {
        "multiplexerSubmitTimeMillis": said(TIME, "When the job was submitted"),
        "queueSubmitTimeMillis": said(TIME, "When it was queued"),
        "queuedJobDispatchTimeMillis": said(MAYBE_TIME, "When a runtime took it"),
        "moduleSubmitTimeMillis": said(MAYBE_TIME, "When it was handed to the module"),
    }
)
_GOING_ON = members(
    {
        "metadata": NOTHING,
        "intermediateJobInfoList": said(array(ANYTHING), "Always empty; the platform may say more"),
        "multiplexerJobTiming": said(
            members({"type": {"const": "queuedJob"}, "queuedJob": said(_TIMING, "The times so far")}),
            "When the job was submitted, queued and taken",
        ),
    }
)


def _tagged(kind: JobStatus, content: Schema) -> Schema:
    return members({"type": {"const": str(kind)}, str(kind): said(content, f"What there is to say of a {kind} job")})


_DATA_TYPE: Schema = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": said(TEXT, "The type's name in the public API")},
}
_QUERY_PARAMETER = members(
    {
        "dataType": said(_DATA_TYPE, "What values it takes"),
        "required": said(FLAG, "Whether a call must give it"),
    }
)
_JOB: dict[str, Schema] = {
    "job_id": _JOB_ID,
    "runtime_id": _RUNTIME_ID,
    "deployed_app_rid": said(MAYBE_TEXT, "The app that it was submitted to; null for the runtime itself"),
    "deployed_app_branch": said(MAYBE_TEXT, "The app's branch"),
    "query_type": said(TEXT, "The function's name"),
    "query": said(ANYTHING, "The function's input as it was submitted"),
    "source": said(one_of(JobSource), "By which route it came"),
    "status": said(one_of(JobStatus), "Where it stands"),
    "queued_at": said(TIME, "When it was queued"),
    "started_at": said(MAYBE_TIME, "When a runtime took it"),
    "completed_at": said(MAYBE_TIME, "When it succeeded or failed"),
    "result_content_type": said(MAYBE_TEXT, "The content type that its result was posted with"),
    "result_body_utf8": said(MAYBE_TEXT, "Its result as text; null when there is none, or no UTF-8"),
    "result_body_base64": said(TEXT, "Instead of result_body_utf8, for what is no UTF-8"),
    "error_message": said(MAYBE_TEXT, "Why it failed"),
}
RECORDS: dict[str, Schema] = {
    "Error": members(
        {
            "error": said(TEXT, "A code for programs"),
            "error_description": said(TEXT, "What was attempted, why it failed and what to do next"),
        }
    ),
    "ApiError": members(
        {
            "errorCode": said(TEXT, "The kind of error, which follows from the status"),
            "errorName": said(TEXT, "The error's name, for programs"),
            "errorInstanceId": said(TEXT, "A UUID of this one answer"),
            "errorDescription": said(TEXT, "What was attempted, why it failed and what to do next"),
            "parameters": said({"type": "object"}, "What the error of this name says besides"),
        }
    ),
    "Query": members(
        {
            "apiName": said(TEXT, "The name by which no other function is called"),
            "description": said(TEXT, "The function's description, if its schema has one"),
            "displayName": said(TEXT, "The function's name, as its schema was posted"),
            "parameters": said(
                {"type": "object", "additionalProperties": _QUERY_PARAMETER}, "The function's inputs, by name"
            ),
            "output": said(_DATA_TYPE, "The type of its value"),
            "rid": said(TEXT, "The function's RID, the same whenever the app has a function of this name"),
            "version": said(TEXT, "Always `1.0.0`"),
        },
        ("description",),
    ),
    "Runtime": members(_RUNTIME, ("module_auth_token",)),
    "RuntimeInFull": members(
        {
            **_RUNTIME,
            "display_name": _DISPLAY_NAME,
            "queue_depth": said(COUNT, "How many jobs are queued"),
            "job_counts": said(
                members({column_of(state): said(COUNT, f"How many jobs are {state}") for state in STATES}),
                "How many jobs are queued, running, or ended how; function_error counts functions that raised",
            ),
            "evicted_jobs": said(COUNT, "How many finished jobs were let go to make room"),
            "deployed_apps": said(array(record("DeployedApp")), "The apps whose jobs it gets"),
        },
        ("module_auth_token",),
    ),
    "DeployedApp": members(
        {
            "deployed_app_rid": said(TEXT, _APP_RID),
            "branch": said(TEXT, "The app's branch"),
            "runtime_id": _RUNTIME_ID,
            "display_name": _DISPLAY_NAME,
            "bound_at": said(TIME, "When the app was bound"),
        }
    ),
    "FunctionSchema": members(
        {
            "runtime_id": _RUNTIME_ID,
            "function_name": said(TEXT, "The function's name"),
            "schema_payload": said(ANYTHING, "The schema as it was posted"),
            "posted_at": said(TIME, "When it was posted"),
        }
    ),
    "Job": members(_JOB, ("result_body_base64",)),
    "JobInFull": members(
        {
            **_JOB,
            "outcome": said({"enum": [*map(str, Outcome), None]}, "How it ended; null while it has not"),
            "queue_time": said(MAYBE_DURATION, "How long it was queued; null while it is"),
            "run_time": said(MAYBE_DURATION, "How long it ran; null while it has not ended, and if it was never taken"),
        },
        ("result_body_base64",),
    ),
    "Status": {
        "oneOf": [
            _tagged(JobStatus.QUEUED, members({"queueInfo": {"const": "NORMAL_OPERATION"}})),
            _tagged(JobStatus.RUNNING, _GOING_ON),
            _tagged(JobStatus.SUCCEEDED, _GOING_ON),
            _tagged(JobStatus.FAILED, members({"message": said(MAYBE_TEXT, "Why it failed")})),
        ]
    },
}

_URI: Schema = {**TEXT, "format": "uri"}
SESSION = shown(
    members(
        {
            "runtimeId": _RUNTIME_ID,
            "moduleAuthToken": said(TEXT, "The session's token, for the Module-Auth-Token header"),
            "getJobUri": said(_URI, "Where to poll for jobs"),
            "postResultUri": said(_URI, "Where to post results: this, a slash and the job's id"),
            "postSchemaUri": said(_URI, "Where to post function schemas"),
        }
    ),
    examples.SESSION,
)
_CALL = {
    "jobId": _JOB_ID,
    "queryType": said(TEXT, "The function's name"),
    "query": said(ANYTHING, "The function's input, the very JSON text that was submitted"),
}
_USER = {"userId": said(TEXT, "Who asked, if a seed file says whose bearer token it was")}


def _envelope(job: Schema) -> Schema:
    envelope = members({"type": {"const": "computeModuleJobV1"}, "computeModuleJobV1": said(job, "The job")})
    return shown(envelope, examples.ENVELOPE)


ENVELOPE = _envelope(members(_CALL))
PLATFORM_ENVELOPE = _envelope(members({**_CALL, **_USER}, ("userId",)))
INSPECTION = shown(
    members(
        {
            "runtime": said(record("Runtime"), "The runtime"),
            "job": said(record("Job"), "The job"),
            "schemas": _SCHEMAS,
        }
    ),
    examples.INSPECTION,
)
SUBMITTED = shown(
    members(
        {
            "id": _JOB_ID,
            "nodeId": NOTHING,
            "moduleId": NOTHING,
            "jobHandle": said(TEXT, "JSON text; the result route takes it in place of the id"),
            "persistJobResult": NOTHING,
            "status": said(record("Status"), "Where the job stands"),
        }
    ),
    examples.SUBMITTED,
)
STATUS = shown(record("Status"), examples.STATUS)
JOB_IDS = shown(array(TEXT), examples.JOB_IDS)
RUNTIMES = shown(
    members(
        {
            "runtimes": said(array(record("RuntimeInFull")), "The runtimes, in the order of their first sessions"),
            "more": said(FLAG, "Whether there are more: ask again with the last one's id as `after`"),
        }
    ),
    examples.RUNTIMES,
)
ONE_RUNTIME = shown(
    members({"runtime": said(record("RuntimeInFull"), "The runtime"), "schemas": _SCHEMAS}), examples.ONE_RUNTIME
)
JOBS = shown(
    members(
        {
            "jobs": said(array(record("JobInFull")), "The jobs, oldest first"),
            "more": said(FLAG, "Whether there are more: ask again with the last one's id as `after`"),
        }
    ),
    examples.JOBS,
)
QUEUED_DIRECTLY = shown(members({"jobId": _JOB_ID}), examples.QUEUED_DIRECTLY)
CANCELLED = shown(
    members({"cancelled": said(COUNT, "How many jobs were queued or running, and have failed now")}), examples.CANCELLED
)
DIAGNOSIS = shown(
    members(
        {
            "job_id": _JOB_ID,
            "kind": said(one_of(DIAGNOSES), "What it waits for, for programs"),
            "sentence": said(TEXT, "The same for people, and what to do"),
        }
    ),
    examples.DIAGNOSIS,
)
HEALTH = shown(
    members({"status": {"const": "ok"}, "id": said(TEXT, "Which emulator this is: another one for each start")}),
    examples.HEALTH,
)
DOCUMENT: Schema = shown({"type": "object", "required": ["openapi", "info", "paths", "components"]}, examples.DOCUMENT)
_VALUE = said(ANYTHING, "What the function returned; of a streaming one an array of its items")
QUERY = shown(record("Query"), examples.QUERY_RECORD)
QUERIES = shown(
    members({"data": said(array(record("Query")), "The functions that there are of those asked for")}),
    examples.QUERIES,
)
VALUE = shown(members({"value": _VALUE}), examples.VALUE)
EXECUTION = shown(
    members({"type": {"const": "submitted"}, "executionId": said(TEXT, "The execution's id, which is its job's")}),
    examples.EXECUTION,
)
EXECUTION_STATE: Schema = shown(
    {
        "oneOf": [
            members({"type": {"const": "running"}}),
            members({"type": {"const": "succeeded"}, "value": _VALUE}),
        ]
    },
    examples.EXECUTION_STATE,
)
CANCELED = shown(members({"id": said(TEXT, "The execution's id")}), examples.CANCELED)
ACCESS_TOKEN = shown(
    members(
        {
            "access_token": said(TEXT, "The token, for the header `Authorization: Bearer`"),
            "token_type": {"const": "bearer"},
            "expires_in": said(COUNT, "After how many seconds it ends"),
        }
    ),
    examples.ACCESS_TOKEN,
)
ENVIRONMENT = shown(
    members(
        {
            "environment": said({"type": "object", "additionalProperties": TEXT}, "What to set, by name"),
            "folder": said(TEXT, "A private directory of the emulator's machine that holds the files named in it"),
        }
    ),
    examples.ENVIRONMENT,
)
EXPORTED: Schema = shown(
    {"type": "object", "required": ["format", "version", "runtimes", "jobs", "events"]}, examples.EXPORTED
)
