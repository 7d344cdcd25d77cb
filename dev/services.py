"""Starts Kafka, PostgreSQL, S3 and SMTP, except those whose address the environment sets."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dev.cache import UsageError
from dev.kafka import KafkaService
from dev.postgres import PostgresService
from dev.progress import Progress
from dev.s3 import S3Service
from dev.service import Service
from dev.smtp import SmtpService

S = TypeVar("S", bound=Service)

KINDS: Sequence[type[Service]] = (KafkaService, PostgresService, S3Service, SmtpService)
REPLACED_BY = {
    "kafka": {"EXPORTER_KAFKA_BOOTSTRAP_SERVERS"},
    "postgres": {"EXPORTER_DATABASE_URL", "EXPORTER_SOURCE_DATABASE_URL"},
    "s3": {"EXPORTER_S3_ENDPOINT"},
    "smtp": {"EXPORTER_SMTP_HOST"},
}
"""The variables that replace a service. It is started unless the environment sets all of them."""


class Services:
    """The services of one stack, by name in ``running``."""

    def __init__(self, run_dir: Path, progress: Progress) -> None:
        self.given = {key: value for key, value in os.environ.items() if key.startswith("EXPORTER_")}
        self.found: dict[str, str] = {}
        """The EXPORTER_* variables of the services that were started."""
        self.running: dict[str, Service] = {
            kind.name: kind(run_dir) for kind in KINDS if not REPLACED_BY[kind.name] <= self.given.keys()
        }
        self._progress = progress

    def get(self, kind: type[S]) -> S:
        """Return the service of this kind.

        Raises:
            UsageError: the environment sets the address of another server.
        """
        service = self.running.get(kind.name)
        if not isinstance(service, kind):
            raise UsageError(
                f"{kind.name} is not run by this stack: the environment sets the address of another server"
            )
        return service

    def settings(self) -> dict[str, str]:
        """Return the EXPORTER_* variables of all services. Variables of the environment take precedence."""
        return {**self.found, **self.given}

    def start(self, with_postgres: Sequence[Callable[[], None]] = ()) -> None:
        """Start all services at the same time.

        Args:
            with_postgres: functions to call as soon as PostgreSQL is ready.

        Raises:
            ServiceError: one of them failed. The others are stopped now or by ``stop()``.
        """
        with ThreadPoolExecutor(len(KINDS) + len(with_postgres)) as pool:
            starts = {name: pool.submit(self._start, service) for name, service in self.running.items()}
            steps = [pool.submit(_after, starts.get("postgres"), step) for step in with_postgres]
            try:
                for start in (*starts.values(), *steps):
                    start.result()
            except BaseException:
                for service in self.running.values():
                    service.abandon()
                raise

    def _start(self, service: Service) -> None:
        with self._progress.step(service.name) as step:
            service.report = step.note
            self.found.update(service.start())
            step.result = service.address

    def stop(self) -> None:
        """Stop all services and remove their data. A second call has no effect."""
        with ThreadPoolExecutor(len(KINDS)) as pool:
            list(pool.map(lambda service: service.stop(), self.running.values()))
        for service in self.running.values():
            service.discard()


def _after(start: Future[None] | None, step: Callable[[], None]) -> None:
    if start is not None:
        start.result()
    step()
