"""Apache Kafka, one node without ZooKeeper (KRaft)."""

import asyncio
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from dev.kafka_install import KafkaInstall, kafka_install, properties
from dev.process import Child, free_ports, is_open
from dev.service import Service


class KafkaService(Service):
    """A broker on the loopback interface. It creates no topics by itself."""

    name = "kafka"

    def prepare(self) -> None:
        self._install: KafkaInstall = kafka_install(self.report)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self._install.formatted, self.data_dir / "log")

    def choose_ports(self) -> None:
        self.port, self._controller_port = free_ports(2)
        self._config.write_text(properties(self.port, self._controller_port, self.data_dir / "log"))

    @property
    def _config(self) -> Path:
        return self.data_dir / "server.properties"

    def spawn(self) -> Child:
        return Child(self.name, self._install.command("kafka.Kafka", self._config), self.log)

    def is_ready(self) -> bool:
        return is_open(self.port) and asyncio.run(answers(self.address))

    def settings(self) -> Mapping[str, str]:
        return {"EXPORTER_KAFKA_BOOTSTRAP_SERVERS": self.address}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


async def answers(bootstrap_servers: str) -> bool:
    """Return whether the broker lists its topics to a client."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it logs each failed attempt while the broker starts
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=3000)
    try:
        await client.start()
        await client.list_topics()
    except (KafkaError, OSError, TimeoutError):
        return False
    else:
        return True
    finally:
        with suppress(Exception):
            await client.close()
        logger.setLevel(level)
