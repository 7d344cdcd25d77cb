"""Publishing from inside the worker: every publication is confirmed before it counts."""

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
from streaming_exporter.events import Event, Topic

TRUNCATED_SIZES = (500_000, 50_000, 0)
"""Bytes: the first that Kafka takes."""

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
    """Sends events through the worker's own producer and waits until Kafka has them."""

    def __init__(self, app: faust.App, prefix: str = "") -> None:
        """``prefix`` is what the cluster's names of topics begin with."""
        self._app = app
        self._prefix = prefix

    async def __call__(self, event: Event) -> None:
        """Publish ``event``.

        One that is too large for Kafka goes without its manifest, which the job's record keeps.

        Raises:
            Outage: Kafka did not confirm it; it may or may not have arrived.
            TooLarge: Kafka does not take it even so.
        """
        await self.publish_all([event])

    async def publish_all(self, events: Sequence[Event]) -> None:
        """Publish many at once; all are confirmed when this returns."""
        taken = await self._publish([_Message.of(event) for event in events])
        refused = [event for event, is_taken in zip(events, taken, strict=True) if not is_taken]
        if not all(await self._publish([_Message.of(_lean(event)) for event in refused])):
            raise TooLarge(f"Kafka: an event of {refused[0].job_id} is too large even without its manifest")

    async def dead_letter(self, event: EventT[bytes], reason: Unreadable) -> None:
        """Put a message aside as received, and in further headers, behind its own, where it was and why.

        Of one that came compressed and is too large as it is, the beginning is kept.
        """
        message = event.message
        content = message.value or b""
        own: Any = message.headers or ()
        ours = [
            ("error", str(reason)[:1_000].encode()),
            ("topic", message.topic.encode()),
            ("partition", str(message.partition).encode()),
            ("offset", str(message.offset).encode()),
        ]
        letter = _Message(Topic.DEAD_LETTERS, message.key, content, [*own, *ours])
        cut = [*ours, ("cut_from_bytes", str(len(content)).encode())]
        shorter = [replace(letter, key=None, value=content[:size], headers=cut) for size in TRUNCATED_SIZES]
        for tried in (letter, *shorter):
            if all(await self._publish([tried])):
                break
        else:
            raise Outage(f"Kafka: {Topic.DEAD_LETTERS} takes no messages of a few hundred bytes")
        metrics.DEAD_LETTERS.labels(message.topic.removeprefix(self._prefix)).inc()

    async def requeue(self, topic: Topic, event: EventT[bytes]) -> None:
        """Put a message at the end of ``topic`` as it was received, where it holds up no other."""
        message = event.message
        own: Any = message.headers or ()
        again = _Message(topic, message.key, message.value or b"", [*own] or None)
        if not all(await self._publish([again])):
            raise TooLarge(f"Kafka: {topic} does not take a message back that it had")

    async def _publish(self, messages: Sequence[_Message]) -> list[bool]:
        """Whether Kafka took each; one that it did not is too large."""
        with metrics.count_errors("kafka"):
            handed = [await self._hand_over(message) for message in messages]
            return [_is_taken(found) for found in await asyncio.gather(*handed, return_exceptions=True)]

    async def _hand_over(self, message: _Message) -> Awaitable[RecordMetadata]:
        """To the producer itself: Faust's topics do for each message what is of no use here."""
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
    slim = {name: value for name, value in event.data.items() if name != "manifest"}
    return event.model_copy(update={"data": slim})


def _is_taken(found: RecordMetadata | BaseException) -> bool:
    """The producer refuses what is too large for itself, the broker later what is too large for a topic."""
    if not isinstance(found, BaseException):
        return True
    reason = found.__cause__ if isinstance(found, ProducerSendError) else found
    if isinstance(reason, MessageSizeTooLargeError):
        return False
    if isinstance(found, _FAILURES):
        raise Outage(f"Kafka: {reason!r}") from found
    raise found
