"""A fake API for each test that wants one."""

from collections.abc import Iterator

import pytest

from tests.unit.producers.fake_server import FakeServer, fake_server


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Plays the API and the object store."""
    with fake_server() as running:
        yield running
