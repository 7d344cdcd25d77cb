"""The user's cache folder, what is fetched or computed once per machine; and locks."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from local.errors import UsageError


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


class FolderLock:
    """Held while a stack uses ``folder``, and let go by the kernel however its process ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take it, or say who should have.

        Raises:
            UsageError: another process holds it.
        """
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        file = self._folder.with_name(f".{self._folder.name}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UsageError(f"another process runs a stack in {self._folder}: stop that one first") from None
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
