"""The interface of a format: a SELECT by which PostgreSQL renders the rows, and a frame around them. Pure."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Select, column, table
from sqlalchemy.sql.elements import quoted_name

from stream_app.exports.columns import Column, Kind
from streaming_exporter.events import Options

ROWS = table("rows")
"""The rows that a :class:`CopySelect` selects from. They have the document's columns."""


@dataclass(frozen=True, slots=True)
class Document:
    """The facts about a file before its first row. Times are in UTC.

    Attributes:
        title: the name of the dataset for people; empty for the dataset's own name.
        name: the name that the user gave the export, or empty.
        order: names of the columns that the rows are ordered by.
        template_header: the row of the template's captions, if the datasets file names it.
        template_columns: all columns of the dataset in its own order; the template has their captions.
        filter_kinds: the kinds of the columns that ``filters`` name, also of those that are not in the file.
        target_bytes: the size at which the file ends, if that is small enough to matter.
    """

    dataset: str
    columns: tuple[Column, ...]
    options: Options
    as_of: datetime
    filters: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    template: Path | None = None
    template_header: int | None = None
    template_columns: tuple[str, ...] = ()
    target_bytes: int | None = None
    title: str = ""
    name: str = ""
    filter_kinds: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """What stands at the top of pages: the user's own name for the export, or else the dataset."""
        return self.name or self.title or self.dataset


@dataclass(slots=True)
class Tally:
    """The numbers of rows and warnings so far. ``rows`` is for progress; the database counts exactly."""

    rows: int = 0
    warnings: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class CopySelect:
    """A SELECT from :data:`ROWS` for COPY.

    Attributes:
        copy: the options of COPY, with asyncpg's names.
        escapes: groups of characters in texts that the file escapes, and how many bytes more each of them has
            then; ``None`` means as COPY does.
    """

    select: Select[Any]
    copy: Mapping[str, Any]
    escapes: Mapping[str, int] | None = None


class Format(ABC):
    """A file format.

    The chunks for :meth:`frame` always hold whole rows, because PostgreSQL sends one CopyData message for
    each row (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY). :meth:`frame` runs in
    a thread and can block. It must keep only a bounded number of rows in memory.

    Attributes:
        compressible: whether ``options.compression`` applies.
        own_options: names of the options that are only about this format, of those of the formats of the
            service; ``None`` means all of them.
        row_bytes: limit for one row, in bytes of COPY. A row takes several times as much memory.
        own_process: whether framing runs in its own process, because it is pure Python work that would hold
            the interpreter's lock.
        holds_rows: whether framing can hold rows back. Otherwise the bytes of a chunk are yielded before the
            next chunk is read.
        unique_titles: whether the titles of columns must differ, because programs find the values by them.
        growth: the most bytes of the file for each byte of the rows, apart from rare rows.
        closing_bytes: the most bytes that a file has after those of its rows.
        max_file_bytes: bytes that a file of this format can have at most; ``None`` means no limit.
    """

    name: str
    extension: str
    media_type: str
    description: str
    compressible = False
    own_options: frozenset[str] | None = None
    row_bytes = 13 * 2**20
    own_process = False
    holds_rows = True
    unique_titles = False
    growth = 3.0
    closing_bytes = 64 * 2**10
    max_file_bytes: int | None = None

    def growth_of(self, columns: Sequence[Column]) -> float:
        """Return ``growth`` for rows with ``columns``."""
        return self.growth

    @abstractmethod
    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """Return the SELECT that renders :data:`ROWS` with ``columns``."""

    @abstractmethod
    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield the bytes of the file. ``chunks`` are the rows that PostgreSQL has rendered."""


def cell(item: Column) -> ColumnElement[Any]:
    """Return the column ``item`` of :data:`ROWS`, always quoted."""
    return column(quoted_name(item.name, quote=True))


def line_starts(chunk: bytes) -> bytes:
    """Return the first byte of each line of ``chunk``.

    The length of the result is the number of lines. For lines of 300 bytes this takes half the time of
    ``bytes.count``, which compares each byte by itself.
    """
    return bytes(map(itemgetter(0), BytesIO(chunk)))


RAW_LINES: Mapping[str, Any] = {"format": "csv", "delimiter": "\x02", "quote": "\x01"}
"""COPY options for a single text column without changes, one line for each row.

COPY quotes a value only if it has the delimiter, the quote or a line break. The frame has to handle these.
"""
