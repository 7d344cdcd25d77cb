"""Sinks that note how an export goes on, and that end it at a limit."""

import time

from stream_app.exports.formats.base import Format
from stream_app.exports.sources.snapshot import Sink
from stream_app.exports.task import ExportProgress
from streaming_exporter.errors import Rejected


def watch_sink(sink: Sink, progress: ExportProgress) -> Sink:
    """Return ``sink``, which notes since when the export waits for its source: not while the sink waits."""

    async def take(chunk: bytes) -> None:
        progress.waits_since = None
        await sink(chunk)
        progress.waits_since = time.monotonic()

    return take


def limit_sink(sink: Sink, limit: int | None, file_format: Format) -> Sink:
    """Return ``sink`` with a limit: it raises :class:`Rejected` after ``limit`` bytes."""
    if limit is None:
        return sink
    taken = 0

    async def take(chunk: bytes) -> None:
        nonlocal taken
        taken += len(chunk)
        if taken > limit:
            raise Rejected(
                f"the rows have more than {limit:,} bytes of text, the limit for {file_format.name} files; "
                "narrow the export with filters, divide it into several files with split, or choose another "
                f"format; operators: the setting EXPORTER_{file_format.name.upper()}_MAX_BYTES is the limit",
                code="too_many_bytes",
            )
        await sink(chunk)

    return take
