"""Checks that the folder for temporary files holds the large parts of the largest files."""

import tempfile
from collections.abc import Iterator

from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.settings import Settings
from stream_app.storage.parts import largest_file_on, temporary_bytes

AREA = FindingFactory("temporary folder")


def check_temporary_folder(settings: Settings) -> Iterator[Finding]:
    """Yield how large files can be with the free space of this process's folder.

    Larger exports are divided into several files. That is a warning only if the settings ask for larger ones.
    """
    free = temporary_bytes()
    largest = largest_file_on(free)
    if "split_max_bytes" in settings.model_fields_set and settings.split_max_bytes > largest:
        yield AREA.warning(
            "EXPORTER_SPLIT_MAX_BYTES",
            "small_temporary_folder",
            gib=round(largest / 2**30),
            free=round(free / 2**30, 1),
        )
        return
    most = min(largest, settings.split_max_bytes) / 2**30
    yield AREA.ok(_folder(), f"{free / 2**30:,.1f} GiB free, enough for a file of {most:,.0f} GiB")


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "missing"
