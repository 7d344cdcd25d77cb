"""How far a standby has come, in the time of its primary. Pure.

A standby's clock says nothing about its rows: what was committed at the primary a minute ago may not be
there yet. Nothing in the sessions that ask this can be relied on, so the time is written out in full.
"""

from datetime import UTC, datetime

POSITION = """
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


def parsed(text: str) -> datetime | None:
    """What :data:`POSITION` yields, as COPY writes it."""
    return None if text in ("", "\\N") else datetime.fromisoformat(text).replace(tzinfo=UTC)
