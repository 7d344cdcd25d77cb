"""What the errors of an SFTP server mean: permanent or not, and the text for users."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import asyncssh
from asyncssh import constants as sftp

from stream_app.destinations import errors
from stream_app.destinations.errors import DestinationError
from stream_app.storage.chunk_errors import unwrapped_chunk_errors

LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
"""The connection has ended."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of a status: the text for users, whether it is permanent, and whether it affects all.

    ``is_busy``: another client of the destination has locked the file.
    """

    text: str
    is_permanent: bool = False
    affects_all: bool = True
    is_busy: bool = False


_FAILED = Meaning(errors.FAILED)
_NOT_PERMITTED = Meaning(errors.NOT_PERMITTED)
_AWAY = Meaning(errors.AWAY)
_FULL = Meaning(errors.FULL)
_NEVER = Meaning(errors.NEVER, is_permanent=True, affects_all=False)
_OTHER = Meaning(errors.OTHER_AT_PATH, affects_all=False)
_BUSY = Meaning(errors.FAILED, affects_all=False, is_busy=True)

MEANINGS: Mapping[int, Meaning] = {
    sftp.FX_EOF: _FAILED,
    sftp.FX_NO_SUCH_FILE: _FAILED,
    sftp.FX_PERMISSION_DENIED: _NOT_PERMITTED,
    # Servers report a full disk, and all that has no status of its own, by the general failure.
    sftp.FX_FAILURE: Meaning(f"{errors.FAILED}; it is possibly full"),
    sftp.FX_BAD_MESSAGE: _FAILED,
    sftp.FX_NO_CONNECTION: _AWAY,
    sftp.FX_CONNECTION_LOST: _AWAY,
    sftp.FX_OP_UNSUPPORTED: _NEVER,
    sftp.FX_INVALID_HANDLE: _FAILED,
    sftp.FX_NO_SUCH_PATH: _FAILED,
    sftp.FX_FILE_ALREADY_EXISTS: _OTHER,
    sftp.FX_WRITE_PROTECT: _NOT_PERMITTED,
    sftp.FX_NO_MEDIA: _AWAY,
    sftp.FX_NO_SPACE_ON_FILESYSTEM: _FULL,
    sftp.FX_QUOTA_EXCEEDED: _FULL,
    sftp.FX_UNKNOWN_PRINCIPAL: _FAILED,
    sftp.FX_LOCK_CONFLICT: _BUSY,
    sftp.FX_DIR_NOT_EMPTY: _OTHER,
    sftp.FX_NOT_A_DIRECTORY: _OTHER,
    sftp.FX_INVALID_FILENAME: _NEVER,
    sftp.FX_LINK_LOOP: _OTHER,
    sftp.FX_CANNOT_DELETE: _NOT_PERMITTED,
    sftp.FX_INVALID_PARAMETER: _NEVER,
    sftp.FX_FILE_IS_A_DIRECTORY: _OTHER,
    sftp.FX_BYTE_RANGE_LOCK_CONFLICT: _BUSY,
    sftp.FX_BYTE_RANGE_LOCK_REFUSED: _BUSY,
    sftp.FX_DELETE_PENDING: _BUSY,
    sftp.FX_FILE_CORRUPT: _FAILED,
    sftp.FX_OWNER_INVALID: _FAILED,
    sftp.FX_GROUP_INVALID: _FAILED,
    sftp.FX_NO_MATCHING_BYTE_RANGE_LOCK: _BUSY,
}
"""The meaning of each status of draft-ietf-secsh-filexfer-13, section 9.1. Most servers send those up to 8.

Permanent is what no operator of the server can change for the file: its name, or an operation that the server
does not have. Everything else is retried.
"""


def error_of(error: asyncssh.SFTPError, *, text: str | None = None) -> DestinationError:
    """Return the error of destinations for a status of the server.

    ``text`` says which operation failed. It replaces the text of the status, unless the name of the file or
    another parameter is the reason, which is permanent whatever the operation is.
    """
    meaning = MEANINGS.get(error.code, _FAILED)
    is_of_operation = not meaning.is_permanent or error.code == sftp.FX_OP_UNSUPPORTED
    return DestinationError(
        text if text is not None and is_of_operation else meaning.text,
        detail=detail_of(error),
        affects_all=meaning.affects_all,
        is_permanent=meaning.is_permanent,
        is_busy=meaning.is_busy,
    )


def detail_of(error: Exception) -> str:
    """Return the text of the server, for the operators' log."""
    return f"{type(error).__name__}: {error}"


@contextmanager
def sftp_errors() -> Iterator[None]:
    """Turn errors of the library into those of destinations."""
    with unwrapped_chunk_errors():
        try:
            yield
        except asyncssh.HostKeyNotVerifiable as error:
            raise DestinationError(errors.WRONG_HOST_KEY, detail=detail_of(error)) from error
        except asyncssh.PermissionDenied as error:
            raise DestinationError(errors.SIGN_IN_REFUSED, detail=detail_of(error)) from error
        except asyncssh.SFTPError as error:
            raise error_of(error) from error
        except (OSError, TimeoutError, asyncssh.Error) as error:
            raise DestinationError(errors.AWAY, detail=detail_of(error)) from error
