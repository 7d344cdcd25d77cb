"""Where coverage is not measured: in tests that only repeat lines which others reach, and in what they start.

The measurement takes about half as much processor time again as what is measured.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import coverage
import pytest


@contextmanager
def unmeasured() -> Iterator[None]:
    """Measure neither this process during the block nor the processes that start in it."""
    running = coverage.Coverage.current()
    with processes_unmeasured():
        if running is not None:
            running.stop()
        try:
            yield
        finally:
            if running is not None and coverage.Coverage.current() is None:
                running.start()


@contextmanager
def processes_unmeasured() -> Iterator[None]:
    """Do not measure the processes that start during the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
            patch.delenv(name)
        yield
