"""The states of a job and the transitions between them, as a table. Pure: no I/O, no clock.

::

    pending ──► processing ──► completed ──► expired
       │  ▲────────┘ │ (retry)
       └──► failed, cancelled ◄──┘
"""

from enum import StrEnum

from streaming_exporter.events import EventType


class Status(StrEnum):
    """The state of a job, as the HTTP API and the table name it."""

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
"""States that no other state follows. A job in such a state has no file."""

OUTCOMES: dict[EventType, Status] = {
    EventType.COMPLETED: Status.COMPLETED,
    EventType.FAILED: Status.FAILED,
    EventType.CANCELLED: Status.CANCELLED,
    EventType.EXPIRED: Status.EXPIRED,
}
"""The lifecycle events that change a record, and the status that each leads to."""

EVENT_OF: dict[Status, EventType] = {status: kind for kind, status in OUTCOMES.items()}
"""The lifecycle event of each final outcome."""


def predecessors(target: Status) -> frozenset[Status]:
    """Return the states from which ``target`` can be reached in one step."""
    return frozenset(state for state, following in TRANSITIONS.items() if target in following)
