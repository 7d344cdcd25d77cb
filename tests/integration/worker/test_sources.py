"""A source that is away or slow holds up only its own jobs: two real databases, one behind a proxy."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import SOURCE
from dev.stack import Stack
from stream_app.database_url import CONNECT_SECONDS
from stream_app.datasets.file import DatasetsFile
from stream_app.datasets.models import Dataset, SourceSettings
from stream_app.datasets.registry import Datasets
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources import connection_pool
from stream_app.exports.sources import monitor as source_monitor
from stream_app.exports.sources.monitor import SourceMonitor
from stream_app.exports.sources.registry import Sources, export_pools
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportLimits
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.submission import submit
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker import attempt, source_slots
from stream_app.worker.dispatcher import Dispatcher
from streaming_exporter.events import Event, ExportRequest, request_event
from tests.integration.jobs.jobs import Jobs
from tests.tcp_proxy import TcpProxy, proxied
from tests.waiting import patient, until_async

JOBS = 12
SLOTS = 3

HELD_UP_SECONDS = patient(CONNECT_SECONDS) / 2
"""Jobs that wait for slots of exports from the source that is away wait for longer: until these give up."""


@dataclass
class Service:
    """A worker with two sources: ``default``, and ``crm`` behind a proxy."""

    jobs: Jobs
    dispatcher: Dispatcher
    sources: Sources
    monitor: SourceMonitor
    datasets: Datasets
    proxy: TcpProxy
    published: list[Event] = field(default_factory=list)

    async def request(self, export_type: str, count: int = JOBS) -> list[UUID]:
        validator = RequestValidator(FORMATS, self.datasets)
        now = datetime.now(UTC)
        found = []
        for number in range(count):
            wanted = ExportRequest(
                user_id=f"{export_type}-{number}", export_type=export_type, format="csv", scope="all"
            )
            event = request_event(wanted, job_id=uuid4(), source="/t")
            found.append(replace(validator.job(event, now=now), admitted_at=now))
        async with self.jobs.store.transaction() as connection:
            await submit(connection, found)
        return [job.id for job in found]

    async def ended(self, ids: Sequence[UUID], *, within: float = 60) -> float:
        """Wait until the jobs are completed; return the seconds."""
        began = time.monotonic()

        async def look() -> bool:
            async with self.jobs.engine.connect() as connection:
                found = await connection.scalars(
                    text("SELECT outcome ->> 'status' FROM export_jobs WHERE id = ANY (:ids)"), {"ids": ids}
                )
                return list(found) == ["completed"] * len(ids)

        await until_async(look, within=within)
        return time.monotonic() - began


@pytest.fixture
async def service(
    stack: Stack, engine: AsyncEngine, own_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    name = f"crm_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(stack.postgres.admin_url())
    await admin.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
    databases = {"default": stack.postgres.admin_url(SOURCE), "crm": stack.postgres.admin_url(name)}
    for url in databases.values():
        connection = await asyncpg.connect(url)
        await connection.execute(
            f"CREATE TABLE {name} AS SELECT n AS id, repeat('x', 100) AS value FROM generate_series(1, 50) n;"
            f"GRANT SELECT ON {name} TO PUBLIC"
        )
        await connection.close()
    crm = await asyncpg.connect(databases["crm"])
    await crm.execute(
        f"CREATE VIEW slow AS SELECT id FROM {name} WHERE pg_sleep(60) IS NOT NULL;"
        "GRANT SELECT ON slow TO PUBLIC"
    )
    await crm.close()
    settings = own_settings.model_copy(update={"worker_slots": SLOTS, "user_slots": 1})
    async with proxied(databases["crm"]) as (proxy, url):
        monkeypatch.setenv("CRM_DATABASE_URL", url)
        monkeypatch.setattr(connection_pool, "CONNECT_SECONDS", patient(CONNECT_SECONDS))
        monkeypatch.setattr(attempt, "SLOW_SECONDS", 0.5)
        for name_of_time in ("STARTING_SECONDS", "AWAY_SECONDS", "CHECK_SECONDS", "POLL_SECONDS"):
            monkeypatch.setattr(source_monitor, name_of_time, 0.5)
        content = DatasetsFile(
            {"crm": SourceSettings(name="crm", url_env="CRM_DATABASE_URL", connections=4)},
            {
                "near": Dataset(name="near", table=f"public.{name}"),
                "far": Dataset(name="far", table=f"public.{name}", source="crm"),
                "slow": Dataset(name="slow", table="public.slow", source="crm"),
            },
        )
        datasets = Datasets(content)
        of_exports, _ = export_pools(settings)
        sources = Sources(settings, content, of_exports)
        storage, threads = ObjectStore(settings), ThreadPoolExecutor(16)
        exporter = Exporter(
            sources, Catalog(sources), storage, datasets, FORMATS, ExportLimits.of(settings), threads
        )
        published: list[Event] = []

        async def publish_event(event: Event) -> None:
            published.append(event)

        jobs = Jobs(engine, user_slots=1)
        dispatcher = Dispatcher(
            worker="w", queue=jobs.store, exporter=exporter, publish_event=publish_event, settings=settings
        )
        monitor = SourceMonitor(sources)
        tasks = [
            asyncio.create_task(work) for work in (dispatcher.work(), dispatcher.heartbeat(), monitor.run())
        ]
        yield Service(jobs, dispatcher, sources, monitor, datasets, proxy, published)
        await dispatcher.drain(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await sources.close()
        storage.close()
        threads.shutdown(wait=False)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection = await asyncpg.connect(databases["default"])
    await connection.execute(f"DROP TABLE {name}")
    await connection.close()
    await admin.close()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["silent", "silent_later", "refused"])
async def test_a_source_that_is_away_holds_up_only_its_own_jobs(
    service: Service, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs before the first connection, or behind open ones, or refuses all of them."""
    monkeypatch.setattr(source_slots, "TRIAL_SECONDS", 2)
    alone = await service.ended(await service.request("near"))
    if way == "silent_later":
        await service.ended(await service.request("far", 4))
    service.proxy.refuses = way == "refused"
    service.proxy.is_silent = way != "refused"
    if way == "refused":
        await service.proxy.drop()
    far = await service.request("far")
    crm = service.sources["crm"].pool
    await until_async(lambda: crm.demand or crm.unavailable_since)
    near = await service.request("near")
    seconds = await service.ended(near)
    assert seconds < alone + HELD_UP_SECONDS, "the slots of slow exports are free after half a second"
    assert service.sources["default"].pool.unavailable_since is None
    again = await service.ended(await service.request("near"))
    assert again < alone + HELD_UP_SECONDS
    await until_async(lambda: service.monitor.states()["crm"] == "unavailable", within=20)
    assert service.monitor.states()["default"] == "ok"
    service.proxy.refuses = service.proxy.is_silent = False
    await service.proxy.drop()
    await service.ended(far, within=90)
    assert set(service.monitor.states().values()) == {"ok"}
    failures = [event for event in service.published if event.type == "export.failed"]
    assert failures == []


async def test_a_slow_source_holds_up_only_its_own_jobs(service: Service) -> None:
    """Its exports give their slots away, and no more of them run than the source has connections for."""
    alone = await service.ended(await service.request("near"))
    slow = await service.request("slow", SLOTS + 1)
    await until_async(lambda: service.dispatcher.running)
    assert await service.ended(await service.request("near")) < alone + HELD_UP_SECONDS
    worker = service.dispatcher
    # One runs, because the source has connections for one. It has given its slot away.
    await until_async(lambda: (worker.running, worker.slots_in_use) == (1, 0), within=20)
    assert service.sources["crm"].pool.unavailable_since is None
    async with service.jobs.engine.connect() as connection:
        found = await connection.scalars(
            text("SELECT status FROM export_jobs WHERE id = ANY (:ids)"), {"ids": slow}
        )
        assert sorted(found) == ["pending"] * SLOTS + ["processing"]
