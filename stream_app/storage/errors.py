"""Maps the errors of the object store to exceptions of the service. No other module does so.

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


class ForeignAnswer(MinioException):
    """An answer that is not one of S3, such as the page of a proxy. The call can have been done or not."""


class ErrorKind(StrEnum):
    """The action of the service after an error."""

    PASSES = "passes"
    """A temporary error: the call is retried for a while, then the job waits."""

    OPERATOR = "operator"
    """An operator must correct something: the job waits and shows the reason."""

    REFUSED = "refused"
    """The store never accepts such a call, or such a file: the job fails at once."""

    FAULT = "fault"
    """An error of one call: the attempt fails, and the job is retried up to the limit of attempts."""


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
"""The kind of each known code."""

STORE_ERRORS = (MinioException, urllib3.exceptions.HTTPError, OSError, ParseError)
"""All errors that a call of the client library raises."""

_NOT_OF_S3 = (ForeignAnswer, InvalidResponseError, ServerError, ParseError, urllib3.exceptions.HTTPError)
"""Errors of the connection, and of answers that a proxy or a sign-in page in front of the store gives."""

_POOL = re.compile(r"HTTPS?Connection(?:Pool)?\(host='([^']*)', port=(\d+)\):")
"""How urllib3 names the address of a connection."""

_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")


def kind_of(code: str | None, status: int) -> ErrorKind:
    """Return the kind of an error by its code, or by its HTTP status if the code is unknown."""
    known = KIND_BY_CODE.get(code or "")
    if known is not None:
        return known
    if status in (
        HTTPStatus.NOT_IMPLEMENTED,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ):
        return ErrorKind.REFUSED
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT) or status >= 500:
        return ErrorKind.PASSES
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ErrorKind.OPERATOR
    return ErrorKind.FAULT


def is_retryable(error: Exception) -> bool:
    """Return whether the same call can succeed soon."""
    if isinstance(error, S3Error):
        return kind_of(error.code, error.response.status) is ErrorKind.PASSES
    return isinstance(error, (*_NOT_OF_S3, NeedsOperator))  # the credentials can be there soon


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn errors of the client library into exceptions of the service, and count them.

    Raises:
        NeedsOperator: the store refuses the service until an operator changes something.
        Outage: the store does not work at all: it is down, overloaded or full.
        Rejected: the store never accepts such a file.
        Retryable: a single call failed.
    """
    with metrics.count_errors("object_store"):
        try:
            yield
        except STORE_ERRORS as error:
            raise exception_for(error) from error


def exception_for(error: Exception) -> ExporterError:
    """Return the exception of the service for one of :data:`STORE_ERRORS`."""
    if isinstance(error, S3Error):
        return _exception_for_answer(error)
    text = f"object store: {_words_of(error)}"
    if isinstance(error, _NOT_OF_S3):
        return Outage(text)
    return Retryable(text)


def _words_of(error: Exception) -> str:
    """Return the text of an error: the address, and what happened there, without names of classes."""
    reason = getattr(error, "reason", None)  # of the error that says that no further call is tried
    text = str(reason if isinstance(reason, Exception) else error) or type(error).__name__
    return _POOL.sub(r"\1:\2:", text)


def _exception_for_answer(error: S3Error) -> ExporterError:
    text = f"object store: {error.code}: {error.message}"
    code = error.code if _WORD.fullmatch(error.code or "") else "unknown"
    match kind_of(error.code, error.response.status):
        case ErrorKind.PASSES:
            return Outage(text)
        case ErrorKind.OPERATOR:
            return NeedsOperator(text, reason=f"the object store refuses the service ({code})")
        case ErrorKind.REFUSED:
            return Rejected(
                f"the object store does not accept such a file ({code}); operators: run exporter doctor",
                code="store_refused",
            )
        case _:
            return Retryable(text)
