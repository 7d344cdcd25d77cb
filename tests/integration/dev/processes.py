"""Whether processes are gone."""

import psutil

from tests.waiting import until

WAIT_SECONDS = 30.0


def gone(pid: int) -> bool:
    """Whether it has ended; a zombie has, too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(*pids: int) -> None:
    """Fails where one of them is still there after a while."""
    until(
        lambda: all(map(gone, pids)), within=WAIT_SECONDS, otherwise=lambda: [p for p in pids if not gone(p)]
    )


def descendants(pid: int) -> list[int]:
    """The process ids of its children, theirs, and so on."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
