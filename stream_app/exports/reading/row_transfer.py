"""Moves the rows of an export from the connection of PostgreSQL to the thread that writes their files."""

import asyncio
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass

from stream_app.exports.files.file_writer import FileWriter, WrittenFiles
from stream_app.exports.files.writing_errors import writing_errors
from stream_app.exports.plugins import ordinary_errors
from stream_app.exports.reading.pipe import BytePipe, PipeClosed
from stream_app.exports.reading.row_reader import RowReader
from stream_app.exports.reading.watched_sinks import limit_sink, watch_sink
from stream_app.exports.sources.snapshot import CHUNK_BYTES, Snapshot
from stream_app.exports.stage_spans import TimedSink, stage_span
from stream_app.exports.task import ExportProgress


@dataclass(frozen=True, slots=True)
class RowStream:
    """What reads rows, and what writes them."""

    reader: RowReader
    writer: FileWriter


@dataclass(frozen=True, slots=True)
class RowTransfer:
    """Reads the rows of a snapshot and writes their files.

    Attributes:
        threads: runs the framing and the upload of files.
        max_bytes: limit of the bytes that PostgreSQL sends for one file.
        progress: counts the rows as they come.
    """

    snapshot: Snapshot
    threads: Executor
    max_bytes: int | None
    progress: ExportProgress

    async def run(self, rows: RowStream, *, ends: bool = True) -> WrittenFiles:
        """Read rows and write their files. The transaction ``ends`` when its last rows are read."""
        reader, writer = rows.reader, rows.writer
        pipe = BytePipe()
        file_format = writer.kind.file_format
        context = copy_context()
        writing: asyncio.Future[WrittenFiles] | None = None

        def write() -> WrittenFiles:
            try:
                with ordinary_errors(), writing_errors():
                    return writer.write(iter(pipe))
            finally:
                pipe.close_reader()

        def begin() -> asyncio.Future[WrittenFiles]:
            return asyncio.get_running_loop().run_in_executor(self.threads, context.run, write)

        async def put(chunk: bytes) -> None:
            """Add a chunk. The thread begins with the first full one, or at the end of the rows."""
            nonlocal writing
            if writing is None and (len(chunk) >= CHUNK_BYTES or not pipe.is_unused):
                writing = begin()
            await pipe.write(chunk)

        try:
            if file_format.own_process:  # it starts while the source is asked
                writing = begin()
            sink = TimedSink(limit_sink(watch_sink(put, self.progress), self.max_bytes, file_format))
            copying = {"db.system.name": "postgresql", "db.operation.name": "COPY"}
            with stage_span("source", sink, copying, self.progress.times):
                writer.row_count = await reader.read(self.snapshot, sink)
            self.progress.waits_since = None
            pipe.finish()
            writing = writing or begin()
            # The transaction must not stay open during the rest of the upload, unless more rows follow.
            if ends:
                await self.snapshot.end()
            else:
                await self.snapshot.allow_pause()
            return await asyncio.shield(writing)
        except BaseException as error:
            pipe.fail(error)
            writer.stopped.set()
            if writing is None:
                raise
            await asyncio.wait({writing})
            if writer.keys:
                await _remove(writer)
            if writing.exception() is not None and isinstance(error, PipeClosed):
                writing.result()
            raise

    async def run_with_deletions(self, rows: RowStream, deletions: RowStream) -> WrittenFiles:
        """Write the deletions, then the rows, with whose end the transaction ends, then the list of both."""
        writer = rows.writer
        deleted = await self.run(deletions, ends=False)
        try:
            live = await self.run(rows)

            def write() -> WrittenFiles:
                with writing_errors():
                    return writer.with_deletions(live, deleted)

            listing = asyncio.get_running_loop().run_in_executor(self.threads, write)
            try:
                return await asyncio.shield(listing)
            except BaseException:
                writer.stopped.set()
                await asyncio.wait({listing})
                await _remove(writer)
                raise
        except BaseException:
            await _remove(deletions.writer)
            raise


async def _remove(writer: FileWriter) -> None:
    """Remove the objects of a writer, which are parts of a failed export."""
    await writer.storage.run_in_thread(writer.storage.removal.remove_all, writer.keys)
