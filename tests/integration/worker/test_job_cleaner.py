"""Which jobs are removed and which are kept; removed jobs do not come back."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.models import ExportJob
from stream_app.jobs.projector import apply_events
from stream_app.jobs.states import FINAL, Status
from stream_app.notifications.models import Delivery
from stream_app.worker.maintenance import job_cleaner as pruning
from stream_app.worker.maintenance.job_cleaner import BEFORE_STEP, BEGINNING, STEP, JobCleaner
from streaming_exporter.events import Event, EventType, lifecycle_event
from tests.integration.jobs.jobs import HISTORY, Jobs, Requests, request
from tests.waiting import at_most

OLD = HISTORY + timedelta(hours=1)


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def job_cleaner(jobs: Jobs) -> JobCleaner:
    return JobCleaner(jobs.store, HISTORY)


class Records:
    """Inserts jobs and deliveries of any age."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def job(self, status: str, age: timedelta = OLD, **values: Any) -> UUID:
        job_id = uuid4()
        row = {"id": job_id, "user_id": "u", "export_type": "ledger", "format": "csv", "status": status}
        async with self._engine.begin() as connection:
            await connection.execute(
                insert(ExportJob).values(**row, created_at=datetime.now(UTC) - age, **values)
            )
        return job_id

    async def told(self, job_id: UUID, status: str, address: str = "a@example.com") -> None:
        row = {
            "job_id": job_id,
            "channel": "mail",
            "address": address,
            "event": "completed",
            "topic": "user:u",
        }
        async with self._engine.begin() as connection:
            await connection.execute(
                insert(Delivery).values(**row, status=status, give_up_at=datetime.now(UTC))
            )

    async def left(self) -> tuple[set[UUID], set[UUID]]:
        """Return the ids of the jobs, and the job ids of the deliveries."""
        async with self._engine.connect() as connection:
            return (
                set(await connection.scalars(select(ExportJob.id))),
                set(await connection.scalars(select(Delivery.job_id))),
            )


@pytest.fixture
def records(engine: AsyncEngine) -> Records:
    return Records(engine)


async def test_marks_of_dead_letters_are_removed_when_their_letters_are_gone(
    job_cleaner: JobCleaner, engine: AsyncEngine
) -> None:
    """They name operators. Both times count: a letter that is handled late keeps its mark."""
    old = max(HISTORY, pruning.LETTERS_KEPT) + timedelta(hours=1)
    marks = {1: (old, old), 2: (old, timedelta(0)), 3: (timedelta(0), timedelta(0))}
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM handled_dead_letters"))
        for offset, (written, handled) in marks.items():
            await connection.execute(
                text(
                    'INSERT INTO handled_dead_letters ("partition", "offset", written_at, state, handled_by, '
                    "handled_at) VALUES (0, :offset, now() - CAST(:written AS interval), 'discarded', 'me', "
                    "now() - CAST(:handled AS interval))"
                ),
                {"offset": offset, "written": written, "handled": handled},
            )
    await job_cleaner.clean()
    async with engine.begin() as connection:
        left = set(await connection.scalars(text('SELECT "offset" FROM handled_dead_letters')))
        await connection.execute(text("DELETE FROM handled_dead_letters"))
    assert left == {2, 3}


async def test_old_ended_jobs_are_removed_with_their_deliveries(
    job_cleaner: JobCleaner, records: Records
) -> None:
    run = uuid4()
    over = [await records.job(status, schedule_id=run) for status in ("failed", "cancelled", "expired")]
    for job_id in over:
        await records.told(job_id, "sent")
        await records.told(job_id, "ambiguous", "b@example.com")
    kept = await records.job("expired", HISTORY - timedelta(hours=1))
    await records.told(kept, "sent")
    assert await job_cleaner.clean() == 3
    assert await records.left() == ({kept}, {kept})
    assert await job_cleaner.clean() == 0


@pytest.mark.parametrize(
    ("status", "values"),
    [
        ("pending", {}),
        ("processing", {}),
        ("completed", {"file_path": "jobs/1/1/f"}),
        ("pending", {"outcome": {"status": "failed"}}),
        ("processing", {"outcome": {"status": "completed"}}),
        ("completed", {"outcome": {"status": "expired"}}),
    ],
)
async def test_unfinished_jobs_are_kept_at_any_age(
    job_cleaner: JobCleaner, records: Records, status: str, values: Mapping[str, Any]
) -> None:
    job_id = await records.job(status, timedelta(days=5_000), **values)
    await records.told(job_id, "sent")
    assert await job_cleaner.clean() == 0
    assert await records.left() == ({job_id}, {job_id})


@pytest.mark.parametrize("status", ["pending", "sending"])
async def test_a_job_with_an_unsent_delivery_is_kept(
    job_cleaner: JobCleaner, records: Records, status: str
) -> None:
    job_id = await records.job("failed")
    await records.told(job_id, "sent")
    await records.told(job_id, status, "b@example.com")
    assert await job_cleaner.clean() == 0
    assert await records.left() == ({job_id}, {job_id})


async def test_kept_jobs_do_not_delay_the_removal_of_others(
    job_cleaner: JobCleaner, records: Records, monkeypatch: pytest.MonkeyPatch, engine: AsyncEngine
) -> None:
    """The steps pass any number of them."""
    monkeypatch.setattr(pruning, "STEP", text(STEP.text.replace(f"LIMIT {pruning.BATCH}", "LIMIT 3")))
    monkeypatch.setattr(pruning, "BATCH", 3)
    kept = {await records.job("completed", OLD + timedelta(days=n)) for n in range(7)}
    for hours in range(8):
        await records.job("expired", OLD + timedelta(hours=hours, days=3))
    assert await job_cleaner.clean() == 8
    assert await records.left() == (kept, set())


async def test_locked_jobs_are_skipped(
    job_cleaner: JobCleaner, records: Records, engine: AsyncEngine
) -> None:
    held, _ = await records.job("failed"), await records.job("failed")
    async with engine.begin() as other:
        await other.execute(select(ExportJob.id).where(ExportJob.id == held).with_for_update())
        async with at_most(3):
            assert await job_cleaner.clean() == 1
    assert (await records.left())[0] == {held}
    assert await job_cleaner.clean() == 1


async def test_two_workers_remove_each_job_once(
    engine: AsyncEngine, records: Records, job_cleaner: JobCleaner
) -> None:
    for _ in range(20):
        await records.job("cancelled")
    assert sum(await asyncio.gather(*(job_cleaner.clean() for _ in range(4)))) == 20
    assert await records.left() == (set(), set())


def asked(job_id: UUID, age: timedelta | None) -> Event:
    time = None if age is None else datetime.now(UTC) - age
    return request(job_id).model_copy(update={"time": time})


@pytest.mark.parametrize(
    ("said", "published"),
    [(OLD, OLD), (None, OLD), (OLD, timedelta(0)), (timedelta(0), OLD)],
    ids=["both", "only Kafka", "published anew", "by a wrong clock"],
)
async def test_a_request_that_is_read_again_makes_no_second_job(
    jobs: Jobs, records: Records, job_cleaner: JobCleaner, said: timedelta | None, published: timedelta
) -> None:
    """It is dead-lettered with the reason, and other requests of the batch are handled."""
    requests = Requests(jobs.store)
    forgotten, wanted = await records.job("expired"), uuid4()
    assert await job_cleaner.clean() == 1
    await requests.handle(asked(forgotten, said), at=datetime.now(UTC) - published)
    await requests.handle(asked(wanted, None))
    assert (await records.left())[0] == {wanted}
    assert requests.kinds(forgotten) == []
    assert requests.refused.keys() == {forgotten}
    assert "requested about 400 days ago" in requests.refused[forgotten]
    assert requests.kinds(wanted) == ["accepted"]


async def test_an_old_request_whose_job_is_on_record_is_handled(jobs: Jobs, records: Records) -> None:
    """An unadmitted job is admitted as usual, because the API can have recorded it."""
    requests = Requests(jobs.store)
    known, waiting = await records.job("completed"), await records.job("pending")
    await requests.handle(asked(known, OLD), asked(waiting, OLD))
    assert requests.refused == {}
    assert (requests.kinds(known), requests.kinds(waiting)) == ([], ["accepted"])


async def test_no_request_is_admissible_whose_job_can_have_been_removed(jobs: Jobs, records: Records) -> None:
    """A day is between the two limits, because clocks differ."""
    requests = Requests(jobs.store)
    nearly = uuid4()
    await requests.handle(asked(nearly, HISTORY - timedelta(hours=23)))
    assert requests.refused.keys() == {nearly}
    just = uuid4()
    await requests.handle(asked(just, HISTORY - timedelta(hours=25)))
    assert (await records.left())[0] == {just}


async def test_events_of_a_removed_job_change_nothing(
    jobs: Jobs, records: Records, job_cleaner: JobCleaner
) -> None:
    claimed = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    old = claim.lifecycle(Status.FAILED).model_copy(
        update={"started_at": claim.started_at - timedelta(days=401)}
    )
    told = lifecycle_event(EventType.FAILED, old)
    await jobs.apply(told.lifecycle)
    async with jobs.store.transaction() as connection:
        await connection.execute(text("UPDATE export_jobs SET created_at = now() - interval '401 days'"))
    assert await job_cleaner.clean() == 1
    async with jobs.store.transaction() as connection:
        assert not await apply_events(connection, [told])
    await jobs.cancel(claimed)
    assert await records.left() == (set(), set())


async def fill(engine: AsyncEngine, count: int, *, age_days: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("ALTER TABLE export_jobs DISABLE TRIGGER USER")
        )  # no listener needs the notifications
        await connection.execute(
            text(
                """
                WITH job AS (
                    INSERT INTO export_jobs (id, user_id, export_type, format, status, created_at)
                    SELECT gen_random_uuid(), 'u' || n % 50, 'ledger', 'csv', 'expired',
                           now() - :age * interval '1 day' + n * interval '1 ms'
                    FROM generate_series(1, :count) AS n RETURNING id
                )
                INSERT INTO deliveries (job_id, channel, address, event, topic, status, give_up_at)
                SELECT id, 'mail', 'a@example.com', 'completed', 'user:u', 'sent', now() FROM job
                """
            ),
            {"count": count, "age": age_days},
        )


async def explain(engine: AsyncEngine, *options: str) -> list[Any]:
    """Return PostgreSQL's plan of a step, which is rolled back."""
    created_at, job_id = BEGINNING
    values = {"created_at": created_at, "id": job_id, "history": HISTORY, "final": list(FINAL)}
    async with engine.connect() as connection:
        await connection.execute(BEFORE_STEP)
        return list(await connection.scalars(text(f"EXPLAIN ({', '.join(options)}) {STEP.text}"), values))


async def test_no_step_reads_a_whole_table(engine: AsyncEngine) -> None:
    """The statistics can be from before the jobs or current."""
    await fill(engine, 10_000, age_days=1)
    await fill(engine, 1_000, age_days=500)
    for _ in range(2):
        found = "\n".join(await explain(engine, "GENERIC_PLAN", "COSTS"))
        assert not re.search(
            r"(Seq Scan|Bitmap Heap Scan) on (export_jobs|export_files|deliveries)", found
        ), found
        used = set(re.findall(r"Scan (?:Backward )?using (\w+)", found))
        used_keys = {"export_jobs_newest", "export_jobs_pkey", "deliveries_once", "export_files_pkey"}
        assert used == used_keys, found
        async with engine.begin() as connection:
            await connection.execute(text("ANALYZE export_jobs, deliveries"))


async def pages(engine: AsyncEngine) -> int:
    """Return the number of pages that a step reads, which does not depend on the load of the machine."""
    ((plan,),) = await explain(engine, "ANALYZE", "TIMING OFF", "FORMAT JSON")
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


async def test_a_step_costs_the_same_whatever_is_on_record(engine: AsyncEngine) -> None:
    await fill(engine, 2_000, age_days=500)
    few = await pages(engine)
    await fill(engine, 20_000, age_days=100)
    many = await pages(engine)
    assert many < 2 * few, f"{many} pages against {few}"
