"""Workers that are started again whenever they end, as by a process supervisor."""

import os
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dev.stack import ROOT, Stack
from tests.chaos.respawning import keep_worker
from tests.log_files import complete_lines, logged
from tests.waiting import until

READY_SECONDS = 90.0


class Supervisor:
    """``with Supervisor(stack, 3, settings) as workers:`` keeps three workers running.

    All methods are synchronous; from asyncio use ``asyncio.to_thread``.
    """

    def __init__(self, stack: Stack, count: int, settings: Mapping[str, str]) -> None:
        self._folders = [Path(tempfile.mkdtemp(prefix="worker-", dir=stack.run_dir)) for _ in range(count)]
        logs = Path(tempfile.mkdtemp(prefix="workers-", dir=stack.run_dir / "logs"))
        self._ended_by_us: set[int] = set()
        self._logs = [logs / f"worker-{number}.log" for number in range(count)]
        environment = {**stack.environment(), **settings}
        self._keepers = [
            keep_worker(folder, log, environment | {"EXPORTER_READY_FILE": str(folder / "ready")}, ROOT)
            for folder, log in zip(self._folders, self._logs, strict=True)
        ]

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def names(self) -> list[str]:
        """Return the names of the workers by number; all must run."""
        return [_name(self._pid(number)) for number in range(len(self._folders))]

    def kill(self, number: int) -> str:
        """Send SIGKILL; return the name of the killed worker."""
        pid = self._signal(number, signal.SIGKILL)
        self._wait_for_end(pid)
        return _name(pid)

    def restart(self, number: int) -> float:
        """Send SIGTERM; return how many seconds the worker took to end."""
        started = time.monotonic()
        self._wait_for_end(self._signal(number, signal.SIGTERM))
        return time.monotonic() - started

    def freeze(self, number: int) -> int:
        """Send SIGSTOP; return the process id for :meth:`thaw`."""
        return self._signal(number, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """Send SIGCONT, unless the worker has been killed in the meantime."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def is_ready(self, number: int) -> bool:
        """Return whether the worker reports that it is ready."""
        return (self._folders[number] / "ready").exists()

    def wait_until_ready(self, *numbers: int) -> None:
        """Wait until those workers, by default all, are ready.

        Raises:
            AssertionError: one of them is not ready after :data:`READY_SECONDS`.
        """
        for number in numbers or range(len(self._folders)):
            until(partial(self.is_ready, number), within=READY_SECONDS, otherwise=partial(self._tail, number))

    def gave_up(self) -> int:
        """Return how many workers ended without a signal."""
        return sum(
            pid not in self._ended_by_us and code != -signal.SIGKILL for pid, code in self._ends().items()
        )

    def killed(self) -> set[str]:
        """Return the names of the workers that SIGKILL ended."""
        return {_name(pid) for pid, code in self._ends().items() if code == -signal.SIGKILL}

    def _ends(self) -> dict[int, int]:
        ends = (line.split() for folder in self._folders for line in complete_lines(folder / "exits"))
        return {int(pid): int(code) for pid, code in ends}

    def logged(self) -> list[dict[str, Any]]:
        """Return the events in the logs of all workers."""
        return [event for log in self._logs for event in logged(log)]

    def stop(self) -> None:
        """Stop all workers at the same time."""
        for keeper in self._keepers:
            with suppress(ProcessLookupError):
                os.killpg(keeper.pid or 0, signal.SIGKILL)
            keeper.join()

    def _tail(self, number: int) -> str:
        return "\n".join(complete_lines(self._logs[number])[-40:])

    def _pid(self, number: int) -> int:
        return until(
            lambda: int((self._folders[number] / "pid").read_text()),
            within=READY_SECONDS,
            ignoring=(FileNotFoundError,),
            otherwise=partial(self._tail, number),
        )

    def _signal(self, number: int, what: signal.Signals) -> int:
        pid = self._pid(number)
        if what is not signal.SIGSTOP:
            self._ended_by_us.add(pid)
        with suppress(ProcessLookupError):  # the process can have ended just now
            os.kill(pid, what)
        return pid

    def _wait_for_end(self, pid: int) -> None:
        """Wait until the keeper has noted the end of the worker, and removed its ready file."""
        until(lambda: pid in self._ends(), within=READY_SECONDS)


def _name(pid: int) -> str:
    return f"{socket.gethostname()}-{pid}"
