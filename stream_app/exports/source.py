"""The source database: read-only transactions, one consistent snapshot for each export."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from stream_app.database_url import CONNECT_SECONDS
from stream_app.db.engine import keep_alive
from stream_app.exports.columns import quote_text
from stream_app.exports.message_too_long import MessageTooLong
from stream_app.exports.query_plan import QueryPlan
from stream_app.exports.size_limits import DEFAULT_MAX_ROW_BYTES, MessageLimit
from stream_app.exports.source_errors import (
    DRIVER_ERRORS,
    NoFreeConnection,
    SnapshotLost,
    SnapshotNotShared,
    TableLocked,
    connection_error,
    is_lost_connection,
    is_lost_snapshot,
    is_temporary,
    source_errors,
)
from stream_app.exports.source_session import (
    INDEXES_ONLY,
    REPLAY_TIME_QUERY,
    begin_script,
    parse_replay_time,
    shared_settings,
)
from stream_app.settings import Settings
from streaming_exporter.errors import Outage, Rejected

OLDEST_POSTGRES = 12
"""The oldest supported major version of PostgreSQL."""

CHUNK_BYTES = 256 * 2**10
"""Bytes that are joined to one chunk, because passing a chunk to another thread is expensive."""

SMALL_MESSAGE = 64 * 2**10
"""After a message smaller than this the client waits for more: PostgreSQL sends 8 KiB at a time, and to read
each of them at once costs more than all later work on it."""

PAUSE = 0.002
"""Seconds of that wait. It costs no time, because the socket's buffer holds far more."""

_CRASHED_SINCE = """
SELECT GREATEST(pg_catalog.pg_postmaster_start_time(), (SELECT stats_reset FROM pg_catalog.pg_stat_bgwriter))
       > '{began}'::pg_catalog.timestamptz
"""

CRASH_CHECK_SECONDS = 2.0
"""Time limit for the question whether the server has crashed since a connection was lost."""

SHARED_LOCK_SECONDS = 10.0
"""Limit of a wait for a lock with a shared snapshot. A session that waits to change the table has to wait for
the transaction that exported the snapshot, which waits for those that share it: none would go on."""

FETCH_SECONDS = 30.0
"""Time limit of a small query."""

BEGIN_SECONDS = 30.0
"""Time limit for the begin of a transaction. A pooler can let it wait for a connection to the server."""

JOIN_SECONDS = 3.0
"""The same for a transaction that is not needed. It must not stand before needed ones in a pooler's queue."""

GRACE_SECONDS = 30
"""The client waits longer for a statement than the server's time limit: for a server that is gone."""

_SERVER_FACTS = """
SELECT pg_catalog.transaction_timestamp(), pg_catalog.current_setting('server_version_num'),
       pg_catalog.pg_is_in_recovery()"""

_CHECK = """pg_catalog.hashtextextended(pg_catalog.concat(
    pg_catalog.pg_postmaster_start_time(), pg_catalog.txid_current_snapshot()
), 0)"""
"""An SQL expression that differs between servers and between snapshots.

Ids of snapshots are small numbers, so two servers behind one address can have snapshots with the same id.
"""

Sink = Callable[[bytes], Awaitable[None]]
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"


@dataclass(slots=True)
class Snapshot:
    """One transaction on the source: all its queries see the data of one moment.

    Attributes:
        as_of: the snapshot has everything that was committed before this time, also on a standby that lags.
        started_at: start of the transaction by the server's clock.
        timeout: seconds that the client waits for a statement.
        initial_value: value of the ``initial_sql`` of :meth:`Source.snapshot`.
        replayed_until: how far a standby has replayed; ``None`` if it is unknown or the server is no standby.
    """

    connection: "PoolConnectionProxy[asyncpg.Record]"
    as_of: datetime
    started_at: datetime
    timeout: float
    initial_value: str = ""
    is_standby: bool = False
    replayed_until: datetime | None = None
    _ended: bool = field(default=False, init=False)

    @property
    def seconds(self) -> float:
        """The server's time limit of a statement."""
        return self.timeout - GRACE_SECONDS

    async def end(self) -> None:
        """End the transaction. After that nothing can be read.

        A server that does not answer is no error: the rows that were read before are complete.
        """
        if self._ended:
            return
        self._ended = True
        try:
            await self.connection.execute("COMMIT", timeout=10)
        except DRIVER_ERRORS:
            _terminate(self.connection)

    async def estimate(self, sql: str) -> int:
        """Return the number of rows that the planner expects."""
        return (await self.explain(sql)).rows

    async def explain(self, sql: str, *, as_shared: bool = False) -> QueryPlan:
        """Return the planner's plan. The query does not run.

        Args:
            sql: the query.
            as_shared: whether to plan as transactions do that share a snapshot.
        """
        if as_shared:
            await self._set(INDEXES_ONLY)
            plan = await self.explain(sql)
            await self._set(dict.fromkeys(INDEXES_ONLY, "DEFAULT"))
            return plan
        plan_text = await self.connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", timeout=self.timeout)
        return QueryPlan.parse(plan_text)

    async def _set(self, values: Mapping[str, str]) -> None:
        script = ";".join(f"SET LOCAL {name} = {value}" for name, value in values.items())
        await self.connection.execute(script, timeout=self.timeout)

    async def fetch(self, sql: str) -> list["asyncpg.Record"]:
        """Return the rows of a small query."""
        rows: list[asyncpg.Record] = await self.connection.fetch(sql, timeout=self.timeout)
        return rows

    async def export(self, *, idle_seconds: float | None = None) -> str:
        """Return the id of this snapshot, for the argument ``shared`` of :meth:`Source.snapshot`.

        Other transactions can take the snapshot until this one ends. After that they keep it. From now on the
        transaction has the settings of all transactions that share a snapshot.

        Args:
            idle_seconds: the server ends this transaction after this time without a statement (default: the
                time limit of a statement).

        Raises:
            SnapshotNotShared: the server cannot share snapshots. This transaction has failed.
        """
        try:
            settings = shared_settings(idle_seconds or self.seconds).items()
            changes = [
                f"pg_catalog.set_config({quote_text(name)}, {quote_text(value)}, true)"
                for name, value in settings
            ]
            sql = f"SELECT pg_catalog.pg_export_snapshot(), {_CHECK}, {', '.join(changes)}"
            name, check, *_ = (await _value(self.connection, sql, FETCH_SECONDS)).split("\t")
            return f"{name} {check}"
        except asyncpg.PostgresError as error:
            if isinstance(error, asyncpg.PostgresConnectionError) or is_temporary(error):
                raise
            raise SnapshotNotShared(f"source database: {error}") from error

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a savepoint for the block: an error of a statement in it leaves the snapshot usable."""
        await self.connection.execute("SAVEPOINT before", timeout=FETCH_SECONDS)
        try:
            yield
        except asyncpg.PostgresError:
            await self.connection.execute("ROLLBACK TO before", timeout=FETCH_SECONDS)
            raise
        else:
            await self.connection.execute("RELEASE before", timeout=FETCH_SECONDS)

    async def count(self, sql: str, limit: int) -> int:
        """Count the rows, but not beyond ``limit``."""
        counting = f"SELECT count(*) FROM (SELECT 1 FROM ({sql}) AS rows LIMIT {limit}) AS counted"
        return int(await _value(self.connection, counting, self.timeout))

    async def first(self, sql: str) -> "asyncpg.Record | None":
        """Return the first row of ``sql``, or ``None``."""
        return await self.connection.fetchrow(sql, timeout=self.timeout)

    async def copy(
        self, sql: str, options: Mapping[str, Any], sink: Sink, *, max_row_bytes: int = DEFAULT_MAX_ROW_BYTES
    ) -> int:
        """COPY the rows of ``sql`` into ``sink``, in chunks of whole rows.

        While the sink waits, the database waits. An error of the sink or a cancellation ends the statement.

        Args:
            sql: the query.
            options: options of COPY, with asyncpg's names.
            sink: receives the chunks.
            max_row_bytes: limit for the bytes of one row.

        Returns:
            The number of rows.

        Raises:
            MessageTooLong: a row exceeds the limit. The connection is closed then.
        """
        # The driver has no public access to its transport.
        limit = MessageLimit(self.connection._con._transport, max_row_bytes)
        try:
            return await self._copy(sql, options, sink, limit)
        except (*DRIVER_ERRORS, AttributeError) as error:
            if limit.is_exceeded:
                raise MessageTooLong(max_row_bytes) from error
            if isinstance(error, AttributeError) and self.connection.is_closed():
                # The driver does not expect that a connection is lost while the sink waits.
                raise asyncpg.ConnectionDoesNotExistError("the connection was lost") from error
            raise
        finally:
            limit.remove()

    async def _copy(self, sql: str, options: Mapping[str, Any], sink: Sink, limit: MessageLimit) -> int:
        waiting: list[bytes] = []
        size = 0
        large = False

        async def gather(data: bytes) -> None:
            nonlocal size, large
            limit.message_ended()
            waiting.append(data)
            size += len(data)
            if size >= CHUNK_BYTES:
                await flush()
                large = True
            if large and len(data) < SMALL_MESSAGE:
                await asyncio.sleep(PAUSE)

        async def flush() -> None:
            nonlocal size
            if waiting:
                chunk = b"".join(waiting)
                waiting.clear()
                size = 0
                await sink(chunk)

        status = await self.connection.copy_from_query(sql, output=gather, timeout=self.timeout, **options)
        await flush()
        return int(status.rpartition(" ")[2])


class Source:
    """A small pool of connections to the source database, for read-only transactions."""

    def __init__(self, settings: Settings, *, connections: int) -> None:
        """Create the pool without connections.

        Args:
            settings: has the URL, which is read for each connection, and the time limit of exports.
            connections: the largest number of connections.
        """
        self._settings = settings
        self.can_share_snapshots = True
        self._connections = connections
        self._wanted = 0  # the connections that are in use, and those that somebody waits for
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    @property
    def free_connections(self) -> int:
        """The number of connections that are neither used nor waited for."""
        return max(0, self._connections - self._wanted)

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
                none. Whoever has a connection must not wait for a second one.

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
        ) as snapshot:
            yield snapshot

    async def close(self) -> None:
        """Close the pool without waiting for running statements."""
        if self._pool is not None:
            self._pool.terminate()

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
    ) -> AsyncIterator[Snapshot]:
        """Open a transaction for the block. After an error its connection is closed, not used again."""
        started = time.monotonic()
        script = begin_script(
            name,
            statement_seconds=seconds,
            lock_seconds=lock_seconds,
            search_path=search_path,
            shared_snapshot=None if shared is None else shared.partition(" ")[0],
        )
        with (
            self._counted(only_free),
            source_errors(lambda: time.monotonic() - started >= seconds),
        ):
            pool = await self._open()
            connection = await _acquire(pool)
            snapshot: Snapshot | None = None
            try:
                # The server enforces the limit. The client's longer limit is for a server that is gone.
                timeout = seconds + GRACE_SECONDS
                if shared is None:
                    snapshot = await _begin(connection, script, timeout, initial_sql)
                else:
                    begin_seconds = JOIN_SECONDS if only_free else BEGIN_SECONDS
                    snapshot = await _join(
                        connection, script, timeout, initial_sql, shared, begin_seconds=begin_seconds
                    )
                yield snapshot
                await snapshot.end()
            except BaseException as error:
                _terminate(connection)
                if shared is not None and isinstance(error, asyncpg.LockNotAvailableError):
                    raise TableLocked(f"source database: {error}") from error
                if (
                    snapshot is not None
                    and is_lost_connection(error)
                    and await self._has_not_crashed_since(snapshot.started_at)
                ):
                    raise Outage(f"source database: the session was ended: {error}") from error
                raise
            finally:
                with suppress(*DRIVER_ERRORS):
                    await pool.release(connection)

    @contextmanager
    def _counted(self, only_free: bool) -> Iterator[None]:
        """Count a connection for the block."""
        if only_free and not self.free_connections:
            raise NoFreeConnection("source database: all connections of this process are in use")
        self._wanted += 1
        try:
            yield
        finally:
            self._wanted -= 1

    async def _has_not_crashed_since(self, began: datetime) -> bool:
        """Return whether the server is up and has not started or crashed since ``began``, by its own clock.

        If so, the statement did not crash the server, and the session was ended from outside: after a crash
        of one process PostgreSQL restarts all of them and resets its statistics.
        """
        with suppress(*DRIVER_ERRORS):
            connection = await self._connect(timeout=CRASH_CHECK_SECONDS, statement_cache_size=0)
            try:
                return (
                    await _value(
                        connection, _CRASHED_SINCE.format(began=began.isoformat()), CRASH_CHECK_SECONDS
                    )
                    == "f"
                )
            finally:
                connection.terminate()
        return False

    async def _connect(self, *_: object, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect with the current URL, because its password can change."""
        connection = await asyncpg.connect(self._settings.source_dsn, **options)
        keep_alive(connection)
        return connection

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        """Return the pool. Connections have no settings, see :mod:`stream_app.exports.source_session`."""
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                connect=self._connect,
                min_size=0,
                max_size=self._connections,
                max_inactive_connection_lifetime=60,
                statement_cache_size=0,
                timeout=CONNECT_SECONDS,
                reset=_reset_nothing,
            )
        return await self._pool


async def _reset_nothing(_: object) -> None:
    """Do nothing: all settings of an export end with its transaction."""


def _terminate(connection: "PoolConnectionProxy[asyncpg.Record]") -> None:
    """Close a connection. It is no error if it is already closed and removed from its pool."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _acquire(pool: "asyncpg.Pool[asyncpg.Record]") -> "PoolConnectionProxy[asyncpg.Record]":
    """Return a connection of the pool.

    Raises:
        Outage: no connection is possible.
        Rejected: the server refuses a parameter of the URL.
    """
    try:
        return await pool.acquire(timeout=30)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise connection_error(error) from error


async def _begin(
    connection: "PoolConnectionProxy[asyncpg.Record]", script: str, timeout: float, initial_sql: str | None
) -> Snapshot:
    """Begin a transaction and take its snapshot.

    asyncpg's transaction block is not used: it would send ROLLBACK while a statement is still running.

    Raises:
        Rejected: the server is older than :data:`OLDEST_POSTGRES`.
    """
    await connection.execute(script, timeout=30)
    facts = f"{_SERVER_FACTS}, {initial_sql or 'NULL'}"
    began, version, in_recovery, value = (await _value(connection, facts, 30)).split("\t")
    if int(version) < OLDEST_POSTGRES * 10_000:
        major, minor = divmod(int(version), 10_000)
        raise Rejected(
            f"the source database is PostgreSQL {major}.{minor}; {OLDEST_POSTGRES} and later are supported",
            code="unsupported_source",
        )
    # The start of the transaction is just before its snapshot, which therefore has all older commits.
    as_of = datetime.fromisoformat(began)
    if in_recovery != "t":
        return Snapshot(connection, as_of, as_of, timeout, value)
    # The replay time must be read before the snapshot is taken. Only now it is known to be a standby.
    await connection.execute("ROLLBACK", timeout=30)
    replayed = parse_replay_time(await _value(connection, REPLAY_TIME_QUERY, 30))
    await connection.execute(script, timeout=30)
    known = min(as_of, replayed or as_of).astimezone(UTC)
    return Snapshot(connection, known, as_of, timeout, value, is_standby=True, replayed_until=replayed)


async def _join(
    connection: "PoolConnectionProxy[asyncpg.Record]",
    script: str,
    timeout: float,
    initial_sql: str | None,
    shared: str,
    *,
    begin_seconds: float,
) -> Snapshot:
    """Begin a transaction with the snapshot of another one, which has checked the server.

    Raises:
        SnapshotLost: the other transaction has ended, or the connection leads to another server.
    """
    try:
        await connection.execute(script, timeout=begin_seconds)
    except asyncpg.PostgresError as error:
        if is_lost_snapshot(error):
            raise SnapshotLost(f"source database: {error}") from error
        raise
    facts = f"SELECT pg_catalog.transaction_timestamp(), {_CHECK}, {initial_sql or 'NULL'}"
    began, check, value = (await _value(connection, facts, 30)).split("\t")
    if check != shared.partition(" ")[2]:
        raise SnapshotLost("source database: another snapshot has the same id")
    as_of = datetime.fromisoformat(began)
    return Snapshot(connection, as_of, as_of, timeout, value)


async def _value(connection: "Connection", sql: str, timeout: float) -> str:
    """Return the only value of ``sql`` as text. COPY needs one round trip, a query would need three."""
    found: list[bytes] = []

    async def keep(data: bytes) -> None:
        found.append(data)

    await connection.copy_from_query(sql, output=keep, timeout=timeout)
    return b"".join(found).decode().rstrip("\n")
