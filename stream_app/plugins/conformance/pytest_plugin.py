"""The fixtures of the conformance suite. A test package names this module in its ``pytest_plugins``."""

from collections.abc import Iterator

import pytest

from stream_app.plugins.conformance.database import ConformanceDatabase

OPTION = "--exporter-database"

pytest.register_assert_rewrite(
    "stream_app.plugins.conformance.formats", "stream_app.plugins.conformance.masks"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the database."""
    parser.getgroup("streaming-exporter").addoption(
        OPTION,
        metavar="URL",
        help="PostgreSQL database in which the conformance suite creates a schema",
    )


@pytest.fixture(scope="session")
def conformance_database(request: pytest.FixtureRequest) -> Iterator[ConformanceDatabase]:
    """A schema of its own in a PostgreSQL database, which is removed at the end."""
    url = request.config.getoption(OPTION, None)
    if not url:
        pytest.fail(f"the conformance suite needs a PostgreSQL database: set {OPTION} to its URL")
    database = ConformanceDatabase(url)
    database.create()
    yield database
    database.drop()
