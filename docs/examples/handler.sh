#!/bin/sh
# A process handler in shell: fetches the URL that the payload names, and returns how large it is. (What was fetched is not
# printed as it is: it could look like an answer.)
#
#   redrive worker --exec 'sh docs/examples/handler.sh'
#   redrive enqueue --payload '{"url": "http://127.0.0.1:8000/page"}'
#
# Standard input is the task as one line of JSON. docs/handlers.md has the whole contract.

task=$(cat)

# Good enough for a URL; use jq for anything with quotes in it.
url=$(printf '%s' "$task" | sed -n 's/.*"url": *"\([^"]*\)".*/\1/p')
if [ -z "$url" ]; then
    echo "the payload has no url" >&2
    exit 65 # EX_DATAERR: no retry can help; the task goes to the dead letters
fi

body=$(mktemp) || exit 75 # EX_TEMPFAIL: try again later
trap 'rm -f "$body"' EXIT

# What curl prints on standard error (refused, timed out …) tells the classifier what kind of failure it was.
status=$(curl --silent --show-error --max-time 30 --output "$body" --write-out '%{http_code}' \
    --header "Idempotency-Key: $REDRIVE_TASK_ID" "$url") || exit 75

case $status in
2*) printf '{"result": {"status": %s, "bytes": %s}}\n' "$status" "$(wc -c <"$body")" ;;
*) printf '{"failure": {"http_status": %s}}\n' "$status" ;;
esac
