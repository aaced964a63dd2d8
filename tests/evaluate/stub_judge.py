"""A chat-completions endpoint on this machine, in the place of a judge."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, int], tuple[int, str]]
"""Prompt and number of the request -> status and content of the reply."""


class Stub:
    """A chat-completions endpoint on this machine that answers as the test says."""

    def __init__(self) -> None:
        self.answer: Answer = lambda prompt, number: (200, '{"score": 3}')
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.retry_after: str | None = None
        stub, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    stub.bodies.append(body)
                    stub.headers.append(dict(self.headers))
                    stub.paths.append(self.path)
                    number = len(stub.bodies)
                status, content = stub.answer(body["messages"][0]["content"], number)
                said = content if status == -1 else json.dumps({"choices": [{"message": {"content": content}}]})
                self.send_response(200 if status == -1 else status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                if stub.retry_after is not None:
                    self.send_header("Retry-After", stub.retry_after)
                self.end_headers()
                self.wfile.write(said.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
