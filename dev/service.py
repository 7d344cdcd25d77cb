"""The base class of the stack's services."""

import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from dev.cache import ServiceError
from dev.process import Child, ManagedProcess


class Service(ManagedProcess):
    """One server. ``start()`` returns when it is ready; ``settings()`` has the variables of its clients.

    Ports and data stay the same after ``kill()`` and ``restart()``, so that tests can interrupt it.
    """

    start_timeout: ClassVar[float] = 90
    attempts: ClassVar[int] = 3
    """Limit of the tries of a start. Each try has new ports, in case another program has taken one."""

    def __init__(self, run_dir: Path) -> None:
        self.data_dir = run_dir / self.name
        self.log = run_dir / "logs" / f"{self.name}.log"
        self.report: Callable[[str], None] = lambda _: None
        """Receives a text before a step that takes longer than usual."""
        self._started = False
        self._abandoned = False

    @abstractmethod
    def choose_ports(self) -> None:
        """Choose free ports and write the files that depend on them."""

    @abstractmethod
    def prepare(self) -> None:
        """Create the data folder; called once."""

    @abstractmethod
    def spawn(self) -> Child:
        """Start the process."""

    def after_start(self) -> None:
        """Create databases or buckets after the first start."""

    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """Return the EXPORTER_* variables of a client of this service."""

    def start(self) -> Mapping[str, str]:
        """Start it, wait until it is ready, return ``settings()``.

        Raises:
            ServiceError: it ended or was not ready in time; with the end of its log.
        """
        if self._started:
            self._spawn_and_wait()
            return self.settings()
        self.prepare()
        for attempt in range(1, self.attempts + 1):
            self.choose_ports()
            try:
                self._spawn_and_wait()
                break
            except ServiceError:
                if self._abandoned or attempt == self.attempts or not self._lost_a_port():
                    raise
        self._started = True
        self.after_start()
        return self.settings()

    def _spawn_and_wait(self) -> None:
        if self._abandoned:
            raise ServiceError(f"{self.name} was abandoned")
        self.wait_ready(self.spawn(), self.start_timeout)

    def _lost_a_port(self) -> bool:
        return "address already in use" in self.child.tail(60).lower()

    def abandon(self) -> None:
        """End a start for which another thread waits. The service cannot be started again."""
        self._abandoned = True
        if self._child is not None:
            self._child.kill()

    def discard(self) -> None:
        """Remove its data and keep the log."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
