"""Keeps what one unit test changes in this process away from the others."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _unchanged_logging() -> Iterator[None]:
    """Restore the handlers of the root logger: commands add one that writes to the stream of their test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
