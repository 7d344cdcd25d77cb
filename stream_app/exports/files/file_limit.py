"""Decides when a file of a split export is full: by its rows, by PostgreSQL's bytes, or by its own bytes.

A file that is written row by row (csv, json, ndjson) is never larger than its limit, unless one row is.
Rows are added in pieces. Near the limit the compressor is flushed before each piece, so the bytes so far are
known exactly. A piece fits even if the format makes it larger by the factor
:meth:`~.formats.base.Format.growth_of`. The other formats hold rows back (a page, a row group, the archive's
compressor). Their bytes are estimated from the rows that are already written.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from stream_app.exports.files.compression import CompressedFile
from stream_app.exports.files.encryption import Encryption
from stream_app.exports.files.row_ends import RowEnds, RowFeed
from stream_app.exports.formats.base import Format, Tally
from stream_app.exports.task import FileLimits
from streaming_exporter.events import Split

NEARLY_FULL = 64
"""A file that is written row by row ends when less than this part of its limit is left, as 1/64."""

NEARLY_FULL_HELD = 16
"""A file of a format that holds rows back ends when less than this part of its limit is left, as 1/16."""

FIRST_RATIO = 2.0
"""Bytes of the file for each byte of rows, before any rows are written, for formats that hold rows back."""

INCOMPRESSIBLE = 1.01
"""The most that a compressor adds to bytes that it cannot compress, as a factor."""

USUAL_CHUNK = 2**20
"""The compressor is flushed if there is possibly no room for a chunk of this size."""

LARGE_LIMIT = 2**30
"""From this limit on, rows are not counted only to estimate what a format holds back."""

MOST_HELD = 2**28
"""Bytes that a format can hold back at most. They are a small part of a large file."""

SAFETY = 1.25
"""Factor for estimates."""


@dataclass(frozen=True, slots=True)
class FileLimit:
    """The limit at which a file ends and the next one begins; ``None`` means no limit.

    Attributes:
        rows: rows of the file.
        bytes: bytes of the file.
        copied_bytes: bytes that PostgreSQL sends for its rows.
        is_asked: the request asks for several files. Otherwise the export is divided only where a single file
            would be too large.
    """

    rows: int | None = None
    bytes: int | None = None
    copied_bytes: int | None = None
    is_asked: bool = False

    @classmethod
    def of(cls, split: Split | None, limits: FileLimits, file_format: Format) -> Self:
        """Return the limit of a request with ``split``. The limits of the format hold for each file."""
        largest = _least(limits.file_bytes, file_format.max_file_bytes)
        if split is None:
            return cls(bytes=largest)
        return cls(_least(split.rows, limits.max_rows), _least(split.bytes, largest), limits.max_bytes, True)

    def before(self, encryption: Encryption | None) -> Self:
        """Return the limit for files that are encrypted afterwards, which adds some bytes."""
        if encryption is None or self.bytes is None:
            return self
        return replace(self, bytes=encryption.room(self.bytes))


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


class FileRows:
    """The rows of one file: it takes them from the feed until the file is full.

    Attributes:
        rows: how many rows the file has; 0 if they are not counted.
        is_last: whether no rows are left for another file. It is not known before the last chunk.
    """

    def __init__(
        self,
        feed: RowFeed,
        ends: RowEnds,
        limit: FileLimit,
        file_format: Format,
        tally: Tally,
        *,
        counted: bool,
        growth: float,
        compressed: CompressedFile | None = None,
    ) -> None:
        """Create the rows of a file.

        Args:
            feed: the rows that are left.
            ends: finds the ends of rows.
            limit: when the file is full.
            file_format: its format.
            tally: counts the rows that the format has written.
            counted: whether to count the rows. It costs a little time.
            growth: the most bytes of the file for each byte of the rows, apart from rare rows.
            compressed: its compression.
        """
        self.rows = 0
        self.is_last = False
        self._feed = feed
        self._ends = ends
        self._limit = limit
        self._file_format = file_format
        self._tally = tally
        self._tally_before = tally.rows
        is_small = limit.bytes is not None and limit.bytes < LARGE_LIMIT
        self._counted = counted or (file_format.holds_rows and is_small)
        self._compressed = compressed
        self._taken = 0
        """Bytes of the rows so far."""
        self._held = 0
        """Bytes of the format that the compressor can hold back."""
        self._framed = 0
        self._written = 0
        self._growth = growth

    def chunks(self) -> Iterator[bytes]:
        """Yield rows for the format until the file is full or there are no more rows."""
        limit = self._limit
        while True:
            rows = None if limit.rows is None else limit.rows - self.rows
            size = self._room()
            if rows == 0:
                return
            if not self._feed.has_more():
                self.is_last = True
                return
            piece = self._feed.take(rows=rows, size=size, at_least_one=self._taken == 0)
            if not piece:
                return
            self._taken += len(piece)
            if self._counted:
                self.rows += self._ends.count(piece)
            before = self._framed
            yield piece
            if not self._file_format.holds_rows:
                self._growth = max(self._growth, 2 * (self._framed - before) / len(piece))

    def framed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the bytes of the format and count them."""
        for chunk in chunks:
            self._framed += len(chunk)
            self._held += len(chunk)
            yield chunk

    def written(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the bytes of the file and count them."""
        for chunk in chunks:
            self._written += len(chunk)
            yield chunk

    def _room(self) -> int | None:
        """Return how many bytes of rows can be added: 0 if it is full, ``None`` if there is no limit."""
        left = None if self._limit.copied_bytes is None else self._limit.copied_bytes - self._taken
        if self._limit.bytes is None:
            return left
        limit = self._limit.bytes - self._file_format.closing_bytes
        room = self._room_held(limit) if self._file_format.holds_rows else self._room_exact(limit)
        return max(0, room if left is None else min(left, room))

    def _room_exact(self, limit: int) -> int:
        if self._taken == 0:
            return limit // NEARLY_FULL  # little at first, until it is known how much the format adds
        room = limit - self._written
        if self._compressed is not None:
            held = int(INCOMPRESSIBLE * self._held)
            if room - held < self._growth * USUAL_CHUNK:
                room -= self._compressed.flush()
                self._held = 0
            else:
                room -= held
        return int(room / self._growth) if room >= limit / NEARLY_FULL else 0

    def _room_held(self, limit: int) -> int:
        if not self._counted:
            return limit - MOST_HELD - self._written
        step = max(limit // NEARLY_FULL_HELD, 1)
        rows = self._tally.rows - self._tally_before
        done = self._taken * rows / self.rows if self.rows else 0
        ratio = self._written / done if done else FIRST_RATIO
        room = limit - self._written - (self._taken - done) * ratio * SAFETY
        return min(step, int(room / (ratio * SAFETY))) if room >= step else 0
