"""A partition without a leader, because its only broker is away, stops no other partition."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError

from dev.app_process import AppProcess
from dev.kafka import KafkaService
from dev.kafka_install import properties
from dev.process import free_ports
from dev.stack import Stack
from stream_app.doctor.findings import Finding
from stream_app.doctor.topics import check_topics
from stream_app.kafka.brokers import Brokers
from stream_app.settings import Settings
from streaming_exporter.errors import Outage
from streaming_exporter.events import ExportRequest, Topic, request_event
from streaming_exporter.kafka_admin import AdminClient
from tests.chaos.system_client import SystemClient, has_ended
from tests.log_files import logged
from tests.stacks import settings_of
from tests.waiting import until, until_async

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


class SecondBroker(KafkaService):
    """A broker that joins the cluster of the stack's broker."""

    name = "kafka-2"

    def __init__(self, run_dir: Path, first: KafkaService) -> None:
        super().__init__(run_dir)
        self._first = first

    def prepare(self) -> None:
        super().prepare()
        described = self.data_dir / "log" / "meta.properties"
        lines = described.read_text().splitlines()
        own = [line for line in lines if not line.startswith(("node.id=", "directory.id="))]
        described.write_text("\n".join([*own, "node.id=2", ""]))

    def choose_ports(self) -> None:
        (self.port,) = free_ports(1)
        lines = properties(self.port, self._first._controller_port, self.data_dir / "log").splitlines()
        changed = dict(line.split("=", 1) for line in lines)
        changed |= {
            "process.roles": "broker",
            "node.id": "2",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in changed.items()))


class UnreadyWorker(AppProcess):
    """A worker whose start does not wait until it is ready."""

    def is_ready(self) -> bool:
        return True


@pytest.fixture
def second(stack: Stack) -> Iterator[SecondBroker]:
    """The second broker. It runs."""
    broker = SecondBroker(stack.run_dir, stack.kafka)
    broker.start()
    yield broker
    broker.stop()
    # New topics could be placed on it as long as the cluster lists it. They would have no leader.
    until(lambda: asyncio.run(listed(stack.kafka.address)) == [1], ignoring=(KafkaError, OSError))
    broker.discard()


async def listed(bootstrap_servers: str) -> list[int]:
    """Return the numbers of the brokers in the metadata of the cluster."""
    admin = AdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        return [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]
    finally:
        await admin.close()


async def create_topics(settings: Settings) -> None:
    """Create the topics. The second broker has the only replica of partition 1 of requests."""
    admin = AdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    for topic in Topic:
        placed = {0: [1], 1: [2]} if topic is Topic.REQUESTS else {0: [1]}
        await admin.create_topics([NewTopic(settings.topic(topic), -1, -1, replica_assignments=placed)])
    await admin.close()


async def publish(settings: Settings, partition: int) -> UUID:
    """Publish an invalid request to a partition of the topic; return the id of the job, which will fail."""
    event = request_event(ExportRequest(user_id="l", export_type="ledger", format="none"), source="/t")
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers) as producer:
        await producer.send_and_wait(settings.topic(Topic.REQUESTS), event.encode(), partition=partition)
    return event.job_id


async def findings(settings: Settings) -> dict[str, Finding]:
    """Return the findings of the doctor about topics, by their checks."""
    brokers = Brokers(settings, client_id="t")
    try:
        return {item.check: item async for item in check_topics(brokers, settings)}
    finally:
        await brokers.close()


async def test_the_other_partitions_are_read(stack: Stack, second: SecondBroker) -> None:
    """The worker starts without the leader, and names the partition. Later it reads that one, too."""
    own = {"EXPORTER_KAFKA_TOPIC_PREFIX": f"l{uuid4().hex}.", "EXPORTER_KAFKA_GROUP": uuid4().hex}
    with stack.configured(own):
        settings = settings_of(stack)
        await create_topics(settings)
        late = await publish(settings, 1)
        second.kill()
        place = (settings.topic(Topic.REQUESTS), 1)
        brokers = Brokers(settings, client_id="t")
        await until_async(lambda: brokers.leaderless([place]), ignoring=(Outage,))

        async def refused() -> bool:
            try:
                await brokers.beginning_offsets([place])
            except Outage as error:  # it can also be a slow answer
                return "has no leader" in str(error)
            raise AssertionError("a partition without a leader has a first offset")

        await until_async(refused)
        await brokers.close()
        worker = UnreadyWorker("worker-l", ["stream_app"], stack.environment(), stack.run_dir)
        try:
            worker.start()
            async with SystemClient(stack) as client:
                early = await publish(settings, 0)
                await client.until([early], has_ended, within=60)
                sentence = f"{place[0]}[1] has no leader"
                await until_async(lambda: sentence in worker.log.read_text(), otherwise=worker.child.tail)

                async def found() -> Finding | None:
                    return (await findings(settings)).get("leaders")

                assert (await until_async(found)).values["places"] == f"{place[0]}[1]"
                assert not AppProcess.is_ready(worker)
                await asyncio.to_thread(second.restart)
                await client.until([late], has_ended, within=60)
                until(lambda: AppProcess.is_ready(worker), otherwise=worker.child.tail)
                assert "leaders" not in await findings(settings)
        finally:
            worker.kill()
        assert "seek.abandoned" not in {line["event"] for line in logged(worker.log)}
