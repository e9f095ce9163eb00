#!/bin/sh
# A module in shell, with curl: `shout` returns the word that it is given in upper case, `count` the number of its calls.
set -eu

ask() { curl --silent --show-error --fail --cacert "$DEFAULT_CA_PATH" -H "Module-Auth-Token: $(cat "$MODULE_AUTH_TOKEN")" "$@"; }
field() { printf '%s' "$2" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

ask -d '[{"functionName": "shout"}, {"functionName": "count"}]' "$POST_SCHEMA_URI"
count=0
while job=$(ask "$GET_JOB_URI"); do
    [ -n "$job" ] || continue
    count=$((count + 1))
    name=$(field queryType "$job")
    echo "call $count: $name"
    case $name in
        shout) result="\"$(field word "$job" | tr '[:lower:]' '[:upper:]')\"" ;;
        count) result=$count ;;
        *) result='{"error": "Unknown query type"}' ;;
    esac
    ask -d "$result" "$POST_RESULT_URI/$(field jobId "$job")"
done
