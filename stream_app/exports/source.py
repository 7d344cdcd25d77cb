"""The database that rows come from: read only, one consistent snapshot for each export."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from pydantic_core import from_json

from stream_app import metrics
from stream_app.errors import Outage, Rejected, Retryable
from stream_app.settings import Settings

SESSION = {
    "default_transaction_read_only": "on",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "iso_8601",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "client_encoding": "UTF8",
}
"""Session settings that make the text of every value what the formats promise."""

COALESCED = 256 * 2**10
"""Bytes that are gathered before they are handed on, to spare hand-overs between threads."""

SCRAP = 64 * 2**10
"""PostgreSQL sends 8 KiB at a time; reading each as it comes costs more than all else that is done to it."""

PAUSE = 0.002
"""Seconds in which more of it gathers in the socket's buffer; no loss of time, the buffer holds far more."""

HANG_UP = """
SELECT set_config(name, '1s', false) FROM pg_settings
WHERE name = 'client_connection_check_interval' AND version() LIKE '%linux%'
"""
"""A server that is busy with a statement looks whether anybody still wants the answer.

Otherwise what was given up runs on until it has a row to send. Servers before 14 cannot, and those that are
not on Linux may refuse.
"""

Sink = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One transaction on the source: everything read through it is as of one moment."""

    connection: "PoolConnectionProxy[asyncpg.Record]"
    as_of: datetime
    timeout: float

    async def estimate(self, sql: str) -> int:
        """How many rows the planner expects."""
        plan = await self.connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", timeout=self.timeout)
        return int(from_json(plan)[0]["Plan"]["Plan Rows"])

    async def count(self, sql: str, limit: int) -> int:
        """How many rows there are, counting no further than ``limit``."""
        counting = f"SELECT count(*) FROM (SELECT 1 FROM ({sql}) AS rows LIMIT {limit}) AS counted"
        return int(await _value(self.connection, counting, self.timeout))

    async def copy(self, sql: str, options: Mapping[str, Any], sink: Sink) -> int:
        """COPY the rows of ``sql`` into ``sink`` in chunks of whole rows; returns how many there were.

        A sink that waits holds the database back; one that raises, or a cancellation, ends the statement.
        """
        waiting: list[bytes] = []
        size = 0
        large = False

        async def gather(data: bytes) -> None:
            nonlocal size, large
            waiting.append(data)
            size += len(data)
            if size >= COALESCED:
                await flush()
                large = True
            if large and len(data) < SCRAP:
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
    """A small pool of read-only connections to the source database."""

    def __init__(self, settings: Settings, *, connections: int) -> None:
        self._settings = settings
        self._connections = connections
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def fetch(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        """Rows of a small query.

        Raises:
            Retryable: the database cannot be reached.
        """
        with source_errors():
            pool = await self._open()
            connection = await _connected(pool)
            try:
                rows: list[asyncpg.Record] = await connection.fetch(sql, *values, timeout=30)
                return rows
            finally:
                await pool.release(connection)

    @asynccontextmanager
    async def snapshot(self, name: str) -> AsyncIterator[Snapshot]:
        """A snapshot whose connection shows ``name`` as its ``application_name``.

        A connection that did not end its work cleanly is closed rather than used again.

        Raises:
            Retryable: the database failed in a way that passes.
            Rejected: it refused the statement (permission, missing table, bad value, time limit).
        """
        timeout = self._settings.export_timeout_seconds
        started = time.monotonic()
        with source_errors(lambda: time.monotonic() - started >= timeout):
            pool = await self._open()
            connection = await _connected(pool)
            try:
                # Not asyncpg's transaction block: it would roll back over a statement that is still running.
                await connection.execute(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;"
                    f"SET LOCAL application_name = '{name}';"
                    f"SET LOCAL statement_timeout = {int(timeout * 1000)}"
                )
                # When the transaction began, which is just before its snapshot: nothing older is missing.
                began = await _value(connection, "SELECT transaction_timestamp()", 30)
                as_of = datetime.fromisoformat(began)
                # The server keeps the limit; the client's own is for a server that is not there any more.
                yield Snapshot(connection, as_of, timeout + 30)
                await connection.execute("COMMIT")
            except BaseException:
                connection.terminate()
                raise
            finally:
                await pool.release(connection)

    async def close(self) -> None:
        """Close the pool, without waiting for what still runs."""
        if self._pool is not None:
            self._pool.terminate()

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                self._settings.source_dsn,
                min_size=0,
                max_size=self._connections,
                max_inactive_connection_lifetime=60,
                statement_cache_size=0,
                timeout=10,
                init=_prepare,
                reset=_keep,
                server_settings={"application_name": "exporter", **SESSION},
            )
        return await self._pool


async def _prepare(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute(HANG_UP)


async def _keep(_: object) -> None:
    """What an export sets ends with its transaction: nothing to ask the server to forget."""


async def _connected(pool: "asyncpg.Pool[asyncpg.Record]") -> "PoolConnectionProxy[asyncpg.Record]":
    """A connection; without one there is nothing that a request could be blamed for."""
    try:
        return await pool.acquire(timeout=30)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Outage(f"source database: {error or type(error).__name__}") from error


async def _value(connection: "PoolConnectionProxy[asyncpg.Record]", sql: str, timeout: float) -> str:
    """The one value that ``sql`` yields, as text; in one round trip, where a query would take three."""
    found: list[bytes] = []

    async def keep(data: bytes) -> None:
        found.append(data)

    await connection.copy_from_query(sql, output=keep, timeout=timeout)
    return b"".join(found).decode().rstrip("\n")


_PASSING_CLASSES = {"08", "40", "53", "57", "58", "XX"}

_OUTAGES = {"57P01", "57P02", "57P03", "57P05", "53300"}
"""The server is being shut down, recovers from another's crash, starts, or has no connection to spare.

A connection that is only lost is none of these: the statement may be what killed its server process, and
must not do so for ever.
"""


@contextmanager
def source_errors(timed_out: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Say what an error of the source database means for the job."""
    with metrics.errors_of("source_database"), _ours(timed_out):
        yield


@contextmanager
def _ours(timed_out: Callable[[], bool]) -> Iterator[None]:
    try:
        yield
    except asyncpg.QueryCanceledError as error:
        if timed_out():
            raise Rejected(
                "the export took longer than is allowed; narrow it with filters", code="timeout"
            ) from error
        raise Retryable(f"source database: {error}") from error
    except asyncpg.PostgresError as error:
        if error.sqlstate in _OUTAGES:
            raise Outage(f"source database: {error}") from error
        if (error.sqlstate or "")[:2] in _PASSING_CLASSES:
            raise Retryable(f"source database: {error}") from error
        code, advice = _REFUSALS.get(error.sqlstate or "", ("query_refused", ""))
        raise Rejected(f"the source database refused the export: {error}{advice}", code=code) from error
    except (TimeoutError, OSError, asyncpg.InterfaceError) as error:
        raise Retryable(f"source database: {error or type(error).__name__}") from error


_REFUSALS = {
    "42501": ("permission_denied", "; operators: GRANT SELECT to the role of the source database's URL"),
    "42P01": ("missing_table", "; operators: correct the dataset's table"),
    "42703": ("missing_column", "; operators: correct the dataset's columns"),
}
"""By SQLSTATE: the error's code, and what is to be done."""
