"""The datasets of a bundle during its export: what each is asked for, its rows, and what was written."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from queue import SimpleQueue
from threading import Lock
from typing import Any, Self, TypeAlias

from stream_app.datasets.models import Dataset
from stream_app.exports.formats.base import Document
from stream_app.exports.queries.row_query import CopyStatement, RowQuery
from stream_app.exports.reading.pipe import BytePipe, PipeClosed
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.source_table import SourceTable
from stream_app.exports.task import ROW_SECURITY
from streaming_exporter.events import ExportRequest


@dataclass(slots=True)
class Member:
    """A dataset of a bundle.

    Attributes:
        dataset: the dataset as the datasets file has it.
        table: its table as the caller sees it.
        source: the source of its rows.
        request: the request for its rows, with settled options.
        query: the query for its rows.
        statement: reads and renders the rows.
        parameters: the values of the parameters of its query.
        document: the facts about its file. Its time is that of the source's snapshot, once it is open.
        window_column: the column that the window of a schedule's run limits; ``None`` if there is none.
        snapshot: the number of its snapshot, from 1.
        row_count: the number of rows by the database. It is set before the last chunk is read to its end.
    """

    dataset: Dataset
    table: SourceTable
    source: Source
    request: ExportRequest
    query: RowQuery
    statement: CopyStatement
    parameters: Mapping[str, Any]
    document: Document
    window_column: str | None = None
    snapshot: int = 1
    row_count: int = 0

    @property
    def title(self) -> str:
        """The name of the dataset for people."""
        return self.document.title or self.document.dataset

    def warnings(self, counted: Mapping[str, int]) -> dict[str, int]:
        """Return the warnings of its file: those that were ``counted``, and that about its table."""
        return {**({ROW_SECURITY: 1} if self.table.has_row_security else {}), **counted}


@dataclass(frozen=True, slots=True)
class WrittenMember:
    """What was written of a dataset.

    Attributes:
        member: the dataset.
        warnings: the warnings of its file.
        file_name: its file in the archive; empty in a workbook.
        sheets: the titles of its sheets in a workbook.
        file_size, sha256: bytes and checksum of its file in the archive.
        content_type: its media type.
    """

    member: Member
    warnings: Mapping[str, int] = field(default_factory=dict)
    file_name: str = ""
    sheets: tuple[str, ...] = ()
    file_size: int = 0
    sha256: str = ""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """What is known about a bundle's file when all its rows are written.

    Attributes:
        name: the name of the bundle.
        title: its name for people.
        kind: the kind of the bundle, or ``None``.
        request: the request.
        as_of: the time of the oldest snapshot.
        window: the window of a schedule's run, or ``None``.
    """

    name: str
    title: str
    kind: str | None
    request: ExportRequest
    as_of: datetime
    window: Mapping[str, Any] | None

    def of_written(self, written: Sequence[WrittenMember]) -> Self:
        """Return the facts with the time of the oldest snapshot that was read."""
        return replace(self, as_of=min(item.member.document.as_of for item in written))


Members: TypeAlias = Iterable[tuple[Member, Iterator[bytes]]]
"""Datasets with their rows. The rows of one must be read before the next dataset is asked for."""


AHEAD = 2
"""Datasets whose rows can wait for the writing thread, with the one that it reads. Each has a pipe."""


class MemberFeed:
    """Hands the rows of one dataset after the other from the event loop to the writing thread.

    Only a few datasets are read ahead, so that the memory does not depend on their number.

    **The end of the feed means success**, as the end of a :class:`BytePipe` does.
    """

    def __init__(self) -> None:
        self._items: SimpleQueue[tuple[Member, BytePipe] | BaseException | None] = SimpleQueue()
        self._lock = Lock()
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(AHEAD)
        self._pipe: BytePipe | None = None
        self._reader_gone = False

    async def begin(self, member: Member) -> BytePipe:
        """Begin the rows of a dataset as soon as there is room; return the pipe for them.

        Raises:
            PipeClosed: the thread has stopped reading.
        """
        await self._room.acquire()
        pipe = BytePipe()
        with self._lock:
            if self._reader_gone:
                raise PipeClosed("the reader has stopped")
            self._pipe = pipe
        self._items.put((member, pipe))
        return pipe

    def finish(self) -> None:
        """Mark the end: all rows of all datasets are written."""
        self._items.put(None)

    def fail(self, error: BaseException) -> None:
        """Make the reader raise :class:`PipeClosed` with the cause ``error``."""
        if self._pipe is not None:
            self._pipe.fail(error)
        self._items.put(error)

    def close_reader(self) -> None:
        """Stop reading. The writing thread calls this."""
        with self._lock:
            self._reader_gone = True
            if self._pipe is not None:
                self._pipe.close_reader()
        self._loop.call_soon_threadsafe(self._room.release)

    def __iter__(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Yield each dataset with its rows. The writing thread calls this, and reads them to their end.

        Raises:
            PipeClosed: the event loop's side failed.
        """
        while (item := self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise PipeClosed("the writer failed") from item
            member, pipe = item
            yield member, iter(pipe)
            self._loop.call_soon_threadsafe(self._room.release)


def unique_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Return ``names``, with a number in those that others have, too. Case does not make them different."""
    used = {name.casefold() for name in taken}
    found = []
    for name in names:
        chosen, number = name, 2
        while chosen.casefold() in used:
            chosen, number = f"{name}-{number}", number + 1
        used.add(chosen.casefold())
        found.append(chosen)
    return found
