"""Exports a bundle: the rows of its datasets, one after the other, into one file.

The datasets of one source are read in one transaction, so that all of them have the data of one moment.

::

    COPY of the first dataset ──┐
    COPY of the second one ─────┴► pipe ──► frame ──► zip or workbook ──► hash ──► upload
    event loop                        │     writing thread
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_app.datasets.bundle_requests import check_bundle_request
from stream_app.datasets.bundles import Bundle
from stream_app.datasets.caller import Caller
from stream_app.datasets.models import Dataset
from stream_app.datasets.parameters import given_parameters
from stream_app.datasets.rights import check_rows, of_member, visible_dataset
from stream_app.exports.bundles.members import BundleFacts, Member, MemberFeed
from stream_app.exports.bundles.requests import resolve_member
from stream_app.exports.bundles.writer import BundleWriter
from stream_app.exports.files.compression import compression_for
from stream_app.exports.files.encryption import encryption_for
from stream_app.exports.files.writing_errors import writing_errors
from stream_app.exports.formats.base import Format
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.plugins import ordinary_errors
from stream_app.exports.preparation import document_of, prepare_statement
from stream_app.exports.queries.presentation import label_for, resolve_options
from stream_app.exports.queries.windows import check_window_columns
from stream_app.exports.reading.largest_row import find_too_large_row
from stream_app.exports.reading.pipe import PipeClosed
from stream_app.exports.reading.refused_values import naming_refused_value
from stream_app.exports.reading.row_estimate import estimated_rows
from stream_app.exports.reading.row_reader import ParallelReading, RowReader
from stream_app.exports.reading.snapshot_checks import check_row_count, check_storage, check_table
from stream_app.exports.reading.watched_sinks import limit_sink, watch_sink
from stream_app.exports.sources.errors import source_errors, time_limit_exceeded
from stream_app.exports.sources.message_too_long import MessageTooLong
from stream_app.exports.sources.snapshot import Snapshot, single_value
from stream_app.exports.sources.source import Source
from stream_app.exports.stage_spans import TimedSink, stage_span
from stream_app.exports.tables.rights import use_all_visible
from stream_app.exports.tables.source_table import SourceTable
from stream_app.exports.task import ESTIMATE_AFTER, ROW_SECURITY, ExportProgress, ExportResult, ExportTask
from stream_app.storage.object_store import StoredObject
from streaming_exporter.errors import Rejected

if TYPE_CHECKING:
    from stream_app.exports.pipeline import Exporter

ONE_CONNECTION = ParallelReading()
"""How the rows are read: further connections would end the transaction of the other datasets."""


async def export_bundle(
    exporter: "Exporter", bundle: Bundle, task: ExportTask, progress: ExportProgress
) -> ExportResult:
    """Write the file of a bundle.

    Raises:
        Rejected: the request cannot be fulfilled. The text names the dataset that is the reason.
        Retryable: a part of the system failed temporarily.
        asyncio.CancelledError: the task was cancelled.

    After each of these errors no object is left in the bucket.
    """
    request, caller = task.request, Caller.of(task.request)
    bundle_for_caller = visible_dataset(bundle, caller)
    check_bundle_request(bundle, request)
    check_rows(bundle_for_caller, request.scope, caller)
    file_format = exporter.formats[request.format]
    compression_for(request.options.compression, file_format)

    async def export(tables: Sequence[SourceTable]) -> ExportResult:
        progress.waits_since = time.monotonic()
        members = [
            await _member(exporter, bundle, dataset, table, task, file_format)
            for dataset, table in zip(bundle.members, tables, strict=True)
        ]
        in_order = [member for group in _by_source(members) for member in group]
        return await _BundleExport(exporter, bundle, task, progress, file_format, in_order).run()

    progress.waits_since = time.monotonic()
    try:
        return await use_all_visible(exporter.catalog, bundle.members, caller, export)
    finally:
        progress.waits_since = None


async def _member(
    exporter: "Exporter",
    bundle: Bundle,
    dataset: Dataset,
    table: SourceTable,
    task: ExportTask,
    file_format: Format,
) -> Member:
    source = exporter.sources.source_for(dataset)
    try:
        if task.window is not None:
            check_window_columns(table, has_deletions=False)
        request = resolve_member(bundle, dataset, table, task.request, task.requested_at, task.window)
        options, zone = await resolve_options(request.options, table.dataset, source.fetch)
        request = request.model_copy(update={"options": options})
        query, statement = await prepare_statement(table, request, file_format, zone)
    except Rejected as error:
        raise of_member(bundle, dataset, error) from error
    # The name is that of the whole export; the pages of each dataset have that of the dataset.
    document = replace(document_of(table, request, query, task.requested_at, None), name="")
    if isinstance(file_format, ExcelFormat):  # a workbook has one template at most
        document = replace(document, template=None, template_header=None)
    column = table.dataset.time
    return Member(
        dataset=dataset,
        table=table,
        source=source,
        request=request,
        query=query,
        statement=statement,
        parameters=given_parameters(dataset, request.parameters),
        document=document,
        window_column=column if task.window and column in request.filters else None,
    )


@dataclass(slots=True)
class _BundleExport:
    """One export of a bundle."""

    exporter: "Exporter"
    bundle: Bundle
    task: ExportTask
    progress: ExportProgress
    file_format: Format
    members: Sequence[Member]

    async def run(self) -> ExportResult:
        """Read all rows, write the file, and return the result."""
        if any(member.table.has_row_security for member in self.members):
            self.progress.tally.warnings[ROW_SECURITY] = 1  # before the writing thread counts its own
        writer = self._writer()
        feed = MemberFeed()

        def write() -> StoredObject:
            try:
                with ordinary_errors(), writing_errors():
                    return writer.write(feed)
            finally:
                feed.close_reader()

        deadline = time.monotonic() + self.members[0].source.export_seconds
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self.exporter.threads, copy_context().run, write)
        estimating = asyncio.create_task(self._estimate())
        try:
            counted = 0
            for number, group in enumerate(_by_source(self.members), 1):
                counted = await self._read_source(number, group, feed, deadline, counted)
            self.progress.waits_since = None
            feed.finish()
            stored = await asyncio.shield(writing)
        except BaseException as error:
            feed.fail(error)
            writer.stopped.set()
            await asyncio.wait({writing})
            if writer.key is not None:
                await self.exporter.storage.run_in_thread(
                    self.exporter.storage.removal.remove_all, [writer.key]
                )
            if writing.exception() is not None and isinstance(error, PipeClosed):
                writing.result()
            raise
        finally:
            estimating.cancel()
            await asyncio.wait({estimating})
        return writer.result(stored)

    def _writer(self) -> BundleWriter:
        request, exporter = self.task.request, self.exporter
        options = request.options
        title = label_for(self.bundle.label, self.bundle.labels, options.language)
        return BundleWriter(
            exporter.storage,
            self.task,
            BundleFacts(
                self.bundle.name,
                title or self.bundle.name,
                self.bundle.kind,
                request,
                self.task.requested_at,
                self.task.window,
            ),
            self.file_format,
            compression_for(options.compression, self.file_format),
            encryption_for(request.encrypt, self.task.job, exporter.passwords()),
            [member.document for member in self.members],
            # The free disk is no limit: a bundle cannot be divided, and the disk is not full forever.
            exporter.limits.of_file(self.file_format.name).file_bytes,
            self.progress,
        )

    async def _read_source(
        self, number: int, group: Sequence[Member], feed: MemberFeed, deadline: float, counted: int
    ) -> int:
        """Read the rows of all datasets of one source, in one snapshot.

        Args:
            number: the number of the snapshot, from 1.
            group: the datasets.
            feed: takes their rows.
            deadline: when the time of the export is over, by :func:`time.monotonic`.
            counted: the number of rows that were counted before, of other sources.

        Returns:
            The number of rows that were counted, if there is a limit.
        """
        source, first = group[0].source, group[0]
        names = {name for member in group for name in member.query.session}
        async with source.snapshot(
            f"exporter {self.task.name}",
            search_path=first.table.search_path,
            seconds=_left(deadline),
            session=first.query.session,
        ) as snapshot:
            for member in group:
                async with self._naming(member, deadline):
                    await self._switch(snapshot, member, names, deadline)
                    await self._lock(snapshot, member)
                    counted += await self._count(snapshot, member)
                self._check_total(counted)
                member.snapshot = number
                member.document = replace(member.document, as_of=snapshot.as_of)
            await check_storage(snapshot)
            for member in group:
                async with self._naming(member, deadline):
                    await self._switch(snapshot, member, names, deadline)
                    await self._copy(snapshot, member, feed)
            self.progress.waits_since = None
            # The transaction must not stay open during the rest of the upload.
            await snapshot.end()
        return counted

    async def _switch(self, snapshot: Snapshot, member: Member, names: set[str], deadline: float) -> None:
        await member.source.switch(
            snapshot,
            search_path=member.table.search_path,
            session=member.query.session,
            others=names,
            seconds=_left(deadline),
        )

    async def _lock(self, snapshot: Snapshot, member: Member) -> None:
        """Lock the table of a dataset until the transaction ends, and check that it is as it was described.

        Without the lock it could be truncated before its turn, and would look empty then.
        """
        table = member.table
        if table.query is None:
            sql = f"SELECT {table.locking_sql}, {table.fingerprint_sql}"
            # It waits for a table that is being changed, as the export of one dataset does.
            value = await single_value(snapshot.connection, sql, snapshot.timeout)
            _, snapshot.initial_value = value.split("\t")
        await check_table(snapshot, table, self.task)

    @asynccontextmanager
    async def _naming(self, member: Member, deadline: float) -> AsyncIterator[None]:
        """Let errors in the block name the dataset, and the value of a filter that PostgreSQL refuses."""
        try:
            async with naming_refused_value(member.source, member.table, member.request):
                with source_errors(lambda: time.monotonic() >= deadline):
                    yield
        except Rejected as error:
            raise of_member(self.bundle, member.dataset, error) from error

    async def _count(self, snapshot: Snapshot, member: Member) -> int:
        """Return the number of rows of a dataset if there is a limit, else 0.

        Raises:
            Rejected: they are more than the dataset or its format can have.
        """
        limits = self.exporter.limits.of_dataset(member.table.dataset)
        return await check_row_count(snapshot, member.query, limits.of_rows(member.request)) or 0

    def _check_total(self, counted: int) -> None:
        """Check the number of rows of all datasets so far.

        Raises:
            Rejected: they are more than an export can have.
        """
        most = self.exporter.limits.max_rows
        if most is not None and counted > most:
            raise Rejected(
                f"the bundle has more than {most:,} rows, the most that an export can have; limit it with "
                "filters, or request its datasets",
                code="too_many_rows",
            )

    async def _copy(self, snapshot: Snapshot, member: Member, feed: MemberFeed) -> None:
        """Read the rows of a dataset into the feed."""
        exporter, progress = self.exporter, self.progress
        progress.waits_since = None  # what it waits for now is the upload
        pipe = await feed.begin(member)
        max_bytes = exporter.limits.of_file(self.file_format.name).max_bytes
        sink = TimedSink(limit_sink(watch_sink(pipe.write, progress), max_bytes, self.file_format))
        reader = RowReader(
            member.source,
            member.table,
            member.query,
            self.file_format,
            member.request.options,
            member.statement,
            ONE_CONNECTION,
            self.task.name,
        )
        copying = {"db.system.name": "postgresql", "db.operation.name": "COPY"}
        progress.waits_since = time.monotonic()
        try:
            with stage_span("source", sink, copying, progress.times):
                member.row_count = await reader.read(snapshot, sink)
        except MessageTooLong as error:
            raise (
                await find_too_large_row(
                    self.task, member.source, member.table, member.request, self.file_format
                )
                or error
            ) from error
        pipe.finish()

    async def _estimate(self) -> None:
        """Estimate the rows of all datasets of an export that takes long."""
        await asyncio.sleep(ESTIMATE_AFTER)
        found = [
            await estimated_rows(self.task, member.source, member.table, member.query)
            for member in self.members
        ]
        if self.progress.estimated_rows is None and None not in found:
            self.progress.estimated_rows = sum(number or 0 for number in found)


def _by_source(members: Sequence[Member]) -> list[list[Member]]:
    """Return the datasets of each source. The sources are in the order of their first datasets."""
    groups: dict[Source, list[Member]] = {}
    for member in members:
        groups.setdefault(member.source, []).append(member)
    return list(groups.values())


def _left(deadline: float) -> float:
    """Return the seconds until ``deadline``.

    Raises:
        Rejected: the time is over.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise time_limit_exceeded()
    return left
