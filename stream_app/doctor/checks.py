"""All checks of ``exporter doctor``, part by part."""

from collections.abc import AsyncIterator
from itertools import chain

from stream_app.db.engine import autocommitting, create_engine, outages_are_retryable
from stream_app.doctor.bucket import check_bucket
from stream_app.doctor.clocks import check_clocks
from stream_app.doctor.datasets import check_datasets
from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.doctor.plugins import check_plugins
from stream_app.doctor.state_database import check_state_database
from stream_app.doctor.topics import check_topics
from stream_app.doctor.unwise_settings import check_settings
from stream_app.exports.formats.registry import FORMAT_PLUGINS
from stream_app.exports.masks import MASK_PLUGINS
from stream_app.exports.source import Source
from stream_app.kafka.brokers import Brokers
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import ExporterError

TIMEOUT_SECONDS = 5.0

_SOURCE = """
    SELECT rolsuper, rolname, least(
        nullif(rolconnlimit, -1),
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    ) AS most
    FROM pg_roles WHERE rolname = current_user
"""


async def run_checks(settings: Settings, *, full: bool = False) -> AsyncIterator[Finding]:
    """Run all checks and yield each finding at once. A part that does not answer is one finding."""
    plugins = (*FORMAT_PLUGINS.plugins, *MASK_PLUGINS.plugins)
    own = (check_settings(settings), check_datasets(settings), check_plugins(plugins))
    for finding in chain(*own):
        yield finding
    engine = create_engine(settings, application="exporter doctor", pool_size=1, pool_timeout=TIMEOUT_SECONDS)
    # No transaction is open during a call of the object store.
    autocommit = autocommitting(engine)
    storage = ObjectStore(
        settings, connections=20, timeout_seconds=TIMEOUT_SECONDS, retry_seconds=TIMEOUT_SECONDS
    )
    brokers = Brokers(settings, client_id="exporter-doctor", timeout=TIMEOUT_SECONDS)
    source = Source(settings, connections=1)

    async def database() -> AsyncIterator[Finding]:
        with outages_are_retryable():
            async with engine.connect() as connection:
                async for finding in check_state_database(connection, settings):
                    yield finding

    async def bucket() -> AsyncIterator[Finding]:
        with outages_are_retryable():
            async with autocommit.connect() as connection:
                async for finding in check_bucket(connection, storage, settings, full=full):
                    yield finding

    async def clocks() -> AsyncIterator[Finding]:
        with outages_are_retryable():
            async with autocommit.connect() as connection:
                async for finding in check_clocks(connection, storage):
                    yield finding

    async def rows() -> AsyncIterator[Finding]:
        (row,) = await source.fetch(_SOURCE)
        yield FindingFactory("source").problem_if(
            row["rolsuper"],
            "role",
            f"the server answers; the role is {row['rolname']}",
            f"the role {row['rolname']} is a superuser",
            "set EXPORTER_SOURCE_DATABASE_URL to a role that can only SELECT the exported tables",
        )
        holders = 2 * settings.worker_slots + 1  # which keep the snapshots of exports with parts
        needed = settings.worker_slots * settings.source_streams + 1 + holders
        if needed > row["most"]:
            yield FindingFactory("source").warning(
                "connections",
                f"one worker uses up to {needed} connections, but the role can have {row['most']}",
                "allow the role more connections, or set EXPORTER_WORKER_SLOTS or EXPORTER_SOURCE_STREAMS to "
                "less",
            )

    parts = {
        "database": database(),
        "source": rows(),
        "kafka": check_topics(brokers, settings),
        "bucket": bucket(),
        "clocks": clocks(),
    }
    try:
        for name, findings in parts.items():
            try:
                async for finding in findings:
                    yield finding
            except ExporterError as error:
                yield FindingFactory(name).problem(
                    "answers", str(error), "check that it runs and that the settings are correct"
                )
    finally:
        storage.close()
        await brokers.close()
        await source.close()
        await engine.dispose()
