"""The folder of one run. It is locked while it is used. After a crash the next run empties it."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dev.cache import UsageError

DAY = 24 * 3600


class RunFolder:
    """The data and logs of one stack. The kernel releases the lock of the folder when the process dies."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def open(self) -> None:
        """Create, lock and empty the folder.

        Raises:
            UsageError: another process uses it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _try_lock(self.path)
        if self._lock is None:
            raise UsageError(f"another process runs a stack in {self.path}: stop that one first")
        empty(self.path)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock is not None

    def close(self, *, keep_logs: bool) -> None:
        """Remove the data, and also the logs unless ``keep_logs``; release the lock."""
        if self._lock is None:
            return
        empty(self.path, keep=("logs",) if keep_logs else ())
        with suppress(OSError):  # it is not empty if logs were kept
            self.path.rmdir()
        os.close(self._lock)
        self._lock = None


def sweep(folders: Iterable[Path], keep: tuple[str, ...] = ()) -> None:
    """Empty the folders that no process uses; killed runs leave such folders behind.

    Entries with a name in ``keep`` stay for one day.
    """
    for folder in folders:
        lock = _try_lock(folder)
        if lock is not None:
            old = time.time() - folder.stat().st_mtime > DAY
            empty(folder, () if old else keep)
            with suppress(OSError):
                folder.rmdir()
            os.close(lock)


def empty(folder: Path, keep: tuple[str, ...] = ()) -> None:
    """Remove the entries of ``folder``, except the names in ``keep``."""
    for entry in list(folder.iterdir()):
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _try_lock(folder: Path) -> int | None:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
    except (BlockingIOError, FileNotFoundError):  # in use, or removed by the process that had the lock
        pass
    os.close(handle)
    return None
