"""The settings of each transaction on the source database. Pure.

A file must not depend on the configuration of the role, the database or the server, nor on settings that
another client left in a pooler's session. So connections start without settings, and each transaction sets
all of them with ``SET LOCAL``. That also works through a pooler with another session for each transaction,
and ends with the transaction.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from stream_app.exports.columns import quote_name, quote_text

PINNED: dict[str, str] = {
    # The text of values.
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "timezone_abbreviations": "Default",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "quote_all_identifiers": "off",
    "xmlbinary": "base64",
    "xmloption": "content",
    # How the server parses a statement and its constants.
    "array_nulls": "on",
    "backslash_quote": "safe_encoding",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    # Which rows a query finds, and their order if the query has none.
    "gin_fuzzy_search_limit": "0",
    "row_security": "on",
    "synchronize_seqscans": "off",
    # Limits that would end an export: only the service's own limits count.
    "exit_on_error": "off",
    "restrict_nonsystem_relation_kind": "",
    "transaction_timeout": "0",
}
"""Settings that change the result of a statement, with their values. A server skips those that it lacks."""

PINNED_ON_LINUX: dict[str, str] = {
    # A busy server checks whether the client is still connected. Without it a cancelled statement continues
    # until it has a row to send. Available from PostgreSQL 14 on.
    "client_connection_check_interval": "1s",
    # It would end an export to a slow object store: for TCP a full receive buffer is no answer.
    "tcp_user_timeout": "0",
}
"""Further settings of a server on Linux. Servers on other systems can refuse them."""

IDLE_SECONDS = 60
"""The server ends a transaction after this time without a statement: its client has stopped working."""

IDLE_LIMIT = "idle_in_transaction_session_timeout"

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE"

_PIN = """
SELECT count(set_config(name, value, true))
FROM (VALUES {values}) AS pinned (name, value, linux)
WHERE current_setting(name, true) <> value AND (NOT linux OR version() LIKE '%linux%')
"""
"""To compare is cheaper than to set. A setting that the server lacks is NULL."""


SET_VALUES = """
SELECT pg_catalog.count(pg_catalog.set_config(name, value, true))
FROM ROWS FROM (
    pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])
) AS given (name, value)
"""
"""Sets settings until the transaction ends. They are parameters: other sessions see only this text."""


def begin_script(
    name: str,
    *,
    statement_seconds: float,
    lock_seconds: float = 0,
    search_path: Sequence[str] | None = None,
    shared_snapshot: str | None = None,
    indexes_only: bool = False,
) -> str:
    """Return the script that begins a transaction in one round trip.

    Args:
        name: the ``application_name`` of the session.
        statement_seconds: limit of each statement; 0 means no limit.
        lock_seconds: limit of each wait for a lock; 0 means no limit.
        search_path: schemas for names without one, after ``pg_catalog``; ``None`` for the role's own path.
        shared_snapshot: id of the snapshot to take; ``None`` for a new one.
        indexes_only: whether the transaction reads one range of the rows, with a snapshot of its own.
    """
    limits = {
        "application_name": name,
        IDLE_LIMIT: f"{IDLE_SECONDS}s",
        "lock_timeout": f"{lock_seconds * 1000:.0f}",
        "statement_timeout": f"{statement_seconds * 1000:.0f}",
    }
    if shared_snapshot is not None:
        limits |= shared_settings(statement_seconds)
    if indexes_only:
        limits |= INDEXES_ONLY
    rows = [*_PINNED_ROWS, *(_row(name, value, linux=False) for name, value in limits.items())]
    path = "DEFAULT" if search_path is None else search_path_sql(search_path)
    return ";".join(
        (
            _BEGIN,
            # PostgreSQL takes it only before the first query of the transaction.
            *([] if shared_snapshot is None else [f"SET TRANSACTION SNAPSHOT {quote_text(shared_snapshot)}"]),
            # First, so that the next statements call no function or operator of another schema.
            "SET LOCAL search_path = pg_catalog",
            _PIN.format(values=", ".join(rows)),
            f"SET LOCAL search_path = {path}",
        )
    )


def search_path_sql(schemas: Sequence[str]) -> str:
    """Return the value of ``search_path``: names are looked up in ``pg_catalog``, then in ``schemas``."""
    return ", ".join(map(quote_name, ("pg_catalog", *schemas, "pg_temp")))


def shared_settings(idle_seconds: float) -> dict[str, str]:
    """Return the settings of transactions that share a snapshot. Each of them reads ranges of the rows.

    A stream of an export is idle while the rows that it has read wait for the upload. And it must not read
    the whole table for one range of values: the planner assumes that an index of several columns leads to
    rows in a random order, but the ranges were made because the order is not random.
    """
    return {IDLE_LIMIT: f"{idle_seconds:.0f}s", **INDEXES_ONLY}


INDEXES_ONLY = {"enable_seqscan": "off", "jit": "off"}
"""The planner reads the whole table only if no index can be used.

Before PostgreSQL 18 a sequential scan that cannot be avoided, such as one of a small table in a row-level
policy, counts as very expensive then. PostgreSQL would compile the statement of each range, which takes
longer than to read the range.
"""


def _row(name: str, value: str, *, linux: bool) -> str:
    return f"({quote_text(name)}, {quote_text(value)}, {str(linux).lower()})"


_PINNED_ROWS = (
    *(_row(name, value, linux=False) for name, value in PINNED.items()),
    *(_row(name, value, linux=True) for name, value in PINNED_ON_LINUX.items()),
)

SERVER_IDENTITY = """pg_catalog.to_char(
    pg_catalog.pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'
)"""
"""An SQL expression that differs between servers, and is the same in all sessions of one server.

It is the server's start to the microsecond. The copies of one database have the same system identifier.
"""

REPLAY_TIME_QUERY = f"""
SELECT {SERVER_IDENTITY}, pg_catalog.to_char(GREATEST(
    pg_catalog.pg_last_xact_replay_timestamp(),
    CASE WHEN pg_catalog.pg_last_wal_receive_lsn() OPERATOR(pg_catalog.=) pg_catalog.pg_last_wal_replay_lsn()
    THEN (
        SELECT CASE
            WHEN receiver.status IS NOT NULL THEN
                CASE WHEN receiver.latest_end_lsn OPERATOR(pg_catalog.<=) pg_catalog.pg_last_wal_replay_lsn()
                THEN receiver.last_msg_send_time END
            WHEN pg_catalog.current_setting('wal_receiver_timeout') OPERATOR(pg_catalog.<>) '0' THEN
                pg_catalog.clock_timestamp()
                OPERATOR(pg_catalog.-) pg_catalog.current_setting('wal_receiver_timeout')::pg_catalog.interval
            END
        FROM pg_catalog.pg_stat_wal_receiver AS receiver
        WHERE receiver.pid IS NOT NULL
    ) END
) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
"""
"""The server, and the time up to which a standby has all commits of its primary; NULL if it is unknown.

The time is that of the last commit that was replayed. An idle primary has no new commits: then it is the time
of the primary's last message, if everything sent by then is replayed. A role without ``pg_read_all_stats``
cannot see that time. For such a role it is the standby's clock minus ``wal_receiver_timeout``, the longest
silence that a receiver accepts.

This query must run *before* the snapshot is taken, so it is outside of the snapshot's transaction. A pooler
can send that transaction to another server: there :data:`SERVER_IDENTITY` has another value.
"""


def parse_replay_time(text: str) -> datetime | None:
    """Return the time of :data:`REPLAY_TIME_QUERY` that COPY wrote as ``text``."""
    return None if text in ("", "\\N") else datetime.fromisoformat(text).replace(tzinfo=UTC)
