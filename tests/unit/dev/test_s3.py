"""The client of the local S3 server for tests and benchmarks."""

import io
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dev.s3 import S3Service


class Busy(BaseHTTPRequestHandler):
    """Answers the first call of each method with an internal error."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()

    def do_POST(self) -> None:
        self.answer(b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self, body: bytes = b"") -> None:
        assert isinstance(self.server, Server)
        refused = self.command not in self.server.refused
        self.server.refused.add(self.command)
        self.send_response(500 if refused else 200)
        self.send_header("Content-Length", "0" if refused else str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if refused else body)

    def log_message(self, *_: object) -> None:
        pass


class Server(HTTPServer):
    """The server and the methods that it has refused."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Busy)
        self.refused: set[str] = set()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_calls_are_repeated_after_an_internal_error(server: Server, tmp_path: Path) -> None:
    service = S3Service(tmp_path)
    service.port = server.server_port
    client = service.client()
    client.put_object(bucket_name="bucket", object_name="o", data=io.BytesIO(b"x"), length=1)
    assert client.bucket_exists(bucket_name="bucket")
    assert client._create_multipart_upload("bucket", "o", {}) == "u"
    assert server.refused == {"PUT", "HEAD", "POST"}
