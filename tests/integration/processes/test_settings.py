"""The error of invalid settings when a process starts."""

import os
import subprocess
import sys

from tests.unit.test_settings import BAD, is_clear
from tests.waiting import patient


def test_processes_end_with_the_line_and_no_traceback() -> None:
    """P12: the processes are started as in a deployment."""
    for name in ("worker", "doctor"):
        ran = subprocess.run(
            [sys.executable, "-m", "producers", name],
            env={**os.environ, **BAD}, capture_output=True, text=True, timeout=patient(60), check=False,
        )  # fmt: skip
        assert ran.returncode == 2, ran.stderr
        assert is_clear(ran.stderr), ran.stderr
