"""``exporter_demand`` counts the slots that jobs need which run or can run."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.parts import PartStore
from tests.integration.jobs.jobs import Jobs, completed
from tests.integration.jobs.parts import plan

USER_SLOTS = 3


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine, user_slots=USER_SLOTS)


async def demand(jobs: Jobs, user_slots: int = USER_SLOTS) -> int:
    async with jobs.engine.connect() as connection:
        return int(await connection.scalar(text(f"SELECT exporter_demand({user_slots})")) or 0)


async def execute(jobs: Jobs, statement: str) -> None:
    async with jobs.engine.begin() as connection:
        await connection.execute(text(statement))


async def pause(jobs: Jobs, scope: str) -> None:
    await execute(jobs, f"INSERT INTO claim_pauses (scope, paused_by) VALUES ('{scope}', 'ops')")


async def test_of_each_user_at_most_their_slots_are_counted(jobs: Jobs) -> None:
    assert await demand(jobs) == 0
    for _ in range(10):
        await jobs.admit("many")
    await jobs.admit("few")
    assert await demand(jobs) == 3 + 1
    assert await demand(jobs, 100) == 11
    (claim, *_) = await jobs.store.claim("w", 2)
    assert await demand(jobs) == 3 + 1, "those that run and those that wait are together at most the slots"
    assert await jobs.store.store_outcome(claim, completed(claim))
    await execute(jobs, "DELETE FROM export_jobs WHERE status = 'pending'")
    assert await demand(jobs) == 1, "a job with a stored outcome needs no slot"


async def test_what_cannot_run_is_not_counted(jobs: Jobs) -> None:
    await jobs.admit("unadmitted", admitted=False)
    await jobs.admit("cancelled")
    await jobs.admit("later")
    await execute(jobs, "UPDATE export_jobs SET cancel_requested_at = now() WHERE user_id = 'cancelled'")
    await execute(
        jobs, "UPDATE export_jobs SET not_before = now() + interval '1 hour' WHERE user_id = 'later'"
    )
    assert await demand(jobs) == 0
    await execute(jobs, "UPDATE export_jobs SET not_before = now() - interval '1 s'")
    assert await demand(jobs) == 1


@pytest.mark.parametrize(
    ("scope", "left"), [("everything", 1), ("user:a", 2), ("dataset:ledger", 1), ("user:c", 3)]
)
async def test_a_pause_leaves_out_what_waits_and_keeps_what_runs(jobs: Jobs, scope: str, left: int) -> None:
    await jobs.admit("running")
    assert len(await jobs.store.claim("w", 1)) == 1
    await jobs.admit("a")
    await jobs.admit("b")
    assert await demand(jobs) == 3
    await pause(jobs, scope)
    assert await demand(jobs) == left


async def test_parts_of_an_export_are_counted(jobs: Jobs) -> None:
    await jobs.admit("u")
    (claim,) = await jobs.store.claim("holder", 1)
    parts = PartStore(jobs.store)
    assert await plan(parts, claim, 40)
    assert await demand(jobs) == USER_SLOTS
    assert await demand(jobs, 100) == 40
    await jobs.store.claim("w", 2)
    assert await demand(jobs, 100) == 40
    await execute(jobs, "DELETE FROM export_parts WHERE number > 1")
    assert await demand(jobs) == 1
    await execute(jobs, "UPDATE export_parts SET status = 'completed'")
    assert await demand(jobs) == 1, "the job that holds them"


async def test_a_pause_leaves_out_the_parts_that_wait(jobs: Jobs) -> None:
    await jobs.admit("u")
    (claim,) = await jobs.store.claim("holder", 1)
    assert await plan(PartStore(jobs.store), claim, 5)
    await jobs.store.claim("w", 2)
    await pause(jobs, "dataset:ledger")
    assert await demand(jobs, 100) == 2
