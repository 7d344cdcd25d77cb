"""Fixtures with real services."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev import app_process, process
from dev.postgres import SOURCE, STATE
from dev.service import Service
from dev.stack import Stack
from stream_app.db.engine import create_engine
from stream_app.exports.sources.source import Source
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from tests.state_databases import TEMPLATE, StateDatabases, create_database, database
from tests.waiting import patient

ROOT = Path(__file__).parent.parent
LEDGER_ROWS = 3_000

Service.start_timeout = patient(Service.start_timeout)
app_process.START_TIMEOUT = patient(app_process.START_TIMEOUT)
app_process.STOP_TIMEOUT = patient(app_process.STOP_TIMEOUT)

# Each process has ports of its own: a server that a test has stopped must find its port free.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
process.PORTS = process.PORTS[_worker % _workers :: _workers]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Kafka, PostgreSQL, S3 and SMTP with the sample data and the service's tables."""
    (ROOT / ".local").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=ROOT / ".local"))
    with Stack(folder, ledger_rows=LEDGER_ROWS, keep_logs=False) as running:
        asyncio.run(create_database(running, TEMPLATE, STATE))  # a database with connections cannot be copied
        yield running


@pytest.fixture(scope="session")
def settings(stack: Stack) -> Settings:
    """The settings of the stack."""
    variables = stack.settings()
    fields = {name.removeprefix("EXPORTER_").lower(): value for name, value in variables.items()}
    return Settings(_env_file=None, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def source_dsn(stack: Stack) -> str:
    """The URL of the source database for a superuser, for tests that create tables there."""
    return stack.postgres.admin_url(SOURCE)


@pytest.fixture
async def source(settings: Settings) -> AsyncIterator[Source]:
    """The source as the service uses it, read only."""
    opened = Source(settings, connections=4)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def storage(settings: Settings) -> ObjectStore:
    """The bucket."""
    store = ObjectStore(settings)
    store.ensure_bucket()
    return store


@pytest.fixture(scope="session")
def template(stack: Stack) -> str:
    """The name of a migrated state database without rows that tests copy."""
    return TEMPLATE


@pytest.fixture(scope="session")
def state_databases(stack: Stack, settings: Settings, template: str) -> StateDatabases:
    """Migrated state databases, each for one test at a time."""
    return StateDatabases(stack, settings, template)


@pytest.fixture
async def empty_settings(stack: Stack, settings: Settings) -> AsyncIterator[Settings]:
    """Settings with a separate state database for the test, without tables."""
    async with database(stack, settings) as own:
        yield own


@pytest.fixture
async def own_settings(state_databases: StateDatabases) -> AsyncIterator[Settings]:
    """Settings with a separate, migrated state database for the test."""
    async with state_databases.one() as own:
        yield own


@pytest.fixture
async def engine(own_settings: Settings) -> AsyncIterator[AsyncEngine]:
    """The engine of the test's own state database."""
    created = create_engine(own_settings, application="test")
    yield created
    await created.dispose()
