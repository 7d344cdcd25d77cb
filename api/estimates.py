"""What an export would amount to, found out without making it: the planner's rows, the bytes of a sample."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from api.models import Estimate
from api.services import Services
from stream_app.events import ExportRequest
from stream_app.exports.compression import compression_for
from stream_app.exports.formats.base import Document, Format, Tally
from stream_app.exports.projection import Statement
from stream_app.exports.source import Snapshot
from stream_app.exports.statement import Rows, render, rows_of
from stream_app.schedules.relative import resolved

SAMPLE_ROWS = 100
SAMPLE_MILLISECONDS = 300
"""How long reading the sample may take: a filter that finds few rows would have the whole table searched."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The first rows that come, as they would be in the file; ``empty`` is a file without any."""

    rows: int
    size: int
    empty: int

    def scaled(self, rows: int) -> int:
        """Bytes of a file with so many rows."""
        return self.empty + (self.size - self.empty) * rows // max(self.rows, 1)


async def estimate(services: Services, request: ExportRequest) -> Estimate:
    """Rows, bytes, and whether the format can take them, in milliseconds.

    Raises:
        Rejected: the request cannot be honoured.
        Retryable: the source database is away.
    """
    output = services.formats[request.format]
    table = await services.catalog.table(services.datasets[request.export_type])
    request = resolved(request, table.every, datetime.now(UTC))
    rows = await asyncio.to_thread(rows_of, table, request)
    async with services.source.snapshot("exporter estimate") as snapshot:
        expected = await snapshot.estimate(await asyncio.to_thread(render, rows.select.order_by(None)))
        sample = await _sample(snapshot, rows, request, output, table.dataset.template)
    exact = sample is not None and sample.rows < SAMPLE_ROWS
    count = sample.rows if sample is not None and exact else expected
    limits = [limit for limit in (output.row_limit(services.settings), services.settings.max_rows) if limit]
    limit = min(limits, default=None)
    fits = limit is None or count <= limit
    return Estimate(
        rows=count,
        bytes=None if sample is None else sample.scaled(count),
        exact=exact,
        row_limit=limit,
        fits=fits,
        reason=None
        if fits
        else f"A {output.name} file may have {limit:,} rows here; "
        "narrow the export with filters or choose another format",
    )


async def _sample(
    snapshot: Snapshot, rows: Rows, request: ExportRequest, output: Format, template: Path | None
) -> Sample | None:
    """A small file made of the first rows that come; ``None``: they did not come soon enough."""
    document = Document(
        dataset=request.export_type,
        columns=rows.columns,
        options=request.options,
        as_of=datetime.now(UTC),
        filters=request.filters,
        template=template,
    )
    few = replace(rows, select=rows.select.order_by(None).limit(SAMPLE_ROWS))
    statement = await asyncio.to_thread(Statement.of, few, output, request.options)
    chunks: list[bytes] = []

    async def keep(chunk: bytes) -> None:
        chunks.append(chunk)

    await snapshot.connection.execute(f"SET LOCAL statement_timeout = {SAMPLE_MILLISECONDS}")
    try:
        count = await snapshot.copy(statement.sql, statement.copy, keep)
    except asyncpg.QueryCanceledError:
        return None
    compression = compression_for(request.options.compression, output)

    def size(of: Sequence[bytes]) -> int:
        framed = output.frame(iter(of), document, Tally())
        return sum(map(len, compression.apply(framed) if compression else framed))

    empty, full = await asyncio.to_thread(lambda: (size([]), size(chunks)))
    return Sample(count, full, empty)
