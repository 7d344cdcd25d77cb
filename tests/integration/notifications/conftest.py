"""The outbox in the test's own database, jobs that end, and senders."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.composition.sender import create_sender
from stream_app.db.engine import autocommitting
from stream_app.jobs.models import ExportJob
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.kafka.event_producer import EventProducer
from stream_app.notifications.models import Channel
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.lifecycle_handler import LifecycleHandler
from streaming_exporter.events import JobError, LifecycleData, lifecycle_event
from tests.waiting import at_most, until_async

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Office:
    """Helpers of tests of deliveries."""

    settings: Settings
    engine: AsyncEngine
    storage: ObjectStore
    channels: Sequence[Channel] = tuple(Channel)
    """The channels over which senders send. Each one costs a claim at each poll."""

    async def job(self, *recipients: Any, webhook: str | None = None, **values: Any) -> LifecycleData:
        """Insert a running job; return the data of the event that completes it."""
        job_id = uuid4()
        row = {
            "id": job_id,
            "user_id": "u",
            "export_type": "ledger",
            "format": "csv",
            "status": Status.PROCESSING,
            "attempt": 1,
            "recipients": list(recipients),
            "webhook": webhook,
            **values,
        }
        async with self.engine.begin() as connection:
            await connection.execute(ExportJob.__table__.insert().values(**row))  # type: ignore[attr-defined]
        now = dt.datetime.now(dt.UTC)
        return LifecycleData(
            job_id=job_id,
            user_id=row["user_id"],
            export_type="ledger",
            format="csv",
            attempt=1,
            status=Status.COMPLETED,
            row_count=12,
            file_size=345,
            sha256="0" * 64,
            key=f"jobs/{job_id}/1/outbox.csv",
            content_type="text/csv; charset=utf-8",
            file_name="outbox.csv",
            as_of=now,
            completed_at=now,
            expires_at=now + dt.timedelta(days=7),
        )

    async def end(self, *outcomes: LifecycleData) -> None:
        """Store outcomes, and apply their events with the projector."""
        for data in outcomes:
            outcome = data.model_dump(mode="json", exclude_none=True)
            running = (ExportJob.id == data.job_id, ExportJob.status == Status.PROCESSING)
            async with self.engine.begin() as connection:
                await connection.execute(update(ExportJob).where(*running).values(outcome=outcome))
        events = [lifecycle_event(EVENT_OF[Status(data.status)], data) for data in outcomes]
        messages = [
            SimpleNamespace(message=SimpleNamespace(value=event.encode(), topic=event.topic, headers=()))
            for event in events
        ]
        projector = LifecycleHandler(JobQueue.of(self.settings, self.engine), cast(EventProducer, None))
        await projector.handle(cast(Any, messages))

    async def ended(self, *recipients: Any, **values: Any) -> UUID:
        """Insert a job and complete it; return its id."""
        data = await self.job(*recipients, **values)
        await self.end(data)
        return data.job_id

    async def rows(self, job_id: UUID | None = None) -> Sequence[Any]:
        """Return rows of the outbox."""
        async with autocommitting(self.engine).connect() as connection:
            query = (
                "SELECT * FROM deliveries WHERE CAST(:job AS uuid) IS NULL OR job_id = :job ORDER BY address"
            )
            return (await connection.execute(text(query), {"job": job_id})).all()

    async def hosts(self) -> Sequence[Any]:
        """Return the hosts under back-off, each with the seconds."""
        async with self.engine.connect() as connection:
            query = "SELECT *, extract(epoch FROM not_before - now())::float AS seconds FROM receiver_hosts"
            return (await connection.execute(text(query))).all()

    async def first_of(self, user_id: str, attempts: int, within: float = 30) -> None:
        """Wait until a delivery of the user has had ``attempts`` attempts; return it."""
        async with at_most(within):
            while True:
                rows = [row for row in await self.rows() if row.user_id == user_id]
                if any(row.attempts >= attempts and row.status == "pending" for row in rows):
                    return
                await asyncio.sleep(0.05)

    async def statuses(self, job_id: UUID) -> dict[str, str]:
        """Return the statuses of a job's deliveries by address."""
        return {row.address: row.status for row in await self.rows(job_id)}

    async def run(self, sql: str, **values: Any) -> None:
        """Execute a statement without the service."""
        async with autocommitting(self.engine).connect() as connection:
            await connection.execute(text(sql), values)

    @asynccontextmanager
    async def working(self, count: int = 1, *, recovers: bool = False, **changes: Any) -> AsyncIterator[None]:
        """Run ``count`` senders with changed settings during the block.

        ``recovers``: they recover the deliveries of dead workers, too.
        """
        settings = Settings(_env_file=None, **self.settings.model_dump() | changes)
        senders = [
            create_sender(settings, self.engine, self.storage, f"worker-{number}", poll=0.05)
            for number in range(count)
        ]
        runs = [sender.run(channel) for sender in senders for channel in self.channels]
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

    async def settled(self, *jobs: UUID) -> None:
        """Wait until no delivery of the jobs is due or being sent."""

        async def look() -> bool:
            rows = [row for row in await self.rows() if row.job_id in jobs]
            return bool(rows) and not [row for row in rows if row.status in ("pending", "sending")]

        await until_async(look)

    async def tried(self, job: UUID, attempts: int = 1) -> Any:
        """Wait until the only delivery of a job is due again after ``attempts`` attempts; return it."""

        async def look() -> Any:
            (row,) = await self.rows(job)
            return row if row.attempts >= attempts and row.status != "sending" else None

        return await until_async(look)


def failed(
    data: LifecycleData,
    message: str = "columns.0: there is no column 'x'",
    *,
    code: str = "unknown_column",
) -> LifecycleData:
    """Return the data of the failure of the same job."""
    return LifecycleData(
        **data.model_dump(include={"job_id", "user_id", "export_type", "format", "attempt", "completed_at"}),
        status=Status.FAILED,
        error=JobError(code=code, message=message),
    )


@pytest.fixture
def office(own_settings: Settings, engine: AsyncEngine, storage: ObjectStore) -> Office:
    changes = {
        "webhook_secret": SECRET,
        "public_url": "https://exports.example.com",
        "smtp_host": "127.0.0.1",
        "mail_allowed_domains": "*",
    }
    settings = Settings(_env_file=None, **own_settings.model_dump() | changes)
    return Office(settings, engine, storage)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a self-signed certificate for ``localhost`` and ``hooks.example.com``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.DNSName("hooks.example.com")]
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + built.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The TLS context of a server with that certificate. Clients trust it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
