"""The composition root of the worker: it builds and connects all parts."""

import asyncio
import os
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Self, cast

import faust
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.chat_addresses import Chat
from stream_app.datasets.registry import Datasets
from stream_app.datasets.retention import longest_retention
from stream_app.db.engine import autocommitting, create_engine
from stream_app.db.kept_connections import KeptConnections
from stream_app.db.listener import listen
from stream_app.db.table_check import check_tables
from stream_app.destinations.client import DestinationClient
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.formats.framing_process import end_idle
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.live_datasets import datasets_watcher, open_datasets
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.sources.monitor import SourceMonitor
from stream_app.exports.sources.registry import Sources, export_pools
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportLimits
from stream_app.garbage_collection import exclude_started_objects
from stream_app.jobs.job_files import JobFiles
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.worker_registry import WorkerRegistry
from stream_app.jobs.write_check import write_trial_job
from stream_app.kafka.brokers import Brokers
from stream_app.kafka.event_producer import EventProducer
from stream_app.kafka.faust_app import bytes_topic, create_faust_app
from stream_app.kafka.stopping import CLOSE_SECONDS
from stream_app.kafka.transport import App
from stream_app.notifications.channel import DeliveryClient
from stream_app.notifications.chats.client import ChatClient
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.mail.client import CLAIM_TIMEOUTS, MailClient
from stream_app.notifications.models import Channel
from stream_app.notifications.outbox import Outbox
from stream_app.notifications.public_post import PublicPost
from stream_app.notifications.sender import POLL_SECONDS, REST_SECONDS, SETTLE_SECONDS, Sender
from stream_app.notifications.webhook import WebhookClient
from stream_app.observability import metrics
from stream_app.retries import retry_until_possible
from stream_app.schedules.run_planner import RunPlanner
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.background_tasks import add_background_tasks
from stream_app.worker.batches import Messages, handle_in_batches
from stream_app.worker.dispatcher import DRAIN_SECONDS, Dispatcher
from stream_app.worker.health import BROKER_TIMEOUT, WorkerHealth
from stream_app.worker.lifecycle_handler import LifecycleHandler, is_without_outcome
from stream_app.worker.liveness import ExitTimer
from stream_app.worker.maintenance.bucket_cleaner import CLEANING_LOCK_0_1, BucketCleaner
from stream_app.worker.maintenance.job_cleaner import JobCleaner
from stream_app.worker.maintenance.request_relay import RequestRelay
from stream_app.worker.presence import WorkerPresence
from stream_app.worker.replay import OutcomeReplay
from stream_app.worker.request_handler import RequestHandler
from stream_app.worker.scheduler import Scheduler
from stream_app.worker.watchdog import Watchdog
from streaming_exporter.events import Topic

log = structlog.get_logger(__name__)

SHUTDOWN_SECONDS = CLOSE_SECONDS + 7
"""Seconds that a worker has to close its connections after its exports have ended.

Beside :data:`CLOSE_SECONDS` it needs 2 to sign off, 2 to end its tasks and 2 to send its last traces."""


KEPT_CONNECTIONS = 3
"""Connections that are kept for the queue of jobs. The pool has ten."""


OUTCOMES_INTERVAL = 0.05
"""Seconds from one batch of outcomes to the next while jobs wait for a slot.

Then outcomes come one by one, and several are applied in one transaction. Otherwise each is applied at once.
"""


THREADS_PER_SLOT = 16
"""Limit of threads for each slot. They start when they are needed.

An export whose source is slow gives its slot to another export, and keeps its thread."""


def worker_name() -> str:
    """Return the name of this process in leases, logs and event sources."""
    return f"{socket.gethostname()}-{os.getpid()}"


def create_sender(
    settings: Settings,
    engine: AsyncEngine,
    storage: ObjectStore,
    worker: str,
    *,
    poll: float = POLL_SECONDS,
    datasets: Datasets | None = None,
) -> Sender:
    """Return the sender of deliveries, with a client for each channel that is set up."""
    links = DeliveryLinks(settings)
    clients: dict[Channel, DeliveryClient] = {}
    if settings.smtp_host is not None:
        clients[Channel.MAIL] = MailClient(settings, links, storage)
    if settings.webhook_key is not None:
        clients[Channel.WEBHOOK] = WebhookClient(settings, links)
    post = PublicPost(settings)
    clients[Channel.SLACK] = ChatClient(post, links, Chat.SLACK)
    clients[Channel.TEAMS] = ChatClient(post, links, Chat.TEAMS)
    # Longer than the send time-out and the statements around it: an expired lease means a dead sender.
    lease = timedelta(seconds=CLAIM_TIMEOUTS * settings.delivery_timeout_seconds + 2)
    outbox = Outbox(engine, worker=worker, lease=lease)
    if datasets is not None:
        files = JobFiles(engine, lambda key: storage.call(storage.read, key))
        clients[Channel.DESTINATION] = DestinationClient(settings, outbox, storage, files, datasets)
    return Sender(outbox, clients, settings, poll=poll)


@dataclass(frozen=True, slots=True)
class _Connections:
    """What a worker keeps open until it stops.

    Attributes:
        database: connections to the state database.
        kept: those that the queue of jobs keeps.
        sources: connections to the source databases, for exports.
        plan_sources: connections to the same databases, for plans with parts.
        threads: write and upload the files of exports.
    """

    database: AsyncEngine
    kept: KeptConnections
    storage: ObjectStore
    sources: Sources
    plan_sources: Sources
    threads: ThreadPoolExecutor

    @classmethod
    def of(cls, settings: Settings, worker: str, datasets: Datasets) -> Self:
        """Build the pools of ``worker``. Each connects when it is first used."""
        database = create_engine(settings, application=worker, autocommit=True)
        of_exports, of_plans = export_pools(settings)
        return cls(
            database=database,
            kept=KeptConnections(database, KEPT_CONNECTIONS),
            storage=ObjectStore(settings, connections=2 * settings.worker_slots),
            sources=Sources(settings, datasets.content, of_exports),
            plan_sources=Sources(settings, datasets.content, of_plans),
            threads=ThreadPoolExecutor(settings.worker_slots * THREADS_PER_SLOT, thread_name_prefix="upload"),
        )

    async def close(self) -> None:
        """Close them, and end the processes of formats that wait for work."""
        await self.sources.close()
        await self.plan_sources.close()
        await self.kept.close()
        await self.database.dispose()
        self.storage.close()
        self.threads.shutdown(wait=False)
        end_idle()


@dataclass(frozen=True, slots=True)
class _Worker:
    """The parts of a worker that its agents and its other tasks share."""

    name: str
    settings: Settings
    app: App
    emit: EventProducer
    datasets: Datasets
    validator: RequestValidator
    connections: _Connections
    store: JobQueue
    replay: OutcomeReplay
    dispatcher: Dispatcher
    presence: WorkerPresence


def create_app(settings: Settings) -> App:
    """Build a worker: three agents, and the service that runs exports.

    Raises:
        DatasetsFileError: the datasets file is unusable.
    """
    name = worker_name()
    datasets = open_datasets(settings)
    metrics.begin_ended_jobs()
    metrics.SLOTS.set(settings.worker_slots)
    connections = _Connections.of(settings, name, datasets)
    store = JobQueue.of(settings, connections.database, connections.kept)
    app = create_faust_app(settings, name)
    emit = EventProducer(app, settings.kafka_topic_prefix)
    dispatcher, presence = _create_dispatcher(settings, name, datasets, connections, store, emit)
    worker = _Worker(
        name=name,
        settings=settings,
        app=app,
        emit=emit,
        datasets=datasets,
        validator=RequestValidator.of(settings, datasets),
        connections=connections,
        store=store,
        replay=_create_replay(settings, name, app, store),
        dispatcher=dispatcher,
        presence=presence,
    )
    _add_agents(worker)
    _add_background_tasks(worker)
    return app


def _create_dispatcher(
    settings: Settings,
    name: str,
    datasets: Datasets,
    connections: _Connections,
    store: JobQueue,
    emit: EventProducer,
) -> tuple[Dispatcher, WorkerPresence]:
    """Return the dispatcher, and what reports it to the list of workers. Each asks the other."""
    exporter = Exporter(
        connections.sources,
        Catalog(connections.sources),
        connections.storage,
        datasets,
        FORMATS,
        ExportLimits.of(settings),
        connections.threads,
        ParallelReading.of(settings),
        partial(FilePasswords.of, settings),
    )
    presence = WorkerPresence(
        WorkerRegistry(connections.database),
        name,
        slots=settings.worker_slots,
        running=lambda: dispatcher.slots_in_use,
        is_claiming=lambda: dispatcher.is_claiming,
    )
    dispatcher = Dispatcher(
        worker=name,
        store=store,
        exporter=exporter,
        emit=emit,
        settings=settings,
        planner=PartPlanner(exporter, connections.plan_sources, settings.parts_min_bytes),
        paused=lambda: presence.paused,
    )
    return dispatcher, presence


def _create_replay(settings: Settings, name: str, app: App, store: JobQueue) -> OutcomeReplay:
    """Return what waits for the outcomes that were on Kafka when the worker started."""
    outcomes = settings.topic(Topic.EVENTS)

    def failed_at() -> float | None:
        refusal = app.refusals.of(outcomes)
        return None if refusal is None else refusal.at

    return OutcomeReplay(
        Brokers(settings, client_id=f"{name}-replay"),
        outcomes,
        failed_at=failed_at,
        check_writes=partial(write_trial_job, store),
    )


def _add_agents(worker: _Worker) -> None:
    """Add the agents, which handle requests, lifecycle events and ticks."""
    app, settings, store, emit = worker.app, worker.settings, worker.store, worker.emit
    replay, check_writes = worker.replay, partial(write_trial_job, store)
    admission = RequestHandler(store, emit, worker.validator, settings.history, worker.dispatcher.admit)
    projector = LifecycleHandler(
        store,
        emit,
        settings.schedule_max_failures,
        mail_limit=settings.user_mail_limit,
        formats=FORMATS,
        history=settings.history,
        kept=lambda: longest_retention(worker.datasets, settings.retention_days),
    )
    scheduler = Scheduler(
        autocommitting(worker.connections.database),
        emit,
        RunPlanner(worker.validator, worker.datasets, settings),
        settings,
        note_progress=lambda: app.note_progress(settings.topic(Topic.TICKS)),
    )

    async def admit(messages: Messages) -> None:
        replay.require_end()
        await admission.handle(messages)

    async def tick(messages: Messages) -> None:
        replay.require_end()
        await scheduler.handle(messages)

    app.unneeded[settings.topic(Topic.EVENTS)] = is_without_outcome

    @app.agent(bytes_topic(app, settings.topic(Topic.REQUESTS)), name="requests")
    async def requests(stream: faust.StreamT[bytes]) -> None:
        await handle_in_batches(cast(faust.Stream[bytes], stream), admit, emit, check_writes)

    @app.agent(bytes_topic(app, settings.topic(Topic.EVENTS)), name="lifecycle")
    async def lifecycle(stream: faust.StreamT[bytes]) -> None:
        await handle_in_batches(
            cast(faust.Stream[bytes], stream),
            projector.handle,
            emit,
            check_writes,
            lambda: OUTCOMES_INTERVAL if store.is_work_left else 0.0,
        )

    @app.agent(bytes_topic(app, settings.topic(Topic.TICKS)), name="ticks")
    async def schedules(stream: faust.StreamT[bytes]) -> None:
        await handle_in_batches(cast(faust.Stream[bytes], stream), tick, emit, check_writes)


def _add_background_tasks(worker: _Worker) -> None:
    """Add the tasks that run beside the agents, and what happens when the worker stops."""
    settings, connections, store = worker.settings, worker.connections, worker.store
    dispatcher, presence, replay = worker.dispatcher, worker.presence, worker.replay
    storage, sources, plan_sources = connections.storage, connections.sources, connections.plan_sources
    sender = create_sender(settings, connections.database, storage, worker.name, datasets=worker.datasets)
    relay = RequestRelay(store.admission, worker.emit.publish_all)
    bucket_cleaner = BucketCleaner(store, storage, settings, worker.datasets)
    job_cleaner = JobCleaner(store, settings.history)
    monitor = SourceMonitor(sources)
    watcher = datasets_watcher(
        settings, worker.datasets, sources, plan_sources, then=metrics.begin_ended_jobs
    )

    async def work() -> None:
        """Claim jobs as soon as the bucket exists. Until then requests are only admitted."""
        await retry_until_possible(storage.call, storage.ensure_bucket)
        await replay.wait()
        exclude_started_objects()
        await dispatcher.work()

    async def rescue() -> None:
        await replay.wait()
        await dispatcher.rescue()

    def tasks() -> tuple[Coroutine[Any, Any, None], ...]:
        return (
            work(),
            dispatcher.heartbeat(),
            presence.run(),
            replay.run(),
            rescue(),
            relay.run(),
            store.clock.run(),
            *(sender.run(channel) for channel in Channel),
            sender.settle_expired(),
            listen(settings, dispatcher.wake, application=worker.name, shared_lock=CLEANING_LOCK_0_1),
            bucket_cleaner.run(),
            job_cleaner.run(),
            monitor.run(),
            watcher.run(),
        )

    async def drain() -> None:
        await asyncio.gather(dispatcher.drain(settings.drain_seconds), sender.drain())
        await presence.leave()

    add_background_tasks(worker.app, tasks, drain=drain, close=connections.close)


def stop_timeout(settings: Settings) -> float:
    """Return the seconds that a worker has to stop: the longest drain, and closing its connections."""
    exports = settings.drain_seconds + DRAIN_SECONDS
    deliveries = settings.delivery_timeout_seconds + SETTLE_SECONDS + REST_SECONDS
    return max(exports, deliveries) + SHUTDOWN_SECONDS


def create_worker_health(settings: Settings, app: App) -> WorkerHealth:
    """Build the service that checks the worker and ends it when it cannot recover by itself."""
    name = app.conf.broker_client_id
    engine = create_engine(settings, application=f"{name} watch", pool_size=1, max_overflow=0, pool_timeout=5)
    storage = ObjectStore(settings, connections=1, timeout_seconds=3, retry_seconds=0)
    return WorkerHealth(
        app,
        worker=name,
        prefix=settings.kafka_topic_prefix,
        brokers=Brokers(settings, client_id=f"{name}-watch", timeout=BROKER_TIMEOUT),
        checks={
            "database": lambda: check_tables(engine),
            "object store": lambda: storage.call(storage.check),
        },
        watchdog=Watchdog(settings.stuck_seconds),
        exit_timer=ExitTimer(settings.stuck_seconds),
        exit_seconds=stop_timeout(settings),
        ready_file=settings.ready_file,
    )
