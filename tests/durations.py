"""How long tests took: those that take long begin first, so that no process ends late.

``tests/durations.json`` has the seconds of each test that takes over :data:`LEAST`. The numbers only order
the files. They need not be exact, and a test that is missing there still runs.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

FILE = Path(__file__).with_suffix(".json")

LEAST = 1.0
"""Tests that take fewer seconds are not recorded."""


def recorded() -> dict[str, float]:
    """Return the seconds of tests by node id."""
    seconds: dict[str, float] = json.loads(FILE.read_text("utf-8"))
    return seconds


class Recorder:
    """Writes the durations of the tests of this run into :data:`FILE`, with their fixtures."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        seconds = recorded() | self._seconds
        kept = {name: round(seconds[name], 1) for name in sorted(seconds) if seconds[name] >= LEAST}
        FILE.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
