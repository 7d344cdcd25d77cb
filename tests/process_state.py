"""What tests of one process share, and what no test changes for the next: commands, TLS contexts, logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from tests import built_once

built_once.keep()

# structlog's default prints the locals of all frames, which takes seconds, and transactions end after 5 s.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

_configure_logs = structlog.configure


def _configure_without_cache(**settings: Any) -> None:
    """Configure structlog, whose cached loggers would keep this configuration in all later tests."""
    _configure_logs(**settings | {"cache_logger_on_first_use": False})


structlog.configure = _configure_without_cache  # type: ignore[assignment] # all calls name the settings


@contextmanager
def same_logs() -> Iterator[None]:
    """Leave structlog and the root logger as they were.

    A handler that a command has added writes into the output of that command, which is closed. The library
    would report that in the output of a later test.
    """
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(autouse=True)
def _same_logs() -> Iterator[None]:
    """Give the next test the logs as this one has found them."""
    with same_logs():
        yield
