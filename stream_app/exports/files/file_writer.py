"""Writes the files of one attempt, one after the other, in a thread: frames, compresses, hashes, uploads."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

from stream_app.exports.files.compression import CompressedFile, Compression
from stream_app.exports.files.encryption import Encryption, encryption_facts
from stream_app.exports.files.file_limit import FileLimit, FileRows
from stream_app.exports.files.manifest import too_many_files, write_manifest
from stream_app.exports.files.row_ends import RowEnds, RowFeed
from stream_app.exports.formats.base import Document, Format, Tally
from stream_app.exports.formats.framing_process import frame_in_process
from stream_app.exports.queries.deletions import SUFFIX, FileContent
from stream_app.exports.stage_spans import StageTimes, TimedChunks, rendering_span, stage_span
from stream_app.exports.task import ExportedFile, ExportTask
from stream_app.storage.manifest import MANIFEST, MANIFEST_TYPE
from stream_app.storage.object_store import ObjectStore, StoredObject
from streaming_exporter.events import ExportRequest

SPLIT_AUTOMATICALLY = "split_automatically"
"""Warning in the manifest: the export did not fit into one file. The number is the number of files."""


@dataclass(frozen=True)
class FileKind:
    """What all files of one attempt have in common: their name, type and origin.

    Attributes:
        parameters: the values of the parameters of the dataset's query, also those by default.
        session: names of the settings that row-level security depends on.
        encryption: how each file is encrypted; ``None`` for files that are not.
        content: what the files have, if the export has files of both; their manifest then comes later.
    """

    task: ExportTask
    request: ExportRequest
    document: Document
    file_format: Format
    compression: Compression | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    session: tuple[str, ...] = ()
    encryption: Encryption | None = None
    content: FileContent | None = None

    def name(self, number: int | None = None) -> str:
        """Return the name of a single file, or of the file with a number from 1."""
        return self._plain_name(number) + (self.encryption.suffix if self.encryption else "")

    def inner_name(self, number: int | None = None) -> str:
        """Return the name of the file inside of its archive.

        The files of a part get their final numbers when all parts are complete. Until then only the number of
        the part tells them apart, and files of one name would replace each other when they are unpacked.
        """
        part = self.task.part
        return self._plain_name(number, "" if part is None else f"-part-{part.number:05}")

    def _plain_name(self, number: int | None, part: str = "") -> str:
        """Return the name of the file before it is encrypted."""
        counted = part if number is None else f"{part}-{number:05}"
        if self.content == "deletions":
            counted = SUFFIX + counted
        suffix = self.compression.suffix if self.compression else ""
        day = self.task.day(self.document.as_of)
        return f"{self.document.dataset}-{day}{counted}.{self.file_format.extension}{suffix}"

    @property
    def content_type(self) -> str:
        """The media type."""
        if self.encryption is not None:
            return self.encryption.media_type
        return self.compression.media_type if self.compression else self.file_format.media_type

    def origin(self, tally: Tally) -> dict[str, Any]:
        """Return the part of a manifest that describes the origin of the rows, as a JSON object."""
        request = self.request
        labels = {item.name: item.caption for item in self.document.columns if item.caption}
        return {
            "dataset": self.document.dataset,
            "format": self.file_format.name,
            "columns": [{"name": item.name, "type": item.type} for item in self.document.columns],
            "order": list(self.document.order),
            "filters": request.filters,
            **({"parameters": dict(self.parameters)} if self.parameters else {}),
            **({"session": list(self.session)} if self.session else {}),
            **({"window": self.task.window} if self.task.window else {}),
            **encryption_facts(self.encryption),
            "scope": request.scope,
            **({"label": self.document.title} if self.document.title else {}),
            **({"labels": labels} if labels else {}),
            **({"timezone": request.options.timezone} if request.options.timezone else {}),
            "options": request.options.model_dump(mode="json", exclude_defaults=True),
            "as_of": self.document.as_of.isoformat(),
            "warnings": dict(tally.warnings),
        }


@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """What an attempt has written: one file, or several ``files`` and their manifest, which is ``stored``."""

    stored: StoredObject
    file_name: str
    content_type: str
    row_count: int
    file_size: int
    manifest: dict[str, Any]
    files: tuple[ExportedFile, ...] = ()


@dataclass(slots=True)
class FileWriter:
    """Writes the rows of one export to one file, or to several.

    Attributes:
        storage: the object store.
        kind: what the files have in common.
        ends: finds the ends of rows in the chunks.
        limit: when a file is full and the next one begins.
        max_files: how many files there can be.
        tally: counts rows and warnings of all files.
        row_count: the number of rows by the database. It is set before the last chunk is read to its end.
        times: the busy seconds of the stages.
        stopped: stops the repetition of the store's calls.
        keys: the keys of the objects that are complete.
    """

    storage: ObjectStore
    kind: FileKind
    ends: RowEnds
    limit: FileLimit
    max_files: int
    tally: Tally
    row_count: int = 0
    times: StageTimes = field(default_factory=StageTimes)
    stopped: Event = field(default_factory=Event)
    keys: list[str] = field(default_factory=list)

    def write(self, chunks: Iterator[bytes]) -> WrittenFiles:
        """Write all rows of ``chunks``.

        Raises:
            Rejected: there would be more than ``max_files`` files, or the store does not accept a file.
            Retryable: the store failed.

        Errors of ``chunks`` and of the format pass. Then the objects with ``keys`` are left.
        """
        feed = RowFeed(chunks, self.ends)
        files: list[ExportedFile] = []
        while not files or feed.has_more():
            number = len(files) + 1
            if number > self.max_files:
                raise too_many_files(self.max_files)
            files.append(self._write_file(number, feed))
        if self.kind.task.part is not None:
            return self._part(files)
        if self.kind.content is not None and len(files) == 1 and not self.limit.is_asked:
            return self._part([replace(files[0], file_name=self.kind.name())])
        if len(files) == 1 and not self.limit.is_asked:
            return self._single(files[0])
        if not self.limit.is_asked:
            # The rows of the first file are counted only if there is another one.
            files[0] = replace(files[0], row_count=self.row_count - sum(file.row_count for file in files[1:]))
            self.tally.warnings[SPLIT_AUTOMATICALLY] += len(files)
        if self.kind.content is not None:
            return self._part(files)
        return self.with_manifest(files, {"split": self._split()})

    def with_deletions(self, rows: WrittenFiles, deletions: WrittenFiles) -> WrittenFiles:
        """Write the manifest that lists the files of the rows and, after them, those of the deletions."""
        live = [replace(file, content="rows") for file in rows.files]
        gone = [replace(file, content="deletions") for file in deletions.files]
        files = [replace(file, number=number) for number, file in enumerate([*live, *gone], 1)]
        is_split = self.limit.is_asked or len(files) > 2
        self.row_count = rows.row_count + deletions.row_count
        summary = {"split": self._split()} if is_split else {}
        return self.with_manifest(files, {**summary, "deletions": deletions.row_count})

    def _write_file(self, number: int, feed: RowFeed) -> ExportedFile:
        kind = self.kind
        is_numbered = self.limit.is_asked or number > 1
        counted = is_numbered
        compressed = CompressedFile(kind.compression) if kind.compression else None
        rows = FileRows(
            feed,
            self.ends,
            self.limit,
            kind.file_format,
            self.tally,
            counted=counted,
            growth=kind.file_format.growth_of(kind.document.columns),
            compressed=compressed,
        )
        read = TimedChunks(rows.chunks())
        framed = self._framed(read)
        bytes_made = rows.framed(framed)
        rendered = rendering_span(
            rows.written(compressed.apply(bytes_made) if compressed else bytes_made), read, self.times
        )
        number_in_name = number if is_numbered else None
        encrypted = self._encrypted(rendered, number_in_name)
        made = TimedChunks(encrypted)
        try:
            with stage_span("upload", made, {"aws.s3.bucket": self.storage.bucket}, self.times):
                stored = self.storage.put(
                    kind.task.target(kind.name(number_in_name)),
                    made,
                    content_type=kind.content_type,
                    file_name=kind.name(number_in_name),
                    metadata=lambda: self._metadata(rows, counted),
                    stopped=self.stopped,
                )
        finally:
            _close(encrypted)
            _close(rendered)
            _close(framed)
        self.keys.append(stored.key)
        return ExportedFile(
            number=number,
            file_name=kind.name(number),
            key=stored.key,
            content_type=kind.content_type,
            row_count=rows.rows if counted else self.row_count,
            file_size=stored.size,
            sha256=stored.sha256,
        )

    def _metadata(self, rows: FileRows, counted: bool) -> dict[str, str]:
        """Return the metadata of a file. The rows of the first one are known only if it is the only one."""
        if counted:
            return {"rows": str(rows.rows)}
        return {"rows": str(self.row_count)} if rows.is_last else {}

    def _encrypted(self, chunks: Iterator[bytes], number: int | None) -> Iterator[bytes]:
        encryption = self.kind.encryption
        if encryption is None:
            return chunks
        return encryption.apply(chunks, name=self.kind.inner_name(number), time=self.kind.document.as_of)

    def _framed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        file_format, document = self.kind.file_format, self.kind.document
        if file_format.own_process:
            return frame_in_process(file_format, chunks, document, self.tally)
        return file_format.frame(chunks, document, self.tally)

    def _single(self, file: ExportedFile) -> WrittenFiles:
        name = self.kind.name()
        facts = {
            "file_name": name,
            "content_type": file.content_type,
            "rows": self.row_count,
            "bytes": file.file_size,
            "sha256": file.sha256,
        }
        return WrittenFiles(
            stored=StoredObject(file.key, file.file_size, file.sha256),
            file_name=name,
            content_type=file.content_type,
            row_count=self.row_count,
            file_size=file.file_size,
            manifest=facts | self.kind.origin(self.tally),
        )

    def _part(self, files: list[ExportedFile]) -> WrittenFiles:
        """Return the files of a part. The manifest of all parts is written when all are complete."""
        return WrittenFiles(
            stored=StoredObject(key="", size=0, sha256=""),
            file_name="",
            content_type=self.kind.content_type,
            row_count=self.row_count,
            file_size=sum(file.file_size for file in files),
            manifest=self.kind.origin(self.tally),
            files=tuple(files),
        )

    def with_manifest(self, files: list[ExportedFile], facts: Mapping[str, Any]) -> WrittenFiles:
        """Write the manifest, which lists the files, after all of them. ``facts`` are further ones."""
        size = sum(file.file_size for file in files)
        summary = {
            "job_id": self.kind.task.name,
            "rows": self.row_count,
            "bytes": size,
            "file_count": len(files),
            **facts,
            **self.kind.origin(self.tally),
        }
        stored = write_manifest(
            self.storage, self.kind.task.target(MANIFEST), summary, files, stopped=self.stopped
        )
        self.keys.append(stored.key)
        return WrittenFiles(
            stored=stored,
            file_name=MANIFEST,
            content_type=MANIFEST_TYPE,
            row_count=self.row_count,
            file_size=size,
            manifest=summary,
            files=tuple(files),
        )

    def _split(self) -> dict[str, Any]:
        split = self.kind.request.split
        if split is None:
            return {"bytes": self.limit.bytes, "automatic": True}
        return split.model_dump(mode="json", exclude_none=True)


def _close(chunks: Iterator[bytes]) -> None:
    """Close an unfinished generator at once, and with it its process, if it has one.

    The error's traceback refers to the generator, so it would otherwise live until the garbage collection.
    """
    if isinstance(chunks, Generator):
        chunks.close()
