"""What a store's answers mean: given by a proxy between the service and the real store."""

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from stream_app.doctor.clocks import check_clocks
from stream_app.doctor.findings import State
from stream_app.errors import Outage, Rejected, Retryable
from stream_app.exports.source_errors import source_errors
from stream_app.exports.storage import Storage
from stream_app.jobs.database import create_engine
from stream_app.settings import Settings


class Proxy(ThreadingHTTPServer):
    """Passes on what it gets, or answers by itself: ``status``, ``code``; counts what it refused."""

    daemon_threads = True
    status: int | None = None
    code = ""
    date: str | None = None
    hang_up = False
    refused = 0
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy = self.server
        if self.command in proxy.methods and proxy.hang_up:
            proxy.refused += 1
            self.close_connection = True
            return
        if self.command in proxy.methods and proxy.status is not None:
            proxy.refused += 1
            content = f"<?xml version='1.0'?><Error><Code>{proxy.code}</Code><Message>no</Message></Error>"
            self._answer(proxy.status, [("Content-Type", "application/xml")], content.encode())
            return
        onward = http.client.HTTPConnection(proxy.target, timeout=30)
        onward.request(self.command, self.path, body, dict(self.headers.items()))
        answer = onward.getresponse()
        headers = [
            (name, value)
            for name, value in answer.getheaders()
            if name not in ("Transfer-Encoding", "Connection")
        ]
        self._answer(answer.status, headers, answer.read())
        onward.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name not in ("Content-Length", "Date"):
                self.send_header(name, value)
        self.send_header("Date", self.server.date or self.date_time_string())
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy(settings.s3_endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def behind(proxy: Proxy, settings: Settings, storage: Storage) -> Storage:
    """The bucket, through the proxy."""
    endpoint = f"http://127.0.0.1:{proxy.server_port}"
    return Storage(settings.model_copy(update={"s3_endpoint": endpoint}), patience=2, retries=1)


def put(storage: Storage, size: int = 10) -> str:
    key = f"jobs/{uuid4()}/1/f"
    storage.put(key, iter([b"x" * size]), content_type="text/plain", file_name="f", metadata=dict)
    return key


def test_it_passes_on(behind: Storage, storage: Storage) -> None:
    key = put(behind, 9 * 2**20)
    assert storage.exists(key)
    storage.remove(key)
    assert not behind.exists(key)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (507, "XMinioStorageFull"),
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
        (403, "RequestTimeTooSkewed"),
        (404, "NoSuchBucket"),
    ],
)
@pytest.mark.parametrize("size", [10, 9 * 2**20])
def test_a_store_that_works_for_nobody_is_waited_for(
    behind: Storage, proxy: Proxy, status: int, code: str, size: int
) -> None:
    proxy.status, proxy.code, proxy.methods = status, code, ("PUT", "POST")
    with pytest.raises(Outage, match=code):
        put(behind, size)


@pytest.mark.parametrize(
    ("status", "code"), [(400, "BadDigest"), (400, "InvalidRequest"), (404, "NoSuchUpload")]
)
def test_what_it_refuses_by_itself_counts(behind: Storage, proxy: Proxy, status: int, code: str) -> None:
    proxy.status, proxy.code, proxy.methods = status, code, ("PUT",)
    with pytest.raises(Retryable, match=code) as raised:
        put(behind)
    assert not isinstance(raised.value, Outage)


def test_a_connection_that_breaks(behind: Storage, proxy: Proxy) -> None:
    proxy.hang_up = True
    with pytest.raises(Outage):
        put(behind)
    assert proxy.refused == 4  # the upload and its removal, each tried twice


def test_a_proxy_that_speaks_for_a_dead_store(behind: Storage, proxy: Proxy) -> None:
    """In words that are none of the store's."""
    for code in ("</Error>", "</Code></Error>"):
        proxy.status, proxy.code = 502, code
        with pytest.raises(Outage):
            put(behind)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (asyncpg.AdminShutdownError, Outage),
        (asyncpg.CrashShutdownError, Outage),
        (asyncpg.CannotConnectNowError, Outage),
        (asyncpg.TooManyConnectionsError, Outage),
        (asyncpg.ConnectionDoesNotExistError, Retryable),
        (asyncpg.OutOfMemoryError, Retryable),
        (asyncpg.SerializationError, Retryable),
        (asyncpg.UndefinedTableError, Rejected),
    ],
)
def test_what_the_source_says(error: type[asyncpg.PostgresError], meaning: type[Exception]) -> None:
    """A connection that is lost may have been lost because of the statement, and must not be for ever."""
    with pytest.raises(meaning) as raised, source_errors():
        raise error("said so")
    assert type(raised.value) is meaning


async def test_a_clock_that_is_wrong(behind: Storage, proxy: Proxy, settings: Settings) -> None:
    engine = create_engine(settings, application="test")
    async with engine.connect() as connection:
        right = [finding async for finding in check_clocks(connection, behind)]
        proxy.date = "Tue, 24 Nov 2020 06:00:00 GMT"
        wrong = [finding async for finding in check_clocks(connection, behind)]
    await engine.dispose()
    assert [finding.state for finding in right] == [State.OK, State.OK]
    assert [finding.state for finding in wrong] == [State.OK, State.PROBLEM]
    assert "NTP" in wrong[1].advice
