"""Runs the API in this process, on the real services, with a separate state database."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from api import services
from api.app import create_app
from api.datasets import routes
from api.jobs import estimates
from api.operations import readiness
from api.services import ApiServices
from dev.stack import Stack
from producers.tokens import sign_token
from stream_app.datasets.file import DatasetsFile
from stream_app.datasets.models import Dataset
from stream_app.datasets.registry import Datasets
from stream_app.db.engine import create_engine, driver_connection
from stream_app.jobs.job_queries import JobQueries
from stream_app.jobs.models import Base, ExportJob
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import Event, Topic
from streaming_exporter.kafka_connection import ensure_topics
from tests.state_databases import create_database, with_database
from tests.topics import events_on
from tests.waiting import WITHIN, patient

EMPTY = "; ".join(f"DELETE FROM {table}" for table in reversed(Base.metadata.sorted_tables))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of a module that call the same API in the event loop of this API."""
    for item in items:
        if "api" in getattr(item, "fixturenames", ()) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


def changed(settings: Settings, **changes: Any) -> Settings:
    """Return changed settings, without cached values of the old ones, unlike ``model_copy``."""
    return Settings(_env_file=None, **settings.model_dump() | changes)


@asynccontextmanager
async def running(settings: Settings, *, again: FastAPI | None = None) -> AsyncIterator[FastAPI]:
    """Run the application during the block: a new one, or one with these settings that has run before.

    The first call to a new application takes 40 ms of processor time, in which FastAPI prepares the routes.
    """
    app = again or create_app(settings)
    app.middleware_stack = None  # limits of calls begin to count anew
    async with app.router.lifespan_context(app):
        yield app


def client_of(app: FastAPI, token: str | None) -> httpx2.AsyncClient:
    """Return a client of ``app`` that sends ``token``."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api", headers=headers)


@dataclass
class Harness:
    """The API, its database, and clients for it."""

    app: FastAPI
    settings: Settings
    engine: AsyncEngine
    queries: JobQueries
    services: ApiServices
    """The services of the application. Tests can give it changed ones, which end with the test."""

    def user(self, *roles: str, user_id: str | None = None, **claims: Any) -> httpx2.AsyncClient:
        """Return a client for a user, by default for a new user."""
        user = user_id or f"user-{uuid4()}"
        return client_of(self.app, sign_token(self.settings, user, roles, claims=claims))

    def use(self, **services: Any) -> None:
        """Give the application these services in place of its own, until the test ends."""
        self.app.state.services = replace(self.services, **services)

    def datasets_with(self, *datasets: Dataset) -> Datasets:
        """Return the datasets of the API, with further ones or with others of the same names."""
        content: DatasetsFile = self.app.state.services.datasets.content
        changed = {**content.datasets, **{item.name: item for item in datasets}}
        return Datasets(replace(content, datasets=changed))

    async def set(self, job_id: str | UUID, **values: Any) -> None:
        """Change the record of a job as a worker would."""
        async with self.engine.begin() as connection:
            await connection.execute(
                update(ExportJob).where(ExportJob.id == UUID(str(job_id))).values(**values)
            )

    async def count(self) -> int:
        """Return the number of jobs."""
        async with self.engine.connect() as connection:
            return await connection.scalar(text("SELECT count(*) FROM export_jobs")) or 0

    async def published(self, about: str | UUID) -> list[Event]:
        """Return the events about a job on the topic of requests, after waiting events are published."""
        await self.app.state.services.relay.settle()
        return [
            event
            for event in await events_on(self.settings, Topic.REQUESTS)
            if str(event.job_id) == str(about)
        ]


@asynccontextmanager
async def harness_of(settings: Settings, *, again: FastAPI | None = None) -> AsyncIterator[Harness]:
    """Run the application as :func:`running` does."""
    engine = create_engine(settings, application="test")
    async with running(settings, again=again) as app:
        yield Harness(app, settings, engine, JobQueries(engine), app.state.services)
    await engine.dispose()


LIMITS_OF_CALLS = (
    (routes, "CATALOGUE_SECONDS"),
    (readiness, "CHECK_TIMEOUT_SECONDS"),
    (services, "TABLE_SECONDS"),
)
"""Time limits of calls for which a user waits, by module. An answer is another one when they are over."""


@pytest.fixture(autouse=True, scope="module")
def _unhurried() -> Iterator[None]:
    """Let calls take as long as waits of tests, so that a busy machine changes no answer.

    The time-outs of estimates make a number a lower limit. Tests of a time limit set it.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name in LIMITS_OF_CALLS:
            patch.setattr(module, name, patient(WITHIN))
        patch.setattr(services, "ObjectStore", _patient_store)
        patch.setattr(estimates, "SECONDS", 2 * patient(WITHIN))  # half of it is the time-out of locks
        for name in ("SAMPLE_MILLISECONDS", "COUNT_MILLISECONDS"):
            patch.setattr(estimates, name, round(patient(WITHIN) * 1_000))
        yield


def _patient_store(settings: Settings, **options: Any) -> ObjectStore:
    return ObjectStore(settings, **options | {"timeout_seconds": patient(WITHIN)})


@pytest.fixture(scope="session")
def api_settings(stack: Stack, settings: Settings, template: str) -> Settings:
    """The stack's settings, with a state database that no worker uses."""

    async def create() -> None:
        await create_database(stack, "api_tests", template)
        await ensure_topics(settings)

    asyncio.run(create())
    url = with_database(settings, "api_tests").database_url
    return changed(settings, database_url=url)


@pytest.fixture(scope="session")
def application(api_settings: Settings) -> FastAPI:
    """The application that tests run one after the other."""
    return create_app(api_settings)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lasting(api_settings: Settings, application: FastAPI) -> AsyncIterator[Harness]:
    """The API, which runs for all tests of a module: a new one connects anew, and prepares its statements."""
    async with harness_of(api_settings, again=application) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def api(lasting: Harness) -> Harness:
    """The running API. Nothing in its database, its limits and its services is left of other tests."""
    lasting.app.state.services = lasting.services
    lasting.app.middleware_stack = None  # limits of calls begin to count anew
    await lasting.services.relay.settle()
    async with lasting.engine.begin() as connection:
        await driver_connection(connection).execute(EMPTY)
    return lasting


def order(**changes: Any) -> dict[str, Any]:
    """Return the body of a small request."""
    return {"export_type": "ledger", "format": "csv", **changes}
