"""Estimates the size of an export without making it: by counting rows, and by a sample."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from weakref import WeakValueDictionary

import asyncpg

from api.jobs.schemas import Estimate
from api.services import ApiServices
from stream_app.datasets.bundles import Bundle
from stream_app.datasets.caller import Caller
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import find_dataset, of_member
from stream_app.exports.bundles.archive import member_compression
from stream_app.exports.bundles.requests import resolve_member
from stream_app.exports.files.compression import CompressedFile, Compression, compression_for
from stream_app.exports.formats.base import Document, Format, Tally
from stream_app.exports.plugins import ordinary_errors
from stream_app.exports.queries.presentation import shown_rows
from stream_app.exports.queries.row_query import CopyStatement, RowQuery, row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.reading.refused_values import naming_refused_value
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.tables.rights import shows_planner_numbers, use_all_visible, use_visible
from stream_app.exports.tables.source_table import SourceTable
from stream_app.exports.task import ExportLimits, RowLimit
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import ExportRequest

SAMPLE_ROWS = 100
SAMPLE_MILLISECONDS = 300
"""Time-out of the sample: with a filter that matches few rows, the database would search the whole table."""


SECONDS = 2.0
"""Time-out of one estimate with all its queries, and of its wait for the user's other estimates."""

_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
"""By user: held by the estimate that runs. The time-out of an estimate includes the wait for a connection, so
without this the estimates of one user could make those of all others time out."""

COUNTED_ROWS = 100_000
COUNT_MILLISECONDS = 1_000
"""A user's own rows are counted up to this number and within this time; beyond it is ``at_least``."""


class EstimateTimedOut(Retryable):
    """The source did not answer in time."""


@dataclass(frozen=True, slots=True)
class Amount:
    """The number of rows: ``exact``, a lower limit (``at_least``), or else an estimate."""

    rows: int
    exact: bool
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """The first rows of the result, as the database renders them."""

    rows: int
    chunks: Sequence[bytes]


async def estimate(services: ApiServices, request: ExportRequest) -> Estimate:
    """Estimate rows and bytes within :data:`SECONDS`, and whether the format can hold the rows.

    The planner's estimate depends on the rows of all users, so it is used only for scope ``all``. A user's
    own rows are counted, as far as the time allows. The estimates of one user run one after the other.

    Raises:
        Rejected: the request is invalid.
        Retryable: the source database is unavailable, or the table is locked.
    """
    turn = _turns.setdefault(request.user_id, asyncio.Lock())
    try:
        await asyncio.wait_for(turn.acquire(), SECONDS)
    except TimeoutError:
        raise EstimateTimedOut("other estimates of the same user take too long") from None
    try:
        return await _estimate_request(services, request)
    finally:
        turn.release()


async def _estimate_request(services: ApiServices, request: ExportRequest) -> Estimate:
    caller = Caller.of(request)
    dataset = find_dataset(services.datasets, request.export_type, caller)
    if isinstance(dataset, Bundle):
        return await use_all_visible(
            services.catalog,
            dataset.members,
            caller,
            lambda tables: _estimate_bundle(services, dataset, tables, request),
        )
    return await use_visible(
        services.catalog, dataset, caller, lambda table: _estimate(services, table, request)
    )


async def _estimate_bundle(
    services: ApiServices, bundle: Bundle, tables: Sequence[SourceTable], request: ExportRequest
) -> Estimate:
    """Estimate a bundle: the sum of its datasets. Its file fits if each of them does, and all together.

    The time is for all datasets together. Those that are not estimated in it make the sum a lower limit.
    """
    now = services.clock.now()
    compression = member_compression(request.options.compression, services.formats[request.format])

    async def estimate_member(member: Dataset, table: SourceTable) -> Estimate | None:
        try:
            wanted = await asyncio.to_thread(resolve_member, bundle, member, table, request, now)
            return await _estimate(services, table, wanted, compression)
        except EstimateTimedOut:
            return None
        except Rejected as error:
            raise of_member(bundle, member, error) from error

    tasks = [asyncio.create_task(estimate_member(*item)) for item in zip(bundle.members, tables, strict=True)]
    try:
        known = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    found = [item for item in known if item is not None]
    if not found:
        raise EstimateTimedOut("the estimate timed out")
    is_complete = len(found) == len(known)
    rows, sizes = sum(item.rows for item in found), [item.bytes for item in found]
    too_large = next((item for item in found if not item.fits), None)
    limit = services.settings.max_rows
    if too_large is None and limit is not None and rows > limit:
        reason: str | None = f"An export can have at most {limit:,} rows. Limit the export with filters"
    else:
        reason = too_large.reason if too_large is not None else None
    return Estimate(
        rows=rows,
        bytes=None if None in sizes or not is_complete else sum(size or 0 for size in sizes),
        exact=is_complete and all(item.exact for item in found),
        at_least=not is_complete or any(item.at_least for item in found),
        row_limit=too_large.row_limit if too_large is not None else limit,
        fits=reason is None,
        reason=reason,
    )


async def _estimate(
    services: ApiServices,
    table: SourceTable,
    request: ExportRequest,
    compression: Compression | None = None,
) -> Estimate:
    """Estimate the file of one dataset. ``compression`` is by default what the request asks for."""
    file_format = services.formats[request.format]
    compression = compression or compression_for(request.options.compression, file_format)
    now = services.clock.now()

    def prepare(request: ExportRequest) -> tuple[RowQuery, ExportRequest]:
        request = table.resolve(request, now)
        shown, options = shown_rows(row_query(table, request), table.dataset, request.options, file_format)
        return shown, request.model_copy(update={"options": options})

    query, request = await asyncio.to_thread(prepare, request)  # many relative dates take long
    limit = ExportLimits.of(services.settings).of_dataset(table.dataset).of_rows(request)
    few = replace(query, select=query.select.order_by(None).limit(SAMPLE_ROWS))
    statement = await asyncio.to_thread(CopyStatement.of, few, file_format, request.options)
    source = services.estimate_sources.source_for(table.dataset)
    try:
        async with asyncio.timeout(SECONDS), naming_refused_value(source, table, request):
            async with _snapshot(services, table, query) as snapshot:
                sample = await _sample(snapshot, statement)
            if sample is not None and sample.rows < SAMPLE_ROWS:
                amount = Amount(sample.rows, exact=True)
            else:
                amount = await _amount(services, table, request, query, limit) or Amount(
                    sample.rows if sample else 0, exact=False, at_least=True
                )
    except TimeoutError as error:
        raise EstimateTimedOut("the estimate timed out") from error
    size = None
    if sample is not None:
        size = await asyncio.to_thread(
            _size, sample, amount.rows, query, request, file_format, table, compression
        )
    fits = limit is None or amount.rows <= limit.rows
    return Estimate(
        rows=amount.rows,
        bytes=size,
        exact=amount.exact,
        at_least=amount.at_least,
        row_limit=limit and limit.rows,
        fits=fits,
        reason=None if limit is None or fits else _reason(limit),
    )


def _reason(limit: RowLimit) -> str:
    what, ways = (text[0].upper() + text[1:] for text in (limit.what, limit.ways))
    return f"{what} can have at most {limit.rows:,} rows. {ways}"


def _snapshot(
    services: ApiServices, table: SourceTable, query: RowQuery
) -> AbstractAsyncContextManager[Snapshot]:
    return services.estimate_sources.source_for(table.dataset).snapshot(
        "exporter estimate",
        search_path=table.search_path,
        seconds=SECONDS,
        lock_seconds=SECONDS / 2,
        session=query.session,
    )


async def _counted(snapshot: Snapshot, sql: str, limit: int) -> Amount | None:
    """Count the rows up to one more than ``limit``; return ``None`` if that takes too long."""
    await snapshot.connection.execute(f"SET LOCAL statement_timeout = {COUNT_MILLISECONDS}")
    try:
        count = await snapshot.count(sql, limit + 1)
    except asyncpg.QueryCanceledError:
        return None
    return Amount(count, exact=count <= limit, at_least=count > limit)


async def _amount(
    services: ApiServices, table: SourceTable, request: ExportRequest, query: RowQuery, limit: RowLimit | None
) -> Amount | None:
    sql = await asyncio.to_thread(render, query.select.order_by(None))
    async with _snapshot(services, table, query) as snapshot:
        if shows_planner_numbers(table, request):
            return Amount(await snapshot.estimate(sql), exact=False)
        return await _counted(snapshot, sql, max(COUNTED_ROWS, limit.rows if limit else 0))


async def _sample(snapshot: Snapshot, statement: CopyStatement) -> Sample | None:
    """Read the first rows; return ``None`` if they do not come in time."""
    chunks: list[bytes] = []

    async def keep(chunk: bytes) -> None:
        chunks.append(chunk)

    await snapshot.connection.execute(f"SET LOCAL statement_timeout = {SAMPLE_MILLISECONDS}")
    try:
        return Sample(await snapshot.copy(statement.sql, statement.copy, keep), chunks)
    except asyncpg.QueryCanceledError:
        return None


def _size(
    sample: Sample,
    count: int,
    query: RowQuery,
    request: ExportRequest,
    file_format: Format,
    table: SourceTable,
    compression: Compression | None,
) -> int:
    """Calculate the bytes of a file with ``count`` rows like those of the sample."""
    document = Document(
        dataset=request.export_type,
        columns=query.columns,
        options=request.options,
        as_of=datetime.now(UTC),
        filters=request.filters,
        template=table.dataset.template,
    )

    def size(of: Sequence[bytes]) -> int:
        with ordinary_errors():
            framed = file_format.frame(iter(of), document, Tally())
            return sum(map(len, CompressedFile(compression).apply(framed) if compression else framed))

    empty = size([])
    return empty + (size(sample.chunks) - empty) * count // max(sample.rows, 1)
