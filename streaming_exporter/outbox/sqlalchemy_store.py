"""The outbox of the relay in any database of SQLAlchemy; needs the extra ``sqlalchemy``."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    delete,
    func,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from streaming_exporter.errors import BadSettings, ExporterError
from streaming_exporter.outbox.database_failures import failure_of
from streaming_exporter.outbox.entries import LEASE_NAME, Backlog, Entry
from streaming_exporter.outbox.store import LeaseState, within
from streaming_exporter.outbox.tables import OutboxEvent, OutboxLease

Result = TypeVar("Result")

CALL_SECONDS = 30.0
"""The longest time of one transaction."""

ALIASES = {"postgres": "postgresql"}
"""Names of dialects that other libraries take and SQLAlchemy does not."""

CREATION = "`python -m streaming_exporter.outbox ddl` prints the statements that create it"


def open_engine(url: str) -> Engine | AsyncEngine:
    """Return an engine for ``url``, which is asynchronous where its driver is."""
    parsed = make_url(url)
    parsed = parsed.set(drivername=ALIASES.get(parsed.drivername, parsed.drivername))
    options = {"pool_pre_ping": True}
    if parsed.get_dialect().is_async:
        return create_async_engine(parsed, **options)
    return create_engine(parsed, **options)


class SqlAlchemyStore:
    """The outbox in the database of an engine. A synchronous engine works in a thread."""

    def __init__(self, engine: Engine | AsyncEngine) -> None:
        """Take an engine; :meth:`close` disposes of it."""
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "outbox")

    async def lease(self) -> LeaseState:
        """Return the row of the lease."""

        def look(connection: Connection) -> LeaseState:
            columns = select(OutboxLease.owner, OutboxLease.version)
            row = connection.execute(columns.where(OutboxLease.name == LEASE_NAME)).one_or_none()
            return LeaseState() if row is None else LeaseState(row.owner, row.version)

        return await self._call(look)

    async def change_lease(self, seen: LeaseState, owner: str | None) -> bool:
        """Give the lease to ``owner``, unless it has changed since ``seen``. Return whether it was given."""
        values = {"owner": owner, "version": seen.version + 1}

        def change(connection: Connection) -> bool:
            if seen.version:
                change = update(OutboxLease).where(
                    OutboxLease.name == LEASE_NAME, OutboxLease.version == seen.version
                )
                return connection.execute(change.values(**values)).rowcount == 1
            try:
                with connection.begin_nested():
                    connection.execute(insert(OutboxLease).values(name=LEASE_NAME, **values))
            except IntegrityError:
                return False
            return True

        return await self._call(change)

    async def read(self, count: int, size: int) -> Sequence[Entry]:
        """Return the oldest entries that wait: at most ``count``, and ``size`` bytes or a single entry."""

        def read(connection: Connection) -> list[Entry]:
            sizes = select(OutboxEvent.id, OutboxEvent.size).where(OutboxEvent.refusal.is_(None))
            found = connection.execute(sizes.order_by(OutboxEvent.id).limit(count)).all()
            ids = within([(row.id, row.size) for row in found], size)
            entries = select(OutboxEvent.id, OutboxEvent.job_id, OutboxEvent.payload)
            rows = connection.execute(entries.where(OutboxEvent.id.in_(ids)).order_by(OutboxEvent.id))
            return [Entry(row.id, row.job_id, row.payload.encode()) for row in rows]

        return await self._call(read)

    async def delete(self, ids: Sequence[int]) -> None:
        """Delete entries whose events Kafka has acknowledged."""
        await self._call(
            lambda connection: connection.execute(delete(OutboxEvent).where(OutboxEvent.id.in_(ids)))
        )

    async def refuse(self, entry_id: int, reason: str) -> None:
        """Mark an entry that Kafka refuses for good, so that it no longer waits."""
        change = update(OutboxEvent).where(OutboxEvent.id == entry_id).values(refusal=reason)
        await self._call(lambda connection: connection.execute(change))

    async def backlog(self) -> Backlog:
        """Return how many entries there are."""

        def count(connection: Connection) -> Backlog:
            counts = select(func.count(), func.count(OutboxEvent.refusal)).select_from(OutboxEvent)
            total, refused = connection.execute(counts).one()
            waiting = select(func.min(OutboxEvent.created_at), func.current_timestamp())
            oldest, now = connection.execute(waiting.where(OutboxEvent.refusal.is_(None))).one()
            seconds = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
            return Backlog(total - refused, seconds, refused)

        return await self._call(count)

    async def close(self) -> None:
        """Close the connections."""
        if isinstance(self._engine, AsyncEngine):
            await self._engine.dispose()
        else:
            self._engine.dispose()
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[Connection], Result]) -> Result:
        """Do ``work`` in one transaction.

        Raises:
            Retryable: the database does not answer, or refuses it.
            BadSettings: the driver does not accept the engine's URL.
        """
        try:
            async with asyncio.timeout(CALL_SECONDS):
                if isinstance(self._engine, AsyncEngine):
                    async with self._connection(self._engine) as connection:
                        return await connection.run_sync(work)
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise self._failure(error) from error

    def _do(self, work: Callable[[Connection], Result]) -> Result:
        assert isinstance(self._engine, Engine)  # noqa: S101
        with self._sync_connection(self._engine) as connection:
            return work(connection)

    @asynccontextmanager
    async def _connection(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """Open a transaction. SQLAlchemy wraps only some of the errors of drivers that cannot connect."""
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.begin())
            except Exception as error:
                raise self._failure(error) from error
            yield connection

    @contextmanager
    def _sync_connection(self, engine: Engine) -> Iterator[Connection]:
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(engine.begin())
            except Exception as error:
                raise self._failure(error) from error
            yield connection

    def _failure(self, error: Exception) -> ExporterError:
        url = self._engine.url
        is_of_network = isinstance(
            error, OSError
        )  # such as that of a certificate, which is a ValueError, too
        if isinstance(error, TypeError | ValueError | OverflowError) and not is_of_network:
            return BadSettings(
                f"the driver {url.drivername} does not accept the URL of the outbox's database; check its "
                "port and the options after the question mark"
            )
        place = ":".join(str(part) for part in (url.host, url.port) if part)
        return failure_of(error, place=place or url.database or "", creation=CREATION)
