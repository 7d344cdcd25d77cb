"""Freezes a service: it accepts connections, does not answer, and continues later."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from dev.service import Service


@contextmanager
def frozen(service: Service) -> Iterator[None]:
    """Stop all processes of the service during the block. Processes of PostgreSQL have their own groups."""
    _send(service, signal.SIGSTOP)
    try:
        yield
    finally:
        _send(service, signal.SIGCONT)


def _send(service: Service, what: signal.Signals) -> None:
    parent = psutil.Process(service.pid)
    for process in [parent, *parent.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(what)
