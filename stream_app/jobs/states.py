"""The life of a job as a table. Pure: no I/O, no clock.

::

    pending ──► processing ──► completed ──► expired
       │  ▲────────┘ │ (retry)
       └──► failed, cancelled ◄──┘
"""

from enum import StrEnum

from streaming_exporter.events import EventType


class Status(StrEnum):
    """Where a job stands; the words of the HTTP API and of the table."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


UNFINISHED = frozenset({Status.PENDING, Status.PROCESSING})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.PROCESSING, Status.FAILED, Status.CANCELLED}),
    Status.PROCESSING: frozenset({Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.COMPLETED: frozenset({Status.EXPIRED}),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.EXPIRED: frozenset(),
}

FINAL = frozenset(status for status, following in TRANSITIONS.items() if not following)
"""What nothing follows on: a job that has no file, or has none any more."""

OUTCOMES: dict[EventType, Status] = {
    EventType.COMPLETED: Status.COMPLETED,
    EventType.FAILED: Status.FAILED,
    EventType.CANCELLED: Status.CANCELLED,
    EventType.EXPIRED: Status.EXPIRED,
}
"""The lifecycle events that change a record, and the status that each leads to."""

EVENT_OF: dict[Status, EventType] = {status: kind for kind, status in OUTCOMES.items()}
"""The event that says how a job ended."""


def predecessors(target: Status) -> frozenset[Status]:
    """States from which ``target`` may be reached in one step."""
    return frozenset(state for state, following in TRANSITIONS.items() if target in following)
