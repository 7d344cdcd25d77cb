"""What every transaction on the source sets for itself. Pure.

A file must not depend on how the role, the database or the server is configured, nor on what another client
left in a session behind a pooler. So nothing is set when a connection starts, and everything is set with
``SET LOCAL`` in the transaction that reads: it works through a pooler that gives each transaction another
session, and ends with the transaction.
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
    # How a statement and its constants are read.
    "array_nulls": "on",
    "backslash_quote": "safe_encoding",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    # Which rows there are, and in which order they come where none is asked for.
    "gin_fuzzy_search_limit": "0",
    "row_security": "on",
    "synchronize_seqscans": "off",
    # What would end an export: the service's own limits decide.
    "exit_on_error": "off",
    "restrict_nonsystem_relation_kind": "",
    "transaction_timeout": "0",
}
"""Settings that change what a statement yields, and their values.

Those that a server does not have are left out.
"""

PINNED_ON_LINUX: dict[str, str] = {
    # A server that is busy looks whether anybody still wants the answer. Otherwise what was given up runs on
    # until it has a row to send. Servers before 14 cannot.
    "client_connection_check_interval": "1s",
    # It would end an export whose object store is slow: a full receive buffer counts as silence.
    "tcp_user_timeout": "0",
}
"""The same for a server on Linux; elsewhere it may refuse them."""

IDLE_SECONDS = 60
"""After so long without a statement the server ends a transaction: whoever began it stands still."""

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE"

_PIN = """
SELECT count(set_config(name, value, true))
FROM (VALUES {values}) AS pinned (name, value, linux)
WHERE current_setting(name, true) <> value AND (NOT linux OR version() LIKE '%linux%')
"""
"""Comparing is cheaper than setting, and a setting that the server does not have is NULL."""


def begin_script(
    name: str,
    *,
    statement_seconds: float,
    lock_seconds: float = 0,
    search_path: Sequence[str] | None = None,
) -> str:
    """The script that begins a transaction, in one round trip.

    ``name`` becomes its ``application_name``. ``statement_seconds`` and ``lock_seconds`` limit each statement
    and each wait for a lock; 0 is no limit. ``path`` are the schemas that names without one are looked up in,
    after ``pg_catalog``; ``None``: those that the role is configured with.
    """
    limits = {
        "application_name": name,
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
        "lock_timeout": f"{lock_seconds * 1000:.0f}",
        "statement_timeout": f"{statement_seconds * 1000:.0f}",
    }
    rows = [
        *(_row(name, value, linux=False) for name, value in {**PINNED, **limits}.items()),
        *(_row(name, value, linux=True) for name, value in PINNED_ON_LINUX.items()),
    ]
    found = (
        "DEFAULT"
        if search_path is None
        else ", ".join(map(quote_name, ("pg_catalog", *search_path, "pg_temp")))
    )
    return ";".join(
        (
            _BEGIN,
            # First, so that no function or operator of somebody else's is called in what follows.
            "SET LOCAL search_path = pg_catalog",
            _PIN.format(values=", ".join(rows)),
            f"SET LOCAL search_path = {found}",
        )
    )


def _row(name: str, value: str, *, linux: bool) -> str:
    return f"({quote_text(name)}, {quote_text(value)}, {str(linux).lower()})"


REPLAY_TIME_QUERY = """
SELECT pg_catalog.to_char(GREATEST(
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
"""Everything that was committed at the primary before this moment is here; NULL: nobody knows.

The last commit that was replayed says so. Where the primary is idle there is none for long: then it is the
time of its last message, if all that it had sent by then is replayed. A role without ``pg_read_all_stats``
cannot see that time. For it, it is the standby's clock less the longest silence after which a receiver ends.

It must be asked *before* the snapshot that it is to hold for.
"""


def parse_replay_time(text: str) -> datetime | None:
    """What :data:`REPLAY_TIME_QUERY` yields, as COPY writes it."""
    return None if text in ("", "\\N") else datetime.fromisoformat(text).replace(tzinfo=UTC)
