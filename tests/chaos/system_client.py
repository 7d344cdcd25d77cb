"""A client of the system under test: publishes with retries; reads the table, the topics and the bucket."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from dev.stack import Stack
from stream_app.storage.listing import ListedObject
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import Event, Topic
from tests.stacks import settings_of
from tests.topics import events_on, messages_on, offsets_of_jobs
from tests.waiting import patient, until_async

Job = Mapping[str, Any]

AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
"""Errors of queries while the database is away."""

OUTAGE_SECONDS = 300.0
"""Seconds for which a publication is retried while Kafka is away."""


class SystemClient:
    """``async with SystemClient(stack) as client``.

    All queries use one connection, and jobs that are waited for at the same time are read by one query:
    tests wait for dozens of jobs, and a connection takes ten times the processor time of a query.
    """

    def __init__(self, stack: Stack) -> None:
        self.settings = settings_of(stack)
        self.storage = ObjectStore(self.settings)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.kafka_bootstrap_servers, request_timeout_ms=10_000
        )
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._waited_for: Counter[UUID] = Counter()
        self._next: asyncio.Task[dict[UUID, Job]] | None = None
        """The next reading of the jobs that are waited for, until it begins."""
        self._readings: set[asyncio.Task[dict[UUID, Job]]] = set()

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for reading in self._readings:
            reading.cancel()
        await asyncio.gather(*self._readings, return_exceptions=True)
        if self._connection is not None:
            self._connection.terminate()
        await self._producer.stop()

    async def publish(self, event: Event) -> None:
        """Publish an event, with retries for :data:`OUTAGE_SECONDS`."""

        async def taken() -> bool:
            await self._producer.send_and_wait(event.topic, event.encode(), key=event.key)
            return True

        await until_async(
            taken, within=OUTAGE_SECONDS, every=0.2, ignoring=(KafkaError, OSError, TimeoutError)
        )

    async def fetch(self, sql: str, *values: Any) -> list[Job]:
        """Return rows of the state database.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: it is away.
        """
        async with self._turn:
            return await self._fetch(sql, *values)

    async def _fetch(self, sql: str, *values: Any) -> list[Job]:
        if self._connection is not None:
            with suppress(*AWAY):  # it can have ended in an outage that is over
                return list(await self._connection.fetch(sql, *values))
            self._connection.terminate()
            self._connection = None
        self._connection = await asyncpg.connect(
            self.settings.database_url.get_secret_value(),
            timeout=patient(5),
            statement_cache_size=0,  # migrations change the tables
        )
        return list(await self._connection.fetch(sql, *values))

    async def jobs(self, ids: Collection[UUID]) -> dict[UUID, Job]:
        """Return the records of these jobs that exist; nothing during an outage."""
        async with self._turn:
            return await self._jobs(ids)

    async def _jobs(self, ids: Collection[UUID]) -> dict[UUID, Job]:
        with suppress(*AWAY):
            rows = await self._fetch("SELECT * FROM export_jobs WHERE id = ANY($1)", list(ids))
            return {row["id"]: row for row in rows}
        return {}

    async def _awaited_jobs(self) -> dict[UUID, Job]:
        """Return the records of all jobs that are waited for, as they are after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._read())
            self._readings.add(self._next)
            self._next.add_done_callback(self._readings.discard)
        return await asyncio.shield(self._next)  # others wait for it too

    async def _read(self) -> dict[UUID, Job]:
        async with self._turn:
            self._next = None
            return await self._jobs(list(self._waited_for))

    async def until(
        self, ids: Collection[UUID], holds: Callable[[Job], bool], *, within: float
    ) -> dict[UUID, Job]:
        """Wait until ``holds`` is true of all records; return them.

        Raises:
            AssertionError: it is not true in time; the message has the records.
        """
        found: dict[UUID, Job] = {}

        async def look() -> bool:
            known = await self._awaited_jobs()
            found.clear()
            found.update({job_id: known[job_id] for job_id in ids if job_id in known})
            return len(found) == len(ids) and all(map(holds, found.values()))

        def waited_for() -> str:
            waiting = [_summary(job) for job in found.values() if not holds(job)]
            return f"missing {set(ids) - found.keys()}, waiting {waiting}"

        self._waited_for.update(ids)
        try:
            await until_async(look, within=within, every=0.1, otherwise=waited_for)
        finally:
            self._waited_for -= Counter(ids)
        return found

    async def listed_files(self, job: Job) -> list[Job]:
        """Return the list of the several files of a job, by their numbers; none if it has a single file."""
        return await self.fetch(
            "SELECT * FROM export_files WHERE job_id = $1 AND result = $2 ORDER BY number",
            job["id"],
            job["file_path"],
        )

    async def file(self, job: Job) -> bytes:
        """Return the only file of a completed job."""
        return await asyncio.to_thread(self.storage.read, job["file_path"])

    async def joined_files(self, job: Job) -> bytes:
        """Return the several CSV files of a completed job as if they were one."""
        keys = [file["key"] for file in await self.listed_files(job)]
        first, *others = [await asyncio.to_thread(self.storage.read, key) for key in keys]
        header = first.index(b"\n") + 1
        return first + b"".join(content[header:] for content in others)

    async def history(self, ids: Collection[UUID]) -> dict[UUID, list[Event]]:
        """Return the lifecycle events of each job in their order, without repetitions."""
        told: dict[UUID, dict[str, Event]] = {job_id: {} for job_id in ids}
        for event in await events_on(self.settings, Topic.EVENTS):
            if event.job_id in told:
                told[event.job_id].setdefault(event.id, event)
        return {job_id: list(events.values()) for job_id, events in told.items()}

    async def dead_letters_of(self, ids: Collection[UUID]) -> list[str]:
        """Return the dead letters of these jobs; there must be none, since all messages can be read."""
        keys = {str(job_id).encode(): job_id for job_id in ids}
        letters = await messages_on(self.settings, Topic.DEAD_LETTERS)
        return [
            f"dead letter of {keys[letter.key]}: {dict(letter.headers)}"
            for letter in letters
            if letter.key in keys
        ]

    async def whereabouts(self, ids: Collection[UUID]) -> list[str]:
        """Describe the messages of jobs that have no record."""
        return [
            *await offsets_of_jobs(self.settings, Topic.REQUESTS, ids),
            *await offsets_of_jobs(self.settings, Topic.EVENTS, ids),
            *await self.dead_letters_of(ids),
        ]

    def found(self) -> list[ListedObject]:
        """Return all files and open uploads, with their jobs and attempts."""
        return [item for page in self.storage.listing.pages() for item in page]

    def objects(self) -> tuple[list[str], list[str]]:
        """Return the keys of all files and of all open multipart uploads."""
        found = self.found()
        return (
            [item.key for item in found if item.upload_id is None],
            [item.key for item in found if item.upload_id is not None],
        )


def has_ended(job: Job) -> bool:
    """Return whether the outcome of the job is recorded and applied."""
    return job["status"] not in ("pending", "processing") and job["outcome"] is None


def _summary(job: Job) -> str:
    names = (
        "id",
        "user_id",
        "status",
        "attempt",
        "failures",
        "worker",
        "lease_until",
        "not_before",
        "outcome",
    )
    return " ".join(f"{name}={job[name]!s:.120}" for name in names)
