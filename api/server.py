"""HTTP/1.1 of uvicorn, with limits for slow clients and for the number of connections."""

import asyncio
import resource
from typing import Any, ClassVar

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.middleware.request_limits import ANONYMOUS, STREAM

log = structlog.get_logger(__name__)

HEADER_SECONDS = 10.0
"""Time-out of receiving the headers, from the connection or from the first byte of the request."""

READ_SECONDS = 30.0
"""Time in which a client must read :data:`READ_BYTES` of a waiting response."""
READ_BYTES = 64 * 1024
"""A client that reads fewer bytes in that time is disconnected."""

OTHER_FILES = 200
"""Number of other open files of the process: libraries, connection pools, logs."""

STOP = "stop"
"""Key of the state of the application: a function to call when the server begins to stop."""

BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    b'{"type": "about:blank", "title": "Service Unavailable", "status": 503, '
    b'"detail": "The service has reached its limit of connections. Try again later", '
    b'"code": "too_many_connections"}\r\n'
)


class BoundedProtocol(H11Protocol):
    """Closes connections of slow clients, and refuses connections above the limit.

    At the limit, a new connection replaces the one that has waited longest for its headers, or one in which
    no call runs, or a call without a user that waits for its client. So incomplete requests and idle
    connections keep no other client out.

    A connection always has a time-out, unless a call runs in it whose response is read: the application
    limits the time of calls. Event streams are not closed for slow readers here, because they have their own
    limits.
    """

    limit: ClassVar[int] = 2000
    """Limit of open connections; set once, before the server starts."""
    header_seconds: ClassVar[float] = HEADER_SECONDS
    read_seconds: ClassVar[float] = READ_SECONDS
    _waiting: ClassVar[dict["BoundedProtocol", None]] = {}
    """Connections whose headers, or the rest of an answered request, have not arrived, the oldest first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time-out of the headers. Beyond the limit, close another connection or this one."""
        super().connection_made(transport)
        if len(self.connections) > self.limit and not self._make_room():
            transport.write(BUSY)
            transport.close()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Handle the next bytes of a request, and start or end its time-outs."""
        before = self.conn.their_state
        super().data_received(data)
        if before is h11.SEND_BODY and self.conn.their_state is h11.IDLE:
            self._stop_waiting()  # for the body; the headers of the next request have their own time
        self._watch()

    def on_response_complete(self) -> None:
        """Start the time-out of the next request, or of the rest of this one. Called by the cycle."""
        super().on_response_complete()
        self._watch()

    def eof_received(self) -> None:
        """Start the read timer, because the transport closes as soon as the client has read all data."""
        super().eof_received()
        self._start_read_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection. Called by the keep-alive timer."""
        super().timeout_keep_alive_handler()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time-outs of a connection that is closed."""
        self._stop_waiting()
        self._stop_read_timer()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the waits of calls. Called by the server when it begins to stop."""
        if (stop := self.app_state.get(STOP)) is not None:
            stop()
        super().shutdown()
        self._watch()

    def pause_writing(self) -> None:
        """Start a timer for a client that has not read the sent data. Called by the transport."""
        super().pause_writing()
        if not self._runs() or STREAM not in self.scope.get("state", {}):
            self._start_read_timer()

    def resume_writing(self) -> None:
        """Stop the timer, because the client has read nearly all data. Called by the transport."""
        if not self.transport.is_closing():
            self._stop_read_timer()
        super().resume_writing()

    def _runs(self) -> bool:
        """Return whether the application answers a request of this connection now."""
        return self.cycle is not None and not self.cycle.response_complete

    def _can_be_replaced(self) -> bool:
        """Return whether no call runs here, or a call without a user that waits for its client."""
        if not self._runs():
            return True
        waits = self._unread is not None or self.conn.their_state is h11.SEND_BODY
        return waits and ANONYMOUS in self.scope.get("state", {})

    def _watch(self) -> None:
        """Start the time-outs that the state of the connection needs. Each change of the state calls this.

        A client can send the rest of a body after its answer. Those bytes stop the keep-alive timer of
        uvicorn, and start no call.
        """
        if self.transport.is_closing():
            self._stop_waiting()
            self._start_read_timer()
            return
        if self._runs():
            self._stop_waiting()
            return
        if self.flow.write_paused:
            self._start_read_timer()
        if self._deadline is None and (
            self.timeout_keep_alive_task is None or self.conn.their_state is h11.SEND_BODY
        ):
            self._wait()

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._abort_late)
        self._waiting[self] = None

    def _stop_waiting(self) -> None:
        self._waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _abort_late(self) -> None:
        log.info("connection.timed_out", client=self.client[0] if self.client else None)
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.abort()

    def _start_read_timer(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left == 0 or self._unread is not None:
            return
        self._unread = self.loop.call_later(self.read_seconds, self._check_reading, left)

    def _stop_read_timer(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _check_reading(self, before: int) -> None:
        """Start the timer again for a client that reads. Abort the connection of one that does not."""
        self._unread = None
        left = self.transport.get_write_buffer_size()
        if left == 0 or before - left >= READ_BYTES:
            self._start_read_timer()
            return
        log.info("response.timed_out", client=self.client[0] if self.client else None)
        self.transport.abort()  # close() would wait until the client has read the rest

    def _make_room(self) -> bool:
        ours = (other for other in self.connections if isinstance(other, BoundedProtocol))
        idle = (other for other in ours if other is not self and other._can_be_replaced())
        other = next(iter(self._waiting), None) or next(idle, None)
        if other is None:
            return False
        self.connections.discard(other)  # at once, so that the next new connection does not replace it again
        other._stop_waiting()
        other.transport.abort()
        return True


def allow_many_connections(count: int) -> None:
    """Raise the limit of open files so that ``count`` connections are possible, if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
