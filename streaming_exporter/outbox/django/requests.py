"""Requests exports in a transaction of Django."""

from uuid import UUID

from streaming_exporter.errors import UsageError
from streaming_exporter.events import RequestIdentity
from streaming_exporter.outbox.entries import SOURCE, NewEntry, cancel_entry, request_entry

DEFAULT_DATABASE = "default"


def request_export(
    request: RequestIdentity,
    *,
    using: str = DEFAULT_DATABASE,
    job_id: UUID | None = None,
    source: str = SOURCE,
    traceparent: str | None = None,
) -> UUID:
    """Request an export in the running ``transaction.atomic`` block; return the id of its job.

    The export is requested when the block's transaction is committed, and not at all if it is rolled back.

    Args:
        request: what to export.
        using: the alias of the database.
        job_id: the id of the job. The same id again is the same job. Default: a new one.
        source: the ``source`` of the event, such as ``/services/billing``.
        traceparent: the trace that the job belongs to (W3C).

    Raises:
        UsageError: no ``transaction.atomic`` block of that database is running.
        Rejected: a field of the request has become invalid since it was made.
        Unreadable: the service could not read the event, for example because of a NUL character.
        TooLarge: the event is too large for Kafka.
    """
    return _add(using, request_entry(request, job_id=job_id, source=source, traceparent=traceparent))


def cancel_export(
    job_id: UUID,
    *,
    using: str = DEFAULT_DATABASE,
    by: str | None = None,
    source: str = SOURCE,
    traceparent: str | None = None,
) -> None:
    """Request the cancellation of a job in the running ``transaction.atomic`` block, for the user ``by``."""
    _add(using, cancel_entry(job_id, source=source, by=by, traceparent=traceparent))


def _add(using: str, entry: NewEntry) -> UUID:
    from django.db import connections  # models can be imported only when the apps are loaded

    from streaming_exporter.outbox.django.models import OutboxEvent

    if not connections[using].in_atomic_block:
        raise UsageError(
            "an export is requested inside of `with transaction.atomic()`, together with the change that it "
            f"belongs to; no such block of the database {using!r} is running"
        )
    OutboxEvent.objects.using(using).create(
        job_id=entry.job_id, type=entry.type, payload=entry.payload, size=entry.size
    )
    return entry.job_id
