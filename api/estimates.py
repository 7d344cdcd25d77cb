"""What an export would amount to, found out without making it: by counting, and by a sample."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from api.models import Estimate
from api.services import Services
from stream_app.errors import Retryable
from stream_app.events import ExportRequest
from stream_app.exports.catalog import Table
from stream_app.exports.compression import compression_for
from stream_app.exports.formats.base import Document, Format, Tally
from stream_app.exports.projection import Statement
from stream_app.exports.source import Snapshot
from stream_app.exports.statement import Rows, render, rows_of
from stream_app.schedules.relative import resolved

SAMPLE_ROWS = 100
SAMPLE_MILLISECONDS = 300
"""How long reading the sample may take: a filter that finds few rows would have the whole table searched."""


SECONDS = 2.0
"""How long an estimate may take as a whole."""

COUNTED_ROWS = 100_000
COUNT_MILLISECONDS = 1_000
"""So many of a user's own rows are counted, within this time; beyond it is "at least"."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How many rows: ``exact``, or ``at_least`` so many, or about as many."""

    rows: int
    exact: bool
    at_least: bool = False


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
    """Rows, bytes, and whether the format can take them, within :data:`SECONDS`.

    What the planner expects tells of everybody's rows: it is only used for who may read all of them. A
    user's own rows are counted, as far as the time allows.

    Raises:
        Rejected: the request cannot be honoured.
        Retryable: the source database is away, or the table is locked.
    """
    try:
        async with asyncio.timeout(SECONDS):
            return await services.catalog.use(
                services.datasets[request.export_type], lambda table: _estimate(services, table, request)
            )
    except TimeoutError as error:
        raise Retryable("the estimate took too long") from error


async def _estimate(services: Services, table: Table, request: ExportRequest) -> Estimate:
    output = services.formats[request.format]
    request = resolved(request, table.every, datetime.now(UTC))
    rows = await asyncio.to_thread(rows_of, table, request)
    limits = [limit for limit in (output.row_limit(services.settings), services.settings.max_rows) if limit]
    limit = min(limits, default=None)
    async with _snapshot(services, table) as snapshot:
        sample = await _sample(snapshot, rows, request, output, table.dataset.template)
    amount = Amount(sample.rows, exact=True) if sample is not None and sample.rows < SAMPLE_ROWS else None
    if amount is None:
        sql = await asyncio.to_thread(render, rows.select.order_by(None))
        async with _snapshot(services, table) as snapshot:
            if request.scope == "all":
                amount = Amount(await snapshot.estimate(sql), exact=False)
            else:
                amount = await _counted(snapshot, sql, max(COUNTED_ROWS, limit or 0))
        amount = amount or Amount(sample.rows if sample else 0, exact=False, at_least=True)
    fits = limit is None or amount.rows <= limit
    return Estimate(
        rows=amount.rows,
        bytes=None if sample is None else sample.scaled(amount.rows),
        exact=amount.exact,
        at_least=amount.at_least,
        row_limit=limit,
        fits=fits,
        reason=None
        if fits
        else f"A {output.name} file may have {limit:,} rows here; "
        "narrow the export with filters or choose another format",
    )


def _snapshot(services: Services, table: Table) -> AbstractAsyncContextManager[Snapshot]:
    return services.estimating.snapshot(
        "exporter estimate", path=table.path, seconds=SECONDS, lock_seconds=SECONDS / 2
    )


async def _counted(snapshot: Snapshot, sql: str, limit: int) -> Amount | None:
    """The rows, counted as far as one beyond ``limit``; ``None``: there was no time for it."""
    await snapshot.connection.execute(f"SET LOCAL statement_timeout = {COUNT_MILLISECONDS}")
    try:
        count = await snapshot.count(sql, limit + 1)
    except asyncpg.QueryCanceledError:
        return None
    return Amount(count, exact=count <= limit, at_least=count > limit)


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
