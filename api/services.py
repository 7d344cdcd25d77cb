"""The services that all calls share, built once when the API starts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import httpx2
from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from api.auth.authenticator import Authenticator
from api.auth.signing_keys import Keys, PublishedKeys, SharedSecret
from api.background import keep_running
from api.files.download_audit import DownloadAudit
from api.jobs.live_updates import LiveUpdates
from api.jobs.reader import JobReader
from api.jobs.waiting import JobWaits
from api.operations.dead_letters import DeadLetters
from api.operations.doctor import Doctor
from api.operations.queue_metrics import QueueMetrics
from api.operations.readiness import LIVE_UPDATES, WRITE_CHECK, Readiness
from stream_app.datasets.registry import Datasets
from stream_app.datasets.watcher import DatasetsWatcher
from stream_app.db.clock import DatabaseClock
from stream_app.db.engine import create_engine
from stream_app.db.listener import CHANGES_CHANNEL, listen
from stream_app.db.writability import check_writable
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.formats.base import Format
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.live_datasets import datasets_watcher, open_datasets
from stream_app.exports.sources.monitor import SourceMonitor
from stream_app.exports.sources.registry import PoolSize, SourceFinder, Sources, call_pools
from stream_app.exports.tables.catalog import Catalog
from stream_app.jobs.claim_pauses import PauseStore
from stream_app.jobs.job_files import JobFiles
from stream_app.jobs.job_queries import JobQueries
from stream_app.jobs.job_statistics import JobStatistics
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.request_validator import RequestValidator
from stream_app.keyed_hashes import AddressHash
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.outbox import Outbox
from stream_app.observability import metrics
from stream_app.schedules.store import ScheduleStore
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.maintenance.request_relay import RequestRelay
from streaming_exporter.events import Event
from streaming_exporter.publisher import Publisher

NAME = "exporter-api"
SOURCE = "/exporter/api"
"""The ``source`` of events that the API publishes."""


TABLE_SECONDS = 5.0
"""Time limit for the description of a table, for which a user waits."""

CALL_CONNECTIONS = 4
"""Connections to each source for descriptions of tables."""
ESTIMATE_CONNECTIONS = 2
"""Connections to each source for estimates. They have their own pool, so they do not delay requests."""


@dataclass(frozen=True, slots=True)
class ApiServices:
    """The services that the calls use."""

    settings: Settings
    datasets: Datasets
    formats: Mapping[str, Format]
    estimate_sources: SourceFinder
    catalog: Catalog
    job_queries: JobQueries
    job_searches: JobQueries
    """Lists jobs over a pool of its own: a search can take seconds, and all other reads are short."""
    job_files: JobFiles
    reader: JobReader
    live_updates: LiveUpdates
    job_waits: JobWaits
    queue: JobQueue
    schedules: ScheduleStore
    schedule_reads: ScheduleStore
    """Reads schedules over a pool of its own, which works while writers wait for an unavailable part."""
    storage: ObjectStore
    validator: RequestValidator
    passwords: Callable[[], FilePasswords | None]
    outbox: Outbox
    delivery_links: DeliveryLinks
    address_hash: AddressHash
    publisher: Publisher
    relay: RequestRelay
    clock: DatabaseClock
    download_audit: DownloadAudit
    queue_metrics: QueueMetrics
    readiness: Readiness
    source_monitor: SourceMonitor
    datasets_watcher: DatasetsWatcher
    authenticator: Authenticator
    read_engine: AsyncEngine
    statistics: JobStatistics
    pauses: PauseStore
    doctor: Doctor
    dead_letters: DeadLetters


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[ApiServices]:
    """Build the services. Connections open on first use, so the API starts while other parts are down.

    Raises:
        DatasetsFileError: the datasets file is invalid.
    """
    datasets = open_datasets(settings)
    async with AsyncExitStack() as stack:
        engines = _open_engines(stack, settings)
        call_pool, estimate_pool = call_pools(calls=CALL_CONNECTIONS, estimates=ESTIMATE_CONNECTIONS)
        sources = _open_sources(stack, settings, datasets, call_pool)
        estimate_sources = _open_sources(stack, settings, datasets, estimate_pool)
        monitor = SourceMonitor(sources)
        watcher = datasets_watcher(settings, datasets, sources, estimate_sources)
        publisher = await stack.enter_async_context(Publisher(settings, client_id=NAME, source=SOURCE))
        queue = JobQueue.of(settings, engines.writing)
        relay = await _open_relay(stack, queue, publisher)
        job_queries = JobQueries(engines.reading)
        reader = JobReader(settings, application=NAME)
        stack.push_async_callback(reader.close)
        # Only signs links and checks the store. The time-outs are short, because a user waits.
        storage = ObjectStore(settings, connections=2, timeout_seconds=3, retry_seconds=0)
        stack.callback(storage.close)
        live_updates = LiveUpdates(job_queries, queue.clock.now)
        background: dict[str, Callable[[], Awaitable[object]]] = {
            "source_monitor": monitor.run,
            "datasets_watcher": watcher.run,
            "outbox_relay": relay.run,
            "database_clock": queue.clock.run,
            "live_updates": live_updates.run,
            "loop_lag": metrics.measure_loop_lag,
            "listener": partial(_listen, settings, live_updates),
        }
        for name, work in background.items():
            await stack.enter_async_context(keep_running(name, work))
        yield ApiServices(
            settings=settings,
            datasets=datasets,
            formats=FORMATS,
            estimate_sources=estimate_sources,
            catalog=Catalog(sources, seconds=TABLE_SECONDS),
            job_queries=job_queries,
            job_searches=JobQueries(engines.searching),
            job_files=JobFiles(engines.reading, lambda key: storage.run_in_thread(storage.read, key)),
            reader=reader,
            live_updates=live_updates,
            job_waits=JobWaits(
                live_updates, reader, limit=settings.api_wait_limit, limit_of_user=settings.user_wait_limit
            ),
            queue=queue,
            schedules=ScheduleStore(engines.writing),
            schedule_reads=ScheduleStore(engines.reading),
            storage=storage,
            validator=RequestValidator.of(settings, datasets),
            passwords=partial(FilePasswords.of, settings),
            outbox=Outbox(engines.reading),
            delivery_links=DeliveryLinks(settings),
            address_hash=AddressHash.of(settings),
            publisher=publisher,
            relay=relay,
            clock=queue.clock,
            queue_metrics=QueueMetrics(engines.reading, datasets),
            readiness=Readiness(
                {
                    "database": job_queries.check,
                    WRITE_CHECK: partial(check_writable, engines.reading),
                    "kafka": publisher.check,
                    "object_store": lambda: storage.run_in_thread(storage.check),
                    LIVE_UPDATES: live_updates.check,
                }
            ),
            source_monitor=monitor,
            datasets_watcher=watcher,
            download_audit=await stack.enter_async_context(DownloadAudit(publisher, source=SOURCE)),
            authenticator=Authenticator(settings, await _open_keys(stack, settings)),
            read_engine=engines.reading,
            statistics=JobStatistics(engines.searching),
            pauses=PauseStore(engines.writing),
            doctor=Doctor(settings, engines.reading),
            dead_letters=DeadLetters(settings, engines.writing, publisher),
        )


@dataclass(frozen=True, slots=True)
class _Engines:
    """The pools of connections to the state database.

    Writers have their own pool, so reads continue while many writers wait. So do searches, which can take
    seconds: otherwise ten of them would stop all waits, streams and repeated requests.
    """

    reading: AsyncEngine
    writing: AsyncEngine
    searching: AsyncEngine


def _open_engines(stack: AsyncExitStack, settings: Settings) -> _Engines:
    def open_engine(application: str) -> AsyncEngine:
        engine = create_engine(settings, application=application, autocommit=True)
        stack.push_async_callback(engine.dispose)
        return engine

    return _Engines(open_engine(NAME), open_engine(f"{NAME}-writer"), open_engine(f"{NAME}-search"))


def _open_sources(stack: AsyncExitStack, settings: Settings, datasets: Datasets, size: PoolSize) -> Sources:
    sources = Sources(settings, datasets.content, size)
    stack.push_async_callback(sources.close)
    return sources


async def _listen(settings: Settings, live_updates: LiveUpdates) -> None:
    await listen(
        settings, live_updates.on_notify, application=f"{NAME}-live-updates", channel=CHANGES_CHANNEL
    )


async def _open_relay(stack: AsyncExitStack, queue: JobQueue, publisher: Publisher) -> RequestRelay:
    async def publish(events: Sequence[Event]) -> None:
        await asyncio.gather(*map(publisher.publish, events))

    return await stack.enter_async_context(RequestRelay(queue.admission, publish))


async def _open_keys(stack: AsyncExitStack, settings: Settings) -> Keys:
    """Return the keys of tokens: those that the identity provider publishes, or else the shared secret."""
    if settings.jwt_jwks_url is None:
        return SharedSecret(settings.jwt_secret.get_secret_value())
    http = await stack.enter_async_context(httpx2.AsyncClient(timeout=5))
    return PublishedKeys(settings.jwt_jwks_url, http)


async def _services(request: Request) -> ApiServices:
    services: ApiServices = request.app.state.services
    return services


InjectedServices = Annotated[ApiServices, Depends(_services)]
