"""The stack: the services that the environment does not replace, and the project's own processes."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from dev import sample
from dev.app_process import ApiProcess, AppProcess, TickerProcess
from dev.cache import ServiceError, UsageError
from dev.folder import RunFolder, sweep
from dev.kafka import KafkaService
from dev.postgres import READER, SOURCE, PostgresService
from dev.process import free_ports, is_free
from dev.progress import Progress
from dev.s3 import S3Service
from dev.service import Service
from dev.services import Services
from dev.smtp import SmtpService
from stream_app.setting_sources import SETTINGS_FILE

ROOT = Path(__file__).parent.parent


class Stack:
    """The whole system in one folder.

    ``with Stack(folder) as stack:`` starts the services, loads the sample and runs the migrations. At its end
    it stops everything and removes everything but the logs. Workers, the ticker and the API have methods of
    their own that start them. Tests can interrupt services: ``stack.kafka.kill()``,
    ``stack.kafka.restart()``. All methods are synchronous; from asyncio use ``asyncio.to_thread``.

    Args:
        run_dir: folder for data and logs; it is emptied.
        ledger_rows: size of the sample's largest table; None loads no sample.
        settings: further EXPORTER_* variables for the project's processes.
        keep_logs: whether the logs stay in ``run_dir`` when the stack has stopped.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        ledger_rows: int | None = 2_000,
        settings: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        keep_logs: bool = True,
    ) -> None:
        self.run_dir = run_dir.absolute()
        self.progress = progress or Progress(quiet=True)
        self._ledger_rows = ledger_rows
        self._extra = dict(settings or {})
        self._folder = RunFolder(run_dir)
        self._keep_logs = keep_logs
        self._jwt_secret = secrets.token_hex(32)
        self._services = Services(self.run_dir, self.progress)
        self.apps: dict[str, AppProcess] = {}
        self.metrics_urls: list[str] = []

    @property
    def services(self) -> Mapping[str, Service]:
        """The services that the stack runs itself, by name."""
        return self._services.running

    @property
    def kafka(self) -> KafkaService:
        return self._services.get(KafkaService)

    @property
    def postgres(self) -> PostgresService:
        return self._services.get(PostgresService)

    @property
    def s3(self) -> S3Service:
        return self._services.get(S3Service)

    @property
    def smtp(self) -> SmtpService:
        return self._services.get(SmtpService)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the services, load the sample, run the migrations. After a failure call ``stop()``.

        Raises:
            ServiceError: a part failed; the message has its name and the end of its log.
            UsageError: a program is missing that the caller can install.
        """
        self._folder.open()
        if self.run_dir.parent.name == ".local":
            others = (folder for folder in self.run_dir.parent.iterdir() if folder != self.run_dir)
            sweep((folder for folder in others if (folder / "logs").is_dir()), keep=("logs",))
        self._services.start(with_postgres=(self._fill, self.migrate))

    def _fill(self) -> None:
        if self._ledger_rows is None or "EXPORTER_SOURCE_DATABASE_URL" in self._services.given:
            return
        with self.progress.step("sample") as step:
            url = self.postgres.admin_url(SOURCE)
            sizes = asyncio.run(sample.load(url, self._ledger_rows, reader=READER))
            step.result = (
                f"{sizes.enrollments:,} enrollments, {sizes.proofs:,} proofs, {sizes.ledger:,} ledger entries"
            )

    def migrate(self) -> None:
        """Create the tables of the service, as ``start()`` does."""
        with self.progress.step("migrate"):
            self.run("migrate")

    def environment(self) -> dict[str, str]:
        """Return the environment of the project's processes; they read no settings file of another stack."""
        return {SETTINGS_FILE: os.devnull, **os.environ, **self.settings()}

    def settings(self) -> dict[str, str]:
        """Return the EXPORTER_* variables: of the services, then of the environment, then ``settings``."""
        own = {"EXPORTER_JWT_SECRET": self._jwt_secret, "EXPORTER_MAIL_FROM": "exports@localhost"}
        if "EXPORTER_SOURCE_DATABASE_URL" not in self._services.given:
            own["EXPORTER_DATASETS_FILE"] = str(sample.DATASETS)
        return {**own, **self._services.settings(), **self._extra}

    @contextmanager
    def configured(self, settings: Mapping[str, str]) -> Iterator[Self]:
        """Add EXPORTER_* variables for the processes that start within the block."""
        before = self._extra
        self._extra = before | dict(settings)
        try:
            yield self
        finally:
            self._extra = before

    def run(self, *arguments: str) -> str:
        """Run one ``exporter`` command to its end; return its output.

        Raises:
            ServiceError: it failed.
        """
        command = [sys.executable, "-m", "producers", *arguments]
        done = subprocess.run(command, env=self.environment(), cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            output = (done.stdout + done.stderr).strip()
            raise ServiceError(f"exporter {' '.join(arguments)} exited with {done.returncode}.\n{output}")
        return done.stdout.strip()

    def token(self, user_id: str, *roles: str) -> str:
        """Return a bearer token for the API."""
        return self.run("token", "--user-id", user_id, *(part for role in roles for part in ("--role", role)))

    def start_all(self, workers: int = 1, api_port: int | None = None) -> ApiProcess:
        """Start workers, ticker and API at the same time; return the API, which links in mails lead to.

        ``metrics_urls`` then has the addresses of the workers' metrics.
        """
        api_port = api_port or free_ports(1)[0]
        if "EXPORTER_PUBLIC_URL" not in os.environ:
            self._extra.setdefault("EXPORTER_PUBLIC_URL", f"http://127.0.0.1:{api_port}")
        with ThreadPoolExecutor(workers + 2) as pool:
            ports = free_ports(workers)
            self.metrics_urls = [f"http://127.0.0.1:{port}/metrics" for port in ports]
            starts = [
                pool.submit(self.start_worker, number, {"EXPORTER_METRICS_PORT": str(port)})
                for number, port in enumerate(ports, 1)
            ]
            starts.append(pool.submit(self.start_ticker))
            api = pool.submit(self.start_api, api_port)
            try:
                for start in starts:
                    start.result()
                return api.result()
            except BaseException:
                for app in self.apps.values():
                    app.kill()
                raise

    def start_worker(
        self, number: int | None = None, settings: Mapping[str, str] | None = None
    ) -> AppProcess:
        """Start ``worker-<number>``, by default the next free number, and wait until it is ready."""
        if number is None:
            number = 1 + sum(name.startswith("worker-") for name in self.apps)
        env = {**self.environment(), **(settings or {})}
        return self._start_app(AppProcess(f"worker-{number}", ["stream_app"], env, self.run_dir))

    def start_ticker(self) -> AppProcess:
        """Start the process that publishes a tick each minute."""
        return self._start_app(
            TickerProcess("ticker", ["producers", "tick"], self.environment(), self.run_dir)
        )

    def start_api(self, port: int | None = None, settings: Mapping[str, str] | None = None) -> ApiProcess:
        """Start the API on the loopback interface and wait until it is ready.

        Raises:
            UsageError: ``port`` is taken.
        """
        if port is not None and not is_free(port):
            raise UsageError(f"port {port} is taken: choose another with --port (make up: PORT=)")
        port = port or free_ports(1)[0]
        env = {"EXPORTER_PUBLIC_URL": f"http://127.0.0.1:{port}", **self.environment(), **(settings or {})}
        others = sum(name.startswith("api") for name in self.apps)
        api = ApiProcess(f"api-{others + 1}" if others else "api", port, env, self.run_dir)
        self._start_app(api)
        return api

    def _start_app(self, app: AppProcess) -> AppProcess:
        self.apps[app.name] = app
        with self.progress.step(app.name) as step:
            app.start()
            step.result = app.address
        return app

    def processes(self) -> dict[str, Service | AppProcess]:
        """Return all services and processes that were started, by name."""
        return {**self.services, **self.apps}

    def pids(self) -> dict[str, int]:
        """Return the process ids of all that run, by name."""
        return {name: process.pid for name, process in self.processes().items() if process.running}

    def stop(self) -> None:
        """Stop processes and services and remove the data, not the logs. A second call has no effect."""
        if not self._folder.held:  # another stack can use the folder
            return
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda app: app.stop(), self.apps.values()))
        self._services.stop()
        self._folder.close(keep_logs=self._keep_logs)
