"""A replay of the topic does not change the table, and restores an older table to the same state."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.projector import apply_events
from stream_app.jobs.states import EVENT_OF, Status
from streaming_exporter.events import (
    Event,
    EventType,
    JobError,
    LifecycleData,
    cancel_event,
    decode,
    lifecycle_event,
)
from tests.integration.jobs.jobs import Jobs, Requests, completed, request

JOBS = 20


class History:
    """A table before and after its events were applied, and the events."""

    def __init__(self, engine: AsyncEngine, chance: random.Random) -> None:
        self.jobs = Jobs(engine)
        self.requests = Requests(self.jobs.store)
        self.chance = chance

    @property
    def events(self) -> list[Event]:
        """Return all published events in their order."""
        return self.requests.published

    def publish(self, outcomes: Iterable[LifecycleData]) -> None:
        self.events.extend(lifecycle_event(EVENT_OF[Status(data.status)], data) for data in outcomes)

    async def work(self) -> bool:
        """Run attempts that end with every outcome; return whether there were any."""
        store = self.jobs.store
        claims = await store.claim("w", 10)
        for claim in claims:
            self.events.append(lifecycle_event(EventType.STARTED, claim.lifecycle(Status.PROCESSING)))
            match self.chance.randrange(6):
                case 0:
                    await store.release(claim)
                case 1:
                    await self.requests.handle(cancel_event(claim.job_id, source="/t"))
                case 2:
                    error = JobError(code="c", message="m")
                    outcome = claim.lifecycle(Status.FAILED, error=error, completed_at=datetime.now(UTC))
                    await store.store_outcome(claim, outcome)
                    self.publish([outcome])
                case 3 | 4:
                    later = datetime.now(UTC) + timedelta(days=7)
                    outcome = completed(claim).model_copy(update={"expires_at": later})
                    await store.store_outcome(claim, outcome)
                    self.publish([outcome])
        await self.execute(
            "UPDATE export_jobs SET lease_until = now() - interval '1 s', not_before = NULL "
            "WHERE status = 'processing' AND outcome IS NULL OR status = 'pending'"
        )
        self.publish(await store.unclaimed.end_exhausted())
        return bool(claims)

    async def apply(self, events: Iterable[Event]) -> None:
        async with self.jobs.store.transaction() as connection:
            await apply_events(connection, [decode(event.encode()) for event in events])

    async def execute(self, *statements: str) -> None:
        async with self.jobs.engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    async def start_again(self, table: str) -> None:
        await self.execute("DELETE FROM export_jobs", f"INSERT INTO export_jobs SELECT * FROM {table}")

    async def differences(self) -> Sequence[object]:
        query = "SELECT * FROM (TABLE {0} EXCEPT TABLE {1}) AS only_{0}"
        async with self.jobs.engine.connect() as connection:
            return [
                row
                for pair in (("now_applied", "export_jobs"), ("export_jobs", "now_applied"))
                for row in await connection.execute(text(query.format(*pair)))
            ]


@pytest.fixture
async def history(engine: AsyncEngine) -> History:
    made = History(engine, random.Random(5))
    wanted = [request(uuid4(), format=made.chance.choice(["csv"] * 5 + ["docx"])) for _ in range(JOBS)]
    await made.requests.handle(*wanted)
    while await made.work():
        pass
    await made.execute("CREATE TABLE before AS TABLE export_jobs")
    await made.apply(made.events)
    done = [event for event in made.events if event.type is EventType.COMPLETED]
    for event in (*wanted[::3], *done[::2]):
        await made.requests.handle(cancel_event(event.job_id, source="/t"))
    ended = len(made.events)
    made.publish(await made.jobs.store.unclaimed.expire_files())
    await made.apply(made.events[ended:])
    await made.execute("CREATE TABLE now_applied AS TABLE export_jobs")
    return made


async def test_the_history_has_every_outcome(history: History) -> None:
    async with history.jobs.engine.connect() as connection:
        found = set(await connection.scalars(text("SELECT status FROM export_jobs")))
    assert found == {"completed", "failed", "cancelled", "expired"}


async def test_replaying_changes_nothing(history: History) -> None:
    shuffled = history.chance.sample(history.events, len(history.events))
    for events in (history.events, shuffled, [*history.events, *history.events]):
        await history.apply(events)
        assert await history.differences() == []


async def test_the_events_restore_the_table(history: History) -> None:
    """The events come in order, mixed as partitions mix them, twice, and in random order before a replay."""
    shuffled = history.chance.sample(history.events, len(history.events))
    in_order = sorted(history.events, key=lambda event: event.job_id)
    by_job = {job_id: iter(list(events)) for job_id, events in groupby(in_order, lambda event: event.job_id)}
    mixed = [next(by_job[event.job_id]) for event in shuffled]
    twice = [event for event in history.events for _ in range(2)]
    for events in (history.events, mixed, twice, [*shuffled, *history.events]):
        await history.start_again("before")
        assert await history.differences() != []
        await history.apply(events)
        assert await history.differences() == []
