"""Examples of requests and answers for the OpenAPI document: one job, from the opening of its session to its end."""

from __future__ import annotations

import json
from typing import Any

RUNTIME_ID = "my-runtime"
RID = "ri.foundry.main.deployed-app.my-app"
JOB_ID = "foundry_job_5f0c1b6e9a7d42c38e1f0a2b4c6d8e90"
MODULE_TOKEN = "foundry_module_auth_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"  # noqa: S105 - an example
FUNCTION = "add"
API_NAME = f"com.myapp.computemodules.{FUNCTION}"
QUERY_RID = "ri.function-registry.main.function.65a89ac8-a96d-5fe0-b4c3-1864fcf00367"
QUERY = {"x": 1, "y": 2}
RESULT = "3"
_AT = 1_767_225_600_000
_URI = f"http://127.0.0.1:4000/_emulate/foundry/compute-modules/runtimes/{RUNTIME_ID}"
_INTEGER = {"type": "integer", "integer": {}}
_PAYLOAD = {
    "inputs": [{"name": name, "required": True, "dataType": _INTEGER} for name in QUERY],
    "output": {"type": "single", "single": {"dataType": _INTEGER}},
}
_OF_ANYTHING = {**_PAYLOAD, "inputs": []}
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
    {"functions": [{"functionName": FUNCTION, **_OF_ANYTHING}]},
    {FUNCTION: _OF_ANYTHING},
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
APP_SCHEMAS = [{"functionName": FUNCTION, **_PAYLOAD, "issues": [], "ontologyProvenance": None}]
_UUID = "6f1f6b52-0a3c-5a55-8f0e-9d7c64a0c8b1"
APP_STATUS = {
    "computeModuleId": RUNTIME_ID,
    "buildRid": f"ri.foundry.main.build.{_UUID}",
    "buildJobRid": f"ri.foundry.main.job.{_UUID}",
    "previousUpdate": "2026-01-01T00:00:00Z",
    "resourceProgressStatus": {"type": "appliedInCluster", "appliedInCluster": {}},
    "scalingConfig": {"maxNumModules": 1, "minNumModules": 1},
    "currentReplicaSet": {
        "moduleGroupName": RUNTIME_ID,
        "replicaSetId": _UUID,
        "replicaSetDiagnostic": None,
        "state": "ACTIVE",
        "configuredMaxModules": 1,
        "configuredMinModules": 1,
        "totalReplicas": 1,
        "responsiveReplicas": 1,
        "replicas": [{"replicaId": "2c9728d1", "state": {"state": "RESPONSIVE", "reason": []}}],
        "images": [],
    },
    "targetReplicaSet": None,
}
APP_CONFIGURATION = {
    "deployedAppRid": RID,
    "jobSpecRid": f"ri.foundry.main.job-spec.{_UUID}",
    "computationParameters": {
        "type": "computationParamsV1",
        "computationParamsV1": {
            "computeModuleInputs": [],
            "computeModuleInputsV2": [],
            "computeModuleOutputs": [],
            "computeModuleOutputsV2": [],
            "externalSources": [],
            "securityScopes": [],
            "telemetrySessionTags": [],
            "foundryContainerizedApplication": None,
            "foundryDataAccess": False,
            "runtime": "COMPUTE_MODULE_RUNTIME_V1",
        },
    },
    "runtimeParameters": {
        "type": "runtimeParamsV1",
        "runtimeParamsV1": {
            "foundryServiceAccess": [],
            "networkPolicies": [],
            "scalingConfig": {"minReplicas": 1, "maxReplicas": 1, "concurrencyLimit": 1},
        },
    },
    "externalSources": {"importedExternalSources": [], "unimportedExternalSources": []},
}

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
_BOUND = {
    "deployed_app_rid": RID,
    "branch": "master",
    "runtime_id": RUNTIME_ID,
    "display_name": "My app",
    "bound_at": _AT,
}
RUNTIME_IN_FULL = {
    **RUNTIME,
    "display_name": "My app",
    "mode": "function",
    "import_error": None,
    "queue_depth": 0,
    "job_counts": {"queued": 0, "running": 0, "ok": 470, "function_error": 30, "failed": 0},
    "evicted_jobs": 0,
    "deployed_apps": [_BOUND],
}
RUNTIMES = {"runtimes": [RUNTIME_IN_FULL], "more": False}
ONE_RUNTIME = {"runtime": RUNTIME_IN_FULL, "schemas": [SCHEMA]}
JOBS = {"jobs": [{**JOB, "outcome": "ok", "queue_time": 1.874, "run_time": 8.112}], "more": False}
DIRECT = {"queryType": FUNCTION, "query": QUERY}
QUEUED_DIRECTLY = {"jobId": JOB_ID}
REASON = {"reason": "no more fuel"}
CANCELLATION = {"jobs": FUNCTION, "reason": "it takes too long"}
CANCELLED = {"cancelled": 2}
JOB_IDS = [JOB_ID]
DIAGNOSIS = {
    "job_id": JOB_ID,
    "kind": "executor_silent",
    "sentence": f"'{FUNCTION}' is queued, and nothing polls '{RUNTIME_ID}' now: the last poll was 3 min ago. Start its "
    "executor again if it has ended.",
    "explanation": None,
}
EVENT_PAGE = {
    "events": [
        {
            "sequence": 12,
            "at": 1767225600000,
            "kind": "job_queued",
            "runtime_id": RUNTIME_ID,
            "job_id": JOB_ID,
            "detail": None,
        }
    ],
    "more": False,
}
LOG = {"job_id": JOB_ID, "log": "adding 1 and 2\n"}
LISTED_DATASETS = {
    "datasets": [
        {
            "name": "orders",
            "schema": "id LONG, price DECIMAL(10, 2)",
            "columns": 2,
            "rows": 1200,
            "files": 1,
            "bytes": 20480,
            "branches": ["master"],
            "transactions": 1,
            "open_transactions": [],
            "committed_at": 1767225600000,
            "rid": "ri.foundry.main.dataset.orders",
        }
    ],
    "more": False,
}
LISTED_STREAMS = {
    "streams": [
        {
            "name": "events",
            "branch": "master",
            "schema": "sensor STRING, celsius DOUBLE",
            "records": 2,
            "bytes": 372,
            "published": 2,
            "partitions": 1,
            "end_offsets": [2],
            "published_at": 1767225600000,
            "rid": "ri.foundry.main.dataset.events",
        }
    ],
    "more": False,
}
HEALTH = {"status": "ok", "id": "5f0c1b6e9a7d42c3"}
REPLICA = {"maxConcurrentTasks": 2, "configuration": {"aliases": {"orders": {"rid": "ri.foundry.main.dataset.orders"}}}}
_FOLDER = "/tmp/cmemu-v52elwi5"  # noqa: S108 - an example
_SERVER = "https://127.0.0.1:8945"
_INTERNAL = "/interactive-module/api/internal-query"
ENVIRONMENT = {
    "environment": {
        "GET_JOB_URI": f"{_SERVER}{_INTERNAL}/job",
        "POST_RESULT_URI": f"{_SERVER}{_INTERNAL}/results",
        "POST_SCHEMA_URI": f"{_SERVER}{_INTERNAL}/schemas",
        "RESTART_NOTIFICATION_URI": f"{_SERVER}{_INTERNAL}/restart",
        "GET_JOB_PATH": f"{_INTERNAL}/job",
        "POST_RESULT_PATH": f"{_INTERNAL}/results",
        "RUNTIME_HOST": "127.0.0.1",
        "RUNTIME_PORT": "8945",
        "RUNTIME_API": "127.0.0.1:8945",
        "MAX_CONCURRENT_TASKS": "2",
        "FOUNDRY_URL": "127.0.0.1:8945",
        "FOUNDRY_HOSTNAME": "127.0.0.1:8945",
        "FOUNDRY_SERVICE_DISCOVERY_V2": f"{_FOLDER}/service_discovery-2c9728d1",
        "COMPUTE_SESSION_ID": "ses-2c9728d1-5b0e-4c1f-9d7a-3e8f60b1c2d4",
        "FOUNDRY_COMPUTE_MODULE_RID": RID,
        "MODULE_AUTH_TOKEN": f"{_FOLDER}/token-2c9728d1",
        "SCRATCH_TOKEN": "foundry_scratch_Zq3vC5n0mB8yWk1TtRj7uXo2LpEd4Gh6AsQf9NzVxKc",
        "DEFAULT_CA_PATH": f"{_FOLDER}/ca.pem",
        "CONNECTIONS_TO_OTHER_PODS_CA_PATH": f"{_FOLDER}/ca.pem",
        "REQUESTS_CA_BUNDLE": f"{_FOLDER}/ca-bundle.pem",
        "SSL_CERT_FILE": f"{_FOLDER}/ca-bundle.pem",
        "NODE_EXTRA_CA_CERTS": f"{_FOLDER}/ca-bundle.pem",
        "CURL_CA_BUNDLE": f"{_FOLDER}/ca-bundle.pem",
        "RESOURCE_ALIAS_MAP": f"{_FOLDER}/resource_alias_map-2c9728d1",
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "no_proxy": "localhost,127.0.0.1,::1",
    },
    "folder": _FOLDER,
}
_NANOSECONDS = _AT * 1_000_000
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "cmemu_nb", "version": "1.0"},
    "tags": [{"name": "runtime", "description": "What a runtime calls"}],
    "paths": {},
    "components": {},
}

# The public API, and OAuth

PARAMETERS = {"parameters": QUERY}
QUERY_RECORD = {
    "apiName": API_NAME,
    "displayName": FUNCTION,
    "parameters": {name: {"dataType": {"type": "integer"}, "required": True} for name in QUERY},
    "output": {"type": "integer"},
    "rid": QUERY_RID,
    "version": "0.0.0",
}
QUERY_RIDS = [{"rid": QUERY_RID}]
ONTOLOGY_RID = "ri.ontology.main.ontology.cmemu"
ONTOLOGY = {
    "apiName": "cmemu",
    "displayName": "cmemu",
    "description": "The functions of the compute modules that this emulator serves.",
    "rid": ONTOLOGY_RID,
}
ONTOLOGIES = {"data": [ONTOLOGY]}
QUERY_TYPE = {**QUERY_RECORD, "typeReferences": {}}
QUERY_TYPES = {"data": [QUERY_TYPE]}
QUERY_TYPE_RIDS = {"requests": [{"queryTypeRid": QUERY_RID}]}
_OF_V1 = {"baseType": "Integer", "dataType": {"type": "integer"}, "required": True}
QUERY_TYPE_V1 = {**QUERY_RECORD, "parameters": dict.fromkeys(QUERY, _OF_V1)}
QUERY_TYPES_V1 = {"data": [QUERY_TYPE_V1]}
FULL_METADATA = {
    "ontology": ONTOLOGY,
    "queryTypes": {f"{API_NAME}:0.0.0": QUERY_TYPE},
    "objectTypes": {},
    "actionTypes": {},
    "actionTypesFullMetadata": {},
    "interfaceTypes": {},
    "sharedPropertyTypes": {},
    "valueTypes": {},
}
QUERIES = {"data": [QUERY_RECORD]}
VALUE = {"value": 3}
EXECUTION = {"type": "submitted", "executionId": JOB_ID}
EVENTS = 'data: {"type":"data","value":3}\n\n'
PAGE_MESSAGES = {"page": "nJ4uT0m3jUq6qkK1V5wq7g", "messages": [{"do": "stay", "window": "w1"}]}
POLL = {"timeout": 10}
EXECUTION_STATE = {"type": "succeeded", **VALUE}
CANCELED = {"id": JOB_ID}
CLIENT = {"client_id": "cmemu-client", "client_secret": "the-secret-of-the-client"}
USER = {
    "id": "7e8fc3e2-497f-57a1-b350-556bd5e321f9",
    "username": "alice",
    "realm": "cmemu",
    "status": "ACTIVE",
    "attributes": {},
}
GRANT = {**CLIENT, "grant_type": "client_credentials"}
ACCESS_TOKEN = {
    "access_token": "foundry_access_token_AAABm3bDsADDTmQ2sGJ0Lh8nQy6fVgC1xR9pWkZ5uEoX7dTjMb4sHaYvIqFeOlNzUcGw",
    "token_type": "bearer",
    "expires_in": 3600,
}
SIGN_IN = {
    "response_type": "code",
    "client_id": CLIENT["client_id"],
    "redirect_uri": "http://localhost:3000/callback",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "code_challenge_method": "S256",
    "scope": "offline_access api:use-ontologies-read",
    "state": "any-text",
}
CHOSEN_USER = {"ticket": "dGhlLXRpY2tldC1vZi10aGUtcGFnZS1pbi13aGljaC1vbmU", "login": "cmemu"}
REVOCATION = {**CLIENT, "token": ACCESS_TOKEN["access_token"]}

# The scratch cache and locks

CACHE_KEY = {"key": "exchange-rates"}
CACHE_VALUE = {"value": '{"EUR": 1.08}'}
CACHE_PUT = {**CACHE_KEY, "value": CACHE_VALUE, "ttl": "FIVE_MINUTES"}
CACHE_KEYS = {"keys": [CACHE_KEY["key"]]}
CACHE_ENTRIES = {"entries": {CACHE_KEY["key"]: CACHE_VALUE}}
CACHE_EXISTS = {"exists": True}
LOCK_NAME = {"lockName": "nightly-batch"}
LOCK_HELD = {"handle": {**LOCK_NAME, "lockId": "5f0c2a8e9b174d63a1e08c7f42d9b360"}}
LOCK_ACQUIRED = {"acquired": LOCK_HELD["handle"]}
LOCK_REFRESHED = {"success": True}

STREAM_RID = f"ri.foundry.main.dataset.{_UUID}"
VIEW_RID = f"ri.foundry-streaming.main.view.{_UUID}"
STREAM_SCHEMA = {
    "fields": [
        {"name": "sensor", "schema": {"nullable": False, "dataType": {"type": "string"}}},
        {"name": "celsius", "schema": {"nullable": True, "dataType": {"type": "double"}}},
    ],
    "keyFieldNames": ["sensor"],
}
_FOLDER = "ri.compass.main.folder.cmemu"
NEW_STREAMING_DATASET = {"name": "readings", "parentFolderRid": _FOLDER, "schema": STREAM_SCHEMA}
STREAMING_DATASET = {"rid": STREAM_RID, "name": "readings", "parentFolderRid": _FOLDER}
NEW_STREAM = {"branchName": "develop", "schema": STREAM_SCHEMA}
STREAM = {
    "branchName": "master",
    "schema": STREAM_SCHEMA,
    "viewRid": VIEW_RID,
    "partitionsCount": 1,
    "streamType": "LOW_LATENCY",
    "compressed": False,
}
RECORD = {"sensor": "a", "celsius": 20.5}
PUBLISHED_RECORD = {"record": RECORD}
PUBLISHED_RECORDS = {"records": [RECORD]}
BINARY_RECORD = "an image"
STREAM_RECORDS = [{"offset": 0, "value": RECORD}]
END_OFFSETS = {"0": 1}
PLACES = {"topic": VIEW_RID, "offsetAndPartitionIds": [{"offset": 1, "partitionId": 0}]}


# Datasets

DATASET_RID = f"ri.foundry.main.dataset.{_UUID}"
TRANSACTION_RID = f"ri.foundry.main.transaction.{_UUID}"
NEW_DATASET = {"name": "orders", "parentFolderRid": "ri.compass.main.folder.cmemu"}
DATASET = {"rid": DATASET_RID, **NEW_DATASET}
NEW_BRANCH = {"name": "develop", "transactionRid": TRANSACTION_RID}
DATASET_BRANCH = {"name": "master", "transactionRid": TRANSACTION_RID}
NEW_TRANSACTION = {"transactionType": "APPEND"}
OPENED_TRANSACTION = {
    "rid": TRANSACTION_RID,
    "transactionType": "APPEND",
    "status": "OPEN",
    "createdTime": "2026-11-30T16:00:00.000000Z",
}
TRANSACTION = OPENED_TRANSACTION | {"status": "COMMITTED", "closedTime": "2026-11-30T16:00:01.000000Z"}
CSV_FILE = "id,name\n1,one\n"
DATASET_FILE = {
    "path": "orders.csv",
    "transactionRid": TRANSACTION_RID,
    "sizeBytes": "14",
    "updatedTime": "2026-11-30T16:00:00.000000Z",
}
_COLUMNS = {"fieldSchemaList": [{"type": "LONG", "name": "id", "nullable": False}]}
NEW_SCHEMA = {"schema": _COLUMNS, "dataframeReader": "CSV"}
FOUND_SCHEMA = {
    "branchName": "master",
    "endTransactionRid": TRANSACTION_RID,
    "schema": _COLUMNS,
    "versionId": _UUID,
}
SCHEMA_BATCH = [{"datasetRid": DATASET_RID}]
FOUND_SCHEMAS = {"data": {DATASET_RID: FOUND_SCHEMA}}
NEW_SUBSCRIBER = {"subscriberId": "alerts", "readPosition": {"type": "earliest"}}
SUBSCRIBER = {
    **NEW_SUBSCRIBER,
    "datasetRid": STREAM_RID,
    "branchName": "master",
    "viewRid": VIEW_RID,
    "startOffsets": {"0": 0},
    "createdTime": "2026-01-02T03:04:05.000000Z",
}
EXPORTED = {
    "format": "cmemu_nb session",
    "version": 1,
    "url": "http://127.0.0.1:4000",
    "exported_at": _NANOSECONDS + 10**9,
    "steady_at": _NANOSECONDS + 10**9,
    "runtimes": [
        {
            "runtime_id": RUNTIME_ID,
            "module_auth_token": "…DEFG",
            "created_at": _NANOSECONDS,
            "display_name": "My app",
            "connected": True,
            "last_poll_at": _NANOSECONDS + 302_000_000,
            "last_schema_post_at": _NANOSECONDS + 100_000_000,
            "mode": "function",
            "import_error": "",
            "evicted": 0,
            "schemas": [
                {**SCHEMA, "schema_payload": json.dumps(_PAYLOAD), "posted_at": _NANOSECONDS + 100_000_000},
            ],
        }
    ],
    "deployed_apps": [{**_BOUND, "bound_at": _NANOSECONDS}],
    "jobs": [
        {
            "job_id": JOB_ID,
            "sequence": 1,
            "runtime_id": RUNTIME_ID,
            "query_type": FUNCTION,
            "query": json.dumps(QUERY),
            "source": "contour-async",
            "queued_at": _NANOSECONDS + 300_000_000,
            "deployed_app_rid": RID,
            "deployed_app_branch": "master",
            "status": "succeeded",
            "started_at": _NANOSECONDS + 302_000_000,
            "completed_at": _NANOSECONDS + 310_000_000,
            "result": RESULT,
            "result_content_type": "application/json",
            "error_message": None,
            "replica_id": None,
            "ends_with_kernel": False,
            "user_id": None,
            "queue_clock": 1_874_000,
            "run_clock": 8_112_000,
            "streamed": False,
        }
    ],
    "events": [
        {
            "sequence": 1,
            "at": _NANOSECONDS,
            "kind": "session_opened",
            "runtime_id": RUNTIME_ID,
            "job_id": None,
            "detail": None,
        }
    ],
    "logs": {},
    "datasets": [
        {
            "dataset": {"rid": DATASET_RID, "name": "orders", "folder_rid": _FOLDER, "created_at": _NANOSECONDS},
            "branches": [{"name": "master", "transaction_rid": TRANSACTION_RID, "committed_rid": TRANSACTION_RID}],
            "transactions": [
                {
                    "rid": TRANSACTION_RID,
                    "branch": "master",
                    "kind": "APPEND",
                    "created_at": _NANOSECONDS,
                    "parent_rid": None,
                    "status": "COMMITTED",
                    "closed_at": _NANOSECONDS + 10**6,
                }
            ],
            "schemas": [
                {
                    "version_id": _UUID,
                    "branch": "master",
                    "transaction_rid": TRANSACTION_RID,
                    "reader": "CSV",
                    "fields": "W3sidHlwZSI6IkxPTkciLCJuYW1lIjoiaWQiLCJudWxsYWJsZSI6dHJ1ZX1d",
                }
            ],
        }
    ],
    "files": [
        {
            "dataset_rid": DATASET_RID,
            "transaction_rid": TRANSACTION_RID,
            "path": "a/b.csv",
            "updated_at": _NANOSECONDS,
            "body_base64": "aWQKMQo=",
        }
    ],
    "streams": [
        {
            "stream": {
                "rid": STREAM_RID,
                "name": "readings",
                "folder_rid": _FOLDER,
                "branch": "master",
                "view_rid": VIEW_RID,
                "schema": STREAM_SCHEMA,
                "options": {"partitions": 1, "stream_type": "LOW_LATENCY", "compressed": False},
                "created_at": _NANOSECONDS,
            },
            "ends": [1],
            "published": 1,
        }
    ],
    "records": [
        {"rid": STREAM_RID, "branch": "master", "records": [[0, 0, _NANOSECONDS, json.dumps(RECORD)]]},
    ],
    "subscribers": [
        {
            "subscriber_id": "alerts",
            "rid": STREAM_RID,
            "branch": "master",
            "view_rid": VIEW_RID,
            "read_position": NEW_SUBSCRIBER["readPosition"],
            "start": [0],
            "positions": [0],
            "created_at": _NANOSECONDS,
        }
    ],
    "left_out": [],
}
