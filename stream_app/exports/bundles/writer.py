"""Writes the file of a bundle in a thread: frames, packs, encrypts, hashes, uploads."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from threading import Event

from stream_app.exports.bundles.archive import EXTENSION, MEDIA_TYPE, BundleArchive
from stream_app.exports.bundles.manifest import bundle_origin
from stream_app.exports.bundles.members import BundleFacts, MemberFeed, Members, WrittenMember
from stream_app.exports.bundles.workbook import bundle_workbook
from stream_app.exports.files.compression import Compression
from stream_app.exports.files.encryption import Encryption, ZipEncryption, encryption_facts
from stream_app.exports.formats.base import Document, Format
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.stage_spans import TimedChunks, stage_span
from stream_app.exports.task import ExportProgress, ExportResult, ExportTask
from stream_app.storage.object_store import ObjectStore, StoredObject
from streaming_exporter.errors import Rejected


@dataclass(slots=True)
class BundleWriter:
    """Writes one file with all datasets of a bundle.

    Attributes:
        storage: the object store.
        task: the export.
        facts: what is known about the file.
        file_format: the format.
        compression: the compression of each file of an archive; ``None`` for none.
        encryption: how the file is encrypted; ``None`` for a file that is not.
        documents: the facts about each dataset.
        max_bytes: the most bytes of the file; ``None`` without a limit.
        progress: counts the rows.
        stopped: stops the repetition of the store's calls.
        key: the key of the complete object; ``None`` before.
        written: what was written of each dataset.
    """

    storage: ObjectStore
    task: ExportTask
    facts: BundleFacts
    file_format: Format
    compression: Compression | None
    encryption: Encryption | None
    documents: Sequence[Document]
    max_bytes: int | None
    progress: ExportProgress
    stopped: Event = field(default_factory=Event)
    key: str | None = None
    written: list[WrittenMember] = field(default_factory=list)

    @property
    def is_archive(self) -> bool:
        """Whether the file is a zip archive and not a workbook."""
        return not isinstance(self.file_format, ExcelFormat)

    @property
    def _outer(self) -> Encryption | None:
        """The encryption of the whole file. A zip archive with a password encrypts its files itself."""
        return None if self.is_archive and isinstance(self.encryption, ZipEncryption) else self.encryption

    @property
    def plain_name(self) -> str:
        """The name of the file before it is encrypted."""
        extension = EXTENSION if self.is_archive else self.file_format.extension
        return f"{self.facts.name}-{self.task.day(self.facts.as_of)}.{extension}"

    @property
    def file_name(self) -> str:
        """The name of the file."""
        return self.plain_name + (self._outer.suffix if self._outer else "")

    @property
    def content_type(self) -> str:
        """The media type of the file."""
        if self._outer is not None:
            return self._outer.media_type
        return MEDIA_TYPE if self.is_archive else self.file_format.media_type

    def write(self, feed: MemberFeed) -> StoredObject:
        """Write the rows of all datasets.

        Raises:
            Rejected: the file would be too large, or the store does not accept it.
            Retryable: the store failed.

        Errors of ``feed`` and of the format pass.
        """
        members = iter(feed)
        first = next(members)  # its snapshot has the time that the name of the file has
        self.facts = replace(self.facts, as_of=first[0].document.as_of)
        packed = self._packed(chain([first], members))
        encrypted = self._encrypted(packed)
        made = TimedChunks(self._bounded(encrypted))
        try:
            with stage_span("upload", made, {"aws.s3.bucket": self.storage.bucket}, self.progress.times):
                stored = self.storage.put(
                    self.task.target(self.file_name),
                    made,
                    content_type=self.content_type,
                    file_name=self.file_name,
                    metadata=lambda: {"rows": str(self._rows())},
                    stopped=self.stopped,
                )
        finally:
            for chunks in (encrypted, packed):
                if isinstance(chunks, Generator):
                    chunks.close()
        self.key = stored.key
        return stored

    def result(self, stored: StoredObject) -> ExportResult:
        """Return the result of the export whose file is ``stored``."""
        facts = self.facts.of_written(self.written)
        rows = self._rows()
        return ExportResult(
            row_count=rows,
            file_size=stored.size,
            sha256=stored.sha256,
            bucket=self.storage.bucket,
            key=stored.key,
            content_type=self.content_type,
            file_name=self.file_name,
            as_of=facts.as_of,
            manifest={
                "file_name": self.file_name,
                "content_type": self.content_type,
                "rows": rows,
                "bytes": stored.size,
                "sha256": stored.sha256,
                **bundle_origin(facts, self.file_format, self.written),
                **encryption_facts(self.encryption),
            },
        )

    def _rows(self) -> int:
        return sum(item.member.row_count for item in self.written)

    def _packed(self, members: Members) -> Iterator[bytes]:
        tally, times = self.progress.tally, self.progress.times
        if isinstance(self.file_format, ExcelFormat):
            return bundle_workbook(
                self.file_format, members, self.facts, self.documents, tally, times, self.written
            )
        password = self.encryption.password if isinstance(self.encryption, ZipEncryption) else None
        archive = BundleArchive(
            self.file_format, self.compression, password, tally, times, self.task.day, self.written
        )
        return archive.chunks(members, self.facts)

    def _encrypted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if self._outer is None:
            return chunks
        return self._outer.apply(chunks, name=self.plain_name, time=self.facts.as_of)

    def _bounded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        size = 0
        for chunk in chunks:
            size += len(chunk)
            if self.max_bytes is not None and size > self.max_bytes:
                raise Rejected(
                    f"the file of the bundle has more than {self.max_bytes:,} bytes, the most that one file "
                    "can have; limit it with filters, or request its datasets; operators: the setting "
                    "EXPORTER_SPLIT_MAX_BYTES is the limit",
                    code="too_many_bytes",
                )
            yield chunk
