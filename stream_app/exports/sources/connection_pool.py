"""The pool of connections to a source: counts its connections, and notes whether the source answers."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from stream_app.database_url import CONNECT_SECONDS
from stream_app.db.engine import keep_alive
from stream_app.exports.sources.errors import (
    DRIVER_ERRORS,
    NoFreeConnection,
    SessionEnded,
    TooManyConnections,
    connection_error,
    is_ended_session,
    is_lost_connection,
)
from stream_app.exports.sources.snapshot import Snapshot, is_closed, terminate
from stream_app.exports.sources.transactions import has_not_crashed_since
from streaming_exporter.errors import Outage

log = structlog.get_logger(__name__)

ACQUIRE_SECONDS = 30.0
"""Time limit for a connection of the pool. If all are in use, the caller waits for one."""

UNAVAILABLE_ACQUIRE_SECONDS = 3.0
"""Time limit for a connection of the pool while the source is unavailable."""


class ConnectionPool:
    """A small pool of connections to one source database.

    Attributes:
        connections: the largest number of connections.
        demand: the number of connections that are in use, and of callers that wait for one.
        starting: the number of transactions that wait for an answer of the server to begin.
    """

    def __init__(self, name: str, connections: int, dsn: Callable[[], str]) -> None:
        """Create the pool without connections.

        Args:
            name: the name of the source.
            connections: the largest number of connections. A pool without connections cannot be used.
            dsn: returns the URL for asyncpg. It is called for each connection, because the password can
                change.
        """
        self._name = name
        self._dsn = dsn
        self.connections = connections
        self.demand = 0
        self.starting = 0
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._is_retired = False
        self._unavailable_since: float | None = None
        self._answered_at = float("-inf")

    @property
    def free_connections(self) -> int:
        """The number of connections that are neither used nor waited for."""
        return max(0, self.connections - self.demand)

    @property
    def is_in_use(self) -> bool:
        """Whether a transaction has a connection."""
        return self._pool is not None and self._pool.get_size() > self._pool.get_idle_size()

    @property
    def unavailable_since(self) -> float | None:
        """Since when connections fail, by :func:`time.monotonic`; ``None`` while they succeed."""
        return self._unavailable_since

    @property
    def silent_seconds(self) -> float:
        """Seconds since a transaction has begun; infinite before the first one."""
        return time.monotonic() - self._answered_at

    def note_outage(self) -> None:
        """Note that the source does not answer."""
        if self._unavailable_since is None:
            self._unavailable_since = time.monotonic()
            log.warning("source.lost", source=self._name)

    def note_answer(self) -> None:
        """Note that a transaction has begun."""
        self._answered_at = time.monotonic()
        if self._unavailable_since is not None:
            seconds = round(self._answered_at - self._unavailable_since, 1)
            log.info("source.found", source=self._name, seconds=seconds)
            self._unavailable_since = None

    async def close(self) -> None:
        """Close the pool without waiting for running statements."""
        if self._pool is not None:
            self._pool.terminate()

    def retire(self) -> None:
        """Close the pool as soon as nothing uses it: the source is not in the datasets file any more.

        An export that runs can still open further connections.
        """
        self._is_retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_retired and not self.demand and self._pool is not None:
            self._pool.terminate()
            self._pool = None

    @contextmanager
    def count_use(self, only_free: bool) -> Iterator[None]:
        """Count a connection for the block.

        Raises:
            NoFreeConnection: ``only_free`` is set, and no connection is free.
        """
        if only_free and not self.free_connections:
            raise NoFreeConnection("source database: all connections of this process are in use")
        self.demand += 1
        try:
            yield
        finally:
            self.demand -= 1
            self._close_if_unused()

    @contextmanager
    def count_start(self) -> Iterator[None]:
        """Count a transaction that cannot begin before the server answers."""
        self.starting += 1
        try:
            yield
        finally:
            self.starting -= 1

    @asynccontextmanager
    async def open(
        self,
        start: Callable[["PoolConnectionProxy[asyncpg.Record]"], Awaitable[Snapshot]],
        *,
        is_optional: bool = False,
    ) -> AsyncIterator[Snapshot]:
        """Call ``start`` with a connection. It begins a transaction, whose snapshot the block uses.

        A connection of the pool can have been lost without a sign, such as in a failover. If so, all idle
        ones are replaced, and the transaction begins on a new one. After an error its connection is closed,
        not used again.

        Raises:
            Outage: the server did not answer before there was a snapshot, or the connection was lost again,
                so it was not the export's statement that ended the session.
            SessionEnded: it was ended later, while the server ran on or with a message of the server.
        """
        pool = await self._pool_of_driver()
        for is_last in (False, True):
            connection = await self._acquire(pool, is_optional)
            began = time.monotonic()
            snapshot: Snapshot | None = None
            try:
                snapshot = await start(connection)
                self.note_answer()
                yield snapshot
                return
            except BaseException as error:
                is_lost = is_lost_connection(error)
                if snapshot is None:
                    is_lost = is_lost or (isinstance(error, DRIVER_ERRORS) and is_closed(connection))
                terminate(connection)
                if snapshot is not None and isinstance(error, DRIVER_ERRORS) and is_ended_session(error):
                    raise _ended(error, began) from error
                is_silent = snapshot is None and isinstance(error, TimeoutError)
                if not is_lost and not is_silent:
                    raise
                if snapshot is not None:
                    if await has_not_crashed_since(snapshot.started_at, self._connect):
                        raise _ended(error, began) from error
                    raise
                if is_last or is_silent:
                    if not is_optional:
                        self.note_outage()
                    raise Outage(f"source database {self._name}: a transaction cannot begin") from error
            finally:
                with suppress(*DRIVER_ERRORS):
                    await pool.release(connection)
            await pool.expire_connections()

    async def _acquire(
        self, pool: "asyncpg.Pool[asyncpg.Record]", is_optional: bool
    ) -> "PoolConnectionProxy[asyncpg.Record]":
        """Return a connection of the pool.

        The source is not unavailable if a connection is refused that is not needed, or because there are too
        many and this process has some of them.

        Raises:
            Outage: no connection is possible.
            Rejected: the server refuses a parameter of the URL.
        """
        # While the source is known to be unavailable, a hanging connection must not keep the caller for long.
        seconds = ACQUIRE_SECONDS if self._unavailable_since is None else UNAVAILABLE_ACQUIRE_SECONDS
        try:
            with self.count_start():
                return await pool.acquire(timeout=seconds)
        except (ValueError, *DRIVER_ERRORS) as error:
            mapped = connection_error(error, self._name)
            is_queued = isinstance(error, TimeoutError) and self.demand > self.connections
            is_full = isinstance(mapped, TooManyConnections) and self.is_in_use
            if isinstance(mapped, Outage) and not (is_optional or is_queued or is_full):
                self.note_outage()
            raise mapped from error

    async def _connect(self, *_: object, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect with the current URL, because its password can change."""
        connection = await asyncpg.connect(self._dsn(), **options)
        keep_alive(connection)
        return connection

    async def _pool_of_driver(self) -> "asyncpg.Pool[asyncpg.Record]":
        """Return the pool. Connections have no settings, see :mod:`stream_app.exports.sources.session`."""
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                connect=self._connect,
                min_size=0,
                max_size=self.connections,
                max_inactive_connection_lifetime=60,
                statement_cache_size=0,
                timeout=CONNECT_SECONDS,
                reset=_reset_nothing,
            )
        return await self._pool


def _ended(error: BaseException, began: float) -> SessionEnded:
    seconds = time.monotonic() - began
    return SessionEnded(f"source database: the session was ended: {error}", seconds=seconds)


async def _reset_nothing(_: object) -> None:
    """Do nothing: all settings of an export end with its transaction."""
