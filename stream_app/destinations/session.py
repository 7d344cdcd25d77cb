"""The interface of an open connection to a destination, and the opening of one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from stream_app.datasets.destinations import Destination, S3Destination
from stream_app.destinations.errors import AWAY, DestinationError, TransferInterrupted
from stream_app.settings import Settings


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """A file that is to be sent. ``size`` is in bytes."""

    path: str
    file_name: str
    content_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session works.

    Attributes:
        tag: begins the names of temporary files; equal for all attempts of a delivery.
        attempt: the number of the attempt, from 1.
        stopped: returns whether the transfer must end.
        uploads: the unfinished uploads that earlier attempts of the delivery have recorded.
        is_own: returns whether only this delivery writes to a path.
        upload_began: called with the id of each upload to a path that others write to, before its first part.
        is_single: whether the delivery has one file and no manifest.
    """

    tag: str
    attempt: int
    stopped: Callable[[], bool]
    uploads: tuple[str, ...] = ()
    is_own: Callable[[str], bool] = lambda _: True
    upload_began: Callable[[str], None] = lambda _: None
    is_single: bool = False

    def check(self) -> None:
        """Check that the transfer can go on.

        Raises:
            TransferInterrupted: it must end.
        """
        if self.stopped():
            raise TransferInterrupted("the transfer was interrupted")


class Session(Protocol):
    """A connection to a destination, for use in one thread.

    Every method raises :class:`~stream_app.destinations.errors.DestinationError` if the destination fails.
    No file gets its name after the transfer was stopped:
    :class:`~stream_app.destinations.errors.TransferInterrupted` is raised instead.
    """

    def remove_leftovers(self, path: str) -> None:
        """Remove what earlier attempts of the delivery have left unfinished at ``path``."""

    def put(self, file: OutgoingFile, chunks: Iterator[bytes]) -> None:
        """Write a file. It is complete under its name, or not there under it; an old one is replaced.

        Errors of ``chunks`` are raised unchanged.
        """

    def copy(self, file: OutgoingFile, bucket: str, key: str) -> bool:
        """Copy an object inside its server; return False if that is not possible here."""

    def read(self, path: str) -> bytes:
        """Return the content of a small file."""

    def has(self, file: OutgoingFile) -> bool | None:
        """Return whether the destination has this file with this content; ``None`` if it is not readable."""

    def exists(self, path: str) -> bool | None:
        """Return whether there is a file at ``path``; ``None`` if that is not readable."""

    def remove(self, path: str) -> None:
        """Remove a file. It is no error if it does not exist."""


def answer_of(question: Callable[[], bool | None]) -> bool | None:
    """Return the answer of the destination to a question; ``None`` if it refuses the question.

    Raises:
        DestinationError: the destination is away.
    """
    try:
        return question()
    except DestinationError as error:
        if str(error) == AWAY:
            raise
        return None


@contextmanager
def open_session(destination: Destination, settings: Settings, options: SessionOptions) -> Iterator[Session]:
    """Open a connection for the block. It blocks, so it belongs in a thread.

    Raises:
        DestinationError: the destination cannot be reached, or refuses the service.
    """
    if isinstance(destination, S3Destination):
        from stream_app.destinations.s3 import S3Session

        yield S3Session(destination, settings, options)
        return
    from stream_app.destinations.sftp import SftpSession  # asyncssh is large

    session = SftpSession(destination, options)
    try:
        yield session
    finally:
        session.close()
