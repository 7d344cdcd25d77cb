"""Downloads the file of a finished job, verifies it, and then gives it its name."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from streaming_exporter.client import Client
from streaming_exporter.errors import DownloadError


def fetch(
    api: Client, job_id: UUID, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Download the file into ``folder``; call ``progress(bytes so far, bytes in total)`` repeatedly.

    A file of the same name is replaced in one step, so no reader sees half a file.

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
        raise DownloadError(f"cannot write to {folder}: {error.strerror}; choose another --output") from error
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
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    except OSError as error:
        raise DownloadError(f"cannot write {target}: {error.strerror}") from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
