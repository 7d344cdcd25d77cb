"""Processes use little memory, and it does not grow with the number of rows."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.app_process import AppProcess
from tests.e2e.conftest import System

pytestmark = pytest.mark.slow

MEGABYTE = 2**20


def memory(pid: int, field: str) -> int:
    """Return bytes from ``/proc/PID/status``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field}")


@pytest.mark.parametrize(
    ("start", "budget"),
    [
        (lambda system: system.stack.start_worker(settings=system.extra), 150),
        (lambda system: system.stack.start_api(settings=system.extra), 125),
    ],
    ids=["worker", "api"],
)
def test_an_idle_process_is_small(
    system: System, start: Callable[[System], AppProcess], budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)  # the measurement of coverage takes memory too
    process = start(system)
    try:
        time.sleep(2)  # by now the late imports are done
        assert memory(process.pid, "VmRSS") < budget * MEGABYTE
    finally:
        process.stop()


def test_a_million_rows_in_constant_memory(system: System) -> None:
    streams = 2
    worker = system.stack.start_worker(settings={**system.extra, "EXPORTER_SOURCE_STREAMS": str(streams)})
    system.worker.stop()
    try:
        small = system.ask(export_type="orders", format="csv", scope="all")
        system.ended(small)
        idle = memory(worker.pid, "VmRSS")
        job = system.ended(system.ask(export_type="million", format="csv", scope="all"), within=120)
        assert job["row_count"] == 1_000_000
        assert job["file_size"] > 250 * MEGABYTE
        assert memory(worker.pid, "VmHWM") - idle < (60 + 16 * streams) * MEGABYTE
    finally:
        system.worker.start()
        worker.stop()
