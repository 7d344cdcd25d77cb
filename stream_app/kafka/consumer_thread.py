"""The thread in which Faust's consumer calls Kafka."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import uvloop
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Transport
from faust.types import TP

from stream_app.kafka.unneeded_messages import IsUnneeded, are_unneeded
from streaming_exporter.kafka_connection import bootstrap_on_failure

FETCH_BYTES = 8 * 2**20
"""Limit of one answer of a broker, in bytes. Its first batch can be larger."""

UNNEEDED_SECONDS = 0.1
"""How long messages that need no handling wait for the next ones."""


class ConsumerThread(AIOKafkaConsumerThread):
    """The consumer's thread. Its client finds the brokers again after their addresses have changed.

    The thread runs on uvloop, as the rest of the worker does.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, thread_loop=uvloop.new_event_loop(), **options)
        self._close_thread_loop_on_stop = True  # mode closes only a loop that it has made itself

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:
        """Return the next messages. Faust's queue of calls would wake two tasks for each of them.

        If none of them needs handling, they are returned together with the next ones, or after
        :data:`UNNEEDED_SECONDS`. So they do not wake the event loop of the worker, one after the other.
        """
        unneeded: Mapping[str, IsUnneeded] = getattr(self.app, "unneeded", {})
        fetch = self._fetch_until_needed(active_partitions, timeout, unneeded)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fetch, self.thread_loop))

    async def _fetch_until_needed(
        self, partitions: Any, timeout: float, unneeded: Mapping[str, IsUnneeded]
    ) -> Mapping[TP, Sequence[Any]]:
        """Return the next messages, in the order in which Kafka has returned them.

        An error of a later fetch, and a cancellation, lose only messages that need no handling.
        """
        consumer = self._ensure_consumer()
        most = consumer._max_poll_records
        until = time.monotonic() + timeout
        found: dict[TP, list[Any]] = {}
        while True:
            rest = max(0.0, until - time.monotonic())
            records = await self._fetch_records(consumer, partitions, timeout=rest, max_records=most)
            if not found:
                until = min(until, time.monotonic() + UNNEEDED_SECONDS)
            for tp, some in records.items():
                found.setdefault(tp, []).extend(some)
                most -= len(some)
            if not records or most <= 0 or not are_unneeded(records, unneeded):
                return found

    def _create_worker_consumer(self, transport: Transport) -> Any:
        client = super()._create_worker_consumer(transport)
        client._fetch_max_bytes = FETCH_BYTES  # Faust has no setting for it
        bootstrap_on_failure(client._client)
        return client
