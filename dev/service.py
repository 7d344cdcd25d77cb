"""The shape that every service of the stack has."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from dev.cache import ServiceError
from dev.process import Child


class Service(ABC):
    """One server: ``start()`` it, and it answers; ``settings()`` says how to reach it.

    Ports and data stay the same over ``kill()`` and ``restart()``, so that a test can break it.
    """

    name: str
    start_timeout: ClassVar[float] = 90
    attempts: ClassVar[int] = 3
    """Starts with new ports when another program was quicker to take one."""

    def __init__(self, run_dir: Path) -> None:
        self.data_dir = run_dir / self.name
        self.log = run_dir / "logs" / f"{self.name}.log"
        self.report: Callable[[str], None] = lambda _: None
        """Hears of a step that takes longer than usual."""
        self._child: Child | None = None
        self._started = False
        self._abandoned = False

    @abstractmethod
    def choose_ports(self) -> None:
        """Take free ports and write what depends on them."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder, once."""

    @abstractmethod
    def spawn(self) -> Child:
        """Start the process."""

    @abstractmethod
    def is_ready(self) -> bool:
        """One real call that a client would make. False: not yet. May block for a second or two."""

    def after_start(self) -> None:  # noqa: B027 - most add nothing
        """What the first start adds: databases, buckets."""

    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """The EXPORTER_* variables that lead a client here, with the prefix."""

    @property
    @abstractmethod
    def address(self) -> str:
        """For people."""

    def start(self) -> Mapping[str, str]:
        """Start, wait until it answers, return ``settings()``.

        Raises:
            ServiceError: it ended or did not answer in time; with the end of its log.
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
            raise ServiceError(f"{self.name} was given up")
        self._child = self.spawn()
        try:
            self._child.wait_until(self.is_ready, self.start_timeout)
        except BaseException:
            self._child.kill()
            raise

    def _lost_a_port(self) -> bool:
        return "address already in use" in self.child.tail(60).lower()

    @property
    def child(self) -> Child:
        """The process; raises where it was never started."""
        if self._child is None:
            raise ServiceError(f"{self.name} was not started")
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    def stop(self) -> None:
        """End it in order. Harmless where it does not run."""
        if self._child is not None:
            self._child.stop()

    def abandon(self) -> None:
        """End a start that another thread is waiting for; there is no way back."""
        self._abandoned = True
        if self._child is not None:
            self._child.kill()

    def discard(self) -> None:
        """Remove its data; the log stays."""
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.child.kill()

    def restart(self) -> None:
        """Start it again on the same ports and data, after ``stop()`` or ``kill()``."""
        if self.running:
            self.stop()
        self.start()
