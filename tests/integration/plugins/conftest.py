"""A database for the conformance suite of plug-ins."""

from collections.abc import Iterator

import pytest

from stream_app.plugins.conformance.database import ConformanceDatabase


@pytest.fixture(scope="session")
def conformance_database(source_dsn: str) -> Iterator[ConformanceDatabase]:
    """A schema of the source database."""
    database = ConformanceDatabase(source_dsn)
    database.create()
    yield database
    database.drop()
