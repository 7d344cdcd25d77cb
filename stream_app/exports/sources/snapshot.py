"""A transaction on the source database: all its queries see the data of one moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from stream_app.exports.columns import quote_text
from stream_app.exports.sources.errors import DRIVER_ERRORS, SnapshotNotShared, is_temporary
from stream_app.exports.sources.message_limit import DEFAULT_MAX_ROW_BYTES, MessageLimit
from stream_app.exports.sources.message_too_long import MessageTooLong
from stream_app.exports.sources.query_plan import QueryPlan
from stream_app.exports.sources.row_description import DescribedColumn, DescriptionReader
from stream_app.exports.sources.session import (
    IDLE_LIMIT,
    INDEXES_ONLY,
    search_path_sql,
    shared_settings,
)

CHUNK_BYTES = 256 * 2**10
"""Bytes that are joined to one chunk, because passing a chunk to another thread is expensive."""

SMALL_MESSAGE = 64 * 2**10
"""After a message smaller than this the client waits for more: PostgreSQL sends 8 KiB at a time, and to read
each of them at once costs more than all later work on it."""

PAUSE = 0.002
"""Seconds of that wait. A long COPY is not slower for it, because the socket's buffer holds far more."""

SMALL_COPY = 2**20
"""Bytes that are read without such waits: at the end of a small COPY nothing would come in that time."""

FETCH_SECONDS = 30.0
"""Time limit of a small query."""

GRACE_SECONDS = 30
"""The client waits longer for a statement than the server's time limit: for a server that is gone."""

SNAPSHOT_CHECK = """pg_catalog.hashtextextended(pg_catalog.concat(
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

    Its methods raise errors of asyncpg, which :meth:`.Source.snapshot` turns into errors of the service.

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
            terminate(self.connection)

    async def allow_pause(self) -> None:
        """Let the transaction have no statement for as long as one can take: rows wait for an upload."""
        await self._set({IDLE_LIMIT: quote_text(f"{max(self.seconds, 1):.0f}s")})

    async def estimate(self, sql: str) -> int:
        """Return the number of rows that the planner expects."""
        return (await self.explain(sql)).rows

    async def explain(self, sql: str, *, as_shared: bool = False) -> QueryPlan:
        """Return the planner's plan. The query does not run.

        Args:
            sql: the query.
            as_shared: whether to plan as transactions do that share a snapshot, or read one range.
        """
        if as_shared:
            # A transaction that reads a range has these settings already, and must keep them.
            await self.connection.execute("SAVEPOINT settings", timeout=self.timeout)
            await self._set(INDEXES_ONLY)
            plan = await self.explain(sql)
            await self.connection.execute("ROLLBACK TO settings; RELEASE settings", timeout=self.timeout)
            return plan
        plan_text = await self.connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", timeout=self.timeout)
        return QueryPlan.parse(plan_text)

    async def _set(self, values: Mapping[str, str]) -> None:
        script = ";".join(f"SET LOCAL {name} = {value}" for name, value in values.items())
        await self.connection.execute(script, timeout=self.timeout)

    async def fetch(self, sql: str, *values: Any) -> list["asyncpg.Record"]:
        """Return the rows of a small query."""
        rows: list[asyncpg.Record] = await self.connection.fetch(sql, *values, timeout=self.timeout)
        return rows

    async def describe(self, sql: str) -> tuple[DescribedColumn, ...]:
        """Return the columns of a query's result. The query is prepared, and does not run.

        Until the transaction ends, the tables that it reads are locked as by reading.
        """
        # The driver has no public access to its transport.
        reader = DescriptionReader(self.connection._con._transport)
        try:
            await self.connection.prepare(sql, timeout=self.timeout)
        finally:
            reader.remove()
        return reader.columns()

    async def set_search_path(self, schemas: Sequence[str]) -> None:
        """Look for names without a schema in ``pg_catalog`` and then in ``schemas``."""
        await self._set({"search_path": search_path_sql(schemas)})

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
            sql = f"SELECT pg_catalog.pg_export_snapshot(), {SNAPSHOT_CHECK}, {', '.join(changes)}"
            name, check, *_ = (await single_value(self.connection, sql, FETCH_SECONDS)).split("\t")
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
        return int(await single_value(self.connection, counting, self.timeout))

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
        flushed = 0

        async def gather(data: bytes) -> None:
            nonlocal size
            limit.message_ended()
            waiting.append(data)
            size += len(data)
            if size >= CHUNK_BYTES:
                await flush()
            if flushed >= SMALL_COPY and len(data) < SMALL_MESSAGE:
                await asyncio.sleep(PAUSE)

        async def flush() -> None:
            nonlocal size, flushed
            if waiting:
                chunk = b"".join(waiting)
                waiting.clear()
                flushed += size
                size = 0
                await sink(chunk)

        status = await self.connection.copy_from_query(sql, output=gather, timeout=self.timeout, **options)
        await flush()
        return int(status.rpartition(" ")[2])


def terminate(connection: "PoolConnectionProxy[asyncpg.Record]") -> None:
    """Close a connection. It is no error if it is already closed and removed from its pool."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


def is_closed(connection: "PoolConnectionProxy[asyncpg.Record]") -> bool:
    """Return whether a connection is closed. If it is, its pool has possibly removed it."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


async def single_value(connection: "Connection", sql: str, timeout: float) -> str:
    """Return the only value of ``sql`` as text. COPY needs one round trip, a query would need three."""
    found: list[bytes] = []

    async def keep(data: bytes) -> None:
        found.append(data)

    await connection.copy_from_query(sql, output=keep, timeout=timeout)
    return b"".join(found).decode().rstrip("\n")
