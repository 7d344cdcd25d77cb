"""Requests exports in a transaction of SQLAlchemy; needs the extra ``sqlalchemy``."""

from typing import Protocol
from uuid import UUID

from streaming_exporter.events import RequestIdentity
from streaming_exporter.outbox.entries import SOURCE, NewEntry, cancel_entry, request_entry
from streaming_exporter.outbox.tables import OutboxEvent


class OutboxSession(Protocol):
    """A session: ``Session``, ``AsyncSession``, or one of their scoped sessions."""

    def add(self, instance: object) -> None:
        """Insert the object when the session is flushed."""
        ...


def request_export(
    session: OutboxSession,
    request: RequestIdentity,
    *,
    job_id: UUID | None = None,
    source: str = SOURCE,
    traceparent: str | None = None,
) -> UUID:
    """Request an export in the transaction of ``session``; return the id of its job.

    The export is requested when the transaction is committed, and not at all if it is rolled back. It is the
    same call for ``Session`` and ``AsyncSession``, and never waits: the session inserts the row when it is
    flushed.

    Args:
        session: the session, whose database has the tables of the outbox.
        request: what to export.
        job_id: the id of the job. The same id again is the same job. Default: a new one.
        source: the ``source`` of the event, such as ``/services/billing``.
        traceparent: the trace that the job belongs to (W3C).

    Raises:
        Rejected: a field of the request has become invalid since it was made.
        Unreadable: the service could not read the event, for example because of a NUL character.
        TooLarge: the event is too large for Kafka.
    """
    return _add(session, request_entry(request, job_id=job_id, source=source, traceparent=traceparent))


def cancel_export(
    session: OutboxSession,
    job_id: UUID,
    *,
    by: str | None = None,
    source: str = SOURCE,
    traceparent: str | None = None,
) -> None:
    """Request the cancellation of a job in the transaction of ``session``; ``by`` is the user who cancels."""
    _add(session, cancel_entry(job_id, source=source, by=by, traceparent=traceparent))


def _add(session: OutboxSession, entry: NewEntry) -> UUID:
    session.add(OutboxEvent(job_id=entry.job_id, type=entry.type, payload=entry.payload, size=entry.size))
    return entry.job_id
