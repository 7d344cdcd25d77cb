"""What a format is: a projection that PostgreSQL renders, and a frame around what it renders. Pure."""

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

from stream_app.exports.columns import Column
from streaming_exporter.events import Options

ROWS = table("rows")
"""What a projection selects from: the document's columns in their order."""


@dataclass(frozen=True, slots=True)
class Document:
    """What is known about a file before its first row; times are UTC."""

    dataset: str
    columns: tuple[Column, ...]
    options: Options
    as_of: datetime
    filters: Mapping[str, Any] = field(default_factory=dict)
    template: Path | None = None
    template_header: int | None = None
    """The row of the template's captions, where the datasets file names it."""
    template_columns: tuple[str, ...] = ()
    """The dataset's columns in its own order: whose captions the template has."""


@dataclass(slots=True)
class Tally:
    """What the frame has seen so far: ``rows`` is for progress, the database's count is the exact one."""

    rows: int = 0
    warnings: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class CopySelect:
    """A SELECT from :data:`ROWS` whose COPY emits finished bytes; ``copy`` are its options, as in asyncpg."""

    select: Select[Any]
    copy: Mapping[str, Any]


class Format(ABC):
    """One way to write a file.

    The chunks that :meth:`frame` gets always hold whole rows, because PostgreSQL sends one CopyData message
    for each row (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY). It runs in a
    thread and may block; it may not hold more than a bounded number of rows.
    """

    name: str
    extension: str
    media_type: str
    description: str
    compressible = False
    """Whether ``options.compression`` applies."""
    row_bytes = 13 * 2**20
    """The most bytes of one row, as COPY writes it; on its way it takes several times as much memory."""
    own_process = False
    """Whether framing is pure Python work that would hold the interpreter's lock."""

    @abstractmethod
    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """The statement to COPY, over :data:`ROWS` that have ``columns``."""

    @abstractmethod
    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """The file's bytes."""


def cell(item: Column) -> ColumnElement[Any]:
    """The column ``item`` of the rows subquery, always quoted."""
    return column(quoted_name(item.name, quote=True))


def line_starts(chunk: bytes) -> bytes:
    """The first byte of each line of ``chunk``: as many as there are lines.

    Where lines have 300 bytes, counting them so takes half the time of ``bytes.count``, which looks at each
    byte by itself.
    """
    return bytes(map(itemgetter(0), BytesIO(chunk)))


RAW_LINES: Mapping[str, Any] = {"format": "csv", "delimiter": "\x02", "quote": "\x01"}
"""COPY options that emit a single text column as it is, one line a row.

CSV quotes a value only if it holds delimiter, quote or line break; whoever frames the lines sees to that.
"""
