"""All checks of ``exporter doctor``, part by part."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, create_engine, outages_are_retryable
from stream_app.doctor.bucket import check_bucket
from stream_app.doctor.causes import Causes
from stream_app.doctor.clocks import check_clocks
from stream_app.doctor.datasets import check_datasets, check_destinations, check_tables
from stream_app.doctor.dead_letters import check_dead_letters
from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.doctor.part import Part
from stream_app.doctor.plugins import check_plugins
from stream_app.doctor.sources import area_of, check_source, open_sources
from stream_app.doctor.state_database import check_state_database
from stream_app.doctor.temporary_folder import check_temporary_folder
from stream_app.doctor.topics import check_topics
from stream_app.doctor.unwise_settings import check_settings
from stream_app.exports.formats.registry import FORMAT_PLUGINS
from stream_app.exports.masks.registry import MASK_PLUGINS
from stream_app.exports.sources.registry import Sources
from stream_app.kafka.brokers import Brokers
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import ExporterError

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Systems:
    """The clients of the checked systems.

    Attributes:
        settings: the settings.
        engine: the state database.
        autocommit: the same without transactions. None is open during a call of another system.
        storage: the object store.
        brokers: Kafka.
        sources: the source databases.
        faults: what is wrong with the settings of sources.
    """

    settings: Settings
    engine: AsyncEngine
    autocommit: AsyncEngine
    storage: ObjectStore
    brokers: Brokers
    sources: Sources
    faults: Sequence[Finding]


async def run_checks(
    settings: Settings, *, full: bool = False, part: Part = Part.ALL
) -> AsyncIterator[Finding]:
    """Run all checks and yield each finding at once. A system that does not answer is one finding.

    Args:
        settings: the settings.
        full: check every file and job, not a sample.
        part: the part of the service that has these settings. What it never uses is not checked.
    """
    for finding in _check_own(settings, part):
        yield finding
    async with _open_systems(settings) as systems:
        for finding in systems.faults:
            yield finding
        seen = Causes()
        async for finding in _check_systems(systems, full=full, part=part):
            if (shown := seen.first(finding)) is not None:
                yield shown


def _check_own(settings: Settings, part: Part) -> Iterator[Finding]:
    """Check what needs no other system."""
    yield from check_settings(settings, part)
    yield from check_datasets(settings)
    yield from check_destinations(settings)
    yield from check_plugins((*FORMAT_PLUGINS.plugins, *MASK_PLUGINS.plugins))
    if part.writes_files:
        yield from check_temporary_folder(settings)


@asynccontextmanager
async def _open_systems(settings: Settings) -> AsyncIterator[_Systems]:
    """Make the clients. They connect on first use, and all are closed at the end."""
    async with AsyncExitStack() as stack:
        engine = create_engine(
            settings, application="exporter doctor", pool_size=1, pool_timeout=TIMEOUT_SECONDS
        )
        stack.push_async_callback(engine.dispose)
        sources, faults = open_sources(settings)
        stack.push_async_callback(sources.close)
        brokers = Brokers(settings, client_id="exporter-doctor", timeout=TIMEOUT_SECONDS)
        stack.push_async_callback(brokers.close)
        storage = ObjectStore(
            settings, connections=20, timeout_seconds=TIMEOUT_SECONDS, retry_seconds=TIMEOUT_SECONDS
        )
        stack.callback(storage.close)
        yield _Systems(settings, engine, autocommitting(engine), storage, brokers, sources, faults)


async def _check_systems(systems: _Systems, *, full: bool, part: Part) -> AsyncIterator[Finding]:
    """Check one system after the other."""
    areas = {
        "database": _check_database(systems),
        **{
            area_of(name): check_source(systems.settings, source, systems.sources.limit_of(name))
            for name, source in systems.sources.items()
        },
        "datasets": check_tables(systems.settings),
        "kafka": _check_kafka(systems),
        "bucket": _check_bucket(systems, full=full, part=part),
        "clocks": _check_clocks(systems),
    }
    for area, findings in areas.items():
        try:
            async for finding in findings:
                yield finding
        except ExporterError as error:
            yield FindingFactory(area).problem_of(error)


async def _check_database(systems: _Systems) -> AsyncIterator[Finding]:
    with outages_are_retryable():
        async with systems.engine.connect() as connection:
            async for finding in check_state_database(connection, systems.settings):
                yield finding


async def _check_kafka(systems: _Systems) -> AsyncIterator[Finding]:
    async for finding in check_topics(systems.brokers, systems.settings):
        yield finding
    with outages_are_retryable():
        async with systems.autocommit.connect() as connection:
            yield await check_dead_letters(connection, systems.brokers, systems.settings)


async def _check_bucket(systems: _Systems, *, full: bool, part: Part) -> AsyncIterator[Finding]:
    storage, settings = systems.storage, systems.settings
    with outages_are_retryable():
        async with systems.autocommit.connect() as connection:
            async for finding in check_bucket(connection, storage, settings, full=full, part=part):
                yield finding


async def _check_clocks(systems: _Systems) -> AsyncIterator[Finding]:
    with outages_are_retryable():
        async with systems.autocommit.connect() as connection:
            async for finding in check_clocks(connection, systems.storage):
                yield finding
