"""Secrets that are kept in files."""

from pathlib import Path

from pydantic import SecretStr


class FileSecret(SecretStr):
    """A secret in a file, which is read again when the file has changed.

    Whoever asks for the value when a connection is made gets the one that is valid then.
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
        """What the file holds now; what it held last where it cannot be read, or is empty, at the moment."""
        try:
            seen = _version(self.path)
            if seen != self._seen and (content := _content(self.path)):
                self._secret_value, self._seen = content, seen
        except (OSError, UnicodeDecodeError):
            pass  # it is being replaced, or is gone: the server says whether the last value is still good
        return self._secret_value


def _version(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def _content(path: Path) -> str:
    return path.read_text("utf-8").strip("\r\n")
