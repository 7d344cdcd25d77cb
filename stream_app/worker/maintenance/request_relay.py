"""The relay of the outbox: publishes the requests of jobs that are on record but not admitted.

The row of a request is committed first. Its event is published at once, while the answer is sent. An event
that fails or is lost is published again, from the row, until the job is admitted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import structlog

from stream_app.jobs.admission import Admission
from stream_app.periodic import repeat
from streaming_exporter.errors import ExporterError
from streaming_exporter.events import Event

log = structlog.get_logger(__name__)

POLL_SECONDS = 2.0
BATCH = 100
"""Limit of requests that one step publishes, so that few requests are published repeatedly."""

CATCH_UP_SECONDS = 180.0
"""After a publication that failed, steps publish all that is due for this time: each request is due in it."""

MAX_WAITING = 1_000
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""How many events, and bytes of them, can wait for Kafka in memory. Others are published from their rows."""

SETTLE_SECONDS = 3.0
"""Seconds that waiting events have when the process ends."""

Publish = Callable[[Sequence[Event]], Awaitable[None]]


class RequestRelay:
    """Publishes the requests of committed jobs. Any number of relays can work at the same time."""

    def __init__(self, admission: Admission, publish: Publish) -> None:
        """Create the relay.

        ``publish`` returns once all events are confirmed; otherwise it raises ``ExporterError``.
        """
        self._admission = admission
        self._publish = publish
        self._publishing: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0
        self._catches_up_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.settle()

    def soon(self, event: Event) -> None:
        """Publish ``event`` in a task of its own. If that fails, it is published again from its row."""
        size = len(event.encode())
        if len(self._publishing) >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            return

        def discard(task: asyncio.Task[None]) -> None:
            self._publishing.discard(task)
            self._waiting_bytes -= size

        self._waiting_bytes += size
        task = asyncio.create_task(self._publish_one(event), name=f"publish {event.id}")
        self._publishing.add(task)
        task.add_done_callback(discard)

    async def settle(self) -> None:
        """Wait a few seconds for the waiting events. The rest is published later from the rows."""
        if self._publishing:
            _, late = await asyncio.wait(self._publishing, timeout=SETTLE_SECONDS)
            for task in late:
                task.cancel()

    async def run(self) -> None:
        """Publish the requests that are due, every :data:`POLL_SECONDS`."""
        await repeat("outbox_relay", self.step, POLL_SECONDS)

    async def step(self) -> int:
        """Publish requests that were not admitted in time; return how many.

        That is one batch. It is all of them if a publication failed lately, as after an outage of Kafka.
        Otherwise the requests are probably on Kafka and wait for a worker, and more copies would delay them.

        Raises:
            Retryable: the database or Kafka is away; the requests are published again later.
        """
        published = 0
        while events := await self._admission.take_unadmitted(BATCH):
            await self._send(events)
            log.info("request.republished", jobs=len(events))
            published += len(events)
            if time.monotonic() > self._catches_up_until:
                break
        return published

    async def _send(self, events: Sequence[Event]) -> None:
        try:
            await self._publish(events)
        except ExporterError:
            self._catches_up_until = time.monotonic() + CATCH_UP_SECONDS
            raise

    async def _publish_one(self, event: Event) -> None:
        try:
            await self._send([event])
        except ExporterError as error:
            log.warning("request.publish_failed", job_id=str(event.job_id), type=event.type, error=str(error))
        except Exception:
            log.exception("request.publish_failed", job_id=str(event.job_id), type=event.type)
