"""All checks of ``exporter doctor``, part by part."""

from collections.abc import AsyncIterator
from itertools import chain

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
from stream_app.kafka.brokers import Brokers
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import ExporterError

TIMEOUT_SECONDS = 5.0


async def run_checks(
    settings: Settings, *, full: bool = False, part: Part = Part.ALL
) -> AsyncIterator[Finding]:
    """Run all checks and yield each finding at once. A system that does not answer is one finding.

    Args:
        settings: the settings.
        full: check every file and job, not a sample.
        part: the part of the service that has these settings. What it never uses is not checked.
    """
    plugins = (*FORMAT_PLUGINS.plugins, *MASK_PLUGINS.plugins)
    own = (
        *(check_settings(settings, part), check_datasets(settings), check_destinations(settings)),
        *(check_plugins(plugins), check_temporary_folder(settings) if part.writes_files else ()),
    )
    for finding in chain(*own):
        yield finding
    engine = create_engine(settings, application="exporter doctor", pool_size=1, pool_timeout=TIMEOUT_SECONDS)
    # No transaction is open during a call of the object store.
    autocommit = autocommitting(engine)
    storage = ObjectStore(
        settings, connections=20, timeout_seconds=TIMEOUT_SECONDS, retry_seconds=TIMEOUT_SECONDS
    )
    brokers = Brokers(settings, client_id="exporter-doctor", timeout=TIMEOUT_SECONDS)
    sources, faults = open_sources(settings)
    for finding in faults:
        yield finding

    async def database() -> AsyncIterator[Finding]:
        with outages_are_retryable():
            async with engine.connect() as connection:
                async for finding in check_state_database(connection, settings):
                    yield finding

    async def bucket() -> AsyncIterator[Finding]:
        with outages_are_retryable():
            async with autocommit.connect() as connection:
                async for finding in check_bucket(connection, storage, settings, full=full, part=part):
                    yield finding

    async def clocks() -> AsyncIterator[Finding]:
        with outages_are_retryable():
            async with autocommit.connect() as connection:
                async for finding in check_clocks(connection, storage):
                    yield finding

    async def kafka() -> AsyncIterator[Finding]:
        async for finding in check_topics(brokers, settings):
            yield finding
        with outages_are_retryable():
            async with autocommit.connect() as connection:
                yield await check_dead_letters(connection, brokers, settings)

    parts = {
        "database": database(),
        **{
            area_of(name): check_source(settings, source, sources.limit_of(name))
            for name, source in sources.items()
        },
        "datasets": check_tables(settings),
        "kafka": kafka(),
        "bucket": bucket(),
        "clocks": clocks(),
    }
    seen = Causes()
    try:
        for name, findings in parts.items():
            try:
                async for finding in findings:
                    if (one := seen.first(finding)) is not None:
                        yield one
            except ExporterError as error:
                found = FindingFactory(name).problem_of(error)
                if (one := seen.first(found)) is not None:
                    yield one
    finally:
        storage.close()
        await brokers.close()
        await sources.close()
        await engine.dispose()
