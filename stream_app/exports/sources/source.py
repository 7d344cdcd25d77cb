"""The pool of connections to a source database, and how a transaction with a snapshot begins on one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from stream_app.database_url import CONNECT_SECONDS
from stream_app.datasets.models import DEFAULT_SOURCE, Dataset
from stream_app.db.engine import keep_alive
from stream_app.exports.masks.base import HASH_KEYS
from stream_app.exports.masks.hash_keys import hash_keys
from stream_app.exports.sources.errors import (
    DRIVER_ERRORS,
    NoFreeConnection,
    SnapshotLost,
    TableLocked,
    TooManyConnections,
    connection_error,
    is_lost_connection,
    is_lost_snapshot,
    source_errors,
)
from stream_app.exports.sources.session import IDLE_LIMIT, SET_VALUES, begin_script
from stream_app.exports.sources.snapshot import (
    FETCH_SECONDS,
    GRACE_SECONDS,
    Snapshot,
    is_closed,
    terminate,
)
from stream_app.exports.sources.transactions import BEGIN_SECONDS, begun, has_not_crashed_since, joined
from stream_app.settings import Settings
from streaming_exporter.errors import Outage

log = structlog.get_logger(__name__)

SHARED_LOCK_SECONDS = 10.0
"""Limit of a wait for a lock with a shared snapshot. A session that waits to change the table has to wait for
the transaction that exported the snapshot, which waits for those that share it: all would wait for ever."""

ACQUIRE_SECONDS = 30.0
"""Time limit for a connection of the pool. If all are in use, the caller waits for one."""

AWAY_SECONDS = 3.0
"""The same while the source is away."""

JOIN_SECONDS = 3.0
"""Time limit for the begin of a transaction that is not needed: it must not stand before others in a
pooler's queue."""


class Source:
    """A small pool of connections to one source database, for read-only transactions.

    Attributes:
        name: the name of the source in the datasets file.
        connections: the largest number of connections of the pool.
        export_limit: how many exports can use the pool at a time; ``None`` means no limit of its own.
        wanted: the number of connections that are in use, and of callers that wait for one.
        starting: the number of transactions that wait for an answer of the server to begin.
        can_share_snapshots: whether transactions can share a snapshot; ``False`` once the server refused it.
        estimating: allows one estimate at a time; one that waits for a lock blocks the others.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connections: int,
        name: str = DEFAULT_SOURCE,
        dsn: Callable[[], str] | None = None,
        export_limit: int | None = None,
    ) -> None:
        """Create the pool without connections.

        Args:
            settings: has the time limit of exports, and the URL of the default source.
            connections: the largest number of connections. A pool without connections cannot be used.
            name: the name of the source.
            dsn: returns the URL for asyncpg. It is called for each connection, because the password can
                change. The default is the URL of the default source.
            export_limit: how many exports can use the pool at a time.
        """
        self._settings = settings
        self._dsn = dsn or (lambda: settings.source_dsn)
        self.name = name
        self.connections = connections
        self.export_limit = export_limit
        self.can_share_snapshots = True
        self.estimating = asyncio.Semaphore(1)
        self.wanted = 0
        self.starting = 0
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._is_retired = False
        self._away_since: float | None = None
        self._answered_at = float("-inf")

    def of(self, dataset: Dataset) -> "Source":
        """Return this source: it has all datasets where there is no other."""
        return self

    def each(self) -> tuple["Source", ...]:
        """Return this source."""
        return (self,)

    @property
    def export_seconds(self) -> float:
        """The time limit of an export, in seconds."""
        return self._settings.export_timeout_seconds

    @property
    def free_connections(self) -> int:
        """The number of connections that are neither used nor waited for."""
        return max(0, self.connections - self.wanted)

    @property
    def away_since(self) -> float | None:
        """When a connection was not possible, by :func:`time.monotonic`; ``None`` if one was since."""
        return self._away_since

    @property
    def silent_seconds(self) -> float:
        """Seconds since a transaction has begun; infinite before the first one."""
        return time.monotonic() - self._answered_at

    async def check(self, seconds: float) -> None:
        """Begin a transaction within ``seconds``.

        Raises:
            NoFreeConnection: exports use all connections, of the pool or of the server, so nothing can be
                checked.
            Retryable: the database does not answer.
            Rejected: it refuses the service.
        """
        try:
            async with (
                asyncio.timeout(seconds),
                self._transaction("exporter check", seconds, only_free=True),
            ):
                pass
        except TimeoutError as error:
            self._failed()
            raise Outage(f"source database {self.name}: no answer within {seconds:g} s") from error
        except TooManyConnections as error:
            if not self._is_in_use:
                raise
            raise NoFreeConnection(str(error)) from error

    @property
    def _is_in_use(self) -> bool:
        """Whether a transaction has a connection."""
        return self._pool is not None and self._pool.get_size() > self._pool.get_idle_size()

    def _failed(self) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("source.lost", source=self.name)

    def _answered(self) -> None:
        self._answered_at = time.monotonic()
        if self._away_since is not None:
            log.info("source.found", source=self.name, seconds=round(self._answered_at - self._away_since, 1))
            self._away_since = None

    async def fetch(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        """Return the rows of a small query. Names without a schema use the role's own search path.

        Raises:
            Retryable: the database cannot be reached.
            Rejected: the database refused the query.
        """
        async with self._transaction("exporter catalog", FETCH_SECONDS) as snapshot:
            rows: list[asyncpg.Record] = await snapshot.connection.fetch(
                sql, *values, timeout=snapshot.timeout
            )
            return rows

    @asynccontextmanager
    async def snapshot(
        self,
        name: str,
        *,
        search_path: Sequence[str] | None = None,
        seconds: float | None = None,
        lock_seconds: float = 0,
        initial_sql: str | None = None,
        shared: str | None = None,
        only_free: bool = False,
        indexes_only: bool = False,
        session: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Snapshot]:
        """Open a snapshot for the block.

        Args:
            name: the ``application_name`` of the session.
            search_path: schemas for names without one (default: the role's own search path).
            seconds: limit of each statement (default: the time limit of an export).
            lock_seconds: limit of each wait for a lock; 0 means no limit.
            initial_sql: an expression whose value is read at the start, without another round trip.
            shared: the snapshot to open, as :meth:`Snapshot.export` returned it. ``as_of`` is that of the
                transaction that has exported it; here it is the start of this transaction. Its limit of a
                wait for a lock is :data:`SHARED_LOCK_SECONDS` if ``lock_seconds`` is 0.
            only_free: whether to fail at once if no connection of the pool is free, and soon if a pooler has
                none. A caller that holds a connection must not wait for a second one.
            indexes_only: whether one range of the rows is read: its statement is planned as the range was
                checked, see :data:`~stream_app.exports.sources.session.INDEXES_ONLY`. With a shared snapshot
                it always is.
            session: settings of the transaction besides its usual ones, such as those that row-level security
                depends on. They are bound parameters: no text of a statement has their values. The value of
                :data:`~stream_app.exports.masks.base.HASH_KEYS` is set here, whatever it is.

        Raises:
            SnapshotLost: the transaction with the shared snapshot has ended.
            TableLocked: a wait for a lock with a shared snapshot was longer than its limit.
            NoFreeConnection: no connection is free.
            Retryable: the database failed temporarily.
            Rejected: the database refused the statement (permission, missing table, bad value, time limit).
        """
        seconds = seconds or self._settings.export_timeout_seconds
        if shared is not None:
            lock_seconds = lock_seconds or SHARED_LOCK_SECONDS
        async with self._transaction(
            name,
            seconds,
            search_path=search_path,
            lock_seconds=lock_seconds,
            initial_sql=initial_sql,
            shared=shared,
            only_free=only_free,
            indexes_only=indexes_only,
            session=session,
        ) as snapshot:
            yield snapshot

    async def switch(
        self,
        snapshot: Snapshot,
        *,
        search_path: Sequence[str],
        session: Mapping[str, str],
        others: Collection[str],
        seconds: float,
    ) -> None:
        """Prepare an open snapshot for the rows of another dataset.

        Args:
            snapshot: one that this source has opened.
            search_path: schemas for names without one.
            session: settings of the transaction, see :meth:`snapshot`.
            others: names of settings of other datasets in this transaction: they become empty, as they are
                on a connection whose last transaction has set them.
            seconds: limit of each statement from now on, and of the pause between two of them.
        """
        kept = {name.casefold() for name in session}  # names that differ in capital letters are one setting
        values = {name: "" for name in others if name.casefold() not in kept}
        values |= self._values(session)
        limits = {"statement_timeout": f"{seconds * 1000:.0f}", IDLE_LIMIT: f"{max(seconds, 1):.0f}s"}
        values = {**limits, **values}
        await snapshot.connection.execute(
            SET_VALUES, list(values), list(values.values()), timeout=BEGIN_SECONDS
        )
        await snapshot.set_search_path(search_path)

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
        if self._is_retired and not self.wanted and self._pool is not None:
            self._pool.terminate()
            self._pool = None

    @asynccontextmanager
    async def _transaction(
        self,
        name: str,
        seconds: float,
        *,
        search_path: Sequence[str] | None = None,
        lock_seconds: float = 0,
        initial_sql: str | None = None,
        shared: str | None = None,
        only_free: bool = False,
        indexes_only: bool = False,
        session: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Snapshot]:
        """Open a transaction for the block. After an error its connection is closed, not used again."""
        started = time.monotonic()
        values = self._values(session or {})
        script = begin_script(
            name,
            statement_seconds=seconds,
            lock_seconds=lock_seconds,
            search_path=search_path,
            shared_snapshot=None if shared is None else shared.partition(" ")[0],
            indexes_only=indexes_only,
        )
        with (
            self._counted(only_free),
            source_errors(lambda: time.monotonic() - started >= seconds),
        ):
            pool = await self._open()
            # The server enforces the limit. The client's longer limit is for a server that is gone.
            timeout = seconds + GRACE_SECONDS
            is_optional = shared is not None and only_free

            async def begin(connection: "PoolConnectionProxy[asyncpg.Record]") -> Snapshot:
                await self._begin(connection, script, is_shared=shared is not None, is_optional=is_optional)
                if shared is None:
                    return await begun(connection, script, timeout, initial_sql, values)
                return await joined(connection, timeout, initial_sql, values, shared)

            try:
                async with self._begun(pool, begin, is_optional=is_optional) as snapshot:
                    self._answered()
                    yield snapshot
                    await snapshot.end()
            except asyncpg.LockNotAvailableError as error:
                if shared is None:
                    raise
                raise TableLocked(f"source database: {error}") from error

    @asynccontextmanager
    async def _begun(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        begin: Callable[["PoolConnectionProxy[asyncpg.Record]"], Awaitable[Snapshot]],
        *,
        is_optional: bool = False,
    ) -> AsyncIterator[Snapshot]:
        """Begin a transaction on a connection of the pool, which the block uses.

        A connection of the pool can have been lost without a sign, such as in a failover. If so, all idle
        ones are replaced, and the transaction begins on a new one.

        Raises:
            Outage: the server did not answer before there was a snapshot, or the connection was lost again,
                so it was not the export's statement that ended the session; or it was lost later while the
                server ran on.
        """
        for is_last in (False, True):
            connection = await self._acquire(pool, is_optional)
            snapshot: Snapshot | None = None
            try:
                snapshot = await begin(connection)
                yield snapshot
                return
            except BaseException as error:
                is_lost = is_lost_connection(error)
                if snapshot is None:
                    is_lost = is_lost or (isinstance(error, DRIVER_ERRORS) and is_closed(connection))
                terminate(connection)
                is_silent = snapshot is None and isinstance(error, TimeoutError)
                if not is_lost and not is_silent:
                    raise
                if snapshot is not None:
                    if await has_not_crashed_since(snapshot.started_at, self._connect):
                        raise Outage(f"source database: the session was ended: {error}") from error
                    raise
                if is_last or is_silent:
                    if not is_optional:
                        self._failed()
                    raise Outage(f"source database {self.name}: a transaction cannot begin") from error
            finally:
                with suppress(*DRIVER_ERRORS):
                    await pool.release(connection)
            await pool.expire_connections()

    def _values(self, session: Mapping[str, str]) -> Mapping[str, str]:
        """Return ``session`` with the keys of hashes, if it needs them."""
        return {**session, HASH_KEYS: hash_keys(self._settings)} if HASH_KEYS in session else session

    @contextmanager
    def _counted(self, only_free: bool) -> Iterator[None]:
        """Count a connection for the block."""
        if only_free and not self.free_connections:
            raise NoFreeConnection("source database: all connections of this process are in use")
        self.wanted += 1
        try:
            yield
        finally:
            self.wanted -= 1
            self._close_if_unused()

    async def _connect(self, *_: object, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect with the current URL, because its password can change."""
        connection = await asyncpg.connect(self._dsn(), **options)
        keep_alive(connection)
        return connection

    async def _acquire(
        self, pool: "asyncpg.Pool[asyncpg.Record]", is_optional: bool
    ) -> "PoolConnectionProxy[asyncpg.Record]":
        """Return a connection of the pool.

        The source is not away if a connection is refused that is not needed, or because there are too many
        and this process has some of them.

        Raises:
            Outage: no connection is possible.
            Rejected: the server refuses a parameter of the URL.
        """
        # While the source is known to be away, a hanging connection must not keep the caller for long.
        seconds = ACQUIRE_SECONDS if self._away_since is None else AWAY_SECONDS
        try:
            with self._starting():
                return await pool.acquire(timeout=seconds)
        except (ValueError, *DRIVER_ERRORS) as error:
            found = connection_error(error, self.name)
            is_queued = isinstance(error, TimeoutError) and self.wanted > self.connections
            is_full = isinstance(found, TooManyConnections) and self._is_in_use
            if isinstance(found, Outage) and not (is_optional or is_queued or is_full):
                self._failed()
            raise found from error

    async def _begin(
        self,
        connection: "PoolConnectionProxy[asyncpg.Record]",
        script: str,
        *,
        is_shared: bool,
        is_optional: bool,
    ) -> None:
        """Begin a transaction.

        Raises:
            SnapshotLost: the transaction whose snapshot it shares has ended.
        """
        try:
            with self._starting():
                seconds = JOIN_SECONDS if is_optional else BEGIN_SECONDS
                await connection.execute(script, timeout=seconds)
        except asyncpg.PostgresError as error:
            if is_shared and is_lost_snapshot(error):
                raise SnapshotLost(f"source database: {error}") from error
            raise

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Count a transaction that cannot begin before the server answers."""
        self.starting += 1
        try:
            yield
        finally:
            self.starting -= 1

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
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


async def _reset_nothing(_: object) -> None:
    """Do nothing: all settings of an export end with its transaction."""
