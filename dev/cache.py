"""The user's cache folder, for files that are made once per machine, and the errors of the stack."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/streaming-exporter``; the default is ``~/.cache/streaming-exporter``."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "streaming-exporter"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file at ``path`` for the block; other processes wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class ServiceError(Exception):
    """A service failed. The message has its name, the reason and, if there is a log, the end of the log."""


class UsageError(Exception):
    """An error that the caller can correct, such as a port that is taken. The message states how."""


HOW_TO_INSTALL = "install streaming-exporter-service[local]; in a checkout run make setup"
"""How to get the servers of the stack."""
