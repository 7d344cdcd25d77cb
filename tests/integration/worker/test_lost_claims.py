"""A claim that is committed although its answer is lost: what it took is handed back without a failure."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db import engine as engine_module
from stream_app.exports.pipeline import Exporter
from stream_app.jobs.claim import Claim
from stream_app.jobs.lost_claims import LostClaims
from stream_app.jobs.parts import PartStore
from stream_app.jobs.queue_sql import CLAIMS
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker import dispatcher as module
from stream_app.worker.dispatcher import Dispatcher
from streaming_exporter.errors import InDoubt, Locked, Outage
from streaming_exporter.events import Event
from tests.integration.jobs.jobs import Jobs, ids, new_job
from tests.integration.jobs.parts import plan
from tests.integration.worker.test_claims_of_a_worker import Exports
from tests.waiting import until_async


class LostAnswers:
    """Loses the answers to the next ``left`` commits, which take effect."""

    left = 0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        commit = engine_module._commit

        async def lose(raw: Any) -> None:
            await commit(raw)
            if self.left:
                self.left -= 1
                raw.terminate()
                raise InDoubt("the connection was lost")

        monkeypatch.setattr(engine_module, "_commit", lose)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> LostAnswers:
    return LostAnswers(monkeypatch)


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine, max_attempts=1)


async def states(jobs: Jobs) -> dict[UUID, tuple[str, int, str | None]]:
    async with jobs.engine.connect() as connection:
        rows = await connection.execute(text("SELECT id, status, failures, worker FROM export_jobs"))
        return {row.id: (row.status, row.failures, row.worker) for row in rows}


async def claimed_in_doubt(jobs: Jobs, answers: LostAnswers, lost: LostClaims) -> None:
    answers.left = 1
    with pytest.raises(InDoubt), lost.watch():
        await jobs.store.claim(lost.worker, 10)
    assert lost.is_in_doubt


async def test_only_what_was_claimed_since_and_does_not_run_is_handed_back(
    jobs: Jobs, answers: LostAnswers
) -> None:
    """A process before this one can have had the same name; what ended it must count as a failure."""
    before, running, other, taken = [await jobs.admit(user) for user in "abcd"]
    lost = LostClaims(jobs.store, "w")
    known: dict[UUID, Claim] = {}
    for job, worker in ((before, "w"), (running, "w"), (other, "v")):
        async with jobs.engine.begin() as connection:
            await connection.execute(text("UPDATE export_jobs SET not_before = now() + interval '1 day'"))
            await connection.execute(
                text("UPDATE export_jobs SET not_before = NULL WHERE id = :id"), {"id": job}
            )
        (known[job],) = await jobs.store.claim(worker, 1)
    async with jobs.engine.begin() as connection:
        await connection.execute(
            text("UPDATE export_jobs SET started_at = now() - interval '1 minute' WHERE id = :id"),
            {"id": before},
        )
        await connection.execute(text("UPDATE export_jobs SET not_before = NULL"))
    await claimed_in_doubt(jobs, answers, lost)
    assert (await states(jobs))[taken] == ("processing", 0, "w")
    await lost.release_lost([known[running]])
    assert await states(jobs) == {
        before: ("processing", 0, "w"),
        running: ("processing", 0, "w"),
        other: ("processing", 0, "v"),
        taken: ("pending", 0, None),
    }
    assert not lost.is_in_doubt
    assert ids(await jobs.store.claim("w", 10)) == [taken]


async def test_a_job_that_is_to_be_cancelled_ends(jobs: Jobs, answers: LostAnswers) -> None:
    job = await jobs.admit()
    lost = LostClaims(jobs.store, "w")
    await claimed_in_doubt(jobs, answers, lost)
    await jobs.cancel(job)
    await lost.release_lost([])
    (outcome,) = await jobs.store.unclaimed.end_exhausted()
    assert (outcome.job_id, outcome.status) == (job, "cancelled")


async def test_parts_are_handed_back(jobs: Jobs, answers: LostAnswers) -> None:
    await jobs.admit(split={"rows": 5})
    lost = LostClaims(jobs.store, "w")
    (holder,) = await jobs.store.claim("w", 1)
    await plan(PartStore(jobs.store), holder, 3)
    (running,) = await jobs.store.claim("w", 1)
    await claimed_in_doubt(jobs, answers, lost)
    seen = "SELECT status, failures, worker FROM export_parts ORDER BY number"
    await lost.release_lost([holder, running])
    assert [state[0] for state in (await states(jobs)).values()] == ["processing"]
    async with jobs.engine.connect() as connection:
        rows = [tuple(row) for row in await connection.execute(text(seen))]
    assert rows == [("processing", 0, "w"), ("pending", 0, None), ("pending", 0, None)]


async def test_nothing_is_handed_back_before_the_claim_in_doubt_has_ended(
    jobs: Jobs, answers: LostAnswers
) -> None:
    """A commit can take effect after its connection was lost. Until then its transaction holds the lock."""
    await jobs.admit()
    lost = LostClaims(jobs.store, "w")
    await claimed_in_doubt(jobs, answers, lost)
    async with jobs.engine.begin() as late:
        await late.execute(text(f"SELECT pg_advisory_xact_lock({CLAIMS})"))
        with pytest.raises(Locked):
            await lost.release_lost([])
    assert lost.is_in_doubt
    await lost.release_lost([])
    assert [state[0] for state in (await states(jobs)).values()] == ["pending"]


@asynccontextmanager
async def working(
    jobs: Jobs, storage: ObjectStore, settings: Settings, slots: int = 1
) -> AsyncIterator[tuple[Dispatcher, Exports]]:
    exports = Exports(storage, settings)

    async def publish_event(_: Event) -> None: ...

    dispatcher = Dispatcher(
        worker="w",
        queue=jobs.store,
        exporter=cast(Exporter, exports),
        publish_event=publish_event,
        settings=settings.model_copy(update={"worker_slots": slots}),
    )
    work = asyncio.create_task(dispatcher.work())
    yield dispatcher, exports
    await dispatcher.drain(0)
    await work


@pytest.mark.parametrize("way", ["claim", "admission"])
async def test_a_job_runs_although_the_answer_to_its_claim_was_lost(
    jobs: Jobs,
    storage: ObjectStore,
    settings: Settings,
    answers: LostAnswers,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """With one attempt, it ended as ``worker_lost`` although it had not run."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1 if way == "claim" else 3_600)
    async with working(jobs, storage, settings) as (dispatcher, exports):
        await until_async(lambda: not jobs.store.is_work_left)
        if way == "admission":
            answers.left = 1
            with pytest.raises(InDoubt):
                await dispatcher.admit(new_job("a"))
        else:
            answers.left = 1_000  # also those of the admission, and of claims without work
            with pytest.raises(InDoubt):
                await jobs.admit("a")

            async def is_taken() -> bool:
                return [state[0] for state in (await states(jobs)).values()] == ["processing"]

            await until_async(is_taken)
            answers.left = 0
        await until_async(lambda: len(exports.running) == 1, within=20)  # less than a lease
        ((status, failures, worker),) = (await states(jobs)).values()
        assert (status, failures, worker) == ("processing", 0, "w")
        exports.end_one()
        await until_async(lambda: dispatcher.running == 0)


async def test_what_is_lost_is_handed_back_while_no_slot_is_free_and_at_the_end(
    jobs: Jobs,
    storage: ObjectStore,
    settings: Settings,
    answers: LostAnswers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 3_600)
    async with working(jobs, storage, settings) as (dispatcher, exports):
        await until_async(lambda: not jobs.store.is_work_left)
        await dispatcher.admit(new_job("a"))
        await until_async(lambda: len(exports.running) == 1)
        for is_ending in (False, True):
            job = await jobs.admit("b")
            await claimed_in_doubt(jobs, answers, dispatcher._lost)
            assert (await states(jobs))[job][0] == "processing"
            if is_ending:
                break
            dispatcher.wake()

            async def is_back(job: UUID = job) -> bool:
                return (await states(jobs))[job] == ("pending", 0, None)

            await until_async(is_back)
    assert [state[0] for state in (await states(jobs)).values()] == ["pending"] * 3


async def test_nothing_is_claimed_while_what_is_lost_cannot_be_handed_back(
    jobs: Jobs,
    storage: ObjectStore,
    settings: Settings,
    answers: LostAnswers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 3_600)  # no other claim gets the answer that is lost
    tries = 0
    is_away = True
    release_lost = LostClaims.release_lost

    async def try_to_release_lost(self: LostClaims, running: Iterable[Claim]) -> None:
        nonlocal tries
        tries += 1
        if is_away:
            raise Outage("away")
        await release_lost(self, running)

    monkeypatch.setattr(LostClaims, "release_lost", try_to_release_lost)
    async with working(jobs, storage, settings, slots=2) as (dispatcher, exports):
        await until_async(lambda: not jobs.store.is_work_left)
        answers.left = 1
        with pytest.raises(InDoubt):
            await dispatcher.admit(new_job("a"))
        other = await jobs.admit("b")
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
        dispatcher.wake()
        await until_async(lambda: tries > 5)
        assert (await states(jobs))[other] == ("pending", 0, None)
        assert not exports.running
        is_away = False
        await until_async(lambda: len(exports.running) == 2)
        assert {state[:2] for state in (await states(jobs)).values()} == {("processing", 0)}
