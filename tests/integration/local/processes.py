"""Whether processes are gone."""

import time

import psutil

PATIENCE = 30.0


def gone(pid: int) -> bool:
    """Whether it has ended; a zombie has, too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(*pids: int) -> None:
    """Fails where one of them is still there after a while."""
    deadline = time.monotonic() + PATIENCE
    while left := [pid for pid in pids if not gone(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """The process ids of its children, theirs, and so on."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
