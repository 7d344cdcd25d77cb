"""Multipart uploads. Parts are sent in parallel, and the store checks the integrity of each.

It replaces the client library's upload, which sends no checksums, and which aborts while other parts are
still being sent.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import BoundedSemaphore
from xml.etree.ElementTree import Element, SubElement, tostring

from minio.error import S3Error

from stream_app.storage.checksums import UNSUPPORTED, ChecksumMethod, ChecksumSupport, crc32
from stream_app.storage.errors import STORE_ERRORS
from stream_app.storage.parts import MAX_PARTS, PART_SIZE, Part, largest_file
from stream_app.storage.s3_client import S3Client
from streaming_exporter.errors import ExporterError, Rejected

__all__ = ["MAX_PARTS", "PARALLEL", "PART_SIZE", "Headers", "MultipartUpload", "open_multipart_upload"]

PARALLEL = 2
"""Number of parts that are sent at a time: the network carries one while the store writes the other."""

CLEAN_UP_SECONDS = 10.0
"""Seconds after its start in which a removal after a failure is retried.

The error waits for it. The bucket cleaner removes the rest.
"""

Headers = dict[str, str | list[str] | tuple[str]]

_ALL = {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "FULL_OBJECT"}


class MultipartUpload:
    """An open multipart upload. :meth:`add` takes its parts in order. ``id`` is the one of the store."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        key: str,
        headers: Headers,
        checksums: ChecksumSupport,
        pool: ThreadPoolExecutor,
        own_key: bool = True,
    ) -> None:
        """Open the upload. ``own_key``: no other upload uses the key."""
        self._own_key = own_key
        self._client = client
        self._bucket = bucket
        self._key = key
        self._checksums = checksums
        self._pool = pool
        self._room = BoundedSemaphore(PARALLEL)
        self._parts: list[Future[tuple[str, str | None]]] = []
        self._failure: BaseException | None = None
        self._size = 0
        self.id = checksums.call(lambda method: self._create(headers, method))

    def _create(self, headers: Headers, method: ChecksumMethod) -> str:
        checked: Headers = {**_ALL} if method is ChecksumMethod.CHECKSUM else {}
        return self._client._create_multipart_upload(self._bucket, self._key, {**headers, **checked})

    def add(self, data: Part) -> None:
        """Send a part as soon as fewer than :data:`PARALLEL` are being sent.

        Raises:
            Rejected: the file has more parts than S3 allows.
            The error of an earlier part, if one has failed.
        """
        if len(self._parts) == MAX_PARTS:
            raise Rejected(
                f"the file is larger than the limit of {largest_file(parts=MAX_PARTS) / 2**30:,.0f} GiB; "
                "narrow the export with filters, or compress it",
                code="too_large",
            )
        self._room.acquire()
        if self._failure is not None:
            raise self._failure
        self._size += len(data)
        self._parts.append(self._pool.submit(self._send, len(self._parts) + 1, data))

    def _send(self, number: int, data: Part) -> tuple[str, str | None]:
        """Send a part and return its entity tag, and its checksum if the store supports checksums."""

        def part(method: ChecksumMethod) -> tuple[str, str | None]:
            headers: Headers = {**method.headers(_view(data))}
            # The library wants bytes, but uses only length and content.
            content: bytes = data  # type: ignore[assignment]
            etag = self._client._upload_part(self._bucket, self._key, content, headers, self.id, number)
            return etag, crc32(_view(data)) if method is ChecksumMethod.CHECKSUM else None

        try:
            return self._checksums.call(part)
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._room.release()

    def wait(self) -> None:
        """Wait until all added parts are sent.

        Raises:
            The error of a part that has failed.
        """
        for part in self._parts:
            part.result()

    def complete(self) -> None:
        """Create the object from its parts. If the answer is lost, check whether the object exists.

        Raises:
            MinioException, urllib3.exceptions.HTTPError, OSError: the object was possibly not created.
        """
        parts = [part.result() for part in self._parts]
        try:
            try:
                self._ask_for_completion(parts, checked=all(checksum for _, checksum in parts))
            except S3Error as error:
                if error.code not in UNSUPPORTED:
                    raise
                self._ask_for_completion(parts, checked=False)
        except (*STORE_ERRORS, ExporterError):
            if not self._own_key or not self._is_there():
                raise

    def _ask_for_completion(self, parts: list[tuple[str, str | None]], *, checked: bool) -> None:
        document = Element("CompleteMultipartUpload")
        for number, (etag, checksum) in enumerate(parts, 1):
            element = SubElement(document, "Part")
            SubElement(element, "PartNumber").text = str(number)
            SubElement(element, "ETag").text = f'"{etag}"'
            if checked:
                SubElement(element, "ChecksumCRC32").text = checksum
        headers: Headers = {"Content-Type": "application/xml"}
        if checked:
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        self._client._execute(
            "POST",
            self._bucket,
            self._key,
            body=tostring(document),
            headers=headers,
            query_params={"uploadId": self.id},
        )

    def _is_there(self) -> bool:
        """Return whether the object exists with the right size. No other upload uses its key."""
        try:
            return self._client.stat_object(self._bucket, self._key).size == self._size
        except (*STORE_ERRORS, ExporterError):
            return False

    def abort(self) -> None:
        """Abort the upload. Errors are ignored, because the upload can be complete already."""
        client = self._client.with_retries(None, within=CLEAN_UP_SECONDS)
        with suppress(*STORE_ERRORS, ExporterError):
            client._abort_multipart_upload(self._bucket, self._key, self.id)


def _view(data: Part) -> bytes | memoryview:
    return data if isinstance(data, bytes) else memoryview(data)


@contextmanager
def open_multipart_upload(
    client: S3Client,
    bucket: str,
    key: str,
    headers: Headers,
    checksums: ChecksumSupport | None = None,
    *,
    own_key: bool = True,
) -> Iterator[MultipartUpload]:
    """Open an upload for the block. It is completed at the end, or aborted after an error.

    ``headers`` are those of the object. ``own_key``: no other upload uses the key. Then an object of the
    right size proves that this upload was completed, if the answer is lost. All errors are those of the
    client library.
    """
    with ThreadPoolExecutor(PARALLEL, "part") as pool:
        upload = MultipartUpload(
            client, bucket, key, headers, checksums or ChecksumSupport(), pool, own_key=own_key
        )
        try:
            yield upload
            upload.complete()
        except BaseException:
            # Wait for all parts first: a part that arrived after the abort would never be removed.
            pool.shutdown(wait=True, cancel_futures=False)
            upload.abort()
            raise
