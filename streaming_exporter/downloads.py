"""Downloads the files of a finished job, verifies them, and then gives them their names."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from uuid import UUID

from streaming_exporter.api_answers import JobFile
from streaming_exporter.client import CHUNK_BYTES, Client
from streaming_exporter.errors import ApiError, DownloadError
from streaming_exporter.file_names import find_same, save

AT_A_TIME = 4
"""Files that are downloaded at a time."""

TRIES = 3
"""How often the download of a file is continued after a failure."""

PAUSE_SECONDS = 1.0


def fetch_all(
    api: Client,
    job_id: UUID,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Download all files of a job into ``folder``, some at a time; call ``progress`` as :func:`fetch` does.

    A file that is there already, with the same SHA-256, is not downloaded again. A download that was
    interrupted is continued: its bytes are in a hidden file whose name has the SHA-256.

    Args:
        api: the API.
        job_id: the job.
        folder: the folder.
        progress: gets the bytes so far, and the bytes in total.
        overwrite: replace files of the same names with other content. Otherwise the new file's name gets a
            number, such as ``ledger (2).csv``.

    Raises:
        DownloadError: a file differs from that of the service, or cannot be written.
        ApiError: the API refuses the call, for example because the job is not finished.
    """
    try:
        files = api.files(job_id)
    except ApiError as error:
        if error.status != 404:
            raise
        return [fetch(api, job_id, folder, progress, overwrite=overwrite)]  # an API of version 0.1
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    fetched = _Progress(sum(file.file_size for file in files), progress)
    downloads = [_Download(api, job_id, file, folder, fetched, overwrite) for file in files]
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        running = [threads.submit(download.run) for download in downloads]
        try:
            return [each.result() for each in running]
        except BaseException:
            fetched.stop()
            for each in running:
                each.cancel()
            raise


class _Progress:
    """The bytes of all downloads so far."""

    def __init__(self, total: int, report: Callable[[int, int], None]) -> None:
        self._total = total
        self._report = report
        self._done = 0
        self._stopped = False
        self._lock = Lock()

    def stop(self) -> None:
        """Make all downloads end."""
        self._stopped = True

    def add(self, count: int) -> None:
        """Count more bytes; fewer, where a download begins anew.

        Raises:
            DownloadError: another download has failed.
        """
        if self._stopped:
            raise DownloadError("another file could not be downloaded")
        with self._lock:
            self._done += count
            self._report(self._done, self._total)


@dataclass(frozen=True, slots=True)
class _Download:
    """The download of one file."""

    api: Client
    job_id: UUID
    file: JobFile
    folder: Path
    progress: _Progress
    overwrite: bool

    @property
    def target(self) -> Path:
        return self.folder / (Path(self.file.file_name).name or f"{self.job_id}-{self.file.number}")

    @property
    def part(self) -> Path:
        return self.folder / f".{self.target.name}.{self.file.sha256[:16]}.part"

    def run(self) -> Path:
        """Download the file, unless it is there; return its path."""
        try:
            there = find_same(self.target, self.file.file_size, self.file.sha256, overwrite=self.overwrite)
            if there is not None:
                self.progress.add(self.file.file_size)
                return there
            for number in range(1, TRIES + 1):
                before = self.part.stat().st_size if self.part.exists() else 0
                try:
                    self._continue()
                    break
                except DownloadError:
                    after = self.part.stat().st_size if self.part.exists() else 0
                    # Bytes of an earlier try can be damaged, and are removed then: the file begins anew.
                    begins_anew = before > 0 and not self.part.exists()
                    if number == TRIES or (after <= before and not begins_anew):
                        raise
                time.sleep(PAUSE_SECONDS)
            return save(self.part, self.target, overwrite=self.overwrite)
        except OSError as error:
            raise DownloadError(f"cannot write {self.target}: {error.strerror}") from error

    def _continue(self) -> None:
        """Append what is missing to the part, and verify it."""
        digest, done = hashlib.sha256(), 0
        with self.part.open("a+b") as part:
            part.seek(0)
            while chunk := part.read(CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
            self.progress.add(done)
            try:
                if done < self.file.file_size:
                    with self.api.file(self.job_id, self.file.number, start=done) as chunks:
                        for chunk in chunks:
                            part.write(chunk)
                            digest.update(chunk)
                            done += len(chunk)
                            self.progress.add(len(chunk))
            except DownloadError:
                self.progress.add(-done)
                raise
        if (done, digest.hexdigest()) != (self.file.file_size, self.file.sha256):
            self.progress.add(-done)
            self.part.unlink()
            raise DownloadError(
                f"{self.target.name} was damaged on the way: {done} of {self.file.file_size} bytes, "
                f"sha256 {digest.hexdigest()} instead of {self.file.sha256}; download it again"
            )


def fetch(
    api: Client,
    job_id: UUID,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    overwrite: bool = False,
) -> Path:
    """Download the file into ``folder``; call ``progress(bytes so far, bytes in total)`` repeatedly.

    The file gets its name in one step, so no reader sees half a file. If another file has the name, the new
    name has a number, unless ``overwrite`` is set. A file with the same content stays as it is.

    Raises:
        DownloadError: the downloaded bytes differ from those of the service.
        ApiError: the API refuses the call, for example because the job is not finished.
    """
    manifest = api.manifest(job_id)
    target = folder / (Path(manifest["file_name"]).name or str(job_id))
    size: int = manifest["bytes"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{target.name}.")
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, api.file(job_id) as chunks:
            digest, done = hashlib.sha256(), 0
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress(done, size)
        if (done, digest.hexdigest()) != (size, manifest["sha256"]):
            raise DownloadError(
                f"{target.name} was damaged on the way: {done} of {size} bytes, "
                f"sha256 {digest.hexdigest()} instead of {manifest['sha256']}; download it again"
            )
        there = find_same(target, size, manifest["sha256"], overwrite=overwrite)
        if there is not None:
            return there
        part.chmod(0o666 & ~_umask())
        return save(part, target, overwrite=overwrite)
    except OSError as error:
        raise DownloadError(f"cannot write {target}: {error.strerror}") from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
