"""Restarts the project's processes when they die, as an orchestrator does in a deployment."""

import time
from collections import defaultdict, deque
from collections.abc import Callable

from dev.app_process import AppProcess
from dev.cache import ServiceError
from dev.stack import Stack

MAX_DEATHS, WITHIN = 5, 60.0
"""A process that has died this often within this number of seconds is not restarted."""


class Supervision:
    """Watches the processes of a stack. The death of a service is an error, because its data can be lost.

    Args:
        say: receives one line for each process that is restarted.
    """

    def __init__(
        self, stack: Stack, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stack = stack
        self._say = say
        self._clock = clock
        self._deaths: defaultdict[str, deque[float]] = defaultdict(deque)

    def look(self) -> bool:
        """Restart a process that has died; return whether there was one.

        Raises:
            ServiceError: a service has died, or a process has died too often; with the end of its log.
        """
        dead = self._stack.dead()
        if dead is None:
            return False
        if not isinstance(dead, AppProcess):
            raise dead.child.error(f"ended with {dead.child.exit_code}")
        self._restart(dead)
        return True

    def _restart(self, app: AppProcess) -> None:
        while True:
            ended = f"ended with {app.child.exit_code}"
            deaths = self._deaths[app.name]
            now = self._clock()
            deaths.append(now)
            while deaths[0] < now - WITHIN:
                deaths.popleft()
            if len(deaths) >= MAX_DEATHS:
                raise app.child.error(f"{ended}, the {len(deaths)}th time within {WITHIN:.0f} s; giving up")
            self._say(f"{app.name} {ended} and is started again ({len(deaths)} of {MAX_DEATHS})")
            try:
                app.start()
            except ServiceError:
                continue  # it ended before it was ready, which counts as one more death
            return
