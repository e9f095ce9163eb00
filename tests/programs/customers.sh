#!/bin/sh
# Customers of a CRM, without an SDK: curl polls for jobs and posts results, and the credentials are in files.
ask() {
    curl -fsS --cacert "$DEFAULT_CA_PATH" -H "Module-Auth-Token: $(cat "$MODULE_AUTH_TOKEN")" "$@"
}

while :; do
    job=$(ask "$GET_JOB_URI") || exit 1
    [ -n "$job" ] || continue
    id=$(printf %s "$job" | sed 's/.*"jobId":"\([^"]*\)".*/\1/')
    ask --data-binary @- "$POST_RESULT_URI/$id" <<END
{"sources": $(cat "$SOURCE_CREDENTIALS"), "aliases": $(cat "$RESOURCE_ALIAS_MAP"), "client": "$CLIENT_ID", "level": "$LOG_LEVEL"}
END
done
