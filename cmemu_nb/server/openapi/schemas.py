"""JSON schemas of the answers of the routes, for the OpenAPI document.

An answer has exactly the members of its schema, except that those listed as `optional` may be missing.
"""

from __future__ import annotations

from typing import Any

from cmemu_nb.lifecycle.events import KINDS
from cmemu_nb.lifecycle.records import (
    DIAGNOSES,
    STATES,
    JobSource,
    JobStatus,
    Mode,
    Outcome,
    QueueInfo,
    ReplicaState,
    column_of,
)
from cmemu_nb.server.openapi import examples

Schema = dict[str, Any]

ANYTHING: Schema = {}
TEXT: Schema = {"type": "string"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
NOTHING: Schema = {"type": "null", "description": "Always null here; the platform may have a value"}
TIME: Schema = {"type": "integer", "description": "Unix milliseconds"}
MAYBE_TIME: Schema = {"type": ["integer", "null"], "description": "Unix milliseconds"}
MAYBE_DURATION: Schema = {"type": ["number", "null"], "minimum": 0, "description": "milliseconds, with fractions"}


def described(schema: Schema, description: str) -> Schema:
    """Return a schema with a description, which comes before the description that it has already."""
    return {**schema, "description": ", ".join([description, *filter(None, [schema.get("description")])])}


def with_examples(schema: Schema, *examples: Any) -> Schema:
    """Return the schema of a body with examples."""
    return {**schema, "examples": list(examples)}


def one_of(values: Any) -> Schema:
    """Return the schema of a string that is one of the values."""
    return {"type": "string", "enum": [str(value) for value in values]}


def array(items: Schema) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": items}


def members(properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object with these members and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def record(name: str) -> Schema:
    """Return a reference to one of the `RECORDS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_RUNTIME_ID = described(TEXT, "The runtime's id")
BRANCH_OF_A_CALL = described(
    MAYBE_TEXT, "The branch of the deployed app; if omitted, `master`, or else its newest branch"
)
_APP_RID = "The RID of the deployed app that is bound to the runtime"
_DISPLAY_NAME = described(MAYBE_TEXT, "The human-readable name that the session was opened with")
_JOB_ID = described(TEXT, "The job's id; it starts with `foundry_job_`")
_SCHEMAS = described(array(record("FunctionSchema")), "The schemas that the runtime has posted, by name")
_RUNTIME: dict[str, Schema] = {
    "runtime_id": _RUNTIME_ID,
    "module_auth_token": described(TEXT, "The session's token; left out if the setting `hide_tokens` is on"),
    "connected": described(FLAG, "Whether the runtime has polled for jobs since its session was opened"),
    "last_poll_at": described(MAYBE_TIME, "When the runtime last polled"),
    "last_schema_post_at": described(MAYBE_TIME, "When the runtime last posted schemas"),
    "created_at": described(TIME, "When the session was opened"),
}
_TIMING: Schema = members(
    {
        "multiplexerSubmitTimeMillis": described(TIME, "When the job was submitted"),
        "queueSubmitTimeMillis": described(TIME, "When the job was queued"),
        "queuedJobDispatchTimeMillis": described(MAYBE_TIME, "When a runtime took the job"),
        "moduleSubmitTimeMillis": described(MAYBE_TIME, "When the job was handed to the module"),
    }
)
_TIMES = described(
    members({"type": {"const": "queuedJob"}, "queuedJob": described(_TIMING, "The times of the job so far")}),
    "When the job was submitted, queued and taken",
)
_MAYBE_TIMES = {"oneOf": [_TIMES, NOTHING], "description": "The times of the job; null if no runtime took it"}
_DETAILS = {
    "metadata": NOTHING,
    "intermediateJobInfoList": described(array(ANYTHING), "Always empty here; the platform may have entries"),
    "multiplexerJobTiming": _TIMES,
}
_PROGRESS = members(_DETAILS)
_TASKS = {
    "approxNumTasks": NOTHING,
    "completedTasks": described(COUNT, "Always 0 here"),
    "metadata": NOTHING,
}


_ERROR_TYPE = members({"code": described(TEXT, "The kind of error"), "name": described(TEXT, "The error's name")})
_EXCEPTION = described(
    members(
        {
            "errorType": described(_ERROR_TYPE, "The code and the name of the error"),
            "message": described(TEXT, "Why the job failed or was cancelled"),
            "safeMessage": NOTHING,
            "errorInstanceId": described(TEXT, "A UUID, the same in each answer about this job"),
            "args": described(array(ANYTHING), "Always empty here; the platform may have entries"),
        }
    ),
    "Why the job has no result",
)


def _tagged(kind: str, content: Schema) -> Schema:
    return members({"type": {"const": str(kind)}, str(kind): described(content, f"The details of a {kind} job")})


_DATA_TYPE: Schema = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": described(TEXT, "The type's name in the public API")},
}
_FIELD_SCHEMA: Schema = {
    "type": "object",
    "required": ["nullable", "dataType"],
    "properties": {
        "nullable": described(FLAG, "Whether the value may be null"),
        "dataType": described(_DATA_TYPE, "The type of the value"),
    },
}
_FIELD = members(
    {
        "name": described(TEXT, "The name of the field"),
        "schema": described(_FIELD_SCHEMA, "The type of the field, and whether it may be null"),
    }
)
STREAM_SCHEMA: Schema = {
    "type": "object",
    "required": ["fields"],
    "properties": {
        "fields": described(array(_FIELD), "The fields"),
        "keyFieldNames": described(array(TEXT), "The fields whose values decide about the partition of a record"),
        "changeDataCapture": described({"type": "object"}, "Kept, and without effect here"),
    },
}
_QUERY_PARAMETER = members(
    {
        "dataType": described(_DATA_TYPE, "The type of its values"),
        "required": described(FLAG, "Whether a call must have a value for it"),
    }
)
_JOB: dict[str, Schema] = {
    "job_id": _JOB_ID,
    "runtime_id": _RUNTIME_ID,
    "deployed_app_rid": described(
        MAYBE_TEXT, "The RID of the app that the job was submitted to; null if it was the runtime itself"
    ),
    "deployed_app_branch": described(MAYBE_TEXT, "The app's branch"),
    "query_type": described(TEXT, "The function's name"),
    "query": described(ANYTHING, "The function's input, as it was submitted"),
    "source": described(one_of(JobSource), "The kind of route by which the job was submitted"),
    "status": described(one_of(JobStatus), "The status of the job"),
    "queued_at": described(TIME, "When the job was queued"),
    "started_at": described(MAYBE_TIME, "When a runtime took the job"),
    "completed_at": described(MAYBE_TIME, "When the job succeeded or failed"),
    "result_content_type": described(MAYBE_TEXT, "The content type with which the result was posted"),
    "result_body_utf8": described(MAYBE_TEXT, "The result as text; null if there is none, or if it is not UTF-8"),
    "result_body_base64": described(TEXT, "The result in Base64; only present if it is not UTF-8"),
    "error_message": described(MAYBE_TEXT, "Why the job failed"),
}
_QUERY: dict[str, Schema] = {
    "apiName": described(TEXT, "The full name of the function, which is unique"),
    "description": described(TEXT, "The function's description, if its schema has one"),
    "displayName": described(TEXT, "The function's name in its schema"),
    "parameters": described(
        {"type": "object", "additionalProperties": _QUERY_PARAMETER}, "The function's inputs, by name"
    ),
    "output": described(_DATA_TYPE, "The type of the function's value"),
    "rid": described(TEXT, "The function's RID, which depends only on the app and the name of the function"),
    "version": described(TEXT, "Always `0.0.0`"),
}
_PARAMETER_V1 = members(
    {
        "baseType": described(TEXT, "The type of its values as text, such as `Array<Long>`"),
        "dataType": described(_DATA_TYPE, "The type of its values"),
        "required": described(FLAG, "Whether a call must have a value for it"),
    }
)
RECORDS: dict[str, Schema] = {
    "Error": members(
        {
            "error": described(TEXT, "A code for programs"),
            "error_description": described(TEXT, "What was attempted, why it failed and what to do next"),
        }
    ),
    "ApiError": members(
        {
            "errorCode": described(TEXT, "The kind of error, which follows from the status"),
            "errorName": described(TEXT, "The error's name, for programs"),
            "errorInstanceId": described(TEXT, "A UUID that identifies this answer"),
            "errorDescription": described(TEXT, "What was attempted, why it failed and what to do next"),
            "parameters": described({"type": "object"}, "Further fields, which depend on the error's name"),
        }
    ),
    "Query": members(_QUERY, ("description",)),
    "QueryType": members(
        {**_QUERY, "typeReferences": described({"type": "object"}, "Always empty here")}, ("description",)
    ),
    "QueryTypeV1": members(
        {
            **_QUERY,
            "parameters": described(
                {"type": "object", "additionalProperties": _PARAMETER_V1}, "The function's inputs, by name"
            ),
        },
        ("description",),
    ),
    "Ontology": members(
        {
            "apiName": described(TEXT, "The setting `ontology_api_name`"),
            "displayName": described(TEXT, "The same name"),
            "description": described(TEXT, "What the ontology has"),
            "rid": described(TEXT, "The setting `ontology_rid`"),
        }
    ),
    "Runtime": members(_RUNTIME, ("module_auth_token",)),
    "RuntimeInFull": members(
        {
            **_RUNTIME,
            "display_name": _DISPLAY_NAME,
            "mode": described(one_of(Mode), "The execution mode of the launched modules; a pipeline takes no jobs"),
            "import_error": described(
                MAYBE_TEXT, "The end of the traceback of a launched module that raised while it was imported, else null"
            ),
            "queue_depth": described(COUNT, "How many jobs are queued"),
            "job_counts": described(
                members({column_of(state): described(COUNT, f"How many jobs are {state}") for state in STATES}),
                "How many jobs are in each state; `function_error` counts jobs whose function raised an exception",
            ),
            "evicted_jobs": described(COUNT, "How many finished jobs were evicted to make room for newer jobs"),
            "deployed_apps": described(array(record("DeployedApp")), "The apps that are bound to the runtime"),
        },
        ("module_auth_token",),
    ),
    "DeployedApp": members(
        {
            "deployed_app_rid": described(TEXT, _APP_RID),
            "branch": described(TEXT, "The app's branch"),
            "runtime_id": _RUNTIME_ID,
            "display_name": _DISPLAY_NAME,
            "bound_at": described(TIME, "When the app was bound"),
        }
    ),
    "FunctionSchema": members(
        {
            "runtime_id": _RUNTIME_ID,
            "function_name": described(TEXT, "The function's name"),
            "schema_payload": described(ANYTHING, "The schema as it was posted"),
            "posted_at": described(TIME, "When the schema was posted"),
        }
    ),
    "Job": members(_JOB, ("result_body_base64",)),
    "JobInFull": members(
        {
            **_JOB,
            "outcome": described({"enum": [*map(str, Outcome), None]}, "How the job ended; null until it has ended"),
            "queue_time": described(MAYBE_DURATION, "How long the job was queued; null while it is queued"),
            "run_time": described(MAYBE_DURATION, "How long the job ran; null until it has ended, and if it never ran"),
        },
        ("result_body_base64",),
    ),
    "Event": members(
        {
            "sequence": described(COUNT, "The number of the event, which increases"),
            "at": described(TIME, "When it happened"),
            "kind": described(one_of(KINDS), "What happened, for programs"),
            "runtime_id": described(MAYBE_TEXT, "The id of the runtime that it concerns, else null"),
            "job_id": described(MAYBE_TEXT, "The id of the job that it concerns, else null"),
            "detail": described(MAYBE_TEXT, "What happened, for people"),
        }
    ),
    "Status": {
        "oneOf": [
            _tagged(JobStatus.QUEUED, members({"queueInfo": described(one_of(QueueInfo), "Why it is queued")})),
            _tagged(JobStatus.RUNNING, _PROGRESS),
            _tagged(JobStatus.SUCCEEDED, _PROGRESS),
            _tagged(JobStatus.FAILED, members({"message": described(MAYBE_TEXT, "Why the job failed")})),
            # With the setting contour="foundry"
            _tagged("inProgress", members(_TASKS)),
            _tagged(JobStatus.SUCCEEDED, members({**_DETAILS, "numDroppedIntermediateJobs": NOTHING})),
            _tagged(JobStatus.FAILED, members({"exception": _EXCEPTION, "multiplexerJobTiming": _MAYBE_TIMES})),
            _tagged("canceled", members({"exception": _EXCEPTION})),
        ]
    },
}

_URI: Schema = {**TEXT, "format": "uri"}
SESSION = with_examples(
    members(
        {
            "runtimeId": _RUNTIME_ID,
            "moduleAuthToken": described(TEXT, "The session's token, for the Module-Auth-Token header"),
            "getJobUri": described(_URI, "Where to poll for jobs"),
            "postResultUri": described(_URI, "Where to post results: append a slash and the job's id"),
            "postSchemaUri": described(_URI, "Where to post function schemas"),
        }
    ),
    examples.SESSION,
)
_CALL = {
    "jobId": _JOB_ID,
    "queryType": described(TEXT, "The function's name"),
    "query": described(ANYTHING, "The function's input, exactly the JSON text that was submitted"),
}
_CALLER = {
    "userId": described(TEXT, "The user who submitted the job, if a seed file names the user of the bearer token"),
    "authHeader": described(TEXT, "`Bearer` and the caller's token, if `caller_token_runtimes` has the runtime"),
    "temporaryCredentialsAuthToken": described(TEXT, "The same token, without `Bearer`"),
}


def _envelope(job: Schema) -> Schema:
    envelope = members({"type": {"const": "computeModuleJobV1"}, "computeModuleJobV1": described(job, "The job")})
    return with_examples(envelope, examples.ENVELOPE)


ENVELOPE = _envelope(members(_CALL))
PLATFORM_ENVELOPE = _envelope(members({**_CALL, **_CALLER}, (*_CALLER,)))
INSPECTION = with_examples(
    members(
        {
            "runtime": described(record("Runtime"), "The runtime"),
            "job": described(record("Job"), "The job"),
            "schemas": _SCHEMAS,
        }
    ),
    examples.INSPECTION,
)
SUBMITTED = with_examples(
    members(
        {
            "id": _JOB_ID,
            "nodeId": NOTHING,
            "moduleId": NOTHING,
            "jobHandle": described(TEXT, "A JSON text that the result route accepts in place of the id"),
            "persistJobResult": NOTHING,
            "status": described(record("Status"), "The status of the job"),
        }
    ),
    examples.SUBMITTED,
)
STATUS = with_examples(record("Status"), examples.STATUS)
APP_SCHEMAS = with_examples(
    array(
        members(
            {
                "functionName": described(TEXT, "The function's name"),
                "inputs": described(array(ANYTHING), "The function's inputs, as they were posted"),
                "output": described(ANYTHING, "The function's output, as it was posted"),
                "issues": described(
                    array(one_of(["CANNOT_PARSE_INPUTS", "CANNOT_PARSE_OUTPUT"])), "What the posted schema lacks"
                ),
                "ontologyProvenance": NOTHING,
            }
        )
    ),
    examples.APP_SCHEMAS,
)
_MOST = "The largest number of replicas: that of a module's scaling, else how many there are"
_FEWEST = "The smallest number of replicas: that of a module's scaling, else how many there are"
_REPLICA = members(
    {
        "replicaId": described(TEXT, "The replica's id"),
        "state": described(
            members(
                {
                    "state": described(one_of(ReplicaState), "`RESPONSIVE` when the replica has polled and is ready"),
                    "reason": described(array(TEXT), "Why it is decommissioned, else empty"),
                }
            ),
            "How the replica runs",
        ),
    }
)
_REPLICA_SET = members(
    {
        "moduleGroupName": _RUNTIME_ID,
        "replicaSetId": described(TEXT, "A UUID of the runtime's session"),
        "replicaSetDiagnostic": NOTHING,
        "state": described(
            one_of(["STARTING", "ACTIVE"]), "`ACTIVE` when a replica has polled, or when there is to be none"
        ),
        "configuredMaxModules": described(COUNT, _MOST),
        "configuredMinModules": described(COUNT, _FEWEST),
        "totalReplicas": described(COUNT, "How many replicas there are"),
        "responsiveReplicas": described(COUNT, "How many replicas have polled"),
        "replicas": described(array(_REPLICA), "The replicas"),
        "images": described(array(ANYTHING), "Always empty here; the platform has the images of the containers"),
    }
)
APP_STATUS = with_examples(
    members(
        {
            "computeModuleId": _RUNTIME_ID,
            "buildRid": described(TEXT, "A RID of the runtime's session, in place of a build"),
            "buildJobRid": described(TEXT, "A RID of the runtime's session, in place of a build's job"),
            "previousUpdate": described(TEXT, "When the session was opened, in ISO 8601"),
            "resourceProgressStatus": described(
                members({"type": {"const": "appliedInCluster"}, "appliedInCluster": described(members({}), "Empty")}),
                "Always applied",
            ),
            "scalingConfig": described(
                members(
                    {
                        "maxNumModules": described(COUNT, _MOST),
                        "minNumModules": described(COUNT, _FEWEST),
                    }
                ),
                "Between how many replicas the module is scaled",
            ),
            "currentReplicaSet": described(_REPLICA_SET, "The replicas that run"),
            "targetReplicaSet": NOTHING,
        }
    ),
    examples.APP_STATUS,
)
_OPEN: Schema = {"type": "object"}
APP_CONFIGURATION = with_examples(
    members(
        {
            "deployedAppRid": described(TEXT, _APP_RID),
            "jobSpecRid": described(TEXT, "A RID that depends only on the app"),
            "computationParameters": described(_OPEN, "What the container consists of, of which nothing is known here"),
            "runtimeParameters": described(_OPEN, "How many replicas there are, and how many jobs each has at a time"),
            "externalSources": described(_OPEN, "Always without sources here"),
        }
    ),
    examples.APP_CONFIGURATION,
)
JOB_IDS = with_examples(array(TEXT), examples.JOB_IDS)
_MORE = described(FLAG, "Whether there are more; the next page has the id of the last one as `after`")
RUNTIMES = with_examples(
    members(
        {
            "runtimes": described(array(record("RuntimeInFull")), "The runtimes, in the order of their first sessions"),
            "more": _MORE,
        }
    ),
    examples.RUNTIMES,
)
ONE_RUNTIME = with_examples(
    members({"runtime": described(record("RuntimeInFull"), "The runtime"), "schemas": _SCHEMAS}), examples.ONE_RUNTIME
)
JOBS = with_examples(
    members(
        {
            "jobs": described(array(record("JobInFull")), "The jobs, oldest first"),
            "more": _MORE,
        }
    ),
    examples.JOBS,
)
QUEUED_DIRECTLY = with_examples(members({"jobId": _JOB_ID}), examples.QUEUED_DIRECTLY)
CANCELLED = with_examples(
    members({"cancelled": described(COUNT, "How many queued or running jobs have failed by this request")}),
    examples.CANCELLED,
)
DIAGNOSIS = with_examples(
    members(
        {
            "job_id": _JOB_ID,
            "kind": described(one_of(DIAGNOSES), "Why the job has no result yet, for programs"),
            "sentence": described(TEXT, "Why the job has no result yet and what to do, for people"),
            "explanation": described(
                MAYBE_TEXT, "Why a finished job has no value, if more is known than its result says, else null"
            ),
        }
    ),
    examples.DIAGNOSIS,
)
EVENTS = with_examples(
    members(
        {
            "events": described(array(record("Event")), "The events, oldest first"),
            "more": described(FLAG, "Whether there are more; the next page has the last `sequence` as `after`"),
        }
    ),
    examples.EVENT_PAGE,
)
LOG = with_examples(
    members({"job_id": _JOB_ID, "log": described(TEXT, "What the function has printed and logged so far")}),
    examples.LOG,
)
_MAYBE_MILLISECONDS: Schema = {"type": ["integer", "null"]}
_NAME_OF_DATA = described(TEXT, "The name")
_RID_OF_DATA = described(TEXT, "The RID")
_LISTED_DATASET = members(
    {
        "name": _NAME_OF_DATA,
        "schema": described(TEXT, "The columns and their types on the branch `master`, empty if unknown"),
        "columns": described(COUNT, "How many columns there are"),
        "rows": described(
            {"type": ["integer", "null"], "minimum": 0},
            "How many rows the branch `master` has; null if only decoding the files would tell",
        ),
        "files": described(COUNT, "How many files the branch `master` has"),
        "bytes": described(COUNT, "How many bytes these have"),
        "branches": described(array(TEXT), "The branches"),
        "transactions": described(COUNT, "How many transactions there are, on all branches"),
        "open_transactions": described(array(TEXT), "The RIDs of those that are open"),
        "committed_at": described(_MAYBE_MILLISECONDS, "The time of the newest commit, in Unix ms"),
        "rid": _RID_OF_DATA,
    }
)
_LISTED_STREAM = members(
    {
        "name": _NAME_OF_DATA,
        "branch": described(TEXT, "The branch"),
        "schema": described(TEXT, "The fields and their types"),
        "records": described(COUNT, "How many records are kept"),
        "bytes": described(COUNT, "How many bytes these take"),
        "published": described(COUNT, "How many records were published since the last reset"),
        "partitions": described(COUNT, "How many partitions there are"),
        "end_offsets": described(array(COUNT), "The offset of the next record of each partition"),
        "published_at": described(_MAYBE_MILLISECONDS, "The time of the newest record, in Unix ms"),
        "rid": _RID_OF_DATA,
    }
)
_OLDER = described(FLAG, "Whether there are older ones")
LISTED_DATASETS = with_examples(
    members({"datasets": described(array(_LISTED_DATASET), "The datasets, the newest last"), "more": _OLDER}),
    examples.LISTED_DATASETS,
)
LISTED_STREAMS = with_examples(
    members({"streams": described(array(_LISTED_STREAM), "The streams, the newest last"), "more": _OLDER}),
    examples.LISTED_STREAMS,
)
HEALTH = with_examples(
    members({"status": {"const": "ok"}, "id": described(TEXT, "An id of this emulator, which is new at each start")}),
    examples.HEALTH,
)
DOCUMENT: Schema = with_examples(
    {"type": "object", "required": ["openapi", "info", "paths", "components"]}, examples.DOCUMENT
)
_VALUE = described(ANYTHING, "The value that the function returned; for a streaming function, an array of its items")
QUERY = with_examples(record("Query"), examples.QUERY_RECORD)
QUERIES = with_examples(
    members({"data": described(array(record("Query")), "The requested functions that exist")}),
    examples.QUERIES,
)
EMPTY_IN_ONTOLOGY = (
    "objectTypes",
    "actionTypes",
    "actionTypesFullMetadata",
    "interfaceTypes",
    "sharedPropertyTypes",
    "valueTypes",
)
_NEXT_PAGE = described(TEXT, "The token of the next page; absent if this is the last one")
ONTOLOGY = with_examples(record("Ontology"), examples.ONTOLOGY)
ONTOLOGIES = with_examples(
    members({"data": described(array(record("Ontology")), "The ontologies")}), examples.ONTOLOGIES
)
QUERY_TYPE = with_examples(record("QueryType"), examples.QUERY_TYPE)
QUERY_TYPE_BATCH = with_examples(
    members({"data": described(array(record("QueryType")), "The requested queries that exist")}),
    examples.QUERY_TYPES,
)
QUERY_TYPES = with_examples(
    members(
        {"nextPageToken": _NEXT_PAGE, "data": described(array(record("QueryType")), "The queries")}, ("nextPageToken",)
    ),
    examples.QUERY_TYPES,
)
QUERY_TYPE_V1 = with_examples(record("QueryTypeV1"), examples.QUERY_TYPE_V1)
QUERY_TYPES_V1 = with_examples(
    members(
        {"nextPageToken": _NEXT_PAGE, "data": described(array(record("QueryTypeV1")), "The queries")},
        ("nextPageToken",),
    ),
    examples.QUERY_TYPES_V1,
)
FULL_METADATA = with_examples(
    members(
        {
            "ontology": described(record("Ontology"), "The ontology"),
            "queryTypes": described(
                {"type": "object", "additionalProperties": record("QueryType")}, "The queries, by `name:version`"
            ),
            **{name: described({"type": "object", "maxProperties": 0}, "Always empty") for name in EMPTY_IN_ONTOLOGY},
        }
    ),
    examples.FULL_METADATA,
)
VALUE = with_examples(members({"value": _VALUE}), examples.VALUE)
EXECUTION = with_examples(
    members(
        {
            "type": {"const": "submitted"},
            "executionId": described(TEXT, "The id of the job; with an `ontology`, followed by `.ontology`"),
        }
    ),
    examples.EXECUTION,
)
EXECUTION_STATE: Schema = with_examples(
    {
        "oneOf": [
            members({"type": {"const": "running"}}),
            members({"type": {"const": "succeeded"}, "value": _VALUE}),
        ]
    },
    examples.EXECUTION_STATE,
)
CANCELED = with_examples(members({"id": described(TEXT, "The execution's id")}), examples.CANCELED)
USER = with_examples(
    members(
        {
            "id": described(TEXT, "The user's id, a UUID"),
            "username": described(TEXT, "The login of the seed file, or `cmemu` for a token without one"),
            "realm": {"const": "cmemu"},
            "status": {"const": "ACTIVE"},
            "attributes": described({"type": "object"}, "Always empty here"),
        }
    ),
    examples.USER,
)
USER_STATUS = described(one_of(("ACTIVE", "DELETED")), "Which users to look for; there are no deleted ones here")
ACCESS_TOKEN = with_examples(
    members(
        {
            "access_token": described(TEXT, "The token, for the header `Authorization: Bearer`"),
            "token_type": {"const": "bearer"},
            "expires_in": described(COUNT, "After how many seconds the token expires"),
            "scope": described(TEXT, "The scopes of a sign-in, if it asked for any"),
            "refresh_token": described(TEXT, "A token for the next access token, if the scope has `offline_access`"),
        },
        optional=("scope", "refresh_token"),
    ),
    examples.ACCESS_TOKEN,
)
ENVIRONMENT = with_examples(
    members(
        {
            "environment": described(
                {"type": "object", "additionalProperties": TEXT}, "The environment variables to set, by name"
            ),
            "folder": described(TEXT, "A private directory on the emulator's machine with the files that they name"),
        }
    ),
    examples.ENVIRONMENT,
)
EXPORTED: Schema = with_examples(
    {"type": "object", "required": ["format", "version", "runtimes", "jobs", "events"]}, examples.EXPORTED
)
