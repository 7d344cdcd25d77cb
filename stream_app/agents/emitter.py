"""Publishing from inside the worker: every publication is confirmed before it counts."""

import asyncio
from collections.abc import Iterable

import faust
from aiokafka.errors import KafkaError
from faust.types import EventT, TopicT

from stream_app.errors import Retryable, Unreadable
from stream_app.events import Event, Topic


class Emitter:
    """Sends events through the worker's own producer and waits until Kafka has them."""

    def __init__(self, app: faust.App) -> None:
        self._topics: dict[Topic, TopicT] = {
            topic: app.topic(topic, key_serializer="raw", value_serializer="raw") for topic in Topic
        }

    async def __call__(self, event: Event) -> None:
        """Publish ``event``.

        Raises:
            Retryable: Kafka did not confirm it; it may or may not have arrived.
        """
        await self._send(event.topic, key=event.key, value=event.encode())

    async def all(self, events: Iterable[Event]) -> None:
        """Publish many at once; all are confirmed when this returns."""
        await asyncio.gather(*map(self, events))

    async def dead_letter(self, event: EventT[bytes], reason: Unreadable) -> None:
        """Put a message aside: its bytes as received, and in the headers where it was and why."""
        message = event.message
        await self._send(
            Topic.DEAD_LETTERS,
            key=message.key,
            value=message.value,
            headers={
                "error": str(reason).encode(),
                "topic": message.topic.encode(),
                "partition": str(message.partition).encode(),
                "offset": str(message.offset).encode(),
            },
        )

    async def _send(
        self, topic: Topic, *, key: bytes | None, value: bytes | None, headers: dict[str, bytes] | None = None
    ) -> None:
        try:
            sent = await self._topics[topic].send(key=key, value=value, headers=headers)
            await sent
        except (TimeoutError, KafkaError, OSError) as error:
            raise Retryable(f"Kafka: {error!r}") from error
