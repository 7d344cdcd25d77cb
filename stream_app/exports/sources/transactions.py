"""What follows the begin of a transaction on a source: its settings, and the facts about its snapshot."""

from collections.abc import Mapping
from datetime import UTC, datetime

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from stream_app.exports.sources.errors import SnapshotLost, is_lost_snapshot
from stream_app.exports.sources.session import REPLAY_TIME_QUERY, SET_VALUES, parse_replay_time
from stream_app.exports.sources.snapshot import SNAPSHOT_CHECK, Snapshot, single_value
from streaming_exporter.errors import Rejected

OLDEST_POSTGRES = 12
"""The oldest supported major version of PostgreSQL."""

BEGIN_SECONDS = 30.0
"""Time limit for the begin of a transaction. A pooler can let it wait for a connection to the server."""

_SERVER_FACTS = """
SELECT pg_catalog.transaction_timestamp(), pg_catalog.current_setting('server_version_num'),
       pg_catalog.pg_is_in_recovery()"""


async def begun(
    connection: "PoolConnectionProxy[asyncpg.Record]",
    script: str,
    timeout: float,
    initial_sql: str | None,
    session: Mapping[str, str],
) -> Snapshot:
    """Return the snapshot of a transaction that ``script`` has begun.

    asyncpg's transaction block is not used: it would send ROLLBACK while a statement is still running.

    Raises:
        Rejected: the server is older than :data:`OLDEST_POSTGRES`.
    """
    await _set_values(connection, session)
    facts = f"{_SERVER_FACTS}, {initial_sql or 'NULL'}"
    began, version, in_recovery, value = (await single_value(connection, facts, 30)).split("\t")
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
    replayed = parse_replay_time(await single_value(connection, REPLAY_TIME_QUERY, 30))
    await connection.execute(script, timeout=30)
    await _set_values(connection, session)
    known = min(as_of, replayed or as_of).astimezone(UTC)
    return Snapshot(connection, known, as_of, timeout, value, is_standby=True, replayed_until=replayed)


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
