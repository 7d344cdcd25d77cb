"""Claims are fair between users, keep limits between workers, and cost the same for every backlog."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.queue import USERS_PER_CLAIM
from stream_app.jobs.queue_sql import BEFORE_CLAIM, CLAIM
from streaming_exporter.errors import Retryable
from tests.integration.jobs.jobs import Jobs, ids

INDEXES = {"export_jobs_waiting", "export_jobs_user_waiting", "export_jobs_pkey"}

Fill = Callable[..., Awaitable[None]]


@pytest.fixture
def fill(engine: AsyncEngine) -> Fill:
    """Returns a function that inserts jobs, user by user."""

    async def put(count: int, *, users: int, status: str = "pending", prefix: str = "u") -> None:
        async with engine.begin() as connection:
            await connection.execute(
                text("ALTER TABLE export_jobs DISABLE TRIGGER USER")
            )  # no listener needs the notifications
            await connection.execute(
                text(
                    """
                    INSERT INTO export_jobs
                        (id, user_id, export_type, format, status, created_at, admitted_at)
                    SELECT gen_random_uuid(),
                           CAST(:prefix AS text) || n * CAST(:users AS int) / CAST(:count AS int),
                           'ledger', 'csv', :status, now() - n * interval '1 ms', now()
                    FROM generate_series(0, CAST(:count AS int) - 1) AS n
                    """
                ),
                {"count": count, "users": users, "status": status, "prefix": prefix},
            )

    return put


async def test_two_workers_together_keep_to_the_slots_of_a_user(engine: AsyncEngine, fill: Fill) -> None:
    jobs = Jobs(engine, user_slots=2)
    await fill(200, users=5)
    claims = await asyncio.gather(*(jobs.store.claim(f"w{number}", 4) for number in range(8)))
    running = Counter(claim.request.user_id for claimed in claims for claim in claimed)
    assert running == {f"u{number}": 2 for number in range(5)}


async def test_jobs_that_are_held_back_do_not_hide_the_jobs_of_others(
    engine: AsyncEngine, fill: Fill
) -> None:
    """More users have only jobs of a source that is away than one claim reads, and their jobs are older."""
    jobs = Jobs(engine, user_slots=2)
    await fill(2 * USERS_PER_CLAIM, users=2 * USERS_PER_CLAIM)
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE export_jobs SET export_type = 'far', created_at = created_at - interval '1 h'")
        )
    await fill(3, users=3, prefix="z")
    claims = await jobs.store.claim("w", 4, held_back=["far", "unknown"])
    assert {claim.request.export_type for claim in claims} == {"ledger"}
    assert len(claims) == 3
    assert await jobs.store.claim("w", 4, held_back=["far"]) == []
    assert len(await jobs.store.claim("w", 4)) == 4


async def test_a_paused_user_with_many_jobs_does_not_hide_the_jobs_of_others(
    engine: AsyncEngine, fill: Fill
) -> None:
    """The paused user has the oldest jobs, more than one claim reads."""
    jobs = Jobs(engine, user_slots=2)
    await fill(3 * USERS_PER_CLAIM, users=1, prefix="flooder")
    await fill(3, users=3, prefix="z")
    claims = await jobs.store.claim("w", 4, paused_users=["flooder0"])
    assert {claim.request.user_id for claim in claims} == {"z0", "z1", "z2"}


async def test_jobs_that_hang_at_a_source_that_is_away_take_no_slot_of_their_user(
    engine: AsyncEngine, fill: Fill
) -> None:
    """They can hang for as long as an export may take; the other jobs of the user go on."""
    jobs = Jobs(engine, user_slots=2)
    await fill(2, users=1)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE export_jobs SET export_type = 'far'"))
    assert len(await jobs.store.claim("w", 4)) == 2
    await fill(3, users=1)
    assert await jobs.store.claim("w", 4, held_back=["far"]) == [], "a source that is full is no reason"
    claims = await jobs.store.claim("w", 4, held_back=["far"], away=["far"])
    assert [claim.request.export_type for claim in claims] == ["ledger", "ledger"]


async def test_every_job_is_claimed_once_by_workers_that_compete(engine: AsyncEngine, fill: Fill) -> None:
    jobs = Jobs(engine)
    await fill(200, users=20)

    all_have_claimed = asyncio.Barrier(4)  # otherwise the one whose connection is first could be alone

    async def work(worker: str) -> list[object]:
        done: list[object] = list(ids(await jobs.store.claim(worker, 4)))
        await all_have_claimed.wait()
        while claimed := await jobs.store.claim(worker, 4):
            done += ids(claimed)
        return done

    done = await asyncio.gather(*(work(f"w{number}") for number in range(4)))
    assert sorted(map(len, done))[0] > 0
    assert len({job_id for part in done for job_id in part}) == sum(map(len, done)) == 200


async def test_users_take_turns(engine: AsyncEngine, fill: Fill) -> None:
    jobs = Jobs(engine, user_slots=3)
    await fill(30, users=3)
    for running in (1, 2, 3):
        claims = await jobs.store.claim("w", 3)
        assert Counter(claim.request.user_id for claim in claims) == {"u0": 1, "u1": 1, "u2": 1}, running
    assert await jobs.store.claim("w", 3) == []


async def test_more_users_than_one_claim_reads_are_all_served(engine: AsyncEngine, fill: Fill) -> None:
    """One user has the thousand oldest jobs. The others still have their turns."""
    jobs = Jobs(engine, user_slots=1)
    await fill(1_000, users=1, prefix="hog")
    others = 2 * USERS_PER_CLAIM + 50
    await fill(others, users=others)
    served: set[str] = set()
    for _ in range(4):
        served |= {claim.request.user_id for claim in await jobs.store.claim("w", 10 * USERS_PER_CLAIM)}
    assert len(served) == others + 1


async def test_the_oldest_job_is_found_among_more_users_than_one_claim_reads(
    engine: AsyncEngine, fill: Fill
) -> None:
    jobs = Jobs(engine)
    await fill(3 * USERS_PER_CLAIM, users=3 * USERS_PER_CLAIM)
    high = await jobs.admit("z", priority="high")
    assert ids(await jobs.store.claim("w", 1)) == [high]


async def explain(engine: AsyncEngine, *options: str) -> list[Any]:
    """Return PostgreSQL's plan of the statements of a claim, which is rolled back."""
    values = {
        "after": "", "window": USERS_PER_CLAIM, "worker": "w", "limit": 4,
        "lease": timedelta(seconds=30), "user_slots": 2, "max_attempts": 5, "with_split": True,
        "held_back": [], "users_held_back": [], "parts_held_back": [], "only_parts": False, "away": [],
    }  # fmt: skip
    found: list[Any] = []
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.execute(BEFORE_CLAIM)
        for option in options:
            found += await connection.scalars(text(f"EXPLAIN ({option}) {CLAIM.text}"), values)
        await raw.execute("ROLLBACK")
    return found


async def test_no_claim_reads_the_whole_table(engine: AsyncEngine, fill: Fill) -> None:
    """The statistics can be from before the jobs, from the middle, or current."""
    for status, count in (("completed", 20_000), ("pending", 10_000), ("pending", 0)):
        if count:
            await fill(count, users=500, status=status)
        found = "\n".join(await explain(engine, "GENERIC_PLAN", "COSTS"))
        assert "Seq Scan on export_jobs" not in found, found
        assert "Bitmap" not in found, found
        assert "Index Cond: (status = 'pending'" not in found, found
        assert set(re.findall(r"Scan using (\w+)", found)) >= INDEXES, found
        async with engine.begin() as connection:
            await connection.execute(text("ANALYZE export_jobs"))


async def pages(engine: AsyncEngine) -> int:
    """Return the number of pages that a claim reads, which does not depend on the load of the machine."""
    found = await explain(engine, "ANALYZE, TIMING OFF, FORMAT JSON")
    plans = [plan[0]["Plan"] for plan in found]
    return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)


async def test_a_claim_costs_the_same_for_a_long_and_a_short_backlog(engine: AsyncEngine, fill: Fill) -> None:
    await fill(1_000, users=100)
    short = await pages(engine)
    await fill(20_000, users=500, status="completed")
    await fill(15_000, users=100)
    long = await pages(engine)
    assert long < 3 * short, f"{long} pages against {short}"


async def test_a_claim_tells_whether_work_is_left_for_the_next_slot(engine: AsyncEngine) -> None:
    """Only then the end of a job is a reason to claim again, without waiting for a notification."""
    jobs = Jobs(engine, user_slots=2)

    async def left(limit: int, **options: Any) -> tuple[int, bool]:
        return len(await jobs.store.claim("w", limit, **options)), jobs.store.is_work_left

    assert await left(4) == (0, False)
    await jobs.admit("a")
    assert await left(4) == (1, False), "everything that waited is claimed"
    await jobs.admit("b")
    await jobs.admit("c")
    assert await left(1) == (1, True), "the worker had no slot for it"
    assert await left(1) == (1, False)
    for _ in range(2):
        await jobs.admit("a")
    assert await left(4) == (1, True), "the user has no slot for it"
    assert await left(4) == (0, True)
    await jobs.expire_leases()
    assert await left(1) == (1, True), "abandoned jobs are work, too"


@pytest.mark.parametrize("options", [{"held_back": ["ledger"]}, {"with_split": False}])
async def test_a_claim_does_not_tell_of_work_that_it_leaves_out(
    engine: AsyncEngine, options: dict[str, Any]
) -> None:
    store = Jobs(engine).store
    assert await store.claim("w", 4, **options) == []
    assert store.is_work_left


async def test_a_job_that_another_transaction_holds_is_left(engine: AsyncEngine) -> None:
    jobs = Jobs(engine)
    job_id = await jobs.admit()
    async with engine.begin() as connection:
        await connection.execute(text("SELECT FROM export_jobs WHERE id = :id FOR UPDATE"), {"id": job_id})
        assert await jobs.store.claim("w", 4) == []
    assert jobs.store.is_work_left


async def test_a_user_with_more_jobs_than_slots_has_work_left(engine: AsyncEngine) -> None:
    jobs = Jobs(engine, user_slots=2)
    for _ in range(3):
        await jobs.admit("a")
    assert len(await jobs.store.claim("w", 4)) == 2
    assert jobs.store.is_work_left


async def test_a_claim_that_fails_can_have_left_work(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Jobs(engine).store
    assert await store.claim("w", 4) == []
    assert not store.is_work_left
    monkeypatch.setattr(
        "stream_app.jobs.queue.CLAIM_SETTINGS", "SELECT pg_terminate_backend(pg_backend_pid())"
    )
    with pytest.raises(Retryable):
        await store.claim("w", 4)
    assert store.is_work_left
