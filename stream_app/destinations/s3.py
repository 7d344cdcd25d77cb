"""Writes files into a bucket of an S3 server.

An upload is complete or not there: S3 shows an object only after its last part. So there are no temporary
names.
"""

from collections.abc import Iterator
from contextlib import suppress
from threading import Event
from typing import Literal
from urllib.parse import quote, urlsplit
from xml.etree.ElementTree import Element, SubElement, tostring

import urllib3
from minio.credentials.providers import Provider
from minio.datatypes import Object
from minio.error import InvalidResponseError, S3Error
from pydantic import SecretStr

from stream_app.datasets.destinations import S3Destination
from stream_app.destinations.errors import FAILED, DestinationError
from stream_app.destinations.s3_errors import s3_errors
from stream_app.destinations.secrets import secret_of
from stream_app.destinations.session import OutgoingFile, SessionOptions
from stream_app.settings import Settings
from stream_app.storage.checksums import ChecksumSupport
from stream_app.storage.chunk_errors import marked
from stream_app.storage.credentials import StaticKeys, credentials_of
from stream_app.storage.errors import STORE_ERRORS, ForeignAnswer, is_retryable
from stream_app.storage.multipart_upload import CLEAN_UP_SECONDS, PART_SIZE, Headers, open_multipart_upload
from stream_app.storage.object_headers import content_disposition, encryption_headers
from stream_app.storage.parts import split_into_parts
from stream_app.storage.s3_client import S3Client
from streaming_exporter.errors import ExporterError

RETRY_SECONDS = 15.0
"""How long a call is retried. After that the outbox retries the delivery."""
TIMEOUT_SECONDS = 60.0

COPY_PART = 256 * 2**20
"""Bytes that the server copies in one call. A larger object is copied in parts: no call takes long."""

_CANNOT_READ = ("AccessDenied", "Forbidden")
"""The answers for keys that can only write."""

_NO_ANSWERS_OF_COPIES = (S3Error, ForeignAnswer, InvalidResponseError)
"""The answers of a store that does not copy, or of a proxy that does not let copies pass."""

_BUSY_PROXY = (408, 429, 502, 503, 504)
"""The statuses of a proxy whose store restarts or is overloaded. Their pages say nothing about copies."""

_GONE = ("NoSuchKey", "NoSuchObject", "ResourceNotFound")
"""The answers for an object that does not exist."""


class S3Session:
    """Calls of one bucket; see :class:`~stream_app.destinations.session.Session`."""

    def __init__(self, destination: S3Destination, settings: Settings, options: SessionOptions) -> None:
        self._bucket = destination.bucket
        self._options = options
        self._prefix = destination.prefix.strip("/")
        self._client = _client(destination, settings)
        self._checksums = ChecksumSupport()
        self._can_copy = _same_store(destination, settings)
        self._encryption = encryption_headers(destination.sse, destination.sse_kms_key)

    def remove_leftovers(self, path: str) -> None:
        """Abort the uploads of earlier attempts. Errors are ignored: they take no part in the new upload.

        Where others write to the path too, only the recorded uploads are aborted.
        """
        key = self._key(path)
        if not self._options.is_own(path):
            for recorded in self._options.uploads:
                with suppress(*STORE_ERRORS, ExporterError):
                    self._client._abort_multipart_upload(self._bucket, key, recorded)
            return
        with suppress(*STORE_ERRORS, ExporterError):
            for upload in self._client._list_multipart_uploads(self._bucket, prefix=key).uploads:
                if upload.object_name == key and upload.upload_id is not None:
                    self._client._abort_multipart_upload(self._bucket, key, upload.upload_id)

    def put(self, file: OutgoingFile, chunks: Iterator[bytes]) -> None:
        """Upload a file, and compare its size."""
        key, headers = self._key(file.path), self._headers(file)
        with s3_errors(is_encrypted=bool(self._encryption)):
            parts = split_into_parts(marked(chunks), PART_SIZE)
            first = next(parts, b"")
            if len(first) < PART_SIZE:
                content = bytes(first)
                self._options.check()
                self._checksums.call(
                    lambda method: self._client._put_object(
                        self._bucket, key, content, {**headers, **method.headers(content)}
                    )
                )
            else:
                with open_multipart_upload(
                    self._client,
                    self._bucket,
                    key,
                    headers,
                    self._checksums,
                    own_key=self._options.is_own(file.path),
                ) as upload:
                    self._record(file.path, upload.id)
                    upload.add(first)
                    del first
                    for part in parts:
                        upload.add(part)
                        del part
                    upload.wait()
                    self._options.check()
            self._check_size(key, file.size)

    def copy(self, file: OutgoingFile, bucket: str, key: str) -> bool:
        """Copy an object inside the server, if both buckets are there and the server allows the copy.

        The size is compared. The content is not, because the worker does not read it.
        """
        if not self._can_copy:
            return False
        self._options.check()
        source = quote(f"/{bucket}/{key}")
        target = self._key(file.path)
        client = self._client.with_retries(None, can_succeed_soon=_copy_can_succeed_soon)
        with s3_errors(is_encrypted=bool(self._encryption)):
            try:
                if file.size <= COPY_PART:
                    # The own object has no checksum in its metadata, by which `has` knows the copy.
                    headers: Headers = {
                        "x-amz-copy-source": source,
                        "x-amz-metadata-directive": "REPLACE",
                        **self._headers(file),
                    }
                    client._execute("PUT", self._bucket, target, headers=headers)
                else:
                    self._copy_parts(client, file, source, target)
            except _NO_ANSWERS_OF_COPIES as error:
                # Stores without the call, and proxies that remove its headers, have many codes for it. A
                # store that ignores its headers has written an empty object, which the upload replaces. If
                # the copy is not the reason, the upload has the same error.
                if isinstance(error, S3Error) and _copy_can_succeed_soon(error):
                    raise
                self._can_copy = False
                return False
            self._check_size(target, file.size)
        return True

    def _copy_parts(self, client: S3Client, file: OutgoingFile, source: str, target: str) -> None:
        upload = client._create_multipart_upload(self._bucket, target, self._headers(file))
        try:
            self._record(file.path, upload)
            tags = []
            for number, start in enumerate(range(0, file.size, COPY_PART), 1):
                self._options.check()
                end = min(start + COPY_PART, file.size) - 1
                headers: Headers = {
                    "x-amz-copy-source": source,
                    "x-amz-copy-source-range": f"bytes={start}-{end}",
                }
                tag, _ = client._upload_part_copy(self._bucket, target, upload, number, headers)
                tags.append(tag)
            self._options.check()
            document = Element("CompleteMultipartUpload")
            for number, tag in enumerate(tags, 1):
                part = SubElement(document, "Part")
                SubElement(part, "PartNumber").text = str(number)
                SubElement(part, "ETag").text = f'"{tag}"'
            try:
                client._execute(
                    "POST",
                    self._bucket,
                    target,
                    body=tostring(document),
                    headers={"Content-Type": "application/xml"},
                    query_params={"uploadId": upload},
                )
            except STORE_ERRORS:
                # If only the answer was lost, a retry finds no upload, and the object is there.
                with suppress(DestinationError):
                    if self.has(file):
                        return
                raise
        except BaseException:
            quick = self._client.with_retries(None, within=CLEAN_UP_SECONDS)
            with suppress(*STORE_ERRORS, ExporterError):
                quick._abort_multipart_upload(self._bucket, target, upload)
            raise

    def _record(self, path: str, upload: str) -> None:
        if not self._options.is_own(path):
            self._options.upload_began(upload)

    def read(self, path: str) -> bytes:
        """Return the content of a small object."""
        with s3_errors(), self._client.get_object(self._bucket, self._key(path)) as response:
            return response.read()

    def has(self, file: OutgoingFile) -> bool | None:
        """Compare the size of the object, and the checksum that :meth:`put` has stored with it."""
        stored = self._stat(file.path)
        if not isinstance(stored, Object):
            return stored
        return stored.size == file.size and (stored.metadata or {}).get("x-amz-meta-sha256") == file.sha256

    def exists(self, path: str) -> bool | None:
        """Return whether there is an object; ``None`` if the keys can only write."""
        stored = self._stat(path)
        return True if isinstance(stored, Object) else stored

    def _stat(self, path: str) -> Object | Literal[False] | None:
        """Return an object; False if it does not exist, ``None`` if the keys can only write."""
        with s3_errors():
            try:
                return self._client.stat_object(self._bucket, self._key(path))
            except S3Error as error:
                if error.code in _GONE:
                    return False
                if error.code in _CANNOT_READ:
                    return None
                raise

    def remove(self, path: str) -> None:
        """Remove an object."""
        with s3_errors():
            self._client.remove_object(self._bucket, self._key(path))

    def _check_size(self, key: str, size: int) -> None:
        """Compare the size of an object that the server has accepted.

        No object is no error: receivers can take it away at once, and some servers show it later.
        """
        try:
            stored = self._client.stat_object(self._bucket, key).size
        except S3Error as error:
            if error.code in (*_CANNOT_READ, *_GONE):
                return  # the server has checked the checksum of each part
            raise
        if stored != size:
            raise DestinationError(FAILED, detail=f"{key} has {stored} bytes instead of {size}")

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _headers(self, file: OutgoingFile) -> Headers:
        return {
            "Content-Type": file.content_type,
            "Content-Disposition": content_disposition(file.file_name),
            "x-amz-meta-sha256": file.sha256,
            **self._encryption,
        }


def _copy_can_succeed_soon(error: Exception) -> bool:
    """Return whether the same copy can succeed soon. With any other page, an upload is quicker."""
    if isinstance(error, InvalidResponseError):
        return error._code in _BUSY_PROXY
    return is_retryable(error) and not isinstance(error, ForeignAnswer)


def endpoint_of(destination: S3Destination, settings: Settings) -> str:
    """Return the URL of the server. An own endpoint without a scheme is https."""
    if destination.endpoint is None:
        own = settings.s3_endpoint
        return own if "://" in own else f"{'https' if settings.s3_secure else 'http'}://{own}"
    return destination.endpoint if "://" in destination.endpoint else f"https://{destination.endpoint}"


def _same_store(destination: S3Destination, settings: Settings) -> bool:
    own = settings.s3_endpoint
    own = own if "://" in own else f"{'https' if settings.s3_secure else 'http'}://{own}"
    return _address(endpoint_of(destination, settings)) == _address(own)


def _address(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _client(destination: S3Destination, settings: Settings) -> S3Client:
    url = urlsplit(endpoint_of(destination, settings))
    verified = {"ca_certs": str(destination.ca_file)} if destination.ca_file is not None else {}
    client = S3Client(
        url.netloc,
        credentials=_credentials(destination, settings),
        secure=url.scheme == "https",
        region=destination.region or settings.s3_region,
        retry_seconds=RETRY_SECONDS,
        http_client=urllib3.PoolManager(
            maxsize=4,
            timeout=urllib3.Timeout(connect=5, read=TIMEOUT_SECONDS),
            retries=False,
            **verified,  # type: ignore[arg-type]
        ),
    )
    client.stopped = Event()
    if destination.path_style is not None:
        client._base_url.virtual_style_flag = not destination.path_style
    return client


def _credentials(destination: S3Destination, settings: Settings) -> Provider:
    if not destination.has_keys:
        return credentials_of(settings)
    keys = [SecretStr(secret_of(destination, name) or "") for name in ("access_key", "secret_key")]
    return StaticKeys(*keys)
