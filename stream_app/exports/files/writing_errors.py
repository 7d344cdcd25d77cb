"""The errors of the thread that writes files, as exceptions of the service."""

from collections.abc import Iterator
from contextlib import contextmanager

from streaming_exporter.errors import ExporterError, Retryable


@contextmanager
def writing_errors() -> Iterator[None]:
    """Turn errors of the operating system into exceptions of the service.

    The result of the thread is taken while the snapshot of the source is open. There an ``OSError``, such as
    one of a full disk or of a process that has ended, would become an error of the source database. For the
    same reason no error of the block is counted as one of that database.

    Raises:
        Retryable: the file could not be written.
    """
    try:
        try:
            yield
        except OSError as error:
            raise Retryable(f"writing the file: {str(error) or type(error).__name__}") from error
    except ExporterError as error:
        error.counted = True
        raise
