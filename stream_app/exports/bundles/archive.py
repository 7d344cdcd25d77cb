"""The zip archive of a bundle: a file for each dataset, then ``README.txt`` and ``manifest.json``.

The archive is written as a stream. Its memory does not depend on the number of rows. Members are deflated
quickly, or stored if their format or the requested compression has compressed them already.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from isal import isal_zlib

from stream_app.exports.bundles.manifest import archive_manifest
from stream_app.exports.bundles.members import BundleFacts, Member, Members, WrittenMember, unique_names
from stream_app.exports.bundles.readme import readme
from stream_app.exports.files.compression import CompressedFile, Compression, compression_for
from stream_app.exports.files.encryption import OWNER_ONLY, PIECE, ZIP_SUFFIX, ZIP_TYPE
from stream_app.exports.formats.base import Format, Tally
from stream_app.exports.formats.framing_process import frame_in_process
from stream_app.exports.stage_spans import StageTimes, TimedChunks, rendering_span
from stream_app.storage.manifest import MANIFEST

if TYPE_CHECKING:
    from stream_zip import MemberFile

README = "README.txt"

MEDIA_TYPE, EXTENSION = ZIP_TYPE, ZIP_SUFFIX.removeprefix(".")

LEVEL = 1
"""Level of deflate. Its next level takes a tenth more time and makes files half a percent smaller."""


_DEFLATE = Compression("", "", lambda: isal_zlib.compressobj(level=LEVEL, wbits=-15), isal_zlib.Z_SYNC_FLUSH)


def member_compression(name: str, file_format: Format) -> Compression | None:
    """Return how the file of a dataset is compressed: as the request asks, else by the archive.

    Raises:
        Rejected: the format is compressed already.
    """
    return compression_for(name, file_format) or (_DEFLATE if file_format.compressible else None)


@dataclass(slots=True)
class BundleArchive:
    """Writes the archive of one bundle.

    Attributes:
        file_format: the format of the files.
        compression: the compression of each file; ``None`` for none.
        password: encrypts all files (AES-256); ``None`` for an archive that is not encrypted.
        tally: counts rows and warnings of all files.
        times: the busy seconds of the stages.
        day: returns the day in the names of files, for the time of a snapshot.
        written: the files that are complete.
    """

    file_format: Format
    compression: Compression | None
    password: str | None
    tally: Tally
    times: StageTimes
    day: Callable[[datetime], str]
    written: list[WrittenMember] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _is_compressed: bool = False

    def chunks(self, feed: Members, facts: BundleFacts) -> Iterator[bytes]:
        """Yield the bytes of the archive. ``facts.as_of`` is the time of its files."""
        from stream_zip import stream_zip  # a large library that few processes need

        yield from stream_zip(
            self._members(feed, facts),
            chunk_size=PIECE,
            get_compressobj=self._compressor,
            password=self.password,
        )

    def _members(self, feed: Members, facts: BundleFacts) -> Iterator["MemberFile"]:
        for member, rows in feed:
            self._is_compressed = self.compression is not None or not self.file_format.compressible
            name = self._name(member)
            yield _file(name, member.document.as_of, self._content(member, rows, name))
        self._is_compressed = False
        facts = facts.of_written(self.written)
        yield _file(README, facts.as_of, iter([readme(facts, self.written, self.file_format).encode()]))
        content = json.dumps(
            archive_manifest(facts, self.file_format, self.written), ensure_ascii=False, indent=1
        )
        yield _file(MANIFEST, facts.as_of, iter([content.encode()]))

    def _compressor(self) -> Any:
        """Return the compressor of the file that begins: one that only frames bytes if it is compressed."""
        if self._is_compressed:
            return zlib.compressobj(level=0, wbits=-zlib.MAX_WBITS)
        return _DEFLATE.compressor()

    def _name(self, member: Member) -> str:
        suffix = self.compression.suffix if self.compression else ""
        document = member.document
        # The number is before the extension, so that programs still know the type of the file.
        (stem,) = unique_names([f"{document.dataset}-{self.day(document.as_of)}"], self._names)
        self._names.append(stem)
        return f"{stem}.{self.file_format.extension}{suffix}"

    def _content(self, member: Member, rows: Iterator[bytes], name: str) -> Iterator[bytes]:
        """Yield the file of a dataset, the same as the export of that dataset alone would be."""
        before = self.tally.warnings.copy()
        read = TimedChunks(rows)
        framed = self._framed(read, member)
        made = CompressedFile(self.compression).apply(framed) if self.compression else framed
        rendered = rendering_span(made, read, self.times)
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in rendered:
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        finally:
            for chunks in (rendered, framed):
                if isinstance(chunks, Generator):
                    chunks.close()
        self.written.append(
            WrittenMember(
                member,
                warnings=member.warnings(self.tally.warnings - before),
                file_name=name,
                file_size=size,
                sha256=digest.hexdigest(),
                content_type=self.compression.media_type if self.compression else self.file_format.media_type,
            )
        )

    def _framed(self, rows: Iterator[bytes], member: Member) -> Iterator[bytes]:
        if self.file_format.own_process:
            return frame_in_process(self.file_format, rows, member.document, self.tally)
        return self.file_format.frame(rows, member.document, self.tally)


def _file(name: str, time: datetime, content: Iterator[bytes]) -> "MemberFile":
    from stream_zip import ZIP_64

    return name, time, OWNER_ONLY, ZIP_64, content
