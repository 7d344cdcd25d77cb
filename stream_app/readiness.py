"""The file by which a worker says that it is ready: touched while it is, gone or old when it is not."""

import time
from pathlib import Path

FRESH_SECONDS = 15.0


def say_ready(file: Path, ready: bool) -> None:
    """Touch or remove the file.

    Raises:
        OSError: the folder cannot be written.
    """
    if ready:
        file.touch()
    else:
        file.unlink(missing_ok=True)


def is_ready(file: Path | None) -> bool:
    """Whether the file was touched lately: a worker that hangs does not."""
    try:
        return file is not None and time.time() - file.stat().st_mtime < FRESH_SECONDS
    except FileNotFoundError:
        return False
