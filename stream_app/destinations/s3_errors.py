"""What the errors of a destination's S3 server mean: permanent or not, and the text for users."""

from collections.abc import Iterator
from contextlib import contextmanager

from minio.error import S3Error

from stream_app.destinations.errors import (
    AWAY,
    FAILED,
    FULL,
    NEVER,
    NOT_ENCRYPTED,
    NOT_PERMITTED,
    DestinationError,
)
from stream_app.storage.chunk_errors import unwrapped_chunk_errors
from stream_app.storage.errors import STORE_ERRORS, ErrorKind, kind_of
from stream_app.storage.parts import TemporaryDiskError
from streaming_exporter.errors import NeedsOperator, Outage, Rejected

FULL_CODES = frozenset(
    {"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull", "InsufficientStorage"}
)
"""The server, or the quota of the bucket, has no room."""

INVALID_NAMES = frozenset({"InvalidURI", "XMinioInvalidObjectName", "XMinioInvalidObjectNamePrefixSlash"})
"""The server never accepts the key. For the service's own store, whose keys are safe, they are faults."""

DAMAGED_ON_THE_WAY = frozenset({"XAmzContentSHA256Mismatch"})
"""The service's own store is asked once. Here the next attempt sends the bytes again."""


UNSUPPORTED = frozenset(
    {"NotImplemented", "XNotImplemented", "UnsupportedOperation", "UnsupportedArgument", "UnsupportedHeader"}
)
"""The server does not know a part of the call. MinIO answers so if it has no keys to encrypt with."""


def error_of(error: S3Error, *, is_encrypted: bool = False) -> DestinationError:
    """Return the error of destinations for an answer of the server.

    ``is_encrypted``: the call asked the server to encrypt the file, which its operators can make possible.

    Permanent is what :class:`~stream_app.storage.errors.ErrorKind` calls refused: no operator can change it.
    What an operator can change (keys, permissions, quotas) is retried.
    """
    detail, status = f"{error.code}: {error.message}", error.response.status
    if error.code in FULL_CODES or status == 507:
        return DestinationError(FULL, detail=detail)
    if is_encrypted and (error.code in UNSUPPORTED or status == 501):
        return DestinationError(NOT_ENCRYPTED, detail=detail)
    if error.code in INVALID_NAMES:
        return DestinationError(NEVER, detail=detail, is_permanent=True)
    match kind_of(error.code, status):
        case ErrorKind.OPERATOR:
            return DestinationError(NOT_PERMITTED, detail=detail)
        case ErrorKind.PASSES:
            return DestinationError(AWAY, detail=detail)
        case ErrorKind.REFUSED if error.code not in DAMAGED_ON_THE_WAY:
            return DestinationError(NEVER, detail=detail, is_permanent=True)
        case _:
            return DestinationError(FAILED, detail=detail, affects_all=False)


@contextmanager
def s3_errors(*, is_encrypted: bool = False) -> Iterator[None]:
    """Turn errors of the client library into those of destinations; ``is_encrypted`` as :func:`error_of`."""
    with unwrapped_chunk_errors():
        try:
            yield
        except S3Error as error:
            raise error_of(error, is_encrypted=is_encrypted) from error
        except NeedsOperator as error:  # no credentials
            raise DestinationError(
                "the service has no credentials for the destination", detail=str(error)
            ) from error
        except Rejected as error:  # the file has more parts than an upload can have
            raise DestinationError(NEVER, detail=str(error), is_permanent=True) from error
        except TemporaryDiskError as error:
            raise DestinationError(FAILED, detail=str(error), affects_all=False) from error
        except (*STORE_ERRORS, Outage) as error:
            raise DestinationError(AWAY, detail=f"{type(error).__name__}: {error}") from error
