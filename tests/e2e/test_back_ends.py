"""Exports work while back ends of traces and metrics hang, die or are unavailable."""

import socket
import time
from collections.abc import Iterator

import pytest

from dev.app_process import AppProcess
from dev.process import free_ports
from tests.e2e.conftest import System
from tests.e2e.test_logs import lines

FEW = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BSP_MAX_QUEUE_SIZE": "20",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
}
"""Settings with which the queue of spans is soon full."""

TIMEOUT = 60
"""Seconds for which the exporter of spans tries."""

QUICK = 25.0
"""Seconds in which a worker ends that does not wait for its back end: less than the SDK's own limit of 30."""


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A collector that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def alone(system: System, silent: socket.socket) -> Iterator[tuple[AppProcess, int]]:
    """The only worker, and the port of its metrics."""
    (port,) = free_ports(1)
    collector = "http://{}:{}".format(*silent.getsockname())
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_EXPORTER_OTLP_TIMEOUT": str(TIMEOUT),
        "EXPORTER_METRICS_PORT": str(port),
        **FEW,
    }
    system.worker.stop()
    worker = system.stack.start_worker(settings=system.extra | settings)
    yield worker, port
    worker.kill()
    system.worker.start()


@pytest.mark.slow
def test_exports_work_while_back_ends_hang_and_die(
    system: System, silent: socket.socket, alone: tuple[AppProcess, int]
) -> None:
    worker, port = alone
    hanging, killed = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    killed.sendall(b"GET /metrics HTTP/1.1\r\n")

    def five_exports() -> None:
        jobs = [system.ask(export_type="orders", format="csv", scope="all") for _ in range(5)]
        for job_id in jobs:
            assert system.ended(job_id)["status"] == "completed"

    five_exports()
    silent.close()
    killed.close()
    five_exports()
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < QUICK
    assert worker.child.exit_code == 0, worker.child.tail()
    hanging.close()
    events = [line["event"] for line in lines(worker.log)]
    assert events.count("tracing.started") == 1
    assert "Queue full, dropping Span." in events
