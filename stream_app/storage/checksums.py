"""Integrity of uploads: the store checks a CRC-32 of the content, or Content-MD5 if it supports no CRC-32."""

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
"""Error codes of stores that do not know a header, and of proxies that remove it."""


class ChecksumMethod(StrEnum):
    """Methods to check the integrity of an upload, the best first."""

    CHECKSUM = "x-amz-checksum-crc32"
    MD5 = "Content-MD5"
    NONE = "nothing"

    def headers(self, data: Bytes) -> dict[str, str]:
        """Return the headers for an upload of ``data``."""
        match self:
            case ChecksumMethod.CHECKSUM:
                return {self.value: crc32(data)}
            case ChecksumMethod.MD5:
                digest = hashlib.md5(data, usedforsecurity=False).digest()
                return {self.value: base64.b64encode(digest).decode()}
            case _:
                return {}


def crc32(data: Bytes) -> str:
    """Return the CRC-32 of ``data`` as S3 writes it."""
    return base64.b64encode(isal_zlib.crc32(data).to_bytes(4, "big")).decode()


class ChecksumSupport:
    """The best method that a store supports. A better one is dropped when the store refuses it."""

    def __init__(self) -> None:
        self.best = ChecksumMethod.CHECKSUM

    def call(self, function: Callable[[ChecksumMethod], T]) -> T:
        """Call ``function`` with the best method. If the store refuses it, use the next one from then on.

        Raises:
            The first error of ``function``, if no other method works either.
        """
        methods = list(ChecksumMethod)
        first = self.best
        try:
            return function(first)
        except S3Error as error:
            if error.code not in UNSUPPORTED:
                raise
            for method in methods[methods.index(first) + 1 :]:
                try:
                    result = function(method)
                except S3Error as other:
                    if other.code not in UNSUPPORTED:
                        raise
                    continue
                self.best = method
                log.warning("store.checksum_refused", refused=first.value, used=method.value, code=error.code)
                return result
            raise


class HashedStream:
    """Joins chunks to the parts of an upload, and hashes them. ``size`` is in bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """The hexadecimal digest of all chunks so far."""
        return self._digest.hexdigest()

    def parts(self, usual: int = PART_SIZE) -> Iterator[Part]:
        """Yield the parts of the upload, see :func:`~stream_app.storage.parts.split_into_parts`."""
        return split_into_parts(self._passing(), usual)

    def _passing(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._digest.update(chunk)
            self.size += len(chunk)
            yield chunk
