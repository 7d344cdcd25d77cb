"""Answers of SFTP servers about a path: it exists, it does not, or it is not known."""

import hashlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_REGULAR

from stream_app.destinations.errors import DestinationError
from stream_app.destinations.session import OutgoingFile, SessionOptions
from stream_app.destinations.sftp import SftpSession

CONTENT = b"a;b"
FILE = OutgoingFile("x/a", "a", "text/csv", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Server:
    """A server with one answer to every question about a path, and the calls that change something."""

    def __init__(
        self,
        answer: asyncssh.SFTPAttrs | Exception,
        content: bytes | Exception = CONTENT,
        removal: Exception | None = None,
    ) -> None:
        self.answer, self.content, self.removal = answer, content, removal
        self.calls: list[str] = []

    async def stat(self, _: str) -> asyncssh.SFTPAttrs:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def open(self, _path: str, _mode: str) -> Any:
        return _Opened(self.content)

    async def mkdir(self, path: str) -> None:
        self.calls.append(f"mkdir {path}")
        raise asyncssh.SFTPFailure("it exists, or not")

    async def remove(self, path: str) -> None:
        self.calls.append(f"remove {path}")
        if self.removal is not None:
            raise self.removal

    async def rename(self, old: str, new: str) -> None:
        self.calls.append(f"rename {old} {new}")

    async def posix_rename(self, old: str, new: str) -> None:
        self.calls.append(f"posix-rename {old} {new}")


class _Opened:
    def __init__(self, content: bytes | Exception) -> None:
        self.content = content

    def __await__(self) -> Any:
        async def opened() -> _Opened:
            return self

        return opened().__await__()

    async def __aenter__(self) -> "_Opened":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self, size: int, offset: int = 0) -> bytes:
        if isinstance(self.content, Exception):
            raise self.content
        return self.content[offset : offset + size]

    async def write(self, _: bytes) -> None:
        pass

    async def fsync(self) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[SftpSession]:
    async def connected(_: SftpSession) -> Any:
        return None

    monkeypatch.setattr(SftpSession, "_connect", connected)
    opened = SftpSession(SimpleNamespace(prefix=""), SessionOptions("t", 2, lambda: False))  # type: ignore[arg-type]
    yield opened
    opened.close()


def attributes(size: int | None = None, kind: int | None = None) -> asyncssh.SFTPAttrs:
    return asyncssh.SFTPAttrs(size=size) if kind is None else asyncssh.SFTPAttrs(size=size, type=kind)


NO_FILE, NO_PATH = asyncssh.SFTPNoSuchFile("no"), asyncssh.SFTPNoSuchPath("no")
SECRET = asyncssh.SFTPPermissionDenied("no")
UNKNOWN, FAILURE = asyncssh.SFTPOpUnsupported("no"), asyncssh.SFTPFailure("no")


@pytest.mark.parametrize(
    ("answer", "content", "exists", "has", "is_folder"),
    [
        (attributes(3, FILEXFER_TYPE_REGULAR), CONTENT, True, True, False),
        (attributes(3, FILEXFER_TYPE_REGULAR), b"x;y", True, False, False),
        (attributes(4, FILEXFER_TYPE_REGULAR), CONTENT, True, False, False),
        (attributes(3), CONTENT, True, True, True),  # without permissions, and so without a type
        (attributes(), CONTENT, True, True, True),
        (attributes(), CONTENT + b"c", True, False, True),
        (attributes(4096, FILEXFER_TYPE_DIRECTORY), b"", True, False, True),
        *((attributes(), error, True, None, True) for error in (SECRET, UNKNOWN, FAILURE)),
        (attributes(), NO_FILE, True, False, True),
        (NO_FILE, b"", False, False, False),
        (NO_PATH, b"", False, False, False),
        *((answer, CONTENT, None, None, None) for answer in (SECRET, UNKNOWN, FAILURE)),
    ],
)
def test_what_a_server_says_of_a_path(
    session: SftpSession,
    answer: asyncssh.SFTPAttrs | Exception,
    content: bytes | Exception,
    exists: bool | None,
    has: bool | None,
    is_folder: bool | None,
) -> None:
    session._sftp = Server(answer, content)  # type: ignore[assignment]
    assert (session.exists("x/a"), session.has(FILE), session._is_folder("x")) == (exists, has, is_folder)


@pytest.mark.parametrize(
    ("answer", "made", "error"),
    [
        (attributes(3), False, None),  # the folder and the file
        (attributes(), False, None),
        *((answer, True, None) for answer in (SECRET, UNKNOWN, FAILURE)),
        (NO_FILE, True, "it exists, or not"),
        (attributes(4), False, "has 4 bytes instead of 3"),
        (attributes(0), False, "has 0 bytes instead of 3"),
    ],
)
def test_a_file_is_written_to_a_server_that_says_little_of_it(
    session: SftpSession, answer: asyncssh.SFTPAttrs | Exception, made: bool, error: str | None
) -> None:
    server = Server(answer)
    session._sftp = server  # type: ignore[assignment]
    if error is None:
        session.put(FILE, iter([CONTENT]))
    else:
        with pytest.raises(DestinationError) as caught:
            session.put(FILE, iter([CONTENT]))
        assert error in caught.value.detail
    assert ("mkdir x" in server.calls) is made
    assert ("posix-rename x/.t-2.part x/a" in server.calls) is (error is None)


@pytest.mark.parametrize(
    ("removal", "answer", "possibly_busy"),
    [
        (FAILURE, attributes(), True),
        (FAILURE, NO_FILE, None),
        *((FAILURE, answer, False) for answer in (FAILURE, SECRET, UNKNOWN)),
        (SECRET, attributes(), False),
        (NO_FILE, NO_FILE, None),
        (None, NO_FILE, None),
    ],
)
def test_a_removal_that_is_refused_without_a_reason_is_possibly_one_of_a_locked_file(
    session: SftpSession,
    removal: Exception | None,
    answer: asyncssh.SFTPAttrs | Exception,
    possibly_busy: bool | None,
) -> None:
    """Unless the server says that there is no file, or does not say whether there is one."""
    session._sftp = Server(answer, removal=removal)  # type: ignore[assignment]
    if possibly_busy is None:
        session.remove("x/a")
        return
    with pytest.raises(DestinationError) as caught:
        session.remove("x/a")
    assert caught.value.is_possibly_busy is possibly_busy
    assert caught.value.affects_all is (removal is SECRET), "other files are taken meanwhile"


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        (attributes(3), ["remove x/old"]),
        (NO_FILE, ["rename x/old x/a"]),
        (SECRET, []),  # a server whose renames replace files would replace the new one
    ],
)
def test_an_old_file_gets_its_name_again_only_where_certainly_no_other_one_is(
    session: SftpSession, answer: asyncssh.SFTPAttrs | Exception, calls: list[str]
) -> None:
    server = Server(answer)
    session._sftp = server  # type: ignore[assignment]
    session._options = SessionOptions("t", 2, lambda: False, is_single=True)
    session._aside["x"] = [(1, None, "x/old")]
    session.remove_leftovers("x/a")
    assert server.calls == calls
