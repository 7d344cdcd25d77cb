"""A source database: begins read-only transactions on it, each with a snapshot."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from stream_app.datasets.models import DEFAULT_SOURCE, Dataset
from stream_app.exports.masks.base import HASH_KEYS
from stream_app.exports.masks.hash_keys import hash_keys
from stream_app.exports.sources.connection_pool import ConnectionPool
from stream_app.exports.sources.errors import (
    NoFreeConnection,
    SnapshotLost,
    TableLocked,
    TooManyConnections,
    is_lost_snapshot,
    source_errors,
)
from stream_app.exports.sources.session import IDLE_LIMIT, SET_VALUES, begin_script
from stream_app.exports.sources.snapshot import (
    FETCH_SECONDS,
    GRACE_SECONDS,
    Snapshot,
)
from stream_app.exports.sources.transactions import BEGIN_SECONDS, joined_snapshot, new_snapshot
from stream_app.settings import Settings
from streaming_exporter.errors import Outage

SHARED_LOCK_SECONDS = 10.0
"""Limit of a wait for a lock with a shared snapshot. A session that waits to change the table has to wait for
the transaction that exported the snapshot, which waits for those that share it: all would wait forever."""

JOIN_SECONDS = 3.0
"""Time limit for the start of a transaction that is not needed: it must not stand before others in a
pooler's queue."""


class Source:
    """Begins read-only transactions on one source database.

    Attributes:
        name: the name of the source in the datasets file.
        pool: the connections.
        export_limit: how many exports can use the pool at a time; ``None`` means no limit of its own.
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
        """Create the source without connections.

        Args:
            settings: has the time limit of exports, and the URL of the default source.
            connections: the largest number of connections. A pool without connections cannot be used.
            name: the name of the source.
            dsn: returns the URL for asyncpg. It is called for each connection, because the password can
                change. The default is the URL of the default source.
            export_limit: how many exports can use the pool at a time.
        """
        self._settings = settings
        self.name = name
        self.pool = ConnectionPool(name, connections, dsn or (lambda: settings.source_dsn))
        self.export_limit = export_limit
        self.can_share_snapshots = True
        self.estimating = asyncio.Semaphore(1)

    def source_for(self, dataset: Dataset) -> "Source":
        """Return this source: it has all datasets where there is no other."""
        return self

    def each(self) -> tuple["Source", ...]:
        """Return this source."""
        return (self,)

    @property
    def export_seconds(self) -> float:
        """The time limit of an export, in seconds."""
        return self._settings.export_timeout_seconds

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
                self.snapshot("exporter check", seconds=seconds, only_free=True),
            ):
                pass
        except TimeoutError as error:
            self.pool.note_outage()
            raise Outage(f"source database {self.name}: no answer within {seconds:g} s") from error
        except TooManyConnections as error:
            if not self.pool.is_in_use:
                raise
            raise NoFreeConnection(str(error)) from error

    async def fetch(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        """Return the rows of a small query. Names without a schema use the role's own search path.

        Raises:
            Retryable: the database cannot be reached.
            Rejected: the database refused the query.
        """
        async with self.snapshot("exporter catalog", seconds=FETCH_SECONDS) as snapshot:
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
        started = time.monotonic()
        seconds = seconds or self.export_seconds
        if shared is not None:
            lock_seconds = lock_seconds or SHARED_LOCK_SECONDS
        is_optional = shared is not None and only_free
        values = self._with_hash_keys(session or {})
        script = begin_script(
            name,
            statement_seconds=seconds,
            lock_seconds=lock_seconds,
            search_path=search_path,
            shared_snapshot=None if shared is None else shared.partition(" ")[0],
            indexes_only=indexes_only,
        )
        # The server enforces the limit. The client's longer limit is for a server that is gone.
        timeout = seconds + GRACE_SECONDS

        async def start(connection: "PoolConnectionProxy[asyncpg.Record]") -> Snapshot:
            await self._execute_begin(
                connection, script, is_shared=shared is not None, is_optional=is_optional
            )
            if shared is None:
                return await new_snapshot(connection, script, timeout, initial_sql, values)
            return await joined_snapshot(connection, timeout, initial_sql, values, shared)

        with (
            self.pool.count_use(only_free),
            source_errors(lambda: time.monotonic() - started >= seconds),
        ):
            try:
                async with self.pool.open(start, is_optional=is_optional) as snapshot:
                    yield snapshot
                    await snapshot.end()
            except asyncpg.LockNotAvailableError as error:
                if shared is None:
                    raise
                raise TableLocked(f"source database: {error}") from error

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
        values |= self._with_hash_keys(session)
        limits = {"statement_timeout": f"{seconds * 1000:.0f}", IDLE_LIMIT: f"{max(seconds, 1):.0f}s"}
        values = {**limits, **values}
        await snapshot.connection.execute(
            SET_VALUES, list(values), list(values.values()), timeout=BEGIN_SECONDS
        )
        await snapshot.set_search_path(search_path)

    async def close(self) -> None:
        """Close the pool without waiting for running statements."""
        await self.pool.close()

    def _with_hash_keys(self, session: Mapping[str, str]) -> Mapping[str, str]:
        """Return ``session`` with the keys of hashes, if it needs them."""
        return {**session, HASH_KEYS: hash_keys(self._settings)} if HASH_KEYS in session else session

    async def _execute_begin(
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
            with self.pool.count_start():
                seconds = JOIN_SECONDS if is_optional else BEGIN_SECONDS
                await connection.execute(script, timeout=seconds)
        except asyncpg.PostgresError as error:
            if is_shared and is_lost_snapshot(error):
                raise SnapshotLost(f"source database: {error}") from error
            raise
