"""Publishes the events of several jobs together while jobs wait for a slot."""

import asyncio
from collections.abc import Callable

from stream_app.worker.maintenance.job_rescuer import Emit
from streaming_exporter.events import Event

GATHER_SECONDS = 0.02
"""How long an event waits for others while jobs wait. A small export takes longer then."""


class GatheredEvents:
    """Publishes events one by one, or, while there is a backlog, those of a short time in one request.

    With a backlog, one worker publishes an event every few milliseconds. Each produce request costs Kafka,
    the worker and every consumer about as much as a request with all of these events. An event that waits
    is not confirmed, so what must follow its confirmation waits too.
    """

    def __init__(self, emit: Emit, seconds: Callable[[], float]) -> None:
        """Publish with ``emit``. ``seconds`` returns how long an event waits for others now."""
        self._emit = emit
        self._seconds = seconds
        self._gate: asyncio.Event | None = None

    async def __call__(self, event: Event) -> None:
        """Publish ``event``, and return once Kafka has confirmed it.

        Raises:
            Retryable: see ``emit``.
        """
        if self._gate is not None:
            await self._gate.wait()
        elif (seconds := self._seconds()) > 0:
            self._gate = gate = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, self._open, gate)
            await gate.wait()
        await self._emit(event)

    def _open(self, gate: asyncio.Event) -> None:
        """Let all events go at once. Their messages are in the producer before it sends the next request."""
        self._gate = None
        gate.set()
