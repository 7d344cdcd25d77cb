"""Topics that are read again with an older or an empty table lead to the same outcomes (R9)."""

import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.claim import Claim
from stream_app.jobs.states import EVENT_OF, UNFINISHED, Status
from stream_app.kafka.event_producer import EventProducer
from stream_app.worker.lifecycle_handler import LifecycleHandler
from streaming_exporter.events import Event, EventType, JobError, LifecycleData, lifecycle_event
from tests.integration.jobs.jobs import Jobs, Requests, completed, request


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


def ended(claim: Claim, status: Status) -> LifecycleData:
    error = JobError(code="c", message="m") if status is Status.FAILED else None
    key = f"jobs/{claim.job_id}/{claim.attempt}/f" if status is Status.COMPLETED else None
    later = claim.now + timedelta(days=7) if key else None
    return claim.lifecycle(status, completed_at=claim.now, error=error, key=key, expires_at=later)


class Aside:
    """Ignores dead letters."""

    async def dead_letter(self, *_: object) -> None:
        """Ignore the message."""


async def project(jobs: Jobs, *events: Event) -> None:
    messages = [
        SimpleNamespace(message=SimpleNamespace(value=event.encode(), headers=())) for event in events
    ]
    await LifecycleHandler(jobs.store, cast(EventProducer, Aside())).handle(cast(Any, messages))


async def count(jobs: Jobs, what: str) -> int:
    async with jobs.engine.connect() as connection:
        return await connection.scalar(text(f"SELECT count(*) FROM {what}")) or 0


async def execute(jobs: Jobs, *statements: str) -> None:
    async with jobs.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


class Past:
    """Jobs with every outcome, their events, and back-ups of the table in between."""

    def __init__(self, jobs: Jobs, chance: random.Random) -> None:
        self.jobs, self.chance = jobs, chance
        self.requests = Requests(jobs.store)
        self.asked = [
            request(uuid4(), recipients=["a@example.com"], name="Ledger October") for _ in range(12)
        ]
        self.outcomes: list[Event] = []
        self.backups = ["empty"]

    async def happen(self) -> None:
        await execute(self.jobs, "CREATE TABLE empty AS TABLE export_jobs")
        await self.requests.handle(*self.asked)
        for round_ in range(6):
            self.backups.append(f"backup_{round_}")
            await execute(self.jobs, f"CREATE TABLE backup_{round_} AS TABLE export_jobs")
            for claim in await self.jobs.store.claim("w", 4):
                if self.chance.random() < 0.4:
                    await self.jobs.store.release(claim, failed=False)
                    continue
                outcome = ended(
                    claim, self.chance.choice([Status.COMPLETED, Status.COMPLETED, Status.FAILED])
                )
                await self.jobs.store.store_outcome(claim, outcome)
                event = lifecycle_event(EVENT_OF[Status(outcome.status)], outcome)
                self.outcomes.append(event)
                await project(self.jobs, event)

    async def ends(self) -> dict[UUID, tuple[str, int, str | None, str]]:
        async with self.jobs.engine.connect() as connection:
            rows = await connection.execute(
                text("SELECT id, status, attempt, file_path, name FROM export_jobs")
            )
            finished = {row.id: tuple(row)[1:] for row in rows if row.status not in UNFINISHED}
        return cast("dict[UUID, tuple[str, int, str | None, str]]", finished)


async def test_a_replay_onto_any_backup_leads_to_the_same_outcomes(jobs: Jobs) -> None:
    """Requests are read before, after or among outcomes: no job runs again, and no mail is sent again."""
    past = Past(jobs, random.Random(7))
    await past.happen()
    true_ends = await past.ends()
    assert {status for status, *_ in true_ends.values()} == {"completed", "failed"}
    assert {name for *_, name in true_ends.values()} == {"Ledger October"}
    for backup in past.backups:
        for order in ("requests first", "outcomes first", "mixed"):
            await execute(
                jobs, "DELETE FROM deliveries", "DELETE FROM export_jobs",
                f"INSERT INTO export_jobs SELECT * FROM {backup}",
            )  # fmt: skip
            steps = [("request", event) for event in past.asked]
            steps += [("outcome", event) for event in past.outcomes]
            if order == "outcomes first":
                steps.reverse()
            elif order == "mixed":
                past.chance.shuffle(steps)
            for kind, event in steps:
                await (past.requests.handle(event) if kind == "request" else project(jobs, event))
            assert await past.ends() == true_ends, (backup, order)
            assert await count(jobs, "deliveries") == 0, (backup, order)
            claimed = {claim.job_id for claim in await jobs.store.claim("w", 100)}
            assert not claimed & true_ends.keys(), (backup, order)


async def test_without_a_replay_each_recipient_gets_one_delivery(jobs: Jobs) -> None:
    await jobs.admit(recipients=["a@example.com"])
    (claim,) = await jobs.store.claim("w", 1)
    outcome = ended(claim, Status.COMPLETED)
    await jobs.store.store_outcome(claim, outcome)
    event = lifecycle_event(EventType.COMPLETED, outcome)
    await project(jobs, event, event)
    await project(jobs, event)
    assert await count(jobs, "deliveries") == 1


async def test_a_job_with_a_stored_outcome_is_ended_only_by_the_event_of_it(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    outcome = ended(claim, Status.COMPLETED)
    await jobs.store.store_outcome(claim, outcome)
    others = [
        ended(claim, Status.FAILED),
        outcome.model_copy(update={"key": f"jobs/{job_id}/1/other"}),
        outcome.model_copy(update={"attempt": 2, "key": f"jobs/{job_id}/2/f"}),
    ]
    for other in others:
        await project(jobs, lifecycle_event(EVENT_OF[Status(other.status)], other))
        assert await jobs.status(job_id) == "processing"
    await project(jobs, lifecycle_event(EventType.COMPLETED, outcome))
    assert await jobs.status(job_id) == "completed"


@pytest.mark.parametrize("said", [{"user_id": "v"}, {"export_type": "proofs"}, {"format": "pdf"}])
async def test_an_event_of_another_user_dataset_or_format_ends_no_job(
    jobs: Jobs, said: dict[str, str]
) -> None:
    """S12: this holds for outcomes that were stored before and for others."""
    await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    outcome = completed(claim)
    forged = outcome.model_copy(update=said)
    assert not await jobs.apply(forged)
    assert await jobs.store.store_outcome(claim, outcome)
    assert not await jobs.apply(forged)
    assert await jobs.apply(outcome)


async def test_an_unknown_job_is_restored_only_with_a_key_of_its_own(jobs: Jobs) -> None:
    now = datetime.now(UTC)
    data = LifecycleData(
        job_id=uuid4(), user_id="u", export_type="ledger", format="csv", status=Status.COMPLETED, attempt=1,
        key=f"jobs/{uuid4()}/1/f", started_at=now, completed_at=now, expires_at=now + timedelta(days=1),
    )  # fmt: skip
    await project(jobs, lifecycle_event(EventType.COMPLETED, data))
    assert await jobs.queries.get(data.job_id) is None
    data = data.model_copy(update={"key": f"jobs/{data.job_id}/1/f"})
    await project(jobs, lifecycle_event(EventType.COMPLETED, data))
    assert await jobs.status(data.job_id) == "completed"
    old = data.model_copy(update={"job_id": uuid4(), "key": None, "started_at": now - timedelta(days=500)})
    await project(jobs, lifecycle_event(EventType.COMPLETED, old))
    assert await jobs.queries.get(old.job_id) is None, "older than what is kept on record"


def test_the_ids_of_events_depend_on_their_content() -> None:
    """R9: the same content has the same id, other content has another one. The manifest does not count."""
    now = datetime.now(UTC)
    data = LifecycleData(
        job_id=uuid4(), user_id="u", export_type="ledger", format="csv", status="completed", attempt=1,
        key="k", completed_at=now, manifest={"b": 1, "a": 2.5},
    )  # fmt: skip
    again = LifecycleData.model_validate(data.model_dump(mode="json"))
    lean = data.model_copy(update={"manifest": None})
    known = lifecycle_event(EventType.COMPLETED, data).id
    assert {lifecycle_event(EventType.COMPLETED, item).id for item in (data, again, lean)} == {known}
    for change in ({"key": "other"}, {"attempt": 2}, {"completed_at": now + timedelta(seconds=1)}):
        assert lifecycle_event(EventType.COMPLETED, data.model_copy(update=change)).id != known
    assert lifecycle_event(EventType.FAILED, data).id != known
