"""Files in object storage: upload of a stream, download links, removal. Synchronous: call it from threads."""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote
from xml.etree.ElementTree import ParseError

from minio.commonconfig import REPLACE, CopySource
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from stream_app.errors import Outage
from stream_app.exports.backstop import set_backstop
from stream_app.exports.hashing import HashedStream
from stream_app.exports.inventory import Found, Inventory
from stream_app.exports.multipart import PART_SIZE, Headers, multipart
from stream_app.exports.s3 import s3_client, store_errors
from stream_app.settings import Settings

SPARE_DAYS = 7
"""How much longer than a job's file is kept the bucket's own rule waits."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What lies in the store: size in bytes, hexadecimal digest."""

    key: str
    size: int
    sha256: str


def content_disposition(file_name: str) -> str:
    """RFC 6266: an ASCII name for old clients and the real one for all others."""
    plain = re.sub(r'[^ -~]|["\\/]', "_", file_name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


class Storage:
    """One bucket of any S3 server."""

    def __init__(
        self, settings: Settings, *, connections: int = 10, patience: float = 60, retries: int = 3
    ) -> None:
        """``patience`` is how long, in seconds, an answer may take."""
        self.bucket = settings.s3_bucket
        self._link_lifetime = timedelta(seconds=settings.download_url_seconds)
        self._client = s3_client(
            settings, settings.s3_endpoint, connections, patience=patience, retries=retries
        )
        self.inventory = Inventory(self._client, self.bucket)
        # Links are signed for the host that users reach, which this process may not reach at all.
        self._signer = s3_client(settings, settings.s3_public_endpoint or settings.s3_endpoint, 1)

    def ensure_bucket(self) -> None:
        """Create the bucket if it is not there.

        Raises:
            Retryable: the store cannot be reached, or refuses.
        """
        with store_errors():
            if not self._client.bucket_exists(self.bucket):
                try:
                    self._client.make_bucket(self.bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

    def set_backstop(self, settings: Settings, longest: timedelta = timedelta(0)) -> bool:
        """Have the store itself remove what this service forgot; returns whether it takes such rules.

        ``longest`` is for how long a file that is there was promised to be kept.

        Raises:
            Retryable: the store cannot be reached.
        """
        return set_backstop(
            self._client,
            self.bucket,
            files_after=max(timedelta(days=settings.retention_days), longest) + timedelta(days=SPARE_DAYS),
            uploads_after=max(timedelta(days=1), timedelta(seconds=2 * settings.export_timeout_seconds)),
        )

    def check(self) -> None:
        """Ask whether the bucket is there.

        Raises:
            Retryable: it is not, or the store cannot be reached.
        """
        with store_errors():
            if not self._client.bucket_exists(self.bucket):
                raise Outage(f"object store: there is no bucket {self.bucket!r}")

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

        with store_errors():
            pieces = stream.pieces(PART_SIZE)
            first = next(pieces, b"")
            with self._gone_on_failure(key):
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

    @contextmanager
    def _gone_on_failure(self, key: str) -> Iterator[None]:
        """Leave no object: the store may have it even where its answer was lost."""
        try:
            yield
        except BaseException:
            with suppress(MinioException, HTTPError, OSError, ParseError):
                self._client.remove_object(self.bucket, key)
            raise

    def _describe(self, key: str, metadata: Headers) -> None:
        """Set what is only known after a multipart upload; stores do it in place, without moving bytes."""
        self._client.copy_object(
            self.bucket,
            key,
            CopySource(self.bucket, key),
            metadata=metadata,
            metadata_directive=REPLACE,
        )

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
            answer = self._client._execute("HEAD", self.bucket)
        said = answer.headers.get("Date")
        return parsedate_to_datetime(said) + timedelta(seconds=0.5) if said else None

    def remove(self, key: str) -> None:
        """Delete the object; deleting what is gone is no error."""
        with store_errors():
            self._client.remove_object(self.bucket, key)

    def remove_attempts(self, job_id: object, *, before: int) -> int:
        """Delete what attempts of the job before number ``before`` left; returns how much that was.

        That is finished files, and parts of uploads whose worker died.
        """
        left = [found for page in self.inventory.pages(job_id) for found in page if found.attempt < before]
        for found in left:
            self.inventory.remove(found)
        return len(left)

    def open_uploads(self, job_id: object = None) -> list[Found]:
        """Multipart uploads that were neither completed nor aborted."""
        pages = self.inventory.pages(job_id)
        return [found for page in pages for found in page if found.upload_id is not None]
