"""A secret that is kept in a file."""

from pathlib import Path

from pydantic import SecretStr


class FileSecret(SecretStr):
    """A secret in a file; the file is read again when it has changed.

    Code that calls :meth:`get_secret_value` for each new connection uses the present value without a restart.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            OSError: it cannot be read.
            UnicodeDecodeError: it is not UTF-8.
        """
        self.path = path
        self._seen = _version(path)
        super().__init__(_content(path))

    def get_secret_value(self) -> str:
        """Return the file's content; while the file is empty or cannot be read, the last known content."""
        try:
            seen = _version(self.path)
            if seen != self._seen and (content := _content(self.path)):
                self._secret_value, self._seen = content, seen
        except (OSError, UnicodeDecodeError):
            # The file is being replaced or was removed. The server decides whether the last value is valid.
            pass
        return self._secret_value


def _version(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def _content(path: Path) -> str:
    return path.read_text("utf-8").strip("\r\n")
