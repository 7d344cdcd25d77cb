"""The user's cache folder: what is fetched or computed once per machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/streaming-exporter``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "streaming-exporter"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, shared by every process of this user that names the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class ServiceError(Exception):
    """A service failed. The message names it and says why, with the end of its log where it has one."""


class UsageError(Exception):
    """The caller can put it right: a port is taken, a program is missing. The message says how."""
