"""Reads the dead-letter topic, and tells which of its messages can be published again."""

import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from stream_app.settings import Settings
from streaming_exporter.errors import PublishError, Unreadable, UsageError
from streaming_exporter.events import DEAD_LETTER_HEADERS, TRUNCATED_HEADER, Topic, decode

ANSWER_SECONDS = 10.0
"""Time-out of one response of Kafka."""

FETCH_WAIT_MS = 10
"""Milliseconds that Kafka waits for a message at the end of a partition. All that are read exist already."""

Header = tuple[str, bytes]
Id = tuple[int, int]
"""A partition of the dead-letter topic, and an offset."""

MAX_ID_LENGTH = 40
"""Characters of an id. Python reads no number of any length."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be read: its partition on the dead-letter topic, its origin, and the reason.

    ``headers`` are the original ones. ``cut_from`` is the original length in bytes if only the beginning was
    kept.
    """

    id: Id
    at: datetime
    key: bytes | None
    value: bytes
    headers: tuple[Header, ...]
    error: str
    topic: str
    partition: str
    offset: str
    cut_from: int | None

    @classmethod
    def of(cls, record: Any) -> "DeadLetter":
        """Make a dead letter from a record of aiokafka."""
        headers = [(name, value or b"") for name, value in record.headers]
        ours = dict(headers)  # of two headers with one name the later one, which the service has added
        known = {name: ours.get(name, b"").decode("utf-8", "replace") for name in DEAD_LETTER_HEADERS}
        length = ours.get(TRUNCATED_HEADER, b"").decode("ascii", "replace")
        added = len(DEAD_LETTER_HEADERS) + (TRUNCATED_HEADER in ours)
        return cls(
            id=(record.partition, record.offset),
            at=datetime.fromtimestamp(record.timestamp / 1_000, UTC),
            key=record.key,
            value=record.value or b"",
            headers=tuple(headers[: max(0, len(headers) - added)]),
            cut_from=int(length) if length.isdecimal() else None,
            **known,
        )

    @property
    def name(self) -> str:
        """Return the id in the form of the commands."""
        return f"{self.id[0]}:{self.id[1]}"

    @property
    def job(self) -> str | None:
        """Return the id of the message's job, if it can be read."""
        try:
            return str(decode(self.value, self.headers).job_id)
        except Unreadable:
            return None

    def as_json(self, *, whole: bool = False) -> dict[str, Any]:
        """Return a JSON document; with ``whole`` also the key, the headers and the value."""
        document: dict[str, Any] = {
            "id": self.name,
            "at": self.at.isoformat(),
            "error": self.error,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "bytes": len(self.value),
            "cut_from_bytes": self.cut_from,
            "job_id": self.job,
        }
        if whole:
            document["key"] = _shown(self.key)
            document["headers"] = [[name, _shown(value)] for name, value in self.headers]
            document["value"] = _shown(self.value)
        return document


@dataclass(frozen=True, slots=True)
class Selection:
    """A selection of dead letters: by ``ids``, or by the other fields. An empty one selects all."""

    ids: tuple[Id, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    error: str | None = None
    topic: str | None = None

    def has(self, letter: DeadLetter) -> bool:
        """Return whether ``letter`` is selected; ``error`` is a part of the reason, upper or lower case."""
        return (
            (not self.ids or letter.id in self.ids)
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
            and (self.error is None or self.error.casefold() in letter.error.casefold())
            and (self.topic is None or letter.topic == self.topic)
        )


Kept = TypeVar("Kept")


@dataclass(slots=True)
class Newest(Generic[Kept]):
    """Keeps the newest ``limit`` of the letters that it gets in any order, and counts all of them.

    Each partition has an order of its own, so the last letters that were read need not be the newest.
    """

    limit: int
    number: int = 0
    _heap: list[tuple[datetime, Id, Kept]] = field(default_factory=list)

    def add(self, letter: DeadLetter, summarize: Callable[[DeadLetter], Kept]) -> None:
        """Count a letter. If it is one of the newest, keep what ``summarize`` makes of it."""
        self.number += 1
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, (letter.at, letter.id, summarize(letter)))
        elif (letter.at, letter.id) > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (letter.at, letter.id, summarize(letter)))

    def in_order(self) -> list[Kept]:
        """Return what was kept: by time, then by id, the newest last."""
        return [kept for _, _, kept in sorted(self._heap, key=lambda entry: entry[:2])]


async def newest_letters(
    settings: Settings,
    selection: Selection,
    limit: int,
    condition: Callable[[DeadLetter], bool] = lambda _: True,
) -> tuple[list[DeadLetter], int]:
    """Return the newest ``limit`` selected letters, oldest first, and the number of all selected ones.

    ``condition`` is a further condition.

    Raises:
        PublishError: Kafka does not answer.
    """
    found = Newest[DeadLetter](limit)
    async for letter in read_letters(settings, selection):
        if condition(letter):
            found.add(letter, lambda itself: itself)
    return found.in_order(), found.number


async def read_letters(settings: Settings, selection: Selection) -> AsyncGenerator[DeadLetter, None]:
    """Yield the selected letters that exist now, in the order of each partition.

    Raises:
        PublishError: Kafka does not answer.
    """
    import asyncio

    async with _open_consumer(settings) as consumer:
        with _publish_errors(settings):
            async with asyncio.timeout(2 * ANSWER_SECONDS):
                await consumer.start()
                offsets = await _assign(consumer, settings.topic(Topic.DEAD_LETTERS), selection)
            for tp, (begin, end) in offsets.items():
                async with aclosing(_records(consumer, tp, begin, end)) as records:
                    async for record in records:
                        letter = DeadLetter.of(record)
                        if selection.has(letter):
                            yield letter


@asynccontextmanager
async def _open_consumer(settings: Settings) -> AsyncIterator[Any]:
    """Yield a consumer that is not started, and stop it at the end of the block."""
    from aiokafka import AIOKafkaConsumer

    from streaming_exporter.kafka_connection import client_options

    options = client_options(settings)
    consumer = AIOKafkaConsumer(
        **options, enable_auto_commit=False, request_timeout_ms=15_000, fetch_max_wait_ms=FETCH_WAIT_MS
    )
    try:
        yield consumer
    finally:
        await consumer.stop()


@contextmanager
def _publish_errors(settings: Settings) -> Iterator[None]:
    """Raise errors of Kafka as :class:`PublishError`, with advice."""
    from aiokafka.errors import KafkaError

    from streaming_exporter.kafka_connection import NOT_ALLOWED, RIGHTS_ADVICE, NotAllowed

    try:
        yield
    except NotAllowed as error:
        raise PublishError(str(error)) from error
    except NOT_ALLOWED as error:
        raise PublishError(f"Kafka: {error}; {RIGHTS_ADVICE}") from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise PublishError(
            f"Kafka at {settings.kafka_bootstrap_servers} does not answer "
            f"({str(error) or type(error).__name__}); check that it runs there, or set "
            "EXPORTER_KAFKA_BOOTSTRAP_SERVERS to the right address"
        ) from error


async def _assign(consumer: Any, topic: str, selection: Selection) -> dict[Any, tuple[int, int]]:
    """Assign the partitions that can have selected letters; return the offsets to read.

    Returns:
        The first offset and the end offset of each partition that has something to read.
    """
    from aiokafka import TopicPartition

    from streaming_exporter.kafka_connection import hidden_topic

    metadata = await consumer._client.fetch_all_metadata()
    numbers = metadata.partitions_for_topic(topic)
    if not numbers:
        raise hidden_topic(topic, "READ")
    wanted = {number for number, _ in selection.ids}
    tps = [TopicPartition(topic, number) for number in numbers if not wanted or number in wanted]
    consumer.assign(tps)
    return await _offsets(consumer, tps, selection)


async def _offsets(consumer: Any, tps: list[Any], selection: Selection) -> dict[Any, tuple[int, int]]:
    if not tps:
        return {}
    begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    offsets = {tp: (begins[tp], ends[tp]) for tp in tps}
    if selection.ids:
        for tp in tps:
            wanted = [offset for number, offset in selection.ids if number == tp.partition]
            offsets[tp] = (max(min(wanted), begins[tp]), min(max(wanted) + 1, ends[tp]))
    elif selection.since is not None:
        moment = int(selection.since.timestamp() * 1_000)
        for tp, found in (await consumer.offsets_for_times(dict.fromkeys(tps, moment))).items():
            offsets[tp] = (found.offset if found is not None else ends[tp], ends[tp])
    return {tp: (begin, end) for tp, (begin, end) in offsets.items() if begin < end}


async def _records(consumer: Any, tp: Any, begin: int, end: int) -> AsyncGenerator[Any, None]:
    """Yield the records of an assigned partition from ``begin`` up to ``end``, which is left out.

    Raises:
        TimeoutError: there is no answer within :data:`ANSWER_SECONDS`.
    """
    import time

    consumer.pause(*consumer.assignment())
    consumer.resume(tp)
    consumer.seek(tp, begin)
    silent_since = time.monotonic()
    while await consumer.position(tp) < end:
        records = await consumer.getmany(tp, timeout_ms=1_000, max_records=100)
        if records:
            silent_since = time.monotonic()
        elif time.monotonic() - silent_since > ANSWER_SECONDS:
            raise TimeoutError(f"no messages within {ANSWER_SECONDS:.0f} s")
        for record in records.get(tp, ()):
            if record.offset < end:
                yield record


def redrive_topics(settings: Settings) -> set[str]:
    """Return the topics to which dead letters can be published again."""
    return {settings.topic(topic) for topic in Topic if topic is not Topic.DEAD_LETTERS}


def redrive_problem(letter: DeadLetter, topics: set[str]) -> str | None:
    """Return why a letter cannot be published again to one of ``topics``, or ``None`` if it can."""
    if letter.topic not in topics:
        return f"its header names {letter.topic!r}, which is not a topic of this service"
    if letter.cut_from is not None:
        return (
            f"only the beginning of its {letter.cut_from} bytes was kept; its producer must publish it again"
        )
    return None


def parse_id(text: str) -> Id:
    """Parse ``OFFSET`` or ``PARTITION:OFFSET``.

    Raises:
        UsageError: the text is neither.
    """
    partition, colon, offset = text.rpartition(":")
    is_number = offset.isdecimal() and (partition.isdecimal() or not colon)
    if not is_number or len(text) > MAX_ID_LENGTH:
        raise UsageError(
            f"{text[:MAX_ID_LENGTH]!r} is not the id of a dead letter; expected OFFSET or "
            "PARTITION:OFFSET, as `list` prints them"
        )
    return int(partition or 0), int(offset)


def _shown(content: bytes | None) -> Any:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"hex": content.hex()}
