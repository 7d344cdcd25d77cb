"""The project's own processes: worker, ticker, API. EXPORTER_* variables configure them."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.process import Child, ManagedProcess

_ROOT = Path(__file__).parent.parent
START_TIMEOUT = 90.0
STOP_TIMEOUT = 30.0
"""Seconds that an app has to drain."""


class AppProcess(ManagedProcess):
    """One process of the project."""

    def __init__(self, name: str, arguments: Sequence[str], env: Mapping[str, str], run_dir: Path) -> None:
        self.name = name
        self.log = run_dir / "logs" / f"{name}.log"
        self._argv = [sys.executable, "-m", *arguments]
        self._ready_file = run_dir / f"{name}.ready"
        self._env = {**env, "EXPORTER_READY_FILE": str(self._ready_file)}

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self._ready_file.unlink(missing_ok=True)
        self.wait_ready(Child(self.name, self._argv, self.log, env=self._env, cwd=_ROOT), START_TIMEOUT)

    def is_ready(self) -> bool:
        """Return whether the process has created the file of EXPORTER_READY_FILE."""
        return self._ready_file.exists()

    @property
    def address(self) -> str:
        return ""

    def stop(self, timeout: float | None = None) -> None:
        """Send SIGTERM, and SIGKILL after ``timeout`` seconds, by default :data:`STOP_TIMEOUT`."""
        super().stop(STOP_TIMEOUT if timeout is None else timeout)


class TickerProcess(AppProcess):
    """The ticker. It counts as ready as soon as it runs, since it publishes nothing before a minute ends."""

    def is_ready(self) -> bool:
        return True


class ApiProcess(AppProcess):
    """The API. It is ready when ``/readyz`` answers 200."""

    def __init__(self, name: str, port: int, env: Mapping[str, str], run_dir: Path) -> None:
        super().__init__(name, ["api", "--port", str(port)], env, run_dir)
        self.url = f"http://127.0.0.1:{port}"

    @property
    def address(self) -> str:
        return self.url

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=3) as answer:  # noqa: S310 - the address of this machine
                return bool(json.load(answer)) and answer.status == 200
        except (OSError, ValueError, urllib.error.URLError):
            return False
