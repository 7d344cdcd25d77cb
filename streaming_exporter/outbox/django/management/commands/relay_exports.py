"""``manage.py relay_exports``: publishes what waits in the outbox."""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from streaming_exporter.errors import ExporterError
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.outbox.django.store import DjangoStore
from streaming_exporter.outbox.relay import Relay, run_until_signal


class Command(BaseCommand):
    """Publishes the requests of the outbox to Kafka until SIGTERM."""

    help = "Publish the export requests of the outbox to Kafka (EXPORTER_KAFKA_* variables), until SIGTERM"

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("--once", action="store_true", help="End when nothing waits any more")
        parser.add_argument("--database", default="default", help="Alias of the database with the outbox")

    def handle(self, *_: Any, once: bool, database: str, **__: Any) -> None:
        """Run the relay."""
        try:
            asyncio.run(_relay(database, once=once))
        except ExporterError as error:
            raise CommandError(str(error)) from error


async def _relay(database: str, *, once: bool) -> None:
    settings = KafkaSettings.from_environment()
    store = DjangoStore(database)
    try:
        await store.backlog()  # a missing table ends the program at its start, not later
        await run_until_signal(Relay(store, settings), once=once)
    finally:
        await store.close()
