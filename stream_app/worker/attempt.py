"""Attempts that run in this worker: at jobs and at parts of jobs."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any

from stream_app.exports.task import ExportProgress
from stream_app.jobs.claim import Claim
from stream_app.jobs.part_claim import PartClaim
from stream_app.observability import tracing
from stream_app.retries import retry_delay

FIRST_RETRY_DELAY = timedelta(seconds=5)
MAX_RETRY_DELAY = timedelta(minutes=2)


SLOW_SECONDS = 5.0
"""An export that has waited for its source for this time gives its slot to another one until rows come.

So a slow source does not hold up the jobs of others.
:class:`~stream_app.worker.source_slots.SourceSlots` limits how many exports of one source run.
"""


class StopReason(Enum):
    """Why a running export is stopped."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    DRAINED = "drained"


@dataclass(slots=True)
class Slot:
    """The slot of an attempt. The holder of a job with parts gives it to the parts."""

    is_free: bool = False


@dataclass(slots=True, eq=False)
class RunningAttempt:
    """An export that runs here."""

    claim: Claim
    progress: ExportProgress
    export: "asyncio.Task[Any]"
    stop: StopReason | None = field(default=None, kw_only=True)
    began: float = field(default_factory=time.monotonic, kw_only=True)
    """When the export began, by :func:`time.monotonic`."""
    slot: Slot = field(default_factory=Slot, kw_only=True)

    def end(self, reason: StopReason) -> None:
        """Stop the export. The first reason counts."""
        if self.is_running and self.stop is None:
            self.stop = reason
            self.export.cancel()

    @property
    def needs_slot(self) -> bool:
        """Whether the attempt keeps the worker busy: not while it waits for its parts or a slow source."""
        return not self.slot.is_free and self.progress.source_seconds < SLOW_SECONDS

    @property
    def stages(self) -> dict[str, Any]:
        """What the attempt does, and the busy seconds of its stages, for the job's record."""
        phase = "parts" if self.slot.is_free else self.progress.phase
        return {"attempt": self.claim.attempt, "phase": phase, **self.progress.times.seconds()}

    @property
    def is_running(self) -> bool:
        """Whether the export has not ended."""
        return not self.export.done()

    @property
    def error(self) -> BaseException | None:
        """The error of an export that has ended, or ``None``. A stopped export has none."""
        return None if self.export.cancelled() else self.export.exception()


@dataclass(slots=True, eq=False)
class Attempt(RunningAttempt):
    """An attempt at a job."""

    report: "asyncio.Task[None]"
    """The task that publishes the last event: at first ``export.started``, later ``export.progressed``."""
    reported_rows: int = field(default=0, kw_only=True)

    def end(self, reason: StopReason) -> None:
        """Stop the export. The first reason counts. After its end, a lost lease stops its last report."""
        if self.is_running:
            RunningAttempt.end(self, reason)
        elif reason is StopReason.LEASE_LOST:
            self.report.cancel()

    @property
    def has_new_progress(self) -> bool:
        """Whether the last report is published, and rows were written since."""
        return self.report.done() and self.progress.tally.rows > self.reported_rows


@dataclass(slots=True, eq=False)
class PartAttempt(RunningAttempt):
    """An attempt at a part of a job."""

    part: PartClaim


def trace_end(attempt: RunningAttempt) -> None:
    """Note in the current span why an export ended without a result: its stop, or its error."""
    if attempt.stop is not None:
        tracing.current_span().set_attributes({"exporter.stopped": attempt.stop.value})
    elif isinstance(attempt.error, Exception):
        tracing.current_span().record_error(attempt.error)


def attempt_delay(tries: int) -> timedelta:
    """Return how long a job or a part waits after ``tries`` tries that failed before the last one."""
    return retry_delay(tries, first=FIRST_RETRY_DELAY, longest=MAX_RETRY_DELAY)
