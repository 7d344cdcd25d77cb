"""Deliveries of several jobs that share paths at a destination: one of them at a time writes there.

A delivery that begins to write or to remove files writes the number of its attempt into its progress
(``writing``). It does so in a transaction that holds an advisory lock for the destination and the path, and
only if no other delivery writes there. So two cannot write at the same time: the second transaction waits for
the commit of the first, and then reads what it has written. Of several that wait, one always goes on.

A delivery writes as long as it is ``sending``, its claim is alive, and the attempt is the noted one. A worker
ends its transfer before its claim ends.

The list of the files, the manifest, can have a path that other jobs share, where their files have none. A
delivery writes that path into its progress (``manifest``) before it writes the list, in the same way.

Two paths are the same if the destination, the bucket and the path with its prefix are. The host, the port,
the user, the endpoint and the pattern of the paths do not count: a host can have several names, and a worker
can have the datasets file of before. So at a new host a job also waits for those that are sent to the old.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import text

from stream_app.db.engine import Connections, transaction
from stream_app.notifications import outbox_sql as sql
from stream_app.notifications.models import Channel
from stream_app.notifications.notification import Notification

# Workers of earlier versions take the first lock alone. All take it first, so none waits for another one that
# waits for it.
_LOCK = text(
    """
    SELECT pg_advisory_xact_lock(hashtextextended(CAST(:place AS text) || ' ' || CAST(:path AS text), 0)),
           pg_advisory_xact_lock(
               hashtextextended(
                   concat_ws(' ', 'path', lower(:address), CAST(:bucket AS text), CAST(:path AS text)), 0
               )
           )
    """
)

# A delivery of an earlier version has no bucket on record. It counts as the same one.
_OTHER = f"""other.job_id <> :job_id AND other.channel = '{Channel.DESTINATION}'
    AND lower(other.address) = lower(:address) AND coalesce(other.progress ->> 'bucket', :bucket) = :bucket"""

# Both parts read few rows, however many deliveries the destination has had: the first uses the index of
# deliveries that are being sent, the second that of the jobs by their time of creation. The time is a
# parameter, and the jobs are read first, because PostgreSQL cannot estimate the conditions on the progress.
_NOW = text(
    f"""
    WITH later AS MATERIALIZED (SELECT id FROM export_jobs WHERE created_at > :requested_at)
    SELECT EXISTS (
        SELECT FROM deliveries AS other
        WHERE other.status = 'sending' AND other.lease_until > now() AND {_OTHER}
            AND other.progress ->> CAST(:key AS text) = :path
            AND other.progress ->> 'writing' = CAST(other.attempts AS text)
    ) AS is_writing, EXISTS (
        SELECT FROM later CROSS JOIN LATERAL (
            SELECT * FROM deliveries WHERE job_id = later.id OFFSET 0
        ) AS other
        WHERE other.status = 'sent' AND {_OTHER} AND other.progress ->> CAST(:key AS text) = :path
    ) AS is_newer
    """
)

# A job can be sent again long after its creation, so all deliveries to the destination are read. Version
# 0.2.0 recorded no path. Only attempts after the first, and removals, need this.
_BEFORE = text(
    f"""
    SELECT coalesce(max(coalesce(theirs.file_count, 1)) FILTER (WHERE other.status IN ('sent', 'sending')), 0)
               AS files,
           coalesce(bool_or(other.finished_at IS NULL OR other.finished_at >= own.created_at), false) AS wrote
    FROM deliveries AS own
    JOIN deliveries AS other ON {_OTHER} AND (
            other.progress ->> 'path' = :path
            OR other.progress ->> 'path' IS NULL AND other.progress ->> 'place' = :place
        ) AND coalesce(other.progress ->> 'writing', '1') <> '0'
    LEFT JOIN export_jobs AS theirs ON theirs.id = other.job_id
    WHERE own.id = :id
    """
)


# All deliveries to the destination are read. Only deliveries that find files of others need this, or whose
# keys can only write. Of what ended before a set that was sent alone, nothing is left beyond that set.
_LARGEST_SET = text(
    f"""
    WITH others AS (
        SELECT coalesce(theirs.file_count, 1) AS files, other.status, other.finished_at,
               other.progress ->> 'alone' AS alone
        FROM deliveries AS other JOIN export_jobs AS theirs ON theirs.id = other.job_id
        WHERE {_OTHER} AND other.progress ->> 'path' = :path
            AND coalesce(other.progress ->> 'writing', '1') <> '0'
    )
    SELECT coalesce(max(files), 0) FROM others
    WHERE finished_at IS NULL OR finished_at >= coalesce(
        (SELECT max(finished_at) FROM others WHERE status = 'sent' AND alone = 'true'), finished_at
    )
    """
)


@dataclass(frozen=True, slots=True)
class OthersAtPath:
    """What other jobs do, and have done, at a path of a destination that they share with a delivery.

    Attributes:
        is_writing: whether files of another job are being written or removed there.
        is_newer: whether a job that was requested later was sent there.
        files: the largest number of files of a job that was sent there. Only for later attempts and removals,
            and not for the list of the files.
        wrote: whether a job possibly has written there since the delivery was planned. Only for these, too.
        is_held: whether the delivery has begun, or for a removal whether its progress was recorded; else its
            claim is lost, or another job forbids it.
    """

    is_writing: bool
    is_newer: bool
    files: int
    wrote: bool
    is_held: bool


async def begin_at_path(
    connections: Connections,
    notification: Notification,
    progress: Mapping[str, Any],
    *,
    lease: timedelta,
    is_removal: bool,
    key: Literal["path", "manifest"] = "path",
) -> OthersAtPath:
    """Let a delivery begin to write to a path that other jobs have too, or to remove its files there.

    A delivery does not begin while another one writes, nor to write after a newer job was sent. A removal
    begins nevertheless: files at shared paths must stay then.

    Args:
        connections: connections to the state database.
        notification: the claimed delivery.
        progress: its progress, with the place and the path. If it begins, it is recorded with ``writing``.
        lease: how long its claim holds from now on.
        is_removal: whether it removes files. A removal does not need the files of the job.
        key: which path of the progress it is: that of the first file, or that of the list of the files.

    Raises:
        Retryable: the database is away.
        InDoubt: the connection was lost during the commit.
    """
    where = _where(notification, progress, key)
    requested = notification.requested
    # Without its record, a job counts as older than all others.
    requested_at = requested.requested_at if requested is not None else datetime.min.replace(tzinfo=UTC)
    async with transaction(connections) as connection:
        await connection.execute(_LOCK, where)
        now = (await connection.execute(_NOW, {**where, "key": key, "requested_at": requested_at})).one()
        files, wrote, is_held = 0, False, False
        if key == "path" and (is_removal or notification.attempt > 1):
            found = (await connection.execute(_BEFORE, {**where, "id": notification.delivery_id})).one()
            files, wrote = found.files, found.wrote
        begins = not now.is_writing and (is_removal or not now.is_newer)
        unbegun = progress if key == "path" else {**progress, "manifest": None}
        if begins or is_removal:
            values = {
                "id": notification.delivery_id,
                "attempt": notification.attempt,
                "lease": lease,
                "progress": {**progress, "writing": notification.attempt} if begins else unbegun,
            }
            statement = sql.RECORD if is_removal else sql.RENEW
            is_held = bool((await connection.execute(statement, values)).all())
    return OthersAtPath(now.is_writing, now.is_newer, files, wrote, is_held)


async def largest_set(
    connections: Connections, notification: Notification, progress: Mapping[str, Any]
) -> int:
    """Return the largest number of files of another job that are possibly at the path of a delivery.

    Raises:
        Retryable: the database is away.
    """
    async with transaction(connections) as connection:
        found = await connection.execute(_LARGEST_SET, _where(notification, progress, "path"))
        return int(found.scalar_one())


def _where(notification: Notification, progress: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {
        "job_id": notification.job_id,
        "address": notification.address,
        "place": progress["place"],
        "bucket": progress.get("bucket", ""),
        "path": progress[key],
    }
