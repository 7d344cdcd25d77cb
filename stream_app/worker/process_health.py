"""The last resort: an event loop that is blocked, or that hangs while it ends, cannot end its process."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path


class ExitTimer(threading.Thread):
    """Ends the process where no sign of life comes any more."""

    def __init__(self, patience: float, leave: Callable[[int], object] = os._exit) -> None:
        """``patience`` is in seconds, counted while the process runs: one that was stopped is not late."""
        super().__init__(name="exit_timer", daemon=True)
        self._patience = patience
        self._leave = leave
        self._missed = 0.0
        self._is_exiting = False
        self._lock = threading.Lock()

    def reset(self) -> None:
        """A sign of life."""
        with self._lock:
            if not self._is_exiting:
                self._missed = 0.0

    def limit_exit(self, patience: float) -> None:
        """The process is about to end, and may take ``patience`` seconds for it; said once."""
        with self._lock:
            if not self._is_exiting:
                self._is_exiting, self._patience, self._missed = True, patience, 0.0

    def run(self) -> None:
        """Count the time without a sign, in ticks of its own."""
        tick = min(1.0, self._patience / 10)
        while self._missed < self._patience:
            time.sleep(tick)
            with self._lock:
                self._missed += tick
        what = "did not end" if self._is_exiting else "showed no sign of life"
        print(f"the worker {what} within {self._patience:g} s", file=sys.stderr, flush=True)
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
    """Whether the file was touched lately: a worker that hangs does not."""
    try:
        return file is not None and time.time() - file.stat().st_mtime < FRESH_SECONDS
    except FileNotFoundError:
        return False
