"""What operators have paused is not claimed, also after a restart; the start of an attempt has a log line."""

import asyncio
from typing import cast

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.jobs.claim import Claim
from stream_app.jobs.claim_pauses import EVERYTHING, PausedClaims, PauseStore
from stream_app.jobs.parts import PartStore
from stream_app.jobs.worker_registry import WorkerRegistry
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.dispatcher import Dispatcher
from stream_app.worker.presence import WorkerPresence
from streaming_exporter.errors import Retryable
from streaming_exporter.events import Event
from tests.integration.jobs.jobs import Jobs
from tests.integration.jobs.parts import part_claims, plan
from tests.integration.worker.test_job_runner import Exports
from tests.waiting import until_async


@pytest.fixture
async def jobs(engine: AsyncEngine) -> Jobs:
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM claim_pauses"))
        await connection.execute(text("DELETE FROM workers"))
    return Jobs(engine)


def presence_of(engine: AsyncEngine) -> WorkerPresence:
    return WorkerPresence(WorkerRegistry(engine), "w", slots=2, running=lambda: 0)


@pytest.mark.parametrize("scope", [EVERYTHING, "dataset:ledger", "source:crm"])
async def test_nothing_is_claimed_while_it_is_paused(
    jobs: Jobs, engine: AsyncEngine, storage: ObjectStore, settings: Settings, scope: str
) -> None:
    """P19: a worker that starts reads the pauses first; a resume lets the job run."""
    exports = Exports(storage)
    presence, pauses = presence_of(engine), PauseStore(engine)

    async def publish_event(_: Event) -> None:
        pass

    exporter = cast(Exporter, exports)
    exports.datasets["ledger"] = Dataset(name="ledger", table="public.ledger", source="crm")
    dispatcher = Dispatcher(
        worker="w",
        queue=jobs.store,
        exporter=exporter,
        publish_event=publish_event,
        settings=settings,
        paused=lambda: presence.paused,
    )
    await jobs.admit()
    assert not await dispatcher._claim(2)
    assert dispatcher.running == 0, "nothing is claimed before the first report"
    await pauses.pause(scope, reason="x", by="me")
    await presence.report()
    assert presence.paused == PausedClaims(frozenset({scope}))
    await dispatcher._claim(2)
    assert dispatcher.running == 0
    assert await pauses.resume(scope)
    await dispatcher._claim(2)
    assert dispatcher.running == 0, "the worker does not know it yet"
    with structlog.testing.capture_logs() as logs:
        await presence.report()
        await dispatcher._claim(2)
    assert dispatcher.running == 1
    [line] = [line for line in logs if line["event"] == "job.started"]
    assert (line["dataset"], line["format"], line["worker"]) == ("ledger", "csv", "w")
    assert line["queue_seconds"] >= 0
    await until_async(lambda: exports.running)
    await dispatcher.drain(0)


@pytest.mark.parametrize("scope", [EVERYTHING, "dataset:ledger", "source:crm"])
async def test_parts_of_a_running_export_are_claimed_while_it_is_paused(
    jobs: Jobs,
    engine: AsyncEngine,
    storage: ObjectStore,
    settings: Settings,
    scope: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P19: a running export goes on; otherwise it would keep its snapshot open and fail at its time limit."""
    exports = Exports(storage)
    exports.datasets["ledger"] = Dataset(name="ledger", table="public.ledger", source="crm")

    async def publish_event(_: Event) -> None:
        pass

    dispatcher = Dispatcher(
        worker="w",
        queue=jobs.store,
        exporter=cast(Exporter, exports),
        publish_event=publish_event,
        settings=settings,
        paused=lambda: PausedClaims(frozenset({scope})),
    )
    started: list[Claim] = []
    monkeypatch.setattr(dispatcher, "_start", started.append)
    running = await jobs.admit()
    (claim,) = await jobs.store.claim("holder", 1)
    assert claim.job_id == running
    await plan(PartStore(jobs.store), claim, 2)
    await jobs.admit()
    await dispatcher._claim(3)
    assert [item.job_id for item in part_claims(started)] == [running] * 2
    assert len(started) == 2, "the other job waits"


def test_pauses_of_a_source_hold_its_datasets_only() -> None:
    datasets = {
        name: Dataset(name=name, table=f"public.{name}", source=source)
        for name, source in (("a", "crm"), ("b", "crm"), ("c", "erp"))
    }
    paused = PausedClaims(frozenset({"source:crm", "dataset:d"}))
    assert set(paused.datasets(datasets)) == {"a", "b", "d"}, "d is possibly known to other workers only"
    assert not paused.everything
    assert [paused.scope_of(name, item, "u") for name, item in datasets.items()] == [
        "source:crm",
        "source:crm",
        None,
    ]


async def test_a_user_who_floods_is_paused_and_goes_on(jobs: Jobs, engine: AsyncEngine) -> None:
    """The jobs of one user wait, those of others do not; abandoned ones of the user wait too."""
    paused = PausedClaims(frozenset({"user:flooder", "dataset:d"}))
    assert paused.users == ("flooder",)
    assert paused.scope_of("ledger", None, "flooder") == "user:flooder"
    mine = {await jobs.admit("flooder") for _ in range(3)}
    other = await jobs.admit("other")
    claims = await jobs.store.claim("w", 4, paused_users=paused.users)
    assert [claim.job_id for claim in claims] == [other]
    assert jobs.store.is_work_left
    first = {claim.job_id for claim in await jobs.store.claim("w", 1)}
    assert first < mine
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE export_jobs SET lease_until = now() - interval '1 s' WHERE user_id = 'flooder'")
        )
    assert await jobs.store.claim("w", 4, paused_users=paused.users) == []
    assert first <= {claim.job_id for claim in await jobs.store.claim("w", 4)}


async def test_a_worker_is_listed_while_it_runs_and_keeps_pauses_during_an_outage(
    jobs: Jobs, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    presence, registry = presence_of(engine), WorkerRegistry(engine)
    await PauseStore(engine).pause(EVERYTHING, reason=None, by="me")
    await presence.report()
    [worker], now = await registry.all()
    assert (worker.name, worker.slots, worker.running) == ("w", 2, 0)
    assert worker.seen_at <= now

    async def away(*_: object, **__: object) -> PausedClaims:
        raise Retryable("away")

    with monkeypatch.context() as patched:
        patched.setattr(WorkerRegistry, "report", away)
        with pytest.raises(Retryable):
            await presence.report()
    assert presence.paused is not None
    assert presence.paused.everything
    await presence.leave()
    await presence.report()
    assert (await registry.all())[0] == [], "a report after the end does not list it again"


async def test_workers_that_are_gone_for_an_hour_are_forgotten(jobs: Jobs, engine: AsyncEngine) -> None:
    registry = WorkerRegistry(engine)
    for name in ("gone", "frozen"):
        await WorkerPresence(registry, name, slots=1, running=lambda: 0).report()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE workers SET seen_at = now() - interval '2 hours'"))
    await WorkerPresence(registry, "frozen", slots=1, running=lambda: 1).report()
    assert [(worker.name, worker.running) for worker in (await registry.all())[0]] == [("frozen", 1)]


async def test_a_worker_that_does_not_claim_yet_has_no_slots(
    jobs: Jobs, engine: AsyncEngine, storage: ObjectStore, settings: Settings
) -> None:
    """It waits for the bucket or reads outcomes; jobs must not seem to run soon."""

    async def publish_event(_: Event) -> None:
        pass

    exporter, registry = cast(Exporter, Exports(storage)), WorkerRegistry(engine)
    dispatcher = Dispatcher(
        worker="w", queue=jobs.store, exporter=exporter, publish_event=publish_event, settings=settings
    )
    presence = WorkerPresence(
        registry, "w", slots=2, running=lambda: 0, is_claiming=lambda: dispatcher.is_claiming
    )
    await presence.report()
    assert [worker.slots for worker in (await registry.all())[0]] == [0]
    working = asyncio.create_task(dispatcher.work())
    await until_async(lambda: dispatcher.is_claiming)
    await presence.report()
    assert [worker.slots for worker in (await registry.all())[0]] == [2]
    await dispatcher.drain(0)
    await working


async def test_a_heartbeat_stores_what_the_attempt_does(
    jobs: Jobs, engine: AsyncEngine, storage: ObjectStore, settings: Settings
) -> None:
    exports = Exports(storage)

    async def publish_event(_: Event) -> None:
        pass

    dispatcher = Dispatcher(
        worker="w",
        queue=jobs.store,
        exporter=cast(Exporter, exports),
        publish_event=publish_event,
        settings=settings,
    )
    job_id = await jobs.admit()
    await dispatcher._claim(1)
    await until_async(lambda: exports.running)
    await dispatcher._renew()
    job = await jobs.queries.get(job_id)
    assert job is not None
    assert job.stages == {"attempt": 1, "phase": "prepare"}
    await dispatcher.drain(0)
