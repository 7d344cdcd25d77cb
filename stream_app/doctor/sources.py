"""Checks the source databases: whether they answer, their roles, and the connections of a worker."""

from collections.abc import AsyncIterator

from stream_app.datasets.file import DatasetsFile, DatasetsFileError, load_datasets
from stream_app.datasets.models import DEFAULT_SOURCE
from stream_app.datasets.source_urls import url_or_fault
from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.exports.sources.registry import PoolSize, Sources, export_pools
from stream_app.exports.sources.source import Source
from stream_app.settings import Settings

_ROLE = """
    SELECT rolsuper, rolname, least(
        nullif(rolconnlimit, -1),
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    ) AS most
    FROM pg_roles WHERE rolname = current_user
"""


def open_sources(settings: Settings) -> tuple[Sources, list[Finding]]:
    """Return the sources whose URL is set, and a problem for each of the others.

    A datasets file that cannot be used is reported by another check; then there is the default source alone.
    """
    try:
        content = load_datasets(settings.datasets_file)
    except DatasetsFileError:
        content = DatasetsFile()
    usable, problems = {}, []
    for name, item in content.sources.items():
        url = url_or_fault(item)
        if isinstance(url, str):
            problems.append(FindingFactory(area_of(name)).problem("URL", "no_source_url", reason=url))
        else:
            usable[name] = item
    # The number of connections that the datasets file allows is compared below. Each check needs one.
    return Sources(settings, DatasetsFile(usable), PoolSize(1, lambda limit: 1)), problems


def area_of(name: str) -> str:
    """Return the area of findings about the source ``name``."""
    return "source" if name == DEFAULT_SOURCE else f"source {name}"


async def check_source(settings: Settings, source: Source, limit: int | None) -> AsyncIterator[Finding]:
    """Check one source. ``limit`` are its ``connections`` in the datasets file.

    Raises:
        Retryable: it does not answer.
    """
    area = FindingFactory(area_of(source.name))
    is_default = source.name == DEFAULT_SOURCE
    (row,) = await source.fetch(_ROLE)
    yield area.problem_if(
        row["rolsuper"],
        "role",
        f"the server answers; the role is {row['rolname']}",
        "superuser" if is_default else "superuser_of_source",
        role=row["rolname"],
    )
    needed = sum(size.connections_for(limit) for size in export_pools(settings))
    if needed > row["most"]:
        code = "few_connections" if is_default else "few_connections_of_source"
        yield area.warning("connections", code, needed=needed, most=row["most"])
