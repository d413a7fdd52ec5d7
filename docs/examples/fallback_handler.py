#!/usr/bin/env python3
"""A process handler that knows several models: it calls the one that its task is routed to, and says what that cost.

    redrive queues create writing --policy '{"fallbacks": {"anthropic/main/opus": ["anthropic/main/sonnet"]}}'
    export ENDPOINTS='{"anthropic/main/opus": "http://127.0.0.1:8000/", "anthropic/main/sonnet": "http://127.0.0.1:8001/"}'
    redrive worker --queues writing --exec 'python3 docs/examples/fallback_handler.py'
    redrive enqueue --queue writing --dependency anthropic/main/opus --max-cost-usd 2 --payload '{"prompt": "hello"}'

Only the standard library is needed. docs/fallbacks.md says when a task takes the next route.
"""

import json
import os
import sys
import urllib.error
import urllib.request

USD_PER_TOKEN = 0.0005


def answer(kind, value, cost_usd=0.0):
    """Says how the attempt ended, and what it cost."""
    json.dump({kind: value, "cost_usd": cost_usd}, sys.stdout)
    sys.exit(0)


def main():
    task = json.load(sys.stdin)
    # The dependency is that of the task's route, not the one that it was enqueued with.
    model = task["dependency"]
    request = urllib.request.Request(
        json.loads(os.environ["ENDPOINTS"])[model],
        data=json.dumps({"model": model, "messages": [{"role": "user", "content": task["payload"]["prompt"]}]}).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": task["id"]},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            reply = json.load(response)
    except urllib.error.HTTPError as error:
        body = error.read(64 * 1024).decode(errors="replace")
        # Providers bill what a failed request read. Had tools been called already, "in_transaction": true would keep
        # the task on this model.
        answer("failure", {"http_status": error.code, "headers": dict(error.headers), "body": body}, 0.25)
    except Exception as error:  # refused, reset, timed out, cut off, not JSON
        answer("failure", {"exception": f"{type(error).__name__}: {error}"})
    cost_usd = reply["usage"]["total_tokens"] * USD_PER_TOKEN
    answer("result", {"model": model, "text": reply["choices"][0]["message"]["content"]}, cost_usd)


if __name__ == "__main__":
    main()
