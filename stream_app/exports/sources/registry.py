"""The source databases of a process: the default one, and those of the datasets file, each with its own pool.

A source that is away or slow holds up only the work on its own datasets: no connection, no limit and no state
is shared between sources.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import SecretStr

from stream_app.database_url import DatabaseUrl
from stream_app.datasets.file import DatasetsFile
from stream_app.datasets.models import DEFAULT_SOURCE, Dataset, SourceSettings
from stream_app.datasets.source_urls import source_urls
from stream_app.exports.sources.source import Source
from stream_app.settings import Settings
from streaming_exporter.errors import Outage


class SourceFinder(Protocol):
    """Finds the source database of a dataset."""

    def source_for(self, dataset: Dataset) -> Source:
        """Return the source of ``dataset``."""

    def each(self) -> Sequence[Source]:
        """Return all sources."""


@dataclass(frozen=True, slots=True)
class PoolSize:
    """The connections of one of a process's pools.

    Attributes:
        usual: connections to a source whose number is not limited.
        share: returns how many of a source's limited connections the pool has.
    """

    usual: int
    share: Callable[[int], int]

    def connections_for(self, limit: int | None) -> int:
        """Return the connections to a source with this limit."""
        return self.usual if limit is None else min(self.usual, self.share(limit))


def export_pools(settings: Settings) -> tuple[PoolSize, PoolSize]:
    """Return the sizes of a worker's two pools for each source: of exports, and of plans with parts.

    An export has a connection for each of its streams, and estimates and descriptions share one. Each job
    whose parts run keeps a snapshot open, on a connection of the second pool; see
    :class:`~stream_app.worker.dispatcher.Dispatcher` for the number of such jobs. One more tests snapshots.
    A source with fewer than four connections has no plans with parts: one worker exports all rows.
    """
    holders = 2 * settings.worker_slots + 1

    def holders_of(limit: int) -> int:
        return min(holders, limit // 2) if limit >= 4 else 0

    return (
        PoolSize(
            settings.worker_slots * settings.source_streams + 1, lambda limit: limit - holders_of(limit)
        ),
        PoolSize(holders, holders_of),
    )


def call_pools(*, calls: int, estimates: int) -> tuple[PoolSize, PoolSize]:
    """Return the sizes of an API's two pools for each source: of descriptions, and of estimates."""
    return (
        PoolSize(calls, lambda limit: limit - min(estimates, limit // 2)),
        PoolSize(estimates, lambda limit: limit // 2),
    )


class Sources(Mapping[str, Source]):
    """The sources by name, each with one pool. They can be replaced while exports run."""

    def __init__(self, settings: Settings, content: DatasetsFile, size: PoolSize) -> None:
        """Create a pool for each source, without connections.

        Args:
            settings: has the URL of the default source.
            content: the datasets file.
            size: the size of the pools.

        Raises:
            DatasetsFileError: a variable with the URL of a source is not set or wrong.
        """
        self._settings = settings
        self._size = size
        self._urls: dict[str, SecretStr] = {}
        self._found: dict[str, SourceSettings] = {}
        self._sources = {DEFAULT_SOURCE: Source(settings, connections=size.connections_for(None))}
        self.replace(content)

    def source_for(self, dataset: Dataset) -> Source:
        """Return the source of ``dataset``.

        Raises:
            Outage: there is none with this name: the dataset is of an earlier datasets file.
        """
        source = self._sources.get(dataset.source)
        if source is None:
            raise Outage(f"this process does not know the source {dataset.source!r} of a dataset any more")
        return source

    def limit_of(self, name: str) -> int | None:
        """Return the ``connections`` of a source in the datasets file; ``None`` without a limit."""
        found = self._found.get(name)
        return None if found is None else found.connections

    def each(self) -> tuple[Source, ...]:
        """Return all sources."""
        return tuple(self._sources.values())

    def replace(self, content: DatasetsFile) -> None:
        """Use the sources of ``content`` from now on.

        A source whose settings are the same keeps its connections. Other connections are closed when the
        exports that use them have ended.

        Raises:
            DatasetsFileError: as the constructor does. Nothing is changed then.
        """
        urls = source_urls(content)
        kept = {DEFAULT_SOURCE: self._sources[DEFAULT_SOURCE]}
        for name, item in content.sources.items():
            url = urls[name]
            known = self._sources.get(name)
            is_same = self._found.get(name) == item and self._urls[name] == url
            kept[name] = known if known is not None and is_same else self._open(item, url)
        old, self._sources = self._sources, kept
        self._found, self._urls = dict(content.sources), urls
        for name, source in old.items():
            if kept.get(name) is not source:
                source.pool.retire()

    def _open(self, item: SourceSettings, url: SecretStr) -> Source:
        connections = self._size.connections_for(item.connections)
        return Source(
            self._settings,
            connections=connections,
            # One connection is left for estimates and descriptions.
            export_limit=None if item.connections is None else max(1, connections - 1),
            name=item.name,
            dsn=lambda: DatabaseUrl.parse(url.get_secret_value(), reads_only=True).dsn,
        )

    async def close(self) -> None:
        """Close all pools without waiting for running statements."""
        for source in self._sources.values():
            await source.close()

    def __getitem__(self, name: str) -> Source:
        return self._sources[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._sources))

    def __len__(self) -> int:
        return len(self._sources)
