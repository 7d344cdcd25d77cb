"""The project's own processes: worker, ticker, API. EXPORTER_* variables configure them."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.process import Child

_ROOT = Path(__file__).parent.parent
_START_TIMEOUT = 90.0


class AppProcess:
    """One process of the project; it has the methods of a service: ``start stop kill restart pid``."""

    def __init__(self, name: str, arguments: Sequence[str], env: Mapping[str, str], run_dir: Path) -> None:
        self.name = name
        self.log = run_dir / "logs" / f"{name}.log"
        self._argv = [sys.executable, "-m", *arguments]
        self._ready_file = run_dir / f"{name}.ready"
        self._env = {**env, "EXPORTER_READY_FILE": str(self._ready_file)}
        self._child: Child | None = None

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            ServiceError: it ended or was not ready in time; with the end of its log.
        """
        self._ready_file.unlink(missing_ok=True)
        self._child = Child(self.name, self._argv, self.log, env=self._env, cwd=_ROOT)
        try:
            self._child.wait_until(self.is_ready, _START_TIMEOUT)
        except BaseException:
            self._child.kill()
            raise

    def is_ready(self) -> bool:
        """Return whether the process has created the file of EXPORTER_READY_FILE."""
        return self._ready_file.exists()

    @property
    def address(self) -> str:
        """The address to show to people; empty for processes without one."""
        return ""

    @property
    def child(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    def stop(self, timeout: float = 30) -> None:
        """Send SIGTERM, and SIGKILL after ``timeout`` seconds."""
        if self._child is not None:
            self._child.stop(timeout)

    def kill(self) -> None:
        """Send SIGKILL, as in a crash. No effect on a process that does not run."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        if self.running:
            self.stop()
        self.start()


class Ticker(AppProcess):
    """The ticker. It counts as ready as soon as it runs, since it publishes nothing before a minute ends."""

    def is_ready(self) -> bool:
        return True


class Api(AppProcess):
    """The API. It is ready when ``/readyz`` answers 200."""

    def __init__(self, name: str, port: int, env: Mapping[str, str], run_dir: Path) -> None:
        super().__init__(name, ["api", "--port", str(port)], env, run_dir)
        self.url = f"http://127.0.0.1:{port}"

    @property
    def address(self) -> str:
        return self.url

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=3) as answer:  # noqa: S310
                return bool(json.load(answer)) and answer.status == 200
        except (OSError, ValueError, urllib.error.URLError):
            return False
