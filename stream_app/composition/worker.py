"""The composition root of the worker: builds its components and connects them."""

import os
import socket
from functools import partial

from stream_app.composition.agents import add_agents
from stream_app.composition.background import add_tasks
from stream_app.composition.components import WorkerComponents, WorkerConnections
from stream_app.datasets.registry import Datasets
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.live_datasets import open_datasets
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportLimits
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.worker_registry import WorkerRegistry
from stream_app.jobs.write_check import write_trial_job
from stream_app.kafka.brokers import Brokers
from stream_app.kafka.event_producer import EventProducer
from stream_app.kafka.faust_app import create_faust_app
from stream_app.kafka.transport import App
from stream_app.observability import metrics
from stream_app.settings import Settings
from stream_app.worker.dispatcher import Dispatcher
from stream_app.worker.presence import WorkerPresence
from stream_app.worker.replay import OutcomeReplay
from streaming_exporter.events import Topic


def worker_name() -> str:
    """Return the name of this process in leases, logs and event sources."""
    return f"{socket.gethostname()}-{os.getpid()}"


def create_app(settings: Settings) -> App:
    """Build a worker: three agents, and the service that runs exports.

    Raises:
        DatasetsFileError: the datasets file is unusable.
    """
    name = worker_name()
    datasets = open_datasets(settings)
    metrics.start_ended_job_series()
    metrics.SLOTS.set(settings.worker_slots)
    connections = WorkerConnections.of(settings, name, datasets)
    queue = JobQueue.of(settings, connections.database, connections.kept)
    app = create_faust_app(settings, name)
    producer = EventProducer(app, settings.kafka_topic_prefix)
    dispatcher, presence = _create_dispatcher(settings, name, datasets, connections, queue, producer)
    worker = WorkerComponents(
        name=name,
        settings=settings,
        app=app,
        producer=producer,
        datasets=datasets,
        validator=RequestValidator.of(settings, datasets),
        connections=connections,
        queue=queue,
        replay=_create_replay(settings, name, app, queue),
        dispatcher=dispatcher,
        presence=presence,
    )
    add_agents(worker)
    add_tasks(worker)
    return app


def _create_dispatcher(
    settings: Settings,
    name: str,
    datasets: Datasets,
    connections: WorkerConnections,
    queue: JobQueue,
    producer: EventProducer,
) -> tuple[Dispatcher, WorkerPresence]:
    """Return the dispatcher, and what reports it to the list of workers. Each asks the other."""
    exporter = Exporter(
        sources=connections.sources,
        catalog=Catalog(connections.sources),
        storage=connections.storage,
        datasets=datasets,
        formats=FORMATS,
        limits=ExportLimits.of(settings),
        threads=connections.threads,
        reading=ParallelReading.of(settings),
        passwords=partial(FilePasswords.of, settings),
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
        queue=queue,
        exporter=exporter,
        publish_event=producer.publish,
        settings=settings,
        planner=PartPlanner(exporter, connections.plan_sources, settings.parts_min_bytes),
        paused=lambda: presence.paused,
    )
    return dispatcher, presence


def _create_replay(settings: Settings, name: str, app: App, queue: JobQueue) -> OutcomeReplay:
    """Return what waits for the outcomes that were on Kafka when the worker started."""
    outcomes = settings.topic(Topic.EVENTS)

    def failed_at() -> float | None:
        outage = app.outages.outage_of(outcomes)
        return None if outage is None else outage.at

    return OutcomeReplay(
        Brokers(settings, client_id=f"{name}-replay"),
        outcomes,
        failed_at=failed_at,
        check_writes=partial(write_trial_job, queue),
    )
