"""The hidden files that downloads are written to before they get their names. Each has one writer."""

import errno
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

OPEN_TRIES = 10
"""How often a part is opened that other downloads rename or remove at the same time."""

HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
"""Errors of a lock that another process has. The others say that the folder has no locks."""

LOCKED_BYTE = 2**62
"""Where Windows locks a part: behind its content, which others can read then."""


class Part:
    """A part that is open and locked; ``with Part(path) as part``.

    The lock belongs to the open file, so it ends with the process at the latest. Where another download has
    it, in this process or in another one, this one gets a part of its own, with a random name, which no later
    download continues.

    Bytes are written to their own places and are not appended: a writer that does not know the lock can make
    the file longer, which its size shows, but cannot move what is written here.
    """

    def __init__(self, path: Path) -> None:
        """Open the part, with what an earlier download has left in it.

        Raises:
            OSError: it cannot be opened.
        """
        found = _open_locked(path)
        self._can_be_continued = found is not None
        if found is None:
            path = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.part")
            found = path.open("x+b")
        self.path = path
        self._file = found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the part. It is kept only if it has bytes with which a later download can begin."""
        try:
            is_left = not self._file.closed and self._is_useless and _is_at(self._file, self.path)
            if is_left and sys.platform != "win32":
                with suppress(OSError):  # another download has removed it meanwhile
                    self.path.unlink()
        finally:
            self._file.close()
        if is_left and sys.platform == "win32":  # it removes no open file
            with suppress(OSError):
                self.path.unlink()

    @property
    def _is_useless(self) -> bool:
        return not self._can_be_continued or self.size == 0

    @property
    def size(self) -> int:
        """The bytes of the file."""
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def rewind(self) -> None:
        """Go to the first byte."""
        self._file.seek(0)

    def read(self, limit: int) -> bytes:
        """Read on; ``b""`` at the end."""
        return self._file.read(limit)

    def write(self, content: bytes) -> None:
        """Write on."""
        self._file.write(content)

    def clear(self) -> None:
        """Remove all bytes, because some are damaged."""
        self._file.seek(0)
        self._file.truncate()

    def prepare_rename(self) -> None:
        """Write all bytes to the file. Windows renames no open file, so there it is closed, and unlocked."""
        self._file.flush()
        if sys.platform == "win32":
            self._file.close()


def _open_locked(path: Path) -> BinaryIO | None:
    """Return the part, locked where the folder has locks; ``None`` where another download has the lock."""
    for _ in range(OPEN_TRIES):
        file = open(path, "r+b", opener=_open_or_make)  # noqa: SIM115
        if not _lock(file):
            file.close()
            return None
        is_part = _is_at(file, path)
        if is_part and os.fstat(file.fileno()).st_nlink <= 1:  # some file systems count no names
            return file
        # The download that had the lock has given the part its name. If it was killed then, the file has both
        # names, and is not to be written to.
        if is_part and sys.platform != "win32":
            with suppress(OSError):  # the other download has removed it meanwhile
                path.unlink()
        file.close()
        if is_part and sys.platform == "win32":  # it removes no open file
            with suppress(OSError):
                path.unlink()
    return None


def _open_or_make(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _lock(file: BinaryIO) -> bool:
    """Lock a file; return whether no other download has the lock. Some network folders have no locks."""
    try:
        if sys.platform == "win32":
            file.seek(LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in HELD
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Return whether ``path`` still is the name of an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
