"""Files in object storage: upload of a stream, download links, removal. Synchronous: call it from threads."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from threading import Event
from typing import ParamSpec, TypeVar
from urllib.parse import quote
from uuid import UUID

from minio.error import S3Error

from stream_app.settings import Settings
from stream_app.storage.checksums import ChecksumMethod, ChecksumSupport, HashedStream
from stream_app.storage.client import S3Client, s3_client
from stream_app.storage.errors import STORE_ERRORS, store_errors
from stream_app.storage.lifecycle_rules import set_lifecycle_rules
from stream_app.storage.listing import (
    ListedObject,
    ObjectListing,
    attempts_prefix,
    new_key_suffix,
    object_key,
)
from stream_app.storage.multipart_upload import CLEAN_UP_SECONDS, PART_SIZE, Headers, open_multipart_upload
from streaming_exporter.errors import ExporterError, NeedsOperator

P = ParamSpec("P")
T = TypeVar("T")

CALLS = 8
"""Calls of the store that one process makes at a time, uploads apart."""

EXTRA_DAYS = 7
"""How much longer than a job's file is kept the bucket's own rule waits."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What lies in the store: size in bytes, hexadecimal digest."""

    key: str
    size: int
    sha256: str


def content_disposition(file_name: str) -> str:
    """RFC 6266: an ASCII name for old clients and the real one for all others."""
    plain = re.sub(r'[^ -~]|["\\/]', "_", file_name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


def encryption_of(settings: Settings) -> Headers:
    """The headers that ask the store to encrypt what it is given."""
    if settings.s3_sse == "none":
        return {}
    if settings.s3_sse == "s3":
        return {"x-amz-server-side-encryption": "AES256"}
    key = settings.s3_sse_kms_key
    named: Headers = {"x-amz-server-side-encryption-aws-kms-key-id": key} if key else {}
    return {"x-amz-server-side-encryption": "aws:kms", **named}


def _as_headers(metadata: Mapping[str, str]) -> Headers:
    return {f"x-amz-meta-{name}": value for name, value in metadata.items()}


class _ChunkError(Exception):
    """An error of whoever makes the chunks, on its way past what says what the store's errors mean."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _wrap_chunk_errors(chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except Exception as error:
        raise _ChunkError(error) from error


@contextmanager
def _unwrap_chunk_errors() -> Iterator[None]:
    try:
        yield
    except _ChunkError as marked:
        raise marked.error from marked.error.__cause__


class _TestUploadDone(Exception):
    """Ends a trial upload before it becomes an object."""


class ObjectStore:
    """One bucket of any S3 server."""

    def __init__(
        self,
        settings: Settings,
        *,
        connections: int = 10,
        timeout_seconds: float = 60,
        retry_seconds: float = 90,
    ) -> None:
        """``timeout_seconds`` limits one answer. A call is repeated for up to ``retry_seconds``.

        Both are seconds. What waits for the store has threads of its own: where it hangs, nothing else does.
        """
        self.bucket = settings.s3_bucket
        self.prefix = attempts_prefix(settings)
        self.checksum_support = ChecksumSupport()
        self._encryption = encryption_of(settings)
        self._link_lifetime = timedelta(seconds=settings.download_url_seconds)
        self._client = s3_client(
            settings,
            settings.s3_endpoint,
            connections,
            timeout_seconds=timeout_seconds,
            retry_seconds=retry_seconds,
        )
        self.listing = ObjectListing(self._client, self.bucket, self.prefix)
        # Links are signed for the host that users reach, which this process may not reach at all.
        self._signer = s3_client(settings, settings.s3_public_endpoint or settings.s3_endpoint, 1)
        self._threads = ThreadPoolExecutor(CALLS, thread_name_prefix="store")

    async def call(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """``function`` of this store, in one of the threads that are for nothing else."""
        run = partial(copy_context().run, function, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def close(self) -> None:
        """Repeat no call any more: the process ends."""
        self._client.stopped.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def key(self, job_id: object, attempt: int, file_name: str) -> str:
        """A key that no other attempt has, not even one with the same number."""
        return object_key(job_id, attempt, file_name, suffix=new_key_suffix(), prefix=self.prefix)

    def ensure_bucket(self) -> None:
        """Create the bucket if it is not there.

        Raises:
            Retryable: the store cannot be reached, or refuses.
        """
        with store_errors():
            if not self._is_there():
                try:
                    self._client.make_bucket(self.bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

    def set_lifecycle_rules(self, settings: Settings, longest: timedelta = timedelta(0)) -> bool:
        """Have the store itself remove what this service forgot; returns whether it takes such rules.

        ``longest`` is for how long a file that is there was promised to be kept.

        Raises:
            Retryable: the store cannot be reached.
        """
        return set_lifecycle_rules(
            self._client,
            self.bucket,
            files_after=max(timedelta(days=settings.retention_days), longest) + timedelta(days=EXTRA_DAYS),
            uploads_after=max(timedelta(days=1), timedelta(seconds=2 * settings.export_timeout_seconds)),
            prefix=self.prefix,
        )

    def check(self) -> None:
        """Ask whether the bucket is there.

        Raises:
            Retryable: it is not, or the store cannot be reached.
        """
        with store_errors():
            if not self._is_there():
                raise NeedsOperator(
                    f"object store: there is no bucket {self.bucket!r}",
                    reason="the bucket of the object store does not exist",
                )

    def _is_there(self) -> bool:
        """Whether the bucket is, asked for where this service has rights: below its own folder."""
        options = {"list-type": "2", "prefix": f"{self.prefix}/", "max-keys": "1"}
        try:
            self._client._execute("GET", self.bucket, query_params={**options})
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            return False
        return True

    def put(
        self,
        key: str,
        chunks: Iterator[bytes],
        *,
        content_type: str,
        file_name: str,
        metadata: Callable[[], Mapping[str, str]],
        stopped: Event | None = None,
    ) -> StoredObject:
        """Upload ``chunks`` as they come, in one way for all sizes: parts that are checked on arrival.

        A file that is one part is sent at once, with its sha256 and ``metadata()``, which is asked when
        the chunks have ended. A larger one has neither: it began before they were known, and to set them
        afterwards the store would copy it. ``stopped`` ends the repetition of calls.

        Raises:
            Rejected: the store never takes such a file.
            Retryable: the store failed. Whatever ``chunks`` raises passes. All leave no object and no open
                multipart upload, as far as the store can be reached.
        """
        stream = HashedStream(_wrap_chunk_errors(chunks))
        client = self._client.with_retries(stopped)
        headers: Headers = {
            "Content-Type": content_type,
            "Content-Disposition": content_disposition(file_name),
            **self._encryption,
        }
        with _unwrap_chunk_errors(), store_errors():
            parts = stream.parts(PART_SIZE)
            first = next(parts, b"")
            with self._removed_on_failure(key):
                if len(first) < PART_SIZE:
                    described = {"sha256": stream.sha256, **metadata()}
                    self._put_object_checked(client, key, bytes(first), {**headers, **_as_headers(described)})
                else:
                    with open_multipart_upload(
                        client, self.bucket, key, headers, self.checksum_support
                    ) as upload:
                        upload.add(first)
                        del first
                        for part in parts:
                            upload.add(part)
        return StoredObject(key, stream.size, stream.sha256)

    def _put_object_checked(self, client: S3Client, key: str, content: bytes, headers: Headers) -> None:
        def put(way: ChecksumMethod) -> None:
            client._put_object(self.bucket, key, content, {**headers, **way.headers(content)})

        self.checksum_support.call(put)

    @contextmanager
    def _removed_on_failure(self, key: str) -> Iterator[None]:
        """Leave no object: the store may have it even where its answer was lost."""
        try:
            yield
        except BaseException:
            with suppress(*STORE_ERRORS, ExporterError):
                self._client.with_retries(None, CLEAN_UP_SECONDS).remove_object(self.bucket, key)
            raise

    def test_upload(self) -> ChecksumMethod:
        """Write a small object and a part of an upload, and remove both; says how they were checked.

        Raises:
            Rejected, Retryable: the store does not take them, which is what it would do to an export.
        """
        key = self.key(UUID(int=0), 0, "trial")
        self.put(key, iter([b"trial"]), content_type="text/plain", file_name="trial", metadata=dict)
        try:
            with store_errors(), suppress(_TestUploadDone), self._open_test_upload(f"{key}-parts"):
                raise _TestUploadDone
        finally:
            self.remove(key)
        return self.checksum_support.best

    @contextmanager
    def _open_test_upload(self, key: str) -> Iterator[None]:
        headers: Headers = {"Content-Type": "text/plain", **self._encryption}
        with open_multipart_upload(self._client, self.bucket, key, headers, self.checksum_support) as upload:
            upload.add(b"trial")
            upload.wait()
            yield

    def presigned_url(self, key: str, file_name: str, content_type: str, *, method: str = "GET") -> str:
        """A fresh presigned URL that downloads the file under its name, or with HEAD describes it."""
        return self._signer.get_presigned_url(
            method,
            self.bucket,
            key,
            expires=self._link_lifetime,
            response_headers={
                "response-content-disposition": content_disposition(file_name),
                "response-content-type": content_type,
            },
        )

    def read(self, key: str) -> bytes:
        """A whole object, which the caller knows to be small.

        Raises:
            Retryable: the store failed, or has no such object.
        """
        with store_errors():
            response = self._client.get_object(self.bucket, key)
            with response:
                return response.read()

    def exists(self, key: str) -> bool:
        """Whether there is an object.

        Raises:
            Retryable: the store failed.
        """
        with store_errors():
            try:
                self._client.stat_object(self.bucket, key)
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                return False
            return True

    def time(self) -> datetime | None:
        """The store's clock, to the second; ``None`` where it does not say.

        Raises:
            Retryable: the store failed.
        """
        with store_errors():
            try:
                said = self._client._execute("HEAD", self.bucket).headers.get("Date")
            except S3Error as error:  # whoever may not see the bucket may see the clock
                said = error.response.headers.get("Date")
        return parsedate_to_datetime(said) + timedelta(seconds=0.5) if said else None

    def remove(self, key: str) -> None:
        """Delete the object; deleting what is gone is no error."""
        with store_errors():
            self._client.remove_object(self.bucket, key)

    def remove_attempts(self, job_id: object, *, before: int) -> int:
        """Delete what attempts of the job before number ``before`` left; returns how much that was.

        That is finished files, and parts of uploads whose worker died.
        """
        left = [found for page in self.listing.pages(job_id) for found in page if found.attempt < before]
        for found in left:
            self.listing.remove(found)
        return len(left)

    def open_uploads(self, job_id: object = None) -> list[ListedObject]:
        """MultipartUpload uploads that were neither completed nor aborted."""
        pages = self.listing.pages(job_id)
        return [found for page in pages for found in page if found.upload_id is not None]
