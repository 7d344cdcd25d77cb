"""Faust's app and Kafka transport with this service's consumer and producer."""

from collections import Counter
from typing import Any

from faust.transport.drivers.aiokafka import Producer, Transport

from stream_app.kafka.brokers import Partition
from stream_app.kafka.buffers import MessageBuffer
from stream_app.kafka.consumer import MAX_BUFFERED_BYTES, LosslessConsumer
from stream_app.kafka.stopping import DrainedApp
from stream_app.kafka.topic_outages import TopicOutages
from stream_app.kafka.unneeded_messages import IsUnneeded
from streaming_exporter.kafka_connection import bootstrap_on_failure


class ReconnectingProducer(Producer):
    """A producer that finds the brokers again after their addresses have changed."""

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        producer = super()._new_producer(transactional_id)
        bootstrap_on_failure(producer.client)
        return producer


class LosslessTransport(Transport):
    """Faust's Kafka transport with :class:`LosslessConsumer` and :class:`ReconnectingProducer`."""

    Consumer = LosslessConsumer
    Producer = ReconnectingProducer


class App(DrainedApp):
    """A Faust app that consumes through :class:`LosslessTransport`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outages = TopicOutages()
        self.unneeded: dict[str, IsUnneeded] = {}
        """By topic, the function that finds messages without need of handling. They are not delivered."""
        self.message_buffers: dict[str, MessageBuffer] = {}
        """The messages of each topic that its agent has received and not handled yet."""
        self._steps: Counter[Partition] = Counter()
        self._steps_for_all: Counter[str] = Counter()

    def note_progress(self, topic: str) -> None:
        """Note a completed step of the work for messages of ``topic``, such as a committed batch.

        It is progress for the partitions whose messages are being handled or wait in the buffer. It is no
        progress for other partitions, unless they cannot be read because the buffer is full. It ends the
        outage of the topic.
        """
        self.outages.end(topic)
        message_buffer = self.message_buffers.get(topic)
        if message_buffer is None or message_buffer.is_full or self._holds_enough_of(topic):
            self._steps_for_all[topic] += 1
        else:
            self._steps.update(message_buffer.partitions)

    def steps(self, partition: Partition) -> int:
        """Return how many steps were progress for a partition. One message can need many steps."""
        return self._steps[partition] + self._steps_for_all[partition[0]]

    def _holds_enough_of(self, topic: str) -> bool:
        consumer = self._consumer
        return (
            isinstance(consumer, LosslessConsumer) and consumer.buffered.bytes_of(topic) >= MAX_BUFFERED_BYTES
        )

    def _new_transport(self) -> LosslessTransport:
        return LosslessTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> LosslessTransport:
        return LosslessTransport(self.conf.broker_producer, self)

    async def _wait_for_table_recovery_completed(self) -> bool:
        """Do not wait: there are no Faust tables, and claims do not need the consumer group."""
        return False
