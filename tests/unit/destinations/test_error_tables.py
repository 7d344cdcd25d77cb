"""Which errors of destinations are permanent: all codes of S3 and all statuses of SFTP."""

import re
from functools import partial

import asyncssh
import pytest
from asyncssh import constants
from minio.error import S3Error
from urllib3 import BaseHTTPResponse, HTTPResponse

from stream_app.datasets.destinations import S3Destination
from stream_app.destinations import errors
from stream_app.destinations.s3 import COPY_PART, S3Session
from stream_app.destinations.s3_errors import FULL_CODES, INVALID_NAMES, UNSUPPORTED, s3_errors
from stream_app.destinations.session import OutgoingFile, SessionOptions
from stream_app.destinations.sftp_errors import MEANINGS, error_of, sftp_errors
from stream_app.storage.checksums import ChecksumSupport
from stream_app.storage.errors import KIND_BY_CODE, ErrorKind
from stream_app.storage.object_headers import encryption_headers
from streaming_exporter.errors import Rejected
from tests.rows import each_row

PERMANENT_CODES = frozenset(
    {
        *("EntityTooLarge", "KeyTooLong", "KeyTooLongError", "MaxMessageLengthExceeded", "MetadataTooLarge"),
        *("RequestHeaderSectionTooLarge", "InvalidURI", "XMinioInvalidObjectName"),
        *("XMinioInvalidObjectNamePrefixSlash", "InvalidStorageClass", "MethodNotAllowed"),
        *("MissingContentLength", "NotImplemented", "XNotImplemented", "UnsupportedOperation"),
        *("UnsupportedArgument", "UnsupportedHeader"),
    }
)
"""What no operator of a server can change for a file."""

PERMANENT_STATUSES = {
    constants.FX_OP_UNSUPPORTED,
    constants.FX_INVALID_FILENAME,
    constants.FX_INVALID_PARAMETER,
}


def answer(code: str, status: int = 400) -> S3Error:
    response: BaseHTTPResponse = HTTPResponse(status=status)
    return S3Error(response, code, "text of the server", "/in/a.csv", None, None, "acme", "in/a.csv")


def raised(error: Exception, turned: object) -> errors.DestinationError:
    with pytest.raises(errors.DestinationError) as caught, turned():  # type: ignore[operator]
        raise error
    return caught.value


@each_row("code", sorted(KIND_BY_CODE))
def test_a_file_that_a_store_does_not_copy_is_uploaded(code: str) -> None:
    """P10: stores without the call, and proxies that remove its headers, have many codes for it."""

    class Client:
        def refuse(self, *_: object, **__: object) -> None:
            raise answer(code)

        _execute = _create_multipart_upload = refuse

        def with_retries(self, *_: object, **__: object) -> "Client":
            return self

    session = object.__new__(S3Session)
    for size in (1, COPY_PART + 1):
        session.__dict__.update(
            _client=Client(),
            _bucket="acme",
            _prefix="in",
            _options=SessionOptions("t", 1, lambda: False),
            _encryption={},
            _can_copy=True,
        )
        file = OutgoingFile("a", "a", "text/csv", size, "")
        if KIND_BY_CODE[code] is ErrorKind.PASSES:
            with pytest.raises(errors.DestinationError):
                session.copy(file, "own", "key")
        else:
            assert session.copy(file, "own", "key") is False


@each_row("code", sorted({*KIND_BY_CODE, *FULL_CODES, *INVALID_NAMES, *PERMANENT_CODES}))
def test_each_code_of_s3_is_permanent_or_retried(code: str) -> None:
    error = raised(answer(code), s3_errors)
    assert error.is_permanent is (code in PERMANENT_CODES)
    assert "text of the server" in error.detail
    assert "text of the server" not in str(error)
    if error.is_permanent:
        assert not error.affects_all, "other files can be taken"


@each_row(
    ("status", "is_permanent"),
    [
        *((status, True) for status in (405, 413, 414, 431, 501)),
        *((status, False) for status in (400, 401, 403, 404, 408, 409, 412, 429, 500, 502, 503, 504, 507)),
    ],
)
def test_an_unknown_code_of_s3_has_the_meaning_of_its_status(status: int, is_permanent: bool) -> None:
    assert raised(answer("SomethingNew", status), s3_errors).is_permanent is is_permanent


@pytest.mark.parametrize(
    ("code", "status"), [*((code, 400) for code in sorted(UNSUPPORTED)), ("SomethingNew", 501)]
)
def test_a_server_that_cannot_encrypt_yet_is_mended_by_its_operators(code: str, status: int) -> None:
    """MinIO without KMS answers NotImplemented."""
    error = raised(answer(code, status), partial(s3_errors, is_encrypted=True))
    assert not error.is_permanent
    assert error.affects_all
    assert str(error) == errors.NOT_ENCRYPTED
    assert raised(answer(code, status), s3_errors).is_permanent


@pytest.mark.parametrize("sse", ["none", "s3", "kms"])
def test_only_uploads_that_ask_for_encryption_wait_for_it(sse: str) -> None:
    class Client:
        def _put_object(self, *_: object) -> None:
            raise answer("NotImplemented", 501)

    destination = S3Destination.model_validate({"name": "acme", "kind": "s3", "bucket": "acme", "sse": sse})
    session = object.__new__(S3Session)
    session.__dict__.update(
        _client=Client(),
        _bucket="acme",
        _prefix="in",
        _checksums=ChecksumSupport(),
        _options=SessionOptions("t", 1, lambda: False),
        _encryption=encryption_headers(destination.sse, destination.sse_kms_key),
    )
    with pytest.raises(errors.DestinationError) as caught:
        session.put(OutgoingFile("a", "a", "text/csv", 1, ""), iter([b"a"]))
    assert caught.value.is_permanent is (sse == "none")


@pytest.mark.parametrize("code", ["EntityTooLarge", "KeyTooLongError", "MethodNotAllowed"])
def test_other_refusals_of_an_encrypted_file_stay_permanent(code: str) -> None:
    assert raised(answer(code), partial(s3_errors, is_encrypted=True)).is_permanent


def test_a_file_with_more_parts_than_an_upload_can_have_is_never_taken() -> None:
    assert raised(Rejected("too large", code="too_large"), s3_errors).is_permanent


STATUSES = {
    name: number
    for name, number in vars(constants).items()
    if re.fullmatch(r"FX_(?!V\d_END)[A-Z_]+", name) and number != constants.FX_OK
}


def test_each_status_of_sftp_has_a_meaning() -> None:
    assert set(STATUSES.values()) == set(MEANINGS)


@each_row("name", sorted(STATUSES))
def test_each_status_of_sftp_is_permanent_or_retried(name: str) -> None:
    error = raised(asyncssh.SFTPError(STATUSES[name], "text of the server"), sftp_errors)
    assert error.is_permanent is (STATUSES[name] in PERMANENT_STATUSES)
    assert "text of the server" in error.detail
    assert "text of the server" not in str(error)


@each_row("name", sorted(STATUSES))
def test_a_refused_rename_is_told_unless_the_name_is_the_reason(name: str) -> None:
    """A server without the operation refuses to rename, too."""
    error = error_of(asyncssh.SFTPError(STATUSES[name], "text of the server"), text=errors.RENAME_REFUSED)
    is_of_name = name in {"FX_INVALID_FILENAME", "FX_INVALID_PARAMETER"}
    assert str(error) == (errors.NEVER if is_of_name else errors.RENAME_REFUSED)
    assert error.is_permanent is (STATUSES[name] in PERMANENT_STATUSES)


def test_an_unknown_status_of_sftp_is_retried() -> None:
    assert not raised(asyncssh.SFTPError(99, "new"), sftp_errors).is_permanent
