"""Clients find brokers again after their addresses have changed, without a restart."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.kafka import KafkaService
from dev.process import free_ports
from dev.stack import Stack
from stream_app.kafka.brokers import Brokers
from streaming_exporter.errors import Outage, PublishError
from streaming_exporter.publisher import Publisher
from tests.e2e.deployment import Deployment, request
from tests.waiting import patient, until_async

pytestmark = pytest.mark.slow


class Relay:
    """Forwards a TCP address to the port ``target``, as a load balancer does."""

    def __init__(self, target: int) -> None:
        self.target = target
        (self.port,) = free_ports(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        starting = asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._copy(reader, outer), self._copy(inner, writer))

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while content := await reader.read(65_536):
                writer.write(content)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(patient(5))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(patient(5))
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        relaying = asyncio.all_tasks() - {asyncio.current_task()}
        for task in relaying:
            task.cancel()
        await asyncio.gather(*relaying, return_exceptions=True)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaService]:
    folder: Path = tmp_path_factory.mktemp("moving")
    service = KafkaService(folder)
    service.start()
    yield service
    service.kill()
    service.discard()


@pytest.fixture(scope="module")
def relay(broker: KafkaService) -> Iterator[Relay]:
    opened = Relay(broker.port)
    yield opened
    opened.close()


async def test_all_clients_find_brokers_whose_addresses_changed(
    stack: Stack, broker: KafkaService, relay: Relay
) -> None:
    """R16: the producers of API, ticker and worker, the worker's consumer, and the doctor's queries."""
    own = await asyncio.to_thread(
        lambda: Deployment(stack, EXPORTER_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{relay.port}")
    )
    worker = await asyncio.to_thread(stack.start_worker, settings=own.variables)
    pid = worker.pid
    brokers = Brokers(own.settings, client_id="t")
    async with Publisher(own.settings, timeout=patient(3)) as publisher:

        async def publish() -> bool:
            try:
                await publisher.publish(event)
            except PublishError:
                return False
            return True

        event = request()
        await until_async(publish)
        await own.has({event.job_id})

        broker.stop()
        before = broker.port
        broker.choose_ports()
        await asyncio.to_thread(broker.restart)
        assert broker.port != before
        relay.target = broker.port

        event = request()
        await until_async(publish)
        await own.has({event.job_id})

        async def stable() -> bool:
            return (await brokers.group()).is_stable

        await until_async(stable, ignoring=(Outage,))
    assert worker.running
    assert worker.pid == pid
    await brokers.close()
    await asyncio.to_thread(worker.kill)
    await asyncio.to_thread(own.close)
