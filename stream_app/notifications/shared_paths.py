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

Files that were sent with other settings are possibly on another machine. So the service asks the destination
whether they are there. It removes no file, and counts no job as replaced, because of the record alone.
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
    ) AS is_writing, coalesce(bool_or(newer.is_here), false) AS is_newer,
           coalesce(bool_or(NOT newer.is_here), false) AS is_newer_elsewhere
    FROM (
        SELECT coalesce(other.progress ->> 'place', :place) = :place AS is_here
        FROM later CROSS JOIN LATERAL (
            SELECT * FROM deliveries WHERE job_id = later.id OFFSET 0
        ) AS other
        WHERE other.status = 'sent' AND {_OTHER} AND other.progress ->> CAST(:key AS text) = :path
    ) AS newer
    """
)

# A job can be sent again long after its creation, so all deliveries to the destination are read. Version
# 0.2.0 recorded no path. Only attempts after the first, and removals, need this.
_BEFORE = text(
    f"""
    SELECT coalesce(max(files) FILTER (WHERE was_sent AND is_here), 0) AS files,
           coalesce(max(files) FILTER (WHERE was_sent AND NOT is_here), 0) AS files_elsewhere,
           coalesce(bool_or(is_later), false) AS wrote
    FROM (
        SELECT coalesce(theirs.file_count, 1) AS files, other.status IN ('sent', 'sending') AS was_sent,
               coalesce(other.progress ->> 'place', :place) = :place AS is_here,
               other.finished_at IS NULL OR other.finished_at >= own.created_at AS is_later
        FROM deliveries AS own
        JOIN deliveries AS other ON {_OTHER} AND (
                other.progress ->> 'path' = :path
                OR other.progress ->> 'path' IS NULL AND other.progress ->> 'place' = :place
            ) AND coalesce(other.progress ->> 'writing', '1') <> '0'
        LEFT JOIN export_jobs AS theirs ON theirs.id = other.job_id
        WHERE own.id = :id
    ) AS others
    """
)


# All deliveries to the destination are read. Only deliveries that find files of others need this, or whose
# keys can only write. Of what ended before a set that was sent alone to the same place, nothing is left there
# beyond that set.
_OTHER_SETS = f"""
    WITH others AS (
        SELECT other.job_id, theirs.file_path, coalesce(theirs.file_count, 1) AS files, other.finished_at,
               other.progress ->> 'place' = :place AS is_here,
               CASE WHEN other.status = 'sent' THEN coalesce(theirs.file_count, 1) ELSE greatest(
                   CAST(other.progress ->> 'files' AS bigint), CAST(other.progress ->> 'sent_files' AS bigint)
               ) END AS sent,
               max(other.finished_at) FILTER (
                   WHERE other.status = 'sent' AND other.progress ->> 'alone' = 'true'
               ) OVER (PARTITION BY other.progress ->> 'place') AS alone_at
        FROM deliveries AS other JOIN export_jobs AS theirs ON theirs.id = other.job_id
        WHERE {_OTHER} AND other.progress ->> 'path' = :path
            AND coalesce(other.progress ->> 'writing', '1') <> '0'
            AND coalesce(other.progress ->> 'removed', 'false') <> 'true'
    ), possible AS (
        SELECT * FROM others WHERE coalesce(finished_at >= alone_at, true)
    )
"""

_SET_SIZES = text(
    f"""
    {_OTHER_SETS}
    SELECT coalesce(max(sent) FILTER (WHERE is_here), 0) AS sent, coalesce(max(files), 0) AS largest
    FROM possible
    """
)

# The last set that has a file with the number has written it. More than one are read, because it is not known
# which of them were sent to another machine.
_CONTENTS = text(
    f"""
    {_OTHER_SETS}
    SELECT listed.file_size, listed.sha256
    FROM possible JOIN export_files AS listed
        ON listed.job_id = possible.job_id AND listed.result = possible.file_path AND listed.number = :number
    GROUP BY listed.file_size, listed.sha256
    ORDER BY max(coalesce(possible.finished_at, 'infinity')) DESC
    LIMIT 10
    """
)


@dataclass(frozen=True, slots=True)
class OthersAtPath:
    """What other jobs do, and have done, at a path of a destination that they share with a delivery.

    Attributes:
        is_writing: whether files of another job are being written or removed there.
        is_newer: whether a job that was requested later was sent there.
        is_newer_elsewhere: whether such a job was sent with other settings of the destination. Its files are
            possibly there, or on another machine.
        files: the largest number of files of a job that was sent there. Only for later attempts and removals,
            and not for the list of the files.
        files_elsewhere: the same of jobs that were sent with other settings of the destination.
        wrote: whether a job possibly has written there since the delivery was planned. Only for these, too.
        is_held: whether the delivery has begun, or for a removal whether its progress was recorded; else its
            claim is lost, or another job forbids it.
    """

    is_writing: bool
    is_newer: bool
    is_newer_elsewhere: bool
    files: int
    files_elsewhere: int
    wrote: bool
    is_held: bool


@dataclass(frozen=True, slots=True)
class SetsAtPath:
    """How many files the sets of other jobs have at the path of a delivery.

    Attributes:
        sent: the largest number of files that were certainly sent to the same place.
        largest: the number of files of the largest set that was sent to the destination, or possibly was,
            with whatever settings.
    """

    sent: int
    largest: int


async def begin_at_path(
    connections: Connections,
    notification: Notification,
    progress: Mapping[str, Any],
    *,
    lease: timedelta,
    is_removal: bool,
    is_free: bool = False,
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
        is_free: whether the destination has said that no file of another job is at the path. Then jobs that
            were sent with other settings do not count.
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
        files, files_elsewhere, wrote, is_held = 0, 0, False, False
        if key == "path" and (is_removal or notification.attempt > 1):
            found = (await connection.execute(_BEFORE, {**where, "id": notification.delivery_id})).one()
            files, files_elsewhere, wrote = found.files, found.files_elsewhere, found.wrote
        is_newer = now.is_newer or (now.is_newer_elsewhere and not is_free)
        begins = not now.is_writing and (is_removal or not is_newer)
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
    return OthersAtPath(
        now.is_writing, now.is_newer, now.is_newer_elsewhere, files, files_elsewhere, wrote, is_held
    )


async def sets_at_path(
    connections: Connections, notification: Notification, progress: Mapping[str, Any]
) -> SetsAtPath:
    """Return how many files the sets of other jobs have at the path of a delivery.

    Raises:
        Retryable: the database is away.
    """
    async with transaction(connections) as connection:
        found = (await connection.execute(_SET_SIZES, _where(notification, progress, "path"))).one()
    return SetsAtPath(found.sent, found.largest)


async def contents_at_path(
    connections: Connections, notification: Notification, progress: Mapping[str, Any], number: int
) -> list[tuple[int, str]]:
    """Return the sizes and digests that files of other jobs with this number have, the last ones first.

    Raises:
        Retryable: the database is away.
    """
    values = {**_where(notification, progress, "path"), "number": number}
    async with transaction(connections) as connection:
        return [(row.file_size, row.sha256) for row in await connection.execute(_CONTENTS, values)]


def _where(notification: Notification, progress: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {
        "job_id": notification.job_id,
        "address": notification.address,
        "place": progress["place"],
        "bucket": progress.get("bucket", ""),
        "path": progress[key],
    }
