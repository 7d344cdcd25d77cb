"""What follows the begin of a transaction on a source: its settings, and the facts about its snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from stream_app.exports.sources.errors import SnapshotLost, is_lost_snapshot
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
"""Time limit for the begin of a transaction. A pooler can let it wait for a connection to the server."""

_SERVER_FACTS = f"""
SELECT pg_catalog.transaction_timestamp(), pg_catalog.current_setting('server_version_num'),
       pg_catalog.pg_is_in_recovery(), {SERVER_IDENTITY}"""

REPLAY_READS = 3
"""How often a standby's replay time is read while a pooler begins the transaction on another server."""


@dataclass(frozen=True, slots=True)
class _Facts:
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


async def begun(
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
    first = await _facts(connection, initial_sql, session)
    if not first.is_standby:
        return Snapshot(connection, first.began, first.began, timeout, first.initial_value)
    for _ in range(REPLAY_READS):
        # The replay time must be read before the snapshot is taken. Only now it is known to be a standby.
        await connection.execute("ROLLBACK", timeout=30)
        server, _, replay_time = (await single_value(connection, REPLAY_TIME_QUERY, 30)).partition("\t")
        await connection.execute(script, timeout=30)
        facts = await _facts(connection, initial_sql, session)
        if facts.server == server:
            break
    else:
        raise Retryable(
            "source database: the pooler has changed the server after a standby was asked how far it has come"
        )
    replayed = parse_replay_time(replay_time)
    return Snapshot(
        connection,
        min(first.began, replayed or first.began).astimezone(UTC),
        facts.began,
        timeout,
        facts.initial_value,
        is_standby=True,
        replayed_until=replayed,
    )


async def _facts(
    connection: "PoolConnectionProxy[asyncpg.Record]", initial_sql: str | None, session: Mapping[str, str]
) -> _Facts:
    """Set the settings of ``session`` in a transaction that has just begun, and return its facts.

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
    return _Facts(datetime.fromisoformat(began), in_recovery == "t", server, value)


async def _set_values(connection: "PoolConnectionProxy[asyncpg.Record]", session: Mapping[str, str]) -> None:
    """Set the settings of ``session`` until the transaction ends."""
    if session:
        await connection.execute(SET_VALUES, list(session), list(session.values()), timeout=BEGIN_SECONDS)


async def joined(
    connection: "PoolConnectionProxy[asyncpg.Record]",
    script: str,
    timeout: float,
    initial_sql: str | None,
    session: Mapping[str, str],
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
    await _set_values(connection, session)
    facts = f"SELECT pg_catalog.transaction_timestamp(), {SNAPSHOT_CHECK}, {initial_sql or 'NULL'}"
    began, check, value = (await single_value(connection, facts, 30)).split("\t")
    if check != shared.partition(" ")[2]:
        raise SnapshotLost("source database: another snapshot has the same id")
    as_of = datetime.fromisoformat(began)
    return Snapshot(connection, as_of, as_of, timeout, value)
