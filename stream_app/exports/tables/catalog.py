"""Keeps descriptions of the datasets' tables, and reads them again when a table has changed."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from stream_app.datasets.models import Dataset
from stream_app.exports.sources.registry import SourceFinder
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.description import read_description
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Outage, Rejected, Retryable

log = structlog.get_logger(__name__)

CACHE_SECONDS = 30.0
"""How long a description is used before it is read again."""

BEING_CHANGED = "the dataset's table is being changed"

Result = TypeVar("Result")


class TableChanged(Exception):
    """The table does not match its description any more."""


class TableBeingChanged(Retryable):
    """The table does not match its newest description: it was changed while that was read.

    The table of a snapshot that was taken before a change never matches it.
    """

    code = "table_changed"

    def __init__(self) -> None:
        super().__init__(BEING_CHANGED)


@dataclass(frozen=True, slots=True)
class _CachedTable:
    """A description that was read from ``source``, and until when it is used."""

    until: float
    source: Source
    table: SourceTable


class Catalog:
    """Reads descriptions of tables and keeps them for :data:`CACHE_SECONDS`."""

    def __init__(self, sources: SourceFinder, *, seconds: float | None = None) -> None:
        """Create an empty catalog of the tables in ``sources``.

        ``seconds`` is the time limit for reading a description where a user waits for it.
        """
        self._sources = sources
        self._seconds = seconds
        self._cached: dict[str, _CachedTable] = {}
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def table(self, dataset: Dataset) -> SourceTable:
        """Return the table of ``dataset``.

        Raises:
            Rejected: the table, or a column that the dataset names, does not exist.
            Retryable: the source database cannot be reached.
        """
        known = self._cached_of(dataset)
        if known is not None and known.until > time.monotonic():
            return known.table
        return await self._read(dataset, known)

    async def use(self, dataset: Dataset, work: Callable[[SourceTable], Awaitable[Result]]) -> Result:
        """Call ``work`` with the table of ``dataset`` and return its result.

        If ``work`` fails with a cached description, the description is read again, once. If the table has
        changed since, ``work`` is called again.

        Raises:
            Rejected, Retryable: as :meth:`table` and ``work`` do.
        """
        return await self.use_all([dataset], lambda tables: work(tables[0]))

    async def use_all(
        self, datasets: Sequence[Dataset], work: Callable[[Sequence[SourceTable]], Awaitable[Result]]
    ) -> Result:
        """Call ``work`` with the tables of several datasets and return its result, as :meth:`use` does.

        Cached descriptions are read again together.
        """
        known = [self._cached_of(dataset) for dataset in datasets]
        tables = [await self.table(dataset) for dataset in datasets]
        try:
            return await work(tables)
        except (Rejected, TableChanged) as error:
            again = [
                table if was is None or was.table is not table else await self._read(dataset, was)
                for dataset, was, table in zip(datasets, known, tables, strict=True)
            ]
            if again == tables:
                raise _final(error) from error
            changed = [new.dataset.name for new, old in zip(again, tables, strict=True) if new != old]
            log.info("dataset.changed", dataset=", ".join(changed))
        try:
            return await work(again)
        except TableChanged as error:
            raise _final(error) from error

    def _cached_of(self, dataset: Dataset) -> _CachedTable | None:
        """Return what is known, unless the datasets file has changed the dataset or its source since."""
        known = self._cached.get(dataset.name)
        if known is None or known.source is not self._sources.source_for(dataset):
            return None
        return known if known.table.dataset is dataset or known.table.dataset == dataset else None

    async def _read(self, dataset: Dataset, known: _CachedTable | None) -> SourceTable:
        """Read the description, unless another task has read it since ``known``.

        The time limit includes the wait for that task: each of many callers waits for one answer at most.
        """
        source = self._sources.source_for(dataset)
        try:
            async with asyncio.timeout(self._seconds), self._reading[dataset.name]:
                newest = self._cached_of(dataset)
                if newest is not None and newest is not known:
                    return newest.table
                source = self._sources.source_for(dataset)
                table = await read_description(source, dataset)
                self._cached[dataset.name] = _CachedTable(time.monotonic() + CACHE_SECONDS, source, table)
                return table
        except TimeoutError as error:
            raise Outage(f"source database {source.name}: no answer within {self._seconds} s") from error


def _final(error: Rejected | TableChanged) -> Exception:
    """Return the error for the caller. For a table that is being changed it is a temporary error."""
    return error if isinstance(error, Rejected) else TableBeingChanged()
