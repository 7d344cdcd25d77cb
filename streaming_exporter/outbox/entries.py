"""Entries of the outbox: what is stored of an event, and what the relay reads again. Does no I/O."""

from dataclasses import dataclass
from uuid import UUID

from streaming_exporter.events import Event, RequestIdentity, cancel_event, request_event
from streaming_exporter.request_messages import MAX_EVENT_BYTES, encode_checked

__all__ = [
    "LEASE_NAME",
    "LEASE_TABLE",
    "MAX_EVENT_BYTES",
    "SOURCE",
    "TABLE",
    "Backlog",
    "Entry",
    "NewEntry",
    "cancel_entry",
    "request_entry",
]

SOURCE = "/exporter/outbox"
"""The ``source`` of events whose caller names no other one."""

TABLE = "exporter_outbox"
LEASE_TABLE = "exporter_outbox_lease"
LEASE_NAME = "relay"
"""The only row of :data:`LEASE_TABLE`."""


@dataclass(frozen=True, slots=True)
class NewEntry:
    """The columns of an entry that the caller's transaction writes. ``size`` is bytes of ``payload``."""

    job_id: UUID
    type: str
    payload: str
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that waits for the relay. ``payload`` is the event as the value of a Kafka message."""

    id: int
    job_id: UUID
    payload: bytes


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many entries wait, for how many seconds the oldest has waited, and how many are refused."""

    waiting: int
    oldest_seconds: float
    refused: int


def request_entry(
    request: RequestIdentity, *, job_id: UUID | None, source: str, traceparent: str | None
) -> NewEntry:
    """Return the entry that requests an export.

    Raises:
        Rejected: a field of the request has become invalid since it was made.
        Unreadable: the service could not read the event, for example because of a NUL character.
        TooLarge: the event has more than :data:`MAX_EVENT_BYTES`.
    """
    return _entry(request_event(request, job_id=job_id, source=source, traceparent=traceparent))


def cancel_entry(job_id: UUID, *, source: str, by: str | None, traceparent: str | None) -> NewEntry:
    """Return the entry that requests the cancellation of a job."""
    return _entry(cancel_event(job_id, source=source, by=by, traceparent=traceparent))


def _entry(event: Event) -> NewEntry:
    content = encode_checked(event)  # in the caller's transaction, which then does not commit
    return NewEntry(event.job_id, event.type, content.decode(), len(content))
