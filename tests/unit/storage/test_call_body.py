"""A large body is sent in blocks: it arrives as it is, also when it is sent again, and can be stopped."""

import mmap
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stream_app.storage.call_body import BLOCK, CallStopped
from stream_app.storage.s3_client import S3Client, s3_client
from tests.unit.storage.test_s3_client import SETTINGS
from tests.waiting import patient

CONTENT = bytes(range(256)) * (BLOCK // 64) + b"the rest"
"""Five blocks, of which the last one is short."""


def mapped(content: bytes) -> mmap.mmap:
    made = mmap.mmap(-1, len(content))
    made[:] = content
    return made


def put(client: S3Client, body: object) -> None:
    client._execute("PUT", "bucket", "key", body=body)  # type: ignore[arg-type]


class Store(ThreadingHTTPServer):
    """Keeps what it gets, and refuses the first call after it has the body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[tuple[bytes, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Store

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((body, self.headers["Transfer-Encoding"]))
        self.send_response(503 if len(self.server.bodies) == 1 else 200)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"1"')
        self.end_headers()


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *((bytes, size) for size in (7, BLOCK, BLOCK + 1, len(CONTENT))),
        (memoryview, BLOCK + 1),
        *((mapped, size) for size in (7, BLOCK + 1)),
    ],
)
def test_each_try_sends_all_bytes(store: Store, kind: Callable[[bytes], object], size: int) -> None:
    client = s3_client(SETTINGS, f"http://127.0.0.1:{store.server_port}", 1)
    put(client, kind(CONTENT[:size]))
    assert store.bodies == [(CONTENT[:size], None)] * 2


def test_a_slow_call_ends_soon_after_it_was_stopped() -> None:
    """A part of a huge file has a gigabyte: to send it can take longer than users wait for a cancellation."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopped = threading.Event()
        client = s3_client(SETTINGS, f"http://127.0.0.1:{server.getsockname()[1]}", 1)
        errors: list[Exception] = []

        def send() -> None:
            try:
                put(client.with_retries(stopped), bytes(64 * 2**20))
            except Exception as error:
                errors.append(error)

        sending = threading.Thread(target=send)
        sending.start()
        connection, _ = server.accept()
        with connection:
            received = 0
            ends = time.monotonic() + patient(30)
            while sending.is_alive() and time.monotonic() < ends:
                received += len(connection.recv(2**16))
                if received > 2**20:
                    stopped.set()
                time.sleep(0.01)
        sending.join()
    assert [type(error) for error in errors] == [CallStopped]
    assert received < 32 * 2**20
