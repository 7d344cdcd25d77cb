"""Everything the calls need, built once."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import httpx
from fastapi import Depends, Request

from api.auth import Authenticator
from api.keys import Keys, PublishedKeys, SharedSecret
from producers.publisher import Publisher
from stream_app.delivery.addresses import Addressing
from stream_app.delivery.ledger import Ledger
from stream_app.delivery.links import Links
from stream_app.exports.catalog import Catalog
from stream_app.exports.datasets.base import Dataset
from stream_app.exports.datasets.registry import load_datasets
from stream_app.exports.formats.base import Format
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.source import Source
from stream_app.exports.storage import Storage
from stream_app.jobs.database import create_engine
from stream_app.jobs.records import JobRecords
from stream_app.jobs.store import JobStore
from stream_app.settings import Settings

NAME = "exporter-api"
SOURCE = "/exporter/api"
"""The ``source`` of events that the API publishes."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the calls work with."""

    settings: Settings
    datasets: Mapping[str, Dataset]
    formats: Mapping[str, Format]
    catalog: Catalog
    records: JobRecords
    store: JobStore
    storage: Storage
    addressing: Addressing
    ledger: Ledger
    links: Links
    publisher: Publisher
    authenticator: Authenticator


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Build everything; nothing is connected before it is needed, so the API starts while parts are down.

    Raises:
        DatasetsFileError: the datasets file is unusable.
    """
    datasets = load_datasets(settings.datasets_file)
    async with AsyncExitStack() as stack:
        # Orders hold a connection while Kafka is slow: they have their own pool, so that reads go on.
        reading = create_engine(settings, application=NAME)
        stack.push_async_callback(reading.dispose)
        writing = create_engine(settings, application=f"{NAME}-orders")
        stack.push_async_callback(writing.dispose)
        source = Source(settings, connections=4)
        stack.push_async_callback(source.close)
        publisher = await stack.enter_async_context(Publisher(settings, client_id=NAME, source=SOURCE))
        keys: Keys = SharedSecret(settings.jwt_secret.get_secret_value())
        if settings.jwt_jwks_url is not None:
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=5))
            keys = PublishedKeys(settings.jwt_jwks_url, http)
        yield Services(
            settings=settings,
            datasets=datasets,
            formats=FORMATS,
            catalog=Catalog(source.fetch),
            records=JobRecords(reading),
            store=JobStore(
                writing,
                lease=timedelta(seconds=settings.lease_seconds),
                user_slots=settings.user_slots,
                max_attempts=settings.max_attempts,
            ),
            storage=Storage(settings),
            addressing=Addressing.of(settings),
            ledger=Ledger(reading),
            links=Links(settings),
            publisher=publisher,
            authenticator=Authenticator(settings, keys),
        )


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Container = Annotated[Services, Depends(_services)]
