"""Helpers of tests of the job queue."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.claim import Claim
from stream_app.jobs.job_queries import JobQueries
from stream_app.jobs.models import ExportJob
from stream_app.jobs.new_job import NewJob
from stream_app.jobs.projector import apply_events
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.jobs.submission import submit
from stream_app.kafka.event_producer import EventProducer
from stream_app.worker.request_handler import RequestHandler
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Event, EventType, LifecycleData, decode, lifecycle_event
from tests.datasets import datasets_of


class Jobs:
    """A job queue on the test's own database."""

    def __init__(self, engine: AsyncEngine, **changes: Any) -> None:
        self.engine = engine
        self.queries = JobQueries(engine)
        options = {"lease": timedelta(seconds=30), "user_slots": 100, "max_attempts": 3, **changes}
        self.store = JobQueue(engine, **options)

    async def admit(self, user: str = "u", *, admitted: bool = True, **data: Any) -> UUID:
        job_id = uuid4()
        await self.admit_again(job_id, user, admitted=admitted, **data)
        return job_id

    async def admit_again(self, job_id: UUID, user: str = "u", *, admitted: bool = True, **data: Any) -> int:
        now = datetime.now(UTC)
        event = request(job_id, user_id=user, **data)
        job = RequestValidator({"csv"}, datasets_of("ledger"), has_passwords=lambda: True).job(event, now=now)
        async with self.store.transaction() as connection:
            return len(await submit(connection, [replace(job, admitted_at=now if admitted else None)]))

    async def cancel(self, job_id: UUID) -> LifecycleData | None:
        async with self.store.transaction() as connection:
            return await self.store.cancellations.cancel(connection, job_id)

    async def apply(self, data: LifecycleData) -> bool:
        event = lifecycle_event(EVENT_OF[Status(data.status)], data, source="/t")
        async with self.store.transaction() as connection:
            return bool(await apply_events(connection, [event]))

    async def status(self, job_id: UUID) -> str:
        job = await self.queries.get(job_id)
        assert job is not None
        return job.status

    async def expire_leases(self) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(
                update(ExportJob).values(lease_until=text("now() - interval '1 second'"))
            )


def completed(claim: Claim) -> LifecycleData:
    return claim.lifecycle(Status.COMPLETED, row_count=1, file_size=2, sha256="x", key="k")


def ids(claims: Sequence[Claim]) -> list[UUID]:
    return [claim.job_id for claim in claims]


Start = Callable[[NewJob], Awaitable[Sequence[LifecycleData] | None]]

HISTORY = timedelta(days=400)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Requests:
    """A request handler as an agent runs it, with lists instead of a broker."""

    def __init__(self, store: JobQueue) -> None:
        self.published: list[Event] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.refused: dict[UUID, str] = {}
        self.put_back_ids: list[UUID] = []
        self._admission = RequestHandler(
            store,
            cast(EventProducer, self),
            RequestValidator({"csv"}, datasets_of("ledger")),
            history=HISTORY,
        )

    async def publish_all(self, events: Iterable[Event]) -> None:
        """Record the events as published. Before that, call ``meanwhile`` once."""
        self.published += events
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()

    async def dead_letter(self, message: Any, reason: Unreadable) -> None:
        """Record a dead letter."""
        self.refused[decode(message.message.value).job_id] = str(reason)

    async def requeue(self, _: object, message: Any) -> None:
        """Record a message that is published again."""
        self.put_back_ids.append(decode(message.message.value).job_id)

    async def handle(self, *events: Event, at: datetime | None = None, start: Start | None = None) -> None:
        """Handle one batch, which Kafka received ``at`` this time; the default is now.

        ``start`` starts the job of a batch with one request, as a worker without other jobs does.
        """
        published = (at or datetime.now(UTC)).timestamp()
        messages = [
            SimpleNamespace(message=SimpleNamespace(value=event.encode(), timestamp=published, headers=()))
            for event in events
        ]
        await replace(self._admission, start=start).handle(cast(Any, messages))

    def kinds(self, job_id: UUID) -> list[str]:
        """Return the types of the events that were published about a job, without ``export.``."""
        return [event.type.removeprefix("export.") for event in self.published if event.job_id == job_id]


def request(job_id: UUID, **data: Any) -> Event:
    """A request event."""
    content = {"user_id": "u", "export_type": "ledger", "format": "csv", **data}
    return Event(id=str(job_id), source="/t", type=EventType.REQUESTED, traceparent=TRACE, data=content)


def new_job(user: str = "u", job_id: UUID | None = None, **data: Any) -> NewJob:
    """An admitted job, as the agent of requests submits it."""
    now = datetime.now(UTC)
    event = request(job_id or uuid4(), user_id=user, **data)
    validator = RequestValidator({"csv"}, datasets_of("ledger"), has_passwords=lambda: True)
    return replace(validator.job(event, now=now), admitted_at=now)
