"""Restarts processes and services of the stack when they die, as an orchestrator does in a deployment."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from dev.cache import ServiceError
from dev.process import ManagedProcess
from dev.stack import Stack

MAX_DEATHS, WITHIN = 5, 60.0
"""A process that has died this often within this number of seconds is not restarted."""

FIRST_BACK_OFF = 0.5
"""Seconds before the first restart. Each further death within the minute doubles them."""


@dataclass
class _Restarts:
    """The deaths of one process that still count, and its restart that waits or runs."""

    process: ManagedProcess
    deaths: list[float] = field(default_factory=list)
    due: float | None = None
    start: Future[None] | None = None


class Supervision:
    """``with Supervision(stack, say) as supervision:`` watches the processes of a stack.

    Each process is restarted on its own, so a slow start hides no other death. At the end of the block no
    start runs any longer. A service is started again with its ports and its data: what it has acknowledged is
    in files, and the project's processes wait for it.

    Args:
        say: receives one line for each process that is restarted.
        executor: runs the starts; by default threads.
    """

    def __init__(
        self,
        stack: Stack,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        self._stack = stack
        self._say = say
        self._clock = clock
        self._executor = executor or ThreadPoolExecutor(thread_name_prefix="restart")
        self._restarts: dict[str, _Restarts] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        restarts = self._restarts.values()
        starts = [(state.process, state.start) for state in restarts if state.start is not None]
        for process, start in starts:
            while wait([start], timeout=0.05).not_done:  # it can be about to spawn its process
                process.kill()
        self._executor.shutdown()

    def look(self) -> bool:
        """Restart processes that have died; return whether one is ready again. It does not wait.

        Raises:
            ServiceError: a process has died too often; with the end of its log.
        """
        again = False
        for process in self._stack.processes().values():
            again |= self._look_at(process)
        return again

    def _look_at(self, process: ManagedProcess) -> bool:
        state = self._restarts.setdefault(process.name, _Restarts(process))
        again = False
        if state.start is not None:
            if not state.start.done():
                return False
            error, state.start = state.start.exception(), None
            if isinstance(error, ServiceError):
                what = str(error).partition("\n")[0].removeprefix(f"{process.name} ").rstrip(".")
                self._plan(state, what, forget=False)
                return False
            if error is not None:
                raise error
            again = True
        if state.due is not None:
            if self._clock() >= state.due:
                state.due, state.start = None, self._executor.submit(_start, process)
        elif not process.running:
            self._plan(state, _ended(process.child.exit_code), forget=True)
        return again

    def _plan(self, state: _Restarts, what: str, *, forget: bool) -> None:
        """Plan the restart of a process that has died, and print a line.

        Args:
            what: what the process did, for the line.
            forget: whether deaths that are older than a minute no longer count. A process that was not ready
                since its last death has not recovered, however long its start took.
        """
        now = self._clock()
        if forget:
            state.deaths = [death for death in state.deaths if death >= now - WITHIN]
        state.deaths.append(now)
        process, count = state.process, len(state.deaths)
        if count >= MAX_DEATHS:
            within = now - state.deaths[0]
            raise process.child.error(
                f"{what}, for the {count}th time within {within:.0f} s, and is given up"
            )
        back_off = FIRST_BACK_OFF * 2 ** (count - 1)
        state.due = now + back_off
        self._say(f"{process.name} {what} and is started again in {back_off:g} s ({count} of {MAX_DEATHS})")


def _start(process: ManagedProcess) -> None:
    process.kill()  # processes of its own that it has left behind
    process.start()


def _ended(code: int | None) -> str:
    """Return how a process has ended, for a message."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "a signal"
        return f"ended with {code} ({name})"
    return f"ended with {code}"
