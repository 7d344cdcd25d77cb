"""The thread in which Faust's consumer calls Kafka."""

import asyncio
from collections.abc import Coroutine, Mapping, Set
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Transport
from faust.types import TP
from mode.threads import WorkerThread

from stream_app.kafka.brokers import NO_LEADER
from stream_app.kafka.group_errors import raise_group_errors
from streaming_exporter.kafka_connection import bootstrap_on_failure

FETCH_BYTES = 8 * 2**20
"""Limit of one answer of a broker, in bytes. Its first batch can be larger."""


class _DaemonThread(WorkerThread):
    """A thread that the process does not wait for: its client can take long to leave the group."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.daemon = True


class ConsumerThread(AIOKafkaConsumerThread):
    """The consumer's thread. Its client finds the brokers again after their addresses have changed.

    The thread runs on uvloop, as the rest of the worker does.
    """

    Worker = _DaemonThread

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, thread_loop=uvloop.new_event_loop(), **options)
        self._close_thread_loop_on_stop = True  # mode closes only a loop that it has made itself

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:
        """Return the next messages. Faust's queue of calls would wake two tasks for each of them."""
        consumer = self._ensure_consumer()
        return await self._run(
            self._fetch_records(
                consumer, active_partitions, timeout=timeout, max_records=consumer._max_poll_records
            )
        )

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the committed offsets, and return them; nothing if there are no partitions."""
        found: Mapping[TP, int] = await self._run(_seek_to_committed(self._ensure_consumer()))
        return found

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the first offset of each partition."""
        found: Mapping[TP, int] = await self._run(self._ensure_consumer().beginning_offsets(partitions))
        return found

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the next offset of each partition."""
        found: Mapping[TP, int] = await self._run(self._highwaters(list(partitions)))
        return found

    async def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Run ``call`` in the thread. Unlike in Faust's queue of calls, it is cancelled with its caller."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self.thread_loop))

    def leaderless(self, partitions: Set[TP]) -> set[TP]:
        """Return those of ``partitions`` that have no leader, as far as the client knows."""
        cluster = self._ensure_consumer()._client.cluster
        return {tp for tp in partitions if cluster.leader_for_partition(tp) == NO_LEADER}

    def _create_worker_consumer(self, transport: Transport) -> Any:
        client = super()._create_worker_consumer(transport)
        client._fetch_max_bytes = FETCH_BYTES  # Faust has no setting for it
        bootstrap_on_failure(client._client)
        raise_group_errors(client._client)
        return client


async def _seek_to_committed(client: AIOKafkaConsumer) -> Mapping[TP, int]:
    """Seek in the thread of the client, which fails without partitions. A rebalance can take all of them."""
    found: Mapping[TP, int] = await client.seek_to_committed() if client.assignment() else {}
    return found
