"""Connections to a real server: late headers, too many connections, two lengths, addresses."""

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import httpx2
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from api.app import create_app
from api.middleware.request_limits import STREAM
from api.server import BoundedProtocol
from dev.process import free_ports
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.waiting import WITHIN, patient, until

AWAY = {
    "EXPORTER_DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
    "EXPORTER_SOURCE_DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
    "EXPORTER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "EXPORTER_LOG_FORMAT": "json",
}


PARTS, PART = 200, 64 * 1024
"""A response that is larger than the system's buffers for a client that does not read."""


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    if scope["path"] != "/":
        if scope["path"].endswith("/events"):
            scope["state"][STREAM] = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(PARTS):
            await send({"type": "http.response.body", "body": b"x" * PART, "more_body": number < PARTS - 1})
        ANSWERED.set()
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


ANSWERED = threading.Event()
"""Set when the application has sent a large response."""


class Small(BoundedProtocol):
    """A protocol with few connections and short time-outs."""

    limit = 5
    header_seconds = 0.5
    read_seconds = 0.5


IDLE_SECONDS = 30

PAUSES, PAUSE = 12, 0.15
"""How often, and for how many seconds, a slow reader reads nothing."""


class Slow(Small):
    """A protocol that expects much less of a reader, as on a busy machine, but less than all its pauses."""

    read_seconds = 1.0


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run a separate server in a thread; yield its port. Its protocol is :class:`Small` or the parameter."""
    protocol = getattr(request, "param", Small)
    with serving(hello, protocol, lifespan="off") as (port, _):
        yield port


@contextlib.contextmanager
def serving(
    app: ASGIApp, protocol: type[BoundedProtocol], lifespan: Literal["on", "off"]
) -> Iterator[tuple[int, uvicorn.Server]]:
    """Run a server in a thread, with small send buffers; yield its port and the server."""
    config = uvicorn.Config(
        app, port=0, http=protocol, lifespan=lifespan, log_config=None, timeout_keep_alive=IDLE_SECONDS
    )
    running = uvicorn.Server(config)
    listening = config.bind_socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[listening])))
    thread.start()
    while not running.started:
        thread.join(0.02)
        assert thread.is_alive()
    yield listening.getsockname()[1], running
    running.should_exit = running.force_exit = True
    thread.join(patient(WITHIN))
    assert not thread.is_alive()
    listening.close()


def begun(port: int, text: bytes = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=patient(WITHIN))
    connection.sendall(text)
    return connection


def get(url: str) -> httpx2.Response:
    return httpx2.get(url, timeout=patient(WITHIN))


def answer(connection: socket.socket) -> bytes:
    """Return all data until the server closes the connection; nothing if the connection is reset."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            found += part
    return found


@pytest.mark.parametrize("text", [b"", b"G", b"GET / HTTP/1.1\r\n"])
def test_a_connection_without_headers_is_closed(server: int, text: bytes) -> None:
    """S11"""
    began = time.monotonic()
    with begun(server, text) as connection:
        assert answer(connection) == b""
    assert 0.3 < time.monotonic() - began < IDLE_SECONDS - 5


def test_a_connection_without_headers_of_a_second_request_is_closed(server: int) -> None:
    with begun(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow:")
        assert b"HTTP/1.1" not in answer(connection)
    assert time.monotonic() - began < IDLE_SECONDS - 5, "it is not closed for being idle"


def test_a_connection_with_slow_headers_is_closed(server: int) -> None:
    sent = 0
    with begun(server) as connection, contextlib.suppress(ConnectionError):
        for _ in range(100):
            connection.sendall(b"x")
            sent += 1
            time.sleep(0.05)
    assert sent < 100


def test_incomplete_requests_and_idle_connections_block_no_other_client(server: int) -> None:
    with contextlib.ExitStack() as stack:
        for text in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] * 5 + [b"GET / HT"] * 15:
            stack.enter_context(begun(server, text))
        for _ in range(8):
            assert get(f"http://127.0.0.1:{server}/").text == "ok"


def test_a_client_that_does_not_read_is_disconnected(server: int) -> None:
    """The connection is aborted, and the rest of the response is not sent."""
    ANSWERED.clear()
    with begun(server, b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        assert ANSWERED.wait(patient(WITHIN))
        assert len(answer(connection)) < PARTS * PART


@pytest.mark.parametrize("server", [Slow], indirect=True)
def test_a_slow_reader_gets_the_whole_response(server: int) -> None:
    assert Slow.read_seconds < PAUSES * PAUSE
    with begun(server, b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as connection:
        read = len(connection.recv(PART))
        for _ in range(PAUSES):
            time.sleep(PAUSE)
            for _ in range(10):
                read += len(connection.recv(PART))
        read += len(answer(connection))
    assert read > PARTS * PART


def test_a_stream_continues_after_a_pause_of_its_reader(server: int) -> None:
    ANSWERED.clear()
    with begun(server, b"GET /exports/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as connection:
        assert not ANSWERED.wait(1.5)
        assert len(answer(connection)) > PARTS * PART


TARGETS = ("/healthz", "/exports/jobs/events", "/nothing")
"""A path without a token, an event stream, which refuses a missing token, and a path that does not exist."""
METHODS = ("GET", "HEAD", "POST")

HALF_A_BODY = ("Content-Length: 10\r\n", "x")
NO_LAST_CHUNK = ("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n")


class Anonymous(BoundedProtocol):
    """A protocol whose connections are all taken by the attack of :func:`attacks`."""

    limit = len(TARGETS) * len(METHODS)
    header_seconds = 3.0
    read_seconds = 3.0


@contextlib.contextmanager
def attacks(port: int, header: str, first: str, again: str, times: int) -> Iterator[None]:
    """Send each request ``times`` times over its own connection, then ``again``. Read one byte only."""
    with contextlib.ExitStack() as stack:
        for target, method in product(TARGETS, METHODS):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(patient(WITHIN))
            connection.connect(("127.0.0.1", port))
            request = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{header}\r\n{first}"
            connection.sendall(request.encode() * times)
            assert connection.recv(1) == b"H"
            with contextlib.suppress(ConnectionError):
                connection.sendall(again.encode())
        yield


def _is_paused(connection: object) -> bool:
    assert isinstance(connection, BoundedProtocol)
    return connection.flow.write_paused


@pytest.mark.parametrize(
    ("header", "first", "again", "times"),
    [
        (HALF_A_BODY[0], "", HALF_A_BODY[1], 1),
        (NO_LAST_CHUNK[0], "", NO_LAST_CHUNK[1], 1),
        (HALF_A_BODY[0], "", "x" * 10, 1),
        ("", "", "", 1000),
    ],
    ids=["half a body", "no last chunk", "late body", "unread"],
)
def test_no_connection_without_a_token_is_open_for_ever(
    header: str, first: str, again: str, times: int
) -> None:
    """S11: it is closed within a time, and until then a connection of another client can replace it."""
    settings = Settings.model_validate({name.removeprefix("EXPORTER_").lower(): AWAY[name] for name in AWAY})
    with (
        serving(create_app(settings), Anonymous, lifespan="on") as (port, running),
        attacks(port, header, first, again, times),
    ):
        if times > 1:
            until(lambda: all(_is_paused(item) for item in set(running.server_state.connections)))
        for _ in range(3):
            assert get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        until(lambda: not running.server_state.connections, within=Anonymous.header_seconds * 4)


CONNECTIONS = 3


@dataclass(frozen=True)
class Served:
    """The API as a process, with all other parts unavailable: its address, its metrics port and its log."""

    url: str
    metrics_port: int
    log: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The API as a process with few connections."""
    log = tmp_path_factory.mktemp("api") / "api.log"
    (port,) = free_ports(1)
    settings = {
        "EXPORTER_TRUSTED_PROXIES": "127.0.0.2",
        "EXPORTER_API_CONNECTION_LIMIT": str(CONNECTIONS),
        "EXPORTER_METRICS_PORT": str(port),
    }
    with api_process(log, settings) as url:
        yield Served(url, port, log)


@contextlib.contextmanager
def api_process(log: Path, settings: dict[str, str]) -> Iterator[str]:
    """Run the API as a process, with all other parts unavailable; yield its address."""
    env = os.environ | AWAY | settings
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "api", "--port", "0"], stderr=file, env=env)
    try:
        while not (found := re.search(r"running on (http://[\d.:]+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield found[1]
    finally:
        process.terminate()
        process.wait(patient(30))


@pytest.mark.parametrize(
    ("lengths", "status"),
    [
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 2", 400),
        (b"Content-Length: 2\r\nContent-Length: 3", 400),
        (b"Content-Length: +2", 400),
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Transfer-Encoding: identity", 501),
    ],
)
def test_two_lengths_end_the_connection(served: Served, lengths: bytes, status: int) -> None:
    """S17: the following bytes are never read as a request."""
    port = int(served.url.rpartition(":")[2])
    token = sign_token(Settings(_env_file=None), "ada").encode()
    request = b"POST /exports/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n%b\r\n\r\n" % (
        token,
        lengths,
    )
    with begun(port, request + b"2\r\n{}\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        said = answer(connection)
    assert int(said.split()[1]) in (status, 400)
    assert said.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(("proxy", "address"), [("127.0.0.2", "203.0.113.7"), ("127.0.0.3", "127.0.0.3")])
def test_only_a_trusted_proxy_can_set_the_client_address(served: Served, proxy: str, address: str) -> None:
    """S8: a client cannot choose the address that is logged for it."""
    url, log = served.url, served.log
    transport = httpx2.HTTPTransport(local_address=proxy)
    with httpx2.Client(transport=transport, timeout=patient(WITHIN)) as client:
        headers = {"X-Forwarded-For": "203.0.113.7", "X-Request-ID": f"from-{proxy}"}
        assert client.get(f"{url}/exports/jobs", headers=headers).status_code == 401
    lines = [line for line in log.read_text().splitlines() if f"from-{proxy}" in line]
    assert len([line for line in lines if "call.audited" in line and f'"client": "{address}"' in line]) == 1


def test_open_calls_cannot_make_the_api_look_dead(served: Served) -> None:
    """A restart would send all streams to the next API. So the metrics port answers the liveness probe."""
    url, port = served.url, served.metrics_port
    with contextlib.ExitStack() as stack:
        token = sign_token(Settings(_env_file=None), "ada").encode()
        for _ in range(CONNECTIONS):
            head = b"POST /exports/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % token
            expecting = head + b"Content-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue"
            connection = stack.enter_context(begun(int(url.rpartition(":")[2]), expecting + b"\r\n\r\n"))
            # A connection whose call has not begun can be replaced. So wait until the call reads its body.
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
            connection.sendall(b"{")
        until(lambda: is_busy(url))
        answered = get(f"http://127.0.0.1:{port}/healthz")
        wrong = get(f"http://127.0.0.1:{port}/readyz?needs=databse")
    until(lambda: not is_busy(url))  # for other tests
    assert (answered.status_code, answered.json()) == (200, {"status": "ok"})
    assert wrong.status_code == 422


def is_busy(url: str) -> bool:
    try:
        return get(f"{url}/healthz").status_code == 503
    except (httpx2.NetworkError, httpx2.RemoteProtocolError):
        return True  # the connection was closed before its request was read
