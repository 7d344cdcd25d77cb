"""The projector: applies lifecycle events to the table of jobs. Only it writes terminal states."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.db.statements import Statement
from stream_app.exports.files.compression import COMPRESSIONS
from stream_app.exports.files.media_types import outer_media_type
from stream_app.exports.formats.base import Format
from stream_app.jobs.states import OUTCOMES, Status, predecessors
from stream_app.jobs.summary import ENDED_COLUMNS, EndedJob
from stream_app.storage.listing import ATTEMPTS_PREFIX
from stream_app.storage.manifest import MANIFEST, MANIFEST_TYPE
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Event, LifecycleData

COMPRESSED = frozenset(compression.media_type for compression in COMPRESSIONS.values())


_KEY = re.compile(rf"([^/]+/)*{ATTEMPTS_PREFIX}/(?P<job>[^/]+)/(?P<attempt>[^/-]+)(-[^/]+)?/[^/]+")
"""The key of a file of an attempt."""


def validate_outcome(event: Event, *, formats: Mapping[str, Format], kept: timedelta, now: datetime) -> Event:
    """Return the outcome to apply. Values that are wrong but harmless are corrected.

    Args:
        event: a lifecycle event with an outcome.
        formats: the formats by name.
        kept: how long files of new completions are kept at most.
        now: the time by the database's clock.

    Raises:
        Unreadable: the event contradicts itself, or its key is not the key of a file of this attempt.
    """
    data = event.lifecycle
    status = OUTCOMES[event.type]
    if data.job_id != event.job_id:
        raise Unreadable(f"data.job_id: {data.job_id} is not the subject, {event.job_id}")
    if data.status != status:
        raise Unreadable(f"data.status: {data.status!r} contradicts the type, {event.type}")
    if data.key is not None and not _is_own(data):
        raise Unreadable(f"data.key: {data.key!r:.200} is no file of attempt {data.attempt} of {data.job_id}")
    changed = _corrected(data, formats, kept, now)
    if not changed:
        return event
    believed = event.model_copy(update={"data": {**event.data, **changed}})
    believed.__dict__.pop("lifecycle", None)  # the cached value of the data before
    return believed


def _is_own(data: LifecycleData) -> bool:
    """Return whether the key is ``…/jobs/<job>/<attempt>/<file>``. The prefix is a setting and can change."""
    found = _KEY.fullmatch(data.key or "")
    if found is None or (found["job"], found["attempt"]) != (str(data.job_id), str(data.attempt)):
        return False
    return {".", ".."}.isdisjoint(found[0].split("/"))


def _corrected(
    data: LifecycleData, formats: Mapping[str, Format], kept: timedelta, now: datetime
) -> dict[str, Any]:
    """Return corrected values for the fields whose values no worker would have sent."""
    changed: dict[str, Any] = {}
    name = (data.key or "").rpartition("/")[2]
    if data.key is not None and data.file_name is not None and data.file_name != name:
        changed["file_name"] = name
    file_format = formats.get(data.format)
    if data.content_type is not None:
        outer = MANIFEST_TYPE if name == MANIFEST else outer_media_type(name)
        plain = file_format.media_type if file_format is not None else None
        known = {outer} if name == MANIFEST else {outer, plain, *COMPRESSED}
        if data.content_type not in known:
            changed["content_type"] = outer or plain
    # The event of an expiry only says when it was. Its file can be older than a shorter retention.
    if data.expires_at is not None and data.status == Status.COMPLETED:
        latest = min(data.completed_at or now, now) + kept
        if data.expires_at > latest:
            changed["expires_at"] = latest.isoformat()
    return changed


_KNOWN = (
    *("row_count", "file_size", "sha256", "file_path", "file_name", "file_count", "content_type", "as_of"),
    "manifest",
    *("completed_at", "error_code", "error_message"),
)
_SET = ", ".join(f"{name} = coalesce(event.{name}, job.{name})" for name in _KNOWN)
_STEPS = ", ".join(
    f"('{before}', '{target}')" for target in OUTCOMES.values() for before in sorted(predecessors(target))
)
_SAME_REQUEST = " AND ".join(f"job.{name} = event.{name}" for name in ("user_id", "export_type", "format"))
"""Condition: user, dataset and format are those of the row. Otherwise the event is about another job."""

_NEW = (
    "id",
    "user_id",
    "export_type",
    "format",
    "name",
    "status",
    "attempt",
    "created_at",
    "started_at",
    "expires_at",
)

# All events are one parameter, a JSON array. They are sorted, so that two statements seldom wait for each
# other. In a deadlock PostgreSQL cancels one of them, and its batch is handled again.
#
# An outcome is stored before its event is published (docs/decisions/0001). So an event without a stored
# outcome is read again, after the table was restored to an earlier time. It is applied even if the row has an
# earlier attempt, or if there is no row, and no notification is sent again. A job with a stored outcome is
# ended by the event of this outcome only.
_APPLY = Statement(
    f"""
    WITH event AS MATERIALIZED (
        SELECT * FROM jsonb_populate_recordset(NULL::export_jobs, CAST(:rows AS jsonb))
    ), held AS MATERIALIZED (
        SELECT * FROM (
            SELECT job.id, true AS had_stored_outcome FROM event JOIN export_jobs AS job ON job.id = event.id
            WHERE {_SAME_REQUEST} AND job.outcome IS NOT NULL AND job.attempt = event.attempt
                AND job.outcome ->> 'status' = event.status
                AND job.outcome ->> 'key' IS NOT DISTINCT FROM event.file_path
                AND CAST(job.outcome ->> 'completed_at' AS timestamptz)
                    IS NOT DISTINCT FROM event.completed_at
            FOR UPDATE OF job SKIP LOCKED
        ) AS with_outcome
        UNION ALL
        SELECT * FROM (
            SELECT job.id, false AS had_stored_outcome FROM event JOIN export_jobs AS job ON job.id = event.id
            WHERE {_SAME_REQUEST} AND job.outcome IS NULL AND (
                job.attempt = event.attempt AND (job.status, event.status) IN ({_STEPS})
                OR job.attempt < event.attempt AND job.status IN ('pending', 'processing')
            )
            FOR UPDATE OF job
        ) AS without_outcome
    ), changed AS (
        UPDATE export_jobs AS job
        SET status = event.status, attempt = event.attempt, outcome = NULL, lease_until = NULL, {_SET},
            expires_at = CASE
                WHEN event.status = '{Status.COMPLETED}' AND event.expires_at IS NOT NULL
                THEN coalesce(job.cancel_requested_at, event.expires_at)
                ELSE coalesce(event.expires_at, job.expires_at)
            END,
            -- A file that was removed before its expiry has a time of cancellation.
            cancel_requested_at = CASE
                WHEN event.status = '{Status.EXPIRED}' AND event.expires_at < job.expires_at
                THEN coalesce(job.cancel_requested_at, event.expires_at)
                ELSE job.cancel_requested_at
            END
        FROM event JOIN held USING (id)
        WHERE job.id = event.id
        RETURNING held.had_stored_outcome, {", ".join(f"job.{column.name}" for column in ENDED_COLUMNS)}
    ), restored AS (
        INSERT INTO export_jobs ({", ".join((*_NEW, *_KNOWN))}, admitted_at)
        SELECT {", ".join(f"event.{name}" for name in (*_NEW, *_KNOWN))}, event.created_at FROM event
        WHERE event.created_at > now() - CAST(:history AS interval)
            AND (event.file_path IS NULL OR strpos('/' || event.file_path, '/' || event.id || '/') > 0)
            AND NOT EXISTS (SELECT FROM export_jobs AS job WHERE job.id = event.id)
        ORDER BY event.id
        ON CONFLICT (id) DO NOTHING
    )
    SELECT * FROM changed
    """
)


async def apply_events(
    connection: AsyncConnection, events: Iterable[Event], *, history: timedelta = timedelta(days=400)
) -> list[tuple[Event, EndedJob]]:
    """Apply lifecycle events to the table.

    Only the attempt of the row, or a later one, can end a job, and only along the transition table. So
    repeated events and events of lost attempts change nothing. A job that is not on record, and ended within
    ``history``, is inserted, so that its request does not run again when it is read again. A row with an
    outcome that another transaction holds is skipped: the outcome is published until it is applied.

    Returns:
        The events that changed a row, each with the row.
    """
    applied: list[tuple[Event, EndedJob]] = []
    for once in _rounds([event for event in events if event.type in OUTCOMES]):
        rows = to_json([_row(event) for _, event in sorted(once.items())]).decode()
        changed = await _APPLY.fetch(connection, {"rows": rows, "history": history})
        applied += [(once[row.id], EndedJob(**row)) for row in changed]
    return applied


def _rounds(events: Sequence[Event]) -> Iterator[dict[UUID, Event]]:
    """Group the events into rounds with at most one event per job.

    One statement can change a row only once.
    """
    while events:
        once: dict[UUID, Event] = {}
        later = [event for event in events if once.setdefault(event.job_id, event) is not event]
        yield once
        events = later


def _row(event: Event) -> dict[str, Any]:
    """Return the values of the row's columns."""
    data = event.lifecycle
    return {
        "id": data.job_id,
        "attempt": data.attempt,
        "status": OUTCOMES[event.type],
        "user_id": data.user_id,
        "export_type": data.export_type,
        "format": data.format,
        "name": data.name,
        "created_at": data.started_at or data.completed_at or event.time,
        "started_at": data.started_at,
        "row_count": data.row_count,
        "file_size": data.file_size,
        "sha256": data.sha256,
        "file_path": data.key,
        "file_name": data.file_name,
        "file_count": data.file_count,
        "content_type": data.content_type,
        "as_of": data.as_of,
        "manifest": data.manifest,
        "completed_at": data.completed_at,
        "expires_at": data.expires_at,
        "error_code": data.error and data.error.code,
        "error_message": data.error and data.error.message,
    }
