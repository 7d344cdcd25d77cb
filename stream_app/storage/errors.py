"""What each error of an object store means, and which error of the service it becomes.

The codes are those of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and those that
MinIO, Ceph and others add.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from xml.etree.ElementTree import ParseError

import urllib3
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from stream_app.observability import metrics
from streaming_exporter.errors import ExporterError, NeedsOperator, Outage, Rejected, Retryable


class ErrorKind(StrEnum):
    """What is done about an error."""

    PASSES = "passes"
    """It goes away by itself: the call is repeated, then the job waits."""

    OPERATOR = "operator"
    """Somebody has to mend it: the job waits and says so."""

    REFUSED = "refused"
    """This store never does that, or not with this file: the job fails at once."""

    FAULT = "fault"
    """This one thing went wrong: the attempt counts."""


_CODES = {
    ErrorKind.PASSES: """
        InternalError OperationAborted RequestTimeout ServiceUnavailable SlowDown SlowDownRead SlowDownWrite
        Throttling ThrottlingException TooManyRequests TooManyRequestsException RequestLimitExceeded
        BandwidthLimitExceeded Busy 503SlowDown ConditionalRequestConflict IncompleteBody RequestTimedOut
        XMinioServerNotInitialized XMinioBackendDown XMinioReadQuorum XMinioWriteQuorum XMinioStorageFull
        InsufficientStorage GatewayTimeout BadGateway ServerTimeout RetryHead TransferAborted
        PreconditionFailed
    """,
    ErrorKind.OPERATOR: """
        AccessDenied AccountProblem AllAccessDisabled AllAccessDisabledException AuthFailure
        AuthorizationHeaderMalformed AuthorizationQueryParametersError CredentialsNotSupported
        CrossLocationLoggingProhibited ExpiredToken IllegalLocationConstraintException InvalidAccessKeyId
        InvalidBucketName InvalidBucketState InvalidClientTokenId InvalidObjectState InvalidPayer
        InvalidSecurity InvalidToken KMS.DisabledException KMS.InvalidKeyUsageException
        KMS.InvalidStateException KMS.KMSInvalidStateException KMS.NotFoundException KMS.AccessDeniedException
        KMSAccessDenied KMSKeyNotFound XMinioKMSKeyNotFound KMSNotConfigured
        MissingAuthenticationToken MissingSecurityHeader NoSuchBucket NotSignedUp PermanentRedirect
        QuotaExceeded XMinioAdminBucketQuotaExceeded Redirect RequestExpired RequestTimeTooSkewed
        ServerSideEncryptionConfigurationNotFoundError SignatureDoesNotMatch TemporaryRedirect
        TokenRefreshRequired UnauthorizedAccess UnauthorizedAccessError WrongEncryptionKey
        InvalidEncryptionAlgorithmError InvalidEncryptionMethod AccessForbidden Forbidden UserSuspended
        InvalidRegion InvalidLocationConstraint
    """,
    ErrorKind.REFUSED: """
        EntityTooLarge InvalidStorageClass KeyTooLongError KeyTooLong MaxMessageLengthExceeded
        MethodNotAllowed MetadataTooLarge MissingContentLength NotImplemented XNotImplemented
        UnsupportedOperation UnsupportedArgument UnsupportedHeader XAmzContentSHA256Mismatch
        RequestHeaderSectionTooLarge
    """,
    ErrorKind.FAULT: """
        AmbiguousGrantByEmailAddress BadDigest BadRequest BucketAlreadyExists BucketAlreadyOwnedByYou
        BucketNotEmpty EntityTooSmall ExpectedSourceBucketOwner IncorrectNumberOfFilesInPostRequest
        InlineDataTooLarge InvalidArgument InvalidDigest InvalidPart InvalidPartOrder InvalidPolicyDocument
        InvalidRange InvalidRequest InvalidSOAPRequest InvalidTag InvalidTargetBucketForLogging InvalidURI
        MalformedACLError MalformedPOSTRequest MalformedXML MaxPostPreDataLengthExceededError
        MissingAttachment MissingRequestBodyError NoLoggingStatusForKey NoSuchBucketPolicy NoSuchKey
        NoSuchLifecycleConfiguration NoSuchTagSet NoSuchUpload NoSuchVersion NotModified NotSuchBucketPolicy
        ObjectNotInActiveTierError OwnershipControlsNotFoundError ReplicationConfigurationNotFoundError
        RequestIsNotMultiPartContent RequestTorrentOfBucketError ResourceConflict ResourceNotFound
        RestoreAlreadyInProgress TooManyBuckets UnexpectedContent UnresolvableGrantByEmailAddress
        UserKeyMustBeSpecified
    """,
}

KIND_BY_CODE: Mapping[str, ErrorKind] = MappingProxyType(
    {code: meaning for meaning, codes in _CODES.items() for code in codes.split()}
)
"""The table."""

_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")


def kind_of(code: str | None, status: int) -> ErrorKind:
    """What an answer means; a code that nobody knows by its HTTP status."""
    known = KIND_BY_CODE.get(code or "")
    if known is not None:
        return known
    if status in (
        HTTPStatus.NOT_IMPLEMENTED,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ):
        return ErrorKind.REFUSED
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT) or status >= 500:
        return ErrorKind.PASSES
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ErrorKind.OPERATOR
    return ErrorKind.FAULT


def is_retryable(error: Exception) -> bool:
    """Whether the same call may work in a moment."""
    if isinstance(error, S3Error):
        return kind_of(error.code, error.response.status) is ErrorKind.PASSES
    # A proxy, a connection that broke, an answer that is none; and nobody to ask for credentials.
    return isinstance(
        error, (ServerError, InvalidResponseError, ParseError, urllib3.exceptions.HTTPError, NeedsOperator)
    )


@contextmanager
def store_errors() -> Iterator[None]:
    """Say what the store's errors mean; that it is away, or refuses, is never the user's fault.

    Raises:
        NeedsOperator: it refuses the service until somebody changes something.
        Outage: the store as a whole does not work: it is away, overloaded or full.
        Rejected: it never takes such a file.
        Retryable: it failed at this one thing.
    """
    with metrics.count_errors("object_store"), _ours():
        yield


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        raise _of_answer(error) from error
    except urllib3.exceptions.MaxRetryError as error:
        raise Outage(f"object store: {error}") from error
    except (InvalidResponseError, ServerError, ParseError) as error:
        # In place of the store something answers that is none: a proxy, a login page.
        raise Outage(f"object store: {error}") from error
    except urllib3.exceptions.HTTPError as error:
        raise Outage(f"object store: {error or type(error).__name__}") from error
    except (MinioException, OSError) as error:
        raise Retryable(f"object store: {error}") from error


def _of_answer(error: S3Error) -> ExporterError:
    text = f"object store: {error.code}: {error.message}"
    code = error.code if _WORD.fullmatch(error.code or "") else "unknown"
    match kind_of(error.code, error.response.status):
        case ErrorKind.PASSES:
            return Outage(text)
        case ErrorKind.OPERATOR:
            return NeedsOperator(text, reason=f"the object store refuses the service ({code})")
        case ErrorKind.REFUSED:
            return Rejected(
                f"the object store does not take such a file ({code}); operators: exporter doctor says more",
                code="store_refused",
            )
        case _:
            return Retryable(text)
