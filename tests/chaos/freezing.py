"""A frozen service: it accepts connections, answers nothing, and continues later."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from dev.service import Service


@contextmanager
def frozen(service: Service) -> Iterator[None]:
    """Stop all processes of the service during the block; those of PostgreSQL have groups of their own."""
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
