"""Takes the snapshot of a transaction that has just begun, and reads facts about its server."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from stream_app.exports.sources.errors import DRIVER_ERRORS, SnapshotLost
from stream_app.exports.sources.session import (
    REPLAY_TIME_QUERY,
    SERVER_IDENTITY,
    SET_VALUES,
    parse_replay_time,
)
from stream_app.exports.sources.snapshot import SNAPSHOT_CHECK, Snapshot, single_value
from streaming_exporter.errors import Rejected, Retryable

OLDEST_POSTGRES = 12
"""The oldest supported major version of PostgreSQL."""

BEGIN_SECONDS = 30.0
"""Time limit for the start of a transaction. A pooler can let it wait for a connection to the server."""

_SERVER_FACTS = f"""
SELECT pg_catalog.transaction_timestamp(), pg_catalog.current_setting('server_version_num'),
       pg_catalog.pg_is_in_recovery(), {SERVER_IDENTITY}"""

_CRASHED_SINCE = """
SELECT GREATEST(pg_catalog.pg_postmaster_start_time(), (SELECT stats_reset FROM pg_catalog.pg_stat_bgwriter))
       > '{began}'::pg_catalog.timestamptz
"""

CRASH_CHECK_SECONDS = 2.0
"""Time limit for the question whether the server has crashed since a connection was lost."""

REPLAY_READS = 3
"""How often a standby's replay time is read while a pooler begins the transaction on another server."""


@dataclass(frozen=True, slots=True)
class _ServerState:
    """What a transaction's server says about it.

    Attributes:
        began: start of the transaction. It is just before its snapshot, which has all older commits.
        server: value of :data:`SERVER_IDENTITY`.
        initial_value: value of the ``initial_sql`` of :meth:`Source.snapshot`.
    """

    began: datetime
    is_standby: bool
    server: str
    initial_value: str


async def new_snapshot(
    connection: "PoolConnectionProxy[asyncpg.Record]",
    script: str,
    timeout: float,
    initial_sql: str | None,
    session: Mapping[str, str],
) -> Snapshot:
    """Return the snapshot of a transaction that ``script`` has begun.

    On a standby that transaction is ended and another one begins, after its replay time is read. What the
    snapshot has is read in the second one.

    asyncpg's transaction block is not used: it would send ROLLBACK while a statement is still running.

    Raises:
        Rejected: the server is older than :data:`OLDEST_POSTGRES`.
        Retryable: a pooler sends each transaction to another server.
    """
    first = await _read_server_state(connection, initial_sql, session)
    if not first.is_standby:
        return Snapshot(connection, first.began, first.began, timeout, first.initial_value)
    for _ in range(REPLAY_READS):
        # The replay time must be read before the snapshot is taken. Only now it is known to be a standby.
        await connection.execute("ROLLBACK", timeout=30)
        server, _, replay_time = (await single_value(connection, REPLAY_TIME_QUERY, 30)).partition("\t")
        await connection.execute(script, timeout=30)
        state = await _read_server_state(connection, initial_sql, session)
        if state.server == server:
            break
    else:
        raise Retryable(
            "source database: the pooler has changed the server after a standby was asked how far it has come"
        )
    replayed = parse_replay_time(replay_time)
    return Snapshot(
        connection,
        min(first.began, replayed or first.began).astimezone(UTC),
        state.began,
        timeout,
        state.initial_value,
        is_standby=True,
        replayed_until=replayed,
    )


async def _read_server_state(
    connection: "PoolConnectionProxy[asyncpg.Record]", initial_sql: str | None, session: Mapping[str, str]
) -> _ServerState:
    """Set the settings of ``session`` in a transaction that has just begun, and read what its server says.

    Raises:
        Rejected: the server is older than :data:`OLDEST_POSTGRES`.
    """
    await _set_values(connection, session)
    sql = f"{_SERVER_FACTS}, {initial_sql or 'NULL'}"
    began, version, in_recovery, server, value = (await single_value(connection, sql, 30)).split("\t")
    if int(version) < OLDEST_POSTGRES * 10_000:
        major, minor = divmod(int(version), 10_000)
        raise Rejected(
            f"the source database is PostgreSQL {major}.{minor}; {OLDEST_POSTGRES} and later are supported",
            code="unsupported_source",
        )
    return _ServerState(datetime.fromisoformat(began), in_recovery == "t", server, value)


async def _set_values(connection: "PoolConnectionProxy[asyncpg.Record]", session: Mapping[str, str]) -> None:
    """Set the settings of ``session`` until the transaction ends."""
    if session:
        await connection.execute(SET_VALUES, list(session), list(session.values()), timeout=BEGIN_SECONDS)


async def joined_snapshot(
    connection: "PoolConnectionProxy[asyncpg.Record]",
    timeout: float,
    initial_sql: str | None,
    session: Mapping[str, str],
    shared: str,
) -> Snapshot:
    """Return the snapshot of a transaction that has begun with that of another one, which checked the server.

    Raises:
        SnapshotLost: the connection leads to another server.
    """
    await _set_values(connection, session)
    sql = f"SELECT pg_catalog.transaction_timestamp(), {SNAPSHOT_CHECK}, {initial_sql or 'NULL'}"
    began, check, value = (await single_value(connection, sql, 30)).split("\t")
    if check != shared.partition(" ")[2]:
        raise SnapshotLost("source database: another snapshot has the same id")
    as_of = datetime.fromisoformat(began)
    return Snapshot(connection, as_of, as_of, timeout, value)


async def has_not_crashed_since(
    began: datetime, connect: Callable[..., Awaitable["asyncpg.Connection[asyncpg.Record]"]]
) -> bool:
    """Return whether the server is up and has not started or crashed since ``began``, by its own clock.

    If so, the statement did not crash the server, and the session was ended from outside: after a crash of
    one process PostgreSQL restarts all of them and resets its statistics.
    """
    with suppress(*DRIVER_ERRORS):
        connection = await connect(timeout=CRASH_CHECK_SECONDS, statement_cache_size=0)
        try:
            sql = _CRASHED_SINCE.format(began=began.isoformat())
            return await single_value(connection, sql, CRASH_CHECK_SECONDS) == "f"
        finally:
            connection.terminate()
    return False
