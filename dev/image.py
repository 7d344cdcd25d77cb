"""Builds the image, and runs the service from it as ``docker-compose.yml`` does."""

import asyncio
import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from aiokafka import AIOKafkaConsumer

from dev.cache import ServiceError
from dev.compose import ComposeService, read_services
from dev.container_engine import ContainerEngine
from dev.demo import export_every_format
from dev.process import free_ports
from dev.progress import Progress, console
from dev.stack import ROOT, Stack
from producers.display import size
from stream_app.settings import Settings

COMPOSE_FILE = ROOT / "docker-compose.yml"
TAG = "streaming-exporter:local"
_READY_SECONDS = 120.0
_TICK_SECONDS = 90.0
_PROCESSES = ("worker", "ticker", "api")
_IMPORT_ALL = """
import importlib, pkgutil
left_out = (".plugins.conformance", ".outbox.django", ".migrations.", ".__main__")
count = 0
for name in ("streaming_exporter", "stream_app", "producers", "api"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not any(part in module.name for part in left_out):
            importlib.import_module(module.name)
            count += 1
print(count, "modules can be imported")
"""
"""Imports all modules but those that need the packages of another program, such as pytest and Django."""

_STATUS = re.compile(r"(?m)^(Uid|CapEff|NoNewPrivs|Seccomp):\s+(\S+)")


def build_image(engine: ContainerEngine, tag: str = TAG) -> None:
    """Build the image and print its size.

    Raises:
        ServiceError: the build failed.
    """
    engine.build(ROOT, tag)
    console.print(f"{tag} has {size(engine.size(tag))}, built by {engine.program}")


def check_image(engine: ContainerEngine, ledger_rows: int, tag: str = TAG) -> None:
    """Run migrate, worker, ticker and API from the image, export in every format, stop them with SIGTERM.

    Kafka, PostgreSQL, S3 and SMTP are those of a local stack, in the network of this machine. Everything else
    is as the Compose file has it.

    Raises:
        ServiceError: a container did not start or broke, an export failed, or an exit code is not 0.
    """
    stack = ImageStack(engine, tag, ROOT / ".local" / "image", ledger_rows, Progress())
    with stack, stack.containers() as api_url, tempfile.TemporaryDirectory() as files:
        stack.check_rights()
        stack.check_packages()
        given = {key.removeprefix("EXPORTER_").lower(): value for key, value in stack.settings().items()}
        settings = Settings.model_validate(given)
        export_every_format(settings, api_url, ledger_rows, Path(files))
        with stack.progress.step("tick") as step:
            step.result = asyncio.run(_tick(settings.kafka_bootstrap_servers))
        stack.stop_containers()
    console.print(f"{tag} has {size(engine.size(tag))}: everything works")


class ImageStack(Stack):
    """A stack whose processes of the project run from the image."""

    def __init__(
        self, engine: ContainerEngine, tag: str, run_dir: Path, ledger_rows: int, progress: Progress
    ) -> None:
        super().__init__(run_dir, ledger_rows=ledger_rows, progress=progress)
        self._engine = engine
        self._tag = tag
        self._prefix = f"exporter-{uuid4().hex[:8]}"
        self._ports = dict(zip(("api", "api metrics", "worker metrics"), free_ports(3), strict=True))
        self._api_url = f"http://127.0.0.1:{self._ports['api']}"

    def migrate(self) -> None:
        """Run the service ``migrate`` of the Compose file to its end."""
        with self.progress.step("migrate") as step:
            service = self._service("migrate")
            code, output = self._engine.run(self._tag, self._name("migrate"), service)
            if code != 0:
                raise ServiceError(f"migrate exited with {code}.\n{output}")
            step.result = f"exit 0, {' '.join(service.command)}"

    @contextmanager
    def containers(self) -> Iterator[str]:
        """Run worker, ticker and API within the block; yield the address of the API."""
        names = [self._name(process) for process in _PROCESSES]
        try:
            for process in _PROCESSES:
                self._engine.start(self._tag, self._name(process), self._service(process))
            for process in _PROCESSES:
                self._wait_until_healthy(process)
            yield self._api_url
        finally:
            self._engine.remove(*names, self._name("migrate"))

    def check_rights(self) -> None:
        """Check that no process can write outside of /tmp, is root, or holds a capability."""
        for process in _PROCESSES:
            service, name = self._service(process), self._name(process)
            with self.progress.step(process) as step:
                _, status = self._engine.execute(name, ["cat", "/proc/1/status"])
                facts = dict(_STATUS.findall(status))
                code, _ = self._engine.execute(name, ["python", "-c", "open('/var/tmp/x', 'w')"])
                facts["read-only"] = str(code != 0 and service.read_only).lower()
                step.result = ", ".join(f"{key} {value}" for key, value in facts.items())
            if facts["Uid"] == "0" or int(facts["CapEff"], 16) or facts["NoNewPrivs"] != "1" or code == 0:
                raise ServiceError(f"{process} has more rights than it needs: {step.result}")

    def check_packages(self) -> None:
        """Import every module in the image, so that no package is missing there.

        Raises:
            ServiceError: a module cannot be imported.
        """
        with self.progress.step("packages") as step:
            code, output = self._engine.execute(self._name("worker"), ["python", "-c", _IMPORT_ALL])
            if code != 0:
                raise ServiceError(f"the image lacks a package: {output}")
            step.result = output

    def stop_containers(self) -> None:
        """Send SIGTERM to each process and wait for its end.

        Raises:
            ServiceError: a process did not end with 0 within the time that the Compose file gives it.
        """
        for process in ("api", "ticker", "worker"):
            service, name = self._service(process), self._name(process)
            with self.progress.step(process) as step:
                code = self._engine.stop(name, service.stop_seconds)
                step.result = f"SIGTERM, exit {code}"
            if code != 0:
                raise self._error(process, f"ended with {code} after SIGTERM")

    def _wait_until_healthy(self, process: str) -> None:
        check, name = self._service(process).health_check, self._name(process)
        deadline = time.monotonic() + _READY_SECONDS
        with self.progress.step(process) as step:
            while True:
                if not self._engine.running(name):
                    raise self._error(process, "ended before it was ready")
                if not check or self._engine.execute(name, self._local(check))[0] == 0:
                    break
                if time.monotonic() > deadline:
                    raise self._error(process, f"was not ready within {_READY_SECONDS:.0f} s")
                time.sleep(0.5)
            step.result = "healthy" if check else "runs"

    def _service(self, process: str) -> ComposeService:
        """Return the service of the Compose file, with the addresses of this stack and with free ports."""
        secrets = {"EXPORTER_JWT_SECRET": self.settings()["EXPORTER_JWT_SECRET"]}
        service = read_services(COMPOSE_FILE, secrets)[process]
        own = {**self.settings(), "EXPORTER_PUBLIC_URL": self._api_url}
        own["EXPORTER_S3_PUBLIC_ENDPOINT"] = own.get("EXPORTER_S3_ENDPOINT", "")
        own["EXPORTER_METRICS_PORT"] = str(self._ports.get(f"{process} metrics", ""))
        del own["EXPORTER_DATASETS_FILE"]  # the Compose file mounts the same datasets
        environment = {key: own.get(key, value) for key, value in service.environment.items()}
        return replace(service, environment=environment, command=self._local(service.command))

    def _local(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return the command with the API's port of this run, as containers share the machine's network."""
        return tuple(re.sub(r"\b8000\b", str(self._ports["api"]), part) for part in command)

    def _name(self, process: str) -> str:
        return f"{self._prefix}-{process}"

    def _error(self, process: str, what: str) -> ServiceError:
        return ServiceError(f"{process} {what}.\n{self._engine.logs(self._name(process))}")


async def _tick(bootstrap_servers: str) -> str:
    """Return the minute of the first tick that the ticker has published.

    Raises:
        ServiceError: there is none within a minute and a half.
    """
    consumer = AIOKafkaConsumer(
        "exports.ticks", bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", group_id=None
    )
    async with consumer:
        try:
            message = await asyncio.wait_for(consumer.getone(), _TICK_SECONDS)
        except TimeoutError:
            raise ServiceError(f"the ticker published no tick within {_TICK_SECONDS:.0f} s") from None
    return str(json.loads(message.value)["data"]["at"])
