"""The thread in which Faust's consumer calls Kafka."""

import asyncio
from typing import Any

import uvloop
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Transport

from streaming_exporter.kafka_connection import bootstrap_on_failure

FETCH_BYTES = 8 * 2**20
"""Limit of one answer of a broker, in bytes. Its first batch can be larger."""


class ConsumerThread(AIOKafkaConsumerThread):
    """The consumer's thread. Its client finds the brokers again after their addresses have changed.

    The thread runs on uvloop, as the rest of the worker does.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, thread_loop=uvloop.new_event_loop(), **options)
        self._close_thread_loop_on_stop = True  # mode closes only a loop that it has made itself

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:
        """Return the next messages. Faust's queue of calls would wake two tasks for each of them."""
        consumer = self._ensure_consumer()
        fetch = self._fetch_records(
            consumer, active_partitions, timeout=timeout, max_records=consumer._max_poll_records
        )
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fetch, self.thread_loop))

    def _create_worker_consumer(self, transport: Transport) -> Any:
        client = super()._create_worker_consumer(transport)
        client._fetch_max_bytes = FETCH_BYTES  # Faust has no setting for it
        bootstrap_on_failure(client._client)
        return client
