"""Encryption of a file, the last stage before the upload: age, or a zip archive with a password."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any, Protocol

from isal import isal_zlib

from stream_app.datasets.encryption import NO_PASSWORDS, AgeKey, age_key
from stream_app.exports.files.passwords import FilePasswords
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Encrypt

PIECE = 2**18
"""Bytes of the pieces that are handed on."""

PIECES = 4
"""Pieces that wait between the two threads of an encryption with age."""

OWNER_ONLY = 0o600
"""Permissions of a file that is unpacked."""

ZIP_SUFFIX, ZIP_TYPE = ".zip", "application/zip"
AGE_SUFFIX, AGE_TYPE = ".age", "application/age"

AGE_CHUNK = 2**16
AGE_TAG = 16
"""age encrypts chunks of this many bytes, each with a tag of that many bytes (age-encryption.org/v1)."""

AGE_HEADER = 512
AGE_STANZA = 1_024
"""The most bytes of the header of an age file, without its recipients and for each of them."""

ZIP_FRAME = 2_048
"""The most bytes that a zip archive of one file has beside its content: headers, salt, code, directory."""

ZIP_GROWTH = 1.001
"""The most that deflate adds to bytes that it cannot compress, as a factor."""


class Encryption(Protocol):
    """How the files of an export are encrypted."""

    @property
    def suffix(self) -> str:
        """What is added to the names of files."""

    @property
    def media_type(self) -> str:
        """The media type of an encrypted file."""

    def apply(self, chunks: Iterator[bytes], *, name: str, time: datetime) -> Iterator[bytes]:
        """Yield the encrypted file. Its memory does not depend on the size of ``chunks``.

        Args:
            chunks: the file.
            name: the name of the file before it is encrypted.
            time: the time of the file.
        """

    def room(self, limit: int) -> int:
        """Return how many bytes a file can have that is to be no larger than ``limit`` when encrypted."""

    def described(self) -> dict[str, object]:
        """Return the encryption for the manifest."""


def encryption_for(encrypt: Encrypt | None, job: str, passwords: FilePasswords | None) -> Encryption | None:
    """Return the encryption that a request asks for; ``None`` for files that are not encrypted.

    Args:
        encrypt: what the request asks for.
        job: the id of the job.
        passwords: makes the passwords, if the service has a secret for them.

    Raises:
        Rejected: a public key is invalid, or there is no secret.
    """
    if encrypt is None:
        return None
    if encrypt.age is not None:
        return AgeEncryption([age_key(key) for key in encrypt.age], encrypt.age)
    if passwords is None:
        raise Rejected(NO_PASSWORDS, code="missing_secret", field="encrypt.zip_password")
    return ZipEncryption(passwords(job), passwords.fingerprint)


FINGERPRINT = "password_key"
"""Field of a manifest: the fingerprint of the key that the password was made with."""


def encryption_facts(encryption: Encryption | None) -> dict[str, Any]:
    """Return what a manifest says about the encryption of the files."""
    if encryption is None:
        return {}
    facts: dict[str, Any] = {"encryption": encryption.described()}
    return facts | ({FINGERPRINT: encryption.key} if isinstance(encryption, ZipEncryption) else {})


@dataclass(frozen=True, slots=True)
class ZipEncryption:
    """A zip archive with one file (AES-256, WinZip's AE-2). ``key`` is the fingerprint of its key."""

    password: str = field(repr=False)
    key: str = ""
    suffix: str = ZIP_SUFFIX
    media_type: str = ZIP_TYPE

    def apply(self, chunks: Iterator[bytes], *, name: str, time: datetime) -> Iterator[bytes]:
        """Yield the archive with the file. The names of files in a zip archive are not encrypted."""
        from stream_zip import ZIP_64, stream_zip  # a large library that few processes need

        members = [(name, time, OWNER_ONLY, ZIP_64, chunks)]
        yield from stream_zip(members, chunk_size=PIECE, get_compressobj=_deflate, password=self.password)

    def room(self, limit: int) -> int:
        """Return how many bytes the file can have so that its archive is no larger than ``limit``."""
        return max(1, int((limit - ZIP_FRAME) / ZIP_GROWTH))

    def described(self) -> dict[str, object]:
        """Return the encryption for the manifest."""
        return {"zip_password": True}


def _deflate() -> Any:
    return isal_zlib.compressobj(level=isal_zlib.ISAL_DEFAULT_COMPRESSION, wbits=-15)


@dataclass(frozen=True, slots=True)
class AgeEncryption:
    """A file in the format of age, for the holders of some private keys."""

    keys: Sequence[AgeKey]
    names: Sequence[str]
    suffix: str = AGE_SUFFIX
    media_type: str = AGE_TYPE

    def apply(self, chunks: Iterator[bytes], *, name: str, time: datetime) -> Iterator[bytes]:
        """Yield the encrypted file."""
        return _pulled(lambda write: _encrypt(chunks, write, self.keys))

    def room(self, limit: int) -> int:
        """Return how many bytes a file can have so that it is no larger than ``limit`` when encrypted."""
        content = limit - AGE_HEADER - AGE_STANZA * len(self.keys) - AGE_TAG
        return max(1, content * AGE_CHUNK // (AGE_CHUNK + AGE_TAG))

    def described(self) -> dict[str, object]:
        """Return the encryption for the manifest, with the public keys."""
        return {"age": list(self.names)}


def _encrypt(chunks: Iterator[bytes], write: Callable[[bytes], None], keys: Sequence[AgeKey]) -> None:
    """Encrypt ``chunks`` with the library. An error of ``chunks`` or of ``write`` passes as it is."""
    import pyrage  # a native library, which few exports need

    reader, writer = _Reader(chunks), _Writer(write)
    try:
        pyrage.encrypt_io(reader, writer, list(keys))
        writer.flush()
    except Exception as error:
        raise reader.failure or writer.failure or error from None


class _Reader:
    """What the library reads from: the chunks as a file.

    The library replaces each error by one of its own, so ``failure`` keeps it.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")
        self.failure: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, and none at the end."""
        while not self._left:
            try:
                chunk = next(self._chunks, None)
            except BaseException as error:
                self.failure = error
                raise
            if chunk is None:
                return b""
            self._left = memoryview(chunk)
        taken = self._left if size < 0 else self._left[:size]
        self._left = self._left[len(taken) :]
        return bytes(taken)


class _Writer:
    """What the library writes to: hands on pieces of :data:`PIECE` bytes."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._held = bytearray()
        self.failure: BaseException | None = None

    def write(self, data: bytes) -> int:
        """Take all of ``data``."""
        self._held += data
        if len(self._held) >= PIECE:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Hand on what is held back."""
        if self._held:
            try:
                self._write(bytes(self._held))
            except BaseException as error:
                self.failure = error
                raise
            self._held.clear()


class _Stopped(Exception):
    """Ends the thread whose reader does not want any more."""


def _pulled(push: Callable[[Callable[[bytes], None]], None]) -> Generator[bytes]:
    """Yield what ``push`` writes. It runs in a thread of its own, at most :data:`PIECES` pieces ahead.

    An error of ``push`` is raised here. When the generator is closed the thread ends first.
    """
    queue: Queue[bytes | None] = Queue(PIECES)
    failure: list[BaseException] = []
    stopped = False

    def write(data: bytes) -> None:
        while not stopped:
            with suppress(Full):
                return queue.put(data, timeout=1)
        raise _Stopped

    def run() -> None:
        try:
            push(write)
        except BaseException as error:
            failure.append(error)
        while not stopped:
            with suppress(Full):
                return queue.put(None, timeout=1)

    thread = Thread(target=copy_context().run, args=(run,), name="encryption", daemon=True)
    thread.start()
    try:
        while (data := queue.get()) is not None:
            yield data
        if failure:
            raise failure[0]
    finally:
        stopped = True
        with suppress(Empty):
            while True:
                queue.get_nowait()
        thread.join()
