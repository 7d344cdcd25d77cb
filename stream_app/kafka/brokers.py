"""Queries the brokers about topics, offsets and the consumer group, over separate connections.

The knowledge of the worker's own consumer can be wrong.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupIdNotFound, KafkaError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from stream_app.kafka.group_errors import NOT_YET, raise_group_errors
from stream_app.kafka.topic_ids import TopicIdsRequest, ids_of
from stream_app.settings import Settings
from streaming_exporter.errors import Outage
from streaming_exporter.kafka_admin import AdminClient
from streaming_exporter.kafka_connection import NOT_ALLOWED, NotAllowed, client_options

Partition = tuple[str, int]
"""A topic and the number of a partition."""

ATTEMPTS = 3
"""How often the connections of a query are opened: with a broker down, the next try can reach another one."""

RETRY_SECONDS = 0.1
"""The time in seconds before a query is repeated that a group coordinator cannot answer yet."""

RETENTION_MS = "retention.ms"
"""The setting of a topic that says how long messages are kept. -1 stands for no limit."""

NO_LEADER = -1
"""The number of the leader in the metadata of a partition that has none."""

QUERY_SECONDS = 10.0
"""Limit of a query in seconds, from its beginning; after its time-out it continues in the background.

To connect, with the sign-in and a slow DNS, can take longer than the time-out of a query."""

REQUEST_SECONDS = 4.0
"""Limit of one connection or request. A query has time for another broker after one that does not answer."""

Answer = TypeVar("Answer")
Found = TypeVar("Found")
Client = TypeVar("Client", AdminClient, AIOKafkaConsumer)


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


@dataclass(frozen=True, slots=True)
class Logs:
    """The logs of partitions.

    Attributes:
        ends: the offset that the next message of each partition with a leader will have.
        topic_ids: the id of each topic. Brokers before Kafka 2.8 have no ids.
        leaderless: the partitions without a leader. They cannot be read or written.
    """

    ends: Mapping[Partition, int]
    topic_ids: Mapping[str, UUID]
    leaderless: Sequence[Partition]


class Brokers:
    """Queries the brokers. Queries of several callers run one after another.

    Methods raise :class:`Outage` while the brokers do not answer, and :class:`NotAllowed` where the principal
    lacks a right. :meth:`beginning_offsets`, :meth:`first_message_times` and :meth:`end_offsets` also raise
    :class:`Outage` for a partition without a leader.

    A query without an answer in time continues in the background, so that its connections are there for the
    next query, which waits for it.
    """

    def __init__(self, settings: Settings, *, client_id: str, timeout: float = 5) -> None:
        """Create the brokers. ``timeout`` is the time-out of a query, in seconds."""
        self._group = settings.group
        self._timeout = timeout
        self._options: dict[str, Any] = {
            **client_options(settings),
            "client_id": client_id,
            "request_timeout_ms": int(REQUEST_SECONDS * 1_000),
        }
        self._admin: AdminClient | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._running: asyncio.Task[Any] | None = None
        self._lock = asyncio.Lock()

    async def partitions(self, topics: Collection[str]) -> dict[str, set[int]]:
        """Return the partitions of those of ``topics`` that exist and that the principal can describe."""
        described = await self._run(lambda admin, _: admin.describe_topics())
        return {
            item["topic"]: {part["partition"] for part in item["partitions"]}
            for item in described
            if item["topic"] in topics and item["partitions"]
        }

    async def topic_ids(self, topics: Collection[str]) -> dict[str, UUID]:
        """Return the id of each of ``topics`` that exists. Brokers before Kafka 2.8 have no ids."""

        return await self._run(lambda admin, _: _topic_ids(admin, topics))

    async def retentions(self, topics: Collection[str]) -> dict[str, timedelta | None]:
        """Return how long each of ``topics`` keeps messages; ``None`` for no limit.

        Topics whose configuration the principal has no right to describe are left out.
        """
        return await self._run(lambda admin, _: _retentions(admin, topics))

    async def leaderless(self, partitions: Collection[Partition]) -> list[Partition]:
        """Return those of ``partitions`` that have no leader."""
        return await self._run(lambda admin, _: _leaderless(admin, partitions))

    async def logs(self, partitions: Collection[Partition]) -> Logs:
        """Return the ends of the partitions with a leader, and the results of :meth:`topic_ids`."""

        async def ask(admin: AdminClient, reader: AIOKafkaConsumer) -> Logs:
            ids = await _topic_ids(admin, {topic for topic, _ in partitions}) if partitions else {}
            leaderless = await _leaderless(admin, partitions)
            asked = [TopicPartition(*partition) for partition in partitions if partition not in leaderless]
            ends = await reader.end_offsets(asked)
            return Logs({(tp.topic, tp.partition): end for tp, end in ends.items()}, ids, leaderless)

        return await self._run(ask)

    async def group(self) -> Group:
        """Return the consumer group of the workers."""
        return await self._run(lambda admin, _: _group(admin, self._group))

    async def end_offsets(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Return the offset that the next message of each partition will have."""
        return await self._ask_leaders(partitions, AIOKafkaConsumer.end_offsets)

    async def beginning_offsets(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Return the offset of the first message that each partition has, or will have."""
        return await self._ask_leaders(partitions, AIOKafkaConsumer.beginning_offsets)

    async def first_message_times(self, partitions: Collection[Partition]) -> dict[Partition, datetime]:
        """Return the time of the first message that each partition has. Empty partitions have none."""
        found = await self._ask_leaders(
            partitions, lambda reader, wanted: reader.offsets_for_times(dict.fromkeys(wanted, 0))
        )
        return {
            partition: datetime.fromtimestamp(item.timestamp / 1_000, UTC)
            for partition, item in found.items()
            if item is not None
        }

    async def _ask_leaders(
        self,
        partitions: Collection[Partition],
        query: Callable[[AIOKafkaConsumer, Collection[TopicPartition]], Awaitable[Mapping[Any, Found]]],
    ) -> dict[Partition, Found]:
        """Ask the leader of each partition.

        Raises:
            Outage: a partition has no leader. The client would wait for one.
        """

        async def ask(admin: AdminClient, reader: AIOKafkaConsumer) -> Mapping[TopicPartition, Found]:
            if leaderless := await _leaderless(admin, partitions):
                raise Outage(f"Kafka: {without_leader(leaderless)}")
            return await query(reader, [TopicPartition(*partition) for partition in partitions])

        found = await self._run(ask)
        return {(tp.topic, tp.partition): item for tp, item in found.items()}

    async def close(self) -> None:
        """End the query that has no answer, and close the connections. The next query opens them again."""
        task, self._running = self._running, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._disconnect()

    async def _disconnect(self) -> None:
        admin, self._admin = self._admin, None
        reader, self._reader = self._reader, None
        if admin is not None:
            await admin.close()
        if reader is not None:
            await reader.stop()

    async def _run(self, query: Callable[[AdminClient, AIOKafkaConsumer], Awaitable[Answer]]) -> Answer:
        async with self._lock:
            return await self._run_alone(query)

    async def _run_alone(self, query: Callable[[AdminClient, AIOKafkaConsumer], Awaitable[Answer]]) -> Answer:
        try:
            async with asyncio.timeout(self._timeout):
                if self._running is not None:
                    await asyncio.wait({self._running})
                self._running = task = asyncio.create_task(self._execute(query))
                task.add_done_callback(_note_error)
                await asyncio.wait({task})
        except TimeoutError as error:
            raise Outage(f"Kafka: no answer within {self._timeout:g} s") from error
        except BaseException:
            # The caller can be cancelled in the middle: the next query must not read the rest of this answer.
            await self.close()
            raise
        self._running = None
        return task.result()

    async def _execute(self, query: Callable[[AdminClient, AIOKafkaConsumer], Awaitable[Answer]]) -> Answer:
        last: Exception | None = None
        # Before the caller's time-out: it learns the coordinator's answer, and the next query need not wait.
        give_up_at = time.monotonic() + self._timeout / 2
        try:
            async with asyncio.timeout(QUERY_SECONDS):
                attempts = ATTEMPTS
                while attempts:
                    try:
                        return await query(*await self._connected())
                    except NOT_ALLOWED as error:
                        raise NotAllowed(f"Kafka: this principal lacks a right ({error})") from error
                    except NOT_YET as error:
                        last = error
                        if time.monotonic() >= give_up_at:
                            break
                        await asyncio.sleep(RETRY_SECONDS)
                    except (TimeoutError, KafkaError, OSError) as error:
                        last = error
                        attempts -= 1
                        # Connect again: a client in a wrong state must not look like brokers that are away.
                        await self._disconnect()
        except TimeoutError as error:
            last = last or error
            await self._disconnect()
        raise Outage(f"Kafka: {last!r}") from last

    async def _connected(self) -> tuple[AdminClient, AIOKafkaConsumer]:
        if self._admin is None:
            admin = AdminClient(**self._options)
            raise_group_errors(admin._client)
            self._admin = await _started(admin, AdminClient.close)
        if self._reader is None:
            self._reader = await _started(AIOKafkaConsumer(**self._options), AIOKafkaConsumer.stop)
        return self._admin, self._reader


def _note_error(query: "asyncio.Task[Any]") -> None:
    """Read the error of an abandoned query. Otherwise asyncio would log it."""
    if not query.cancelled():
        query.exception()


async def _started(client: Client, close: Callable[[Client], Awaitable[None]]) -> Client:
    """Connect the client and return it; close it if that fails."""
    try:
        await client.start()
    except BaseException:
        await close(client)
        raise
    return client


async def _topic_ids(admin: AdminClient, topics: Collection[str]) -> dict[str, UUID]:
    try:
        return ids_of(await admin._send_request(TopicIdsRequest(topics)))
    except NotImplementedError:
        return {}


async def _retentions(admin: AdminClient, topics: Collection[str]) -> dict[str, timedelta | None]:
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, {RETENTION_MS: None}) for name in topics]
    found: dict[str, timedelta | None] = {}
    for answer in await admin.describe_configs(asked) if asked else ():
        for code, _, _, name, entries in answer.resources:
            for key, value, *_ in () if code else entries:
                if key == RETENTION_MS:
                    found[name] = None if int(value) < 0 else timedelta(milliseconds=int(value))
    return found


async def _leaderless(admin: AdminClient, partitions: Collection[Partition]) -> list[Partition]:
    """Return those of ``partitions`` that have no leader, as the broker knows now."""
    if not partitions:
        return []
    names = sorted({topic for topic, _ in partitions})
    # By default the request creates a topic that was just deleted, where brokers create topics by themselves.
    described = await admin._send_request(MetadataRequest(names, allow_auto_topic_creation=False))
    found = {
        (item["topic"], part["partition"])
        for item in described.to_object()["topics"]
        for part in item["partitions"]
        if part["leader"] == NO_LEADER
    }
    return sorted(found.intersection(partitions))


def without_leader(partitions: Collection[Partition]) -> str:
    """Return the sentence that says that partitions have no leader."""
    names = ", ".join(f"{topic}[{number}]" for topic, number in partitions)
    return f"{names} {'has' if len(partitions) == 1 else 'have'} no leader"


async def _group(admin: AdminClient, name: str) -> Group:
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
        {(tp.topic, tp.partition): item.offset for tp, item in offsets.items()},
    )
