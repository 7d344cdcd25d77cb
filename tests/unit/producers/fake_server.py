"""A small HTTP server with responses that a test sets."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

NOT_FOUND = {"title": "Not Found", "code": "not_found"}
"""What the API answers for a job that does not exist."""


class FakeServer:
    """A server with given responses.

    ``answers`` maps a path to a list of (status, body, headers). The last one is repeated. ``bodies`` are the
    JSON bodies that calls had.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, list[tuple[int, Any, dict[str, str]]]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[Any] = []

    def add(self, path: str, status: int, body: Any = b"", **headers: str) -> None:
        self.answers.setdefault(path, []).append((status, body, headers))


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    """Run the server during the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            fake.seen.append((self.path, dict(self.headers)))
            if length := int(self.headers.get("Content-Length", 0)):
                fake.bodies.append(json.loads(self.rfile.read(length)))
            waiting = fake.answers.get(self.path) or [(404, NOT_FOUND | {"detail": "nothing"}, {})]
            status, body, headers = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in (
                {"Content-Length": str(len(content)), "Connection": "close"} | headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake = FakeServer(f"http://127.0.0.1:{server.server_address[1]}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
