"""The client of the object store, and what the store's errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from stream_app import metrics
from stream_app.errors import Outage, Retryable
from stream_app.exports.s3_credentials import credentials_of
from stream_app.settings import Settings

REFUSALS = frozenset(
    {
        "AccessDenied",
        "InvalidAccessKeyId",
        "NoSuchBucket",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "SignatureDoesNotMatch",
        "SlowDown",
    }
)
"""Codes of answers below 500 that a whole store gives until an operator, or time, mends it."""


def s3_client(
    settings: Settings, endpoint: str, connections: int, *, patience: float = 60, retries: int = 3
) -> Minio:
    """A client of the store at ``endpoint``; ``patience`` is how long, in seconds, an answer may take."""
    scheme, _, host = endpoint.rpartition("://")
    return Minio(
        host if scheme else urlsplit(f"//{endpoint}").netloc,
        credentials=credentials_of(settings),
        secure=scheme == "https" if scheme else settings.s3_secure,
        region=settings.s3_region,
        http_client=urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=min(5, patience), read=patience),
            retries=urllib3.Retry(
                total=retries,
                backoff_factor=0.2,
                status_forcelist=[500, 502, 503, 504],
                raise_on_status=False,  # the last answer says more than that there were too many
            ),
        ),
    )


@contextmanager
def store_errors() -> Iterator[None]:
    """No error of the store is the user's fault: it may be tried again.

    Raises:
        Outage: the store as a whole does not work: it is away, overloaded, full, or refuses everybody.
        Retryable: it failed at this one thing.
    """
    with metrics.errors_of("object_store"), _ours():
        yield


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        whole = error.response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code in REFUSALS
        raise (Outage if whole else Retryable)(f"object store: {error.code}: {error.message}") from error
    except urllib3.exceptions.MaxRetryError as error:
        raise Outage(f"object store: {error}") from error
    except (InvalidResponseError, ServerError, ParseError) as error:
        # In place of the store something answers that is none: a proxy, a login page.
        raise Outage(f"object store: {error}") from error
    except urllib3.exceptions.HTTPError as error:
        raise Outage(f"object store: {error or type(error).__name__}") from error
    except (MinioException, OSError) as error:
        raise Retryable(f"object store: {error}") from error
