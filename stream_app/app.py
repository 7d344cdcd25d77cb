"""The composition root of the worker: everything is built and wired here, nowhere else."""

import asyncio
import os
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import cast

import faust
import structlog
from faust.types.auth import CredentialsT
from mode import Service
from sqlalchemy.ext.asyncio import AsyncEngine
from yarl import URL

from stream_app.agents.batches import handle_in_batches
from stream_app.agents.emitter import Emitter
from stream_app.agents.lifecycle import Projector
from stream_app.agents.requests import Admission
from stream_app.agents.transport import App
from stream_app.events import Topic
from stream_app.exports.catalog import Catalog
from stream_app.exports.datasets.registry import load_datasets
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.run import Exporter
from stream_app.exports.source import Source
from stream_app.exports.storage import Storage
from stream_app.jobs.database import create_engine
from stream_app.jobs.dispatcher import Dispatcher
from stream_app.jobs.listener import listen
from stream_app.jobs.store import JobStore
from stream_app.kafka import bootstrap_servers, tls_context
from stream_app.patience import until_possible
from stream_app.settings import Settings

log = structlog.get_logger(__name__)


def worker_name() -> str:
    """Who this process is, in leases, logs and event sources."""
    return f"{socket.gethostname()}-{os.getpid()}"


def job_store(settings: Settings, engine: AsyncEngine) -> JobStore:
    """The job store as the settings want it."""
    return JobStore(
        engine,
        lease=timedelta(seconds=settings.lease_seconds),
        user_slots=settings.user_slots,
        max_attempts=settings.max_attempts,
    )


def create_app(settings: Settings) -> faust.App:
    """A worker: two agents, and the service that runs exports.

    Raises:
        DatasetsFileError: the datasets file is unusable.
    """
    name = worker_name()
    datasets = load_datasets(settings.datasets_file)
    engine = create_engine(settings, application=name)
    store = job_store(settings, engine)
    storage = Storage(settings, connections=2 * settings.worker_slots)
    source = Source(settings, connections=settings.worker_slots + 1)
    threads = ThreadPoolExecutor(settings.worker_slots, thread_name_prefix="upload")

    app = _faust_app(settings, name)
    emit = Emitter(app)
    dispatcher = Dispatcher(
        worker=name,
        store=store,
        exporter=Exporter(source, Catalog(source.fetch), storage, datasets, FORMATS, settings, threads),
        emit=emit,
        settings=settings,
    )
    admission = Admission(store, emit, FORMATS, datasets)
    projector = Projector(store, emit)

    @app.agent(_raw(app, Topic.REQUESTS), name="requests")
    async def requests(stream: faust.StreamT[bytes]) -> None:
        await handle_in_batches(cast(faust.Stream[bytes], stream), admission.handle, emit)

    @app.agent(_raw(app, Topic.EVENTS), name="lifecycle")
    async def lifecycle(stream: faust.StreamT[bytes]) -> None:
        await handle_in_batches(cast(faust.Stream[bytes], stream), projector.handle, emit)

    async def work() -> None:
        """Work once there is a bucket to put files into; requests are admitted meanwhile."""
        await until_possible(asyncio.to_thread, storage.ensure_bucket)
        await dispatcher.work()

    @app.service
    class Exports(Service):
        """Runs exports while the app runs; it stops first, so that it can drain."""

        async def on_started(self) -> None:
            for task in (
                work(),
                dispatcher.heartbeat(),
                dispatcher.tend(),
                listen(settings, dispatcher.wake, application=name),
            ):
                self.add_future(task)

        async def on_stop(self) -> None:
            await dispatcher.drain(settings.drain_seconds)

        async def on_shutdown(self) -> None:
            await source.close()
            await engine.dispose()
            threads.shutdown(wait=False)

    @app.on_rebalance_complete.connect
    async def ready(*_: object, **__: object) -> None:
        log.info("worker.ready", worker=name, slots=settings.worker_slots)
        if settings.ready_file is not None:
            settings.ready_file.touch()

    return app


def _raw(app: faust.App, topic: Topic) -> faust.TopicT:
    return app.topic(topic, key_serializer="raw", value_serializer="raw", value_type=bytes)


def _faust_app(settings: Settings, name: str) -> faust.App:
    return App(
        settings.kafka_group,
        broker=[URL(f"kafka://{server}") for server in bootstrap_servers(settings)],
        broker_credentials=_credentials(settings),
        broker_client_id=name,
        broker_session_timeout=10.0,
        broker_heartbeat_interval=3.0,
        broker_max_poll_interval=86_400.0,
        broker_commit_interval=0.5,
        broker_request_timeout=30.0,
        producer_request_timeout=30.0,
        producer_linger=0.0,
        producer_max_request_size=1_048_576,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_replication_factor=settings.kafka_replication_factor,
        table_standby_replicas=0,
        web_enabled=False,
        worker_redirect_stdouts=False,
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        datadir=Path(tempfile.gettempdir(), f"streaming-exporter-{os.getuid()}"),
    )


def _credentials(settings: Settings) -> CredentialsT | None:
    protocol, context = settings.kafka_security_protocol, tls_context(settings)
    if protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=password.get_secret_value() if password else None,
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
