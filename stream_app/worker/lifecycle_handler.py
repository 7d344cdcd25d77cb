"""Handles lifecycle events: applies outcomes to jobs, inserts deliveries, and logs the jobs that ended."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from faust.types import EventT

from stream_app.exports.formats.base import Format
from stream_app.jobs.projector import apply_events, validate_outcome
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import OUTCOMES
from stream_app.jobs.summary import EndedJob, summarize
from stream_app.kafka.event_producer import EventProducer
from stream_app.notifications.outbox import insert_deliveries
from stream_app.observability import metrics, tracing
from stream_app.schedules.outcomes import apply_run_outcomes
from stream_app.worker.batches import Decoded, Undecoded, decode_all
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import SOURCE, Event, Topic

log = structlog.get_logger(__name__)

_WITHOUT_OUTCOME = re.compile(
    rb'\{"specversion":"1\.0","id":"[^"\\]+","source":"%b","type":"export\.(accepted|started|progressed)",'
    % re.escape(SOURCE).encode()
)
"""How the service's own events begin that are no outcomes. Two thirds of all events are such."""


def is_without_outcome(message: bytes | None, headers: Sequence[object] = ()) -> bool:
    """Return whether a message is an event of the service that the handler would ignore.

    An event that others have published, or that another encoder has written, is decoded to find it out.
    """
    return not headers and message is not None and _WITHOUT_OUTCOME.match(message) is not None


@dataclass(frozen=True, slots=True)
class LifecycleHandler:
    """Applies messages of ``exports.events``; idempotent, in any order."""

    queue: JobQueue
    producer: EventProducer
    max_failures: int = 5
    """Failed runs in a row that pause their schedule."""
    formats: Mapping[str, Format] = field(default_factory=dict)
    history: timedelta = timedelta(days=400)
    """How long jobs stay on record. An older outcome does not insert its job again."""
    kept: Callable[[], timedelta] = lambda: timedelta(days=7)
    """Returns how long files are kept at most. An event cannot extend it."""
    mail_limit: int = 500
    """How many mails the exports of one user can send in 24 hours."""

    async def handle(self, messages: Sequence[EventT[bytes]]) -> None:
        """Apply a batch in one transaction.

        Raises:
            Retryable: the database or Kafka is away; handling the batch again does no harm.
        """
        read, unread = decode_all(messages, Topic.EVENTS)
        outcomes, refused = self._validate_all(read, await self.queue.clock.read())
        if outcomes:
            with tracing.process_spans(outcomes) as traced:
                await self._apply(traced)
        for message, reason in (*unread, *refused):
            await self.producer.dead_letter(message, reason)

    def _validate_all(self, read: Decoded, now: datetime) -> tuple[list[Event], Undecoded]:
        """Return the valid outcomes, with corrected values, and the messages of the invalid ones."""
        outcomes: list[Event] = []
        refused: list[tuple[EventT[bytes], Unreadable]] = []
        for message, event in read:
            if event.type not in OUTCOMES:
                continue
            try:
                outcomes.append(validate_outcome(event, formats=self.formats, kept=self.kept(), now=now))
            except Unreadable as error:
                log.error(
                    "outcome.rejected", job_id=str(event.job_id), source=event.source, reason=str(error)
                )
                refused.append((message, error))
        return outcomes, refused

    async def _apply(self, outcomes: Sequence[Event]) -> None:
        async with self.queue.transaction() as connection:
            applied = await apply_events(connection, outcomes, history=self.history)
            with_stored_outcome = [job for _, job in applied if job.had_stored_outcome]
            await insert_deliveries(
                connection,
                [job.id for job in with_stored_outcome if job.recipients or job.webhook],
                mail_limit=self.mail_limit,
            )
            # Windows, gaps and failures are in the database of the job: they change in the same transaction.
            runs = [job.id for _, job in applied if job.schedule_id is not None]
            await apply_run_outcomes(connection, runs, max_failures=self.max_failures)
        for event, record in applied:
            try:
                _count_and_log(event, record)
            except Exception:  # the outcome is committed: an error of the log line must not repeat the batch
                log.exception("job.summary_failed", job_id=str(event.job_id))


def _count_and_log(event: Event, record: EndedJob) -> None:
    """Count the outcome of a job in the metrics, and log its summary."""
    metrics.count_ended_job(OUTCOMES[event.type], event.lifecycle)
    fields = summarize(event.lifecycle, record) | tracing.trace_ids(event.traceparent)
    log.info(f"job.{OUTCOMES[event.type]}", **fields)
