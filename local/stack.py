"""The stack: every service that the environment does not replace, and our own processes on top."""

import os
import secrets
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from local import sample
from local.apps import Api, AppProcess, Ticker
from local.errors import ServiceError, UsageError
from local.kafka import KafkaService
from local.ports import free_ports, is_free
from local.postgres import SOURCE, PostgresService
from local.progress import Progress
from local.s3 import S3Service
from local.service import Service
from local.smtp import SmtpService

_ROOT = Path(__file__).parent.parent


class Stack:
    """The whole system in one folder.

    ``with Stack(folder) as stack:`` starts the services, loads the sample, runs the migrations, and
    stops and removes everything at the end except the logs. Workers, the ticker and the API are
    started by their own methods. Services may be broken by tests: ``stack.kafka.kill()``,
    ``stack.kafka.restart()``. All of it is synchronous; from asyncio use ``asyncio.to_thread``.

    Args:
        run_dir: data and logs; made anew.
        ledger_rows: size of the sample's largest table; None loads no sample.
        settings: further EXPORTER_* variables for our processes, with the prefix.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        ledger_rows: int | None = 2_000,
        settings: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.run_dir = run_dir.absolute()
        self.progress = progress or Progress(quiet=True)
        self._ledger_rows = ledger_rows
        self._given = {key: value for key, value in os.environ.items() if key.startswith("EXPORTER_")}
        self._extra = dict(settings or {})
        self._found: dict[str, str] = {}
        self.jwt_secret = self._given.get("EXPORTER_JWT_SECRET") or secrets.token_hex(32)
        self.services: dict[str, Service] = {}
        self.apps: dict[str, AppProcess] = {}

    # The services, where the stack runs them itself.
    @property
    def kafka(self) -> KafkaService:
        return self._service("kafka", KafkaService)

    @property
    def postgres(self) -> PostgresService:
        return self._service("postgres", PostgresService)

    @property
    def s3(self) -> S3Service:
        return self._service("s3", S3Service)

    @property
    def smtp(self) -> SmtpService:
        return self._service("smtp", SmtpService)

    def _service[S: Service](self, name: str, kind: type[S]) -> S:
        service = self.services.get(name)
        if not isinstance(service, kind):
            raise UsageError(f"{name} is not run by this stack: the environment names another")
        return service
