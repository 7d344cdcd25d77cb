"""How the store proves that what it got is what was sent: checksums where it knows them, else Content-MD5."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TypeVar

import structlog
from isal import isal_zlib
from minio.error import S3Error

from stream_app.storage.parts import PART_SIZE, Part, split_into_parts

log = structlog.get_logger(__name__)

T = TypeVar("T")
Bytes = bytes | memoryview

UNSUPPORTED = frozenset(
    {
        *("BadRequest", "InvalidArgument", "InvalidRequest", "MethodNotAllowed", "NotImplemented"),
        *("SignatureDoesNotMatch", "UnsupportedArgument", "UnsupportedHeader", "UnsupportedOperation"),
        *("XNotImplemented", "InvalidDigest", "MalformedXML"),
    }
)
"""What stores, and proxies that remove headers, answer to a header that they do not know."""


class ChecksumMethod(StrEnum):
    """Ways to prove it, the best first."""

    CHECKSUM = "x-amz-checksum-crc32"
    MD5 = "Content-MD5"
    NONE = "nothing"

    def headers(self, data: Bytes) -> dict[str, str]:
        """What is sent along with ``data``."""
        match self:
            case ChecksumMethod.CHECKSUM:
                return {self.value: crc32(data)}
            case ChecksumMethod.MD5:
                digest = hashlib.md5(data, usedforsecurity=False).digest()
                return {self.value: base64.b64encode(digest).decode()}
            case _:
                return {}


def crc32(data: Bytes) -> str:
    """The checksum as S3 writes it."""
    return base64.b64encode(isal_zlib.crc32(data).to_bytes(4, "big")).decode()


class ChecksumSupport:
    """The best way that a store is known to take: found out when an upload with a better one is refused."""

    def __init__(self) -> None:
        self.best = ChecksumMethod.CHECKSUM

    def call(self, function: Callable[[ChecksumMethod], T]) -> T:
        """Call ``function`` with the best method; if the store refuses it, with the next one, and keep that.

        Raises:
            Whatever ``function`` raised at first, if no other way works either.
        """
        ways = list(ChecksumMethod)
        first = self.best
        try:
            return function(first)
        except S3Error as error:
            if error.code not in UNSUPPORTED:
                raise
            for way in ways[ways.index(first) + 1 :]:
                try:
                    result = function(way)
                except S3Error as other:
                    if other.code not in UNSUPPORTED:
                        raise
                    continue
                self.best = way
                log.warning("store.checksum_refused", refused=first.value, used=way.value, code=error.code)
                return result
            raise


class HashedStream:
    """An iterator of chunks seen as parts; ``size`` is in bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of what was taken from the chunks so far."""
        return self._digest.hexdigest()

    def parts(self, usual: int = PART_SIZE) -> Iterator[Part]:
        """The parts of an upload, see :func:`~stream_app.storage.parts.split_into_parts`."""
        return split_into_parts(self._passing(), usual)

    def _passing(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._digest.update(chunk)
            self.size += len(chunk)
            yield chunk
