#!/bin/sh
# A process handler in three steps: a step that an earlier attempt has done is not done again.
#
#   redrive worker --exec 'sh docs/examples/steps.sh'
#   redrive enqueue --payload '{"url": "http://127.0.0.1:8000/page"}'
#
# docs/handlers.md says what a handler may ask of its context. Exit code 75 says: try again later.

# What a step prints is kept, and printed again where the step is done already. Keep it small, or print where it is.
page=$(redrive step fetch --pending count,report -- sh -c '
    url=$(sed -n "s/.*\"url\": *\"\([^\"]*\)\".*/\1/p")
    [ -n "$url" ] || exit 65
    curl --silent --show-error --fail --max-time 30 "$url" || exit 75
') || exit

words=$(printf '%s' "$page" | redrive step count --pending report -- wc -w) || exit

# A worker can vanish after an effect and before its step was saved: whoever has the effect gets a key that is the same in every
# attempt, and does it once.
redrive step report -- sh -c '
    printf "%s has %s words (%s)\n" "$REDRIVE_TASK_ID" "$0" "$REDRIVE_TASK_ID:report"
' "$words" >/dev/null || exit

printf '{"result": {"words": %s}}\n' "$words"
