"""A fake API for tests that need one."""

from collections.abc import Iterator

import pytest

from tests.unit.producers.fake_server import FakeServer, fake_server


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server that stands in for the API and the object store."""
    with fake_server() as running:
        yield running
