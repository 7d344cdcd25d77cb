"""Kafka as its brokers see it, asked over connections of our own: what a consumer believes may be wrong."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupIdNotFound, KafkaError, for_code

from stream_app.kafka.topic_ids import TopicIdsRequest, ids_of
from stream_app.settings import Settings
from streaming_exporter.errors import Outage
from streaming_exporter.kafka_connection import client_options

Partition = tuple[str, int]
"""A topic and the number of a partition."""

ATTEMPTS = 3
"""Of a cluster whose brokers are not all there, another one may be asked the next time."""

Answer = TypeVar("Answer")
Client = TypeVar("Client", AIOKafkaAdminClient, AIOKafkaConsumer)


@dataclass(frozen=True, slots=True)
class Group:
    """The consumer group: ``state`` is Kafka's word, ``members`` are the client ids of its members."""

    state: str
    members: frozenset[str]
    committed: Mapping[Partition, int]

    @property
    def is_stable(self) -> bool:
        """Whether every member has its partitions."""
        return self.state == "Stable"


class Brokers:
    """Questions to the brokers. Every method raises :class:`Outage` while they do not answer."""

    def __init__(self, settings: Settings, *, client_id: str, patience: float = 5) -> None:
        """``patience`` is how long, in seconds, an answer may take."""
        self._group = settings.group
        self._patience = patience
        self._options: dict[str, Any] = {
            **client_options(settings),
            "client_id": client_id,
            "request_timeout_ms": int(patience * 1_000),
        }
        self._admin: AIOKafkaAdminClient | None = None
        self._reader: AIOKafkaConsumer | None = None

    async def partitions(self, topics: Collection[str]) -> dict[str, set[int]]:
        """The partitions of those of ``topics`` that exist."""
        described = await self._ask(lambda admin, _: admin.describe_topics())
        return {
            item["topic"]: {part["partition"] for part in item["partitions"]}
            for item in described
            if item["topic"] in topics and item["partitions"]
        }

    async def topic_ids(self, topics: Collection[str]) -> dict[str, UUID]:
        """The id of each of ``topics`` that exists; none from brokers that have no ids, before Kafka 2.8."""

        return await self._ask(lambda admin, _: _topic_ids(admin, topics))

    async def logs(self, places: Collection[Partition]) -> tuple[dict[Partition, int], dict[str, UUID]]:
        """What :meth:`ends` and :meth:`topic_ids` say, as one question."""
        wanted = [TopicPartition(*place) for place in places]

        async def ask(
            admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer
        ) -> tuple[dict[Partition, int], dict[str, UUID]]:
            ids = await _topic_ids(admin, {topic for topic, _ in places}) if places else {}
            ends = await reader.end_offsets(wanted)
            return {(place.topic, place.partition): end for place, end in ends.items()}, ids

        return await self._ask(ask)

    async def group(self) -> Group:
        """The group that the workers share."""
        return await self._ask(lambda admin, _: _group(admin, self._group))

    async def ends(self, places: Collection[Partition]) -> dict[Partition, int]:
        """The offset that the next message of each partition will have."""
        wanted = [TopicPartition(*place) for place in places]
        found = await self._ask(lambda _, reader: reader.end_offsets(wanted))
        return {(place.topic, place.partition): offset for place, offset in found.items()}

    async def begins(self, places: Collection[Partition]) -> dict[Partition, int]:
        """The offset of the first message that each partition still has, or will have."""
        wanted = [TopicPartition(*place) for place in places]
        found = await self._ask(lambda _, reader: reader.beginning_offsets(wanted))
        return {(place.topic, place.partition): offset for place, offset in found.items()}

    async def close(self) -> None:
        """Close the connections; the next question opens them again."""
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
            async with asyncio.timeout(self._patience):
                for _ in range(ATTEMPTS):
                    try:
                        return await question(*await self._connected())
                    except (TimeoutError, KafkaError, OSError) as error:
                        last = error
                        # Begin anew: a client that has lost its way must not look like brokers that are away.
                        await self.close()
        except TimeoutError as error:
            last = last or error
            await self.close()
        except BaseException:
            # Whoever asks may give up in the middle: what is half said must not be heard by the next one.
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
    """The client once it works; one that was stopped halfway is of no use to anybody."""
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
