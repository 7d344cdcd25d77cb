"""The client of the object store. It retries calls after temporary errors, and refuses answers not of S3."""

import copy
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from threading import Event
from typing import Any, Self
from urllib.parse import urlsplit

import structlog
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.error import S3Error

from stream_app.retries import JITTER
from stream_app.settings import Settings
from stream_app.storage.answers import checked_answer, readable_answer
from stream_app.storage.call_body import CallBody, call_body
from stream_app.storage.credentials import credentials_of
from stream_app.storage.errors import is_retryable

log = structlog.get_logger(__name__)

FIRST_DELAY, MAX_DELAY = 0.2, 5.0
"""First and longest delay between two tries of a call, in seconds. The delay doubles each time."""

GONE = ("NoSuchKey", "NoSuchVersion")
"""The codes for an object that does not exist."""

CONTENT_SHA256 = "x-amz-content-sha256"
"""The header with the SHA-256 of the body, by which a signature covers the body where there is no TLS."""


class S3Client(Minio):
    """Retries calls for ``retry_seconds`` after their first error, with growing delays.

    If ``within`` is set, calls are retried for that many seconds after their start instead. It stops when
    ``stopped`` is set. An answer that is not one of S3 is an error.

    All calls of the library pass one method, which is overridden here. All calls of the service are
    idempotent.
    """

    def __init__(self, *arguments: Any, retry_seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.retry_seconds = retry_seconds
        self.within: float | None = None
        self.can_succeed_soon: Callable[[Exception], bool] = is_retryable
        self.stopped = Event()

    def __del__(self) -> None:
        """Do not close the connections, because copies of the client share them."""

    def with_retries(
        self,
        stopped: Event | None,
        *,
        within: float | None = None,
        can_succeed_soon: Callable[[Exception], bool] = is_retryable,
    ) -> Self:
        """Return a copy that retries until ``stopped`` is set, or ``within`` seconds after a call has begun.

        ``can_succeed_soon`` returns whether a call is retried after an error.

        Without ``within`` the seconds of the client count from the first error. A store that does not answer
        makes that error only after the time-out; a call with less time than that is not repeated then.
        """
        other = copy.copy(self)
        other.stopped = stopped or Event()
        other.within = within
        other.can_succeed_soon = can_succeed_soon
        return other

    def _build_headers(
        self,
        host: str,
        headers: Any = None,
        body: Any = None,
        creds: Credentials | None = None,
    ) -> tuple[Any, datetime]:
        """Return the headers of a call. Where the body is signed, its hash in ``headers`` is used if given.

        The library would compute it again. The store refuses a body that has another hash.
        """
        if isinstance(body, CallBody):
            body = body.data  # the library uses only its length and its content
        known = (headers or {}).get(CONTENT_SHA256)
        if known is None or creds is None or self._base_url.is_https:
            return super()._build_headers(host, headers, body, creds)
        built, date = super()._build_headers(host, headers, None, creds)
        if body:
            built["Content-Length"] = str(len(body))
        built[CONTENT_SHA256] = known
        return built, date

    def _url_open(
        self,
        method: str,
        region: str,
        bucket_name: str | None = None,
        object_name: str | None = None,
        body: Any = None,
        headers: Mapping[str, Any] | None = None,
        query_params: Any = None,
        preload_content: bool = True,
        no_body_trace: bool = False,
    ) -> Any:
        sent = call_body(body, self.stopped)
        began = time.monotonic()
        first_failure: float | None = None
        pause = FIRST_DELAY
        while True:
            try:
                sent_headers = dict(headers or {})  # the library writes into it
                with readable_answer(method):
                    answer = super()._url_open(
                        method,
                        region,
                        bucket_name,
                        object_name,
                        sent,  # type: ignore[arg-type] # the HTTP client takes what can be iterated, too
                        sent_headers,
                        query_params,
                        preload_content,
                        no_body_trace,
                    )
                return checked_answer(
                    answer, method, object_name, query_params or {}, sent_headers, has_body=preload_content
                )
            except Exception as error:
                now = time.monotonic()
                first_failure = now if first_failure is None else first_failure
                # A call can take longer before it fails: to send a large part over a slow network.
                ends = first_failure + self.retry_seconds if self.within is None else began + self.within
                if not self.can_succeed_soon(error) or now + pause > ends:
                    raise
                after = round(now - began, 1)
                log.info("store.call_retried", method=method, after=after, error=str(error)[:200])
                if self.stopped.wait(pause * JITTER.uniform(0.5, 1)):
                    raise
                pause = min(2 * pause, MAX_DELAY)

    def remove_object(self, bucket_name: str, object_name: str, version_id: str | None = None) -> None:
        """Remove an object. It is no error if it does not exist, also where the store answers with 404."""
        try:
            super().remove_object(bucket_name, object_name, version_id)
        except S3Error as error:
            if error.code not in GONE:
                raise


def s3_client(
    settings: Settings,
    endpoint: str,
    connections: int,
    *,
    timeout_seconds: float = 60,
    retry_seconds: float = 90,
) -> S3Client:
    """Return a client of the store at ``endpoint``.

    ``timeout_seconds`` is the time-out of one answer. A call is retried for up to ``retry_seconds`` after its
    first error.
    """
    scheme, _, host = endpoint.rpartition("://")
    return S3Client(
        host if scheme else urlsplit(f"//{endpoint}").netloc,
        credentials=credentials_of(settings),
        secure=scheme == "https" if scheme else settings.s3_secure,
        region=settings.s3_region,
        retry_seconds=retry_seconds,
        http_client=urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=min(5, timeout_seconds), read=timeout_seconds),
            retries=False,
        ),
    )
