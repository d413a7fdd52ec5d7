#!/usr/bin/env python3
"""A process handler in steps, in Python: a step that an earlier attempt has done is not done again.

    redrive worker --exec 'python3 docs/examples/steps.py'
    redrive enqueue --payload '{"numbers": [1, 2, 3]}'

Only the standard library is needed. docs/handlers.md has the whole contract.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request


class Context:
    """What the worker lets this attempt ask for; its address is good for as long as the attempt runs."""

    def __init__(self, url):
        self.url = url

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        # No time-out: while the coordinator is away the worker waits, and it ends this process when the lease ends.
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def step(self, name, work):
        """What the step returned, now or in an earlier attempt. It is saved before anything after it runs."""
        path = "/steps/" + urllib.parse.quote(name, safe="")
        try:
            return self._call("GET", path)
        except urllib.error.HTTPError as error:
            if error.code != 404 or json.load(error).get("code") != "unknown_step":
                raise
        state = work()
        self._call("PUT", path, state)
        return state

    def progress(self, name, state):
        """How far a step came that is not done."""
        self._call("PUT", "/steps/" + urllib.parse.quote(name, safe="") + "?completed=false", state)

    def lock(self, *resources, wait_ms=30_000):
        """Takes a lock for this attempt, and returns its token. It is given back when the attempt ends; when it is lost, the
        worker ends this process."""
        return self._call("POST", "/locks", {"exclusive": list(resources), "wait_ms": wait_ms})["token"]


def main():
    task = json.load(sys.stdin)
    context = Context(os.environ["REDRIVE_CONTEXT_URL"])
    try:
        squares = context.step("square", lambda: [n * n for n in task["payload"]["numbers"]])
        total = context.step("add", lambda: sum(squares))
    except urllib.error.URLError as error:  # the attempt is over, or its worker is gone
        print(f"not saved: {error}", file=sys.stderr)
        sys.exit(75)
    json.dump({"result": {"total": total}}, sys.stdout)


if __name__ == "__main__":
    main()
