"""Checks whether processes have ended."""

import psutil

from tests.waiting import until

WAIT_SECONDS = 30.0


def gone(pid: int) -> bool:
    """Return whether the process has ended. A zombie counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(*pids: int) -> None:
    """Wait until the processes have ended.

    Raises:
        AssertionError: one of them has not ended in time.
    """
    until(
        lambda: all(map(gone, pids)), within=WAIT_SECONDS, otherwise=lambda: [p for p in pids if not gone(p)]
    )


def descendants(pid: int) -> list[int]:
    """Return the process ids of all descendants."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
