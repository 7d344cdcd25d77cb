"""Faust's Kafka transport, with two holes closed through which a rebalance loses messages.

After a rebalance Faust seeks to the committed offsets and reads on from there. But a fetch that was under way
meanwhile may be delivered afterwards: its offsets lie ahead, Faust takes the gap for one that the broker has
and commits past messages that it dropped from its buffers. And a partition without a committed offset is not
sought at all, so what was fetched from it and dropped is never read again.
"""

from collections.abc import Mapping
from typing import Any

import faust
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP


class LosslessConsumer(Consumer):
    """Delivers nothing that was fetched before the last seek, and seeks in every partition."""

    _seeks = 0

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, and to the beginning where nothing was committed yet."""
        await super().perform_seek()
        unread = [tp for tp in self.assignment() if self._committed_offset.get(tp) is None]
        if unread:
            for tp, offset in (await self.earliest_offsets(*unread)).items():
                await self.seek(TP(tp.topic, tp.partition), offset)
        self._seeks += 1

    async def _wait_next_records(self, timeout: float) -> tuple[Mapping[TP, Any] | None, set[TP] | None]:
        seeks = self._seeks
        records, active = await super()._wait_next_records(timeout)
        if records and seeks != self._seeks:
            await self.perform_seek()
            return None, active
        return records, active


class LosslessTransport(Transport):
    """The Kafka transport with that consumer."""

    Consumer = LosslessConsumer


class App(faust.App):
    """A Faust app that consumes through :class:`LosslessTransport`."""

    held_up_at: float | None = None
    """When handling a batch last failed for a while, by :func:`time.monotonic`."""

    held_up_by: str = ""
    """And why."""

    def _new_transport(self) -> LosslessTransport:
        return LosslessTransport(self.conf.broker_consumer, self)

    async def _wait_for_table_recovery_completed(self) -> bool:
        """Start the services now: there are no tables, and claims need not wait for the group."""
        return False
