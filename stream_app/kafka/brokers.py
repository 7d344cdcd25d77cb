"""Queries the brokers about topics, offsets and the consumer group, over separate connections.

The knowledge of the worker's own consumer can be wrong.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupIdNotFound, KafkaError, for_code

from stream_app.kafka.topic_ids import TopicIdsRequest, ids_of
from stream_app.settings import Settings
from streaming_exporter.errors import Outage
from streaming_exporter.kafka_connection import NOT_ALLOWED, NotAllowed, client_options

Partition = tuple[str, int]
"""A topic and the number of a partition."""

ATTEMPTS = 3
"""How often a query is tried: in a cluster with a broker down, the next try can reach another broker."""

Answer = TypeVar("Answer")
Client = TypeVar("Client", AIOKafkaAdminClient, AIOKafkaConsumer)


@dataclass(frozen=True, slots=True)
class Group:
    """The consumer group: its state in Kafka, the client ids of its members, its committed offsets."""

    state: str
    members: frozenset[str]
    committed: Mapping[Partition, int]

    @property
    def is_stable(self) -> bool:
        """Whether every member has its partitions."""
        return self.state == "Stable"


class Brokers:
    """Queries the brokers. Every method raises :class:`Outage` while they do not answer.

    It raises :class:`NotAllowed` where the principal lacks a right.
    """

    def __init__(self, settings: Settings, *, client_id: str, timeout: float = 5) -> None:
        """``timeout`` is the time-out of a query, in seconds."""
        self._group = settings.group
        self._timeout = timeout
        self._options: dict[str, Any] = {
            **client_options(settings),
            "client_id": client_id,
            "request_timeout_ms": int(timeout * 1_000),
        }
        self._admin: AIOKafkaAdminClient | None = None
        self._reader: AIOKafkaConsumer | None = None

    async def partitions(self, topics: Collection[str]) -> dict[str, set[int]]:
        """Return the partitions of those of ``topics`` that exist and that the principal can describe."""
        described = await self._ask(lambda admin, _: admin.describe_topics())
        return {
            item["topic"]: {part["partition"] for part in item["partitions"]}
            for item in described
            if item["topic"] in topics and item["partitions"]
        }

    async def topic_ids(self, topics: Collection[str]) -> dict[str, UUID]:
        """Return the id of each of ``topics`` that exists. Brokers before Kafka 2.8 have no ids."""

        return await self._ask(lambda admin, _: _topic_ids(admin, topics))

    async def logs(self, places: Collection[Partition]) -> tuple[dict[Partition, int], dict[str, UUID]]:
        """Return the results of :meth:`ends` and :meth:`topic_ids`, in one query."""
        wanted = [TopicPartition(*place) for place in places]

        async def ask(
            admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer
        ) -> tuple[dict[Partition, int], dict[str, UUID]]:
            ids = await _topic_ids(admin, {topic for topic, _ in places}) if places else {}
            ends = await reader.end_offsets(wanted)
            return {(place.topic, place.partition): end for place, end in ends.items()}, ids

        return await self._ask(ask)

    async def group(self) -> Group:
        """Return the consumer group of the workers."""
        return await self._ask(lambda admin, _: _group(admin, self._group))

    async def ends(self, places: Collection[Partition]) -> dict[Partition, int]:
        """Return the offset that the next message of each partition will have."""
        wanted = [TopicPartition(*place) for place in places]
        found = await self._ask(lambda _, reader: reader.end_offsets(wanted))
        return {(place.topic, place.partition): offset for place, offset in found.items()}

    async def begins(self, places: Collection[Partition]) -> dict[Partition, int]:
        """Return the offset of the first message that each partition has, or will have."""
        wanted = [TopicPartition(*place) for place in places]
        found = await self._ask(lambda _, reader: reader.beginning_offsets(wanted))
        return {(place.topic, place.partition): offset for place, offset in found.items()}

    async def begin_times(self, places: Collection[Partition]) -> dict[Partition, datetime]:
        """Return the time of the first message that each partition has. Empty partitions have none."""
        wanted = {TopicPartition(*place): 0 for place in places}
        found = await self._ask(lambda _, reader: reader.offsets_for_times(wanted))
        return {
            (place.topic, place.partition): datetime.fromtimestamp(item.timestamp / 1_000, UTC)
            for place, item in found.items()
            if item is not None
        }

    async def close(self) -> None:
        """Close the connections. The next query opens them again."""
        admin, self._admin = self._admin, None
        reader, self._reader = self._reader, None
        if admin is not None:
            await admin.close()
        if reader is not None:
            await reader.stop()

    async def _ask(
        self, question: Callable[[AIOKafkaAdminClient, AIOKafkaConsumer], Awaitable[Answer]]
    ) -> Answer:
        last: Exception | None = None
        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(ATTEMPTS):
                    try:
                        return await question(*await self._connected())
                    except NOT_ALLOWED as error:
                        raise NotAllowed(f"Kafka: this principal lacks a right ({error})") from error
                    except (TimeoutError, KafkaError, OSError) as error:
                        last = error
                        # Connect again: a client in a wrong state must not look like brokers that are away.
                        await self.close()
        except TimeoutError as error:
            last = last or error
            await self.close()
        except BaseException:
            # The caller can be cancelled in the middle: the next query must not read the rest of this answer.
            await self.close()
            raise
        raise Outage(f"Kafka: {last!r}") from last

    async def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._admin is None:
            self._admin = await _started(AIOKafkaAdminClient(**self._options), AIOKafkaAdminClient.close)
        if self._reader is None:
            self._reader = await _started(AIOKafkaConsumer(**self._options), AIOKafkaConsumer.stop)
        return self._admin, self._reader


async def _started(client: Client, close: Callable[[Client], Awaitable[None]]) -> Client:
    """Connect the client and return it; close it if that fails."""
    try:
        await client.start()
    except BaseException:
        await close(client)
        raise
    return client


async def _topic_ids(admin: AIOKafkaAdminClient, topics: Collection[str]) -> dict[str, UUID]:
    try:
        return ids_of(await admin._send_request(TopicIdsRequest(topics)))
    except NotImplementedError:
        return {}


async def _group(admin: AIOKafkaAdminClient, name: str) -> Group:
    coordinator = await admin.find_coordinator(name)
    (answer,) = await admin.describe_consumer_groups([name], coordinator)
    (code, _, state, _, _, members, *_) = answer.groups[0]
    error = for_code(code)
    if code and error is not GroupIdNotFound:
        raise error()
    offsets = await admin.list_consumer_group_offsets(name, coordinator)
    return Group(
        state,
        frozenset(str(client_id) for _, client_id, *_ in members or ()),
        {(place.topic, place.partition): item.offset for place, item in offsets.items()},
    )
