"""Files in object storage: upload of a stream, download links, removal. Synchronous: call it from threads."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote, urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import REPLACE, CopySource
from minio.datatypes import Upload
from minio.error import MinioException, S3Error
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProtocolError

from stream_app.errors import Outage, Retryable
from stream_app.exports.hashing import HashedStream
from stream_app.exports.multipart import PART_SIZE, Headers, multipart
from stream_app.settings import Settings

ATTEMPTS_PREFIX = "jobs"


@dataclass(frozen=True, slots=True)
class Stored:
    """What lies in the store: size in bytes, hexadecimal digest."""

    key: str
    size: int
    sha256: str


def object_key(job_id: object, attempt: int, file_name: str) -> str:
    """Where one attempt puts its file: no attempt ever writes over another's."""
    return f"{ATTEMPTS_PREFIX}/{job_id}/{attempt}/{file_name}"


def content_disposition(file_name: str) -> str:
    """RFC 6266: an ASCII name for old clients and the real one for all others."""
    plain = (
        file_name.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_").replace("\\", "_")
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


class Storage:
    """One bucket of any S3 server."""

    def __init__(self, settings: Settings, *, connections: int = 10) -> None:
        self.bucket = settings.s3_bucket
        self._link_lifetime = timedelta(seconds=settings.download_url_seconds)
        self._client = _client(settings, settings.s3_endpoint, connections)
        # Links are signed for the host that users reach, which this process may not reach at all.
        self._signer = _client(settings, settings.s3_public_endpoint or settings.s3_endpoint, 1)

    def ensure_bucket(self) -> None:
        """Create the bucket if it is not there.

        Raises:
            Retryable: the store cannot be reached, or refuses.
        """
        with _store_errors():
            if not self._client.bucket_exists(self.bucket):
                try:
                    self._client.make_bucket(self.bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

    def check(self) -> None:
        """Ask whether the bucket is there.

        Raises:
            Retryable: it is not, or the store cannot be reached.
        """
        with _store_errors():
            if not self._client.bucket_exists(self.bucket):
                raise Retryable(f"object store: there is no bucket {self.bucket!r}")

    def put(
        self,
        key: str,
        chunks: Iterator[bytes],
        *,
        content_type: str,
        file_name: str,
        metadata: Callable[[], Mapping[str, str]],
    ) -> Stored:
        """Upload ``chunks`` as they come; ``metadata()`` is asked once they have ended.

        Raises:
            Retryable: the store failed. Whatever ``chunks`` raises passes. Both leave no object and no
                open multipart upload, as far as the store can be reached.
        """
        stream = HashedStream(chunks)
        headers: Headers = {
            "Content-Type": content_type,
            "Content-Disposition": content_disposition(file_name),
        }

        def described() -> Headers:
            return {**headers, "sha256": stream.sha256, **metadata()}

        with _store_errors():
            pieces = stream.pieces(PART_SIZE)
            first = next(pieces, b"")
            if len(first) < PART_SIZE:
                self._client.put_object(
                    self.bucket,
                    key,
                    io.BytesIO(first),
                    len(first),
                    content_type=content_type,
                    metadata=described(),
                )
            else:
                with multipart(self._client, self.bucket, key, headers) as upload:
                    upload.add(first)
                    del first
                    for piece in pieces:
                        upload.add(piece)
                self._describe(key, described())
        return Stored(key, stream.size, stream.sha256)

    def _describe(self, key: str, metadata: Headers) -> None:
        """Set what is only known after a multipart upload; stores do it in place, without moving bytes."""
        try:
            self._client.copy_object(
                self.bucket,
                key,
                CopySource(self.bucket, key),
                metadata=metadata,
                metadata_directive=REPLACE,
            )
        except Exception:
            self._client.remove_object(self.bucket, key)
            raise

    def link(self, key: str, file_name: str, content_type: str, *, method: str = "GET") -> str:
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

    def remove(self, key: str) -> None:
        """Delete the object; deleting what is gone is no error."""
        with _store_errors():
            self._client.remove_object(self.bucket, key)

    def remove_attempts(self, job_id: object, *, before: int) -> int:
        """Delete what attempts of the job before number ``before`` left; returns how much that was.

        That is finished files, and parts of uploads whose worker died.
        """
        prefix = f"{ATTEMPTS_PREFIX}/{job_id}/"
        removed = 0
        with _store_errors():
            for item in self._client.list_objects(self.bucket, prefix=prefix, recursive=True):
                if _attempt_of(item.object_name) < before:
                    self._client.remove_object(self.bucket, str(item.object_name))
                    removed += 1
            for upload in self.open_uploads(prefix):
                if _attempt_of(upload.object_name) < before:
                    self._client._abort_multipart_upload(
                        self.bucket, upload.object_name, str(upload.upload_id)
                    )
                    removed += 1
        return removed

    def open_uploads(self, prefix: str = "") -> list[Upload]:
        """Multipart uploads that were neither completed nor aborted, at most 1,000 of them.

        The client library has the call, but does not offer it.
        """
        with _store_errors():
            return self._client._list_multipart_uploads(self.bucket, prefix=prefix).uploads


def _attempt_of(key: str | None) -> int:
    return int(str(key).split("/")[2])


def _client(settings: Settings, endpoint: str, connections: int) -> Minio:
    scheme, _, host = endpoint.rpartition("://")
    return Minio(
        host if scheme else urlsplit(f"//{endpoint}").netloc,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=scheme == "https" if scheme else settings.s3_secure,
        region=settings.s3_region,
        http_client=urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        ),
    )


@contextmanager
def _store_errors() -> Iterator[None]:
    """No error of the store is the user's fault: it may be tried again."""
    try:
        yield
    except S3Error as error:
        raise Retryable(f"object store: {error.code}: {error.message}") from error
    except urllib3.exceptions.MaxRetryError as error:
        unreachable = isinstance(error.reason, ConnectTimeoutError | NewConnectionError | ProtocolError)
        raise (Outage if unreachable else Retryable)(f"object store: {error}") from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Retryable(f"object store: {error}") from error
