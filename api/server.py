"""HTTP/1.1 as uvicorn speaks it, with bounds on how slow a client may be and on how many there are."""

import asyncio
import resource
from typing import Any, ClassVar

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.middleware.paths import is_stream

log = structlog.get_logger(__name__)

HEADER_SECONDS = 10.0
"""How long the headers of a request may take to arrive, from the connection or the request's first byte."""

READ_SECONDS = 30.0
"""How long a client may take to read :data:`READ_BYTES` of an answer that is ready for it."""
READ_BYTES = 64 * 1024
"""A client that reads fewer bytes in that time counts as one that does not read."""

OTHER_FILES = 200
"""Files that the process opens besides: libraries, pools, logs."""

BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    b'{"type": "about:blank", "title": "Service Unavailable", "status": 503, '
    b'"detail": "The service has too many connections; try again", "code": "too_many_connections"}\r\n'
)


class BoundedProtocol(H11Protocol):
    """Closes a connection whose headers do not come or whose answer is not read, and refuses one too many.

    Where there are too many, the one that has waited longest for its headers makes room, or one that is
    kept alive for a next request: what is half sent or idle keeps nobody out.

    Event streams are not ended for slow readers: they have bounds of their own.
    """

    limit: ClassVar[int] = 2000
    """Connections at a time; set once, before the server starts."""
    header_seconds: ClassVar[float] = HEADER_SECONDS
    read_seconds: ClassVar[float] = READ_SECONDS
    _waiting: ClassVar[dict["BoundedProtocol", None]] = {}
    """Those whose headers have not come, the oldest first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limit and not self._make_room():
            transport.write(BUSY)
            transport.close()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and self.conn.their_state is h11.IDLE:
            self._wait()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called when the client has not read what was sent."""
        super().pause_writing()
        if not self.scope or not is_stream(self.scope["method"], self.scope["path"]):
            self._watch_reading()

    def resume_writing(self) -> None:
        """Called when the client has read nearly all that was sent."""
        self._stop_watching()
        super().resume_writing()

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._give_up)
        self._waiting[self] = None

    def _stop_waiting(self) -> None:
        self._waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        log.info("connection.timed_out", client=self.client[0] if self.client else None)
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.abort()

    def _watch_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.read_seconds, self._check_reading, left)

    def _stop_watching(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _check_reading(self, before: int) -> None:
        """Go on queue_metrics a client that reads; abort the connection of one that does not."""
        if before - self.transport.get_write_buffer_size() >= READ_BYTES:
            self._watch_reading()
            return
        log.info("answer.timed_out", client=self.client[0] if self.client else None)
        self._unread = None
        self.transport.abort()  # close() would wait until the client has read the rest

    def _make_room(self) -> bool:
        ours = (other for other in self.connections if isinstance(other, BoundedProtocol))
        idle = (other for other in ours if other.timeout_keep_alive_task is not None)
        other = next(iter(self._waiting), None) or next(idle, None)
        if other is None:
            return False
        other._stop_waiting()
        other.transport.abort()
        return True


def allow_many_connections(count: int) -> None:
    """Let this process have ``count`` connections, as far as the system allows: each is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
