"""One multipart upload whose parts are checked on arrival and go up side by side.

The client library's own upload names no checksums, and aborts while other parts are still under way. With a
checksum the store proves every part, and has one of the whole object, so that it later changes the object's
metadata in place: without, MinIO reads and writes the whole object again to make one up.
"""

import base64
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import BoundedSemaphore
from xml.etree.ElementTree import Element, ParseError, SubElement, tostring

from isal import isal_zlib
from minio import Minio
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from stream_app.errors import Rejected

PART_SIZE = 8 * 2**20
"""Bytes of every part but the last; some stores want them all alike."""

MAX_PARTS = 10_000
"""The most that S3 takes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html): 80 GiB."""

PARALLEL = 2
"""Parts under way at a time: one crosses the network while the store writes the other."""

Headers = dict[str, str | list[str] | tuple[str]]


class Multipart:
    """An open upload: :meth:`add` its parts in order."""

    def __init__(
        self, client: Minio, bucket: str, key: str, upload_id: str, pool: ThreadPoolExecutor
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._upload_id = upload_id
        self._pool = pool
        self._room = BoundedSemaphore(PARALLEL)
        self._parts: list[Future[tuple[str, str]]] = []
        self._failure: BaseException | None = None

    def add(self, data: bytes) -> None:
        """Send a part, once fewer than :data:`PARALLEL` are under way.

        Raises:
            Rejected: the file has more parts than a store takes.
            Whatever an earlier part failed with.
        """
        if len(self._parts) == MAX_PARTS:
            raise Rejected(
                f"the file would be larger than {MAX_PARTS * PART_SIZE / 2**30:.0f} GiB; "
                "narrow the export with filters, or compress it",
                code="too_large",
            )
        self._room.acquire()
        if self._failure is not None:
            raise self._failure
        self._parts.append(self._pool.submit(self._send, len(self._parts) + 1, data))

    def _send(self, number: int, data: bytes) -> tuple[str, str]:
        """Returns the part's entity tag and checksum."""
        try:
            checksum = base64.b64encode(isal_zlib.crc32(data).to_bytes(4, "big")).decode()
            etag = self._client._upload_part(
                self._bucket, self._key, data, {"x-amz-checksum-crc32": checksum}, self._upload_id, number
            )
            return etag, checksum
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._room.release()

    def _complete(self) -> None:
        document = Element("CompleteMultipartUpload")
        for number, part in enumerate(self._parts, 1):
            etag, checksum = part.result()
            element = SubElement(document, "Part")
            SubElement(element, "PartNumber").text = str(number)
            SubElement(element, "ETag").text = f'"{etag}"'
            SubElement(element, "ChecksumCRC32").text = checksum
        answer = self._client._execute(
            "POST",
            self._bucket,
            self._key,
            body=tostring(document),
            headers={"Content-Type": "application/xml", "x-amz-checksum-type": "FULL_OBJECT"},
            query_params={"uploadId": self._upload_id},
        )
        if b"<Error" in answer.data:  # S3 may find out after it has said 200
            raise MinioException(f"the upload could not be completed: {answer.data.decode(errors='replace')}")


@contextmanager
def multipart(client: Minio, bucket: str, key: str, headers: Headers) -> Iterator[Multipart]:
    """An upload that is completed when the block ends, and aborted if it raises.

    ``headers`` are the object's; all errors are the client library's.
    """
    checked = {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "FULL_OBJECT"}
    upload_id = client._create_multipart_upload(bucket, key, {**headers, **checked})
    try:
        with ThreadPoolExecutor(PARALLEL, "part") as pool:
            upload = Multipart(client, bucket, key, upload_id, pool)
            yield upload
        upload._complete()
    except BaseException:
        # No part is under way any more: one that arrived after the abort would stay for ever. What the abort
        # fails with is of no interest, the upload may have been completed.
        with suppress(MinioException, HTTPError, OSError, ParseError):
            client._abort_multipart_upload(bucket, key, upload_id)
        raise
