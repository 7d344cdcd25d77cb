"""Installs Apache Kafka once per user, prepared for quick starts: jars, a formatted folder, a recorded start.

It works under a lock and moves the result to its place by a rename, so two copies of the project can start at
the same time. An existing installation is used without access to Maven.
"""

import hashlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.cache import ServiceError, cache_dir, locked
from dev.kafka_jars import LOCK, VERSION, Java, fetch, find_java
from dev.process import Child, free_ports, is_open

CLUSTER_ID = "bG9jYWwtc3RhY2stMDAwMQ"
_JVM = [
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",  # a broker that runs for minutes gains nothing from the optimizing compiler
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
]

Report = Callable[[str], None]


@dataclass(frozen=True)
class KafkaInstall:
    java: Java
    jars: Path
    home: Path
    """The files that depend on the version of Java."""

    def command(self, main_class: str, *arguments: str | Path, jvm: tuple[str, ...] = ()) -> list[str]:
        """Return the command line that runs ``main_class``."""
        # No wildcard: a recorded start is valid only for the same list in the same order.
        classpath = ":".join(str(jar) for jar in sorted(self.jars.glob("*.jar")))
        recorded = [f"-XX:AOTCache={self.recording}"] if self.recording.exists() and not jvm else []
        options = [*_JVM, *self._quiet(), *recorded, *jvm, "-cp", classpath]
        return [str(self.java.program), *options, main_class, *map(str, arguments)]

    def _quiet(self) -> list[str]:
        if not self.java.trains:
            return []
        # Kafka uses a call that later versions of Java warn about. An old recording only costs time.
        return ["--sun-misc-unsafe-memory-access=allow", "-Xlog:aot*=off", "-Xlog:cds*=off"]

    @property
    def recording(self) -> Path:
        return self.home / "kafka.aot"

    @property
    def formatted(self) -> Path:
        """A formatted storage folder that no broker has used."""
        return self.home / "formatted"


def kafka_install(report: Report) -> KafkaInstall:
    """Return Kafka from the cache folder, after installing it there if necessary.

    Args:
        report: receives a text before each step that takes long.

    Raises:
        UsageError: there is no Java.
        ServiceError: the jars cannot be downloaded, or the storage folder cannot be formatted.
    """
    java = find_java()
    edition = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]
    root = cache_dir() / f"kafka-{VERSION}-{edition}"
    install = KafkaInstall(java, root / "jars", root / java.label)
    if not (install.jars.exists() and install.home.exists()):
        with locked(root / ".lock"):
            if not install.jars.exists():
                with _made_once(install.jars) as folder:
                    report(f"fetching Apache Kafka {VERSION} from Maven, once (43 MB)")
                    fetch(folder)
            if not install.home.exists():
                with _made_once(install.home) as folder:
                    _format(install, folder, report)
    return install


@contextmanager
def _made_once(target: Path) -> Iterator[Path]:
    """Yield a new folder. At the end of the block it is renamed to ``target``, unless the block fails."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _format(install: KafkaInstall, home: Path, report: Report) -> None:
    report("preparing Kafka for quick starts, once (ten seconds)")
    draft = KafkaInstall(install.java, install.jars, home)
    config = home / "format.properties"
    config.write_text(properties(1, 2, draft.formatted))
    draft.formatted.mkdir()
    _run(draft.command("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", config))
    config.unlink()
    if install.java.trains:
        _record_a_start(draft)


def _record_a_start(install: KafkaInstall) -> None:
    """Run a broker once and keep the classes that it loaded: later starts take 0.8 s instead of 1.9 s."""
    with tempfile.TemporaryDirectory() as scratch:
        data, config, log = Path(scratch, "data"), Path(scratch, "server.properties"), Path(scratch, "log")
        shutil.copytree(install.formatted, data)
        port, controller_port = free_ports(2)
        config.write_text(properties(port, controller_port, data))
        unfinished = install.recording.with_suffix(".part")
        record = (f"-XX:AOTCacheOutput={unfinished}",)
        broker = Child("kafka", install.command("kafka.Kafka", config, jvm=record), log)
        try:
            broker.wait_until(lambda: is_open(port), timeout=60)
            time.sleep(0.5)  # the broker opens its port shortly before its start is complete
        finally:
            broker.stop(timeout=90)  # a second process writes the recording when the broker ends
        if unfinished.exists():  # some systems write no recording; then starts are slower
            unfinished.rename(install.recording)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ServiceError(f"kafka: preparing it failed with {done.returncode}.\n{done.stdout}{done.stderr}")


def properties(port: int, controller_port: int, data: Path) -> str:
    """Return the configuration of one node that is broker and controller; starts and rebalances are quick."""
    lines = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,  # some tests use short sessions, to notice a dead worker early
        "broker.heartbeat.interval.ms": 1000,
        "broker.session.timeout.ms": 3000,  # a killed broker cannot return before its session has expired
        "metadata.max.idle.interval.ms": 0,  # with other controllers an idle one would write records
        "num.partitions": 1,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
        "log.retention.hours": -1,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())
