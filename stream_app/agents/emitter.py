"""Publishing from inside the worker: every publication is confirmed before it counts."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager

import faust
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faust.exceptions import ProducerSendError
from faust.types import EventT
from faust.types.tuples import RecordMetadata

from stream_app import metrics
from stream_app.errors import Outage, TooLarge, Unreadable
from stream_app.events import Event, Topic

KEPT_OF_TOO_LARGE = 500_000
"""Bytes."""

Confirmation = Awaitable[RecordMetadata]
"""Done once Kafka has the message."""


class Emitter:
    """Sends events through the worker's own producer and waits until Kafka has them."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    async def __call__(self, event: Event) -> None:
        """Publish ``event``.

        One that is too large for Kafka goes without its manifest, which the job's record keeps.

        Raises:
            Outage: Kafka did not confirm it; it may or may not have arrived.
        """
        await self.all([event])

    async def all(self, events: Sequence[Event]) -> None:
        """Publish many at once; all are confirmed when this returns."""
        await _confirmed([await self._hand_over(event) for event in events])

    async def _hand_over(self, event: Event) -> Confirmation:
        try:
            return await self._send(event.topic, key=event.key, value=event.encode())
        except TooLarge:
            slim = {name: value for name, value in event.data.items() if name != "manifest"}
            lean = event.model_copy(update={"data": slim})
            return await self._send(event.topic, key=event.key, value=lean.encode())

    async def dead_letter(self, event: EventT[bytes], reason: Unreadable) -> None:
        """Put a message aside: its bytes as received, and in the headers where it was and why.

        Of one that came compressed and is too large as it is, the beginning is kept.
        """
        message = event.message
        headers = {
            "error": str(reason)[:1_000].encode(),
            "topic": message.topic.encode(),
            "partition": str(message.partition).encode(),
            "offset": str(message.offset).encode(),
        }
        try:
            sent = await self._send(Topic.DEAD_LETTERS, key=message.key, value=message.value, headers=headers)
        except TooLarge:
            content = message.value or b""
            headers["cut_from_bytes"] = str(len(content)).encode()
            sent = await self._send(
                Topic.DEAD_LETTERS, key=None, value=content[:KEPT_OF_TOO_LARGE], headers=headers
            )
        await _confirmed([sent])
        metrics.DEAD_LETTERS.labels(message.topic).inc()

    async def _send(
        self, topic: Topic, *, key: bytes | None, value: bytes | None, headers: dict[str, bytes] | None = None
    ) -> Confirmation:
        """To the producer itself: Faust's topics do for each message what is of no use here."""
        with _outages():
            producer = await self._app.maybe_start_producer()
            sent: Confirmation = await producer.send(topic, key, value, None, None, headers)
            return sent


async def _confirmed(sent: Sequence[Confirmation]) -> None:
    with _outages():
        for found in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(found, BaseException):
                raise found


@contextmanager
def _outages() -> Iterator[None]:
    with metrics.errors_of("kafka"):
        try:
            yield
        except ProducerSendError as error:
            if isinstance(error.__cause__, MessageSizeTooLargeError):
                raise TooLarge(f"Kafka: {error.__cause__}") from error
            raise Outage(f"Kafka: {error}") from error
        except (TimeoutError, KafkaError, OSError) as error:
            raise Outage(f"Kafka: {error!r}") from error
