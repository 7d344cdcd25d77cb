"""Publishes the events of an outbox to Kafka; needs the extra ``kafka``."""

import asyncio
import logging
import os
import random
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from streaming_exporter.errors import PublishError, Retryable
from streaming_exporter.events import Topic
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.outbox.entries import Entry
from streaming_exporter.outbox.lease import Lease
from streaming_exporter.outbox.stop_signals import set_on_signals
from streaming_exporter.outbox.store import OutboxStore
from streaming_exporter.publisher import Publisher

log = logging.getLogger(__name__)

BATCH_ENTRIES = 500
"""Entries that are read and published at a time."""

BATCH_BYTES = 4 * 2**20
"""Bytes of the entries that are read at a time."""

LEASE_SECONDS = 15.0
"""How long another relay waits after one that was killed."""

POLL_SECONDS = 0.5
"""How often an empty outbox is read."""

AGE_STEP_SECONDS = 1.0
"""How exact the age of an entry is: some databases keep whole seconds."""

MAX_PAUSE_SECONDS = 60.0
"""The longest pause after failures in a row."""


@dataclass
class _Batch:
    """What has become of the entries of one batch."""

    published: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    failure: PublishError | None = None


class Relay:
    """Publishes the entries of one outbox, oldest first, and deletes those that Kafka has acknowledged.

    Entries of the same job are published one after the other, so a cancellation never overtakes its request.
    No transaction is open while Kafka is called. A relay that is killed after an acknowledgement, before the
    entry is deleted, leaves the entry to the next one: the event is published twice and requests one job.
    Several relays can run; one of them publishes, the others wait for its lease.
    """

    def __init__(
        self,
        store: OutboxStore,
        settings: KafkaSettings,
        *,
        publisher: Publisher | None = None,
        lease_seconds: float = LEASE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        batch_entries: int = BATCH_ENTRIES,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        """Prepare the relay; nothing connects before :meth:`run`.

        Args:
            store: the outbox.
            settings: the connection to Kafka, and the prefix of its topics.
            publisher: publishes the events. Default: a new one, which the relay closes at its end.
            lease_seconds: how long another relay waits after one that was killed. A batch takes at most half
                of it; the rest is published with the next one.
            poll_seconds: how often an empty outbox is read.
            batch_entries: entries that are read and published at a time.
            batch_bytes: bytes of the entries that are read at a time. A larger entry is read alone.
        """
        self._store = store
        self._topic = settings.topic(Topic.REQUESTS)
        self._owns_publisher = publisher is None
        self._publisher = publisher or Publisher(settings, client_id="exporter-outbox")
        owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"[:200]
        self._lease = Lease(store, owner, lease_seconds)
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._batch_entries = batch_entries
        self._batch_bytes = batch_bytes

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until ``stop`` is set, through outages of the database and of Kafka."""
        failures = 0
        try:
            while not stop.is_set():
                try:
                    count = await self._step()
                    pause = self._poll_seconds if not count else 0.0
                    failures = 0
                except Retryable as error:
                    failures += 1
                    pause = _pause(failures)
                    log.warning("outbox.publish_failed: %s; the next try is in %.1f s", error, pause)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
        finally:
            await self._close()

    async def drain(self, stop: asyncio.Event | None = None) -> int:
        """Publish everything that waits now, then return how many events that were.

        If another relay holds the lease, it waits until that one has published everything, or until the
        lease of a dead one has ended. By then a relay that works has published what waited at the beginning,
        and newer entries do not count.

        Args:
            stop: ends the work after the batch that is being published. Default: nothing ends it.

        Raises:
            Retryable: the database or Kafka does not answer, or another relay keeps the lease while entries
                wait, or ``stop`` was set before the end. What was published by then is deleted.
        """
        stop = stop or asyncio.Event()
        total = 0
        try:
            while await self._has_lease_for_waiting(stop):
                count = await self._publish_next()
                if not count:
                    break
                total += count
        finally:
            await self._close()
        return total

    async def _has_lease_for_waiting(self, stop: asyncio.Event) -> bool:
        """Wait for the lease; return False if nothing that waited at the beginning still waits.

        Raises:
            Retryable: another relay still holds it after the time in which the lease of a dead one ends, or
                ``stop`` is set.
        """
        longest = self._lease_seconds + self._poll_seconds
        started: float | None = None
        while not stop.is_set():
            if await self._lease.hold():
                return True
            started = time.monotonic() if started is None else started
            waited = time.monotonic() - started
            backlog = await self._store.backlog()
            if not backlog.waiting:
                return False
            if waited > longest:
                if backlog.oldest_seconds + AGE_STEP_SECONDS < waited:
                    return False
                raise Retryable(
                    f"another relay holds the lease of the outbox, and {backlog.waiting:,} entries still "
                    "wait; that relay publishes them, unless its log has errors"
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._poll_seconds)
        if not (await self._store.backlog()).waiting:
            return False
        raise Retryable("the relay was stopped before the outbox was empty; the next run publishes the rest")

    async def _step(self) -> int:
        """Publish one batch; return how many entries no longer wait. 0: there is none, or no lease."""
        return await self._publish_next() if await self._lease.hold() else 0

    async def _publish_next(self) -> int:
        """Publish one batch, with the lease; return how many entries no longer wait."""
        entries = await self._store.read(self._batch_entries, self._batch_bytes)
        if not entries:
            return 0
        batch = await self._publish(entries)
        if batch.published:
            await self._store.delete(batch.published)
        for entry_id, reason in batch.refused.items():
            log.error("outbox.entry_refused: entry %s: %s", entry_id, reason)
            await self._store.refuse(entry_id, reason)
        if batch.failure is not None:
            raise batch.failure
        return len(batch.published) + len(batch.refused)

    async def _publish(self, entries: Sequence[Entry]) -> _Batch:
        """Publish the entries, those of the same job one after the other, within half of the lease."""
        by_job: dict[UUID, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_job[entry.job_id].append(entry)
        batch = _Batch()
        running = [asyncio.create_task(self._publish_job(job, batch)) for job in by_job.values()]
        late: set[asyncio.Task[None]] = set()
        try:
            _, late = await asyncio.wait(running, timeout=self._lease_seconds / 2)
        finally:
            for task in running:
                task.cancel()  # no effect on those that are done
        results = await asyncio.gather(*running, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        if late and batch.failure is None:
            batch.failure = PublishError(
                f"Kafka did not confirm the events of {len(late):,} jobs in time; they are published again",
                is_in_doubt=True,
            )
        return batch

    async def _publish_job(self, entries: Sequence[Entry], batch: _Batch) -> None:
        """Publish the entries of one job in their order; stop at the first that fails."""
        for entry in entries:
            try:
                await self._publisher.publish_raw(self._topic, str(entry.job_id).encode(), entry.payload)
            except PublishError as error:
                if not _is_too_large(error):
                    batch.failure = error
                    return
                batch.refused[entry.id] = str(error)
            else:
                batch.published.append(entry.id)

    async def _close(self) -> None:
        with suppress(Retryable):
            await self._lease.release()
        if self._owns_publisher:
            await self._publisher.close()


async def run_until_signal(relay: Relay, *, once: bool = False) -> None:
    """Run the relay until SIGTERM or SIGINT; with ``once`` until nothing waits.

    Raises:
        Retryable: with ``once``, if entries still wait: the database or Kafka does not answer, another relay
            keeps the lease, or a signal came.
    """
    stop = asyncio.Event()
    with set_on_signals(stop):
        if once:
            log.info("outbox.drained: %d events published", await relay.drain(stop))
            return
        log.info("outbox.relay_started")
        await relay.run(stop)
        log.info("outbox.relay_stopped")


def _is_too_large(error: PublishError) -> bool:
    """Return whether Kafka refuses the message itself, so that no retry can succeed."""
    from aiokafka.errors import MessageSizeTooLargeError

    return isinstance(error.__cause__, MessageSizeTooLargeError)


def _pause(failures: int) -> float:
    """Return the seconds before the next try: 0.5, 1, 2 … up to a minute, and a fifth of it at random."""
    seconds: float = min(MAX_PAUSE_SECONDS, 0.5 * 2 ** min(failures - 1, 10))
    return seconds * random.uniform(0.8, 1)  # noqa: S311
