"""A claim of a part: one attempt at one part of a job, held by one worker under a lease."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from stream_app.jobs.claim import Claim


@dataclass(frozen=True, slots=True)
class PartKey:
    """Identifies a part: its job, the attempt of the job that planned it, and its number."""

    job_id: UUID
    attempt: int
    number: int


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A part that is to be inserted.

    Attributes:
        number: numbers the parts of a plan from 1, in the order of the rows.
        range: the range of rows, as JSON.
    """

    number: int
    range: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PartClaim(Claim):
    """The right of one worker to one attempt at a part of a job. Only the holder can complete the part.

    ``attempt`` is the attempt of the job that planned the part. ``failures`` are those of the part.

    Attributes:
        number: the part's number.
        part_attempt: numbers the claims of the part.
        range: the range of rows, as JSON.
        folder: the folder of the files of all parts.
        snapshot: the snapshot of the job's holder, or ``None`` if the part takes one of its own.
        as_of: the time of that snapshot.
    """

    number: int
    part_attempt: int
    range: Any
    folder: str
    snapshot: str | None = None
    as_of: datetime | None = None

    @property
    def key(self) -> PartKey:
        """The part."""
        return PartKey(self.job_id, self.attempt, self.number)

    # super() without arguments does not work in a dataclass with slots, before Python 3.14.
    @property
    def log_fields(self) -> dict[str, Any]:
        """Fields of every log line about this attempt."""
        own = {"part": self.number, "part_attempt": self.part_attempt}
        return {**super(PartClaim, self).log_fields, **own}

    @property
    def trace_attributes(self) -> dict[str, Any]:
        """Attributes of the attempt's span."""
        own = {"exporter.part": self.number, "exporter.part_attempt": self.part_attempt}
        return {**super(PartClaim, self).trace_attributes, **own}


@dataclass(frozen=True, slots=True)
class PartProgress:
    """How many rows a running attempt at a part has written."""

    key: PartKey
    part_attempt: int
    rows: int

    @classmethod
    def of(cls, claim: PartClaim, rows: int) -> Self:
        """Return the progress of a claimed part."""
        return cls(claim.key, claim.part_attempt, rows)


@dataclass(frozen=True, slots=True)
class PartsState:
    """The state of all parts of a plan.

    Attributes:
        parts: how many there are.
        completed: how many are completed.
        rows: how many rows are written so far.
        waiting_for_outage: how many wait for a part of the system that is away.
        exhausted: how many were interrupted as often as is allowed, and are not claimed again.
        failed: how many have failed.
        error_code, error_message: the error of the first one that has failed. One after which all parts begin
            anew comes before those that end the job.
    """

    parts: int
    completed: int
    rows: int
    waiting_for_outage: int
    exhausted: int
    failed: int
    error_code: str | None
    error_message: str | None
