"""Downloads the files of a finished job, verifies them, and then gives them their names."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from uuid import UUID

from streaming_exporter.api_answers import JobFile, is_unknown_job
from streaming_exporter.client import CHUNK_BYTES, Client
from streaming_exporter.download_parts import Part
from streaming_exporter.errors import ApiError, DownloadError
from streaming_exporter.file_names import find_same, save

AT_A_TIME = 4
"""Files that are downloaded at a time."""

TRIES = 3
"""How often the download of a file is continued after a failure."""

PAUSE_SECONDS = 1.0

MAX_PAUSE_SECONDS = 60.0
"""The longest pause that an answer with ``Retry-After`` makes."""


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
    interrupted is continued: its bytes are in a hidden file whose name has the SHA-256. A second download of
    the job into the same folder, at the same time, begins from the first byte, in hidden files of its own.

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

    The first error of a file ends the downloads of all files.
    """
    try:
        files = api.files(job_id)
    except ApiError as error:
        if not is_unknown_job(error):
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
            wait(running, return_when=FIRST_EXCEPTION)
        finally:  # at the first error, and if the wait is interrupted
            fetched.stop()
            for each in running:
                each.cancel()
        wait(running)
        return _results(running)


def _results(ended: Sequence["Future[Path]"]) -> list[Path]:
    """Return the results of all downloads, or raise the error of the first one that failed by itself."""
    errors = [error for each in ended if not each.cancelled() and (error := each.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
        raise error
    return [each.result() for each in ended]


class _Stopped(DownloadError):
    """The download ends because another one has failed."""


class _Progress:
    """The bytes of all downloads so far."""

    def __init__(self, total: int, report: Callable[[int, int], None]) -> None:
        self._total = total
        self._report = report
        self._done = 0
        self._stopped = Event()
        self._lock = Lock()

    @property
    def is_stopped(self) -> bool:
        """Whether all downloads must end: one has failed, or the caller has cancelled them."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Make all downloads end."""
        self._stopped.set()

    def pause(self, seconds: float) -> None:
        """Wait, and report the progress each second: the report of a cancelled download raises.

        Raises:
            DownloadError: another download has failed, also during the pause.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._stopped.wait(min(1.0, left))
            self.add(0)

    def add(self, count: int) -> None:
        """Count more bytes; fewer, where a download begins anew.

        Raises:
            DownloadError: another download has failed.
        """
        if self.is_stopped:
            raise _Stopped("another file could not be downloaded")
        with self._lock:
            self._done += count
            try:
                self._report(self._done, self._total)
            except BaseException:
                self.stop()
                raise


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
            with Part(self.part) as part:
                self._fill(part)
                return self._save(part)
        except OSError as error:
            raise DownloadError(f"cannot write {self.target}: {error.strerror}") from error

    def _fill(self, part: Part) -> None:
        """Download what is missing in the part; try again while there is progress."""
        for number in range(1, TRIES + 1):
            before, pause = part.size, PAUSE_SECONDS
            try:
                self._continue(part)
                return
            except ApiError as error:  # the API gives the link to the file
                if not error.is_retryable or number == TRIES or self.progress.is_stopped:
                    raise
                pause = max(PAUSE_SECONDS, min(error.retry_after or 0.0, MAX_PAUSE_SECONDS))
            except DownloadError:
                after = part.size
                # Bytes of an earlier try can be damaged, and are removed then: the file begins anew.
                begins_anew = before > 0 and after == 0
                is_last = number == TRIES or self.progress.is_stopped
                if is_last or (after <= before and not begins_anew):
                    raise
            self.progress.pause(pause)

    def _continue(self, part: Part) -> None:
        """Write what is missing to the part, and verify it."""
        digest, done = hashlib.sha256(), 0
        part.rewind()
        while chunk := part.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
        self.progress.add(done)
        try:
            if done < self.file.file_size:
                with self.api.file(self.job_id, self.file.number, start=done) as chunks:
                    for chunk in chunks:
                        self.progress.add(len(chunk))  # raises if it was stopped, so it writes no more
                        done += len(chunk)
                        part.write(chunk)
                        digest.update(chunk)
        except (ApiError, DownloadError):
            if not self.progress.is_stopped:
                self.progress.add(-done)
            raise
        length = part.size  # more than was written here, if another program writes to the file
        if (done, length, digest.hexdigest()) != (self.file.file_size, done, self.file.sha256):
            part.clear()
            self.progress.add(-done)
            raise DownloadError(
                f"{self.target.name} was damaged on the way: {length} of {self.file.file_size} bytes, "
                f"sha256 {digest.hexdigest()} instead of {self.file.sha256}; download it again"
            )

    def _save(self, part: Part) -> Path:
        """Give the part its name; return its path, or that of the same file if another download was first."""
        there = find_same(self.target, self.file.file_size, self.file.sha256, overwrite=self.overwrite)
        if there is not None:
            part.clear()
            return there
        part.prepare_rename()
        return save(part.path, self.target, overwrite=self.overwrite)


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
