"""Where coverage is not measured: in tests that only repeat lines which others reach, and in what they start.

The measurement takes 60 % more processor time.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import coverage
import pytest


@contextmanager
def unmeasured() -> Iterator[None]:
    """Measure neither this process during the block nor the processes that start in it.

    Several measurements run in a process of pytest-xdist, because each process that starts has one. The mark
    ``no_cover`` of pytest-cov stops only the latest, and starts it again within a block that this function
    has stopped. Blocks can be nested.
    """
    stopped: list[coverage.Coverage] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
            patch.delenv(name)
        while (running := coverage.Coverage.current()) is not None:
            running.stop()
            stopped.append(running)
        try:
            yield
        finally:
            for each in reversed(stopped):
                each.start()
