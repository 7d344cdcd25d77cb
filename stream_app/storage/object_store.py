"""The object store: uploads, presigned URLs, removal. It is synchronous, for use in threads."""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from urllib3 import BaseHTTPResponse

from stream_app.settings import Settings
from stream_app.storage.checksums import ChecksumMethod, ChecksumSupport, HashedStream
from stream_app.storage.chunk_errors import marked, unwrapped_chunk_errors
from stream_app.storage.errors import STORE_ERRORS, store_errors
from stream_app.storage.lifecycle_rules import set_lifecycle_rules
from stream_app.storage.listing import (
    ListedObject,
    ObjectListing,
    attempts_prefix,
    folders_of,
    new_key_suffix,
    object_key,
)
from stream_app.storage.manifest import MANIFEST
from stream_app.storage.multipart_upload import CLEAN_UP_SECONDS, PART_SIZE, Headers, open_multipart_upload
from stream_app.storage.s3_client import CONTENT_SHA256, S3Client, s3_client
from streaming_exporter.errors import ExporterError, NeedsOperator, Rejected

P = ParamSpec("P")
T = TypeVar("T")

TRIAL_JOB = UUID(int=0)
"""The job of the objects that :meth:`ObjectStore.test_upload` writes. No job has this id."""

CALLS = 8
"""Number of calls that a process makes at a time, without uploads."""

ABORTS = 3
"""How often an upload that stays in the listing is aborted. The bucket cleaner removes it a day later."""

EXTRA_DAYS = 7
"""Days from the expiry of a file until the lifecycle rule of the bucket removes it."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An uploaded object. ``size`` is in bytes, ``sha256`` is hexadecimal."""

    key: str
    size: int
    sha256: str


def content_disposition(file_name: str) -> str:
    """Return the header (RFC 6266): an ASCII name for old clients, and the real name for the others."""
    plain = re.sub(r'[^ -~]|["\\/]', "_", file_name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


def encryption_of(settings: Settings) -> Headers:
    """Return the headers that ask the store to encrypt an object."""
    if settings.s3_sse == "none":
        return {}
    if settings.s3_sse == "s3":
        return {"x-amz-server-side-encryption": "AES256"}
    key = settings.s3_sse_kms_key
    named: Headers = {"x-amz-server-side-encryption-aws-kms-key-id": key} if key else {}
    return {"x-amz-server-side-encryption": "aws:kms", **named}


def _as_headers(metadata: Mapping[str, str]) -> Headers:
    return {f"x-amz-meta-{name}": value for name, value in metadata.items()}


class _TestUploadDone(Exception):
    """Raised to end the test of a multipart upload before its completion."""


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
        """Create the clients.

        The store has threads of its own, so nothing else is blocked while it does not answer.

        Args:
            settings: the settings.
            connections: size of the pool of connections.
            timeout_seconds: time-out of one answer.
            retry_seconds: how long a call is retried after its first error.
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
        # URLs are signed for the host that users reach. This process possibly cannot reach it.
        self._signer = s3_client(settings, settings.s3_public_endpoint or settings.s3_endpoint, 1)
        self._threads = ThreadPoolExecutor(CALLS, thread_name_prefix="store")

    async def call(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call ``function``, a method of this store, in a thread of the store."""
        run = partial(copy_context().run, function, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def close(self) -> None:
        """Stop retrying calls, because the process ends."""
        self._client.stopped.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def key(self, job_id: object, attempt: int, file_name: str) -> str:
        """Return a key that no other attempt has, not even one with the same number."""
        return object_key(job_id, attempt, file_name, suffix=new_key_suffix(), prefix=self.prefix)

    def folder(self, job_id: object, attempt: int) -> str:
        """Return a folder for the files of an attempt. No other attempt has it, not even one of that number.

        It has no slash at its end.
        """
        return self.key(job_id, attempt, "").rstrip("/")

    def ensure_bucket(self) -> None:
        """Create the bucket if it does not exist.

        Raises:
            Retryable: the store cannot be reached, or refuses the call.
        """
        with store_errors():
            if not self._is_there():
                try:
                    self._client.make_bucket(self.bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

    def set_lifecycle_rules(self, settings: Settings, longest_retention: timedelta = timedelta(0)) -> bool:
        """Set the lifecycle rules of the bucket.

        ``longest_retention`` is the longest time for which a file on record must be kept.

        Returns:
            Whether the rules are set. If not, a warning is logged.
        """
        return set_lifecycle_rules(
            self._client,
            self.bucket,
            files_after=max(timedelta(days=settings.retention_days), longest_retention)
            + timedelta(days=EXTRA_DAYS),
            uploads_after=max(timedelta(days=1), timedelta(seconds=2 * settings.export_timeout_seconds)),
            prefix=self.prefix,
        )

    def check(self) -> None:
        """Check that the bucket exists.

        Raises:
            NeedsOperator: the bucket does not exist.
            Retryable: the store cannot be reached.
        """
        with store_errors():
            if not self._is_there():
                raise NeedsOperator(
                    f"object store: the bucket {self.bucket!r} does not exist",
                    reason="the bucket of the object store does not exist",
                )

    def _is_there(self) -> bool:
        """Return whether the bucket exists, by a call that needs no permission outside of the own folder."""
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
        """Upload ``chunks`` in parts. The store checks the integrity of each part.

        A file of one part is sent in one call, with its sha256 and ``metadata()`` as metadata; ``metadata``
        is called after the last chunk. A larger file has no such metadata: they are not known when its
        upload begins, and the store would have to copy the file to add them.

        Args:
            key: key of the object.
            chunks: content of the file.
            content_type: media type.
            file_name: name under which browsers save the file.
            metadata: returns the metadata of the object.
            stopped: ends the retries of calls when it is set.

        Raises:
            Rejected: the store does not accept such a file.
            Retryable: the store failed.

        Errors of ``chunks`` are raised unchanged. After an error no object and no open multipart upload is
        left, if the store can be reached.
        """
        stream = HashedStream(marked(chunks))
        client = self._client.with_retries(stopped)
        headers: Headers = {
            "Content-Type": content_type,
            "Content-Disposition": content_disposition(file_name),
            **self._encryption,
        }
        with unwrapped_chunk_errors(), store_errors():
            parts = stream.parts(PART_SIZE)
            first = next(parts, b"")
            with self._removed_on_failure(key):
                if len(first) < PART_SIZE:
                    headers |= _as_headers({"sha256": stream.sha256, **metadata()})
                    headers[CONTENT_SHA256] = stream.sha256
                    self._put_object_checked(client, key, bytes(first), headers)
                else:
                    with open_multipart_upload(
                        client, self.bucket, key, headers, self.checksum_support
                    ) as upload:
                        upload.add(first)
                        del first
                        for part in parts:
                            upload.add(part)
                            del part  # it must not be kept until the next one is complete
        return StoredObject(key, stream.size, stream.sha256)

    def _put_object_checked(self, client: S3Client, key: str, content: bytes, headers: Headers) -> None:
        def put(method: ChecksumMethod) -> None:
            client._put_object(self.bucket, key, content, {**headers, **method.headers(content)})

        self.checksum_support.call(put)

    @contextmanager
    def _removed_on_failure(self, key: str) -> Iterator[None]:
        """Remove the object after an error in the block: it can exist although the answer was lost."""
        try:
            yield
        except BaseException:
            with suppress(*STORE_ERRORS, ExporterError):
                self._client.with_retries(None, within=CLEAN_UP_SECONDS).remove_object(self.bucket, key)
            raise

    def test_upload(self) -> ChecksumMethod:
        """Upload a small object and one part of a multipart upload, and remove both.

        Returns:
            The method by which the store checks integrity.

        Raises:
            Rejected, Retryable: the store refused a call, so it would refuse the file of an export too.
        """
        key = self.key(TRIAL_JOB, 0, "trial")
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
        """Return a new presigned URL: GET downloads the file under its name, HEAD returns its headers."""
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
        """Return the content of an object, which must be small.

        Raises:
            Rejected: there is no such object (code ``no_file``), or the store refuses the call.
            Retryable: the store failed.
        """
        with store_errors(), self._opened(key) as response:
            return response.read()

    def chunks(self, key: str, size: int) -> Iterator[bytes]:
        """Yield the content of an object in chunks of up to ``size`` bytes.

        Raises:
            Rejected: there is no such object (code ``no_file``), or the store refuses the call.
            Retryable: the store failed.
        """
        with store_errors():
            response = self._opened(key)
        with response:
            while True:
                with store_errors():
                    chunk = response.read(size)
                if not chunk:
                    return
                yield chunk

    def _opened(self, key: str) -> BaseHTTPResponse:
        try:
            return self._client.get_object(self.bucket, key)
        except S3Error as error:
            if error.code == "NoSuchKey":
                raise Rejected(f"object store: there is no object {key}", code="no_file") from error
            raise

    def exists(self, key: str) -> bool:
        """Return whether the object exists.

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
        """Return the time of the store's clock, in whole seconds; ``None`` if its responses have no time.

        Raises:
            Retryable: the store failed.
        """
        with store_errors():
            try:
                date = self._client._execute("HEAD", self.bucket).headers.get("Date")
            except S3Error as error:  # an error response has the time too
                date = error.response.headers.get("Date")
        return parsedate_to_datetime(date) + timedelta(seconds=0.5) if date else None

    def remove(self, key: str) -> None:
        """Remove the object. It is no error if it does not exist."""
        with store_errors():
            self._client.remove_object(self.bucket, key)

    def remove_all(self, keys: Iterable[str]) -> None:
        """Remove objects, many with one call where the store has such a call. Missing ones are no error."""
        self.listing.remove_all(keys)

    def remove_result(self, key: str) -> None:
        """Remove the file of an attempt; if it is a :data:`MANIFEST`, also all files in its folder.

        Raises:
            Retryable: the store failed. The call can be repeated.
        """
        folders = folders_of(key)
        self._remove_with(key, folders and folders[0])

    def remove_job(self, key: str) -> None:
        """Remove the file of a job that has ended; if it is a :data:`MANIFEST`, all files of the job.

        Raises:
            Retryable: the store failed. The call can be repeated.
        """
        folders = folders_of(key)
        self._remove_with(key, folders and folders[1])

    def _remove_with(self, key: str, folder: str | None) -> None:
        """Remove everything in ``folder`` if ``key`` is a manifest, and ``key`` last.

        Without a folder only ``key`` is removed: an event with a wrong key must not cost objects of others.
        """
        if key.endswith(f"/{MANIFEST}") and folder:
            for page in self.listing.keys_in(folder):
                self.remove_all(found for found in page if found != key)
        self.remove(key)

    def remove_attempts(self, job_id: object, *, before: int) -> int:
        """Remove the objects of the job's attempts with a number below ``before``.

        These are finished files, and open uploads whose worker died.

        Returns:
            The number of removed objects.
        """
        return self.remove_unneeded(job_id, lambda found: found.attempt < before)

    def remove_unneeded(self, job_id: object, is_unneeded: Callable[[ListedObject], bool]) -> int:
        """Remove those objects and open uploads of a job for which ``is_unneeded`` is true.

        An upload can be left although the store took its abort: a part that was still being written keeps it
        (S3 API reference, AbortMultipartUpload). So uploads are listed again, and what is left is aborted
        again, at most :data:`ABORTS` times in all.

        Returns:
            The number of removed objects.
        """
        left = [item for page in self.listing.pages(job_id) for item in page if is_unneeded(item)]
        self.remove_all(item.key for item in left if item.upload_id is None)
        uploads = [item for item in left if item.upload_id is not None]
        for _ in range(ABORTS):
            for item in uploads:
                self.listing.remove(item)
            if not uploads:
                break
            uploads = [item for item in self.open_uploads(job_id) if is_unneeded(item)]
        return len(left)

    def open_uploads(self, job_id: object = None) -> list[ListedObject]:
        """Return the multipart uploads that were neither completed nor aborted."""
        return [item for page in self.listing.uploads(job_id) for item in page]
