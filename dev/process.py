"""Child processes that end with their parent, and free TCP ports on the loopback interface."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from dev.cache import ServiceError

PORTS = range(20_000, 32_000)
"""The ports of :func:`free_ports`.

Kernels choose the local ports of outgoing connections above this range. So the port of a server is still free
when the server is started again.
"""

_given: set[int] = set()
"""Ports that this process has given away. A server that does not run keeps its port for its next start."""

_random = random.SystemRandom()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server can listen on ``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, to ignore TIME_WAIT
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ``count`` free ports, each only once. Another program can take one before it is used: retry."""
    found: list[int] = []
    while len(found) < count:
        port = _random.choice(PORTS)
        if port not in _given and is_free(port):
            _given.add(port)
            found.append(port)
    return sorted(found)


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server accepts connections on ``port``."""
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    return True


_LAUNCHER = Path(__file__).with_name("launch.py")

# The kernel sends the death signal when the *thread* that forked ends. This thread lives as long as the
# process, so it forks every child.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")


class Child:
    """A child process in a session of its own; ``log`` receives its output.

    Args:
        stop_signal: the signal that :meth:`stop` sends.
        death_signal: the signal that the kernel sends to the child when this process dies (Linux).
        user: account to run as; only root can set one.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        log.parent.mkdir(parents=True, exist_ok=True)
        launch = [sys.executable, "-I", "-S", _LAUNCHER, os.getpid(), int(death_signal), user or "-", *argv]
        self._process = _spawner.submit(self._spawn, [str(part) for part in launch], env, cwd).result()

    def _spawn(
        self, argv: list[str], env: Mapping[str, str] | None, cwd: Path | None
    ) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code; ``None`` while it runs; a negative number is the signal that ended it."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], bool], timeout: float, *, every: float = 0.03) -> None:
        """Poll ``ready`` until it returns True.

        Raises:
            ServiceError: the process ended, or ``timeout`` seconds passed; with the end of its log.
        """
        deadline = time.monotonic() + timeout
        while True:
            if self.exit_code is not None:
                raise self.error(f"exited with {self.exit_code} before it was ready")
            if ready():
                return
            if time.monotonic() > deadline:
                raise self.error(f"was not ready within {timeout:.0f} s")
            time.sleep(every)

    def stop(self, timeout: float = 15) -> None:
        """Send the stop signal, and kill the rest of its process group after ``timeout`` seconds."""
        if self.exit_code is None:
            self._process.send_signal(self._stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the whole process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def error(self, what: str) -> ServiceError:
        """Return an error with the process's name, ``what`` it did, and the end of its log."""
        return ServiceError(f"{self.name} {what}.\n{self.tail()}")

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of its log, below the path of the log."""
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        last = text.splitlines()[-lines:] or ["(empty)"]
        return "\n".join([f"--- {self.log}", *last])


class ManagedProcess(ABC):
    """A process that can be started, stopped, killed and started again. ``log`` receives its output."""

    name: str
    log: Path
    _child: Child | None = None

    @property
    def child(self) -> Child:
        """The process.

        Raises:
            ServiceError: it was never started.
        """
        if self._child is None:
            raise ServiceError(f"{self.name} was not started")
        return self._child

    @property
    def pid(self) -> int:
        """The process id."""
        return self.child.pid

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.exit_code is None

    @property
    @abstractmethod
    def address(self) -> str:
        """The address that is shown to users; empty for a process without one."""

    @abstractmethod
    def start(self) -> object:
        """Start the process and wait until it is ready.

        Raises:
            ServiceError: it ended or was not ready in time. The text has the end of its log.
        """

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether the process is ready. It can block for some seconds."""

    def wait_ready(self, child: Child, timeout: float) -> None:
        """Wait until ``child``, the new process, is ready; kill it after ``timeout`` seconds."""
        self._child = child
        try:
            child.wait_until(self.is_ready, timeout)
        except BaseException:
            child.kill()
            raise

    def stop(self, timeout: float = 15) -> None:
        """Stop the process, and kill it after ``timeout`` seconds. No effect if it does not run."""
        if self._child is not None:
            self._child.stop(timeout)

    def kill(self) -> None:
        """Send SIGKILL, as in a crash. No effect if the process does not run."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        """Stop the process if it runs, and start it again."""
        if self.running:
            self.stop()
        self.start()
