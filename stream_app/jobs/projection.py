"""Lifecycle events as changes of the job's record: the only writer of terminal states."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.events import Event
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import OUTCOMES, Status, predecessors
from stream_app.jobs.story import TOLD

_KNOWN = (
    *("row_count", "file_size", "sha256", "file_path", "file_name", "content_type", "as_of", "manifest"),
    *("completed_at", "error_code", "error_message"),
)
_SET = ", ".join(f"{name} = coalesce(told.{name}, job.{name})" for name in _KNOWN)
_STEPS = ", ".join(
    f"('{before}', '{target}')" for target in OUTCOMES.values() for before in sorted(predecessors(target))
)
_RETURNED = (*TOLD, ExportJob.recipients, ExportJob.webhook)

# All events are one parameter, a JSON array; sorted, so that two of these hardly ever wait for each other.
# Where they do, PostgreSQL ends one, and its batch is dealt with again.
_APPLY = text(
    f"""
    UPDATE export_jobs AS job
    SET status = told.status, outcome = NULL, lease_until = NULL, {_SET},
        expires_at = CASE
            WHEN told.status = '{Status.COMPLETED}' AND told.expires_at IS NOT NULL
            THEN coalesce(job.cancel_requested_at, told.expires_at)
            ELSE coalesce(told.expires_at, job.expires_at)
        END
    FROM jsonb_populate_recordset(NULL::export_jobs, CAST(:rows AS jsonb)) AS told
    WHERE job.id = told.id AND job.attempt = told.attempt AND (job.status, told.status) IN ({_STEPS})
    RETURNING {", ".join(f"job.{column.name}" for column in _RETURNED)}
    """
).columns(*_RETURNED)


async def apply(connection: AsyncConnection, events: Iterable[Event]) -> list[tuple[Event, Row[Any]]]:
    """Write what lifecycle events say; returns those that changed something, and what is told of the record.

    Only the attempt that the record is at can end it, and only along the transition table, so
    repetitions, replays and events of lost attempts change nothing.
    """
    applied: list[tuple[Event, Row[Any]]] = []
    for once in _rounds([event for event in events if event.type in OUTCOMES]):
        rows = to_json([_row(event) for _, event in sorted(once.items())]).decode()
        changed = await connection.execute(_APPLY, {"rows": rows})
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
