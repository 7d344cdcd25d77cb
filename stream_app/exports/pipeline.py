"""The pipeline of one export: from the rows of PostgreSQL to files in the object store.

::

    COPY ──► pipe ──► frame ──► compress ──► hash ──► upload
    event loop  │     writing thread (file_writer)
"""

import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import structlog

from stream_app.datasets.bundles import Bundle
from stream_app.datasets.caller import Caller
from stream_app.datasets.encryption import check_encryption
from stream_app.datasets.excel_template import TemplateError
from stream_app.datasets.format_choice import check_format
from stream_app.datasets.models import Dataset
from stream_app.datasets.parameters import given_parameters
from stream_app.exports.bundles.exporter import export_bundle
from stream_app.exports.files.compression import Compression, compression_for
from stream_app.exports.files.copied_rows import RowEnds
from stream_app.exports.files.encryption import encryption_for
from stream_app.exports.files.file_limit import FileLimit
from stream_app.exports.files.file_writer import FileKind, FileWriter
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.formats.base import Format
from stream_app.exports.preparation import document_of, prepared
from stream_app.exports.queries.deletions import (
    deletions_request,
    has_deletions,
    live_request,
    require_visible,
)
from stream_app.exports.queries.presentation import settled_options
from stream_app.exports.queries.windows import check_window_columns
from stream_app.exports.reading.largest_row import too_large_row
from stream_app.exports.reading.ranges import RowRange
from stream_app.exports.reading.refused_values import naming_refused_value
from stream_app.exports.reading.row_estimate import estimating
from stream_app.exports.reading.row_reader import ParallelReading, RowReader
from stream_app.exports.reading.row_transfer import RowStream, RowTransfer
from stream_app.exports.reading.snapshot_checks import check_row_count, check_table
from stream_app.exports.sources.errors import SnapshotNotShared
from stream_app.exports.sources.message_too_long import MessageTooLong
from stream_app.exports.sources.registry import SourceFinder
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog, SourceTable
from stream_app.exports.tables.rights import use_visible
from stream_app.exports.task import (
    ExportLimits,
    ExportProgress,
    ExportResult,
    ExportTask,
    RowLimit,
)
from stream_app.storage.object_store import ObjectStore
from stream_app.time_zones import TimeZone
from streaming_exporter.errors import Outage, Rejected
from streaming_exporter.events import ExportRequest

log = structlog.get_logger(__name__)

ROW_SECURITY = "row_level_security"
"""Warning in the manifest: row-level security can hide rows of the table from the service's role."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """Runs exports.

    Attributes:
        sources: where the rows are.
        reading: how the rows of a large export are read.
        passwords: makes the passwords of zip archives; ``None`` without a secret for them.
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
    passwords: FilePasswords | None = None

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
        output = self.formats[request.format]
        compression = compression_for(request.options.compression, output)
        dataset = self.datasets[request.export_type]
        # The datasets file can have changed since the request was admitted.
        check_format(dataset, request.format, self.formats)
        check_encryption(dataset, request.encrypt, has_passwords=self.passwords is not None)
        # Once: the datasets file can change while the export runs.
        if isinstance(dataset, Bundle):
            return await export_bundle(self, dataset, task, progress)
        source = self.sources.of(dataset)

        async def export(table: SourceTable) -> ExportResult:
            progress.waits_since = time.monotonic()
            async with naming_refused_value(source, table, request.filters):
                try:
                    return await self._export(task, dataset, source, table, output, compression, progress)
                except SnapshotNotShared as error:
                    # It was known before the first row. From now on all exports use one connection.
                    log.warning("source.snapshot_not_shared", source=source.name, error=str(error))
                    source.can_share_snapshots = False
                    return await self._export(task, dataset, source, table, output, compression, progress)

        progress.waits_since = time.monotonic()
        try:
            return await use_visible(self.catalog, dataset, Caller.of(request), export)
        finally:
            progress.waits_since = None

    async def _export(
        self,
        task: ExportTask,
        dataset: Dataset,
        source: Source,
        table: SourceTable,
        output: Format,
        compression: Compression | None,
        progress: ExportProgress,
    ) -> ExportResult:
        request, part = table.resolve(task.request, task.asked_at), task.part
        options, zone = await settled_options(request.options, table.dataset, source.fetch)
        request = request.model_copy(update={"options": options})
        deletions = None
        require_visible(dataset, table.dataset, task.window)
        if task.window is not None:
            check_window_columns(table, has_deletions=True)
        if task.window is not None and has_deletions(table.dataset, task.window):
            deletions = deletions_request(table, request, task.window)
            request = live_request(table.dataset, request)

        rows, statement = await prepared(
            table, request, output, zone, None if part is None else RowRange.from_json(part.range)
        )
        async with source.snapshot(
            f"exporter {task.name}",
            search_path=table.search_path,
            initial_sql=table.fingerprint_sql,
            shared=None if part is None else part.snapshot,
            session=rows.session,
        ) as snapshot:
            as_of = snapshot.as_of if part is None or part.as_of is None else part.as_of
            await check_table(snapshot, table, task)
            limits = self.limits.of_dataset(table.dataset)
            file_limits = limits.of_file(output.name)
            encryption = encryption_for(request.encrypt, task.job, self.passwords)
            limit = FileLimit.of(request.split, file_limits, output).before(encryption)
            max_rows = limits.of_rows(request)
            if part is None:  # the rows of all parts were counted when they were planned
                progress.estimated_rows = await check_row_count(snapshot, rows, max_rows)
            document = document_of(table, request, rows, as_of, limit.bytes)
            writer = FileWriter(
                self.storage,
                FileKind(
                    task,
                    request,
                    document,
                    output,
                    compression,
                    given_parameters(table.dataset, request.parameters),
                    tuple(table.dataset.session),
                    encryption,
                    None if deletions is None else "rows",
                ),
                RowEnds.of(statement.copy),
                limit,
                self.limits.max_files,
                progress.tally,
                times=progress.times,
            )
            if table.has_row_security:
                progress.tally.warnings[ROW_SECURITY] = 1
            max_bytes = None if limit.is_asked else file_limits.max_bytes
            reader = RowReader(
                source, table, rows, output, request.options, statement, self.reading, task.name
            )
            live = RowStream(reader, writer)
            transfer = RowTransfer(snapshot, self.threads, max_bytes, progress)
            try:
                async with estimating(task, source, table, rows, progress):
                    if deletions is None:
                        written = await transfer.run(live)
                    else:
                        other = await self._deletions(
                            snapshot, source, table, writer, deletions, zone, max_rows
                        )
                        written = await transfer.run_with_deletions(live, other)
            except MessageTooLong as error:
                raise await too_large_row(task, source, table, request, output) or error from error
            except TemplateError as error:
                raise _for_caller(error, table) from error
        return ExportResult(
            row_count=written.row_count,
            file_size=written.file_size,
            sha256=written.stored.sha256,
            bucket=self.storage.bucket,
            key=written.stored.key,
            content_type=written.content_type,
            file_name=written.file_name,
            as_of=as_of,
            manifest=written.manifest,
            files=written.files,
        )

    async def _deletions(
        self,
        snapshot: Snapshot,
        source: Source,
        table: SourceTable,
        writer: FileWriter,
        request: ExportRequest,
        zone: TimeZone | None,
        limit: RowLimit | None,
    ) -> RowStream:
        """Return how the deletions of a run are read and written. ``writer`` is that of its rows."""
        kind = writer.kind
        rows, statement = await prepared(table, request, kind.output, zone)
        await check_row_count(snapshot, rows, limit)
        document = document_of(table, request, rows, kind.document.as_of, writer.limit.bytes)
        # Over one connection: the last of several ends the transaction, which the rows still need.
        alone = ParallelReading()
        reader = RowReader(
            source, table, rows, kind.output, request.options, statement, alone, kind.task.name
        )
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
