#!/usr/bin/env python3
"""An HTTP handler in Python: counts the words of the payload's text, each task once.

    python3 docs/examples/http_handler.py 8080 &
    redrive worker --http http://127.0.0.1:8080/
    redrive enqueue --payload '{"text": "to be or not to be"}'

Only the standard library is needed. docs/handlers.md has the whole contract.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A task may come twice. A real handler keeps this beside the effect, in the same transaction.
DONE = {}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        if key not in DONE:
            text = task["payload"].get("text") if isinstance(task["payload"], dict) else None
            if not isinstance(text, str):
                # Said in so many words: no retry can help. A plain 400 would leave it to the classifier.
                return self.reply(200, {"dead": {"class": "invalid_request", "exception": "the payload has no text"}})
            DONE[key] = {"words": len(text.split()), "attempt": task["attempt"]}
        return self.reply(200, {"result": DONE[key]})

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
