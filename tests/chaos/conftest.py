"""The session's stack for tests that interrupt it. Each module has its own part of the stack."""

import logging
from collections.abc import Iterator

import pytest

from dev.postgres import SOURCE
from dev.stack import Stack
from tests.chaos.items import BUNDLES, DATASETS, TABLES, Source
from tests.e2e.tables import psql
from tests.measurement import unmeasured
from tests.stacks import own_part


def prepare(stack: Stack) -> dict[str, str]:
    """Create the tables, once; return the settings with which workers export them."""
    datasets = stack.run_dir / "chaos-datasets.toml"
    if not datasets.exists():
        psql(stack, TABLES)
        datasets.write_text(DATASETS + BUNDLES)
    return {"EXPORTER_DATASETS_FILE": str(datasets)}


@pytest.fixture(autouse=True, scope="module")  # the scope of a package without __init__.py is the session
def _unmeasured() -> Iterator[None]:
    """Measure no coverage: a killed worker cannot save what it measured, and other tests reach the lines."""
    with unmeasured():
        yield


@pytest.fixture(autouse=True, scope="package")
def _quiet() -> None:
    """Suppress the logs of clients whose broker the test stops."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
def stack(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Kafka, PostgreSQL and S3 with the service's tables, and no running process of the project."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    with own_part(stack, name) as part:
        yield part


@pytest.fixture(scope="module")
def datasets(stack: Stack) -> dict[str, str]:
    """The settings that make the tables of this folder exportable."""
    return prepare(stack)


@pytest.fixture(scope="module")
def source(stack: Stack) -> Source:
    """The rows that exports must have."""
    return Source(stack.postgres.admin_url(SOURCE))
