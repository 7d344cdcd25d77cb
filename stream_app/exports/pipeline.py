"""The pipeline of one export: from the rows of PostgreSQL to files in the object store.

::

    COPY ──► pipe ──► frame ──► compress ──► hash ──► upload
    event loop  │     writing thread (file_writer)
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from stream_app.datasets.bundles import Bundle
from stream_app.datasets.caller import Caller
from stream_app.datasets.encryption import check_encryption
from stream_app.datasets.format_choice import check_format
from stream_app.datasets.models import Dataset
from stream_app.datasets.parameters import given_parameters
from stream_app.datasets.template_error import TemplateError
from stream_app.exports.bundles.exporter import export_bundle
from stream_app.exports.files.compression import Compression, compression_for
from stream_app.exports.files.encryption import encryption_for
from stream_app.exports.files.file_limit import FileLimit
from stream_app.exports.files.file_writer import FileKind, FileWriter, WrittenFiles
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.files.row_ends import RowEnds
from stream_app.exports.formats.base import Format
from stream_app.exports.preparation import document_of, prepare_statement
from stream_app.exports.queries.deletions import (
    deletions_request,
    has_deletions,
    live_request,
    require_visible,
)
from stream_app.exports.queries.presentation import resolve_options
from stream_app.exports.queries.row_query import CopyStatement, RowQuery
from stream_app.exports.queries.windows import check_window_columns, with_window
from stream_app.exports.reading.largest_row import find_too_large_row
from stream_app.exports.reading.refused_values import naming_refused_value
from stream_app.exports.reading.row_estimate import estimate_while_running
from stream_app.exports.reading.row_range import RowRange
from stream_app.exports.reading.row_reader import ParallelReading, RowReader
from stream_app.exports.reading.row_transfer import RowStream, RowTransfer
from stream_app.exports.reading.snapshot_checks import check_range, check_row_count, check_table
from stream_app.exports.sources.errors import SnapshotNotShared
from stream_app.exports.sources.message_too_long import MessageTooLong
from stream_app.exports.sources.registry import SourceFinder
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.tables.rights import use_visible
from stream_app.exports.tables.source_table import SourceTable
from stream_app.exports.task import ROW_SECURITY, ExportLimits, ExportProgress, ExportResult, ExportTask
from stream_app.storage.object_store import ObjectStore
from stream_app.storage.parts import largest_file_on, temporary_bytes
from stream_app.time_zones import TimeZone
from streaming_exporter.errors import Outage, Rejected
from streaming_exporter.events import ExportRequest

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Exporter:
    """Runs exports.

    Attributes:
        sources: where the rows are.
        reading: how the rows of a large export are read.
        passwords: returns what makes the passwords of zip archives; ``None`` without a secret for them.
        threads: runs the framing and the upload of files: one thread for each export.
    """

    sources: SourceFinder
    catalog: Catalog
    storage: ObjectStore
    datasets: Mapping[str, Dataset]
    formats: Mapping[str, Format]
    limits: ExportLimits
    threads: Executor
    reading: ParallelReading = field(default_factory=ParallelReading)
    passwords: Callable[[], FilePasswords | None] = lambda: None

    async def run(self, task: ExportTask, progress: ExportProgress) -> ExportResult:
        """Write the file, or the files, that ``task`` asks for.

        Raises:
            Rejected: the request cannot be fulfilled.
            Retryable: a part of the system failed temporarily.
            asyncio.CancelledError: the task was cancelled.

        After each of these errors no object is left in the bucket.
        """
        request = task.request
        if request.export_type not in self.datasets or request.format not in self.formats:
            raise Outage(
                "this worker does not know the dataset or the format; operators: give all workers the same "
                "EXPORTER_DATASETS_FILE and install the same extras"
            )
        file_format = self.formats[request.format]
        compression = compression_for(request.options.compression, file_format)
        dataset = self.datasets[request.export_type]
        # The datasets file can have changed since the request was admitted.
        check_format(dataset, request.format, self.formats)
        check_encryption(dataset, request.encrypt, has_passwords=self.passwords() is not None)
        # Once: the datasets file can change while the export runs.
        if isinstance(dataset, Bundle):
            return await export_bundle(self, dataset, task, progress)
        source = self.sources.source_for(dataset)

        async def export(table: SourceTable) -> ExportResult:
            progress.waits_since = time.monotonic()
            attempt = _DatasetExport(self, task, dataset, source, table, file_format, compression, progress)
            async with naming_refused_value(source, table, request):
                try:
                    return await attempt.run()
                except SnapshotNotShared as error:
                    # It was known before the first row. From now on all exports use one connection.
                    log.warning("source.snapshot_not_shared", source=source.name, error=str(error))
                    source.can_share_snapshots = False
                    return await attempt.run()

        progress.waits_since = time.monotonic()
        try:
            return await use_visible(self.catalog, dataset, Caller.of(request), export)
        finally:
            progress.waits_since = None


@dataclass(frozen=True, slots=True)
class _Requests:
    """What one transaction reads.

    Attributes:
        live: the request of the rows, with the values that its dates and options have now.
        deletions: the request of the deletions; ``None`` if they have no file of their own.
        zone: the time zone of the times in the files; ``None`` for UTC.
    """

    live: ExportRequest
    deletions: ExportRequest | None
    zone: TimeZone | None


@dataclass(frozen=True, slots=True)
class _DatasetExport:
    """One export of a dataset, or of one part of it.

    Attributes:
        dataset: the dataset as the datasets file has it.
        table: its table as the caller sees it.
    """

    exporter: Exporter
    task: ExportTask
    dataset: Dataset
    source: Source
    table: SourceTable
    file_format: Format
    compression: Compression | None
    progress: ExportProgress

    async def run(self) -> ExportResult:
        """Read the rows in one transaction, write the files, and return the result.

        Raises:
            Rejected: the request cannot be fulfilled.
            Retryable: a part of the system failed temporarily.
            SnapshotNotShared: the connections to the source do not see the same data; no row was read.
        """
        task, table, part = self.task, self.table, self.task.part
        requests = await self._requests()
        row_range = None if part is None else RowRange.from_json(part.range)
        query, statement = await prepare_statement(
            table, requests.live, self.file_format, requests.zone, row_range
        )
        async with self.source.snapshot(
            f"exporter {task.name}",
            search_path=table.search_path,
            initial_sql=table.fingerprint_sql,
            shared=None if part is None else part.snapshot,
            indexes_only=part is not None,
            session=query.session,
        ) as snapshot:
            as_of = snapshot.as_of if part is None or part.as_of is None else part.as_of
            await check_table(snapshot, table, task)
            if row_range is not None and part is not None and part.snapshot is None:
                await check_range(snapshot, table, row_range)
            if part is None:  # the rows of all parts were counted when they were planned
                limit = self._limits.of_rows(requests.live)
                self.progress.estimated_rows = await check_row_count(snapshot, query, limit)
            writer = self._writer(requests, query, statement, as_of)
            if table.has_row_security:
                self.progress.tally.warnings[ROW_SECURITY] = 1
            live = RowStream(self._reader(requests.live, query, statement, self.exporter.reading), writer)
            written = await self._transfer(snapshot, requests, query, live)
        return ExportResult(
            row_count=written.row_count,
            file_size=written.file_size,
            sha256=written.stored.sha256,
            bucket=self.exporter.storage.bucket,
            key=written.stored.key,
            content_type=written.content_type,
            file_name=written.file_name,
            as_of=as_of,
            manifest=written.manifest,
            files=written.files,
        )

    @property
    def _limits(self) -> ExportLimits:
        return self.exporter.limits.of_dataset(self.table.dataset)

    async def _requests(self) -> _Requests:
        """Return what is read: the rows, and the deletions of a run with a window.

        Raises:
            Rejected: the caller cannot see what the window needs, or its columns have no times.
        """
        table, window = self.table, self.task.window
        request = table.resolve(with_window(table, self.task.request, window), self.task.requested_at)
        options, zone = await resolve_options(request.options, table.dataset, self.source.fetch)
        request = request.model_copy(update={"options": options})
        require_visible(self.dataset, table.dataset, window)
        if window is None:
            return _Requests(request, None, zone)
        check_window_columns(table, has_deletions=True)
        if not has_deletions(table.dataset, window):
            return _Requests(request, None, zone)
        return _Requests(
            live_request(table.dataset, request), deletions_request(table, request, window), zone
        )

    def _writer(
        self, requests: _Requests, query: RowQuery, statement: CopyStatement, as_of: datetime
    ) -> FileWriter:
        """Return what writes the files of the rows."""
        exporter, task, table, request = self.exporter, self.task, self.table, requests.live
        encryption = encryption_for(request.encrypt, task.job, exporter.passwords())
        # The disk for the parts of a huge file can be small, and other exports can use it.
        file_limits = self._limits.of_file(self.file_format.name).at_most(largest_file_on(temporary_bytes()))
        limit = FileLimit.of(request.split, file_limits, self.file_format).before(encryption)
        kind = FileKind(
            task,
            request,
            document_of(table, request, query, as_of, limit.bytes),
            self.file_format,
            self.compression,
            given_parameters(table.dataset, request.parameters),
            tuple(table.dataset.session),
            encryption,
            None if requests.deletions is None else "rows",
        )
        return FileWriter(
            exporter.storage,
            kind,
            RowEnds.of(statement.copy),
            limit,
            exporter.limits.max_files,
            self.progress.tally,
            times=self.progress.times,
        )

    def _reader(
        self, request: ExportRequest, query: RowQuery, statement: CopyStatement, reading: ParallelReading
    ) -> RowReader:
        return RowReader(
            self.source,
            self.table,
            query,
            self.file_format,
            request.options,
            statement,
            reading,
            self.task.name,
        )

    async def _transfer(
        self, snapshot: Snapshot, requests: _Requests, query: RowQuery, live: RowStream
    ) -> WrittenFiles:
        """Read the rows, and the deletions if there are any, and write their files."""
        file_limits = self._limits.of_file(self.file_format.name)
        max_bytes = None if live.writer.limit.is_asked else file_limits.max_bytes
        transfer = RowTransfer(snapshot, self.exporter.threads, max_bytes, self.progress)
        try:
            async with estimate_while_running(self.task, self.source, self.table, query, self.progress):
                if requests.deletions is None:
                    return await transfer.run(live)
                other = await self._deletions(snapshot, live.writer, requests.deletions, requests)
                return await transfer.run_with_deletions(live, other)
        except MessageTooLong as error:
            named = await find_too_large_row(
                self.task, self.source, self.table, requests.live, self.file_format
            )
            raise named or error from error
        except TemplateError as error:
            raise _for_caller(error, self.table) from error

    async def _deletions(
        self, snapshot: Snapshot, writer: FileWriter, request: ExportRequest, requests: _Requests
    ) -> RowStream:
        """Return how the deletions of a run are read and written. ``writer`` is that of its rows."""
        kind = writer.kind
        query, statement = await prepare_statement(self.table, request, self.file_format, requests.zone)
        await check_row_count(snapshot, query, self._limits.of_rows(requests.live))
        document = document_of(self.table, request, query, kind.document.as_of, writer.limit.bytes)
        # Over one connection: the last of several ends the transaction, which the rows still need.
        reader = self._reader(request, query, statement, ParallelReading())
        own = FileWriter(
            writer.storage,
            replace(kind, request=request, document=document, content="deletions"),
            RowEnds.of(statement.copy),
            writer.limit,
            writer.max_files,
            writer.tally,
            times=writer.times,
        )
        return RowStream(reader, own)


def _for_caller(error: TemplateError, table: SourceTable) -> Rejected:
    """Return the error of a template for the caller: its text names all columns of the dataset."""
    log.warning("dataset.template_unusable", dataset=table.dataset.name, reason=str(error))
    if not table.template_columns:
        return error
    return Rejected(
        f"the template of dataset {table.dataset.name!r} does not fit its columns; choose another format; "
        "operators: the log has the reason",
        code=error.code,
    )
