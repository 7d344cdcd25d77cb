"""Writes files to an SFTP server: under a temporary name first, then renamed.

The library is asynchronous. A session has an event loop of its own in its thread, so that the encryption of
the connection does not delay the worker's loop.
"""

import asyncio
import hashlib
import posixpath
import re
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from operator import itemgetter
from typing import Any, Literal, TypeVar

import asyncssh
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_UNKNOWN

from stream_app.datasets.destinations import SftpDestination
from stream_app.destinations import errors
from stream_app.destinations.errors import DestinationError
from stream_app.destinations.secrets import secret_of
from stream_app.destinations.session import OutgoingFile, SessionOptions
from stream_app.destinations.sftp_errors import LOST, detail_of, error_of, sftp_errors
from stream_app.storage.chunk_errors import marked

T = TypeVar("T")

CONNECT_SECONDS = 20.0
"""Time-out of the connection and of the sign-in."""
CALL_SECONDS = 60.0
"""Time-out of one call, such as writing one chunk. A slow server has to take a chunk in this time."""
CLOSE_SECONDS = 5.0

PROBE_LIMIT = 2**20
READ_BLOCK = 2**20

_GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)

_UNANSWERED = (asyncssh.SFTPPermissionDenied, asyncssh.SFTPOpUnsupported, asyncssh.SFTPFailure)
"""The errors after which it is not known whether a path exists.

The server does not permit the question, does not have this call, or gives no reason.
"""


class SftpSession:
    """A connection to an SFTP server; see :class:`~stream_app.destinations.session.Session`."""

    def __init__(self, destination: SftpDestination, options: SessionOptions) -> None:
        """Connect and sign in.

        Raises:
            DestinationError: the server cannot be reached, has another host key, or refuses the sign-in.
        """
        self._destination = destination
        self._options = options
        self._folder = destination.prefix
        self._known_folders: set[str] = set()
        self._aside: dict[str, list[tuple[int, str | None, str]]] = {}
        """The old files that earlier attempts have renamed, by folder: attempt, digest of the name, path."""
        self._runner = asyncio.Runner()
        self._connection: asyncssh.SSHClientConnection | None = None
        try:
            with sftp_errors():
                self._sftp = self._call(self._connect(), CONNECT_SECONDS)
        except BaseException:
            self.close()
            raise

    async def _connect(self) -> asyncssh.SFTPClient:
        destination = self._destination
        self._connection = await asyncssh.connect(
            destination.host.strip("[]"),
            destination.port,
            username=destination.user,
            known_hosts=_trusted(destination),
            connect_timeout=CONNECT_SECONDS,
            login_timeout=CONNECT_SECONDS,
            keepalive_interval=15,
            agent_path=None,
            config=None,
            gss_host=None,
            client_host_keysign=False,
            **_sign_in(destination),
        )
        return await self._connection.start_sftp_client()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None

        async def end() -> None:
            if connection is not None:
                connection.close()
                await connection.wait_closed()

        try:
            with suppress(OSError, TimeoutError, asyncssh.Error):
                self._call(end(), CLOSE_SECONDS)
            if connection is not None:
                connection.abort()
        finally:
            self._runner.close()

    def _call(self, call: Coroutine[Any, Any, T], seconds: float = CALL_SECONDS) -> T:
        async def limited() -> T:
            async with asyncio.timeout(seconds):
                return await call

        return self._runner.run(limited())

    def remove_leftovers(self, path: str) -> None:
        """Remove the temporary files of earlier attempts in the folder of ``path``. Errors are ignored.

        A session lists a folder once, because a folder can have many files. The old file of an attempt that
        died before it had put the new one in its place gets its name again. Old files of version 0.2.0, whose
        names do not tell their paths, stay where the delivery has several files.
        """
        target = self._path(path)
        folder = posixpath.dirname(target)
        with suppress(DestinationError), sftp_errors():
            if folder not in self._aside:
                self._aside[folder] = []
                self._remove_temporary_files(folder)
            for item in sorted(self._aside[folder], key=itemgetter(0), reverse=True):
                _, digest, aside = item
                is_its = digest == _digest(target) if digest is not None else self._options.is_single
                if not is_its:
                    continue
                self._aside[folder].remove(item)
                with suppress(asyncssh.SFTPError):
                    found = self._stat(target)
                    if found:
                        self._call(self._sftp.remove(aside))
                    elif found is False:  # some servers replace files when they rename
                        self._call(self._sftp.rename(aside, target))

    def _remove_temporary_files(self, folder: str) -> None:
        """Remove unfinished files of earlier attempts, and note the old files that they have renamed."""
        pattern = re.compile(
            rf"\.{re.escape(self._options.tag)}-([0-9]+)(?:\.part|(?:\.([0-9a-f]{{8}}))?\.old)\Z"
        )
        for name in self._call(self._sftp.listdir(folder or ".")):
            found = pattern.search(str(name))
            if found is None or int(found[1]) >= self._options.attempt:
                continue
            path = posixpath.join(folder, str(name))
            if path.endswith(".old"):
                self._aside[folder].append((int(found[1]), found[2], path))
                continue
            with suppress(asyncssh.SFTPError):
                self._call(self._sftp.remove(path))

    def put(self, file: OutgoingFile, chunks: Iterator[bytes]) -> None:
        """Write a file under a temporary name, compare its size, and rename it."""
        target = self._path(file.path)
        folder = posixpath.dirname(target)
        options = self._options
        # Another attempt that still runs, such as that of a frozen worker, has another temporary name.
        temporary = posixpath.join(folder, f".{options.tag}-{options.attempt}.part")
        with sftp_errors():
            self._make_folders(folder)
            try:
                self._write(temporary, chunks)
                self._check_size(temporary, file.size)
                options.check()
                self._rename(temporary, target)
            except BaseException:
                with suppress(OSError, TimeoutError, asyncssh.Error):
                    self._call(self._sftp.remove(temporary), CLOSE_SECONDS)
                raise

    def _write(self, path: str, chunks: Iterator[bytes]) -> None:
        """Write a new file."""

        async def open_file() -> asyncssh.SFTPClientFile:
            return await self._sftp.open(path, "wb")

        opened = self._call(open_file())
        try:
            for chunk in marked(chunks):
                self._call(opened.write(chunk))
            with suppress(asyncssh.SFTPOpUnsupported):
                self._call(opened.fsync())
        finally:
            self._call(opened.close())

    def _check_size(self, path: str, size: int) -> None:
        """Compare the size of a file that was written. Servers that tell no sizes have taken each block."""
        found = self._stat(path)
        if found is False:
            raise DestinationError(errors.FAILED, detail=f"{path} is not there after it was written")
        if found is not None and found.size not in (None, size):
            text = f"{path} has {found.size} bytes instead of {size}"
            raise DestinationError(errors.FAILED, detail=text)

    def _rename(self, temporary: str, target: str) -> None:
        try:
            try:
                self._call(self._sftp.posix_rename(temporary, target))
            except asyncssh.SFTPOpUnsupported:
                self._replace(temporary, target)
        except asyncssh.SFTPError as error:
            if isinstance(error, LOST):
                raise
            raise error_of(error, text=errors.RENAME_REFUSED) from error

    def _replace(self, temporary: str, target: str) -> None:
        """Rename with the operation of SFTP itself, which replaces no file.

        The old file has another name meanwhile, and gets its own again if the server refuses the new one.
        """
        aside, is_aside = f"{temporary.removesuffix('.part')}.{_digest(target)}.old", True
        try:
            self._call(self._sftp.rename(target, aside))
        except asyncssh.SFTPError:
            if self._stat(target):
                raise
            is_aside = False
        try:
            self._call(self._sftp.rename(temporary, target))
        except BaseException:
            if is_aside:
                with suppress(OSError, TimeoutError, asyncssh.Error):
                    self._call(self._sftp.rename(aside, target), CLOSE_SECONDS)
            raise
        if is_aside:
            with suppress(asyncssh.SFTPError):
                self._call(self._sftp.remove(aside))

    def _make_folders(self, folder: str) -> None:
        """Make the folders that do not exist."""
        missing = []
        while folder and folder != "/" and folder not in self._known_folders:
            if self._is_folder(folder):
                break
            missing.append(folder)
            folder = posixpath.dirname(folder)
        for path in reversed(missing):
            try:
                self._call(self._sftp.mkdir(path))
            except asyncssh.SFTPError:
                if self._is_folder(path) is False:  # else another worker has possibly made it
                    raise
        self._known_folders.update(missing)

    def _is_folder(self, path: str) -> bool | None:
        """Return whether there is a folder; ``None`` if the server does not say."""
        found = self._stat(path)
        if not isinstance(found, asyncssh.SFTPAttrs):
            return found
        return found.type in (FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_UNKNOWN)

    def _stat(self, path: str) -> asyncssh.SFTPAttrs | Literal[False] | None:
        """Return the attributes of a path; False if nothing is there, ``None`` if the server does not say.

        Servers of version 3 can leave out the size and the type.
        """
        try:
            return self._call(self._sftp.stat(path))
        except _GONE:
            return False
        except _UNANSWERED:
            return None

    def copy(self, file: OutgoingFile, bucket: str, key: str) -> bool:
        """Return False: the files are not on this server."""
        return False

    def read(self, path: str) -> bytes:
        """Return the content of a small file."""

        async def read() -> bytes:
            async with self._sftp.open(self._path(path), "rb") as opened:
                content = await opened.read(PROBE_LIMIT)
                return content.encode() if isinstance(content, str) else bytes(content)

        with sftp_errors():
            return self._call(read())

    def has(self, file: OutgoingFile) -> bool | None:
        """Compare the size of the file, and then its content."""
        path, digest = self._path(file.path), hashlib.sha256()

        async def block(offset: int) -> bytes:
            async with self._sftp.open(path, "rb") as opened:
                content = await opened.read(READ_BLOCK, offset)
                return content.encode() if isinstance(content, str) else bytes(content)

        with sftp_errors():
            found = self._stat(path)
            if not isinstance(found, asyncssh.SFTPAttrs):
                return found
            if found.size not in (None, file.size):
                return False
            try:
                for offset in range(0, file.size + 1, READ_BLOCK):  # with a larger file the digest differs
                    self._options.check()  # a large file takes long
                    digest.update(self._call(block(offset)))
            except _GONE:
                return False
            except _UNANSWERED:
                return None
        return digest.hexdigest() == file.sha256

    def exists(self, path: str) -> bool | None:
        """Return whether there is a file; ``None`` if the server does not say."""
        with sftp_errors():
            found = self._stat(self._path(path))
            return found if found is None else bool(found)

    def remove(self, path: str) -> None:
        """Remove a file.

        Version 3 of the protocol has no status for a locked file: servers on Windows answer with the general
        failure, while a receiver has the file open. Others give that answer for a file that does not exist.
        """
        target = self._path(path)
        with sftp_errors(), suppress(*_GONE):
            try:
                self._call(self._sftp.remove(target))
            except asyncssh.SFTPFailure as error:
                found = self._stat(target)
                if found is False:
                    return
                raise DestinationError(
                    errors.NOT_REMOVED,
                    detail=detail_of(error),
                    affects_all=False,
                    is_possibly_busy=found is not None,
                ) from error

    def _path(self, path: str) -> str:
        return posixpath.join(self._folder, path)


def _digest(path: str) -> str:
    """Return a short text that tells the files of a folder apart."""
    return hashlib.sha256(posixpath.basename(path).encode(errors="surrogatepass")).hexdigest()[:8]


def _trusted(destination: SftpDestination) -> Any:
    """Return the keys that the server can have: the pinned ones, or those of a file.

    Raises:
        DestinationError: they cannot be read.
    """
    try:
        if destination.known_hosts is not None:
            return asyncssh.read_known_hosts(str(destination.known_hosts))
        return [asyncssh.import_public_key(key) for key in destination.host_key or ()], [], []
    except (OSError, ValueError, asyncssh.KeyImportError) as error:
        raise DestinationError(
            "the service cannot read the destination's host keys", detail=f"host keys: {error}"
        ) from error


def _sign_in(destination: SftpDestination) -> dict[str, Any]:
    """Return the arguments with the secrets. No key of the service's own user is used."""
    password = secret_of(destination, "password")
    key, passphrase = secret_of(destination, "private_key"), secret_of(destination, "passphrase")
    keys = []
    if key is not None:
        try:
            keys.append(asyncssh.import_private_key(key if key.endswith("\n") else f"{key}\n", passphrase))
        except (ValueError, asyncssh.KeyImportError) as error:
            raise DestinationError(
                "the service cannot read its key for the destination",
                detail=f"private key: {type(error).__name__}",
            ) from error
    methods = [*(["publickey"] if keys else []), *(["password", "keyboard-interactive"] if password else [])]
    return {"client_keys": keys or None, "password": password, "preferred_auth": methods}
