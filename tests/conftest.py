"""Real services for all tests that ask for them: one stack for a whole run."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from local.postgres import SOURCE, STATE
from local.stack import Stack
from stream_app.delivery import models as _delivery  # noqa: F401 - its tables are in the metadata
from stream_app.exports.source import Source
from stream_app.exports.storage import Storage
from stream_app.jobs.database import create_engine
from stream_app.jobs.models import Base
from stream_app.schedules import models as _schedules  # noqa: F401 - its tables are in the metadata
from stream_app.settings import Settings

ROOT = Path(__file__).parent.parent
LEDGER_ROWS = 3_000


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Kafka, PostgreSQL, S3 and SMTP with the sample data and the service's tables."""
    (ROOT / ".local").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=ROOT / ".local"))
    with Stack(folder, ledger_rows=LEDGER_ROWS, keep_logs=False) as running:
        yield running


@pytest.fixture(scope="session")
def settings(stack: Stack) -> Settings:
    """The settings that lead to the stack."""
    variables = stack.settings()
    fields = {name.removeprefix("EXPORTER_").lower(): value for name, value in variables.items()}
    return Settings(_env_file=None, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def source_dsn(stack: Stack) -> str:
    """The source database, as superuser: for tests that make tables there."""
    return stack.postgres.admin_url(SOURCE)


@pytest.fixture
async def source(settings: Settings) -> AsyncIterator[Source]:
    """The source as the service sees it: read only."""
    opened = Source(settings, connections=4)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def storage(settings: Settings) -> Storage:
    """The bucket."""
    store = Storage(settings)
    store.ensure_bucket()
    return store


@pytest.fixture
async def own_settings(stack: Stack, settings: Settings) -> AsyncIterator[Settings]:
    """Settings with an empty state database of the test's own."""
    name = f"test_{uuid4().hex}"
    url = settings.database_url.get_secret_value().rpartition("/")[0]
    admin = await asyncpg.connect(stack.postgres.admin_url())
    await admin.execute(f"CREATE DATABASE {name} OWNER {STATE}")
    yield settings.model_copy(update={"database_url": SecretStr(f"{url}/{name}")})
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def engine(own_settings: Settings) -> AsyncIterator[AsyncEngine]:
    """A state database of the test's own, with its tables."""
    created = create_engine(own_settings, application="test")
    async with created.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield created
    await created.dispose()


@pytest.fixture(autouse=True, scope="session")
def _unconfigured() -> None:
    """Tests find their own services: what the caller's environment configures is not for them."""
    for name in [name for name in os.environ if name.startswith("EXPORTER_")]:
        del os.environ[name]
