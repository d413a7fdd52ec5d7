#!/usr/bin/env python3
"""A process handler in Python: posts the payload's prompt to a model's API and says exactly what it saw.

    redrive worker --exec 'MODEL_URL=http://127.0.0.1:8000/v1/chat/completions python3 docs/examples/handler.py'
    redrive enqueue --payload '{"prompt": "hello"}'

Only the standard library is needed. docs/handlers.md has the whole contract.
"""

import json
import os
import sys
import urllib.error
import urllib.request


def answer(kind, value):
    """Says how the attempt ended: result, failure, snooze_ms, dead or escalate."""
    json.dump({kind: value}, sys.stdout)
    sys.exit(0)


def main():
    task = json.load(sys.stdin)
    payload = task["payload"]
    if not isinstance(payload, dict) or "prompt" not in payload:
        answer("dead", {"class": "invalid_request", "exception": "the payload has no prompt"})

    request = urllib.request.Request(
        os.environ["MODEL_URL"],
        data=json.dumps({"messages": [{"role": "user", "content": payload["prompt"]}]}).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": task["id"]},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            reply = json.load(response)
    except urllib.error.HTTPError as error:
        # The response as it came: status, headers (they may carry Retry-After) and body. Redrive classifies it.
        body = error.read(64 * 1024).decode(errors="replace")
        answer("failure", {"http_status": error.code, "headers": dict(error.headers), "body": body})
    except Exception as error:  # refused, reset, timed out, cut off, not JSON
        answer("failure", {"exception": f"{type(error).__name__}: {error}"})

    choice = reply["choices"][0]
    if choice.get("finish_reason") not in (None, "stop", "tool_calls"):
        answer("failure", {"finish_reason": choice["finish_reason"]})
    answer("result", {"text": choice["message"]["content"]})


if __name__ == "__main__":
    main()
