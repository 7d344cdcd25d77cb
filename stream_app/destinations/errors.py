"""Errors of destinations."""

from streaming_exporter.errors import ExporterError


class DestinationError(ExporterError):
    """A destination did not take a file. ``str(error)`` is for users, ``detail`` is for the operators' log.

    ``affects_all``: other deliveries to it would fail too. ``is_permanent``: the destination never takes this
    file, whatever its operators do, so it is not sent again by itself. ``is_busy``: another client of
    the destination has locked the file. ``is_possibly_busy``: it has refused a removal without a reason, as
    servers do that have no status for a locked file.
    """

    code = "destination_failed"

    def __init__(
        self,
        message: str,
        *,
        detail: str = "",
        affects_all: bool = True,
        is_permanent: bool = False,
        is_busy: bool = False,
        is_possibly_busy: bool = False,
    ) -> None:
        super().__init__(message)
        self.detail = detail or message
        self.affects_all = affects_all and not is_permanent
        self.is_permanent = is_permanent
        self.is_busy = is_busy
        self.is_possibly_busy = is_possibly_busy

    @property
    def is_refusal(self) -> bool:
        """Whether the destination has certainly refused a file, so that nothing of it was stored."""
        return str(self) in _REFUSALS


class TransferInterrupted(ExporterError):
    """A transfer ends because the worker stops, or because the claim of its delivery is lost."""

    code = "interrupted"


class FileUnavailable(ExporterError):
    """A file of the job cannot be read. ``lost``: it does not exist, or it is not what the job wrote."""

    code = "file_unavailable"

    def __init__(self, message: str, *, detail: str, lost: bool) -> None:
        super().__init__(message)
        self.detail = detail
        self.lost = lost


AWAY = "the destination cannot be reached"
FULL = "the destination is full"
SIGN_IN_REFUSED = "the destination refuses the sign-in of the service"
NOT_PERMITTED = "the destination does not permit the service to write the file"
NOT_ENCRYPTED = "the destination does not encrypt files as its settings ask"
WRONG_HOST_KEY = "the destination has another host key than the pinned one, so nothing was sent"
FAILED = "the destination did not take the file"
NEVER = "the destination never takes such a file"
OTHER_AT_PATH = "the destination has something else at the path of the file"
NOT_REMOVED = "the destination did not remove the file"
IN_USE = "a file of the set that was sent there before cannot be removed yet, because it is possibly in use"
RENAME_REFUSED = "the destination refuses to rename the file"

_REFUSALS = (FULL, SIGN_IN_REFUSED, NOT_PERMITTED, NOT_ENCRYPTED, NEVER)
