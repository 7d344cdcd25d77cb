"""Keeps what one unit test changes in this process away from the others."""

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _same_logs() -> Iterator[None]:
    """Restore structlog and the root logger, to which commands add a handler for the stream of their test.

    It replaces the fixture of :mod:`tests.process_state`: a second one takes time in thousands of tests.
    """
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)
