"""What the agents and the other tasks of a worker share: connections, and the components that use them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.datasets.registry import Datasets
from stream_app.db.engine import create_engine
from stream_app.db.kept_connections import KeptConnections
from stream_app.exports.formats.framing_process import end_idle
from stream_app.exports.sources.registry import Sources, export_pools
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.request_validator import RequestValidator
from stream_app.kafka.event_producer import EventProducer
from stream_app.kafka.transport import App
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.dispatcher import Dispatcher
from stream_app.worker.presence import WorkerPresence
from stream_app.worker.replay import OutcomeReplay

KEPT_CONNECTIONS = 3
"""Connections that are kept for the queue of jobs. The pool has ten."""


THREADS_PER_SLOT = 16
"""Limit of threads for each slot. They start when they are needed.

An export whose source is slow gives its slot to another export, and keeps its thread."""


@dataclass(frozen=True, slots=True)
class WorkerConnections:
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
        export_pool, plan_pool = export_pools(settings)
        return cls(
            database=database,
            kept=KeptConnections(database, KEPT_CONNECTIONS),
            storage=ObjectStore(settings, connections=2 * settings.worker_slots),
            sources=Sources(settings, datasets.content, export_pool),
            plan_sources=Sources(settings, datasets.content, plan_pool),
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
class WorkerComponents:
    """What the agents and the other tasks of a worker share."""

    name: str
    settings: Settings
    app: App
    producer: EventProducer
    datasets: Datasets
    validator: RequestValidator
    connections: WorkerConnections
    queue: JobQueue
    replay: OutcomeReplay
    dispatcher: Dispatcher
    presence: WorkerPresence
