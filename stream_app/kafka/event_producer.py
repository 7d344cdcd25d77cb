"""Publishes events from the worker and waits until Kafka has confirmed them."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import faust
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faust.exceptions import ProducerSendError
from faust.types import EventT
from faust.types.tuples import RecordMetadata

from stream_app.observability import metrics
from streaming_exporter.errors import Outage, TooLarge, Unreadable
from streaming_exporter.events import DEAD_LETTER_HEADERS, TRUNCATED_HEADER, Event, Topic

TRUNCATED_SIZES = (500_000, 50_000, 0)
"""Sizes in bytes to which a message is truncated. The first one that Kafka accepts is used."""

_FAILURES = (ProducerSendError, KafkaError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class _Message:
    topic: Topic
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] | None = None

    @classmethod
    def of(cls, event: Event) -> "_Message":
        return cls(event.topic, event.key, event.encode())


class EventProducer:
    """Publishes events with the worker's producer. Every call returns once Kafka has confirmed them."""

    def __init__(self, app: faust.App, prefix: str = "") -> None:
        """Create the producer. ``prefix`` is the prefix of topic names in the cluster."""
        self._app = app
        self._prefix = prefix

    async def publish(self, event: Event) -> None:
        """Publish ``event``.

        An event that is too large for Kafka is published without its manifest and its list of files, which
        the state database keeps.

        Raises:
            Outage: Kafka did not confirm the event. It is not known whether it arrived.
            TooLarge: Kafka does not accept it without the manifest either.
        """
        await self.publish_all([event])

    async def publish_all(self, events: Sequence[Event]) -> None:
        """Publish many events. All are confirmed when this returns."""
        if not events:
            return
        taken = await self._publish([_Message.of(event) for event in events])
        refused = [event for event, is_taken in zip(events, taken, strict=True) if not is_taken]
        if refused and not all(await self._publish([_Message.of(_lean(event)) for event in refused])):
            raise TooLarge(f"Kafka: an event of {refused[0].job_id} is too large even without its manifest")

    async def dead_letter(self, event: EventT[bytes], reason: Unreadable) -> None:
        """Publish a message to the dead-letter topic as it was received.

        Further headers contain its topic, partition and offset, and the error. A message that is too large
        without compression is truncated.
        """
        message = event.message
        content = message.value or b""
        own: Any = message.headers or ()
        values = (str(reason)[:1_000], message.topic, str(message.partition), str(message.offset))
        ours = [(name, value.encode()) for name, value in zip(DEAD_LETTER_HEADERS, values, strict=True)]
        letter = _Message(Topic.DEAD_LETTERS, message.key, content, [*own, *ours])
        cut = [*ours, (TRUNCATED_HEADER, str(len(content)).encode())]
        shorter = [replace(letter, key=None, value=content[:size], headers=cut) for size in TRUNCATED_SIZES]
        for tried in (letter, *shorter):
            if all(await self._publish([tried])):
                break
        else:
            raise Outage(f"Kafka: {Topic.DEAD_LETTERS} refuses messages of a few hundred bytes")
        metrics.DEAD_LETTERS.labels(message.topic.removeprefix(self._prefix)).inc()

    async def requeue(self, topic: Topic, event: EventT[bytes]) -> None:
        """Publish a message again at the end of ``topic``, so that it does not delay the others."""
        message = event.message
        own: Any = message.headers or ()
        again = _Message(topic, message.key, message.value or b"", [*own] or None)
        if not all(await self._publish([again])):
            raise TooLarge(f"Kafka: {topic} refuses a message that was read from it")

    async def _publish(self, messages: Sequence[_Message]) -> list[bool]:
        """Return for each message whether Kafka accepted it. One that it did not accept is too large."""
        with metrics.count_errors("kafka"):
            handed = [await self._hand_over(message) for message in messages]
            return [_is_taken(found) for found in await asyncio.gather(*handed, return_exceptions=True)]

    async def _hand_over(self, message: _Message) -> Awaitable[RecordMetadata]:
        """Send a message with the producer itself. Faust's topics would do more work for each message."""
        try:
            producer = await self._app.maybe_start_producer()
            confirmation: Awaitable[RecordMetadata] = await producer.send(
                self._prefix + message.topic, message.key, message.value, None, None, message.headers
            )
        except _FAILURES as error:
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed
        return confirmation


def _lean(event: Event) -> Event:
    slim = {name: value for name, value in event.data.items() if name not in ("manifest", "files")}
    return event.model_copy(update={"data": slim})


def _is_taken(found: RecordMetadata | BaseException) -> bool:
    """Return False for a message that is too large: for the producer, or for the topic at the broker."""
    if not isinstance(found, BaseException):
        return True
    reason = found.__cause__ if isinstance(found, ProducerSendError) else found
    if isinstance(reason, MessageSizeTooLargeError):
        return False
    if isinstance(found, _FAILURES):
        raise Outage(f"Kafka: {reason!r}") from found
    raise found
