"""Jobs with real files, destinations on a real SFTP server and on two real S3 servers, and senders."""

import asyncio
import datetime as dt
import hashlib
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.s3 import S3Service
from stream_app.composition.sender import create_sender
from stream_app.datasets.destinations import Destination, S3Destination, SftpDestination
from stream_app.datasets.file import DatasetsFile
from stream_app.datasets.registry import Datasets
from stream_app.db.engine import autocommitting
from stream_app.exports.formats.registry import FORMATS
from stream_app.jobs.models import ExportFile, ExportJob
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.kafka.event_producer import EventProducer
from stream_app.notifications.models import Channel
from stream_app.settings import Settings
from stream_app.storage.manifest import MANIFEST, MANIFEST_TYPE
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.lifecycle_handler import LifecycleHandler
from streaming_exporter.events import LifecycleData, lifecycle_event
from tests.sftp_servers import SftpServer, sftp_server
from tests.waiting import at_most, until_async

DAY = dt.datetime(2026, 11, 26, 23, 30, tzinfo=dt.UTC)


@dataclass
class Depot:
    """Jobs that end with files in the service's bucket, and senders that send them."""

    settings: Settings
    engine: AsyncEngine
    storage: ObjectStore
    datasets: Datasets
    contents: dict[UUID, list[bytes]] = field(default_factory=dict)

    def use(self, *destinations: Destination) -> None:
        """Let the datasets file have these destinations."""
        self.datasets.replace(DatasetsFile(destinations={item.name: item for item in destinations}))

    async def job(self, destination: str, *contents: bytes, **values: Any) -> UUID:
        """Complete a job with one file for each content; return its id."""
        job_id, base = uuid4(), f"{self.storage.prefix}/{{}}/1"
        folder = base.format(job_id)
        row: dict[str, Any] = {
            "id": job_id,
            "user_id": "u",
            "export_type": "ledger",
            "format": "csv",
            "status": Status.PROCESSING,
            "attempt": 1,
            "created_at": DAY,
            "destination": destination,
            **values,
        }
        self.contents[job_id] = list(contents)
        files = []
        for number, content in enumerate(contents, 1):
            name = "ledger.csv" if len(contents) == 1 else f"ledger-{number:05}.csv"
            files.append(await self._put(f"{folder}/{name}", content, name))
        result = dict(files[0])
        if len(files) > 1:
            result = await self._put(f"{folder}/{MANIFEST}", b'{"files": []}', MANIFEST)
            result |= {"content_type": MANIFEST_TYPE, "file_size": sum(map(len, contents))}
        async with self.engine.begin() as connection:
            await connection.execute(ExportJob.__table__.insert().values(**row))  # type: ignore[attr-defined]
            for number, file in enumerate(files if len(files) > 1 else (), 1):
                listed = {**file, "row_count": 1, "result": result["key"], "bucket": self.storage.bucket}
                await connection.execute(
                    ExportFile.__table__.insert().values(  # type: ignore[attr-defined]
                        job_id=job_id, number=number, attempt=1, **listed
                    )
                )
        now = dt.datetime.now(dt.UTC)
        await self._end(
            LifecycleData(
                job_id=job_id,
                user_id=row["user_id"],
                export_type=row["export_type"],
                format="csv",
                attempt=1,
                status=Status.COMPLETED,
                row_count=len(contents),
                file_count=len(contents) if len(contents) > 1 else None,
                as_of=now,
                completed_at=now,
                expires_at=now + dt.timedelta(days=7),
                manifest={"columns": ["id"]},
                **result,
            )
        )
        return job_id

    async def _put(self, key: str, content: bytes, name: str) -> dict[str, Any]:
        stored = await asyncio.to_thread(
            self.storage.put,
            key,
            iter([content]),
            content_type="text/csv; charset=utf-8",
            file_name=name,
            metadata=dict,
        )
        return {
            "key": key,
            "file_name": name,
            "content_type": "text/csv; charset=utf-8",
            "file_size": stored.size,
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    async def _end(self, data: LifecycleData) -> None:
        outcome = data.model_dump(mode="json", exclude_none=True)
        async with self.engine.begin() as connection:
            await connection.execute(
                update(ExportJob).where(ExportJob.id == data.job_id).values(outcome=outcome)
            )
        event = lifecycle_event(EVENT_OF[Status(data.status)], data)
        message = SimpleNamespace(value=event.encode(), topic=event.topic, headers=())
        projector = LifecycleHandler(
            JobQueue.of(self.settings, self.engine), cast(EventProducer, None), formats=FORMATS
        )
        await projector.handle(cast(Any, [SimpleNamespace(message=message)]))

    async def row(self, job_id: UUID) -> Any:
        """Return the delivery of a job."""
        async with autocommitting(self.engine).connect() as connection:
            query = text("SELECT * FROM deliveries WHERE job_id = :job")
            return (await connection.execute(query, {"job": job_id})).one()

    async def run(self, sql: str, **values: Any) -> None:
        """Execute a statement without the service."""
        async with autocommitting(self.engine).connect() as connection:
            await connection.execute(text(sql), values)

    async def hurry(self) -> None:
        """Let all deliveries that wait be due."""
        await self.run("UPDATE deliveries SET not_before = now() WHERE status = 'pending'")
        await self.run("DELETE FROM receiver_hosts")

    async def give_up(self, job_id: UUID) -> None:
        """Let the time be over in which the delivery of a job is retried."""
        await self.run("UPDATE deliveries SET give_up_at = now() WHERE job_id = :id", id=job_id)

    @asynccontextmanager
    async def working(self, count: int = 1, *, recovers: bool = False, **changes: Any) -> AsyncIterator[None]:
        """Run ``count`` senders with changed settings during the block.

        ``recovers``: they recover the deliveries of dead workers, too.
        """
        settings = self.settings
        if changes:
            settings = Settings(_env_file=None, **settings.model_dump() | changes)
        senders = [
            create_sender(
                settings, self.engine, self.storage, f"worker-{number}", poll=0.05, datasets=self.datasets
            )
            for number in range(count)
        ]
        runs = [sender.run(Channel.DESTINATION) for sender in senders]
        recoveries = [sender.recover_expired() for sender in senders if recovers]
        tasks = [asyncio.create_task(task) for task in [*runs, *recoveries]]
        try:
            yield
        finally:
            for sender in senders:
                await sender.drain()
            # Drained senders end by themselves. A cancelled one could leave an open connection behind.
            async with at_most(60):
                await asyncio.gather(*tasks)

    async def ended(self, job_id: UUID) -> Any:
        """Wait until the delivery of a job has ended; return it."""

        async def look() -> Any:
            row = await self.row(job_id)
            return row if row.status not in ("pending", "sending") else None

        return await until_async(look)

    async def tried(self, job_id: UUID, attempts: int = 1) -> Any:
        """Wait until the delivery of a job waits again after ``attempts`` attempts; return it."""

        async def look() -> Any:
            row = await self.row(job_id)
            return row if row.attempts >= attempts and row.status == "pending" else None

        return await until_async(look)

    async def sent(self, job_id: UUID) -> Any:
        """Send the delivery of a job; return it."""
        async with self.working():
            return await self.ended(job_id)


@pytest.fixture
def depot(own_settings: Settings, engine: AsyncEngine, storage: ObjectStore) -> Depot:
    return Depot(own_settings, engine, storage, Datasets(DatasetsFile()))


@pytest.fixture(scope="session")
def _sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with sftp_server(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture
def sftp(_sftp: SftpServer) -> SftpServer:
    """The SFTP server, without files and faults."""
    _sftp.clear()
    return _sftp


@dataclass
class OtherStore:
    """A second S3 server, with one bucket of a customer."""

    service: S3Service
    bucket: str = "acme"

    def files(self) -> dict[str, bytes]:
        """Return all objects by key."""
        client = self.service.client()
        found = {}
        for item in client.list_objects(bucket_name=self.bucket, recursive=True):
            with client.get_object(bucket_name=self.bucket, object_name=str(item.object_name)) as response:
                found[str(item.object_name)] = response.read()
        return found

    def put(self, key: str, content: bytes) -> None:
        """Store an object without the service."""
        self.service.client().put_object(
            bucket_name=self.bucket, object_name=key, data=io.BytesIO(content), length=len(content)
        )

    def clear(self) -> None:
        """Remove all objects and open uploads."""
        client = self.service.client()
        for key in self.files():
            client.remove_object(bucket_name=self.bucket, object_name=key)


@pytest.fixture(scope="session")
def _other_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherStore]:
    service = S3Service(tmp_path_factory.mktemp("s3"))
    service.start()
    store = OtherStore(service)
    service.client().make_bucket(bucket_name=store.bucket)
    yield store
    service.stop()


@pytest.fixture
def other_store(_other_store: OtherStore) -> OtherStore:
    """The second S3 server, without objects."""
    _other_store.clear()
    return _other_store


def on_sftp(server: SftpServer, name: str = "acme", **values: Any) -> SftpDestination:
    """Return a destination on the SFTP server."""
    fields = {
        "host": "127.0.0.1",
        "port": server.port,
        "user": server.user,
        "private_key_file": server.key,
        "host_key": server.host_key,
        "prefix": "in",
        "path": "{dataset}/date={date}/{job_id}/{file_name}",
    }
    return SftpDestination.model_validate({"name": name, "kind": "sftp", **fields, **values})


def on_s3(store: OtherStore, folder: Path, name: str = "acme", **values: Any) -> S3Destination:
    """Return a destination on the second S3 server. ``folder`` is for the files of its keys."""
    for key in ("access_key", "secret_key"):
        (folder / key).write_text(getattr(store.service, key))
    fields = {
        "endpoint": store.service.address,
        "bucket": store.bucket,
        "access_key_file": folder / "access_key",
        "secret_key_file": folder / "secret_key",
        "prefix": "in",
        "path": "{dataset}/date={date}/{job_id}/{file_name}",
    }
    return S3Destination.model_validate({"name": name, "kind": "s3", **fields, **values})


def names(files: Sequence[str] | dict[str, bytes], job_id: UUID) -> list[str]:
    """Return paths without the part that all files of a job have."""
    return [path.removeprefix(f"in/ledger/date=2026-11-26/{job_id}/") for path in files]
