"""One multipart upload whose parts are checked on arrival and go up side by side.

The client library's own upload names no checksums, and aborts while other parts are still under way.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import BoundedSemaphore
from xml.etree.ElementTree import Element, SubElement, tostring

from minio.error import MinioException, S3Error

from stream_app.storage.checksums import UNSUPPORTED, ChecksumMethod, ChecksumSupport, crc32
from stream_app.storage.client import S3Client
from stream_app.storage.errors import STORE_ERRORS
from stream_app.storage.parts import MAX_PARTS, PART_SIZE, Part, largest_file
from streaming_exporter.errors import ExporterError, Rejected

__all__ = ["MAX_PARTS", "PARALLEL", "PART_SIZE", "Headers", "MultipartUpload", "open_multipart_upload"]

PARALLEL = 2
"""Parts under way at a time: one crosses the network while the store writes the other."""

CLEAN_UP_SECONDS = 10.0
"""For how long what removes the traces of a failure is repeated: a sweep finds what it leaves."""

Headers = dict[str, str | list[str] | tuple[str]]

_ALL = {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "FULL_OBJECT"}


class MultipartUpload:
    """An open upload: :meth:`add` its parts in order."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        key: str,
        headers: Headers,
        checksums: ChecksumSupport,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._checksums = checksums
        self._pool = pool
        self._room = BoundedSemaphore(PARALLEL)
        self._parts: list[Future[tuple[str, str | None]]] = []
        self._failure: BaseException | None = None
        self._size = 0
        self._id = checksums.call(lambda way: self._create(headers, way))

    def _create(self, headers: Headers, way: ChecksumMethod) -> str:
        checked: Headers = {**_ALL} if way is ChecksumMethod.CHECKSUM else {}
        return self._client._create_multipart_upload(self._bucket, self._key, {**headers, **checked})

    def add(self, data: Part) -> None:
        """Send a part, once fewer than :data:`PARALLEL` are under way.

        Raises:
            Rejected: the file has more parts than a store takes.
            Whatever an earlier part failed with.
        """
        if len(self._parts) == MAX_PARTS:
            raise Rejected(
                f"the file would be larger than {largest_file(parts=MAX_PARTS) / 2**30:,.0f} GiB; "
                "narrow the export with filters, or compress it",
                code="too_large",
            )
        self._room.acquire()
        if self._failure is not None:
            raise self._failure
        self._size += len(data)
        self._parts.append(self._pool.submit(self._send, len(self._parts) + 1, data))

    def _send(self, number: int, data: Part) -> tuple[str, str | None]:
        """Returns the part's entity tag, and its checksum where the store takes those."""

        def part(way: ChecksumMethod) -> tuple[str, str | None]:
            headers: Headers = {**way.headers(_view(data))}
            # Typed as bytes; it is only asked for its length and its content.
            content: bytes = data  # type: ignore[assignment]
            etag = self._client._upload_part(self._bucket, self._key, content, headers, self._id, number)
            return etag, crc32(_view(data)) if way is ChecksumMethod.CHECKSUM else None

        try:
            return self._checksums.call(part)
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._room.release()

    def wait(self) -> None:
        """Let the parts that were added arrive.

        Raises:
            Whatever one of them failed with.
        """
        for part in self._parts:
            part.result()

    def complete(self) -> None:
        """Make the object of the parts; where the answer is lost, ask whether it is there.

        Raises:
            MinioException, urllib3.exceptions.HTTPError, OSError: it is not, as far as anybody knows.
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
            if not self._is_there():
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
        answer = self._client._execute(
            "POST",
            self._bucket,
            self._key,
            body=tostring(document),
            headers=headers,
            query_params={"uploadId": self._id},
        )
        if b"<Error" in answer.data:  # S3 may find out after it has said 200
            raise MinioException(f"the upload could not be completed: {answer.data.decode(errors='replace')}")

    def _is_there(self) -> bool:
        """Whether the object is: nobody else writes to its key, so its size says enough."""
        try:
            return self._client.stat_object(self._bucket, self._key).size == self._size
        except (*STORE_ERRORS, ExporterError):
            return False

    def abort(self) -> None:
        """Give the upload up. What that fails with is of no interest: it may have been completed."""
        client = self._client.with_retries(None, CLEAN_UP_SECONDS)
        with suppress(*STORE_ERRORS, ExporterError):
            client._abort_multipart_upload(self._bucket, self._key, self._id)


def _view(data: Part) -> bytes | memoryview:
    return data if isinstance(data, bytes) else memoryview(data)


@contextmanager
def open_multipart_upload(
    client: S3Client, bucket: str, key: str, headers: Headers, checksums: ChecksumSupport | None = None
) -> Iterator[MultipartUpload]:
    """An upload that is completed when the block ends, and aborted if it raises.

    ``headers`` are the object's; all errors are the client library's.
    """
    with ThreadPoolExecutor(PARALLEL, "part") as pool:
        upload = MultipartUpload(client, bucket, key, headers, checksums or ChecksumSupport(), pool)
        try:
            yield upload
            upload.complete()
        except BaseException:
            # No part may be under way any more: one that arrived after the abort would stay for ever.
            pool.shutdown(wait=True, cancel_futures=False)
            upload.abort()
            raise
