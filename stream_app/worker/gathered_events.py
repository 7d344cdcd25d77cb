"""Publishes the events of several jobs together while jobs wait for a slot."""

import asyncio
from collections.abc import Callable

from stream_app.kafka.publish_event import PublishEvent
from streaming_exporter.events import Event

GATHER_SECONDS = 0.02
"""How long an event waits for others while jobs wait. A small export takes longer then."""


class GatheredEvents:
    """Publishes events one by one, or, while there is a backlog, those of a short time in one request.

    With a backlog, one worker publishes an event every few milliseconds. Each produce request costs Kafka,
    the worker and every consumer about as much as a request with all of these events. An event that waits
    is not confirmed, so what must follow its confirmation waits too.
    """

    def __init__(self, publish_event: PublishEvent, seconds: Callable[[], float]) -> None:
        """Publish with ``publish_event``. ``seconds`` returns how long an event waits for others now."""
        self._publish_event = publish_event
        self._seconds = seconds
        self._release: asyncio.Event | None = None

    async def __call__(self, event: Event) -> None:
        """Publish ``event``, and return once Kafka has confirmed it.

        Raises:
            Retryable: see ``publish_event``.
        """
        if self._release is not None:
            await self._release.wait()
        elif (seconds := self._seconds()) > 0:
            self._release = release = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, self._publish_all, release)
            await release.wait()
        await self._publish_event(event)

    def _publish_all(self, release: asyncio.Event) -> None:
        """Publish all waiting events at once: the producer has all before it sends its next request."""
        self._release = None
        release.set()
