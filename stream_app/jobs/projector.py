"""Lifecycle events as changes of the job's record: the only writer of terminal states."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Boolean, Row, column, text
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.exports.compression import COMPRESSIONS
from stream_app.exports.formats.base import Format
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import OUTCOMES, Status, predecessors
from stream_app.jobs.summary import SUMMARY_COLUMNS
from stream_app.storage.listing import ATTEMPTS_PREFIX
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Event, LifecycleData

COMPRESSED = frozenset(compression.media_type for compression in COMPRESSIONS.values())


def validate_outcome(event: Event, *, formats: Mapping[str, Format], kept: timedelta, now: datetime) -> Event:
    """The outcome as it is taken over; ``kept`` is how long files are kept.

    Raises:
        Unreadable: it contradicts itself, or leads to what is not this attempt's.
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
    believed.__dict__.pop("lifecycle", None)  # what was read from the data before
    return believed


def _is_own(data: LifecycleData) -> bool:
    """``…/jobs/<job>/<attempt>/<file>``; what stands before is the deployment's, and can change with time."""
    pattern = rf"([^/]+/)*{ATTEMPTS_PREFIX}/{data.job_id}/{data.attempt}(-[^/]+)?/[^/]+"
    key = data.key or ""
    return re.fullmatch(pattern, key) is not None and not {".", ".."} & set(key.split("/"))


def _corrected(
    data: LifecycleData, formats: Mapping[str, Format], kept: timedelta, now: datetime
) -> dict[str, Any]:
    """What is said instead of what no worker would have said."""
    changed: dict[str, Any] = {}
    if data.key is not None and data.file_name is not None:
        name = data.key.rpartition("/")[2]
        if data.file_name != name:
            changed["file_name"] = name
    output = formats.get(data.format)
    if data.content_type is not None:
        known = {output.media_type} | COMPRESSED if output is not None else COMPRESSED
        if data.content_type not in known:
            changed["content_type"] = output.media_type if output is not None else None
    if data.expires_at is not None:
        latest = min(data.completed_at or now, now) + kept
        if data.expires_at > latest:
            changed["expires_at"] = latest.isoformat()
    return changed


_KNOWN = (
    *("row_count", "file_size", "sha256", "file_path", "file_name", "content_type", "as_of", "manifest"),
    *("completed_at", "error_code", "error_message"),
)
_SET = ", ".join(f"{name} = coalesce(told.{name}, job.{name})" for name in _KNOWN)
_STEPS = ", ".join(
    f"('{before}', '{target}')" for target in OUTCOMES.values() for before in sorted(predecessors(target))
)
_SAME = " AND ".join(f"job.{name} = told.{name}" for name in ("user_id", "export_type", "format"))
"""Who asked for what: an event that says otherwise is of no job that there is."""

_RETURNED = (*SUMMARY_COLUMNS, ExportJob.recipients, ExportJob.webhook)
_NEW = (
    "id",
    "user_id",
    "export_type",
    "format",
    "status",
    "attempt",
    "created_at",
    "started_at",
    "expires_at",
)

# All events are one parameter, a JSON array; sorted, so that two of these hardly ever wait for each other.
# Where they do, PostgreSQL ends one, and its batch is dealt with again.
#
# An outcome is sealed before its event is published (docs/decisions/0001). So an event without a seal is read
# again, after the record was restored to an earlier moment: it is believed, also where the record is at an
# earlier attempt or does not have the job at all, and nobody is told of it a second time. What is sealed only
# its own event ends.
_APPLY = text(
    f"""
    WITH told AS MATERIALIZED (
        SELECT * FROM jsonb_populate_recordset(NULL::export_jobs, CAST(:rows AS jsonb))
    ), held AS MATERIALIZED (
        SELECT * FROM (
            SELECT job.id, true AS sealed FROM told JOIN export_jobs AS job ON job.id = told.id
            WHERE {_SAME} AND job.outcome IS NOT NULL AND job.attempt = told.attempt
                AND job.outcome ->> 'status' = told.status
                AND job.outcome ->> 'key' IS NOT DISTINCT FROM told.file_path
                AND CAST(job.outcome ->> 'completed_at' AS timestamptz) IS NOT DISTINCT FROM told.completed_at
            FOR UPDATE OF job SKIP LOCKED
        ) AS by_seal
        UNION ALL
        SELECT * FROM (
            SELECT job.id, false AS sealed FROM told JOIN export_jobs AS job ON job.id = told.id
            WHERE {_SAME} AND job.outcome IS NULL AND (
                job.attempt = told.attempt AND (job.status, told.status) IN ({_STEPS})
                OR job.attempt < told.attempt AND job.status IN ('pending', 'processing')
            )
            FOR UPDATE OF job
        ) AS without_seal
    ), changed AS (
        UPDATE export_jobs AS job
        SET status = told.status, attempt = told.attempt, outcome = NULL, lease_until = NULL, {_SET},
            expires_at = CASE
                WHEN told.status = '{Status.COMPLETED}' AND told.expires_at IS NOT NULL
                THEN coalesce(job.cancel_requested_at, told.expires_at)
                ELSE coalesce(told.expires_at, job.expires_at)
            END
        FROM told JOIN held USING (id)
        WHERE job.id = told.id
        RETURNING held.sealed, {", ".join(f"job.{column.name}" for column in _RETURNED)}
    ), restored AS (
        INSERT INTO export_jobs ({", ".join((*_NEW, *_KNOWN))}, admitted_at)
        SELECT {", ".join(f"told.{name}" for name in (*_NEW, *_KNOWN))}, told.created_at FROM told
        WHERE told.created_at > now() - CAST(:history AS interval)
            AND (told.file_path IS NULL OR strpos('/' || told.file_path, '/' || told.id || '/') > 0)
            AND NOT EXISTS (SELECT FROM export_jobs AS job WHERE job.id = told.id)
        ORDER BY told.id
        ON CONFLICT (id) DO NOTHING
    )
    SELECT * FROM changed
    """
).columns(column("sealed", Boolean), *_RETURNED)


async def apply_events(
    connection: AsyncConnection, events: Iterable[Event], *, history: timedelta = timedelta(days=400)
) -> list[tuple[Event, Row[Any]]]:
    """Write what lifecycle events say; returns those that changed a record, and what is told of it.

    Only the attempt that the record is at can end it, or a later one, and only along the transition table,
    so repetitions, replays and events of lost attempts change nothing. A job that is not on record and ended
    within ``history`` gets a record, so that its request, when it is read again, does not run it again.

    The record's ``sealed`` says whether the outcome was sealed here; if not, the event is read again after
    the state database was restored, and has been told of already. A sealed record that another transaction
    holds is left out: its outcome is published again until it is applied.
    """
    applied: list[tuple[Event, Row[Any]]] = []
    for once in _rounds([event for event in events if event.type in OUTCOMES]):
        rows = to_json([_row(event) for _, event in sorted(once.items())]).decode()
        changed = await connection.execute(_APPLY, {"rows": rows, "history": history})
        applied += [(once[record.id], record) for record in changed]
    return applied


def _rounds(events: Sequence[Event]) -> Iterator[dict[UUID, Event]]:
    """The events in their order, a job's one after the other: one statement changes a row but once."""
    while events:
        once: dict[UUID, Event] = {}
        later = [event for event in events if once.setdefault(event.job_id, event) is not event]
        yield once
        events = later


def _row(event: Event) -> dict[str, Any]:
    """Values of the record's columns."""
    data = event.lifecycle
    return {
        "id": data.job_id,
        "attempt": data.attempt,
        "status": OUTCOMES[event.type],
        "user_id": data.user_id,
        "export_type": data.export_type,
        "format": data.format,
        "created_at": data.started_at or data.completed_at or event.time,
        "started_at": data.started_at,
        "row_count": data.row_count,
        "file_size": data.file_size,
        "sha256": data.sha256,
        "file_path": data.key,
        "file_name": data.file_name,
        "content_type": data.content_type,
        "as_of": data.as_of,
        "manifest": data.manifest,
        "completed_at": data.completed_at,
        "expires_at": data.expires_at,
        "error_code": data.error and data.error.code,
        "error_message": data.error and data.error.message,
    }
