"""A further deployment on the same brokers and servers: topics, group and database of its own."""

import asyncio
from collections.abc import Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from dev.stack import Stack
from stream_app.settings import Settings
from streaming_exporter.events import Event, ExportRequest, Topic, request_event
from streaming_exporter.kafka_admin import AdminClient
from tests.state_databases import TEMPLATE, create_database
from tests.waiting import WITHIN, until_async


class Deployment:
    """A deployment's settings and calls for tests. ``close`` removes its database."""

    def __init__(self, stack: Stack, **changed: str) -> None:
        self._stack = stack
        self.name = f"own_{uuid4().hex[:8]}"
        asyncio.run(create_database(stack, self.name, TEMPLATE))
        url = stack.settings()["EXPORTER_DATABASE_URL"].rpartition("/")[0]
        self.variables = {
            "EXPORTER_DATABASE_URL": f"{url}/{self.name}",
            "EXPORTER_KAFKA_TOPIC_PREFIX": f"{self.name}.",
            "EXPORTER_DRAIN_SECONDS": "1",
            **changed,
        }
        merged = stack.settings() | self.variables
        fields = {name.removeprefix("EXPORTER_").lower(): value for name, value in merged.items()}
        self.settings = Settings(_env_file=None, **fields)  # type: ignore[arg-type]

    def close(self) -> None:
        self._run(self._stack.postgres.admin_url(), f"DROP DATABASE {self.name} WITH (FORCE)")

    @staticmethod
    def _run(url: str, sql: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(url)
            await connection.execute(sql)
            await connection.close()

        asyncio.run(run())

    @asynccontextmanager
    async def admin(self) -> Any:
        client = AdminClient(bootstrap_servers=self.settings.kafka_bootstrap_servers)
        await client.start()
        try:
            yield client
        finally:
            await client.close()

    async def ask(self, number: int = 1, *, partition: int | None = None, **data: Any) -> set[UUID]:
        """Publish requests whose jobs fail when they are admitted."""
        events = [request(**data) for _ in range(number)]
        await self.publish(events, partition=partition)
        return {event.job_id for event in events}

    async def publish(self, events: Iterable[Event], *, partition: int | None = None) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.settings.kafka_bootstrap_servers) as producer:
            for event in events:
                topic = self.settings.topic(event.topic)
                await producer.send_and_wait(topic, event.encode(), key=event.key, partition=partition)

    async def commit(self, offsets: dict[int, int], topic: Topic = Topic.REQUESTS) -> None:
        """Commit offsets of the topic's partitions for the group, which has no members."""
        async with AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka_bootstrap_servers,
            group_id=self.settings.group,
            enable_auto_commit=False,
        ) as consumer:
            parts = {TopicPartition(self.settings.topic(topic), part): at for part, at in offsets.items()}
            consumer.assign(list(parts))
            await consumer.commit({part: OffsetAndMetadata(at, "") for part, at in parts.items()})

    async def jobs(self) -> set[UUID]:
        connection = await asyncpg.connect(self.settings.database_url.get_secret_value())
        rows = await connection.fetch("SELECT id FROM export_jobs")
        await connection.close()
        return {row["id"] for row in rows}

    async def has(self, ids: set[UUID], *, within: float = WITHIN) -> None:
        """Wait until these jobs are recorded."""
        await until_async(lambda: self._knows(ids), within=within, every=0.2)

    async def _knows(self, ids: set[UUID]) -> bool:
        return ids <= await self.jobs()


def request(**data: Any) -> Event:
    """Return a request that fails when it is admitted."""
    content = {"user_id": "k", "export_type": "ledger", "format": "none", **data}
    return request_event(ExportRequest.model_validate(content), source="/t")
