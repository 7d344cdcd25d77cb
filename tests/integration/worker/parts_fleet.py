"""Workers that share the parts of a large split export, and what they have written."""

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event as Gate
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import text

from stream_app.datasets.models import Dataset
from stream_app.db.listener import listen
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.part_planner import OpenPlan, PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportedFile, ExportLimits, ExportTask
from stream_app.jobs.job_files import JobFiles
from stream_app.jobs.models import ExportJob
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore, StoredObject
from stream_app.worker.attempt import StopReason
from stream_app.worker.dispatcher import Dispatcher
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import Event, LifecycleData
from tests.integration.jobs.jobs import Jobs
from tests.waiting import until_async

ROWS = 2_400
ROW_BYTES = 250
SMALLEST_RANGE = 100 * 2**10
"""Bytes of the smallest range. The usual ones would need a table that takes seconds of each test."""
PARTS = 6
"""The table has fewer ranges of at least these bytes than the planner wants at least."""
PART = re.compile(r"part-([0-9]{5})-")
PASSWORDS = FilePasswords(b"k" * 32)
PART_ATTEMPT = re.compile(r"part-[0-9]{5}-([0-9]+)-")


class Store(ObjectStore):
    """A store in which the uploads of chosen parts wait until they are allowed, or fail."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.held: set[int] = set()
        self.refused: set[int] = set()
        self.waiting: set[int] = set()
        self.gate = Gate()

    def put(self, key: str, chunks: Iterator[bytes], **options: Any) -> StoredObject:
        found = PART.search(key)
        number = int(found[1]) if found else 0
        if number in self.refused:
            raise Rejected("no such file", code="refused")
        if number in self.held:
            self.waiting.add(number)
            while not self.gate.wait(0.02):
                if options["stopped"].is_set():
                    raise Retryable("stopped")
        return super().put(key, chunks, **options)


@dataclass(frozen=True, kw_only=True)
class Planner(PartPlanner):
    """A planner whose source answers slowly."""

    planning_seconds: float

    @asynccontextmanager
    async def open(self, task: ExportTask) -> AsyncIterator[OpenPlan | None]:
        async with super().open(task) as plan:
            await asyncio.sleep(self.planning_seconds)
            yield plan


@dataclass
class Worker:
    """A worker in this process."""

    dispatcher: Dispatcher
    storage: Store
    sources: list[Source]
    threads: ThreadPoolExecutor
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    def start(self, settings: Settings) -> None:
        name = self.dispatcher.worker
        self.tasks = [
            asyncio.create_task(self.dispatcher.work()),
            asyncio.create_task(self.dispatcher.heartbeat()),
            asyncio.create_task(listen(settings, self.dispatcher.wake, application=name)),
        ]

    async def die(self, jobs: Jobs) -> None:
        """End as a killed process does: nothing is released, and no heartbeat comes. Its leases expire now.

        Short leases would do so too, and those of workers that live if the machine is busy.
        """
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for attempt in self.dispatcher._current:
            attempt.end(StopReason.LEASE_LOST)
        await until_async(lambda: not self.dispatcher.running)
        async with jobs.engine.begin() as connection:
            for table in ("export_jobs", "export_parts"):
                expire = f"UPDATE {table} SET lease_until = now() - interval '1 second' WHERE worker = :name"
                held = text(f"{expire} AND status = 'processing'")
                await connection.execute(held, {"name": self.dispatcher.worker})

    async def stop(self) -> None:
        self.storage.gate.set()
        await self.dispatcher.drain(0)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for source in self.sources:
            await source.close()
        self.threads.shutdown(wait=False)
        self.storage.close()


@dataclass
class Fleet:
    """Workers that share a state database, a source table and a bucket."""

    jobs: Jobs
    settings: Settings
    dataset: Dataset
    database: asyncpg.Connection
    published: list[Event] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def worker(
        self,
        *,
        slots: int = 2,
        connections: int = 4,
        user_slots: int = 4,
        planning_seconds: float = 0,
        streams: int = 1,
    ) -> Worker:
        settings = self.settings.model_copy(update={"worker_slots": slots, "user_slots": user_slots})
        storage = Store(settings)
        source, holders = Source(settings, connections=connections), Source(settings, connections=3)
        threads = ThreadPoolExecutor(slots)
        exporter = Exporter(
            source,
            Catalog(source),
            storage,
            {self.dataset.name: self.dataset},
            FORMATS,
            ExportLimits.of(settings),
            threads,
            reading=ParallelReading(streams, min_bytes=0, range_bytes=20_000),
            passwords=lambda: PASSWORDS,
        )

        async def publish_event(event: Event) -> None:
            self.published.append(event)

        jobs = Jobs(self.jobs.engine, lease=timedelta(seconds=settings.lease_seconds), user_slots=user_slots)
        dispatcher = Dispatcher(
            worker=f"w{len(self.workers) + 1}",
            queue=jobs.store,
            exporter=exporter,
            publish_event=publish_event,
            settings=settings,
            planner=Planner(exporter, holders, SMALLEST_RANGE, planning_seconds=planning_seconds),
        )
        worker = Worker(dispatcher, storage, [source, holders], threads)
        self.workers.append(worker)
        return worker

    async def request(self, **request: Any) -> UUID:
        values: dict[str, Any] = {"split": {"rows": 1_000_000}, "scope": "all", **request}
        job_id = uuid4()
        await self.jobs.admit_again(job_id, export_type="ledger", format="csv", **values)
        return job_id

    async def parts(self, job_id: UUID) -> dict[int, Any]:
        async with self.jobs.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT * FROM export_parts WHERE job_id = :id"), {"id": job_id}
            )
            return {row.number: row for row in found}

    async def job(self, job_id: UUID) -> ExportJob:
        found = await self.jobs.queries.get(job_id)
        assert found is not None
        return found

    async def outcome(self, job_id: UUID) -> LifecycleData:
        """Wait for the stored outcome, and apply it."""

        async def look() -> bool:
            return (await self.job(job_id)).outcome is not None

        await until_async(look, otherwise=lambda: self.published)
        outcome = LifecycleData.model_validate((await self.job(job_id)).outcome)
        await until_async(lambda: not any(worker.dispatcher._attempts for worker in self.workers))
        assert await self.jobs.apply(outcome)
        return outcome

    def kinds(self, job_id: UUID) -> Counter[str]:
        return Counter(event.type for event in self.published if event.job_id == job_id)

    async def ids(self, outcome: LifecycleData) -> list[int]:
        """Check the files and their list, and return the ids of all rows in their order."""
        storage = self.workers[0].storage
        manifest = json.loads(await asyncio.to_thread(storage.read, str(outcome.key)))
        assert outcome.files is not None
        assert outcome.file_count == len(outcome.files) == len(manifest["files"])
        assert [file["file_name"] for file in manifest["files"]] == [
            f"ledger-{outcome.as_of:%Y-%m-%d}-{number:05}.csv" for number in range(1, outcome.file_count + 1)
        ]
        found: list[int] = []
        for file in outcome.files:
            content = await asyncio.to_thread(storage.read, file.key)
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.file_size, file.sha256)
            header, *lines = content.decode().splitlines()
            assert header == "id,value"
            assert len(lines) == file.row_count
            found += [int(line.partition(",")[0]) for line in lines]
        assert outcome.row_count == len(found) == manifest["rows"]
        expected = {str(outcome.key), *(file.key for file in outcome.files)}

        def is_alone() -> bool:
            return expected == {found.key for page in storage.listing.pages(outcome.job_id) for found in page}

        # A part that was stopped in the middle of an upload removes its object afterwards.
        assert await until_async(is_alone)
        assert storage.listing.open_uploads(outcome.job_id) == []
        return found


async def listed(fleet: Fleet, outcome: LifecycleData) -> list[ExportedFile]:
    job = await fleet.job(outcome.job_id)
    return list(await JobFiles(fleet.jobs.engine, AsyncMock()).list(job, limit=1_000))
