"""The life of a job as a table. Pure: no I/O, no clock.

::

    pending ──► processing ──► completed ──► expired
       │  ▲────────┘ │ (retry)
       └──► failed, cancelled ◄──┘
"""

from enum import StrEnum

from stream_app.events import EventType


class Status(StrEnum):
    """Where a job stands; the words of the HTTP API and of the table."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing but expiry can follow."""
        return self not in UNFINISHED


UNFINISHED = frozenset({Status.PENDING, Status.PROCESSING})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.PROCESSING, Status.FAILED, Status.CANCELLED}),
    Status.PROCESSING: frozenset({Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.COMPLETED: frozenset({Status.EXPIRED}),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.EXPIRED: frozenset(),
}

OUTCOMES: dict[EventType, Status] = {
    EventType.COMPLETED: Status.COMPLETED,
    EventType.FAILED: Status.FAILED,
    EventType.CANCELLED: Status.CANCELLED,
    EventType.EXPIRED: Status.EXPIRED,
}
"""The lifecycle events that change a record, and the status that each leads to."""


def predecessors(target: Status) -> frozenset[Status]:
    """States from which ``target`` may be reached in one step."""
    return frozenset(state for state, following in TRANSITIONS.items() if target in following)
