"""Ends a process whose event loop is blocked, and reads and writes the ready file.

An event loop that is blocked, or that hangs while it stops, cannot end its process itself.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path


class ExitTimer(threading.Thread):
    """Ends the process if :meth:`reset` is not called for some time."""

    def __init__(self, limit: float, leave: Callable[[int], object] = os._exit) -> None:
        """Create the timer.

        ``limit`` is in seconds. Time in which the process is suspended does not count.
        """
        super().__init__(name="exit_timer", daemon=True)
        self._limit = limit
        self._leave = leave
        self._missed = 0.0
        self._is_exiting = False
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Restart the timer."""
        with self._lock:
            if not self._is_exiting:
                self._missed = 0.0

    def limit_exit(self, seconds: float) -> None:
        """Begin the exit: the process must end within ``seconds``. Only the first call counts."""
        with self._lock:
            if not self._is_exiting:
                self._is_exiting, self._limit, self._missed = True, seconds, 0.0

    def run(self) -> None:
        """Count the time since the last reset, in steps."""
        tick = min(1.0, self._limit / 10)
        while self._missed < self._limit:
            time.sleep(tick)
            with self._lock:
                self._missed += tick
        what = "did not end" if self._is_exiting else "did not respond"
        print(f"the worker {what} within {self._limit:g} s", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        self._leave(1)


FRESH_SECONDS = 15.0


def write_ready_file(file: Path, ready: bool) -> None:
    """Touch or remove the file.

    Raises:
        OSError: the folder cannot be written.
    """
    if ready:
        file.touch()
    else:
        file.unlink(missing_ok=True)


def is_ready(file: Path | None) -> bool:
    """Return whether the file was touched lately. A worker that hangs does not touch it."""
    try:
        return file is not None and time.time() - file.stat().st_mtime < FRESH_SECONDS
    except FileNotFoundError:
        return False
