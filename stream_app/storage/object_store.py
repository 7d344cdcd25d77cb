"""Calls the object store: uploads, downloads, presigned URLs.

The methods block; :meth:`ObjectStore.run_in_thread` runs one of them in a thread.
"""

import asyncio
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
from uuid import UUID

from minio.error import S3Error
from urllib3 import BaseHTTPResponse

from stream_app.settings import Settings
from stream_app.storage.checksums import ChecksumMethod, ChecksumSupport, HashedStream
from stream_app.storage.chunk_errors import marked, unwrapped_chunk_errors
from stream_app.storage.errors import STORE_ERRORS, store_errors
from stream_app.storage.lifecycle_rules import set_lifecycle_rules
from stream_app.storage.listing import (
    ObjectListing,
    attempts_prefix,
    new_key_suffix,
    object_key,
)
from stream_app.storage.multipart_upload import CLEAN_UP_SECONDS, PART_SIZE, Headers, open_multipart_upload
from stream_app.storage.object_headers import content_disposition, encryption_headers, metadata_headers
from stream_app.storage.object_removal import ObjectRemoval
from stream_app.storage.s3_client import CONTENT_SHA256, S3Client, s3_client
from streaming_exporter.errors import ExporterError, NeedsOperator, Rejected

P = ParamSpec("P")
T = TypeVar("T")

TRIAL_JOB = UUID(int=0)
"""The job of the objects that :meth:`ObjectStore.probe_upload` writes. No job has this id."""

CALLS = 8
"""Number of calls that a process makes at a time, without uploads."""

EXTRA_DAYS = 7
"""Days from the expiry of a file until the lifecycle rule of the bucket removes it."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An uploaded object. ``size`` is in bytes, ``sha256`` is hexadecimal."""

    key: str
    size: int
    sha256: str


class _ProbeDone(Exception):
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
        self._encryption = encryption_headers(settings.s3_sse, settings.s3_sse_kms_key)
        self._link_lifetime = timedelta(seconds=settings.download_url_seconds)
        self._client = s3_client(
            settings,
            settings.s3_endpoint,
            connections,
            timeout_seconds=timeout_seconds,
            retry_seconds=retry_seconds,
        )
        self.listing = ObjectListing(self._client, self.bucket, self.prefix)
        self.removal = ObjectRemoval(self._client, self.bucket, self.listing)
        # URLs are signed for the host that users reach. This process possibly cannot reach it.
        self._signer = s3_client(settings, settings.s3_public_endpoint or settings.s3_endpoint, 1)
        self._threads = ThreadPoolExecutor(CALLS, thread_name_prefix="store")

    async def run_in_thread(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
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
            if not self._bucket_exists():
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
            if not self._bucket_exists():
                raise NeedsOperator(
                    f"object store: the bucket {self.bucket!r} does not exist",
                    reason="the bucket of the object store does not exist",
                )

    def _bucket_exists(self) -> bool:
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
                    headers |= metadata_headers({"sha256": stream.sha256, **metadata()})
                    headers[CONTENT_SHA256] = stream.sha256
                    self._put_single(client, key, bytes(first), headers)
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

    def _put_single(self, client: S3Client, key: str, content: bytes, headers: Headers) -> None:
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

    def probe_upload(self) -> ChecksumMethod:
        """Upload a small object and one part of a multipart upload, and remove both.

        Returns:
            The method by which the store checks integrity.

        Raises:
            Rejected, Retryable: the store refused a call, so it would refuse the file of an export too.
        """
        key = self.key(TRIAL_JOB, 0, "trial")
        self.put(key, iter([b"trial"]), content_type="text/plain", file_name="trial", metadata=dict)
        try:
            with store_errors(), suppress(_ProbeDone), self._open_probe_upload(f"{key}-parts"):
                raise _ProbeDone
        finally:
            self.removal.remove(key)
        return self.checksum_support.best

    @contextmanager
    def _open_probe_upload(self, key: str) -> Iterator[None]:
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

    def read_clock(self) -> datetime | None:
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
