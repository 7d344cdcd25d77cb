"""Lifecycle events as changes of the job's record: the only writer of terminal states."""

from typing import Any

from sqlalchemy import Row, case, update
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.events import Event
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import OUTCOMES, Status, predecessors
from stream_app.jobs.story import TOLD


async def apply(connection: AsyncConnection, event: Event) -> Row[Any] | None:
    """Write what a lifecycle event says; returns what is told of the record, or ``None`` if nothing changed.

    Only the attempt that the record is at can end it, and only along the transition table, so
    repetitions, replays and events of lost attempts change nothing.
    """
    target = OUTCOMES.get(event.type)
    if target is None:
        return None
    data = event.lifecycle
    known: dict[str, Any] = {
        name: value
        for name, value in {
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
        }.items()
        if value is not None
    }
    if target is Status.COMPLETED and data.expires_at is not None:
        cancelled = ExportJob.cancel_requested_at.is_not(None)
        known["expires_at"] = case((cancelled, ExportJob.cancel_requested_at), else_=data.expires_at)
    statement = (
        update(ExportJob)
        .where(
            ExportJob.id == data.job_id,
            ExportJob.attempt == data.attempt,
            ExportJob.status.in_(predecessors(target)),
        )
        .values(status=target, outcome=None, lease_until=None, **known)
        .returning(*TOLD)
    )
    return (await connection.execute(statement)).one_or_none()
